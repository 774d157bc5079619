//! Operators that compute: products, normalisations, pooling, recurrent layers, attention.

use std::collections::HashSet;

use dwf::onnx::NodeProto;

use super::{Tracer, dimension};
use crate::{
    axes::{Axes, Joint},
    network::attribute,
    units::{Node, hash},
};

impl Tracer<'_> {
    pub(super) fn elementwise(&mut self, inputs: &[Axes], site: u64) -> Axes {
        let rank = inputs.iter().map(Axes::rank).max().unwrap_or(0);
        let padded: Vec<Axes> = inputs.iter().map(|axes| axes.with_rank(rank)).collect();
        Axes::combine(&mut self.units, &padded, site)
    }

    /// A sum of products over the last dimension of `a` and the last but one of `b`.
    pub(super) fn matmul(&mut self, a: &Axes, b: &Axes, site: u64) -> Option<Axes> {
        if a.rank() < 2 || b.rank() < 2 {
            return None;
        }
        let rank = a.rank().max(b.rank());
        let (a, b) = (a.with_rank(rank), b.with_rank(rank));
        // a [.., m, k, 1] times b [.., 1, k, n], summed over k.
        let a = a.unsqueeze(rank);
        let b = b.unsqueeze(rank - 2);
        let product = Axes::combine(&mut self.units, &[a, b], site);
        Some(product.reduce(&mut self.units, &[rank - 1], false))
    }

    pub(super) fn gemm(&mut self, node: &NodeProto, inputs: &[Axes], site: u64) -> Option<Axes> {
        let turned = |i: usize, name: &str| {
            let turn = attribute(node, name).is_some_and(|a| a.i() != 0);
            if turn {
                inputs[i].transpose(&[1, 0])
            } else {
                inputs[i].clone()
            }
        };
        let product = self.matmul(&turned(0, "transA"), &turned(1, "transB"), site)?;
        if !self.has(node, 2) {
            return Some(product);
        }
        let site = self.site();
        Some(self.elementwise(&[product, inputs[2].clone()], site))
    }

    pub(super) fn einsum(&mut self, node: &NodeProto, inputs: &[Axes], site: u64) -> Option<Axes> {
        let equation = String::from_utf8(attribute(node, "equation")?.s().to_vec()).ok()?;
        let equation = equation.replace(' ', "");
        let (terms, result) = equation.split_once("->")?;
        if equation.contains("...") {
            return None;
        }
        let mut letters: Vec<char> = result.chars().collect();
        letters.extend(terms.chars().filter(|c| *c != ',' && !result.contains(*c)));
        let mut seen = HashSet::new();
        letters.retain(|letter| seen.insert(*letter));
        let mut operands = Vec::new();
        for (term, axes) in terms.split(',').zip(inputs) {
            let own: Vec<char> = term.chars().collect();
            let distinct = own.iter().collect::<HashSet<_>>().len() == own.len();
            if own.len() != axes.rank() || !distinct {
                return None;
            }
            let mut order: Vec<usize> = (0..own.len()).collect();
            let place = |c: &char| letters.iter().position(|l| l == c).expect("collected");
            order.sort_by_key(|dim| place(&own[*dim]));
            let mut wide = axes.transpose(&order);
            for (dim, letter) in letters.iter().enumerate() {
                if !own.contains(letter) {
                    wide = wide.unsqueeze(dim);
                }
            }
            operands.push(wide);
        }
        let product = Axes::combine(&mut self.units, &operands, site);
        let summed: Vec<usize> = (result.chars().count()..letters.len()).collect();
        Some(product.reduce(&mut self.units, &summed, false))
    }

    /// Kernels [out, in / groups, ..]: see [`grouped_kernel`] for more groups than one.
    pub(super) fn convolution(
        &mut self,
        node: &NodeProto,
        inputs: &[Axes],
        site: u64,
    ) -> Option<Axes> {
        let (x, kernel) = (&inputs[0], &inputs[1]);
        let groups = attribute(node, "group").map_or(1, |a| a.i()) as usize;
        self.pin_space(x, site);
        for dim in 2..kernel.rank() {
            kernel.pin(&mut self.units, dim, hash(&[site, dim as u64]));
        }
        let channels = x.channels();
        let outputs = if groups == 1 {
            // [out, in] times [1, in], summed over in.
            let matrix = kernel.first(2);
            let product = self.matmul(&channels, &matrix.transpose(&[1, 0]), site)?;
            product.dropped(0)
        } else {
            let [out, within] = [kernel.shape[0], kernel.shape[1]];
            let blocks = kernel.joints.iter().find(|joint| joint.dims == [0, 1])?;
            let outputs = kernel.along(0)?.to_vec();
            let kernels = Axes {
                shape: vec![groups * within],
                fixed: vec![false],
                joints: vec![Joint {
                    dims: vec![0],
                    nodes: blocks.nodes.clone(),
                }],
            };
            let met = Axes::combine(&mut self.units, &[channels.dropped(0), kernels], site);
            let per_group = out / groups;
            let inputs = met.along(0)?.to_vec();
            let ins = inputs.chunks_exact(within).map(<[Node]>::to_vec);
            let outs = outputs.chunks_exact(per_group).map(<[Node]>::to_vec);
            // All groups at once: what is inside them corresponds, should they become one.
            match (within, per_group) {
                (1, 1) => {
                    for (one, other) in inputs.iter().zip(&outputs) {
                        self.units.unite(*one, *other);
                    }
                }
                (1, _) => self.units.own(&inputs, outs.collect()),
                (_, 1) => self.units.own(&outputs, ins.collect()),
                _ => {
                    let both = ins.zip(outs).map(|(ins, outs)| [ins, outs].concat());
                    self.units.owners(both.collect());
                }
            }
            Axes {
                shape: vec![out],
                fixed: vec![false],
                joints: vec![Joint {
                    dims: vec![0],
                    nodes: outputs,
                }],
            }
        };
        let site = self.site();
        let mut both = vec![outputs];
        both.extend(self.has(node, 2).then(|| inputs[2].clone()));
        let outputs = Axes::combine(&mut self.units, &both, site);
        Some(outputs.as_channels(x, &self.output_shape(node)))
    }

    /// Kernels [in, out, ..], one group.
    pub(super) fn transposed_convolution(
        &mut self,
        node: &NodeProto,
        inputs: &[Axes],
        site: u64,
    ) -> Option<Axes> {
        if attribute(node, "group").is_some_and(|a| a.i() != 1) {
            return None;
        }
        let (x, kernel) = (&inputs[0], &inputs[1]);
        self.pin_space(x, site);
        for dim in 2..kernel.rank() {
            kernel.pin(&mut self.units, dim, hash(&[site, dim as u64]));
        }
        let product = self.matmul(&x.channels(), &kernel.first(2), site)?;
        let mut both = vec![product.dropped(0)];
        both.extend(self.has(node, 2).then(|| inputs[2].clone()));
        let site = self.site();
        let outputs = Axes::combine(&mut self.units, &both, site);
        Some(outputs.as_channels(x, &self.output_shape(node)))
    }

    /// Units over space, or over space and channels together, do not move in a convolution.
    fn pin_space(&mut self, x: &Axes, site: u64) {
        let elsewhere = |joint: &Joint| joint.dims.iter().any(|d| *d > 1) || joint.dims.len() > 1;
        x.pin_joints(&mut self.units, hash(&[site, 9]), elsewhere);
    }

    /// Scale and bias a channel or, in opset 18's GroupNormalization, a group.
    pub(super) fn channel_normalisation(
        &mut self,
        node: &NodeProto,
        inputs: &[Axes],
        site: u64,
    ) -> Option<Axes> {
        let x = &inputs[0];
        let (channels, space) = (x.shape[1], 2..x.rank());
        let mut grouped = None;
        match node.op_type() {
            "InstanceNormalization" => {
                x.reduce(&mut self.units, &space.collect::<Vec<_>>(), true);
            }
            "GroupNormalization" => {
                let groups = attribute(node, "num_groups")?.i() as usize;
                let mut shape = x.shape.clone();
                shape.splice(1..2, [groups, channels / groups]);
                let axes = x.reshape(&mut self.units, &shape, site);
                axes.reduce(&mut self.units, &(2..shape.len()).collect::<Vec<_>>(), true);
                grouped = Some(axes);
            }
            _ => (),
        }
        let mut values = vec![x.clone()];
        for vector in &inputs[1..] {
            match &grouped {
                Some(grouped) if vector.shape != [channels] => {
                    let vector = vector.with_channel_rank(grouped.rank());
                    let site = self.site();
                    Axes::combine(&mut self.units, &[grouped.clone(), vector], site);
                }
                _ => values.push(vector.with_channel_rank(x.rank())),
            }
        }
        Some(Axes::combine(&mut self.units, &values, site))
    }

    pub(super) fn layer_normalisation(
        &mut self,
        inputs: &[Axes],
        axis: i64,
        site: u64,
    ) -> Option<Axes> {
        let x = &inputs[0];
        let dims: Vec<usize> = (dimension(axis, x.rank())?..x.rank()).collect();
        x.reduce(&mut self.units, &dims, true);
        Some(self.elementwise(inputs, site))
    }

    pub(super) fn pooling(
        &mut self,
        x: &Axes,
        global: bool,
        node: &NodeProto,
        site: u64,
    ) -> Option<Axes> {
        let shape = self.output_shape(node);
        if !global && shape[..2] != x.shape[..2] {
            return None;
        }
        self.pin_space(x, site);
        Some(x.channels().dropped(0).as_channels(x, &shape))
    }

    /// Recurrent layers: hidden units lie along each gate's rows, along the recurrent matrix's
    /// columns, and in the states.
    pub(super) fn recurrent(
        &mut self,
        node: &NodeProto,
        inputs: &[Axes],
        gates: usize,
        site: u64,
    ) -> Option<Axes> {
        if attribute(node, "layout").is_some_and(|a| a.i() != 0) || inputs.len() < 3 {
            return None;
        }
        let (x, input, recurrent) = (&inputs[0], &inputs[1], &inputs[2]);
        let [directions, hidden] = [recurrent.shape[0], recurrent.shape[2]];
        // x [time, 1, batch, in] with the matrix [direction, gates * hidden, in].
        let features = x.reduce(&mut self.units, &[0, 1], true);
        let matrix = input.transpose(&[0, 2, 1]);
        self.matmul(&features, &matrix, site)?;
        let units = Axes {
            shape: vec![directions, hidden],
            fixed: vec![false; 2],
            joints: vec![Joint {
                dims: vec![0, 1],
                nodes: self.units.add(directions * hidden),
            }],
        }
        .normalise(&self.units);
        let meet = |tracer: &mut Self, axes: &Axes, blocks: usize| {
            // [direction, blocks, hidden]: every block has the hidden units.
            let site = tracer.site();
            let shape = [directions, blocks, hidden];
            let split = axes.reshape(&mut tracer.units, &shape, site);
            for block in 0..blocks {
                let part = split.take(1, &[block]).normalise(&tracer.units);
                let part = part.reshape(&mut tracer.units, &[directions, hidden], site);
                let site = tracer.site();
                Axes::combine(&mut tracer.units, &[part, units.clone()], site);
            }
        };
        let rows = |axes: &Axes| Axes {
            shape: axes.shape[..2].to_vec(),
            fixed: axes.fixed[..2].to_vec(),
            joints: axes
                .joints
                .iter()
                .filter(|j| j.dims.iter().all(|d| *d < 2))
                .cloned()
                .collect(),
        };
        meet(self, &rows(input), gates);
        meet(self, &rows(recurrent), gates);
        let columns = rows(&recurrent.transpose(&[0, 2, 1]));
        meet(self, &columns, 1);
        if self.has(node, 3) {
            meet(self, &inputs[3], 2 * gates);
        }
        for state in [5, 6] {
            if self.has(node, state) {
                let last = inputs[state].reduce(&mut self.units, &[1], false);
                meet(self, &last, 1);
            }
        }
        if self.has(node, 7) {
            meet(self, &inputs[7], 3);
        }
        // [time, direction, batch, hidden]
        let mut states = Axes::fixed(&[x.shape[0], directions, x.shape[1], hidden]);
        let joints = units.joints.into_iter();
        states.joints.extend(joints.map(|joint| Joint {
            dims: joint.dims.iter().map(|dim| [1, 3][*dim]).collect(),
            ..joint
        }));
        Some(states.normalise(&self.units))
    }

    /// Scaled dot products of heads that are laid out: [batch, heads, length, size].
    pub(super) fn attention(
        &mut self,
        node: &NodeProto,
        inputs: &[Axes],
        site: u64,
    ) -> Option<Axes> {
        let [q, k, v] = [&inputs[0], &inputs[1], &inputs[2]];
        if node.input.len() > 4 || q.rank() != 4 || q.shape[1] != k.shape[1] {
            return None;
        }
        let mut scores = self.matmul(q, &k.transpose(&[0, 1, 3, 2]), site)?;
        if self.has(node, 3) {
            let site = self.site();
            scores = self.elementwise(&[scores, inputs[3].clone()], site);
        }
        let site = self.site();
        self.matmul(&scores, v, site)
    }
}
