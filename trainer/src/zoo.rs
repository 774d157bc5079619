//! A zoo: a folder of safetensors files, one trained network each.

use std::{
    collections::HashMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use dwf::layout::{DType, Layout};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{
    error::{Error, Result, Status, invalid, io},
    files::{self, Staging},
    network::{Mlp, Signature},
};

/// Fewest networks that a distribution can be learned from at all.
pub const MIN_NETWORKS: usize = 8;
/// Largest weight in absolute value that a zoo may have. No network that works comes near it, and
/// products of two, summed over a hundred million connections, stay finite in single precision.
pub const LARGEST_WEIGHT: f32 = 1e15;

/// Networks of one architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct Zoo {
    /// The architecture.
    pub mlp: Mlp,
    /// Its tensors in the flat vector.
    pub layout: Layout,
    /// One flat vector a network: [networks, `layout.len()`] row-major.
    pub weights: Vec<f32>,
    /// The networks' file names, in the same order.
    pub files: Vec<String>,
}

impl Zoo {
    /// Reads the `*.safetensors` files of a folder in the order of their names.
    ///
    /// Errors: IO; INVALID_ARGUMENT naming file and tensor unless there are at least
    /// [`MIN_NETWORKS`] files, all with the same tensors (name, shape, type) that make a plain
    /// MLP, and no weight that is not finite or beyond [`LARGEST_WEIGHT`].
    pub fn read(folder: &Path) -> Result<Self> {
        let files = files(folder)?;
        if files.len() < MIN_NETWORKS {
            return Err(invalid(format!(
                "'{}' has {} *.safetensors files and a zoo needs at least {MIN_NETWORKS}, one \
                 network each",
                folder.display(),
                files.len()
            )));
        }
        let mut zoo: Option<Self> = None;
        for file in &files {
            let bytes = fs::read(file).map_err(io("read", file))?;
            add(&mut zoo, &bytes, &files[0]).map_err(|e| e.at(format!("'{}'", file.display())))?;
        }
        let mut zoo = zoo.expect("there are files");
        let name = |file: &PathBuf| file.file_name().map(|name| name.to_string_lossy().into());
        zoo.files = files.iter().filter_map(name).collect();
        Ok(zoo)
    }

    /// Number of networks.
    pub fn count(&self) -> usize {
        self.weights.len() / self.layout.len()
    }

    /// The flat vectors.
    pub fn networks(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.weights.chunks_exact(self.layout.len())
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("read the zoo", folder))? {
        let path = entry.map_err(io("read the zoo", folder))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Adds one network; the first, in file `first`, decides the architecture.
fn add(zoo: &mut Option<Zoo>, bytes: &[u8], first: &Path) -> Result<()> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| {
        invalid(format!(
            "not a safetensors file, or truncated ({e}); save the network again"
        ))
    })?;
    let signatures = signatures(&tensors)?;
    let zoo = match zoo {
        Some(zoo) => zoo,
        None => {
            let (mlp, layout) = Mlp::find(&signatures)?;
            zoo.insert(Zoo {
                mlp,
                layout,
                weights: Vec::new(),
                files: Vec::new(),
            })
        }
    };
    check(&signatures, &zoo.layout, first)?;
    for spec in zoo.layout.tensors() {
        let view = tensors
            .tensor(&spec.name)
            .expect("its signature was checked");
        let values = decode(view.data(), spec.dtype);
        check_values(&spec.name, &values)?;
        zoo.weights.extend(values);
    }
    Ok(())
}

/// Networks that have diverged would spoil the others.
fn check_values(tensor: &str, values: &[f32]) -> Result<()> {
    let sane = |value: &f32| value.abs() <= LARGEST_WEIGHT;
    match values.iter().position(|value| !sane(value)) {
        Some(i) => Err(invalid(format!(
            "tensor '{tensor}' has {:e} at element {i}, and weights go up to {LARGEST_WEIGHT:e}: \
             the network has diverged; leave it out of the zoo",
            values[i]
        ))),
        None => Ok(()),
    }
}

fn signatures(tensors: &SafeTensors<'_>) -> Result<Vec<Signature>> {
    let signature = |(name, view): (String, TensorView<'_>)| {
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            other => {
                return Err(invalid(format!(
                    "tensor '{name}' is {other:?}; F32, F16 and BF16 are supported"
                )));
            }
        };
        Ok(Signature {
            name,
            shape: view.shape().to_vec(),
            dtype,
        })
    };
    tensors.tensors().into_iter().map(signature).collect()
}

/// Every network must have exactly the tensors of the first.
fn check(signatures: &[Signature], layout: &Layout, first: &Path) -> Result<()> {
    let first = first.file_name().unwrap_or_default().display();
    for Signature { name, shape, dtype } in signatures {
        let Some(spec) = layout.get(name) else {
            return Err(invalid(format!(
                "tensor '{name}' is not in '{first}'; all networks of a zoo must be alike"
            )));
        };
        if (&spec.shape, spec.dtype) != (shape, *dtype) {
            return Err(invalid(format!(
                "tensor '{name}' is {dtype:?} {shape:?}, but {:?} {:?} in '{first}'; all networks \
                 of a zoo must be alike",
                spec.dtype, spec.shape
            )));
        }
    }
    let missing = layout
        .tensors()
        .iter()
        .find(|spec| !signatures.iter().any(|s| s.name == spec.name));
    match missing {
        Some(spec) => Err(invalid(format!(
            "tensor '{}' of '{first}' is missing; all networks of a zoo must be alike",
            spec.name
        ))),
        None => Ok(()),
    }
}

/// Little-endian elements as f32.
fn decode(bytes: &[u8], dtype: DType) -> Vec<f32> {
    let halves = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match dtype {
        DType::F32 => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        DType::F16 => halves().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        DType::Bf16 => halves().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
    }
}

fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    let values = values.iter();
    match dtype {
        DType::F32 => values.flat_map(|v| v.to_le_bytes()).collect(),
        DType::F16 => values
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect(),
        DType::Bf16 => values
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect(),
    }
}

/// A zoo being written: `net-000.safetensors` and on, in a folder that appears when it is done.
pub struct Writer<'a> {
    staging: Staging,
    layout: &'a Layout,
    digits: usize,
    next: usize,
}

impl<'a> Writer<'a> {
    /// For networks `numbers`, named by them, in `folder`, which must be empty if it exists.
    ///
    /// Errors: IO; INVALID_ARGUMENT if the folder holds anything.
    pub fn new(folder: &Path, layout: &'a Layout, numbers: Range<usize>) -> Result<Self> {
        files::check_empty(folder)?;
        Ok(Self {
            staging: Staging::beside(folder)?,
            layout,
            digits: numbers.end.saturating_sub(1).to_string().len().max(3),
            next: numbers.start,
        })
    }

    /// Adds one network, a flat vector, in the layout's types.
    ///
    /// Errors: IO; DIVERGED naming the tensor if a weight is out of its type's range.
    pub fn add(&mut self, network: &[f32]) -> Result<()> {
        let name = format!(
            "net-{:0digits$}.safetensors",
            self.next,
            digits = self.digits
        );
        let bytes = serialize(self.layout, network).map_err(|e| e.at(&name))?;
        self.next += 1;
        self.staging.write(name, &bytes)
    }

    /// Adds a file that is no network.
    ///
    /// Errors: IO.
    pub fn add_text(&self, name: &str, text: &str) -> Result<()> {
        self.staging.write(name, text.as_bytes())
    }

    /// Makes the folder appear.
    ///
    /// Errors: IO.
    pub fn finish(self) -> Result<()> {
        self.staging.publish_folder()
    }
}

fn serialize(layout: &Layout, network: &[f32]) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for spec in layout.tensors() {
        let bytes = encode(&network[spec.range()], spec.dtype);
        if decode(&bytes, spec.dtype)
            .iter()
            .any(|value| !value.is_finite())
        {
            let what = format!(
                "tensor '{}' is out of the range of {:?}",
                spec.name, spec.dtype
            );
            return Err(Error::new(Status::Diverged, what));
        }
        tensors.push((spec, bytes));
    }
    let views: HashMap<&str, TensorView<'_>> = tensors
        .iter()
        .map(|(spec, bytes)| {
            let dtype = match spec.dtype {
                DType::F32 => Dtype::F32,
                DType::F16 => Dtype::F16,
                DType::Bf16 => Dtype::BF16,
            };
            let view = TensorView::new(dtype, spec.shape.clone(), bytes);
            (spec.name.as_str(), view.expect("the layout gives its size"))
        })
        .collect();
    safetensors::serialize(views, None)
        .map_err(|e| Error::new(Status::Internal, format!("cannot serialise: {e}")))
}
