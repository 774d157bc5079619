//! Small classifiers that are trained here in their hundreds: described once, as a list of
//! operators, for training, for prediction and as an ONNX graph.
//!
//! A batch's value is a matrix [features, batch * positions], row-major: a column is one position
//! (pixel or token) of one sample. So linear layers and convolutions are matrix products, and every
//! other operator runs along contiguous rows.

mod architecture;
mod graph;
mod operator;
mod training;

pub use architecture::{Architecture, Image};
pub use operator::softmax;
pub use training::Recipe;

use dwf::layout::{DType, Layout, TensorKind};

use crate::random::Random;
use operator::Operator;

/// Samples that are predicted at a time.
const BLOCK: usize = 64;

/// A classifier without its weights: those are flat vectors in the order of [`Classifier::layout`],
/// first all parameters, then all buffers.
pub struct Classifier {
    layout: Layout,
    starts: Vec<Start>,
    parameters: usize,
    shapes: Vec<Shape>,
    nodes: Vec<Node>,
}

/// One operator application. Values are numbered: 0 is the input, then one a node.
struct Node {
    operator: Operator,
    inputs: Vec<usize>,
}

/// What a value holds for each sample: `features` at each of its positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    features: usize,
    positions: Positions,
}

/// How the positions of a value lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Positions {
    /// A single one.
    Single,
    /// Rows and columns of pixels.
    Grid(usize, usize),
    /// A sequence of tokens.
    Sequence(usize),
}

/// How a tensor is initialised.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    /// Uniform within 1 / sqrt(inputs): PyTorch's default for linear layers and convolutions.
    Uniform {
        inputs: usize,
    },
    /// Normal with this standard deviation.
    Normal(f32),
    Ones,
    Zeros,
}

impl Shape {
    fn positions(self) -> usize {
        match self.positions {
            Positions::Single => 1,
            Positions::Grid(height, width) => height * width,
            Positions::Sequence(length) => length,
        }
    }

    fn len(self) -> usize {
        self.features * self.positions()
    }
}

impl Classifier {
    /// Its tensors in the flat vector.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Numbers in one sample.
    pub fn inputs(&self) -> usize {
        self.shapes[0].len()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.shapes[self.shapes.len() - 1].features
    }

    /// Whether it is a plain MLP, which the names and shapes of its tensors tell.
    pub fn is_chain(&self) -> bool {
        let plain = |operator| matches!(operator, Operator::Linear { .. } | Operator::Relu);
        self.nodes.iter().all(|node| plain(node.operator))
    }

    /// Fresh weights.
    pub fn initialise(&self, random: &mut Random) -> Vec<f32> {
        let mut weights = Vec::with_capacity(self.layout.len());
        for (tensor, start) in self.layout.tensors().iter().zip(&self.starts) {
            let mut values = vec![0f32; tensor.count()];
            match *start {
                Start::Zeros => (),
                Start::Ones => values.fill(1.0),
                Start::Normal(std) => {
                    random.fill_normal(&mut values);
                    values.iter_mut().for_each(|value| *value *= std);
                }
                Start::Uniform { inputs } => random.fill_layer(&mut values, inputs),
            }
            weights.extend(values);
        }
        weights
    }

    /// The logits of samples ([count, inputs]) as [count, classes], both row-major.
    pub fn predict(&self, weights: &[f32], samples: &[f32]) -> Vec<f32> {
        let mut pass = Pass::new(self);
        let mut logits = Vec::with_capacity(samples.len() / self.inputs() * self.classes());
        for block in samples.chunks(BLOCK * self.inputs()) {
            let batch = block.len() / self.inputs();
            self.forward(weights, block, batch, &mut pass, false);
            let out = pass.logits();
            logits.extend(
                (0..batch).flat_map(|s| (0..self.classes()).map(move |c| out[c * batch + s])),
            );
        }
        logits
    }

    /// Computes every value of `pass` for `batch` samples.
    fn forward(
        &self,
        weights: &[f32],
        samples: &[f32],
        batch: usize,
        pass: &mut Pass,
        training: bool,
    ) {
        pass.batch = batch;
        load(samples, self.shapes[0], batch, &mut pass.values[0]);
        for (i, node) in self.nodes.iter().enumerate() {
            let (before, after) = pass.values.split_at_mut(i + 1);
            let inputs: Vec<operator::Input<'_>> = node
                .inputs
                .iter()
                .map(|&input| operator::Input {
                    shape: self.shapes[input],
                    values: &before[input],
                })
                .collect();
            let out = &mut after[0];
            out.clear();
            out.resize(self.shapes[i + 1].len() * batch, 0.0);
            let tensors = operator::Tensors {
                layout: &self.layout,
                weights,
            };
            node.operator.forward(
                &tensors,
                &inputs,
                batch,
                out,
                training.then_some(&mut pass.kept[i]),
            );
        }
    }

    /// Adds the weights' gradient to `gradient`, from the logits' in the last of `pass.slopes`.
    fn backward(&self, weights: &[f32], pass: &mut Pass, gradient: &mut [f32]) {
        for (i, node) in self.nodes.iter().enumerate().rev() {
            let (before, after) = pass.slopes.split_at_mut(i + 1);
            // The input's own slope is of no use.
            let mut slopes: Vec<Option<Vec<f32>>> = node
                .inputs
                .iter()
                .map(|&input| (input > 0).then(|| std::mem::take(&mut before[input])))
                .collect();
            let inputs: Vec<operator::Input<'_>> = node
                .inputs
                .iter()
                .map(|&input| operator::Input {
                    shape: self.shapes[input],
                    values: &pass.values[input],
                })
                .collect();
            let tensors = operator::Tensors {
                layout: &self.layout,
                weights,
            };
            let mut gradient = operator::Gradient {
                layout: &self.layout,
                values: gradient,
            };
            node.operator.backward(
                &tensors,
                &inputs,
                pass.batch,
                &pass.kept[i],
                &after[0],
                &mut slopes,
                &mut gradient,
            );
            for (slope, &input) in slopes.into_iter().zip(&node.inputs) {
                if let Some(slope) = slope {
                    before[input] = slope;
                }
            }
        }
    }
}

/// Samples, row-major, as a value's matrix.
fn load(samples: &[f32], shape: Shape, batch: usize, out: &mut Vec<f32>) {
    let positions = shape.positions();
    out.clear();
    out.resize(samples.len(), 0.0);
    for (s, sample) in samples.chunks_exact(shape.len()).enumerate() {
        for (row, values) in sample.chunks_exact(positions).enumerate() {
            out[(row * batch + s) * positions..][..positions].copy_from_slice(values);
        }
    }
}

/// The memory of one batch on its way forth and back.
struct Pass {
    batch: usize,
    values: Vec<Vec<f32>>,
    slopes: Vec<Vec<f32>>,
    /// What each node keeps for its way back.
    kept: Vec<Vec<f32>>,
}

impl Pass {
    fn new(classifier: &Classifier) -> Self {
        Self {
            batch: 0,
            values: vec![Vec::new(); classifier.shapes.len()],
            slopes: vec![Vec::new(); classifier.shapes.len()],
            kept: vec![Vec::new(); classifier.nodes.len()],
        }
    }

    /// [classes, batch]
    fn logits(&self) -> &[f32] {
        &self.values[self.values.len() - 1]
    }

    /// Zeros for every value's slope, and the logits' to be filled.
    fn clear_slopes(&mut self) -> (&[f32], &mut [f32]) {
        for (slope, value) in self.slopes.iter_mut().zip(&self.values) {
            slope.clear();
            slope.resize(value.len(), 0.0);
        }
        let last = self.values.len() - 1;
        (&self.values[last], &mut self.slopes[last])
    }
}

/// A classifier being described, from the input on.
struct Builder {
    tensors: Vec<(String, Vec<usize>, TensorKind, Start)>,
    shapes: Vec<Shape>,
    nodes: Vec<(Operator, Vec<usize>)>,
}

/// A tensor's number: the builder's order first, then the layout's.
type Tensor = usize;

impl Builder {
    fn new(input: Shape) -> Self {
        Self {
            tensors: Vec::new(),
            shapes: vec![input],
            nodes: Vec::new(),
        }
    }

    fn parameter(&mut self, name: String, shape: &[usize], start: Start) -> Tensor {
        self.tensors
            .push((name, shape.into(), TensorKind::Parameter, start));
        self.tensors.len() - 1
    }

    fn buffer(&mut self, name: String, shape: &[usize], start: Start) -> Tensor {
        self.tensors
            .push((name, shape.into(), TensorKind::Buffer, start));
        self.tensors.len() - 1
    }

    /// Adds a node and returns its value.
    fn push(&mut self, operator: Operator, inputs: &[usize], shape: Shape) -> usize {
        self.nodes.push((operator, inputs.into()));
        self.shapes.push(shape);
        self.shapes.len() - 1
    }

    fn finish(self) -> Classifier {
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        order.sort_by_key(|&i| self.tensors[i].2 as u32);
        let place = |tensor: Tensor| {
            let place = order.iter().position(|&i| i == tensor);
            place.expect("every tensor has a place")
        };
        let layout = Layout::pack(order.iter().map(|&i| {
            let (name, shape, kind, _) = &self.tensors[i];
            (name.clone(), shape.clone(), DType::F32, *kind)
        }))
        .expect("names differ and sizes are small");
        let parameters = layout
            .tensors()
            .iter()
            .filter(|tensor| tensor.kind == TensorKind::Parameter)
            .map(|tensor| tensor.count())
            .sum();
        Classifier {
            starts: order.iter().map(|&i| self.tensors[i].3).collect(),
            layout,
            parameters,
            shapes: self.shapes,
            nodes: self
                .nodes
                .into_iter()
                .map(|(operator, inputs)| Node {
                    operator: operator.with_tensors(place),
                    inputs,
                })
                .collect(),
        }
    }
}
