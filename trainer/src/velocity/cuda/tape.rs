//! What a network computes on the GPU, forwards and backwards, in memory that stays.

use std::sync::Arc;

use cudarc::driver::CudaFunction;

use super::{
    super::{
        Ops, Points, Shape, Start, VelocityTensor,
        tape::{Offset, Operation},
    },
    gpu::{Blocks, Buffer, Gpu, Matrix, Place},
};
use crate::error::Result;

/// The operations of a network, and what the last pass left of them.
pub(super) struct Tape {
    gpu: Arc<Gpu>,
    nodes: Vec<Node>,
    /// Of all nodes.
    columns: usize,
    rows: usize,
    /// Of the nodes, one after the other.
    values: Buffer,
    /// Of the loss by the values; empty until somebody asks.
    gradients: Buffer,
}

/// An operation, whose result is [rows, columns].
struct Node {
    operation: Operation,
    columns: usize,
    /// Columns of all nodes before it.
    before: usize,
}

/// A normalisation keeps two numbers a row behind its values: mean, and one over the standard
/// deviation.
const MOMENTS: usize = 2;

impl Tape {
    pub(super) fn new(gpu: &Arc<Gpu>, shape: &Shape) -> Result<Self> {
        let Listing { nodes, columns, .. } = Listing::new(shape);
        Ok(Self {
            gpu: gpu.clone(),
            nodes,
            columns,
            rows: 0,
            values: gpu.zeros(0)?,
            gradients: gpu.zeros(0)?,
        })
    }

    /// v at the points, [batch, latent].
    pub(super) fn forward(&mut self, weights: &Buffer, points: &Points) -> Result<Place> {
        self.rows = points.t.len();
        let length = self.rows * self.columns;
        if self.values.whole().length < length {
            self.values = self.gpu.zeros(length)?;
        }
        let inputs = [&points.x, &points.t, &points.condition];
        for (values, node) in inputs.into_iter().zip(&self.nodes) {
            if let Operation::Input = node.operation {
                let start = self.rows * node.before;
                self.gpu.write(values, &mut self.values, start)?;
            }
        }
        for i in 0..self.nodes.len() {
            self.compute(i, weights.whole())?;
        }
        Ok(self.value(self.nodes.len() - 1))
    }

    /// Room for the loss's gradient by v, for [`Tape::backward`].
    pub(super) fn by_v(&mut self) -> Result<Place> {
        let length = self.values.whole().length;
        if self.gradients.whole().length < length {
            self.gradients = self.gpu.zeros(length)?;
        }
        Ok(self.gradient(self.nodes.len() - 1))
    }

    /// The loss's gradient by every weight, all overwritten, from that by the last pass's v.
    pub(super) fn backward(&mut self, weights: &Buffer, gradient: &Buffer) -> Result<()> {
        let (weights, gradient) = (weights.whole(), gradient.whole());
        let before_v = self.rows * self.nodes[self.nodes.len() - 1].before;
        self.gpu.clear(self.gradients.whole().part(0, before_v))?;
        for i in (0..self.nodes.len()).rev() {
            self.backward_through(i, weights, gradient)?;
        }
        Ok(())
    }

    fn compute(&self, i: usize, weights: Place) -> Result<()> {
        let (kernels, y) = (&self.gpu.kernels, self.value(i));
        let (columns, all) = (self.nodes[i].columns, Blocks::Elements(y.length));
        match &self.nodes[i].operation {
            Operation::Input => Ok(()),
            Operation::Linear { x, weight, start } => {
                match start {
                    Offset::Bias(bias) => {
                        let bias = weights.part(bias.start, bias.len());
                        self.run(&kernels.bias, all, &[bias, y], &[y.length, columns])?;
                    }
                    Offset::Value(value) => {
                        self.run(&kernels.copy, all, &[self.value(*value), y], &[y.length])?;
                    }
                }
                let weight = weights.part(weight.start, weight.len()).rows(columns);
                self.gpu.product(self.matrix(*x), weight, y, true)
            }
            Operation::Norm { x, scale, shift } => {
                let [scale, shift] = [scale, shift].map(|at| weights.part(at.start, at.len()));
                let places = [self.value(*x), scale, shift, y, self.moments(i)];
                self.run(
                    &kernels.layer_norm,
                    Blocks::Rows(self.rows),
                    &places,
                    &[columns],
                )
            }
            Operation::Gelu(x) => self.run(&kernels.gelu, all, &[self.value(*x), y], &[y.length]),
            Operation::Add(a, b) => {
                let places = [self.value(*a), self.value(*b), y];
                self.run(&kernels.add, all, &places, &[y.length])
            }
            Operation::Multiply(a, b) => {
                let places = [self.value(*a), self.value(*b), y];
                self.run(&kernels.multiply, all, &places, &[y.length])
            }
        }
    }

    fn backward_through(&self, i: usize, weights: Place, gradient: Place) -> Result<()> {
        let (kernels, dy) = (&self.gpu.kernels, self.gradient(i));
        let (columns, all) = (self.nodes[i].columns, Blocks::Elements(dy.length));
        let by_columns = Blocks::Elements(columns);
        let size = [self.rows, columns];
        match &self.nodes[i].operation {
            Operation::Input => Ok(()),
            Operation::Linear { x, weight, start } => {
                match start {
                    Offset::Bias(bias) => {
                        let by_bias = gradient.part(bias.start, bias.len());
                        self.run(&kernels.sum_rows, by_columns, &[dy, by_bias], &size)?;
                    }
                    Offset::Value(value) => self.add_to(dy, *value)?,
                }
                let by_weight = gradient.part(weight.start, weight.len());
                let weight = weights.part(weight.start, weight.len()).rows(columns);
                let (x_values, dy) = (self.matrix(*x), dy.rows(columns));
                self.gpu.product(x_values.t(), dy, by_weight, false)?;
                if let Operation::Input = self.nodes[*x].operation {
                    return Ok(());
                }
                self.gpu.product(dy, weight.t(), self.gradient(*x), true)
            }
            Operation::Norm { x, scale, shift } => {
                let (x, dx) = (self.value(*x), self.gradient(*x));
                let moments = self.moments(i);
                let [by_scale, by_shift] =
                    [scale, shift].map(|at| gradient.part(at.start, at.len()));
                let places = [x, moments, dy, by_scale, by_shift];
                self.run(&kernels.layer_norm_weights, by_columns, &places, &size)?;
                let scale = weights.part(scale.start, scale.len());
                let places = [x, moments, scale, dy, dx];
                let rows = Blocks::Rows(self.rows);
                self.run(&kernels.layer_norm_back, rows, &places, &[columns])
            }
            Operation::Gelu(x) => {
                let places = [self.value(*x), dy, self.gradient(*x)];
                self.run(&kernels.gelu_back, all, &places, &[dy.length])
            }
            Operation::Add(a, b) => {
                self.add_to(dy, *a)?;
                self.add_to(dy, *b)
            }
            Operation::Multiply(a, b) => {
                for (to, other) in [(*a, *b), (*b, *a)] {
                    let places = [dy, self.value(other), self.gradient(to)];
                    self.run(&kernels.add_product, all, &places, &[dy.length])?;
                }
                Ok(())
            }
        }
    }

    /// Adds to the gradient by a node's value.
    fn add_to(&self, dy: Place, node: usize) -> Result<()> {
        let all = Blocks::Elements(dy.length);
        let places = [dy, self.gradient(node)];
        self.run(&self.gpu.kernels.add_to, all, &places, &[dy.length])
    }

    fn run(
        &self,
        kernel: &CudaFunction,
        blocks: Blocks,
        places: &[Place],
        counts: &[usize],
    ) -> Result<()> {
        // SAFETY: nodes that an operation combines have the columns that it needs, as have the
        // tensors, and every node as many rows.
        unsafe { self.gpu.launch(kernel, blocks, places, counts, &[]) }
    }

    fn value(&self, i: usize) -> Place {
        let node = &self.nodes[i];
        let (start, length) = (self.rows * node.before, self.rows * node.columns);
        self.values.whole().part(start, length)
    }

    fn gradient(&self, i: usize) -> Place {
        let node = &self.nodes[i];
        let (start, length) = (self.rows * node.before, self.rows * node.columns);
        self.gradients.whole().part(start, length)
    }

    fn matrix(&self, i: usize) -> Matrix {
        self.value(i).rows(self.nodes[i].columns)
    }

    fn moments(&self, i: usize) -> Place {
        let node = &self.nodes[i];
        let start = self.rows * (node.before + node.columns);
        self.values.whole().part(start, self.rows * MOMENTS)
    }
}

/// Lists the operations of a network.
struct Listing {
    nodes: Vec<Node>,
    columns: usize,
    /// Those that are still to come: networks use their tensors in order.
    tensors: std::vec::IntoIter<VelocityTensor>,
}

impl Listing {
    fn new(shape: &Shape) -> Self {
        let mut listing = Self {
            nodes: Vec::new(),
            columns: 0,
            tensors: shape.tensors().into_iter(),
        };
        let x = listing.push(Operation::Input, shape.latent);
        let t = listing.push(Operation::Input, 1);
        let condition =
            (shape.condition > 0).then(|| listing.push(Operation::Input, shape.condition));
        let v = listing.velocity(shape, x, t, condition);
        debug_assert_eq!(v + 1, listing.nodes.len());
        listing
    }

    fn push(&mut self, operation: Operation, columns: usize) -> usize {
        let moments = match operation {
            Operation::Norm { .. } => MOMENTS,
            _ => 0,
        };
        self.nodes.push(Node {
            operation,
            columns,
            before: self.columns,
        });
        self.columns += columns + moments;
        self.nodes.len() - 1
    }

    fn tensor(&mut self, layer: &str, part: &str) -> VelocityTensor {
        let tensor = self.tensors.next().expect("the network's own tensors");
        debug_assert_eq!(tensor.name, format!("{layer}.{part}"));
        tensor
    }
}

impl Ops for Listing {
    type Value = usize;

    fn linear(&mut self, x: usize, layer: &str, outputs: usize, _: Start) -> usize {
        let weight = self.tensor(layer, "weight").range;
        let start = Offset::Bias(self.tensor(layer, "bias").range);
        self.push(Operation::Linear { x, weight, start }, outputs)
    }

    fn linear_plus(&mut self, x: usize, layer: &str, c: usize, _: Start) -> usize {
        let weight = self.tensor(layer, "weight").range;
        let (start, outputs) = (Offset::Value(c), self.nodes[c].columns);
        self.push(Operation::Linear { x, weight, start }, outputs)
    }

    fn norm(&mut self, x: usize, layer: &str) -> usize {
        let scale = self.tensor(layer, "weight").range;
        let shift = self.tensor(layer, "bias").range;
        self.push(Operation::Norm { x, scale, shift }, self.nodes[x].columns)
    }

    fn gelu(&mut self, x: usize) -> usize {
        self.push(Operation::Gelu(x), self.nodes[x].columns)
    }

    fn add(&mut self, a: usize, b: usize) -> usize {
        self.push(Operation::Add(a, b), self.nodes[a].columns)
    }

    fn multiply(&mut self, a: usize, b: usize) -> usize {
        self.push(Operation::Multiply(a, b), self.nodes[a].columns)
    }
}
