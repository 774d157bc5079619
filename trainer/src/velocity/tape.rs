//! Velocity networks computed and differentiated on the processor.
//!
//! A tape keeps what every operation gave, and goes back over it for the gradient. Its memory stays
//! for the next pass: fresh memory at every step would cost more than the arithmetic on it.

use std::{mem, ops::Range};

use pulp::Arch;

use super::{NORM_EPSILON, Ops, Points, Shape, Start, VelocityTensor, gelu, product::Size};

/// What one pass left.
#[derive(Default)]
pub(super) struct Tape {
    nodes: Vec<Node>,
    rows: usize,
    /// Of the last pass; nodes behind them are left from a longer one.
    used: usize,
}

/// The result of an operation, [rows, columns] row-major.
#[derive(Default)]
struct Node {
    operation: Operation,
    columns: usize,
    value: Vec<f32>,
    /// Of the loss by the value; empty where nobody asks for it.
    gradient: Vec<f32>,
    /// Of a normalisation, for every row: mean, and one over the standard deviation.
    moments: Vec<[f32; 2]>,
}

/// What was done; weights by their places, values by their nodes.
#[derive(Clone, Debug, Default)]
pub(super) enum Operation {
    #[default]
    Input,
    Linear {
        x: usize,
        weight: Range<usize>,
        start: Offset,
    },
    Norm {
        x: usize,
        scale: Range<usize>,
        shift: Range<usize>,
    },
    Gelu(usize),
    Add(usize, usize),
    Multiply(usize, usize),
}

/// What a product is added to.
#[derive(Clone, Debug)]
pub(super) enum Offset {
    Bias(Range<usize>),
    Value(usize),
}

impl Tape {
    /// v at the points, [batch, latent].
    pub(super) fn forward(
        &mut self,
        shape: &Shape,
        tensors: &[VelocityTensor],
        weights: &[f32],
        points: &Points,
    ) -> &[f32] {
        self.rows = points.t.len();
        self.used = 0;
        let mut pass = Pass {
            tape: self,
            tensors: tensors.iter(),
            weights,
        };
        let x = pass.input(&points.x, shape.latent);
        let t = pass.input(&points.t, 1);
        let condition =
            (shape.condition > 0).then(|| pass.input(&points.condition, shape.condition));
        let v = pass.velocity(shape, x, t, condition);
        debug_assert_eq!(v + 1, self.used);
        &self.nodes[v].value
    }

    /// The gradient of a loss by every weight, all overwritten, from that by the last pass's v.
    pub(super) fn backward(&mut self, weights: &[f32], by_v: &[f32], gradient: &mut [f32]) {
        let Some((last, before)) = self.nodes[..self.used].split_last_mut() else {
            return;
        };
        for node in before {
            let length = match node.operation {
                Operation::Input => 0,
                _ => node.value.len(),
            };
            node.gradient.clear();
            node.gradient.resize(length, 0.0);
        }
        last.gradient.clear();
        last.gradient.extend_from_slice(by_v);
        for i in (0..self.used).rev() {
            self.backward_through(i, weights, gradient);
        }
    }

    fn backward_through(&mut self, i: usize, weights: &[f32], gradient: &mut [f32]) {
        let (operands, rest) = self.nodes.split_at_mut(i);
        let node = &rest[0];
        let (dy, columns) = (&node.gradient[..], node.columns);
        match &node.operation {
            Operation::Input => {}
            Operation::Linear { x, weight, start } => {
                match start {
                    Offset::Bias(bias) => sum_rows(dy, &mut gradient[bias.clone()]),
                    Offset::Value(value) => add(&mut operands[*value].gradient, dy),
                }
                let x = &mut operands[*x];
                let size = Size {
                    rows: self.rows,
                    inputs: x.columns,
                    outputs: columns,
                };
                size.weights(&x.value, dy, &mut gradient[weight.clone()]);
                if !x.gradient.is_empty() {
                    size.backward(dy, &weights[weight.clone()], &mut x.gradient);
                }
            }
            Operation::Norm { x, scale, shift } => {
                sum_rows(dy, &mut gradient[shift.clone()]);
                let by_scale = &mut gradient[scale.clone()];
                by_scale.fill(0.0);
                let x = &mut operands[*x];
                let rows =
                    (x.value.chunks_exact(columns)).zip(x.gradient.chunks_exact_mut(columns));
                let rows = rows.zip(dy.chunks_exact(columns)).zip(&node.moments);
                for (((x, dx), dy), moments) in rows {
                    let scale = &weights[scale.clone()];
                    Arch::new().dispatch(|| norm_backward(x, *moments, scale, dy, dx, by_scale));
                }
            }
            Operation::Gelu(x) => {
                let x = &mut operands[*x];
                Arch::new().dispatch(|| gelu::backward(&x.value, dy, &mut x.gradient));
            }
            Operation::Add(a, b) => {
                add(&mut operands[*a].gradient, dy);
                add(&mut operands[*b].gradient, dy);
            }
            Operation::Multiply(a, b) => {
                let a_value = mem::take(&mut operands[*a].value);
                add_products(&mut operands[*b].gradient, dy, &a_value);
                operands[*a].value = a_value;
                let b_value = mem::take(&mut operands[*b].value);
                add_products(&mut operands[*a].gradient, dy, &b_value);
                operands[*b].value = b_value;
            }
        }
    }
}

/// A pass through a network, onto the tape.
struct Pass<'a> {
    tape: &'a mut Tape,
    /// Those that are still to come: networks use their tensors in order.
    tensors: std::slice::Iter<'a, VelocityTensor>,
    weights: &'a [f32],
}

impl Pass<'_> {
    fn input(&mut self, values: &[f32], columns: usize) -> usize {
        self.push(Operation::Input, columns, |_, to, _| {
            to.copy_from_slice(values)
        })
    }

    fn tensor(&mut self, layer: &str, part: &str) -> Range<usize> {
        let tensor = self.tensors.next().expect("the network's own tensors");
        debug_assert_eq!(tensor.name, format!("{layer}.{part}"));
        tensor.range.clone()
    }

    /// Appends a node whose value `compute` writes, from the nodes before it.
    fn push(
        &mut self,
        operation: Operation,
        columns: usize,
        compute: impl FnOnce(&[Node], &mut [f32], &mut Vec<[f32; 2]>),
    ) -> usize {
        let tape = &mut *self.tape;
        let i = tape.used;
        tape.used += 1;
        if tape.nodes.len() == i {
            tape.nodes.push(Node::default());
        }
        let (before, rest) = tape.nodes.split_at_mut(i);
        let node = &mut rest[0];
        node.operation = operation;
        node.columns = columns;
        node.value.resize(tape.rows * columns, 0.0);
        compute(before, &mut node.value, &mut node.moments);
        i
    }

    fn product(&mut self, x: usize, weight: Range<usize>, start: Offset) -> usize {
        let (rows, inputs) = (self.tape.rows, self.tape.nodes[x].columns);
        let outputs = weight.len() / inputs;
        let weights = self.weights;
        let operation = Operation::Linear {
            x,
            weight: weight.clone(),
            start: start.clone(),
        };
        self.push(operation, outputs, |nodes, y, _| {
            match start {
                Offset::Bias(bias) => {
                    for row in y.chunks_exact_mut(outputs) {
                        row.copy_from_slice(&weights[bias.clone()]);
                    }
                }
                Offset::Value(value) => y.copy_from_slice(&nodes[value].value),
            }
            let size = Size {
                rows,
                inputs,
                outputs,
            };
            size.forward(&nodes[x].value, &weights[weight], y);
        })
    }
}

impl Ops for Pass<'_> {
    type Value = usize;

    fn linear(&mut self, x: usize, layer: &str, _: usize, _: Start) -> usize {
        let weight = self.tensor(layer, "weight");
        let bias = self.tensor(layer, "bias");
        self.product(x, weight, Offset::Bias(bias))
    }

    fn linear_plus(&mut self, x: usize, layer: &str, c: usize, _: Start) -> usize {
        let weight = self.tensor(layer, "weight");
        self.product(x, weight, Offset::Value(c))
    }

    fn norm(&mut self, x: usize, layer: &str) -> usize {
        let scale = self.tensor(layer, "weight");
        let shift = self.tensor(layer, "bias");
        let weights = self.weights;
        let operation = Operation::Norm {
            x,
            scale: scale.clone(),
            shift: shift.clone(),
        };
        let columns = scale.len();
        self.push(operation, columns, |nodes, y, moments| {
            moments.clear();
            let (scale, shift) = (&weights[scale], &weights[shift]);
            let rows = nodes[x].value.chunks_exact(columns);
            for (x, y) in rows.zip(y.chunks_exact_mut(columns)) {
                moments.push(Arch::new().dispatch(|| norm(x, scale, shift, y)));
            }
        })
    }

    fn gelu(&mut self, x: usize) -> usize {
        let columns = self.tape.nodes[x].columns;
        self.push(Operation::Gelu(x), columns, |nodes, y, _| {
            Arch::new().dispatch(|| gelu::forward(&nodes[x].value, y));
        })
    }

    fn add(&mut self, a: usize, b: usize) -> usize {
        let columns = self.tape.nodes[a].columns;
        self.push(Operation::Add(a, b), columns, |nodes, y, _| {
            let values = nodes[a].value.iter().zip(&nodes[b].value);
            y.iter_mut().zip(values).for_each(|(y, (a, b))| *y = a + b);
        })
    }

    fn multiply(&mut self, a: usize, b: usize) -> usize {
        let columns = self.tape.nodes[a].columns;
        self.push(Operation::Multiply(a, b), columns, |nodes, y, _| {
            let values = nodes[a].value.iter().zip(&nodes[b].value);
            y.iter_mut().zip(values).for_each(|(y, (a, b))| *y = a * b);
        })
    }
}

/// One row's layer normalisation; its mean and one over its standard deviation.
#[inline(always)]
fn norm(x: &[f32], scale: &[f32], shift: &[f32], y: &mut [f32]) -> [f32; 2] {
    let count = x.len() as f32;
    let mean = sum(x, |x| x) / count;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / count;
    let inverse = 1.0 / (variance + NORM_EPSILON).sqrt();
    let values = x.iter().zip(scale).zip(shift);
    for (y, ((x, scale), shift)) in y.iter_mut().zip(values) {
        *y = (x - mean) * inverse * scale + shift;
    }
    [mean, inverse]
}

/// Adds to the gradients by one row and by the scale.
#[inline(always)]
fn norm_backward(
    x: &[f32],
    [mean, inverse]: [f32; 2],
    scale: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    by_scale: &mut [f32],
) {
    let (mut slopes, mut products) = ([0f32; LANES], [0f32; LANES]);
    let mut collect = |x: &[f32], scale: &[f32], dy: &[f32]| {
        for (lane, ((x, scale), dy)) in x.iter().zip(scale).zip(dy).enumerate() {
            slopes[lane] += dy * scale;
            products[lane] += dy * scale * (x - mean);
        }
    };
    let ((xs, x_rest), (scales, scale_rest)) = (x.as_chunks::<LANES>(), scale.as_chunks::<LANES>());
    let (dys, dy_rest) = dy.as_chunks::<LANES>();
    for ((x, scale), dy) in xs.iter().zip(scales).zip(dys) {
        collect(x, scale, dy);
    }
    collect(x_rest, scale_rest, dy_rest);
    let mean_of = |sums: [f32; LANES]| sums.iter().sum::<f32>() / x.len() as f32;
    let (slope_mean, product_mean) = (mean_of(slopes), mean_of(products) * inverse);
    let values = x.iter().zip(scale).zip(dy);
    for (((x, scale), dy), (dx, by_scale)) in values.zip(dx.iter_mut().zip(by_scale)) {
        let normal = (x - mean) * inverse;
        *by_scale += dy * normal;
        *dx += inverse * (dy * scale - slope_mean - normal * product_mean);
    }
}

const LANES: usize = 16;

/// The sum of `f` over the values, in lanes.
#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for chunk in chunks {
        sums.iter_mut()
            .zip(chunk)
            .for_each(|(sum, x)| *sum += f(*x));
    }
    sums.iter().sum::<f32>() + rest.iter().map(|x| f(*x)).sum::<f32>()
}

/// The sums of the columns.
fn sum_rows(rows: &[f32], sums: &mut [f32]) {
    sums.fill(0.0);
    for row in rows.chunks_exact(sums.len()) {
        add(sums, row);
    }
}

fn add(to: &mut [f32], values: &[f32]) {
    to.iter_mut().zip(values).for_each(|(to, x)| *to += x);
}

fn add_products(to: &mut [f32], a: &[f32], b: &[f32]) {
    let products = a.iter().zip(b);
    to.iter_mut()
        .zip(products)
        .for_each(|(to, (a, b))| *to += a * b);
}
