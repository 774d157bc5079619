//! The memory that a sampler will take, reckoned before any of it is allocated: an artifact says
//! how large its network and its latents are, and a small file may say anything.

use crate::{
    decode::Decoder,
    error::{Error, Result, Status},
    evaluator::Evaluator,
    limits::DEFAULT_MEMORY,
    memory::float_bytes,
    model::Model,
    ode::{self, Method},
};

/// What a sampler over one model may take.
#[derive(Debug)]
pub(crate) struct Budget {
    model: Model,
    threads: usize,
    limit: u64,
}

impl Budget {
    /// `limit` in bytes; 0: [`DEFAULT_MEMORY`].
    pub(crate) fn new(model: &Model, threads: usize, limit: u64) -> Self {
        Self {
            model: model.clone(),
            threads,
            limit: if limit == 0 { DEFAULT_MEMORY } else { limit },
        }
    }

    /// The largest batch up to `most` that fits, found by halving; 1 if none does.
    pub(crate) fn batch(&self, method: Method, most: usize) -> usize {
        let halves = std::iter::successors(Some(most), |batch| Some(batch / 2));
        halves
            .take_while(|batch| *batch > 1)
            .find(|batch| self.needed(method, *batch) <= self.limit)
            .unwrap_or(1)
    }

    /// Errors: OUT_OF_MEMORY naming what would be needed.
    pub(crate) fn check(&self, method: Method, max_batch: usize) -> Result<()> {
        let needed = self.needed(method, max_batch);
        if needed <= self.limit {
            return Ok(());
        }
        Err(Error::new(
            Status::OutOfMemory,
            format!(
                "{}: {max_batch} networks at a time on {} threads may take {needed} bytes, more \
                 than the {} of memory_limit; raise it, or lower max_batch or threads",
                self.model.place(),
                self.threads,
                self.limit
            ),
        ))
    }

    /// Bytes that a sampler takes at most, ONNX Runtime's part an estimate from the graph.
    fn needed(&self, method: Method, max_batch: usize) -> u64 {
        let model = &self.model;
        let footprint = &model.description().footprint;
        let lanes = self.threads.min(max_batch);
        let rows = max_batch.div_ceil(lanes);
        let lane = [
            footprint.running(rows),
            Evaluator::needed(model, rows),
            ode::Workspace::needed(method, rows, model.latent()),
            // Velocities without condition, under guidance.
            float_bytes(&[(rows, model.latent())]),
        ];
        sum(&[
            footprint.loaded(),
            sum(&lane).saturating_mul(lanes as u64),
            Decoder::needed(model, max_batch, self.threads),
            float_bytes(&[(max_batch, model.latent())]),
        ])
    }
}

fn sum(bytes: &[u64]) -> u64 {
    bytes
        .iter()
        .fold(0, |sum, bytes| sum.saturating_add(*bytes))
}
