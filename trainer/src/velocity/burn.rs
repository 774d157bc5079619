//! Velocity networks computed and differentiated by burn.

use std::{ops::Range, sync::Arc};

use burn::tensor::{
    AllocationProperty, Bytes, DType, Gradients, Tensor, TensorData, activation, module,
};

use super::{NORM_EPSILON, Ops, Shape, Start, Velocity, VelocityTensor};
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

    fn burn(self) -> burn::tensor::Device {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => burn::tensor::Device::cuda(0),
            _ => burn::tensor::Device::flex(),
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
pub struct Evaluator {
    network: Network,
    shape: Shape,
    device: burn::tensor::Device,
}

impl Evaluator {
    /// v at the points, [batch, latent].
    pub fn evaluate(&mut self, points: Points) -> Vec<f32> {
        to_vec(self.network.at(&self.shape, points, &self.device))
    }
}

impl Velocity {
    /// The network on a device.
    pub fn evaluator(&self, device: Device) -> Evaluator {
        let device = device.burn();
        Evaluator {
            network: Network::new(&self.shape, &Arc::new(self.weights.clone()), &device),
            shape: self.shape,
            device,
        }
    }

    /// v at the points, [batch, latent].
    pub fn evaluate(&self, points: Points, device: Device) -> Vec<f32> {
        self.evaluator(device).evaluate(points)
    }

    /// The mean squared difference of v at the points and `target` [batch, latent], and its
    /// gradient by every weight, a vector a tensor. The weights stay as they are.
    pub fn loss_gradient(
        &mut self,
        points: Points,
        target: Vec<f32>,
        device: Device,
    ) -> (f32, Vec<Vec<f32>>) {
        let device = device.burn().autodiff();
        // Lent, not copied: at a hundred megabytes that would be a good part of the time.
        let weights = Arc::new(std::mem::take(&mut self.weights));
        let (loss, gradient) = {
            let mut network = Network::new(&self.shape, &weights, &device);
            let v = network.at(&self.shape, points, &device);
            let difference = v - rows(target, self.shape.latent, &device);
            let loss = (difference.clone() * difference).mean();
            let gradients = loss.backward();
            (loss.into_scalar(), network.take_gradient(gradients))
        };
        self.weights = Arc::try_unwrap(weights).unwrap_or_else(|shared| (*shared).clone());
        (loss, gradient)
    }
}

/// A network as burn tensors.
struct Network {
    tensors: Vec<VelocityTensor>,
    leaves: Vec<Leaf>,
    /// The next one to be used: networks use their tensors in order.
    next: usize,
}

enum Leaf {
    Matrix(Tensor<2>),
    Vector(Tensor<1>),
}

/// Some of the weights, as bytes that burn can hold on to.
struct Shared {
    weights: Arc<Vec<f32>>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.weights[self.range.clone()])
    }
}

impl Network {
    /// On an autodiff device the weights' gradients are kept.
    fn new(shape: &Shape, weights: &Arc<Vec<f32>>, device: &burn::tensor::Device) -> Self {
        let tensors = shape.tensors();
        let leaf = |tensor: &VelocityTensor| {
            let bytes = bytes::Bytes::from_owner(Shared {
                weights: weights.clone(),
                range: tensor.range.clone(),
            });
            let bytes = Bytes::from_shared(bytes, AllocationProperty::Native);
            let data = TensorData::from_bytes(bytes, tensor.shape.clone(), DType::F32);
            if tensor.is_matrix() {
                Leaf::Matrix(tracked(Tensor::from_data(data, device)))
            } else {
                Leaf::Vector(tracked(Tensor::from_data(data, device)))
            }
        };
        Self {
            leaves: tensors.iter().map(leaf).collect(),
            tensors,
            next: 0,
        }
    }

    fn at(&mut self, shape: &Shape, points: Points, device: &burn::tensor::Device) -> Tensor<2> {
        self.next = 0;
        let condition =
            (shape.condition > 0).then(|| rows(points.condition, shape.condition, device));
        let x = rows(points.x, shape.latent, device);
        self.velocity(shape, x, rows(points.t, 1, device), condition)
    }

    fn take(&mut self, layer: &str, part: &str) -> &Leaf {
        let tensor = &self.tensors[self.next];
        debug_assert_eq!(tensor.name, format!("{layer}.{part}"));
        self.next += 1;
        &self.leaves[self.next - 1]
    }

    fn matrix(&mut self, layer: &str) -> Tensor<2> {
        match self.take(layer, "weight") {
            Leaf::Matrix(tensor) => tensor.clone(),
            Leaf::Vector(_) => unreachable!("'{layer}' is linear"),
        }
    }

    fn vector(&mut self, layer: &str, part: &str) -> Tensor<1> {
        match self.take(layer, part) {
            Leaf::Vector(tensor) => tensor.clone(),
            Leaf::Matrix(_) => unreachable!("'{layer}.{part}' is a vector"),
        }
    }

    /// Moves the weights' gradients out, in the weights' order.
    fn take_gradient(self, mut gradients: Gradients) -> Vec<Vec<f32>> {
        let take = |leaf: Leaf| match leaf {
            Leaf::Matrix(leaf) => leaf.grad_remove(&mut gradients).map(to_vec),
            Leaf::Vector(leaf) => leaf.grad_remove(&mut gradients).map(to_vec),
        };
        let gradient = self.leaves.into_iter().map(take);
        gradient
            .collect::<Option<_>>()
            .expect("every weight matters")
    }
}

impl Ops for Network {
    type Value = Tensor<2>;

    fn linear(&mut self, x: Tensor<2>, layer: &str, _: usize, _: Start) -> Tensor<2> {
        let weight = self.matrix(layer);
        module::linear(x, weight, Some(self.vector(layer, "bias")))
    }

    fn linear_plus(&mut self, x: Tensor<2>, layer: &str, c: Tensor<2>, _: Start) -> Tensor<2> {
        module::linear(x, self.matrix(layer), None) + c
    }

    fn norm(&mut self, x: Tensor<2>, layer: &str) -> Tensor<2> {
        let scale = self.vector(layer, "weight");
        let shift = self.vector(layer, "bias");
        module::layer_norm(x, scale, Some(shift), NORM_EPSILON.into())
    }

    fn gelu(&mut self, x: Tensor<2>) -> Tensor<2> {
        activation::gelu(x)
    }

    fn add(&mut self, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
        a + b
    }

    fn multiply(&mut self, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
        a * b
    }
}

fn tracked<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.is_autodiff() {
        tensor.require_grad()
    } else {
        tensor
    }
}

fn rows(values: Vec<f32>, columns: usize, device: &burn::tensor::Device) -> Tensor<2> {
    let shape = [values.len() / columns, columns];
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as().expect("a float tensor")
}
