//! Tracing: what may be permuted in a network without changing what it computes.
//!
//! The graph is run once, for the shapes of its values and the contents of its constants. Then
//! every operator says what its operands' axes have to do with each other: see [`crate::units`].
//! An operator that is not known pins what it touches, which is correct, and aligns less.

use std::collections::{HashMap, HashSet};

use dwf::onnx::NodeProto;

use crate::{
    axes::{Axes, Joint},
    error::Result,
    evaluator::Evaluator,
    network::{Network, attribute},
    probe,
    random::Random,
    tensor::{Data, Tensor},
    units::{Node, Units, hash},
};

/// What tracing found.
pub struct Trace {
    /// The units and what is known of them.
    pub units: Units,
    /// The axes of every tensor, in the layout's order.
    pub tensors: Vec<Axes>,
    /// Operators that are not known, each with the node that has it.
    pub unknown: Vec<String>,
}

/// Traces a network.
///
/// Errors: those of running it.
pub fn trace(network: &Network) -> Result<Trace> {
    let graph = network.graph();
    let names = graph.node.iter().flat_map(|node| &node.output);
    let names: Vec<&String> = names.filter(|name| !name.is_empty()).collect();
    let mut evaluator = Evaluator::watching(network, &names)?;
    // Zeros cost no memory until they are written.
    let weights = vec![0.0; network.layout().len()];
    let inputs = probe::inputs(network, &mut evaluator, &weights, &mut Random::new(0, 0))?;
    let results = evaluator.run(&weights, &inputs)?;
    let results = results.into_iter().skip(network.outputs().len());
    let mut tracer = Tracer::new(network)?;
    for (value, tensor) in network.inputs().iter().zip(inputs) {
        tracer.axes.insert(&value.name, Axes::fixed(&tensor.shape));
        tracer.varying.insert(&value.name);
        tracer.tensors.insert(&value.name, tensor);
    }
    tracer
        .tensors
        .extend(names.iter().map(|n| n.as_str()).zip(results));
    for node in &graph.node {
        tracer.node(node);
    }
    Ok(tracer.finish())
}

struct Tracer<'a> {
    network: &'a Network,
    units: Units,
    axes: HashMap<&'a str, Axes>,
    /// Values as the run left them.
    tensors: HashMap<&'a str, Tensor>,
    /// Values that depend neither on the inputs nor on the weights.
    constant: HashSet<&'a str>,
    /// Values that depend on the inputs.
    varying: HashSet<&'a str>,
    /// Nodes that met such a value.
    live: HashSet<Node>,
    site: u64,
    unknown: Vec<String>,
}

impl<'a> Tracer<'a> {
    fn new(network: &'a Network) -> Result<Self> {
        let mut tracer = Self {
            network,
            units: Units::default(),
            axes: HashMap::new(),
            tensors: HashMap::new(),
            constant: HashSet::new(),
            varying: HashSet::new(),
            live: HashSet::new(),
            site: 0,
            unknown: Vec::new(),
        };
        let groups = convolution_groups(network);
        for spec in network.layout().tensors() {
            let axes = match groups.get(spec.name.as_str()) {
                Some(groups) => grouped_kernel(&mut tracer.units, &spec.shape, *groups),
                None => Axes::parameter(&mut tracer.units, &spec.shape),
            };
            tracer.note(&axes);
            tracer.axes.insert(&spec.name, axes);
        }
        for constant in &network.graph().initializer {
            if network.layout().get(constant.name()).is_none() {
                let tensor = Tensor::from_proto(constant)?;
                tracer.add_constant(constant.name(), tensor);
            }
        }
        Ok(tracer)
    }

    fn add_constant(&mut self, name: &'a str, tensor: Tensor) {
        self.axes.insert(name, constant_axes(&tensor));
        self.constant.insert(name);
        self.tensors.insert(name, tensor);
    }

    /// A number for marks, of this place alone.
    fn site(&mut self) -> u64 {
        self.site += 1;
        self.site
    }

    /// Marks what lies along every axis of a value: units on different axes are different.
    fn note(&mut self, axes: &Axes) {
        for joint in &axes.joints {
            let site = self.site();
            joint
                .nodes
                .iter()
                .for_each(|node| self.units.mark(*node, site));
        }
    }

    fn node(&mut self, node: &'a NodeProto) {
        let outputs: Vec<&'a str> = node.output.iter().map(String::as_str).collect();
        if self.is_constant(node) {
            for output in outputs.into_iter().filter(|name| !name.is_empty()) {
                if let Some(tensor) = self.tensors.get(output).cloned() {
                    self.add_constant(output, tensor);
                }
            }
            return;
        }
        let inputs: Vec<Axes> = node.input.iter().map(|name| self.of(name)).collect();
        if node
            .input
            .iter()
            .any(|name| self.varying.contains(name.as_str()))
        {
            self.varying.extend(outputs.iter().copied());
            self.live.extend(
                inputs
                    .iter()
                    .flat_map(|axes| &axes.joints)
                    .flat_map(|j| &j.nodes),
            );
        }
        let plain = inputs.iter().all(|axes| axes.joints.is_empty());
        let known = if plain {
            None
        } else {
            self.apply(node, &inputs)
        };
        let fits = |axes: &&Axes, name: &str| {
            self.tensors
                .get(name)
                .is_some_and(|t| t.shape == axes.shape)
        };
        let known = known.filter(|axes| outputs[0].is_empty() || fits(&axes, outputs[0]));
        if known.is_none() && !plain {
            let site = self.site();
            for (i, axes) in inputs.iter().enumerate() {
                axes.pin_joints(&mut self.units, hash(&[site, i as u64]), |_| true);
            }
            self.unknown
                .push(format!("{} ({})", node.name(), node.op_type()));
        }
        // Before units that are everywhere along a dimension are forgotten there.
        known.iter().for_each(|axes| self.note(axes));
        let first = known.map(|axes| axes.normalise(&self.units));
        for (i, name) in outputs.into_iter().enumerate() {
            let Some(tensor) = self.tensors.get(name) else {
                continue;
            };
            let axes = match &first {
                Some(axes) if i == 0 => axes.clone(),
                Some(axes) => self.further_output(node, i, &inputs, axes),
                None => Axes::fixed(&tensor.shape),
            };
            if i > 0 {
                self.note(&axes);
            }
            self.axes.insert(name, axes);
        }
    }

    fn is_constant(&self, node: &NodeProto) -> bool {
        let mut inputs = node.input.iter().filter(|name| !name.is_empty());
        match node.op_type() {
            "Shape" | "Size" => true,
            "CastLike" => self.constant.contains(node.input[0].as_str()),
            "RandomNormal" | "RandomUniform" => false,
            _ => inputs.all(|name| self.constant.contains(name.as_str())),
        }
    }

    fn of(&self, name: &str) -> Axes {
        self.axes.get(name).cloned().unwrap_or_default()
    }

    fn has(&self, node: &NodeProto, i: usize) -> bool {
        node.input.get(i).is_some_and(|name| !name.is_empty())
    }

    /// The integers of an operand, where they are constant.
    fn integers(&self, node: &NodeProto, i: usize) -> Option<Vec<i64>> {
        let name = node.input.get(i)?.as_str();
        match &self.tensors.get(name)?.data {
            Data::I64(values) if self.constant.contains(name) => Some(values.clone()),
            _ => None,
        }
    }

    fn output_shape(&self, node: &NodeProto) -> Vec<usize> {
        let tensor = self.tensors.get(node.output[0].as_str());
        tensor.map_or(Vec::new(), |tensor| tensor.shape.clone())
    }

    /// The axes of a node's first output; `None` if the operator is not known, or not like this.
    fn apply(&mut self, node: &NodeProto, inputs: &[Axes]) -> Option<Axes> {
        let x = inputs.first()?;
        let int = |name: &str, default: i64| attribute(node, name).map_or(default, |a| a.i());
        let site = self.site();
        match node.op_type() {
            "Relu" | "LeakyRelu" | "Sigmoid" | "Tanh" | "Elu" | "Selu" | "Celu" | "Gelu"
            | "HardSigmoid" | "HardSwish" | "Mish" | "Softplus" | "Softsign" | "Erf" | "Exp"
            | "Log" | "Sqrt" | "Reciprocal" | "Neg" | "Abs" | "Sign" | "Floor" | "Ceil"
            | "Round" | "Sin" | "Cos" | "Not" | "Cast" | "CastLike" | "Identity" | "Dropout"
            | "IsNaN" | "IsInf" | "ThresholdedRelu" | "Shrink" | "Clip" | "Swish" => {
                Some(x.clone())
            }
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "Sum" | "Mean" | "Where"
            | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or"
            | "Xor" | "Mod" | "PRelu" => Some(self.elementwise(inputs, site)),
            "MatMul" => self.matmul(&inputs[0], &inputs[1], site),
            "Gemm" => self.gemm(node, inputs, site),
            "Einsum" => self.einsum(node, inputs, site),
            "Conv" => self.convolution(node, inputs, site),
            "ConvTranspose" => self.transposed_convolution(node, inputs, site),
            "BatchNormalization" | "InstanceNormalization" => {
                self.channel_normalisation(node, inputs, site)
            }
            "GroupNormalization" => self.group_normalisation(node, inputs, site),
            "LayerNormalization" | "RMSNormalization" => {
                self.layer_normalisation(inputs, int("axis", -1), site)
            }
            "Softmax" | "LogSoftmax" | "LpNormalization" => {
                let dim = dimension(int("axis", -1), x.rank())?;
                x.reduce(&mut self.units, &[dim], true);
                Some(x.clone())
            }
            "CumSum" => {
                let dim = dimension(*self.integers(node, 1)?.first()?, x.rank())?;
                x.pin(&mut self.units, dim, site);
                Some(x.clone())
            }
            "GlobalAveragePool" | "GlobalMaxPool" => self.pooling(x, true, node, site),
            "AveragePool" | "MaxPool" | "LpPool" => self.pooling(x, false, node, site),
            "Resize" | "Upsample" => self.pooling(x, false, node, site),
            op if op.starts_with("Reduce") => self.reduction(node, x),
            "Transpose" => {
                let order = match attribute(node, "perm") {
                    Some(order) => order.ints.iter().map(|dim| *dim as usize).collect(),
                    None => (0..x.rank()).rev().collect::<Vec<_>>(),
                };
                Some(x.transpose(&order))
            }
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                let shape = self.output_shape(node);
                Some(x.reshape(&mut self.units, &shape, site))
            }
            "Expand" => Some(x.expand(&self.output_shape(node))),
            "Tile" => self.tile(node, x),
            "Slice" => self.slice(node, x),
            "Split" => self.split(node, x, 0),
            "Gather" => self.gather(node, inputs, site),
            "Concat" => self.concat(inputs, int("axis", 0), site),
            "Pad" => self.pad(node, x, site),
            "GRU" => self.recurrent(node, inputs, 3, site),
            "LSTM" => self.recurrent(node, inputs, 4, site),
            "RNN" => self.recurrent(node, inputs, 1, site),
            "Attention" if node.domain().is_empty() => self.attention(node, inputs, site),
            _ => None,
        }
    }

    /// The axes of an output but the first.
    fn further_output(
        &mut self,
        node: &NodeProto,
        i: usize,
        inputs: &[Axes],
        first: &Axes,
    ) -> Axes {
        let shape = self.tensors[node.output[i].as_str()].shape.clone();
        let known = match node.op_type() {
            "Split" => self.split(node, &inputs[0], i),
            "GRU" | "LSTM" | "RNN" => {
                // The last state is the sequence of states without its dimension 0.
                Some(first.last_state())
            }
            "Dropout" => Some(Axes::fixed(&shape)),
            _ => None,
        };
        match known.filter(|axes| axes.shape == shape) {
            Some(axes) => axes.normalise(&self.units),
            None => {
                let site = self.site();
                for (i, axes) in inputs.iter().enumerate() {
                    axes.pin_joints(&mut self.units, hash(&[site, i as u64]), |_| true);
                }
                Axes::fixed(&shape)
            }
        }
    }

    fn elementwise(&mut self, inputs: &[Axes], site: u64) -> Axes {
        let rank = inputs.iter().map(Axes::rank).max().unwrap_or(0);
        let padded: Vec<Axes> = inputs.iter().map(|axes| axes.with_rank(rank)).collect();
        Axes::combine(&mut self.units, &padded, site)
    }

    /// A sum of products over the last dimension of `a` and the last but one of `b`.
    fn matmul(&mut self, a: &Axes, b: &Axes, site: u64) -> Option<Axes> {
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

    fn gemm(&mut self, node: &NodeProto, inputs: &[Axes], site: u64) -> Option<Axes> {
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

    fn einsum(&mut self, node: &NodeProto, inputs: &[Axes], site: u64) -> Option<Axes> {
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
    fn convolution(&mut self, node: &NodeProto, inputs: &[Axes], site: u64) -> Option<Axes> {
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
            let inputs_of = met.along(0)?.chunks_exact(within);
            for (ins, outs) in inputs_of
                .map(<[Node]>::to_vec)
                .zip(outputs.chunks_exact(per_group))
            {
                match (&ins[..], outs) {
                    ([one], [other]) => self.units.unite(*one, *other),
                    ([one], _) => self.units.own(&[*one], vec![outs.to_vec()]),
                    (_, [one]) => self.units.own(&[*one], vec![ins]),
                    _ => {
                        self.units.owners(vec![[&ins[..], outs].concat()]);
                    }
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
    fn transposed_convolution(
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

    fn channel_normalisation(
        &mut self,
        node: &NodeProto,
        inputs: &[Axes],
        site: u64,
    ) -> Option<Axes> {
        let x = &inputs[0];
        if node.op_type() == "InstanceNormalization" {
            let space: Vec<usize> = (2..x.rank()).collect();
            x.reduce(&mut self.units, &space, true);
        }
        let mut values = vec![x.clone()];
        for vector in &inputs[1..] {
            values.push(vector.with_channel_rank(x.rank()));
        }
        Some(Axes::combine(&mut self.units, &values, site))
    }

    /// Scale and bias a channel (opset 21) or a group (opset 18).
    fn group_normalisation(
        &mut self,
        node: &NodeProto,
        inputs: &[Axes],
        site: u64,
    ) -> Option<Axes> {
        let x = &inputs[0];
        let groups = attribute(node, "num_groups")?.i() as usize;
        let channels = x.shape[1];
        let mut shape = x.shape.clone();
        shape.splice(1..2, [groups, channels / groups]);
        let grouped = x.reshape(&mut self.units, &shape, site);
        let within: Vec<usize> = (2..shape.len()).collect();
        grouped.reduce(&mut self.units, &within, true);
        let mut values = vec![x.clone()];
        for vector in &inputs[1..] {
            let site = self.site();
            if vector.shape == [channels] {
                values.push(vector.with_channel_rank(x.rank()));
            } else {
                let vector = vector.with_channel_rank(shape.len());
                Axes::combine(&mut self.units, &[grouped.clone(), vector], site);
            }
        }
        Some(Axes::combine(&mut self.units, &values, site))
    }

    fn layer_normalisation(&mut self, inputs: &[Axes], axis: i64, site: u64) -> Option<Axes> {
        let x = &inputs[0];
        let dims: Vec<usize> = (dimension(axis, x.rank())?..x.rank()).collect();
        x.reduce(&mut self.units, &dims, true);
        Some(self.elementwise(inputs, site))
    }

    fn pooling(&mut self, x: &Axes, global: bool, node: &NodeProto, site: u64) -> Option<Axes> {
        let shape = self.output_shape(node);
        if !global && shape[..2] != x.shape[..2] {
            return None;
        }
        self.pin_space(x, site);
        Some(x.channels().dropped(0).as_channels(x, &shape))
    }

    fn reduction(&mut self, node: &NodeProto, x: &Axes) -> Option<Axes> {
        let listed = attribute(node, "axes").map(|a| a.ints.clone());
        let axes = match (listed, self.has(node, 1)) {
            (Some(axes), _) => axes,
            (None, true) => self.integers(node, 1)?,
            (None, false) => Vec::new(),
        };
        let dims: Option<Vec<usize>> = axes.iter().map(|a| dimension(*a, x.rank())).collect();
        let dims = match dims? {
            none if none.is_empty() => (0..x.rank()).collect(),
            some => some,
        };
        let keep = attribute(node, "keepdims").is_none_or(|a| a.i() != 0);
        Some(x.reduce(&mut self.units, &dims, keep))
    }

    fn tile(&mut self, node: &NodeProto, x: &Axes) -> Option<Axes> {
        let repeats = self.integers(node, 1)?;
        let mut result = x.clone();
        for (dim, repeat) in repeats.iter().enumerate() {
            let size = x.shape[dim];
            let indices: Vec<usize> = (0..size * *repeat as usize).map(|i| i % size).collect();
            if *repeat != 1 && x.has_units(dim) {
                result = result.take(dim, &indices);
            }
            result.shape[dim] = indices.len();
        }
        Some(result)
    }

    fn slice(&mut self, node: &NodeProto, x: &Axes) -> Option<Axes> {
        let (starts, ends) = (self.integers(node, 1)?, self.integers(node, 2)?);
        let axes = match self.has(node, 3) {
            true => self.integers(node, 3)?,
            false => (0..starts.len() as i64).collect(),
        };
        let steps = match self.has(node, 4) {
            true => self.integers(node, 4)?,
            false => vec![1; starts.len()],
        };
        let mut result = x.clone();
        for i in 0..starts.len() {
            let dim = dimension(axes[i], x.rank())?;
            let size = x.shape[dim] as i64;
            let (low, high) = if steps[i] > 0 {
                (0, size)
            } else {
                (-1, size - 1)
            };
            let place = |value: i64| {
                let value = if value < 0 {
                    value.saturating_add(size)
                } else {
                    value
                };
                value.clamp(low, high)
            };
            let (mut at, end) = (place(starts[i]), place(ends[i]));
            let mut indices = Vec::new();
            while steps[i] > 0 && at < end || steps[i] < 0 && at > end {
                indices.push(at as usize);
                at += steps[i];
            }
            result = result.take(dim, &indices);
        }
        Some(result)
    }

    /// Output `i` of a split, whose parts are as large as the run found them.
    fn split(&mut self, node: &NodeProto, x: &Axes, i: usize) -> Option<Axes> {
        let dim = dimension(attribute(node, "axis").map_or(0, |a| a.i()), x.rank())?;
        let size = |name: &String| self.tensors.get(name.as_str()).map(|t| t.shape[dim]);
        let sizes: Option<Vec<usize>> = node.output[..=i].iter().map(size).collect();
        let sizes = sizes?;
        let start: usize = sizes[..i].iter().sum();
        let indices: Vec<usize> = (start..start + sizes[i]).collect();
        Some(x.take(dim, &indices))
    }

    fn gather(&mut self, node: &NodeProto, inputs: &[Axes], site: u64) -> Option<Axes> {
        let (data, indices) = (&inputs[0], &inputs[1]);
        let dim = dimension(attribute(node, "axis").map_or(0, |a| a.i()), data.rank())?;
        let size = data.shape[dim];
        if let Some(values) = self.integers(node, 1) {
            let place = |value: &i64| (value.rem_euclid(size as i64)) as usize;
            let taken = data.take(dim, &values.iter().map(place).collect::<Vec<_>>());
            self.note(&taken);
            let shape = self.output_shape(node);
            return Some(taken.reshape(&mut self.units, &shape, site));
        }
        if !indices.joints.is_empty() {
            return None;
        }
        // Which places are taken is the input's to say.
        data.pin(&mut self.units, dim, site);
        let whole = |joint: &&Joint| !joint.dims.contains(&dim);
        let mut rest = data.clone();
        rest.joints = data.joints.iter().filter(whole).cloned().collect();
        rest.shape[dim] = indices.shape.iter().product();
        rest.fixed[dim] = true;
        let lost = |joint: &Joint| joint.dims.len() > 1 && joint.dims.contains(&dim);
        data.pin_joints(&mut self.units, hash(&[site, 3]), lost);
        for joint in data.joints.iter().filter(|joint| lost(joint)) {
            joint.dims.iter().for_each(|dim| rest.fixed[*dim] = true);
        }
        let shape = self.output_shape(node);
        Some(rest.reshape(&mut self.units, &shape, site))
    }

    fn concat(&mut self, inputs: &[Axes], axis: i64, site: u64) -> Option<Axes> {
        let rank = inputs[0].rank();
        let dim = dimension(axis, rank)?;
        // Joints along the axis are laid behind each other, the others meet.
        let others: Vec<Axes> = inputs
            .iter()
            .map(|axes| {
                let mut others = axes.clone();
                others.joints.retain(|joint| !joint.dims.contains(&dim));
                others.shape[dim] = 1;
                others.fixed[dim] = false;
                others
            })
            .collect();
        let mut result = Axes::combine(&mut self.units, &others, site);
        result.shape[dim] = inputs.iter().map(|axes| axes.shape[dim]).sum();
        let mut dims = vec![dim];
        for axes in inputs {
            let along = axes.joints.iter().filter(|joint| joint.dims.contains(&dim));
            if along.clone().count() > 1 {
                return None;
            }
            dims.extend(along.flat_map(|joint| joint.dims.iter().copied()));
        }
        dims.sort_unstable();
        dims.dedup();
        if !inputs.iter().any(|axes| axes.has_units(dim)) {
            result.fixed[dim] = true;
            return Some(result);
        }
        let mut slices: Vec<Vec<Node>> = Vec::new();
        for (i, axes) in inputs.iter().enumerate() {
            let joint = match axes.joints.iter().find(|joint| joint.dims.contains(&dim)) {
                Some(joint) => joint.clone(),
                None => {
                    // Places without units are units of their own here.
                    let nodes = self.units.add(axes.shape[dim]);
                    for (place, node) in nodes.iter().enumerate() {
                        let place = if axes.fixed[dim] { place as u64 } else { 0 };
                        self.units.mark(*node, hash(&[site, i as u64, place]));
                    }
                    Joint {
                        dims: vec![dim],
                        nodes,
                    }
                }
            };
            let wide = joint.broadcast(&axes.shape, &dims);
            slices.extend(wide.slices(&axes.shape, &[dim]));
        }
        let slices: Vec<&Vec<Node>> = slices.iter().collect();
        let nodes = Vec::new();
        let joint = Joint { dims, nodes }.stack(dim, &result.shape, &slices);
        result.fixed[dim] = false;
        result.joints.push(joint);
        Some(result.normalise(&self.units))
    }

    /// Constant padding: places of the same number everywhere.
    fn pad(&mut self, node: &NodeProto, x: &Axes, site: u64) -> Option<Axes> {
        let mode = attribute(node, "mode").map(|a| a.s().to_vec());
        let constant = mode.is_none_or(|mode| mode == b"constant");
        let pads = self.integers(node, 1)?;
        let axes: Vec<i64> = match self.has(node, 3) {
            true => self.integers(node, 3)?,
            false => (0..x.rank() as i64).collect(),
        };
        let mut result = x.clone();
        for (i, axis) in axes.iter().enumerate() {
            let dim = dimension(*axis, x.rank())?;
            let [before, after] = [pads[i], pads[i + axes.len()]];
            if before == 0 && after == 0 {
                continue;
            }
            if !x.has_units(dim) {
                result.shape[dim] = (x.shape[dim] as i64 + before + after) as usize;
                result.fixed[dim] = true;
                continue;
            }
            if !constant || before < 0 || after < 0 {
                return None;
            }
            let padding = |size: i64| {
                let mut shape = result.shape.clone();
                shape[dim] = size as usize;
                let fixed = vec![false; shape.len()];
                let joints = Vec::new();
                Axes {
                    shape,
                    fixed,
                    joints,
                }
            };
            let parts = [padding(before), result.clone(), padding(after)];
            let parts: Vec<Axes> = parts.into_iter().filter(|p| p.shape[dim] > 0).collect();
            result = self.concat(&parts, *axis, hash(&[site, i as u64]))?;
        }
        Some(result)
    }

    /// Recurrent layers: hidden units lie along each gate's rows, along the recurrent matrix's
    /// columns, and in the states.
    fn recurrent(
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
    fn attention(&mut self, node: &NodeProto, inputs: &[Axes], site: u64) -> Option<Axes> {
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

    fn finish(mut self) -> Trace {
        for output in self.network.outputs() {
            let site = self.site();
            self.of(&output.name)
                .pin_joints(&mut self.units, site, |_| true);
        }
        let tensors = self.network.layout().tensors().iter();
        let tensors: Vec<Axes> = tensors
            .map(|spec| self.axes[spec.name.as_str()].clone())
            .collect();
        // What the run did not use, another input may: positions of longer texts.
        let live: HashSet<Node> = self
            .live
            .iter()
            .map(|node| self.units.find(*node))
            .collect();
        let site = self.site();
        for axes in &tensors {
            for node in axes.joints.iter().flat_map(|joint| &joint.nodes) {
                if !live.contains(&self.units.find(*node)) {
                    self.units.mark(*node, hash(&[site, u64::from(*node)]));
                }
            }
        }
        Trace {
            units: self.units,
            tensors,
            unknown: self.unknown,
        }
    }
}

impl Axes {
    /// With ones in front.
    fn with_rank(&self, rank: usize) -> Self {
        let missing = rank - self.rank();
        let shape = [vec![1; missing], self.shape.clone()].concat();
        self.expand(&shape)
    }

    /// With a new dimension of one place.
    fn unsqueeze(&self, dim: usize) -> Self {
        let wide = self.with_rank(self.rank() + 1);
        let order: Vec<usize> = (1..=dim).chain([0]).chain(dim + 1..wide.rank()).collect();
        wide.transpose(&order)
    }

    /// A vector [channels] as [1, channels, 1, ..].
    fn with_channel_rank(&self, rank: usize) -> Self {
        let mut wide = self.with_rank(2);
        while wide.rank() < rank {
            wide = wide.unsqueeze(wide.rank());
        }
        wide
    }

    /// Without a dimension of one place.
    fn dropped(&self, dim: usize) -> Self {
        let order: Vec<usize> = [dim]
            .into_iter()
            .chain((0..self.rank()).filter(|d| *d != dim))
            .collect();
        let turned = self.transpose(&order);
        Self {
            shape: turned.shape[1..].to_vec(),
            fixed: turned.fixed[1..].to_vec(),
            joints: turned.joints.into_iter().map(Joint::shifted_down).collect(),
        }
    }

    /// The first dimensions alone.
    fn first(&self, count: usize) -> Self {
        let within = |joint: &&Joint| joint.dims.iter().all(|dim| *dim < count);
        Self {
            shape: self.shape[..count].to_vec(),
            fixed: self.fixed[..count].to_vec(),
            joints: self.joints.iter().filter(within).cloned().collect(),
        }
    }

    /// The channels of an image: [1, channels].
    fn channels(&self) -> Self {
        Self {
            shape: vec![1, self.shape[1]],
            fixed: vec![false, self.fixed[1]],
            joints: self
                .joints
                .iter()
                .filter(|j| j.dims == [1])
                .cloned()
                .collect(),
        }
    }

    /// Channels [channels] of an image of this shape, which comes from the image `x`.
    fn as_channels(&self, x: &Self, shape: &[usize]) -> Self {
        let mut image = Self::fixed(shape);
        image.fixed[0] = x.fixed[0] || x.has_units(0);
        image.fixed[1] = self.fixed[0];
        let joints = self.joints.iter().cloned();
        image.joints = joints.map(|j| Joint { dims: vec![1], ..j }).collect();
        image
    }

    /// From recurrent states [time, direction, batch, hidden] to the last [direction, batch,
    /// hidden].
    fn last_state(&self) -> Self {
        self.take(0, &[0]).dropped(0)
    }
}

impl Joint {
    fn shifted_down(self) -> Self {
        Self {
            dims: self.dims.iter().map(|dim| dim - 1).collect(),
            ..self
        }
    }
}

fn dimension(axis: i64, rank: usize) -> Option<usize> {
    let dim = if axis < 0 { axis + rank as i64 } else { axis };
    (0..rank as i64).contains(&dim).then_some(dim as usize)
}

/// The kernels of grouped convolutions, with their groups.
fn convolution_groups(network: &Network) -> HashMap<&str, usize> {
    let convolutions = network
        .graph()
        .node
        .iter()
        .filter(|n| n.op_type() == "Conv");
    let groups = convolutions.map(|node| {
        let groups = attribute(node, "group").map_or(1, |a| a.i());
        (node.input[1].as_str(), groups as usize)
    });
    groups.filter(|(_, groups)| *groups > 1).collect()
}

/// A kernel [out, in / groups, ..] whose columns mean other inputs in every group: a joint over
/// the dimensions 0 and 1 holds, instead of a node for each element, the inputs of all groups
/// behind each other, [groups, in / groups].
fn grouped_kernel(units: &mut Units, shape: &[usize], groups: usize) -> Axes {
    let mut axes = Axes::parameter(units, shape);
    axes.joints.retain(|joint| joint.dims != [1]);
    axes.joints.push(Joint {
        dims: vec![0, 1],
        nodes: units.add(groups * shape[1]),
    });
    axes
}

/// The axes of a constant: free where it does not change.
fn constant_axes(tensor: &Tensor) -> Axes {
    let mut axes = Axes::fixed(&tensor.shape);
    for dim in 0..axes.rank() {
        let size = tensor.shape[dim];
        let inner: usize = tensor.shape[dim + 1..].iter().product();
        let same = |i: usize| {
            let first = i - i / inner % size * inner;
            match &tensor.data {
                Data::F32(data) => data[i].to_bits() == data[first].to_bits(),
                Data::I64(data) => data[i] == data[first],
                Data::Bool(data) => data[i] == data[first],
            }
        };
        let count = tensor.shape.iter().product();
        axes.fixed[dim] &= !(0..count).all(same);
    }
    axes
}
