//! Ctrl-C, for work that can be resumed: the first one asks, and the work stops where its state
//! is whole.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Status};

static RESUMABLE: AtomicUsize = AtomicUsize::new(0);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// While it lives, a request to stop is left to the work, which looks for it with
/// [`requested`].
pub struct Resumable(());

/// Work begins that can be stopped and resumed.
pub fn resumable() -> Resumable {
    RESUMABLE.fetch_add(1, Ordering::SeqCst);
    Resumable(())
}

impl Drop for Resumable {
    fn drop(&mut self) {
        RESUMABLE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Somebody asks to stop. Whether the work will: else the process has to end at once, as it has
/// to when asked again.
pub fn request() -> bool {
    let again = REQUESTED.swap(true, Ordering::SeqCst);
    !again && RESUMABLE.load(Ordering::SeqCst) > 0
}

/// Whether the work should stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// The error that stopped work ends with if nothing of it is kept.
pub fn lost(work: &str) -> Error {
    let what = format!("interrupted; the same command begins {work} again");
    Error::new(Status::Cancelled, what)
}

/// The error that stopped work ends with.
pub fn error(kept: &str) -> Error {
    Error::new(
        Status::Cancelled,
        format!("interrupted; {kept} is kept, and the same command goes on from there"),
    )
}
