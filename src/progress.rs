//! How far a call is, whether it should stop, and why it did: shared by the threads of one call.

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::error::{Error, Result, Status};

/// How far a call is: evaluations of the velocity network, over all batches and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Evaluations done.
    pub done: u64,
    /// Evaluations in all; 0 where an adaptive solver finds out on the way.
    pub total: u64,
}

/// Whether a call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Continue,
    /// It stops with CANCELLED, every thread before its next evaluation.
    Cancel,
}

/// Told of progress on the calling thread.
pub(crate) type Callback<'a> = &'a mut dyn FnMut(Progress) -> Flow;

/// The state of one call.
pub(crate) struct Meter {
    done: AtomicU64,
    total: u64,
    /// What the callback was last told, and its own evaluation after that.
    told: AtomicU64,
    stop: AtomicBool,
    /// Whether there is a callback; without one nobody waits, and helpers wake nobody.
    watched: bool,
    /// Helpers that have not ended, and whether one of them ended or began an evaluation.
    helpers: Mutex<usize>,
    moved: Condvar,
    /// The error of the lowest row so far.
    failure: Mutex<Option<(usize, Error)>>,
}

impl Meter {
    pub(crate) fn new(total: u64, watched: bool) -> Self {
        Self {
            done: AtomicU64::new(0),
            total,
            told: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            watched,
            helpers: Mutex::new(0),
            moved: Condvar::new(),
            failure: Mutex::new(None),
        }
    }

    /// Counts an evaluation that is about to start, on the calling thread if there is a callback.
    ///
    /// Errors: CANCELLED by the callback, here or on the thread that has it.
    pub(crate) fn tick(&self, callback: &mut Option<Callback>) -> Result<()> {
        let done = self.done.fetch_add(1, Ordering::Relaxed);
        if let Some(callback) = callback {
            self.told.store(done + 1, Ordering::Relaxed);
            self.tell(callback, done);
        } else if self.watched {
            self.wake(|_| ());
        }
        self.check()
    }

    fn tell(&self, callback: Callback, done: u64) {
        let total = self.total;
        if callback(Progress { done, total }) == Flow::Cancel {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn check(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::constant(
                Status::Cancelled,
                "cancelled by the progress callback",
            )),
        }
    }

    /// Says that `count` helpers are about to begin; each calls [`Meter::helper`].
    pub(crate) fn expect_helpers(&self, count: usize) {
        if self.watched {
            *self.helpers() = count;
        }
    }

    /// One of the helpers, which ends when this is dropped, by a panic too.
    pub(crate) fn helper(&self) -> Helper<'_> {
        Helper(self)
    }

    /// Waits for the helpers, and tells `callback` whenever one has begun an evaluation. Without a
    /// callback it does not wait.
    ///
    /// Errors: CANCELLED by the callback.
    pub(crate) fn watch_helpers(&self, callback: Option<Callback>) -> Result<()> {
        let Some(callback) = callback else {
            return Ok(());
        };
        loop {
            self.check()?;
            let told = self.told.load(Ordering::Relaxed);
            let done = || self.done.load(Ordering::Relaxed);
            let still = |helpers: &mut usize| *helpers > 0 && done() == told;
            let helpers = self.moved.wait_while(self.helpers(), still);
            if *helpers.unwrap_or_else(PoisonError::into_inner) == 0 {
                return Ok(());
            }
            let begun = done();
            self.told.store(begun, Ordering::Relaxed);
            // As before it began, so that no number is told twice.
            self.tell(callback, begun - 1);
        }
    }

    fn helpers(&self) -> MutexGuard<'_, usize> {
        self.helpers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the calling thread, if it waits. The lock is what makes sure that it either sees the
    /// change or is asleep already.
    fn wake(&self, change: impl FnOnce(&mut usize)) {
        change(&mut self.helpers());
        self.moved.notify_one();
    }

    /// Records the end of the work on rows from `row` on. Other threads go on, so that the error
    /// that is kept, the lowest row's, does not depend on which of them was fastest.
    pub(crate) fn record(&self, row: usize, result: Result<()>) {
        let Err(error) = result else { return };
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref().is_none_or(|(first, _)| row < *first) {
            *failure = Some((row, error));
        }
    }

    /// The recorded error, if there is one.
    pub(crate) fn result(&self) -> Result<()> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// A helper at work.
pub(crate) struct Helper<'a>(&'a Meter);

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        if self.0.watched {
            self.0.wake(|helpers| *helpers -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{self, AssertUnwindSafe};

    use super::*;
    use crate::team::Team;

    /// Helpers that panic, before or after an evaluation, end the wait for them.
    #[test]
    fn a_panic_in_a_helper_ends_the_wait() {
        let team = Team::new(3).unwrap();
        for evaluations in [0, 2] {
            let meter = Meter::new(0, true);
            let mut told = Vec::new();
            let mut callback = |progress: Progress| {
                told.push(progress.done);
                Flow::Continue
            };
            meter.expect_helpers(2);
            let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
                team.run(
                    || meter.watch_helpers(Some(&mut callback)).unwrap(),
                    0..2,
                    |_| {
                        let _helper = meter.helper();
                        for _ in 0..evaluations {
                            meter.tick(&mut None).unwrap();
                        }
                        panic!("planted");
                    },
                );
            }));
            assert!(panicked.is_err());
            assert_eq!(*meter.helpers(), 0);
            assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
            assert!(told.iter().all(|done| *done < 4), "{told:?}");
        }
    }
}
