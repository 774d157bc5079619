//! What a command says while it works. To people, on stderr: a bar on a terminal, else a line
//! every tenth of the way, unless the stage is over within seconds. To scripts, on stdout: a JSON
//! object a line.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "progress goes there"
)]

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Seconds that a stage may take without a word.
const QUICK: f64 = 1.0;
/// Milliseconds between two events for scripts.
const EVENT_INTERVAL: u64 = 500;

static JSON: AtomicBool = AtomicBool::new(false);

/// From now on, scripts are told: every line of stdout is a JSON object with the key `event`.
pub fn use_json() {
    JSON.store(true, Ordering::Relaxed);
}

/// Whether scripts are told instead of people.
pub fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Tells scripts of something; people are told otherwise.
pub fn event(kind: &str, mut fields: Value) {
    if is_json() {
        fields["event"] = kind.into();
        println!("{fields}");
    }
}

/// What people should know before the work begins.
pub fn warn(message: &str) {
    if is_json() {
        event("warning", json!({ "message": message }));
    } else {
        eprintln!("dwf: warning: {message}");
    }
}

/// What came of the work, on stdout.
pub fn say(message: &str) {
    if is_json() {
        event("message", json!({ "message": message }));
    } else {
        println!("{message}");
    }
}

/// One stage's progress. Shared between threads.
pub struct Progress {
    bar: ProgressBar,
    stage: &'static str,
    total: u64,
    done: AtomicU64,
    /// Steps that an earlier process did.
    before: AtomicU64,
    start: Instant,
    /// Milliseconds from the start to the newest event.
    told: AtomicU64,
}

impl Progress {
    /// A stage of `total` steps, called `stage`.
    pub fn new(stage: &'static str, total: usize) -> Self {
        Self::resumed(stage, total, 0)
    }

    /// The same where `done` steps were done earlier.
    pub fn resumed(stage: &'static str, total: usize, done: usize) -> Self {
        let template = "{prefix:10} {wide_bar} {pos}/{len}  {msg}  {eta} left";
        let style = ProgressStyle::with_template(template).expect("a valid template");
        let bar = if is_json() {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(total as u64)
        };
        bar.set_position(done as u64);
        bar.reset_eta();
        Self {
            bar: bar.with_style(style).with_prefix(stage),
            stage,
            total: total as u64,
            done: AtomicU64::new(done as u64),
            before: AtomicU64::new(done as u64),
            start: Instant::now(),
            told: AtomicU64::new(0),
        }
    }

    /// A step that an earlier process did.
    pub fn skip(&self) {
        self.before.fetch_add(1, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Relaxed);
        self.bar.inc(1);
        self.bar.reset_eta();
    }

    /// One step is done; `message` is asked for when it is shown.
    pub fn step(&self, message: impl Fn() -> String) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if is_json() {
            self.tell(done, &message);
        } else if !self.bar.is_hidden() {
            // Messages cost more than steps of training can spare; dear steps are few.
            if done.is_multiple_of((self.total / 100).clamp(1, 16)) || done == self.total {
                self.bar.set_message(message());
                self.bar.set_position(done);
            }
        } else if done * 10 / self.total != (done - 1) * 10 / self.total {
            if self.start.elapsed().as_secs_f64() < QUICK {
                return;
            }
            let (percent, left) = (done * 100 / self.total, self.seconds_left(done));
            eprintln!("{} {percent}%  {}  {left:.0} s left", self.stage, message());
        }
    }

    fn tell(&self, done: u64, message: &dyn Fn() -> String) {
        let now = self.start.elapsed().as_millis() as u64;
        let told = self.told.load(Ordering::Relaxed);
        if done < self.total && now < told + EVENT_INTERVAL {
            return;
        }
        self.told.store(now, Ordering::Relaxed);
        let fields = json!({
            "stage": self.stage,
            "done": done,
            "total": self.total,
            "seconds_left": (self.seconds_left(done) * 10.0).round() / 10.0,
            "message": message(),
        });
        event("progress", fields);
    }

    fn seconds_left(&self, done: u64) -> f64 {
        let own = done - self.before.load(Ordering::Relaxed);
        let each = self.start.elapsed().as_secs_f64() / own as f64;
        each * self.total.saturating_sub(done) as f64
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
