//! A network in training on the GPU: weights, moments and average stay there.

use std::sync::Arc;

use super::{
    gpu::{Blocks, Buffer, Gpu, SUMS},
    tape::Tape,
};
use crate::{
    adamw::{AdamW, Update},
    error::Result,
    velocity::{Points, Velocity},
};

/// A network in training.
pub(crate) struct Training {
    gpu: Arc<Gpu>,
    tape: Tape,
    weights: Buffer,
    average: Buffer,
    first: Buffer,
    second: Buffer,
    gradient: Buffer,
    target: Buffer,
    /// Parts of the loss, and of the square of the gradient's norm.
    sums: [Buffer; 2],
}

impl Training {
    /// From where it is.
    ///
    /// Errors: UNSUPPORTED without a GPU; OUT_OF_MEMORY if its memory is too small.
    pub(crate) fn new(network: &Velocity, average: &Velocity, adamw: &AdamW) -> Result<Self> {
        let gpu = Gpu::open()?;
        Ok(Self {
            tape: Tape::new(&gpu, &network.shape)?,
            weights: gpu.upload(&network.weights)?,
            average: gpu.upload(&average.weights)?,
            first: gpu.upload(&adamw.first)?,
            second: gpu.upload(&adamw.second)?,
            gradient: gpu.zeros(network.weights.len())?,
            target: gpu.zeros(0)?,
            sums: [gpu.zeros(SUMS)?, gpu.zeros(SUMS)?],
            gpu,
        })
    }

    /// One step of AdamW; the loss before it, the mean squared difference of v at the points and
    /// `target` [batch, latent].
    ///
    /// Errors: OUT_OF_MEMORY if the GPU's memory is too small.
    pub(crate) fn step(&mut self, points: &Points, target: &[f32], update: &Update) -> Result<f32> {
        let (gpu, kernels) = (&self.gpu, &self.gpu.kernels);
        if self.target.whole().length < target.len() {
            self.target = gpu.zeros(target.len())?;
        }
        gpu.write(target, &mut self.target, 0)?;
        let v = self.tape.forward(&self.weights, points)?;
        let [losses, squares] = &self.sums;
        let places = [v, self.target.whole(), self.tape.by_v()?, losses.whole()];
        // SAFETY: v, its gradient and the target are of one length.
        unsafe { gpu.launch(&kernels.difference, Blocks::Sums, &places, &[v.length], &[])? };
        self.tape.backward(&self.weights, &self.gradient)?;
        let gradient = self.gradient.whole();
        let places = [gradient, squares.whole()];
        // SAFETY: the gradient is as long as it says.
        unsafe {
            gpu.launch(
                &kernels.squares,
                Blocks::Sums,
                &places,
                &[gradient.length],
                &[],
            )?
        };
        let places = [
            gradient,
            squares.whole(),
            self.weights.whole(),
            self.average.whole(),
            self.first.whole(),
            self.second.whole(),
        ];
        let numbers = [
            update.clip,
            update.rate,
            update.scale,
            update.shrink,
            update.follow,
        ];
        let all = Blocks::Elements(gradient.length);
        // SAFETY: all are as long as the gradient, but for the sums, which are SUMS.
        unsafe { gpu.launch(&kernels.adamw, all, &places, &[gradient.length], &numbers)? };
        let mut parts = [0.0; SUMS];
        gpu.read(losses.whole(), &mut parts)?;
        let sum: f64 = parts.iter().map(|part| f64::from(*part)).sum();
        Ok((sum / target.len() as f64) as f32)
    }

    /// Brings back what the steps so far have made.
    pub(crate) fn read(
        &self,
        network: &mut Velocity,
        average: &mut Velocity,
        adamw: &mut AdamW,
    ) -> Result<()> {
        let gpu = &self.gpu;
        gpu.read(self.weights.whole(), &mut network.weights)?;
        gpu.read(self.average.whole(), &mut average.weights)?;
        gpu.read(self.first.whole(), &mut adamw.first)?;
        gpu.read(self.second.whole(), &mut adamw.second)
    }
}
