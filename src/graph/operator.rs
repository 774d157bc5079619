//! The operators that a velocity network may have, and what comes out of them.
//!
//! All are ONNX's own, without control flow, randomness, state or files, and the size of what they
//! make follows from the sizes of what they are given (ONNX operator schemas, sets 13 to 26).

use std::ops::RangeInclusive;

use super::{Integer, MAX_INTEGERS, Size, Value, constant, shape_text};
use crate::onnx::{AttributeProto, NodeProto, data_type};

/// Why a node cannot be taken.
pub(super) enum Fault {
    /// It may be valid, but not here.
    Unsupported(String),
    /// Its inputs do not fit together.
    Mismatch(String),
}

type Result<T> = std::result::Result<T, Fault>;

fn unsupported<T>(what: impl Into<String>) -> Result<T> {
    Err(Fault::Unsupported(what.into()))
}

fn mismatch<T>(what: impl Into<String>) -> Result<T> {
    Err(Fault::Mismatch(what.into()))
}

/// One operator.
pub(super) struct Operator {
    name: &'static str,
    inputs: RangeInclusive<usize>,
    attributes: &'static [&'static str],
    rule: fn(&Call) -> Result<Vec<Value>>,
}

const fn operator(
    name: &'static str,
    inputs: RangeInclusive<usize>,
    attributes: &'static [&'static str],
    rule: fn(&Call) -> Result<Vec<Value>>,
) -> Operator {
    Operator {
        name,
        inputs,
        attributes,
        rule,
    }
}

const MANY: usize = 256;

static OPERATORS: &[Operator] = &[
    operator("Abs", 1..=1, &[], same),
    operator("Add", 2..=2, &[], arithmetic),
    operator("Cast", 1..=1, &["to", "saturate"], cast),
    operator("Clip", 1..=3, &[], clip),
    operator("Concat", 1..=MANY, &["axis"], concat),
    operator(
        "Constant",
        0..=0,
        &[
            "value",
            "value_float",
            "value_floats",
            "value_int",
            "value_ints",
        ],
        constant_node,
    ),
    operator("Cos", 1..=1, &[], same),
    operator("Div", 2..=2, &[], arithmetic),
    operator("Elu", 1..=1, &["alpha"], same),
    operator("Equal", 2..=2, &[], comparison),
    operator("Erf", 1..=1, &[], same),
    operator("Exp", 1..=1, &[], same),
    operator("Expand", 2..=2, &[], expand),
    operator("Flatten", 1..=1, &["axis"], flatten),
    operator("Gather", 2..=2, &["axis"], gather),
    operator("Gelu", 1..=1, &["approximate"], same),
    operator("Gemm", 2..=3, &["alpha", "beta", "transA", "transB"], gemm),
    operator("Greater", 2..=2, &[], comparison),
    operator("GreaterOrEqual", 2..=2, &[], comparison),
    operator("HardSigmoid", 1..=1, &["alpha", "beta"], same),
    operator("HardSwish", 1..=1, &[], same),
    operator("Identity", 1..=1, &[], identity),
    operator(
        "LayerNormalization",
        2..=3,
        &["axis", "epsilon", "stash_type"],
        layer_normalization,
    ),
    operator("LeakyRelu", 1..=1, &["alpha"], same),
    operator("Less", 2..=2, &[], comparison),
    operator("LessOrEqual", 2..=2, &[], comparison),
    operator("Log", 1..=1, &[], same),
    operator("LogSoftmax", 1..=1, &["axis"], softmax),
    operator("MatMul", 2..=2, &[], matmul),
    operator("Max", 1..=MANY, &[], arithmetic),
    operator("Min", 1..=MANY, &[], arithmetic),
    operator("Mish", 1..=1, &[], same),
    operator("Mul", 2..=2, &[], arithmetic),
    operator("Neg", 1..=1, &[], same),
    operator("Pow", 2..=2, &[], arithmetic),
    operator("Reciprocal", 1..=1, &[], same),
    operator("ReduceMax", 1..=2, REDUCTION, reduce),
    operator("ReduceMean", 1..=2, REDUCTION, reduce),
    operator("ReduceMin", 1..=2, REDUCTION, reduce),
    operator("ReduceSum", 1..=2, REDUCTION, reduce),
    operator("ReduceSumSquare", 1..=2, REDUCTION, reduce),
    operator("Relu", 1..=1, &[], same),
    operator("Reshape", 2..=2, &["allowzero"], reshape),
    operator("Shape", 1..=1, &["start", "end"], shape),
    operator("Sigmoid", 1..=1, &[], same),
    operator("Sin", 1..=1, &[], same),
    operator("Slice", 3..=5, &[], slice),
    operator("Softmax", 1..=1, &["axis"], softmax),
    operator("Softplus", 1..=1, &[], same),
    operator("Softsign", 1..=1, &[], same),
    operator("Split", 1..=2, &["axis", "num_outputs"], split),
    operator("Sqrt", 1..=1, &[], same),
    operator("Squeeze", 2..=2, &[], squeeze),
    operator("Sub", 2..=2, &[], arithmetic),
    operator("Tanh", 1..=1, &[], same),
    operator("Transpose", 1..=1, &["perm"], transpose),
    operator("Unsqueeze", 2..=2, &[], unsqueeze),
    operator("Where", 3..=3, &[], choose),
];

const REDUCTION: &[&str] = &["axes", "keepdims", "noop_with_empty_axes"];

impl Operator {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        OPERATORS.iter().find(|operator| operator.name == name)
    }

    /// What the node makes.
    pub(super) fn apply(&self, call: &Call) -> Result<Vec<Value>> {
        let inputs = call.inputs.len();
        if !self.inputs.contains(&inputs) {
            return unsupported(format!(
                "has {inputs} inputs instead of {} to {}",
                self.inputs.start(),
                self.inputs.end()
            ));
        }
        for (i, attribute) in call.node.attribute.iter().enumerate() {
            let name = attribute.name();
            let before = &call.node.attribute[..i];
            if !self.attributes.contains(&name) || before.iter().any(|other| other.name() == name) {
                return unsupported(format!(
                    "has the attribute '{}' (unknown, or twice)",
                    name.escape_default()
                ));
            }
            if attribute.g.is_some() {
                return unsupported(format!("its attribute '{name}' is a graph"));
            }
            if attribute.t.is_some() && name != "value" {
                return unsupported(format!("its attribute '{name}' is a tensor"));
            }
        }
        (self.rule)(call)
    }
}

/// A node with what is known of its inputs.
pub(super) struct Call<'a> {
    pub(super) node: &'a NodeProto,
    pub(super) inputs: Vec<Option<&'a Value>>,
}

impl<'a> Call<'a> {
    fn optional(&self, i: usize) -> Option<&'a Value> {
        self.inputs.get(i).copied().flatten()
    }

    fn input(&self, i: usize) -> Result<&'a Value> {
        match self.optional(i) {
            Some(value) => Ok(value),
            None => mismatch(format!("lacks input {i}")),
        }
    }

    /// An input of floats.
    fn floats(&self, i: usize) -> Result<&'a Value> {
        let value = self.input(i)?;
        if value.is_float() {
            return Ok(value);
        }
        unsupported(format!("its input {i} is not float32 or float16"))
    }

    /// All inputs, floats of one type.
    fn alike(&self) -> Result<Vec<&'a Value>> {
        let first = self.floats(0)?;
        (0..self.inputs.len())
            .map(|i| {
                let value = self.floats(i)?;
                if value.element == first.element {
                    return Ok(value);
                }
                mismatch(format!("its inputs 0 and {i} have different types"))
            })
            .collect()
    }

    /// The elements of an input of integers, which the file must determine.
    fn integers(&self, i: usize) -> Result<&'a [Integer]> {
        match &self.input(i)?.integers {
            Some(integers) => Ok(integers),
            None => unsupported(format!(
                "its input {i} is not a constant, so that the output's size is not known beforehand"
            )),
        }
    }

    /// The same where none depends on the batch.
    fn numbers(&self, i: usize) -> Result<Vec<i64>> {
        self.integers(i)?
            .iter()
            .map(|integer| match integer {
                Integer::Number(number) => Ok(*number),
                Integer::Size(_) => unsupported(format!("its input {i} depends on the batch")),
            })
            .collect()
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        let mut attributes = self.node.attribute.iter();
        attributes.find(|attribute| attribute.name() == name)
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name)
            .map_or(default, |attribute| attribute.i())
    }

    /// The attribute `axis`, counted from the front.
    fn axis(&self, default: i64, rank: usize) -> Result<usize> {
        axis(self.int("axis", default), rank)
    }

    fn shape_fault<T>(&self) -> Result<T> {
        let shapes: Vec<String> = self
            .inputs
            .iter()
            .flatten()
            .map(|value| shape_text(&value.shape))
            .collect();
        mismatch(format!(
            "its inputs do not fit together: {}",
            shapes.join(", ")
        ))
    }
}

impl Value {
    fn is_float(&self) -> bool {
        [data_type::FLOAT, data_type::FLOAT16].contains(&self.element)
    }

    fn with_shape(&self, shape: Vec<Size>) -> Self {
        Self {
            shape,
            integers: None,
            ..self.clone()
        }
    }

    /// Another shape of the same elements, of which a list's are still known.
    fn reshaped(&self, shape: Vec<Size>) -> Self {
        Self {
            integers: self.integers.clone().filter(|_| shape.len() <= 1),
            ..self.with_shape(shape)
        }
    }

    fn list(integers: Vec<Integer>) -> Self {
        Self {
            integers: Some(integers.clone()).filter(|list| list.len() <= MAX_INTEGERS),
            ..Self::new(
                data_type::INT64,
                vec![Size::constant(integers.len() as u64)],
            )
        }
    }
}

/// A dimension's index counted from the front.
fn axis(axis: i64, rank: usize) -> Result<usize> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(from_front) {
        Ok(index) if index < rank => Ok(index),
        _ => mismatch(format!("its axis {axis} is not one of {rank}")),
    }
}

/// Distinct dimensions' indices counted from the front.
fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut indices = Vec::new();
    for number in list {
        let index = axis(*number, rank)?;
        if indices.contains(&index) {
            return mismatch(format!("its axis {number} is named twice"));
        }
        indices.push(index);
    }
    Ok(indices)
}

fn one(value: Value) -> Result<Vec<Value>> {
    Ok(vec![value])
}

fn same(call: &Call) -> Result<Vec<Value>> {
    one(call.floats(0)?.clone())
}

fn identity(call: &Call) -> Result<Vec<Value>> {
    one(call.input(0)?.clone())
}

fn softmax(call: &Call) -> Result<Vec<Value>> {
    let value = call.floats(0)?;
    call.axis(-1, value.shape.len())?;
    one(value.clone())
}

fn clip(call: &Call) -> Result<Vec<Value>> {
    let value = call.floats(0)?;
    for bound in call.inputs.iter().skip(1).flatten() {
        if bound.element != value.element || !bound.shape.is_empty() {
            return call.shape_fault();
        }
    }
    one(value.clone())
}

fn arithmetic(call: &Call) -> Result<Vec<Value>> {
    let inputs = call.alike()?;
    let Some(shape) = broadcast(inputs.iter().map(|value| &value.shape[..])) else {
        return call.shape_fault();
    };
    one(inputs[0].with_shape(shape))
}

fn comparison(call: &Call) -> Result<Vec<Value>> {
    let mut values = arithmetic(call)?;
    values[0].element = data_type::BOOL;
    Ok(values)
}

fn choose(call: &Call) -> Result<Vec<Value>> {
    let condition = call.input(0)?;
    let (a, b) = (call.floats(1)?, call.floats(2)?);
    if condition.element != data_type::BOOL || a.element != b.element {
        return unsupported("chooses between values of different types, or by one that is no bool");
    }
    let shapes = [condition, a, b].map(|value| &value.shape[..]);
    let Some(shape) = broadcast(shapes.into_iter()) else {
        return call.shape_fault();
    };
    one(a.with_shape(shape))
}

/// The shape that all broadcast to.
fn broadcast<'a>(shapes: impl Iterator<Item = &'a [Size]>) -> Option<Vec<Size>> {
    let mut result: Vec<Size> = Vec::new();
    for shape in shapes {
        if shape.len() > result.len() {
            let missing = shape.len() - result.len();
            result.splice(..0, std::iter::repeat_n(Size::ONE, missing));
        }
        let offset = result.len() - shape.len();
        for (to, size) in result[offset..].iter_mut().zip(shape) {
            *to = to.broadcast(*size)?;
        }
    }
    Some(result)
}

fn matmul(call: &Call) -> Result<Vec<Value>> {
    let inputs = call.alike()?;
    let ([.., rows, left], [.., right, columns]) = (&inputs[0].shape[..], &inputs[1].shape[..])
    else {
        return unsupported("multiplies what has fewer than two dimensions");
    };
    let outer = inputs
        .iter()
        .map(|value| &value.shape[..value.shape.len() - 2]);
    let (true, Some(mut shape)) = (left == right, broadcast(outer)) else {
        return call.shape_fault();
    };
    shape.extend([*rows, *columns]);
    one(inputs[0].with_shape(shape))
}

fn gemm(call: &Call) -> Result<Vec<Value>> {
    let inputs = call.alike()?;
    let matrix = |i: usize, name| match inputs[i].shape[..] {
        [rows, columns] if call.int(name, 0) != 0 => Ok([columns, rows]),
        [rows, columns] => Ok([rows, columns]),
        _ => call.shape_fault(),
    };
    let ([rows, left], [right, columns]) = (matrix(0, "transA")?, matrix(1, "transB")?);
    let product = vec![rows, columns];
    let added = inputs.get(2).map_or(&[][..], |value| &value.shape);
    let sum = broadcast([&product[..], added].into_iter());
    if left != right || sum.as_ref() != Some(&product) {
        return call.shape_fault();
    }
    one(inputs[0].with_shape(product))
}

fn layer_normalization(call: &Call) -> Result<Vec<Value>> {
    let inputs = call.alike()?;
    let value = inputs[0];
    let axis = call.axis(-1, value.shape.len())?;
    if inputs[1..]
        .iter()
        .any(|affine| affine.shape != value.shape[axis..])
    {
        return call.shape_fault();
    }
    one(value.clone())
}

fn cast(call: &Call) -> Result<Vec<Value>> {
    let value = call.input(0)?;
    let to = i32::try_from(call.int("to", 0)).unwrap_or(0);
    match (value.element, to) {
        (_, data_type::FLOAT | data_type::FLOAT16) => one(Value {
            element: to,
            integers: None,
            ..value.clone()
        }),
        (from, to) if from == to => one(value.clone()),
        _ => unsupported("casts to something else than float32 or float16"),
    }
}

fn concat(call: &Call) -> Result<Vec<Value>> {
    let first = call.input(0)?;
    let axis = call.axis(0, first.shape.len())?;
    let mut whole = first.clone();
    for i in 1..call.inputs.len() {
        let part = call.input(i)?;
        let fits = part.element == whole.element
            && part.shape.len() == whole.shape.len()
            && (0..part.shape.len()).all(|j| j == axis || part.shape[j] == whole.shape[j]);
        let sum = part
            .shape
            .get(axis)
            .and_then(|size| whole.shape[axis].checked_add(*size));
        let (true, Some(sum)) = (fits, sum) else {
            return call.shape_fault();
        };
        whole.shape[axis] = sum;
        whole.integers = match (whole.integers, &part.integers) {
            (Some(whole), Some(part)) if whole.len() + part.len() <= MAX_INTEGERS => {
                Some([whole, part.clone()].concat())
            }
            _ => None,
        };
    }
    one(whole)
}

fn split(call: &Call) -> Result<Vec<Value>> {
    let value = call.floats(0)?;
    let axis = call.axis(0, value.shape.len())?;
    let Some(whole) = value.shape[axis].number() else {
        return unsupported("splits the batch");
    };
    let count = call.node.output.len() as u64;
    let parts: Vec<u64> = if call.inputs.len() == 2 {
        let parts = call.numbers(1)?;
        parts
            .into_iter()
            .filter_map(|part| part.try_into().ok())
            .collect()
    } else {
        if call.int("num_outputs", count as i64) != count as i64 {
            return mismatch("its num_outputs is not the number of its outputs");
        }
        let part = whole.div_ceil(count.max(1));
        (0..count)
            .map(|i| whole.saturating_sub(i * part).min(part))
            .collect()
    };
    let sum = parts
        .iter()
        .try_fold(0u64, |sum, part| sum.checked_add(*part));
    if sum != Some(whole) || parts.len() as u64 != count || parts.contains(&0) {
        return mismatch(format!("does not split {whole} into {count} parts"));
    }
    let part = |size: u64| {
        let mut shape = value.shape.clone();
        shape[axis] = Size::constant(size);
        value.with_shape(shape)
    };
    Ok(parts.into_iter().map(part).collect())
}

fn slice(call: &Call) -> Result<Vec<Value>> {
    let value = call.input(0)?;
    let (starts, ends) = (call.numbers(1)?, call.numbers(2)?);
    let list = match call.optional(3) {
        Some(_) => call.numbers(3)?,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = match call.optional(4) {
        Some(_) => call.numbers(4)?,
        None => vec![1; starts.len()],
    };
    let indices = axes(&list, value.shape.len())?;
    if [ends.len(), indices.len(), steps.len()] != [starts.len(); 3] {
        return mismatch("its starts, ends, axes and steps differ in number");
    }
    let mut result = value.clone();
    for (i, index) in indices.into_iter().enumerate() {
        let whole = starts[i] == 0 && ends[i] >= i64::from(i32::MAX) && steps[i] == 1;
        if whole {
            continue;
        }
        let Some(size) = value.shape[index].number() else {
            return unsupported("slices the batch");
        };
        if steps[i] < 1 {
            return unsupported("slices backwards");
        }
        let at = |place: i64| {
            let from_front = if place < 0 {
                place.saturating_add_unsigned(size)
            } else {
                place
            };
            u64::try_from(from_front).unwrap_or(0).min(size)
        };
        let (start, end, step) = (at(starts[i]), at(ends[i]), steps[i] as u64);
        let count = end.saturating_sub(start).div_ceil(step);
        if count == 0 {
            return mismatch("slices to nothing");
        }
        result.shape[index] = Size::constant(count);
        result.integers = result.integers.map(|integers| {
            let picked = integers.into_iter().skip(start as usize);
            picked.step_by(step as usize).take(count as usize).collect()
        });
    }
    one(result)
}

fn reshape(call: &Call) -> Result<Vec<Value>> {
    let value = call.input(0)?;
    if call.int("allowzero", 0) != 0 {
        return unsupported("has allowzero set");
    }
    let Some(total) = value.count() else {
        return call.shape_fault();
    };
    let target = call.integers(1)?;
    let mut shape = Vec::new();
    let mut rest = None;
    for (i, integer) in target.iter().enumerate() {
        shape.push(match *integer {
            Integer::Size(size) => size,
            Integer::Number(0) => match value.shape.get(i) {
                Some(size) => *size,
                None => return mismatch("keeps a dimension that its input does not have"),
            },
            Integer::Number(-1) if rest.is_none() => {
                rest = Some(i);
                Size::ONE
            }
            Integer::Number(number) => match u64::try_from(number) {
                Ok(number) => Size::constant(number),
                Err(_) => return mismatch(format!("makes a dimension of {number}")),
            },
        });
    }
    let known = Size::product(&shape);
    if let Some(i) = rest {
        let Some(size) = known.and_then(|known| total.checked_div(known)) else {
            return mismatch(format!(
                "{} has no such shape at every batch",
                shape_text(&value.shape)
            ));
        };
        shape[i] = size;
    } else if known != Some(total) {
        return mismatch(format!(
            "{} and {} differ in elements",
            shape_text(&value.shape),
            shape_text(&shape)
        ));
    }
    one(value.reshaped(shape))
}

fn flatten(call: &Call) -> Result<Vec<Value>> {
    let value = call.floats(0)?;
    let rank = value.shape.len();
    let at = match call.int("axis", 1) {
        end if end == rank as i64 => rank,
        other => axis(other, rank)?,
    };
    let (rows, columns) = value.shape.split_at(at);
    let (Some(rows), Some(columns)) = (Size::product(rows), Size::product(columns)) else {
        return call.shape_fault();
    };
    one(value.with_shape(vec![rows, columns]))
}

fn transpose(call: &Call) -> Result<Vec<Value>> {
    let value = call.floats(0)?;
    let rank = value.shape.len();
    let order = match call.attribute("perm") {
        Some(perm) => axes(&perm.ints, rank)?,
        None => (0..rank).rev().collect(),
    };
    if order.len() != rank {
        return mismatch(format!(
            "its perm has {} entries instead of {rank}",
            order.len()
        ));
    }
    one(value.with_shape(order.into_iter().map(|i| value.shape[i]).collect()))
}

fn unsqueeze(call: &Call) -> Result<Vec<Value>> {
    let value = call.input(0)?;
    let list = call.numbers(1)?;
    let rank = value.shape.len() + list.len();
    let added = axes(&list, rank)?;
    let mut kept = value.shape.iter();
    let shape = (0..rank)
        .filter_map(|i| match added.contains(&i) {
            true => Some(Size::ONE),
            false => kept.next().copied(),
        })
        .collect();
    one(value.reshaped(shape))
}

fn squeeze(call: &Call) -> Result<Vec<Value>> {
    let value = call.input(0)?;
    let removed = axes(&call.numbers(1)?, value.shape.len())?;
    if removed.iter().any(|i| value.shape[*i] != Size::ONE) {
        return mismatch(format!(
            "removes a dimension that is not 1 of {}",
            shape_text(&value.shape)
        ));
    }
    let shape = value.shape.iter().enumerate();
    let kept = shape.filter(|(i, _)| !removed.contains(i));
    one(value.reshaped(kept.map(|(_, size)| *size).collect()))
}

fn expand(call: &Call) -> Result<Vec<Value>> {
    let value = call.floats(0)?;
    let target: Vec<Size> = call
        .integers(1)?
        .iter()
        .map(|integer| match *integer {
            Integer::Size(size) => Ok(size),
            Integer::Number(number) => match u64::try_from(number) {
                Ok(number) if number > 0 => Ok(Size::constant(number)),
                _ => mismatch(format!("makes a dimension of {number}")),
            },
        })
        .collect::<Result<_>>()?;
    let Some(shape) = broadcast([&value.shape[..], &target].into_iter()) else {
        return call.shape_fault();
    };
    one(value.with_shape(shape))
}

fn gather(call: &Call) -> Result<Vec<Value>> {
    let value = call.input(0)?;
    let axis = call.axis(0, value.shape.len())?;
    let places = call.input(1)?;
    if places.element != data_type::INT64 {
        return unsupported("its indices are not int64");
    }
    let shape = [
        &value.shape[..axis],
        &places.shape,
        &value.shape[axis + 1..],
    ]
    .concat();
    let picked = value.integers.as_ref().zip(places.integers.as_ref());
    let integers = picked.and_then(|(integers, places)| {
        let pick = |place: &Integer| match *place {
            Integer::Number(place) => {
                let from_front = if place < 0 {
                    place.checked_add_unsigned(integers.len() as u64)?
                } else {
                    place
                };
                integers.get(usize::try_from(from_front).ok()?).copied()
            }
            Integer::Size(_) => None,
        };
        places.iter().map(pick).collect()
    });
    one(Value {
        integers,
        ..value.with_shape(shape)
    })
}

fn reduce(call: &Call) -> Result<Vec<Value>> {
    let value = call.floats(0)?;
    let rank = value.shape.len();
    let list = match (call.optional(1), call.attribute("axes")) {
        (Some(_), _) => Some(call.numbers(1)?),
        (None, Some(attribute)) => Some(attribute.ints.clone()),
        (None, None) => None,
    }
    .filter(|list| !list.is_empty());
    let removed = match list {
        Some(list) => axes(&list, rank)?,
        None if call.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
        None => (0..rank).collect(),
    };
    let keep = call.int("keepdims", 1) != 0;
    let shape = value.shape.iter().enumerate();
    let shape = shape.filter_map(|(i, size)| match removed.contains(&i) {
        true => keep.then_some(Size::ONE),
        false => Some(*size),
    });
    one(value.with_shape(shape.collect()))
}

fn shape(call: &Call) -> Result<Vec<Value>> {
    let value = call.input(0)?;
    let rank = value.shape.len() as i64;
    let place = |name, default| {
        let place = call.int(name, default);
        let from_front = if place < 0 {
            place.saturating_add(rank)
        } else {
            place
        };
        from_front.clamp(0, rank) as usize
    };
    let (start, end) = (place("start", 0), place("end", rank));
    let sizes = value.shape.get(start..end).unwrap_or_default();
    let integer = |size: &Size| match size.number() {
        Some(number) => i64::try_from(number).ok().map(Integer::Number),
        None => Some(Integer::Size(*size)),
    };
    match sizes.iter().map(integer).collect() {
        Some(integers) => one(Value::list(integers)),
        None => call.shape_fault(),
    }
}

fn constant_node(call: &Call) -> Result<Vec<Value>> {
    let [attribute] = &call.node.attribute[..] else {
        return mismatch("has no value, or two");
    };
    let floats = |count: Option<usize>| {
        let shape = count.map(|count| Size::constant(count as u64));
        Value::floats(shape.into_iter().collect::<Vec<_>>())
    };
    let list = |ints: &[i64]| Value::list(ints.iter().copied().map(Integer::Number).collect());
    match attribute.name() {
        "value_float" => one(floats(None)),
        "value_floats" if !attribute.floats.is_empty() => one(floats(Some(attribute.floats.len()))),
        "value_int" => one(list(&[attribute.i()]).reshaped(Vec::new())),
        "value_ints" => one(list(&attribute.ints)),
        "value" => match &attribute.t {
            Some(tensor) if tensor.is_external() => {
                unsupported("its tensor lies in a file; only the graph's initialisers may")
            }
            Some(tensor) => constant(tensor)
                .map_err(|e| Fault::Mismatch(e.message().to_owned()))
                .and_then(one),
            None => mismatch("has no value"),
        },
        _ => mismatch("has no value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_documented() {
        let names: Vec<&str> = OPERATORS.iter().map(|operator| operator.name).collect();
        assert!(names.is_sorted());
        let text = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/artifact.md");
        let text = std::fs::read_to_string(text).unwrap();
        for name in names {
            assert!(
                text.contains(&format!("`{name}`")),
                "docs/artifact.md: {name}"
            );
        }
    }
}
