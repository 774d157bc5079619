//! Where velocity networks are computed and differentiated.

#[cfg(feature = "cuda")]
use super::burn;
use super::{Shape, Velocity, VelocityTensor, tape::Tape};
use crate::error::{Result, invalid};

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
    /// Errors: INVALID_ARGUMENT if this build cannot use it.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda if cfg!(feature = "cuda") => Ok(()),
            Self::Cuda => Err(invalid(
                "this dwf was built without CUDA; build it with \
                 `cargo build --release -p dwf-trainer --features cuda`",
            )),
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

/// A network on a device, for many evaluations.
pub struct Evaluator<'a>(Network<'a>);

enum Network<'a> {
    Cpu {
        velocity: &'a Velocity,
        tensors: Vec<VelocityTensor>,
        tape: Tape,
    },
    #[cfg(feature = "cuda")]
    Cuda(burn::Network),
}

impl Evaluator<'_> {
    /// v at the points, [batch, latent].
    pub fn evaluate(&mut self, points: Points) -> Vec<f32> {
        match &mut self.0 {
            Network::Cpu {
                velocity: Velocity { shape, weights },
                tensors,
                tape,
            } => tape.forward(shape, tensors, weights, &points).to_vec(),
            #[cfg(feature = "cuda")]
            Network::Cuda(network) => network.evaluate(points),
        }
    }
}

impl Velocity {
    /// The network on a device.
    pub fn evaluator(&self, device: Device) -> Evaluator<'_> {
        Evaluator(match device {
            #[cfg(feature = "cuda")]
            Device::Cuda => Network::Cuda(burn::Network::new(&self.shape, &self.weights)),
            _ => Network::Cpu {
                velocity: self,
                tensors: self.tensors(),
                tape: Tape::default(),
            },
        })
    }

    /// v at the points, [batch, latent].
    pub fn evaluate(&self, points: Points, device: Device) -> Vec<f32> {
        self.evaluator(device).evaluate(points)
    }
}

/// Losses of networks of one shape and their gradients, in memory that stays.
pub struct Gradient {
    /// Of the last loss by every weight.
    pub values: Vec<f32>,
    shape: Shape,
    tensors: Vec<VelocityTensor>,
    device: Device,
    tape: Tape,
    difference: Vec<f32>,
}

impl Gradient {
    /// For networks of this shape.
    pub fn new(shape: Shape, device: Device) -> Self {
        Self {
            values: vec![0.0; shape.weight_count()],
            tensors: shape.tensors(),
            shape,
            device,
            tape: Tape::default(),
            difference: Vec::new(),
        }
    }

    /// The mean squared difference of v at the points and `target` [batch, latent].
    pub fn loss(&mut self, weights: &[f32], points: &Points, target: &[f32]) -> f32 {
        match self.device {
            #[cfg(feature = "cuda")]
            Device::Cuda => {
                burn::loss_gradient(&self.shape, weights, points, target, &mut self.values)
            }
            _ => self.loss_on_tape(weights, points, target),
        }
    }

    fn loss_on_tape(&mut self, weights: &[f32], points: &Points, target: &[f32]) -> f32 {
        let Self {
            values,
            shape,
            tensors,
            tape,
            difference,
            ..
        } = self;
        let v = tape.forward(shape, tensors, weights, points);
        let count = target.len() as f32;
        let mut loss = 0f64;
        difference.clear();
        difference.extend(v.iter().zip(target).map(|(v, target)| {
            let difference = v - target;
            loss += f64::from(difference * difference);
            difference * 2.0 / count
        }));
        tape.backward(weights, difference, values);
        (loss / target.len() as f64) as f32
    }
}
