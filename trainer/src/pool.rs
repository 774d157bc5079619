//! Evaluators for as many threads as ask at once.

use std::sync::{Mutex, PoisonError};

use crate::{error::Result, evaluator::Evaluator, network::Network};

/// Evaluators of one network. A session runs for one thread at a time, and loading one costs more
/// than running it: those that are done with are kept for whoever asks next.
pub struct Pool {
    first: Mutex<Evaluator>,
    free: Mutex<Vec<Evaluator>>,
}

impl Pool {
    /// For a network.
    ///
    /// Errors: as [`Evaluator::new`].
    pub fn new(network: &Network) -> Result<Self> {
        Self::watching(network, &[])
    }

    /// The same with intermediate values.
    ///
    /// Errors: as [`Evaluator::watching`].
    pub fn watching(network: &Network, values: &[&str]) -> Result<Self> {
        Ok(Self {
            first: Mutex::new(Evaluator::watching(network, values)?),
            free: Mutex::default(),
        })
    }

    /// Calls with an evaluator that nobody else has meanwhile.
    ///
    /// Errors: those of `work`, and of loading another session.
    pub fn with<T>(&self, work: impl FnOnce(&mut Evaluator) -> Result<T>) -> Result<T> {
        let mut evaluator = self.take()?;
        let result = work(&mut evaluator);
        self.free().push(evaluator);
        result
    }

    fn take(&self) -> Result<Evaluator> {
        if let Some(evaluator) = self.free().pop() {
            return Ok(evaluator);
        }
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.another()
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Evaluator>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
