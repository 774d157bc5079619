//! The two files of an artifact, read and checked: `name.onnx` (velocity network and metadata)
//! and the safetensors sidecar that holds every tensor. Pure functions of bytes, total on any input.

use std::{collections::HashSet, ops::Range};

use prost::Message;
use safetensors::{Dtype, SafeTensors};

use crate::{
    condition::Condition,
    error::{Error, Result},
    graph,
    layout::{DType, checked_count},
    limits::MAX_HEADER_BYTES,
    metadata::{BasisKind, Metadata, PAIR_KEY, basis_tensor},
    onnx::{GraphProto, ModelProto, TensorProto, ValueInfoProto, data_type},
    wire,
};

pub use crate::graph::Footprint;

/// Names of the velocity network's inputs and output.
pub mod value {
    /// State, [batch, latent].
    pub const X: &str = "x";
    /// Time, [1 or batch, 1], in [0, 1].
    pub const T: &str = "t";
    /// Condition, [batch, condition]; only if the artifact declares one.
    pub const CONDITION: &str = "condition";
    /// Velocity, [batch, latent].
    pub const V: &str = "v";
}

/// What the `.onnx` says, before its sidecar is looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The `dwf.*` keys.
    pub metadata: Metadata,
    /// Length of a latent vector.
    pub latent: usize,
    /// The velocity network without its metadata; its external tensors are [`Self::weights`].
    pub graph: ModelProto,
    /// The velocity network's tensors that lie in the sidecar.
    pub weights: Vec<Weight>,
    /// The sidecar's bare file name.
    pub sidecar_name: String,
    /// The memory that the velocity network's values take.
    pub footprint: Footprint,
}

/// A velocity-network tensor in the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Name, of the ONNX initialiser and of the safetensors tensor.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Element type.
    pub float: Float,
    /// Its bytes in the sidecar file.
    pub bytes: Range<usize>,
}

/// Element types that a sidecar tensor can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    /// binary32
    F32,
    /// binary16
    F16,
}

impl Float {
    /// Bytes an element takes.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// The same type as a target tensor's.
    pub(crate) const fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
        }
    }

    fn from_safetensors(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            _ => None,
        }
    }

    fn from_onnx(data_type: i32) -> Option<Self> {
        match data_type {
            data_type::FLOAT => Some(Self::F32),
            data_type::FLOAT16 => Some(Self::F16),
            _ => None,
        }
    }
}

/// A basis tensor in the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Element type.
    pub float: Float,
    /// Its bytes in the sidecar file.
    pub bytes: Range<usize>,
}

/// Where the tensors of the basis lie in the sidecar; see [`BasisKind`] for what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// weights = latent.
    Identity,
    /// `mean` and `scale` are [weights].
    Diagonal { mean: View, scale: View },
    /// `components` is [latent, weights], `mean` [weights], `scale` [latent].
    Linear {
        components: View,
        mean: View,
        scale: View,
    },
}

impl Description {
    /// Reads `name.onnx`.
    ///
    /// Errors: BAD_ARTIFACT naming the field, UNSUPPORTED for a newer format or an operator that
    /// velocity networks may not have.
    pub fn parse(onnx: &[u8]) -> Result<Self> {
        wire::check(onnx)?;
        let mut model = ModelProto::decode(onnx).map_err(|e| {
            Error::artifact(format!(
                "not an ONNX file, or truncated ({e}); copy the file again"
            ))
        })?;
        let metadata = Metadata::from_props(&std::mem::take(&mut model.metadata_props))?;
        let graph = model
            .graph
            .as_mut()
            .ok_or_else(|| Error::artifact("the ONNX file has no graph"))?;
        // Shapes that it claims; ONNX Runtime finds them itself.
        graph.value_info.clear();
        let latent = check_signature(graph, &metadata)?;
        let (weights, sidecar_name) = external_weights(graph)?;
        let condition = metadata.condition.as_ref().map(Condition::size);
        let footprint = graph::check(&model, latent, condition)?;
        Ok(Self {
            metadata,
            latent,
            weights,
            sidecar_name,
            footprint,
            graph: model,
        })
    }

    /// Checks the sidecar's bytes against this description and finds the basis in them.
    ///
    /// Errors: BAD_ARTIFACT naming the tensor.
    pub fn basis(&self, sidecar: &[u8]) -> Result<Basis> {
        let sidecar = Sidecar::parse(sidecar)?;
        if sidecar.pair.as_deref() != Some(&self.metadata.pair) {
            return Err(Error::artifact(
                "does not belong to this .onnx (dwf.pair differs); keep the two files that were \
                 exported together",
            ));
        }
        for weight in &self.weights {
            sidecar.check_weight(weight)?;
        }
        let latent = self.latent;
        let weights = self.metadata.layout.len();
        Ok(match self.metadata.basis {
            BasisKind::Identity => Basis::Identity,
            BasisKind::Diagonal => Basis::Diagonal {
                mean: sidecar.view(basis_tensor::MEAN, &[weights])?,
                scale: sidecar.view(basis_tensor::SCALE, &[weights])?,
            },
            BasisKind::Linear => Basis::Linear {
                components: sidecar.view(basis_tensor::COMPONENTS, &[latent, weights])?,
                mean: sidecar.view(basis_tensor::MEAN, &[weights])?,
                scale: sidecar.view(basis_tensor::SCALE, &[latent])?,
            },
        })
    }
}

/// Whether a value's first dimension, which is the batch, is a number.
fn has_fixed_rows(value: &ValueInfoProto) -> bool {
    let first = |(_, dims): (_, Vec<Option<i64>>)| dims.first().copied().flatten();
    value.tensor_type().and_then(first).is_some()
}

/// Checks the graph's inputs and output; returns the latent size.
fn check_signature(graph: &GraphProto, metadata: &Metadata) -> Result<usize> {
    let columns = |values: &[ValueInfoProto], name: &str| {
        let found = values.iter().find(|info| info.name() == name);
        match found.and_then(ValueInfoProto::tensor_type) {
            Some((data_type::FLOAT, dims)) if dims.len() == 2 => {
                dims[1].and_then(|columns| usize::try_from(columns).ok())
            }
            _ => None,
        }
        .filter(|columns| *columns > 0)
        .ok_or_else(|| {
            Error::artifact(format!(
                "the graph has no float32 value '{name}' of shape [batch, columns]"
            ))
        })
    };
    let latent = columns(&graph.input, value::X)?;
    let mismatch = |what: String| Err(Error::artifact(what));
    let fixed = |info: &&ValueInfoProto| info.name() != value::T && has_fixed_rows(info);
    if let Some(info) = graph.input.iter().find(fixed) {
        return mismatch(format!(
            "input '{}' has a fixed number of rows; its first dimension is the batch",
            info.name()
        ));
    }
    if columns(&graph.input, value::T)? != 1 {
        return mismatch("input 't' is not one column wide".into());
    }
    if columns(&graph.output, value::V)? != latent {
        return mismatch(format!(
            "output 'v' is not {latent} columns wide, as input 'x' is"
        ));
    }
    if let Some(condition) = &metadata.condition {
        let size = columns(&graph.input, value::CONDITION)?;
        if size != condition.size() {
            return mismatch(format!(
                "input 'condition' has {size} columns and dwf.condition {}",
                condition.size()
            ));
        }
    }
    let inputs = 2 + usize::from(metadata.condition.is_some());
    if graph.input.len() != inputs || graph.output.len() != 1 {
        return mismatch(format!(
            "the graph has {} inputs and {} outputs instead of {inputs} and 1",
            graph.input.len(),
            graph.output.len()
        ));
    }
    let weights = metadata.layout.len();
    if metadata.basis != BasisKind::Linear && latent != weights {
        return mismatch(format!(
            "input 'x' has {latent} columns, but the layout has {weights} weights and the basis \
             maps them one to one"
        ));
    }
    Ok(latent)
}

/// The graph's external tensors and the one file they name.
fn external_weights(graph: &GraphProto) -> Result<(Vec<Weight>, String)> {
    let mut sidecar: Option<&str> = None;
    let mut names = HashSet::new();
    let mut weights = Vec::new();
    for tensor in graph.initializer.iter() {
        if !names.insert(tensor.name()) {
            return Err(Error::artifact(format!(
                "initialiser '{}' is listed twice",
                tensor.name()
            )));
        }
        if !tensor.is_external() {
            continue;
        }
        let place = || format!("initialiser '{}'", tensor.name());
        let location = bare_file_name(tensor).map_err(|e| e.at(place()))?;
        if *sidecar.get_or_insert(location) != location {
            return Err(Error::artifact("lies in a second sidecar; one is allowed").at(place()));
        }
        weights.push(external_weight(tensor).map_err(|e| e.at(place()))?);
    }
    let name = sidecar
        .ok_or_else(|| Error::artifact("no initialiser lies in a sidecar; its tensors must"))?;
    Ok((weights, name.to_owned()))
}

/// The external location, if it cannot lead out of the artifact's folder.
fn bare_file_name(tensor: &TensorProto) -> Result<&str> {
    let location = tensor.external("location").unwrap_or_default();
    let bare = !location.is_empty()
        && !location.contains(['/', '\\', '\0', ':'])
        && location != "."
        && location != "..";
    if bare {
        return Ok(location);
    }
    Err(Error::artifact(format!(
        "its external location '{}' is not a bare file name",
        location.escape_default()
    )))
}

fn external_weight(tensor: &TensorProto) -> Result<Weight> {
    let float = Float::from_onnx(tensor.data_type())
        .ok_or_else(|| Error::artifact("is neither float32 nor float16"))?;
    let shape: Option<Vec<usize>> = tensor
        .dims
        .iter()
        .map(|dim| usize::try_from(*dim).ok())
        .collect();
    let size = shape
        .as_deref()
        .and_then(checked_count)
        .and_then(|count| count.checked_mul(float.size()));
    let number = |key| {
        tensor
            .external(key)
            .and_then(|text| text.parse::<usize>().ok())
    };
    let (Some(shape), Some(size), Some(offset)) = (shape, size, number("offset")) else {
        return Err(Error::artifact("its shape or external offset is not valid"));
    };
    let end = offset.checked_add(size);
    let (Some(end), Some(length)) = (end, number("length")) else {
        return Err(Error::artifact("its external length is not valid"));
    };
    if length != size {
        return Err(Error::artifact(format!(
            "takes {length} bytes in the sidecar, but its shape needs {size}"
        )));
    }
    Ok(Weight {
        name: tensor.name().to_owned(),
        shape,
        float,
        bytes: offset..end,
    })
}

/// A parsed safetensors header and where its data begin.
struct Sidecar {
    metadata: safetensors::tensor::Metadata,
    data_start: usize,
    pair: Option<String>,
}

impl Sidecar {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let fail = |e: &dyn std::fmt::Display| {
            Error::artifact(format!(
                "not a safetensors file, or truncated ({e}); copy the file again"
            ))
        };
        let header = bytes
            .first_chunk()
            .map_or(0, |size| u64::from_le_bytes(*size));
        if header > MAX_HEADER_BYTES as u64 {
            return Err(fail(&format_args!(
                "a header of {header} bytes; at most {MAX_HEADER_BYTES}"
            )));
        }
        // `deserialize` also checks that the tensors fill the file exactly.
        SafeTensors::deserialize(bytes).map_err(|e| fail(&e))?;
        let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| fail(&e))?;
        let pair = metadata
            .metadata()
            .as_ref()
            .and_then(|map| map.get(PAIR_KEY).cloned());
        Ok(Self {
            metadata,
            data_start: header + size_of::<u64>(),
            pair,
        })
    }

    /// The tensor's element type, shape and bytes in the file.
    fn tensor(&self, name: &str) -> Result<(Float, &[usize], Range<usize>)> {
        let place = format!("tensor '{name}'");
        let info = self
            .metadata
            .info(name)
            .ok_or_else(|| Error::artifact("is missing").at(&place))?;
        let float = Float::from_safetensors(info.dtype).ok_or_else(|| {
            Error::artifact(format!("is {:?}; it must be F32 or F16", info.dtype)).at(&place)
        })?;
        let bytes = self.data_start + info.data_offsets.0..self.data_start + info.data_offsets.1;
        if bytes.start % float.size() != 0 {
            return Err(Error::artifact(
                "is not aligned to its element size; export the artifact again",
            )
            .at(place));
        }
        Ok((float, &info.shape, bytes))
    }

    fn view(&self, name: &str, shape: &[usize]) -> Result<View> {
        let (float, found, bytes) = self.tensor(name)?;
        if found != shape {
            return Err(Error::artifact(format!(
                "tensor '{name}' has shape {found:?} instead of {shape:?}"
            )));
        }
        Ok(View { float, bytes })
    }

    /// The `.onnx` and the sidecar must agree on where and what the weight is.
    fn check_weight(&self, weight: &Weight) -> Result<()> {
        let (float, shape, bytes) = self.tensor(&weight.name)?;
        if (float, shape, &bytes) == (weight.float, &weight.shape[..], &weight.bytes) {
            return Ok(());
        }
        Err(Error::artifact(format!(
            "tensor '{}' is {float:?} {shape:?} at byte {}, but the .onnx expects {:?} {:?} at \
             byte {}",
            weight.name, bytes.start, weight.float, weight.shape, weight.bytes.start
        )))
    }
}
