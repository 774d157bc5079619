//! Residual streams that only layer normalisation reads, and the layers that read these.
//!
//! What a layer normalisation with unit gain and no shift makes of a stream turns with the stream
//! (but for the mean over the units, which it takes away), so that such a stream has no preferred
//! axes: Ashkboos et al., "SliceGPT" (ICLR 2024, arXiv 2401.15024). Gain and shift can be moved
//! into the layers that read them.

use std::collections::HashMap;

use dwf::onnx::NodeProto;

use crate::{groups::Groups, network::Network};

/// A layer normalisation of a stream; tensors are numbers in the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Norm {
    /// What it multiplies by.
    pub(crate) gain: usize,
    /// What it adds.
    pub(crate) shift: Option<usize>,
    /// All layers that read it.
    pub(crate) readers: Vec<Reader>,
}

/// A layer that reads a normalisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) weights: usize,
    pub(crate) bias: Option<usize>,
}

/// The normalisations of a family of units, if they alone read it and every one's gain and shift
/// can be moved into what reads it. What a walk along the graph can not see, such as along which
/// axis something is added up, is left to a [trial](crate::trial).
pub(crate) fn norms(network: &Network, groups: &Groups, family: usize) -> Option<Vec<Norm>> {
    Walk::new(network, groups, family).norms()
}

struct Walk<'a> {
    network: &'a Network,
    groups: &'a Groups,
    family: usize,
    values: HashMap<&'a str, Value>,
    norms: Vec<Norm>,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// A tensor of weights.
    Weights(usize),
    /// The stream, or part of what is added to it.
    Stream,
    /// The stream behind a normalisation.
    Normed(usize),
    /// What a layer makes of it, before its bias.
    Read { norm: usize, reader: usize },
    /// Anything else.
    Plain,
}

/// The walk has met something that does not turn with the stream.
struct Stop;

impl<'a> Walk<'a> {
    fn new(network: &'a Network, groups: &'a Groups, family: usize) -> Self {
        let tensors = network.layout().tensors().iter().enumerate();
        let values = tensors.map(|(i, spec)| (spec.name.as_str(), Value::Weights(i)));
        Self {
            network,
            groups,
            family,
            values: values.collect(),
            norms: Vec::new(),
        }
    }

    fn norms(mut self) -> Option<Vec<Norm>> {
        for node in &self.network.graph().node {
            let value = self.node(node).ok()?;
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                self.values.insert(name, value);
            }
        }
        let mut outputs = self.network.outputs().iter();
        let read = outputs.all(|output| !self.turns(self.of(&output.name)));
        let whole = |norm: &Norm| {
            let movable = |reader: &Reader| norm.shift.is_none() || reader.bias.is_some();
            !norm.readers.is_empty() && norm.readers.iter().all(movable)
        };
        (read && !self.norms.is_empty() && self.norms.iter().all(whole)).then_some(self.norms)
    }

    fn of(&self, name: &str) -> Value {
        self.values.get(name).copied().unwrap_or(Value::Plain)
    }

    fn node(&mut self, node: &'a NodeProto) -> Result<Value, Stop> {
        let inputs: Vec<Value> = node.input.iter().map(|name| self.of(name)).collect();
        match node.op_type() {
            // These look at no value.
            "Shape" | "Size" => Ok(Value::Plain),
            "LayerNormalization" => self.normalise(&inputs),
            "MatMul" | "Gemm" | "Conv" => self.layer(&inputs),
            "Add" | "Sum" => self.sum(&inputs),
            // The same tensor still.
            "Identity" | "Cast" | "CastLike" | "Transpose" => Ok(inputs[0]),
            "Gather" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Expand" | "Slice"
            | "Split" | "Dropout" | "Tile" | "ReduceMean" | "ReduceSum" => self.pass(&inputs),
            "Concat" => self.join(&inputs),
            _ => self.other(&inputs),
        }
    }

    fn normalise(&mut self, inputs: &[Value]) -> Result<Value, Stop> {
        let (Value::Stream, Some(Value::Weights(gain))) = (inputs[0], inputs.get(1)) else {
            return self.other(inputs);
        };
        let shift = match inputs.get(2) {
            Some(Value::Weights(shift)) => Some(*shift),
            _ => None,
        };
        self.norms.push(Norm {
            gain: *gain,
            shift,
            readers: Vec::new(),
        });
        Ok(Value::Normed(self.norms.len() - 1))
    }

    /// A sum of products with weights: it reads a normalisation, or writes the stream.
    fn layer(&mut self, inputs: &[Value]) -> Result<Value, Stop> {
        let Some(Value::Weights(weights)) = inputs.get(1).filter(|v| self.lies_in(**v)) else {
            return self.other(inputs);
        };
        match inputs[0] {
            Value::Normed(norm) => {
                let readers = &mut self.norms[norm].readers;
                readers.push(Reader {
                    weights: *weights,
                    bias: bias(inputs.get(2)),
                });
                let reader = readers.len() - 1;
                Ok(Value::Read { norm, reader })
            }
            Value::Plain | Value::Read { .. } => Ok(Value::Stream),
            Value::Stream | Value::Weights(_) => Err(Stop),
        }
    }

    fn sum(&mut self, inputs: &[Value]) -> Result<Value, Stop> {
        match inputs {
            [Value::Read { norm, reader }, Value::Weights(bias)]
            | [Value::Weights(bias), Value::Read { norm, reader }] => {
                self.norms[*norm].readers[*reader].bias = Some(*bias);
                self.other(inputs)
            }
            _ => self.join(inputs),
        }
    }

    /// Parts of the stream, with weights that lie in it.
    fn join(&self, inputs: &[Value]) -> Result<Value, Stop> {
        let part = |value: &Value| *value == Value::Stream || self.lies_in(*value);
        match inputs.iter().all(part) {
            true => Ok(Value::Stream),
            false => self.other(inputs),
        }
    }

    fn pass(&self, inputs: &[Value]) -> Result<Value, Stop> {
        match inputs[0] {
            // A table's rows, a token: these write the stream.
            value @ Value::Weights(_) if self.lies_in(value) => Ok(Value::Stream),
            Value::Weights(_) | Value::Plain | Value::Read { .. } => self.other(inputs),
            turns => Ok(turns),
        }
    }

    /// Something of which only is known that it may not touch the stream.
    fn other(&self, inputs: &[Value]) -> Result<Value, Stop> {
        match inputs
            .iter()
            .any(|value| self.turns(*value) || self.lies_in(*value))
        {
            true => Err(Stop),
            false => Ok(Value::Plain),
        }
    }

    fn turns(&self, value: Value) -> bool {
        matches!(value, Value::Stream | Value::Normed(_))
    }

    /// Whether units of the family lie in these weights.
    fn lies_in(&self, value: Value) -> bool {
        let Value::Weights(tensor) = value else {
            return false;
        };
        let mut families = self.groups.families_in(tensor);
        families.any(|family| family == self.family)
    }
}

fn bias(value: Option<&Value>) -> Option<usize> {
    match value {
        Some(Value::Weights(tensor)) => Some(*tensor),
        _ => None,
    }
}
