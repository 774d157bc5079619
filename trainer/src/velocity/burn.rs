//! Velocity networks computed and differentiated by burn, on an NVIDIA GPU.

use std::{ops::Range, sync::Arc};

use burn::tensor::{
    AllocationProperty, Bytes, DType, Device, Gradients, Tensor, TensorData, activation, module,
};

use super::{NORM_EPSILON, Ops, Points, Shape, Start, VelocityTensor};

/// A network on the GPU, for many evaluations.
pub(super) struct Network {
    network: Tensors,
    shape: Shape,
    device: Device,
}

impl Network {
    pub(super) fn new(shape: &Shape, weights: &[f32]) -> Self {
        let device = gpu();
        Self {
            network: Tensors::new(shape, &Arc::new(weights.to_vec()), &device),
            shape: *shape,
            device,
        }
    }

    /// v at the points, [batch, latent].
    pub(super) fn evaluate(&mut self, points: Points) -> Vec<f32> {
        to_vec(self.network.at(&self.shape, points, &self.device))
    }
}

/// The mean squared difference of v at the points and `target` [batch, latent]; `gradient` becomes
/// its gradient by every weight.
pub(super) fn loss_gradient(
    shape: &Shape,
    weights: &[f32],
    points: &Points,
    target: &[f32],
    gradient: &mut [f32],
) -> f32 {
    let device = gpu().autodiff();
    let mut network = Tensors::new(shape, &Arc::new(weights.to_vec()), &device);
    let v = network.at(shape, points.clone(), &device);
    let difference = v - rows(target.to_vec(), shape.latent, &device);
    let loss = (difference.clone() * difference).mean();
    let gradients = loss.backward();
    network.take_gradient(gradients, gradient);
    loss.into_scalar()
}

fn gpu() -> Device {
    Device::cuda(0)
}

/// A network as burn tensors.
struct Tensors {
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

impl Tensors {
    /// On an autodiff device the weights' gradients are kept.
    fn new(shape: &Shape, weights: &Arc<Vec<f32>>, device: &Device) -> Self {
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

    fn at(&mut self, shape: &Shape, points: Points, device: &Device) -> Tensor<2> {
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
    fn take_gradient(self, mut gradients: Gradients, to: &mut [f32]) {
        for (leaf, tensor) in self.leaves.into_iter().zip(&self.tensors) {
            let values: Option<Vec<f32>> = match leaf {
                Leaf::Matrix(leaf) => leaf.grad_remove(&mut gradients).map(to_vec),
                Leaf::Vector(leaf) => leaf.grad_remove(&mut gradients).map(to_vec),
            };
            to[tensor.range.clone()].copy_from_slice(&values.expect("every weight matters"));
        }
    }
}

impl Ops for Tensors {
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

fn rows(values: Vec<f32>, columns: usize, device: &Device) -> Tensor<2> {
    let shape = [values.len() / columns, columns];
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as().expect("a float tensor")
}
