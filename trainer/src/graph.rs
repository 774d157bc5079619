//! Tracing: what may be permuted in a network without changing what it computes.
//!
//! The graph is run once, for the shapes of its values and the contents of its constants. Then
//! every operator says what its operands' axes have to do with each other: see [`crate::units`].
//! An operator that is not known pins what it touches, which is correct, and aligns less.

mod layer;
mod rearrangement;
mod view;

use std::collections::{HashMap, HashSet};

use dwf::onnx::NodeProto;

use crate::{
    axes::{Axes, Joint},
    error::Result,
    evaluator::Evaluator,
    network::{Network, attribute, title},
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
            self.unknown.push(title(node));
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
            "BatchNormalization" | "InstanceNormalization" | "GroupNormalization" => {
                self.channel_normalisation(node, inputs, site)
            }
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
            "Concat" => {
                let sites: Vec<u64> = (0..inputs.len() as u64).map(|i| hash(&[site, i])).collect();
                self.concat(inputs, int("axis", 0), &sites)
            }
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

fn dimension(axis: i64, rank: usize) -> Option<usize> {
    let dim = if axis < 0 { axis + rank as i64 } else { axis };
    (0..rank as i64).contains(&dim).then_some(dim as usize)
}

/// The kernels of grouped convolutions, with their groups.
fn convolution_groups(network: &Network) -> HashMap<&str, usize> {
    let nodes = &network.graph().node;
    // Kernels of half precision are read in single, and come through a cast.
    let casts: HashMap<&str, &str> = nodes
        .iter()
        .filter(|node| node.op_type() == "Cast")
        .map(|node| (node.output[0].as_str(), node.input[0].as_str()))
        .collect();
    let convolutions = nodes.iter().filter(|n| n.op_type() == "Conv");
    let groups = convolutions.map(|node| {
        let groups = attribute(node, "group").map_or(1, |a| a.i());
        let kernel = node.input[1].as_str();
        (*casts.get(kernel).unwrap_or(&kernel), groups as usize)
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
