//! The velocity network v(x, t, condition), defined once for training and for export as ONNX.
//!
//! The first layer is written as x Wx + (embedding Wt + b), which equals a layer over the
//! concatenation of state and embedding, so that a time shared by a whole batch is embedded once.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod device;
mod gelu;
mod onnx;
mod product;
mod tape;

use std::ops::Range;

use dwf::condition::ConditionSchema;
use serde::{Deserialize, Serialize};

#[cfg(not(feature = "cuda"))]
pub(crate) use self::device::without_cuda;
pub use self::device::{Device, Evaluator, Gradient, Points};
use crate::random::Random;

/// Width of the embeddings of time and condition.
pub const EMBEDDING: usize = 64;
/// PyTorch's default.
pub const NORM_EPSILON: f32 = 1e-5;
/// Residual blocks of [`Variant::Residual`].
pub const BLOCKS: usize = 3;

/// What the hidden layers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// That of the paper's MLPs and ResNets: h, h/2, h over state and embedding, each Linear,
    /// LayerNorm, GELU.
    Reference,
    /// That of the paper's transformers: h, h, h/2, h.
    Deep,
    /// Pre-norm residual blocks of width h whose normalised input the embedding scales and
    /// shifts (FiLM: Perez et al., AAAI 2018, arXiv 1709.07871).
    Residual,
}

/// The size of a velocity network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// What the hidden layers are.
    pub variant: Variant,
    /// Length of x and v.
    pub latent: usize,
    /// h, even.
    pub width: usize,
    /// Length of the condition; 0: it takes none.
    pub condition: usize,
}

/// A velocity network and its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Velocity {
    /// Its size.
    pub shape: Shape,
    /// All weights, in the order of [`Shape::tensors`].
    pub weights: Vec<f32>,
}

/// One tensor of a velocity network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VelocityTensor {
    /// Its name, in ONNX and in the sidecar.
    pub name: String,
    /// [in, out] for a matrix, [out] for a vector.
    pub shape: Vec<usize>,
    /// Its elements among [`Velocity::weights`].
    pub range: Range<usize>,
    fill: Fill,
}

impl VelocityTensor {
    /// Whether it is a matrix, stored in half precision; vectors stay in single.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }
}

/// What a tensor is before training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    /// Uniform within 1 / sqrt(inputs): PyTorch's default for linear layers.
    Uniform {
        inputs: usize,
    },
    Ones,
    Zeros,
    /// Zero before training, so that the untrained flow stands still; else like `Uniform`.
    Output {
        inputs: usize,
    },
}

/// How a linear layer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// As in PyTorch.
    Plain,
    /// As in PyTorch for a layer over this many inputs, of which it is a part.
    Part(usize),
    /// Giving zeros.
    Zero,
    /// Giving ones.
    One,
}

impl Start {
    /// Of weight and bias.
    fn fills(self, inputs: usize) -> [Fill; 2] {
        match self {
            Self::Plain => [Fill::Uniform { inputs }; 2],
            Self::Part(inputs) => [Fill::Uniform { inputs }; 2],
            Self::Zero => [Fill::Output { inputs }; 2],
            Self::One => [Fill::Output { inputs }, Fill::Ones],
        }
    }
}

impl Shape {
    /// How many weights a network of this size has.
    pub fn weight_count(&self) -> usize {
        self.tensors().last().map_or(0, |tensor| tensor.range.end)
    }

    /// The tensors that make up the weights.
    pub fn tensors(&self) -> Vec<VelocityTensor> {
        self.table().tensors
    }

    /// Columns of all that is computed on the way to v, and kept for the gradient.
    pub fn columns(&self) -> usize {
        self.table().columns
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        let condition = (self.condition > 0).then_some(self.condition);
        table.velocity(self, self.latent, 1, condition);
        table
    }
}

impl Velocity {
    /// An untrained network: PyTorch's initialisation, and an output layer of zeros.
    pub fn untrained(shape: Shape, seed: u64) -> Self {
        Self::start(shape, seed, false)
    }

    /// A network of random weights, the output layer's too: for tests and measurements of speed.
    pub fn random(shape: Shape, seed: u64) -> Self {
        Self::start(shape, seed, true)
    }

    fn start(shape: Shape, seed: u64, random_output: bool) -> Self {
        let mut random = Random::new(seed, 0);
        let mut weights = vec![0.0; shape.weight_count()];
        for tensor in shape.tensors() {
            let values = &mut weights[tensor.range];
            match tensor.fill {
                Fill::Ones => values.fill(1.0),
                Fill::Output { .. } if !random_output => {}
                Fill::Uniform { inputs } | Fill::Output { inputs } => {
                    random.fill_layer(values, inputs);
                }
                Fill::Zeros => {}
            }
        }
        Self { shape, weights }
    }

    /// The tensors that make up the weights.
    pub fn tensors(&self) -> Vec<VelocityTensor> {
        self.shape.tensors()
    }

    /// The same network for conditions as its callers give them, where this one was trained on
    /// continuous conditions that were scaled to -1 to 1: the scaling moves into the first layer.
    pub fn unscaled(mut self, schema: &ConditionSchema) -> Self {
        let ConditionSchema::Axes(axes) = schema else {
            return self;
        };
        let tensors = self.tensors();
        let range = |name: &str| {
            let tensor = tensors.iter().find(|tensor| tensor.name == name);
            tensor.expect("a conditioned network has it").range.clone()
        };
        let (weight, bias) = (range("condition1.weight"), range("condition1.bias"));
        for (i, axis) in axes.iter().enumerate() {
            let (scale, shift) = crate::condition::scaling(axis);
            for j in 0..EMBEDDING {
                let w = &mut self.weights[weight.start + i * EMBEDDING + j];
                let original = *w;
                *w = original * scale;
                self.weights[bias.start + j] += original * shift;
            }
        }
        self
    }
}

/// What velocity networks are made of; an implementation computes it, writes it down, or lists
/// the tensors that it takes.
trait Ops {
    type Value: Clone;

    /// x W + b, with the tensors `layer.weight` [in, outputs] and `layer.bias` [outputs].
    fn linear(&mut self, x: Self::Value, layer: &str, outputs: usize, start: Start) -> Self::Value;

    /// x W + c, with the tensor `layer.weight`; c has one row, or as many as x.
    fn linear_plus(
        &mut self,
        x: Self::Value,
        layer: &str,
        c: Self::Value,
        start: Start,
    ) -> Self::Value;

    /// Layer normalisation of every row, scaled by `layer.weight` and shifted by `layer.bias`.
    fn norm(&mut self, x: Self::Value, layer: &str) -> Self::Value;

    /// x Phi(x), exactly (not the tanh approximation).
    fn gelu(&mut self, x: Self::Value) -> Self::Value;

    /// Sum; either may have one row.
    fn add(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;

    /// Product of elements; either may have one row.
    fn multiply(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;

    /// v: `x` [batch, latent], `t` [1 or batch, 1], `condition` [1 or batch, condition], result
    /// [batch, latent].
    fn velocity(
        &mut self,
        shape: &Shape,
        x: Self::Value,
        t: Self::Value,
        condition: Option<Self::Value>,
    ) -> Self::Value {
        let mut context = self.embed(t, "time");
        if let Some(condition) = condition {
            let condition = self.embed(condition, "condition");
            context = self.add(context, condition);
        }
        match shape.variant {
            Variant::Reference => self.chain(shape, x, context, &[2, 1]),
            Variant::Deep => self.chain(shape, x, context, &[1, 2, 1]),
            Variant::Residual => self.residual(shape, x, context),
        }
    }

    fn embed(&mut self, value: Self::Value, name: &str) -> Self::Value {
        let hidden = self.linear(value, &format!("{name}1"), EMBEDDING, Start::Plain);
        let hidden = self.gelu(hidden);
        self.linear(hidden, &format!("{name}2"), EMBEDDING, Start::Plain)
    }

    /// A hidden layer of width h, then one of h / divisor for each of `divisors`.
    fn chain(
        &mut self,
        shape: &Shape,
        x: Self::Value,
        context: Self::Value,
        divisors: &[usize],
    ) -> Self::Value {
        let concatenated = Start::Part(shape.latent + EMBEDDING);
        let context = self.linear(context, "input_time", shape.width, concatenated);
        let mut h = self.linear_plus(x, "input", context, concatenated);
        for (i, divisor) in (1..).zip(divisors) {
            h = self.norm(h, &format!("norm{i}"));
            h = self.gelu(h);
            let (layer, width) = (format!("hidden{}", i + 1), shape.width / divisor);
            h = self.linear(h, &layer, width, Start::Plain);
        }
        h = self.norm(h, &format!("norm{}", divisors.len() + 1));
        h = self.gelu(h);
        self.linear(h, "output", shape.latent, Start::Zero)
    }

    fn residual(&mut self, shape: &Shape, x: Self::Value, context: Self::Value) -> Self::Value {
        let width = shape.width;
        let context = self.gelu(context);
        let mut h = self.linear(x, "input", width, Start::Plain);
        for i in 1..=BLOCKS {
            let scale = self.linear(context.clone(), &format!("scale{i}"), width, Start::One);
            let shift = self.linear(context.clone(), &format!("shift{i}"), width, Start::Zero);
            let mut r = self.norm(h.clone(), &format!("norm{i}"));
            r = self.multiply(r, scale);
            r = self.add(r, shift);
            r = self.linear(r, &format!("expand{i}"), width, Start::Plain);
            r = self.gelu(r);
            r = self.linear(r, &format!("contract{i}"), width, Start::Zero);
            h = self.add(h, r);
        }
        h = self.norm(h, "norm");
        self.linear(h, "output", shape.latent, Start::Zero)
    }
}

/// The list of tensors; a value is its number of columns.
#[derive(Default)]
struct Table {
    tensors: Vec<VelocityTensor>,
    /// Of all values so far.
    columns: usize,
}

impl Table {
    fn push(&mut self, name: String, shape: Vec<usize>, fill: Fill) {
        let start = self.tensors.last().map_or(0, |tensor| tensor.range.end);
        let range = start..start + shape.iter().product::<usize>();
        self.tensors.push(VelocityTensor {
            name,
            shape,
            range,
            fill,
        });
    }

    fn value(&mut self, columns: usize) -> usize {
        self.columns += columns;
        columns
    }
}

impl Ops for Table {
    type Value = usize;

    fn linear(&mut self, x: usize, layer: &str, outputs: usize, start: Start) -> usize {
        let [weight, bias] = start.fills(x);
        self.push(format!("{layer}.weight"), vec![x, outputs], weight);
        self.push(format!("{layer}.bias"), vec![outputs], bias);
        self.value(outputs)
    }

    fn linear_plus(&mut self, x: usize, layer: &str, c: usize, start: Start) -> usize {
        let [weight, _] = start.fills(x);
        self.push(format!("{layer}.weight"), vec![x, c], weight);
        self.value(c)
    }

    fn norm(&mut self, x: usize, layer: &str) -> usize {
        self.push(format!("{layer}.weight"), vec![x], Fill::Ones);
        self.push(format!("{layer}.bias"), vec![x], Fill::Zeros);
        self.value(x)
    }

    fn gelu(&mut self, x: usize) -> usize {
        self.value(x)
    }

    fn add(&mut self, a: usize, _: usize) -> usize {
        self.value(a)
    }

    fn multiply(&mut self, a: usize, _: usize) -> usize {
        self.value(a)
    }
}
