//! The velocity network's graph, judged before ONNX Runtime sees it: operators from a list, shapes
//! that fit together whatever the batch, and the memory that running it takes.

mod operator;
mod size;

use std::collections::HashMap;

pub(crate) use size::Size;

use crate::{
    artifact::value,
    error::{Error, Result, Status},
    limits::{MAX_NODES, MAX_RANK, MAX_TENSORS},
    onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, data_type},
};

use operator::{Call, Fault, Operator};
use size::shape_text;

/// Operator sets whose rules are known here; ONNX Runtime refuses those that it does not know.
const OPSETS: std::ops::RangeInclusive<i64> = 13..=26;

/// Elements of an integer tensor that is followed, because it may become a shape.
const MAX_INTEGERS: usize = 64;

/// What is known of a value before anything runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    /// [`data_type`].
    element: i32,
    shape: Vec<Size>,
    /// The elements of a small integer tensor, where they are known.
    integers: Option<Vec<Integer>>,
    /// Whether it depends on the graph's inputs.
    varies: bool,
}

/// An element of an integer tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Integer {
    /// A constant.
    Number(i64),
    /// A dimension that depends on the batch.
    Size(Size),
}

impl Value {
    fn new(element: i32, shape: Vec<Size>) -> Self {
        Self {
            element,
            shape,
            integers: None,
            varies: false,
        }
    }

    fn floats(shape: impl Into<Vec<Size>>) -> Self {
        Self::new(data_type::FLOAT, shape.into())
    }

    /// Number of elements, if it can be counted.
    fn count(&self) -> Option<Size> {
        Size::product(&self.shape)
    }

    /// Bytes of its elements.
    fn bytes(&self) -> Option<Size> {
        let element = match self.element {
            data_type::FLOAT => 4,
            data_type::FLOAT16 => 2,
            data_type::INT64 => 8,
            _ => 1,
        };
        self.count()?.checked_mul(Size::constant(element))
    }
}

/// The memory that a graph's values take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Footprint {
    /// Bytes of the initialisers and of what is made from them alone.
    constant: u64,
    /// Bytes of what depends on the graph's inputs, value by value.
    varying: Vec<Size>,
}

impl Footprint {
    /// Bytes that a session may hold whether it runs or not. Twice the values: ONNX Runtime
    /// packs matrices once more for its kernels, and casts float16 ones first.
    pub(crate) fn loaded(&self) -> u64 {
        self.constant.saturating_mul(2)
    }

    /// Bytes that evaluating `rows` rows may take beyond that. Three times the values: ONNX
    /// Runtime's allocator grows by doubling, and where the processor lacks float16 kernels it
    /// casts.
    pub(crate) fn running(&self, rows: usize) -> u64 {
        let bytes = self.varying.iter().map(|size| size.at(rows as u64));
        bytes.fold(0, u64::saturating_add).saturating_mul(3)
    }

    fn add(&mut self, value: &Value) -> Result<()> {
        let bytes = value.bytes().ok_or_else(too_large)?;
        match bytes.number().filter(|_| !value.varies) {
            Some(number) => self.constant = self.constant.saturating_add(number),
            None => self.varying.push(bytes),
        }
        Ok(())
    }
}

/// Checks the velocity network of an artifact whose signature fits; `latent` and `condition` are
/// the columns of its inputs. Returns the memory it takes.
///
/// Errors: UNSUPPORTED naming the node and an operator, attribute, type or operator set that
/// velocity networks may not have; BAD_ARTIFACT for values that are missing, made twice or do not
/// fit together.
pub(crate) fn check(
    model: &ModelProto,
    latent: usize,
    condition: Option<usize>,
) -> Result<Footprint> {
    check_opset(&model.opset_import)?;
    let graph = model.graph.as_ref();
    let graph = graph.ok_or_else(|| Error::artifact("the ONNX file has no graph"))?;
    let mut walk = Walk::new(graph, latent, condition)?;
    for (i, node) in graph.node.iter().enumerate() {
        walk.node(node)
            .map_err(|e| e.at(format!("node {i} '{}' ({})", node.name(), node.op_type())))?;
    }
    walk.finish(latent)
}

/// ONNX's own operators, of a version that is known; no others may be there.
fn check_opset(imports: &[OperatorSetIdProto]) -> Result<()> {
    let mut version = None;
    for import in imports {
        if !is_default_domain(import.domain()) {
            return Err(unsupported(format!(
                "the graph uses operators of '{}'; velocity networks have ONNX's own only",
                import.domain().escape_default()
            )));
        }
        if version.replace(import.version()).is_some() {
            return Err(Error::artifact("the graph has two operator sets"));
        }
    }
    match version {
        Some(version) if OPSETS.contains(&version) => Ok(()),
        Some(version) => Err(unsupported(format!(
            "the graph's operator set is {version}; this libdwf knows {} to {}",
            OPSETS.start(),
            OPSETS.end()
        ))),
        None => Err(Error::artifact("the graph names no operator set")),
    }
}

fn is_default_domain(domain: &str) -> bool {
    ["", "ai.onnx"].contains(&domain)
}

/// A walk along the nodes, with what is known so far.
struct Walk<'a> {
    values: HashMap<&'a str, Value>,
    footprint: Footprint,
}

impl<'a> Walk<'a> {
    fn new(graph: &'a GraphProto, latent: usize, condition: Option<usize>) -> Result<Self> {
        for (what, count, most) in [
            ("nodes", graph.node.len(), MAX_NODES),
            ("initialisers", graph.initializer.len(), MAX_TENSORS),
        ] {
            if count > most {
                return Err(Error::artifact(format!(
                    "the graph has {count} {what}; at most {most}"
                )));
            }
        }
        let columns = |count: usize| Size::constant(count as u64);
        let mut inputs = vec![
            (value::X, [Size::ROWS, columns(latent)]),
            (value::T, [Size::TIMES, Size::ONE]),
        ];
        inputs.extend(condition.map(|size| (value::CONDITION, [Size::ROWS, columns(size)])));
        let mut walk = Self {
            values: HashMap::new(),
            footprint: Footprint::default(),
        };
        for (name, shape) in inputs {
            let value = Value {
                varies: true,
                ..Value::floats(shape)
            };
            walk.define(name, value)?;
        }
        for tensor in &graph.initializer {
            let constant =
                constant(tensor).map_err(|e| e.at(format!("initialiser '{}'", tensor.name())))?;
            walk.define(tensor.name(), constant)?;
        }
        Ok(walk)
    }

    fn define(&mut self, name: &'a str, value: Value) -> Result<()> {
        if value.shape.len() > MAX_RANK {
            return Err(Error::artifact(format!(
                "value '{name}' has more than {MAX_RANK} dimensions"
            )));
        }
        self.footprint.add(&value)?;
        if name.is_empty() || self.values.insert(name, value).is_some() {
            return Err(Error::artifact(format!(
                "value '{name}' has no name, or is made twice"
            )));
        }
        Ok(())
    }

    fn node(&mut self, node: &'a NodeProto) -> Result<()> {
        let operator = Some(node.op_type())
            .filter(|_| is_default_domain(node.domain()))
            .and_then(Operator::named)
            .ok_or_else(|| {
                unsupported(
                    "is not an operator that velocity networks may have (docs/artifact.md lists \
                     them)",
                )
            })?;
        let value = |name: &'a String| match name.as_str() {
            "" => Ok(None),
            name => self.values.get(name).map(Some).ok_or_else(|| {
                Error::artifact(format!("its input '{name}' is made by nothing before it"))
            }),
        };
        let inputs: Vec<Option<&Value>> = node.input.iter().map(value).collect::<Result<_>>()?;
        let varies = inputs.iter().flatten().any(|value| value.varies);
        let call = Call { node, inputs };
        let outputs = operator.apply(&call).map_err(|fault| match fault {
            Fault::Unsupported(what) => unsupported(what),
            Fault::Mismatch(what) => Error::artifact(what),
        })?;
        if outputs.len() != node.output.len() {
            return Err(unsupported(format!(
                "has {} outputs instead of {}",
                node.output.len(),
                outputs.len()
            )));
        }
        for (name, value) in node.output.iter().zip(outputs) {
            self.define(name, Value { varies, ..value })?;
        }
        Ok(())
    }

    fn finish(self, latent: usize) -> Result<Footprint> {
        let expected = Value::floats([Size::ROWS, Size::constant(latent as u64)]);
        let made = self.values.get(value::V).filter(|v| v.varies);
        match made {
            Some(v) if (v.element, &v.shape) == (expected.element, &expected.shape) => {
                Ok(self.footprint)
            }
            Some(v) => Err(Error::artifact(format!(
                "output 'v' comes out as {} instead of {} in float32",
                shape_text(&v.shape),
                shape_text(&expected.shape)
            ))),
            None => Err(Error::artifact("no node makes output 'v' from the inputs")),
        }
    }
}

/// A tensor whose elements are in the file: an initialiser, or a Constant's value.
fn constant(tensor: &TensorProto) -> Result<Value> {
    let size = match tensor.data_type() {
        data_type::FLOAT => 4,
        data_type::FLOAT16 => 2,
        data_type::INT64 => 8,
        _ => {
            return Err(unsupported(
                "its elements are none of float32, float16 and int64",
            ));
        }
    };
    let dims: Option<Vec<Size>> = tensor
        .dims
        .iter()
        .map(|dim| u64::try_from(*dim).ok().map(Size::constant))
        .collect();
    let value = dims.map(|dims| Value::new(tensor.data_type(), dims));
    let count = value.as_ref().and_then(Value::count).and_then(Size::number);
    let (Some(value), Some(count)) = (value, count) else {
        return Err(Error::artifact("its shape is not valid"));
    };
    // An empty list of integers is the shape of a scalar.
    if count == 0 && tensor.data_type() != data_type::INT64 {
        return Err(Error::artifact("has no elements"));
    }
    if tensor.is_external() {
        return Ok(value);
    }
    let held = match (&tensor.raw_data, tensor.data_type()) {
        (Some(raw), _) => raw.len() as u64 / size,
        (None, data_type::FLOAT) => tensor.float_data.len() as u64,
        (None, data_type::INT64) => tensor.int64_data.len() as u64,
        (None, _) => tensor.int32_data.len() as u64,
    };
    if held != count {
        return Err(Error::artifact(format!(
            "holds {held} elements, but its shape has {count}"
        )));
    }
    Ok(Value {
        integers: integers(tensor).filter(|_| value.shape.len() <= 1),
        ..value
    })
}

/// The elements of a small integer tensor within the file.
fn integers(tensor: &TensorProto) -> Option<Vec<Integer>> {
    let numbers: Vec<i64> = match (&tensor.raw_data, tensor.data_type()) {
        (Some(raw), data_type::INT64) if raw.len() <= MAX_INTEGERS * size_of::<i64>() => raw
            .as_chunks()
            .0
            .iter()
            .map(|bytes| i64::from_le_bytes(*bytes))
            .collect(),
        (None, data_type::INT64) if tensor.int64_data.len() <= MAX_INTEGERS => {
            tensor.int64_data.clone()
        }
        _ => return None,
    };
    Some(numbers.into_iter().map(Integer::Number).collect())
}

fn unsupported(what: impl Into<String>) -> Error {
    Error::new(Status::Unsupported, what)
}

fn too_large() -> Error {
    Error::artifact("a value is too large for any machine")
}
