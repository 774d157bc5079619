//! Velocity networks computed and differentiated by burn.

use burn::tensor::{Gradients, Tensor, TensorData, activation, module};

use super::{NORM_EPSILON, Ops, Start, Velocity, VelocityTensor};
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

impl Velocity {
    /// v at the points, [batch, latent].
    pub fn evaluate(&self, points: Points, device: Device) -> Vec<f32> {
        let device = device.burn();
        to_vec(Network::new(self, &device).at(self, points, &device))
    }

    /// The mean squared difference of v at the points and `target` [batch, latent], and its
    /// gradient by every weight.
    pub fn loss_gradient(
        &self,
        points: Points,
        target: Vec<f32>,
        gradient: &mut [f32],
        device: Device,
    ) -> f32 {
        let device = device.burn().autodiff();
        let mut network = Network::new(self, &device);
        let v = network.at(self, points, &device);
        let difference = v - rows(target, self.shape.latent, &device);
        let loss = (difference.clone() * difference).mean();
        let gradients = loss.backward();
        network.read(&gradients, gradient);
        loss.into_scalar()
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

impl Network {
    /// On an autodiff device the weights' gradients are kept.
    fn new(velocity: &Velocity, device: &burn::tensor::Device) -> Self {
        let tensors = velocity.tensors();
        let leaf = |tensor: &VelocityTensor| {
            let values = velocity.weights[tensor.range.clone()].to_vec();
            let data = TensorData::new(values, tensor.shape.clone());
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

    fn at(
        &mut self,
        velocity: &Velocity,
        points: Points,
        device: &burn::tensor::Device,
    ) -> Tensor<2> {
        let shape = &velocity.shape;
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

    /// Copies the weights' gradients out, in the weights' order.
    fn read(&self, gradients: &Gradients, out: &mut [f32]) {
        for (tensor, leaf) in self.tensors.iter().zip(&self.leaves) {
            let values = match leaf {
                Leaf::Matrix(leaf) => leaf.grad(gradients).map(to_vec),
                Leaf::Vector(leaf) => leaf.grad(gradients).map(to_vec),
            };
            out[tensor.range.clone()].copy_from_slice(&values.expect("every weight matters"));
        }
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
