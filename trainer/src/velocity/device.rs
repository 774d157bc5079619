//! Where velocity networks are computed and differentiated.

use std::ops::Range;

use rayon::prelude::*;

#[cfg(feature = "cuda")]
use super::cuda;
use super::{Shape, Velocity, VelocityTensor, tape::Tape};
use crate::error::Result;
#[cfg(not(feature = "cuda"))]
use crate::error::{Error, Status};

/// Where velocity networks are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
}

impl Device {
    /// Errors: UNSUPPORTED if this build or this machine cannot use it.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            #[cfg(feature = "cuda")]
            Self::Cuda => cuda::Gpu::open().map(drop),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda => Err(without_cuda()),
        }
    }
}

/// Points that a velocity is asked for, all row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    /// [batch, latent]
    pub x: Vec<f32>,
    /// [batch]
    pub t: Vec<f32>,
    /// [batch, condition]; empty for a network that takes none.
    pub condition: Vec<f32>,
}

impl Points {
    fn rows(&self, rows: Range<usize>, shape: &Shape) -> Self {
        let take = |values: &[f32], columns: usize| {
            values[rows.start * columns..rows.end * columns].to_vec()
        };
        Self {
            x: take(&self.x, shape.latent),
            t: take(&self.t, 1),
            condition: take(&self.condition, shape.condition),
        }
    }
}

/// A network on a device, for many evaluations.
pub struct Evaluator<'a>(Network<'a>);

enum Network<'a> {
    Cpu {
        velocity: &'a Velocity,
        tensors: Vec<VelocityTensor>,
        tape: Tape,
    },
    #[cfg(feature = "cuda")]
    Cuda(cuda::Network),
}

impl Evaluator<'_> {
    /// v at the points, [batch, latent].
    ///
    /// Errors: the GPU's, as for want of memory.
    pub fn evaluate(&mut self, points: &Points) -> Result<Vec<f32>> {
        match &mut self.0 {
            Network::Cpu {
                velocity: Velocity { shape, weights },
                tensors,
                tape,
            } => Ok(tape.forward(shape, tensors, weights, points).to_vec()),
            #[cfg(feature = "cuda")]
            Network::Cuda(network) => network.evaluate(points),
        }
    }
}

impl Velocity {
    /// The network on a device.
    ///
    /// Errors: those of [`Device::check`], and the GPU's.
    pub fn evaluator(&self, device: Device) -> Result<Evaluator<'_>> {
        Ok(Evaluator(match device {
            Device::Cpu => Network::Cpu {
                velocity: self,
                tensors: self.tensors(),
                tape: Tape::default(),
            },
            #[cfg(feature = "cuda")]
            Device::Cuda => Network::Cuda(cuda::Network::new(&self.shape, &self.weights)?),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda => return Err(without_cuda()),
        }))
    }

    /// v at the points, [batch, latent].
    ///
    /// Errors: as for [`Velocity::evaluator`].
    pub fn evaluate(&self, points: &Points, device: Device) -> Result<Vec<f32>> {
        self.evaluator(device)?.evaluate(points)
    }
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn without_cuda() -> Error {
    let message = "this dwf was built without CUDA; build it with \
                   `cargo build --release -p dwf-trainer --features cuda`, or use --device cpu";
    Error::new(Status::Unsupported, message)
}

/// Losses of networks of one shape and their gradients, on the processor, in memory that stays.
pub struct Gradient {
    /// Of the last loss by every weight.
    pub values: Vec<f32>,
    shape: Shape,
    tensors: Vec<VelocityTensor>,
    halves: [Half; 2],
    /// The second half's gradient.
    second: Vec<f32>,
}

/// What half a batch left, on a thread of its own: cheaper than threads that meet at every layer.
#[derive(Default)]
struct Half {
    tape: Tape,
    /// Of the loss by v.
    difference: Vec<f32>,
}

/// Rows that are worth two threads. Where a batch is cut does not depend on how many there are.
const TWO_HALVES: usize = 40;
/// Weights whose gradients are added at a time.
const CHUNK: usize = 1 << 15;

impl Gradient {
    /// For networks of this shape.
    pub fn new(shape: Shape) -> Self {
        Self {
            values: vec![0.0; shape.weight_count()],
            tensors: shape.tensors(),
            shape,
            halves: Default::default(),
            second: Vec::new(),
        }
    }

    /// The mean squared difference of v at the points and `target` [batch, latent].
    pub fn loss(&mut self, weights: &[f32], points: &Points, target: &[f32]) -> f32 {
        let (shape, tensors, rows) = (&self.shape, &self.tensors, points.t.len());
        let count = target.len() as f32;
        let half = |half: &mut Half, rows: Range<usize>, gradient: &mut [f32]| {
            let target = &target[rows.start * shape.latent..rows.end * shape.latent];
            let points = points.rows(rows, shape);
            let v = half.tape.forward(shape, tensors, weights, &points);
            let mut loss = 0f64;
            half.difference.clear();
            half.difference
                .extend(v.iter().zip(target).map(|(v, target)| {
                    let difference = v - target;
                    loss += f64::from(difference * difference);
                    difference * 2.0 / count
                }));
            half.tape.backward(weights, &half.difference, gradient);
            loss
        };
        let [first, second] = &mut self.halves;
        let values = &mut self.values;
        let loss = if rows < TWO_HALVES {
            half(first, 0..rows, values)
        } else {
            self.second.resize(values.len(), 0.0);
            let losses = rayon::join(
                || half(first, 0..rows / 2, values),
                || half(second, rows / 2..rows, &mut self.second),
            );
            let seconds = self.second.par_chunks(CHUNK);
            values
                .par_chunks_mut(CHUNK)
                .zip(seconds)
                .for_each(|(to, values)| to.iter_mut().zip(values).for_each(|(to, x)| *to += x));
            losses.0 + losses.1
        };
        (loss / target.len() as f64) as f32
    }
}
