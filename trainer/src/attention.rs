//! Whether what is inside attention heads is only ever multiplied by matrices and added up, so that
//! it may be turned: a function that looks at it number by number forbids that, even one that does
//! nothing to the numbers of a [trial](crate::trial), such as a clip.

use std::collections::HashMap;

use dwf::onnx::NodeProto;

use crate::{groups::Groups, network::Network};

/// Whether that is so of these families, all those inside the heads of one layer.
pub(crate) fn is_bilinear(network: &Network, groups: &Groups, families: &[usize]) -> bool {
    Walk::new(network, groups, families).passes()
}

struct Walk<'a> {
    network: &'a Network,
    values: HashMap<&'a str, Value>,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// A tensor of weights, and whether the families lie in it.
    Weights(bool),
    /// Units of the families.
    Inside,
    /// What depends on neither weights nor inputs, but for their shapes.
    Fixed,
    /// Anything else.
    Plain,
}

/// The walk has met something that does not turn with the units.
struct Stop;

impl<'a> Walk<'a> {
    fn new(network: &'a Network, groups: &'a Groups, families: &[usize]) -> Self {
        let lies_in = |tensor| {
            let mut inside = groups.families_in(tensor);
            inside.any(|family| families.contains(&family))
        };
        let initializers = network.graph().initializer.iter();
        let fixed = initializers.map(|tensor| (tensor.name(), Value::Fixed));
        let tensors = network.layout().tensors().iter().enumerate();
        let weights = tensors.map(|(i, spec)| (spec.name.as_str(), Value::Weights(lies_in(i))));
        Self {
            network,
            // Weights are initializers, too, and come last.
            values: fixed.chain(weights).collect(),
        }
    }

    fn passes(mut self) -> bool {
        for node in &self.network.graph().node {
            let Ok(value) = self.node(node) else {
                return false;
            };
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                self.values.insert(name, value);
            }
        }
        let mut outputs = self.network.outputs().iter();
        outputs.all(|output| self.of(&output.name) != Value::Inside)
    }

    fn of(&self, name: &str) -> Value {
        match name {
            "" => Value::Fixed,
            name => self.values.get(name).copied().unwrap_or(Value::Plain),
        }
    }

    fn node(&self, node: &NodeProto) -> Result<Value, Stop> {
        let inputs: Vec<Value> = node.input.iter().map(|name| self.of(name)).collect();
        match node.op_type() {
            // These look at no value, or at the first alone.
            "Shape" | "Size" => Ok(Value::Fixed),
            "Identity" | "Cast" | "CastLike" | "Transpose" => Ok(inputs[0]),
            "MatMul" | "Gemm" | "Conv" => product(&inputs),
            "Einsum" if inputs.len() == 2 => product(&inputs),
            "Add" | "Concat" => sum(&inputs),
            "Mul" if inputs[0] != Value::Inside => factor(&[inputs[1], inputs[0]]),
            "Mul" | "Div" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Expand"
            | "Slice" | "Split" | "Gather" | "Dropout" | "ReduceMean" | "ReduceSum" => {
                factor(&inputs)
            }
            _ => other(&inputs),
        }
    }
}

/// Weights write units or read them, and units meet in inner products or are added up.
fn product(inputs: &[Value]) -> Result<Value, Stop> {
    match (inputs[0], inputs[1]) {
        (Value::Inside, Value::Inside | Value::Weights(true)) => Ok(Value::Plain),
        (Value::Inside, _) => Ok(Value::Inside),
        (Value::Plain, Value::Inside | Value::Weights(true)) => Ok(Value::Inside),
        _ => other(inputs),
    }
}

/// Units and their biases, or weights and what stands for some that are not there.
fn sum(inputs: &[Value]) -> Result<Value, Stop> {
    let has = |value: Value| inputs.contains(&value);
    if has(Value::Plain) || has(Value::Weights(false)) {
        return other(inputs);
    }
    match has(Value::Weights(true)) && !has(Value::Inside) {
        true => Ok(Value::Weights(true)),
        false if has(Value::Inside) => Ok(Value::Inside),
        false => Ok(Value::Fixed),
    }
}

/// Units, or weights that write or read them, multiplied by numbers that depend on no input, or in
/// another shape.
fn factor(inputs: &[Value]) -> Result<Value, Stop> {
    let constant = |value: &Value| matches!(value, Value::Fixed | Value::Weights(false));
    match inputs[0] {
        value @ (Value::Inside | Value::Weights(true)) if inputs[1..].iter().all(constant) => {
            Ok(value)
        }
        _ => other(inputs),
    }
}

/// Something of which only is known that it may not touch the units.
fn other(inputs: &[Value]) -> Result<Value, Stop> {
    if inputs
        .iter()
        .any(|value| matches!(value, Value::Inside | Value::Weights(true)))
    {
        return Err(Stop);
    }
    match inputs.iter().all(|value| *value == Value::Fixed) {
        true => Ok(Value::Fixed),
        false => Ok(Value::Plain),
    }
}
