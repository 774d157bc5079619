//! The threads of one sampler: the calling one and its helpers.

use crate::error::{Error, Result, Status};

/// How the names of helper threads begin.
pub(crate) const THREAD_PREFIX: &str = "dwf-";

/// Threads of the library's own.
///
/// Errors: OUT_OF_MEMORY if they cannot be started.
pub(crate) fn threads(count: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(count)
        .thread_name(|i| format!("{THREAD_PREFIX}{i}"))
        .build()
        .map_err(|e| {
            let message = format!("{count} threads could not be started: {e}");
            Error::new(Status::OutOfMemory, message)
        })
}

/// A fixed number of threads, the caller's included.
pub(crate) struct Team {
    size: usize,
    /// `None` for a team of one.
    helpers: Option<rayon::ThreadPool>,
}

impl Team {
    /// Errors: OUT_OF_MEMORY if the threads cannot be started.
    pub(crate) fn new(size: usize) -> Result<Self> {
        let helpers = match size {
            1 => None,
            _ => Some(threads(size - 1)?),
        };
        Ok(Self { size, helpers })
    }

    /// Number of threads.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Runs `mine` on the calling thread and `body` for every job on the helpers, and waits for
    /// all. Without jobs, or without helpers, it does not allocate.
    pub(crate) fn run<J: Send>(
        &self,
        mine: impl FnOnce(),
        mut jobs: impl Iterator<Item = J>,
        body: impl Fn(J) + Sync,
    ) {
        let Some((helpers, first)) = self.helpers.as_ref().zip(jobs.next()) else {
            return mine();
        };
        let body = &body;
        helpers.in_place_scope(|scope| {
            for job in std::iter::once(first).chain(jobs) {
                scope.spawn(move |_| body(job));
            }
            mine();
        });
    }
}
