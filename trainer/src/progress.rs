//! Progress on stderr: a bar on a terminal, else a line every tenth of the way,
//! unless the stage is over within seconds.

#![allow(clippy::print_stderr, reason = "progress goes there")]

use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

/// Seconds that a stage may take without a word.
const QUICK: f64 = 1.0;

/// What people should know before the work begins.
pub fn warn(message: &str) {
    eprintln!("dwf: warning: {message}");
}

/// One stage's progress. Shared between threads.
pub struct Progress {
    bar: ProgressBar,
    stage: &'static str,
    total: u64,
    done: AtomicU64,
}

impl Progress {
    /// A stage of `total` steps, called `stage`.
    pub fn new(stage: &'static str, total: usize) -> Self {
        let template = "{prefix:10} {wide_bar} {pos}/{len}  {msg}  {eta} left";
        let style = ProgressStyle::with_template(template).expect("a valid template");
        let bar = ProgressBar::new(total as u64)
            .with_style(style)
            .with_prefix(stage);
        Self {
            bar,
            stage,
            total: total as u64,
            done: AtomicU64::new(0),
        }
    }

    /// One step is done; `message` is asked for when it is shown.
    pub fn step(&self, message: impl Fn() -> String) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.bar.is_hidden() {
            // Messages cost more than steps of training can spare.
            if done.is_multiple_of(16) || done == self.total {
                self.bar.set_message(message());
                self.bar.set_position(done);
            }
        } else if done * 10 / self.total != (done - 1) * 10 / self.total {
            let seconds = self.bar.elapsed().as_secs_f64();
            if seconds < QUICK {
                return;
            }
            let left = seconds / done as f64 * (self.total - done) as f64;
            let percent = done * 100 / self.total;
            eprintln!("{} {percent}%  {}  {left:.0} s left", self.stage, message());
        }
    }

    /// The stage is over; its bar stays.
    pub fn finish(self) {
        self.bar.finish();
        if !self.bar.is_hidden() {
            // The bar leaves the cursor behind itself.
            eprintln!();
        }
    }
}
