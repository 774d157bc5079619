//! The target network's tensors and their places in the flat weight vector.

use std::{collections::HashSet, iter, ops::Range};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    limits::{MAX_RANK, MAX_TENSORS},
};

/// Element types of target tensors and of output buffers.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    #[default]
    F32 = 0,
    /// IEEE 754 binary16.
    F16 = 1,
    /// bfloat16: the upper half of a binary32.
    Bf16 = 2,
}

impl DType {
    /// The type with this number in the C ABI.
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::F32, Self::F16, Self::Bf16]
            .into_iter()
            .find(|dtype| *dtype as u32 == code)
    }

    /// Bytes an element takes.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// What a target tensor is to its network.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TensorKind {
    /// Trained by gradient: weights, biases, normalisation scales.
    #[default]
    Parameter = 0,
    /// Kept by the network but not trained by gradient: running statistics.
    Buffer = 1,
}

/// How a tensor's values come from what the basis gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// They are what it gives.
    #[default]
    None,
    /// It gives their natural logarithms: for what must be positive, a running variance say.
    Log,
}

impl Transform {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// One tensor of the target network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Name as in the checkpoint, `fc1.weight` say.
    pub name: String,
    /// Row-major shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Element type in the checkpoint.
    pub dtype: DType,
    /// First element in the flat vector, in elements.
    pub offset: usize,
    /// Parameter or buffer.
    #[serde(default)]
    pub kind: TensorKind,
    /// How its values come from what the basis gives.
    #[serde(default, skip_serializing_if = "Transform::is_none")]
    pub transform: Transform,
}

impl TensorSpec {
    /// Number of elements; layouts check that the product does not overflow.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its elements in the flat vector.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.count()
    }
}

/// All tensors of the target network, laid end to end in one flat vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    tensors: Vec<TensorSpec>,
    len: usize,
    /// Stretches of which the basis gives the logarithm, in order; those that touch are one.
    logs: Vec<Range<usize>>,
}

impl Layout {
    /// Lays tensors (name, shape, type, kind) end to end in the order given, none transformed.
    ///
    /// Errors: BAD_ARTIFACT as for [`Layout::from_specs`].
    pub fn pack(
        tensors: impl IntoIterator<Item = (String, Vec<usize>, DType, TensorKind)>,
    ) -> Result<Self> {
        let mut offset = 0usize;
        let mut specs = Vec::new();
        for (name, shape, dtype, kind) in tensors {
            let count = checked_count(&shape).unwrap_or(usize::MAX);
            specs.push(TensorSpec {
                name,
                shape,
                dtype,
                offset,
                kind,
                transform: Transform::None,
            });
            offset = offset.saturating_add(count);
        }
        Self::from_specs(specs)
    }

    /// A layout from its tensors, which must lie end to end from element 0 in the order given.
    ///
    /// Errors: BAD_ARTIFACT for no tensors, an empty, repeated or NUL-holding name, more than
    /// [`MAX_TENSORS`] tensors or [`MAX_RANK`] dimensions, an empty tensor, a gap or overlap, or a size that overflows.
    pub fn from_specs(tensors: Vec<TensorSpec>) -> Result<Self> {
        if tensors.is_empty() {
            return Err(Error::artifact("the layout has no tensors"));
        }
        if tensors.len() > MAX_TENSORS {
            return Err(Error::artifact(format!(
                "the layout has {} tensors; at most {MAX_TENSORS}",
                tensors.len()
            )));
        }
        let mut names = HashSet::new();
        let mut len = 0usize;
        for tensor in &tensors {
            let fail =
                |what: &str| Err(Error::artifact(format!("tensor '{}' {what}", tensor.name)));
            if tensor.name.is_empty() || tensor.name.contains('\0') {
                return fail("has an empty name or one with a NUL in it");
            }
            if !names.insert(tensor.name.as_str()) {
                return fail("is listed twice");
            }
            if tensor.shape.len() > MAX_RANK {
                return fail(&format!("has more than {MAX_RANK} dimensions"));
            }
            let end = checked_count(&tensor.shape)
                .and_then(|count| len.checked_add(count))
                // Every row must be addressable in bytes, in the widest output type.
                .filter(|end| *end <= isize::MAX as usize / DType::F32.size());
            let Some(end) = end else {
                return fail("is too large for this machine");
            };
            if end == len {
                return fail("has no elements");
            }
            if tensor.offset != len {
                return fail(&format!("starts at {} instead of {len}", tensor.offset));
            }
            len = end;
        }
        let logs = logs(&tensors);
        Ok(Self { tensors, len, logs })
    }

    /// The same with a transform of those tensors that `which` chooses.
    pub fn transformed(
        mut self,
        transform: Transform,
        which: impl Fn(&TensorSpec) -> bool,
    ) -> Self {
        for tensor in self.tensors.iter_mut().filter(|tensor| which(tensor)) {
            tensor.transform = transform;
        }
        self.logs = logs(&self.tensors);
        self
    }

    /// Whether a tensor is transformed.
    pub fn is_transformed(&self) -> bool {
        !self.logs.is_empty()
    }

    /// The stretches that `columns` of the flat vector fall into, with their transforms.
    pub fn stretches(
        &self,
        columns: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, Transform)> {
        let first = self.logs.partition_point(|log| log.end <= columns.start);
        let mut logs = self.logs[first..].iter().peekable();
        let mut at = columns.start;
        iter::from_fn(move || {
            if at >= columns.end {
                return None;
            }
            let (end, transform) = match logs.peek() {
                Some(log) if log.start <= at => {
                    let end = log.end;
                    logs.next();
                    (end, Transform::Log)
                }
                Some(log) => (log.start, Transform::None),
                None => (columns.end, Transform::None),
            };
            let stretch = at..end.min(columns.end);
            at = stretch.end;
            Some((stretch, transform))
        })
    }

    /// The tensors in the order of their offsets.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Elements of the flat vector: the weights of one network.
    #[allow(clippy::len_without_is_empty, reason = "a layout is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The tensor with this name.
    pub fn get(&self, name: &str) -> Option<&TensorSpec> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// Where the tensors of logarithms lie, joined where they touch.
fn logs(tensors: &[TensorSpec]) -> Vec<Range<usize>> {
    let mut logs: Vec<Range<usize>> = Vec::new();
    for tensor in tensors.iter().filter(|t| t.transform == Transform::Log) {
        let range = tensor.range();
        match logs.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => logs.push(range),
        }
    }
    logs
}

/// Product of the dimensions, unless it overflows.
pub(crate) fn checked_count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |count, dim| count.checked_mul(*dim))
}
