//! The velocity network v(x, t), defined once for training in burn and for export as ONNX.
//!
//! The reference network of DeepWeightFlow (arXiv 2601.05052): a time embedding 1-64-64 with
//! GELU, and hidden layers h, h/2, h over the concatenation of state and embedding, each Linear,
//! LayerNorm, GELU. The first layer is written as x Wx + (embedding Wt + b), which equals the
//! concatenation, so that a time shared by a whole batch is embedded once.

use std::ops::Range;

use burn::tensor::{Device, Gradients, Tensor, TensorData, activation, module};
use dwf::{
    artifact::value,
    onnx::{AttributeProto, GraphProto, NodeProto, ValueInfoProto, attribute_type, data_type},
};

use crate::random::Random;

/// Width of the time embedding.
pub const TIME_FEATURES: usize = 64;
/// PyTorch's default.
pub const NORM_EPSILON: f32 = 1e-5;

/// A velocity network and its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Velocity {
    /// Length of x and v.
    pub latent: usize,
    /// h.
    pub width: usize,
    /// All weights, in the order of [`Velocity::tensors`].
    pub weights: Vec<f32>,
}

/// One tensor of a velocity network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VelocityTensor {
    /// Its name, in ONNX and in the sidecar.
    pub name: &'static str,
    /// [in, out] for a matrix, [out] for a vector.
    pub shape: Vec<usize>,
    /// Its elements among [`Velocity::weights`].
    pub range: Range<usize>,
    start: Start,
}

impl VelocityTensor {
    /// Whether it is a matrix, stored in half precision; vectors stay in single.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }
}

/// How a tensor is initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
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

impl Velocity {
    /// An untrained network: PyTorch's initialisation, and an output layer of zeros.
    pub fn untrained(latent: usize, width: usize, seed: u64) -> Self {
        Self::start(latent, width, seed, false)
    }

    /// A network of random weights, the output layer's too: for tests and measurements of speed.
    pub fn random(latent: usize, width: usize, seed: u64) -> Self {
        Self::start(latent, width, seed, true)
    }

    fn start(latent: usize, width: usize, seed: u64, random_output: bool) -> Self {
        let tensors = tensors(latent, width);
        let mut random = Random::new(seed, 0);
        let mut weights = Vec::new();
        for tensor in &tensors {
            let mut uniform = |inputs: usize| random.symmetric(1.0 / (inputs as f32).sqrt());
            weights.extend(tensor.range.clone().map(|_| match tensor.start {
                Start::Ones => 1.0,
                Start::Uniform { inputs } => uniform(inputs),
                Start::Output { inputs } if random_output => uniform(inputs),
                Start::Zeros | Start::Output { .. } => 0.0,
            }));
        }
        Self {
            latent,
            width,
            weights,
        }
    }

    /// How many weights a network of this size has.
    pub fn weight_count(latent: usize, width: usize) -> usize {
        tensors(latent, width)
            .last()
            .map_or(0, |tensor| tensor.range.end)
    }

    /// The tensors that make up the weights.
    pub fn tensors(&self) -> Vec<VelocityTensor> {
        tensors(self.latent, self.width)
    }

    /// v(x, t) for a batch: `x` [batch, latent], `t` [batch], both row-major.
    pub fn evaluate(&self, x: &[f32], t: &[f32]) -> Vec<f32> {
        let device = Device::flex();
        let mut network = Burn::new(self, &device);
        let v = network.velocity(
            rows(x.to_vec(), self.latent, &device),
            rows(t.to_vec(), 1, &device),
        );
        to_vec(v)
    }

    /// The mean squared difference of v(x, t) and `target` ([batch, latent]), and its gradient by
    /// every weight.
    pub fn loss_gradient(
        &self,
        x: Vec<f32>,
        t: Vec<f32>,
        target: Vec<f32>,
        gradient: &mut [f32],
    ) -> f32 {
        let device = Device::flex().autodiff();
        let mut network = Burn::new(self, &device);
        let v = network.velocity(rows(x, self.latent, &device), rows(t, 1, &device));
        let difference = v - rows(target, self.latent, &device);
        let loss = (difference.clone() * difference).mean();
        let gradients = loss.backward();
        network.read(&gradients, gradient);
        loss.into_scalar()
    }
}

fn tensors(latent: usize, width: usize) -> Vec<VelocityTensor> {
    use Start::{Ones, Output, Uniform, Zeros};
    let (time, half) = (TIME_FEATURES, width / 2);
    let concatenated = Uniform {
        inputs: latent + time,
    };
    let table = [
        ("time1.weight", vec![1, time], Uniform { inputs: 1 }),
        ("time1.bias", vec![time], Uniform { inputs: 1 }),
        ("time2.weight", vec![time, time], Uniform { inputs: time }),
        ("time2.bias", vec![time], Uniform { inputs: time }),
        ("input_time.weight", vec![time, width], concatenated),
        ("input_time.bias", vec![width], concatenated),
        ("input.weight", vec![latent, width], concatenated),
        ("norm1.weight", vec![width], Ones),
        ("norm1.bias", vec![width], Zeros),
        (
            "hidden2.weight",
            vec![width, half],
            Uniform { inputs: width },
        ),
        ("hidden2.bias", vec![half], Uniform { inputs: width }),
        ("norm2.weight", vec![half], Ones),
        ("norm2.bias", vec![half], Zeros),
        (
            "hidden3.weight",
            vec![half, width],
            Uniform { inputs: half },
        ),
        ("hidden3.bias", vec![width], Uniform { inputs: half }),
        ("norm3.weight", vec![width], Ones),
        ("norm3.bias", vec![width], Zeros),
        (
            "output.weight",
            vec![width, latent],
            Output { inputs: width },
        ),
        ("output.bias", vec![latent], Output { inputs: width }),
    ];
    let mut end = 0;
    let place = |(name, shape, start): (_, Vec<usize>, _)| {
        let begin = end;
        end += shape.iter().product::<usize>();
        VelocityTensor {
            name,
            shape,
            range: begin..end,
            start,
        }
    };
    table.into_iter().map(place).collect()
}

/// What the velocity network is made of; an implementation computes it or writes it down.
trait Ops {
    type Value;

    /// x W + b, with the tensors `layer.weight` and `layer.bias`.
    fn linear(&mut self, x: Self::Value, layer: &str) -> Self::Value;

    /// x W + c, with the tensor `layer.weight`; c has one row, or as many as x.
    fn linear_plus(&mut self, x: Self::Value, layer: &str, c: Self::Value) -> Self::Value;

    /// Layer normalisation of every row, scaled by `layer.weight` and shifted by `layer.bias`.
    fn norm(&mut self, x: Self::Value, layer: &str) -> Self::Value;

    /// x Phi(x), exactly (not the tanh approximation).
    fn gelu(&mut self, x: Self::Value) -> Self::Value;

    /// v(x, t): `x` [batch, latent], `t` [1 or batch, 1], result [batch, latent].
    fn velocity(&mut self, x: Self::Value, t: Self::Value) -> Self::Value {
        let time = self.linear(t, "time1");
        let time = self.gelu(time);
        let time = self.linear(time, "time2");
        let time = self.linear(time, "input_time");
        let mut h = self.linear_plus(x, "input", time);
        for (norm, next) in [
            ("norm1", "hidden2"),
            ("norm2", "hidden3"),
            ("norm3", "output"),
        ] {
            h = self.norm(h, norm);
            h = self.gelu(h);
            h = self.linear(h, next);
        }
        h
    }
}

/// The network as burn tensors.
struct Burn {
    tensors: Vec<VelocityTensor>,
    leaves: Vec<Leaf>,
}

enum Leaf {
    Matrix(Tensor<2>),
    Vector(Tensor<1>),
}

impl Burn {
    /// On an autodiff device the weights' gradients are kept.
    fn new(velocity: &Velocity, device: &Device) -> Self {
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
        }
    }

    fn leaf(&self, layer: &str, part: &str) -> &Leaf {
        let name = format!("{layer}.{part}");
        let index = self.tensors.iter().position(|tensor| tensor.name == name);
        &self.leaves[index.expect("the table lists every tensor")]
    }

    fn matrix(&self, layer: &str) -> Tensor<2> {
        match self.leaf(layer, "weight") {
            Leaf::Matrix(tensor) => tensor.clone(),
            Leaf::Vector(_) => unreachable!("'{layer}' is linear"),
        }
    }

    fn vector(&self, layer: &str, part: &str) -> Tensor<1> {
        match self.leaf(layer, part) {
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

impl Ops for Burn {
    type Value = Tensor<2>;

    fn linear(&mut self, x: Tensor<2>, layer: &str) -> Tensor<2> {
        module::linear(x, self.matrix(layer), Some(self.vector(layer, "bias")))
    }

    fn linear_plus(&mut self, x: Tensor<2>, layer: &str, c: Tensor<2>) -> Tensor<2> {
        module::linear(x, self.matrix(layer), None) + c
    }

    fn norm(&mut self, x: Tensor<2>, layer: &str) -> Tensor<2> {
        let (scale, shift) = (self.vector(layer, "weight"), self.vector(layer, "bias"));
        module::layer_norm(x, scale, Some(shift), NORM_EPSILON.into())
    }

    fn gelu(&mut self, x: Tensor<2>) -> Tensor<2> {
        activation::gelu(x)
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
    tensor.try_into_vec_as().expect("a float tensor on the CPU")
}

/// The network as ONNX nodes; a value is its name.
#[derive(Default)]
struct Onnx {
    nodes: Vec<NodeProto>,
}

impl Velocity {
    /// The computation as an ONNX graph (opset 20) without its initialisers: `x`
    /// [batch, latent] and `t` [time_batch, 1] to `v` [batch, latent], float32. The matrices
    /// are stored in half precision and cast first, so that a runtime can fold the cast.
    pub fn graph(&self) -> GraphProto {
        let mut onnx = Onnx::default();
        let v = onnx.velocity(value::X.into(), value::T.into());
        let last = onnx.nodes.last_mut().expect("the output layer");
        debug_assert_eq!(last.output, [v]);
        last.output = vec![value::V.into()];
        let tensor = |name, rows, columns| {
            ValueInfoProto::tensor(name, data_type::FLOAT, &[Err(rows), Ok(columns)])
        };
        GraphProto {
            node: onnx.nodes,
            name: Some("velocity".into()),
            initializer: Vec::new(),
            input: vec![
                tensor(value::X, "batch", self.latent),
                tensor(value::T, "time_batch", 1),
            ],
            output: vec![tensor(value::V, "batch", self.latent)],
            value_info: Vec::new(),
        }
    }
}

impl Onnx {
    fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: String,
        attribute: Option<AttributeProto>,
    ) -> String {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output: vec![output.clone()],
            name: Some(output.clone()),
            op_type: Some(op.into()),
            attribute: attribute.into_iter().collect(),
            domain: None,
        });
        output
    }

    fn gemm(&mut self, x: &str, layer: &str, c: &str) -> String {
        let to_float = AttributeProto {
            name: Some("to".into()),
            r#type: Some(attribute_type::INT),
            i: Some(data_type::FLOAT.into()),
            ..Default::default()
        };
        let stored = format!("{layer}.weight");
        let weight = self.node("Cast", &[&stored], format!("{stored}.f32"), Some(to_float));
        self.node("Gemm", &[x, &weight, c], format!("{layer}.out"), None)
    }
}

impl Ops for Onnx {
    type Value = String;

    fn linear(&mut self, x: String, layer: &str) -> String {
        self.gemm(&x, layer, &format!("{layer}.bias"))
    }

    fn linear_plus(&mut self, x: String, layer: &str, c: String) -> String {
        self.gemm(&x, layer, &c)
    }

    fn norm(&mut self, x: String, layer: &str) -> String {
        let epsilon = AttributeProto {
            name: Some("epsilon".into()),
            r#type: Some(attribute_type::FLOAT),
            f: Some(NORM_EPSILON),
            ..Default::default()
        };
        let inputs = [x, format!("{layer}.weight"), format!("{layer}.bias")];
        let inputs = inputs.each_ref().map(String::as_str);
        self.node(
            "LayerNormalization",
            &inputs,
            format!("{layer}.out"),
            Some(epsilon),
        )
    }

    fn gelu(&mut self, x: String) -> String {
        self.node("Gelu", &[&x], format!("{x}.gelu"), None)
    }
}
