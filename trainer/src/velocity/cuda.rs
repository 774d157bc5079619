//! Velocity networks computed, differentiated and trained on an NVIDIA GPU.

mod gpu;
mod tape;
mod training;

use std::sync::Arc;

pub(super) use self::gpu::Gpu;
pub(crate) use self::training::Training;
use self::{gpu::Buffer, tape::Tape};
use super::{Points, Shape};
use crate::error::Result;

/// A network on the GPU, for many evaluations.
pub(super) struct Network {
    gpu: Arc<Gpu>,
    weights: Buffer,
    tape: Tape,
}

impl Network {
    pub(super) fn new(shape: &Shape, weights: &[f32]) -> Result<Self> {
        let gpu = Gpu::open()?;
        Ok(Self {
            weights: gpu.upload(weights)?,
            tape: Tape::new(&gpu, shape)?,
            gpu,
        })
    }

    /// v at the points, [batch, latent].
    pub(super) fn evaluate(&mut self, points: &Points) -> Result<Vec<f32>> {
        let v = self.tape.forward(&self.weights, points)?;
        let mut values = vec![0.0; v.length];
        self.gpu.read(v, &mut values)?;
        Ok(values)
    }
}
