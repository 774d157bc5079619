//! How far a call is, whether it should stop, and why it did: shared by the threads of one call.

use std::sync::{
    Mutex, PoisonError,
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
    /// It stops with CANCELLED.
    Cancel,
}

/// Told of progress before every evaluation on the calling thread.
pub(crate) type Callback<'a> = &'a mut dyn FnMut(Progress) -> Flow;

/// The state of one call.
pub(crate) struct Meter {
    done: AtomicU64,
    total: u64,
    stop: AtomicBool,
    /// The error of the lowest row so far.
    failure: Mutex<Option<(usize, Error)>>,
}

impl Meter {
    pub(crate) fn new(total: u64) -> Self {
        Self {
            done: AtomicU64::new(0),
            total,
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Counts an evaluation that is about to start.
    ///
    /// Errors: CANCELLED by the callback, here or on the thread that has it.
    pub(crate) fn tick(&self, callback: &mut Option<Callback>) -> Result<()> {
        let done = self.done.fetch_add(1, Ordering::Relaxed);
        let progress = Progress {
            done,
            total: self.total,
        };
        let flow = callback.as_mut().map(|callback| callback(progress));
        if flow == Some(Flow::Cancel) {
            self.stop.store(true, Ordering::Relaxed);
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::constant(
                Status::Cancelled,
                "cancelled by the progress callback",
            ));
        }
        Ok(())
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
