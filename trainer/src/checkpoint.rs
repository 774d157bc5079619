//! A checkpoint: one trained network's tensors in a file of safetensors or of PyTorch.

use std::{
    borrow::Cow,
    cmp::Ordering,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use dwf::layout::DType;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use memmap2::Mmap;
use pytorch_reader::{PickleValue, PytorchError, PytorchReader};
use safetensors::{Dtype, SafeTensors, tensor::Metadata};

use crate::error::{Error, Result, invalid, io};

/// Extensions of the files that are read as checkpoints.
pub const EXTENSIONS: [&str; 3] = ["safetensors", "pt", "pth"];
/// Largest weight in absolute value that a checkpoint may have. No network that works comes near
/// it, and products of two, summed over a hundred million connections, stay finite in single
/// precision.
pub const LARGEST_WEIGHT: f32 = 1e15;
/// Elements that are converted at a time.
const BLOCK: usize = 1024;
/// Keys under which training programs put the weights beside their own state. The last four are
/// also what people call modules, so that names alone do not tell.
const KEYS: [&str; 7] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
];
/// What to do about objects that only their own program understands.
const AS_STATE_DICT: &str = "write the weights alone, in PyTorch: \
                             torch.save(module.state_dict(), FILE), where module is what \
                             torch.load(FILE, weights_only=False) or your program gives";
/// What data-parallel wrappers put before every name.
const WRAPPER: &str = "module.";

/// A tensor of floats as a checkpoint lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Name, `fc1.weight` say.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
}

/// A tensor of integers or truths, which is no weight but belongs to the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integers {
    /// Name, `bn1.num_batches_tracked` say.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: Dtype,
    /// Little-endian elements.
    pub bytes: Vec<u8>,
}

/// An open checkpoint; tensors are read when they are asked for.
pub struct Checkpoint {
    path: PathBuf,
    listing: Listing,
    content: Content,
}

/// What a file lists.
#[derive(Default)]
struct Listing {
    signatures: Vec<Signature>,
    integers: Vec<(String, Vec<usize>, Dtype)>,
}

impl Listing {
    fn add(&mut self, name: &str, shape: &[usize], dtype: Dtype) -> Result<()> {
        let (name, shape) = (name.to_owned(), shape.to_vec());
        let dtype = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            Dtype::BOOL
            | Dtype::U8
            | Dtype::I8
            | Dtype::U16
            | Dtype::I16
            | Dtype::U32
            | Dtype::I32
            | Dtype::U64
            | Dtype::I64 => {
                self.integers.push((name, shape, dtype));
                return Ok(());
            }
            other => {
                return Err(invalid(format!(
                    "tensor '{name}' is {other:?}; F32, F16 and BF16 are supported"
                )));
            }
        };
        self.signatures.push(Signature { name, shape, dtype });
        Ok(())
    }
}

enum Content {
    SafeTensors {
        map: Arc<Mmap>,
        metadata: Metadata,
        /// Where the tensors begin.
        data: usize,
    },
    PyTorch {
        reader: Box<PytorchReader>,
        /// What stands before the signatures' names in the file.
        prefix: String,
    },
}

impl Checkpoint {
    /// Opens a file by its extension: `.safetensors`, or `.pt` and `.pth` as `torch.save` writes a
    /// state dict (zipped or in the older way, alone or under a key such as `state_dict`).
    ///
    /// Tensors of integers (counters such as `num_batches_tracked`, indices) are no weights; see
    /// [`Checkpoint::integers`].
    ///
    /// A whole module, as `torch.save(module)` writes it, is read as its state dict.
    ///
    /// Errors: IO; INVALID_ARGUMENT naming the file if it is no such file, is truncated, holds no
    /// tensors by name, or floats of another type than F32, F16 and BF16.
    pub fn open(path: &Path) -> Result<Self> {
        let extension = path.extension().unwrap_or_default();
        let opened = if extension == EXTENSIONS[0] {
            open_safetensors(path)
        } else {
            open_pytorch(path)
        };
        let (mut listing, content) = opened.map_err(|e| e.at(format!("'{}'", path.display())))?;
        listing.signatures.sort_by(|a, b| natural(&a.name, &b.name));
        Ok(Self {
            path: path.to_owned(),
            listing,
            content,
        })
    }

    /// The tensors of floats, in the natural order of their names.
    pub fn signatures(&self) -> &[Signature] {
        &self.listing.signatures
    }

    /// Reads the tensor `name`, one of the signatures', into `values`, which has its number of
    /// elements.
    ///
    /// Errors: as [`Checkpoint::bytes`].
    pub fn read(&self, name: &str, values: &mut [f32]) -> Result<()> {
        decode(&self.bytes(name)?, self.dtype(name), values);
        Ok(())
    }

    /// The little-endian elements of the tensor `name`, one of the signatures'.
    ///
    /// Errors: IO; INVALID_ARGUMENT naming file and tensor if a value is not finite or beyond
    /// [`LARGEST_WEIGHT`].
    pub fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        let bytes = self.raw(name)?;
        check_values(name, &bytes, self.dtype(name))
            .map_err(|e| e.at(format!("'{}'", self.path.display())))?;
        Ok(bytes)
    }

    /// The mapped file, where the tensors lie in it as they are, and where each of these does.
    pub fn mapped<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
    ) -> Option<(&Arc<Mmap>, Vec<usize>)> {
        let Content::SafeTensors {
            map,
            metadata,
            data,
        } = &self.content
        else {
            return None;
        };
        let start = |name| data + metadata.info(name).expect("it is listed").data_offsets.0;
        Some((map, names.map(start).collect()))
    }

    fn dtype(&self, name: &str) -> DType {
        let signature = self.signatures().iter().find(|tensor| tensor.name == name);
        signature.expect("the tensor is listed").dtype
    }

    /// Reads the tensors of integers.
    ///
    /// Errors: IO.
    pub fn integers(&self) -> Result<Vec<Integers>> {
        let read = |(name, shape, dtype): &(String, Vec<usize>, Dtype)| {
            Ok(Integers {
                name: name.clone(),
                shape: shape.clone(),
                dtype: *dtype,
                bytes: self.raw(name)?.into_owned(),
            })
        };
        self.listing.integers.iter().map(read).collect()
    }

    fn raw(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        match &self.content {
            Content::SafeTensors {
                map,
                metadata,
                data,
            } => {
                let info = metadata.info(name).expect("its signature came from here");
                let (start, end) = info.data_offsets;
                Ok(Cow::Borrowed(&map[data + start..data + end]))
            }
            Content::PyTorch { reader, prefix } => {
                let tensor = reader.get(&format!("{prefix}{name}"));
                let tensor = tensor.expect("its signature came from here");
                tensor
                    .read()
                    .map(Cow::Owned)
                    .map_err(io("read", &self.path))
            }
        }
    }
}

fn open_safetensors(path: &Path) -> Result<(Listing, Content)> {
    let file = File::open(path).map_err(io("read", path))?;
    // SAFETY: whoever truncates a checkpoint while it is read ends this process, as the README
    // says of mapped files.
    let map = unsafe { Mmap::map(&file) }.map_err(io("read", path))?;
    let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
        invalid(format!(
            "not a safetensors file, or truncated ({e}); save the network again"
        ))
    })?;
    let data = size_of::<u64>() + header;
    let mut listing = Listing::default();
    for (name, info) in metadata.tensors() {
        listing.add(&name, &info.shape, info.dtype)?;
    }
    let content = Content::SafeTensors {
        map: Arc::new(map),
        metadata,
        data,
    };
    Ok((listing, content))
}

fn open_pytorch(path: &Path) -> Result<(Listing, Content)> {
    File::open(path).map_err(io("read", path))?;
    let reader = PytorchReader::new(path).map_err(explain)?;
    let mut names = reader.keys();
    names.sort();
    if names.is_empty() {
        return Err(invalid(format!(
            "it holds no tensors by name; {AS_STATE_DICT}"
        )));
    }
    let outer = PytorchReader::read_pickle_data(path, None).map_err(explain)?;
    let prefix = prefix(&names, |key| holds_state_dict(&outer, key));
    let mut listing = Listing::default();
    for name in names {
        if let Some(short) = name.strip_prefix(&prefix) {
            let tensor = reader.get(&name).expect("it is listed");
            listing.add(short, tensor.shape(), stored(tensor.dtype()))?;
        }
    }
    let reader = Box::new(reader);
    Ok((listing, Content::PyTorch { reader, prefix }))
}

/// The type's name in safetensors.
fn stored(dtype: pytorch_reader::DType) -> Dtype {
    use pytorch_reader::DType;
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}

/// Whether a file's outermost dictionary has a state dict under this key. The names in it have
/// dots, which those in a module's own child of that name do not have.
fn holds_state_dict(outer: &PickleValue, key: &str) -> bool {
    let PickleValue::Dict(outer) = outer else {
        return false;
    };
    match outer.get(key) {
        Some(PickleValue::Dict(inner)) => inner.keys().any(|name| name.contains('.')),
        _ => false,
    }
}

/// What stands before the weights' names: a key of the training program's, a wrapper's name.
fn prefix(names: &[String], holds_state_dict: impl Fn(&str) -> bool) -> String {
    let mut prefix = KEYS
        .iter()
        .find(|key| holds_state_dict(key))
        .map_or(String::new(), |key| format!("{key}."));
    let mut inside = names.iter().filter_map(|name| name.strip_prefix(&prefix));
    if inside.all(|name| name.starts_with(WRAPPER)) {
        prefix.push_str(WRAPPER);
    }
    prefix
}

fn explain(error: PytorchError) -> Error {
    invalid(format!(
        "not a PyTorch checkpoint that can be read ({error}); {AS_STATE_DICT}"
    ))
}

/// Networks that have diverged would spoil the others.
fn check_values(tensor: &str, bytes: &[u8], dtype: DType) -> Result<()> {
    let diverged = |value: f32| value.is_nan() || value.abs() > LARGEST_WEIGHT;
    match find(bytes, dtype, diverged) {
        Some((i, value)) => Err(invalid(format!(
            "tensor '{tensor}' has {value:e} at element {i}, and weights go up to \
             {LARGEST_WEIGHT:e}: the network has diverged; leave it out of the zoo"
        ))),
        None => Ok(()),
    }
}

/// Whether these little-endian elements are numbers.
pub fn is_finite(bytes: &[u8], dtype: DType) -> bool {
    find(bytes, dtype, |value| !value.is_finite()).is_none()
}

/// The first of little-endian elements that is so, and its place.
fn find(bytes: &[u8], dtype: DType, is_so: impl Fn(f32) -> bool) -> Option<(usize, f32)> {
    let mut values = [0f32; BLOCK];
    let blocks = bytes.chunks(BLOCK * dtype.size()).enumerate();
    let mut found = blocks.filter_map(|(block, bytes)| {
        let values = &mut values[..bytes.len() / dtype.size()];
        decode(bytes, dtype, values);
        let i = values.iter().position(|value| is_so(*value))?;
        Some((block * BLOCK + i, values[i]))
    });
    found.next()
}

/// Little-endian elements as f32.
pub fn decode(bytes: &[u8], dtype: DType, values: &mut [f32]) {
    fn each<const N: usize>(bytes: &[u8], values: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
        let (elements, _) = bytes.as_chunks::<N>();
        for (value, element) in values.iter_mut().zip(elements) {
            *value = convert(*element);
        }
    }
    match dtype {
        DType::F32 => each(bytes, values, f32::from_le_bytes),
        DType::F16 => decode_halves(bytes, values),
        DType::Bf16 => each(bytes, values, |b| bf16::from_le_bytes(b).to_f32()),
    }
}

/// By the block, which processors convert several at a time.
fn decode_halves(bytes: &[u8], values: &mut [f32]) {
    let mut halves = [f16::ZERO; BLOCK];
    let blocks = bytes.chunks(BLOCK * size_of::<f16>());
    for (bytes, values) in blocks.zip(values.chunks_mut(BLOCK)) {
        let (elements, _) = bytes.as_chunks();
        let halves = &mut halves[..values.len()];
        for (half, element) in halves.iter_mut().zip(elements) {
            *half = f16::from_le_bytes(*element);
        }
        halves.convert_to_f32_slice(values);
    }
}

/// The values as little-endian elements, rounded to nearest.
pub fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    fn each<T: Copy, const N: usize>(
        values: &[T],
        bytes: &mut [u8],
        convert: impl Fn(T) -> [u8; N],
    ) {
        let (elements, _) = bytes.as_chunks_mut::<N>();
        for (element, value) in elements.iter_mut().zip(values) {
            *element = convert(*value);
        }
    }
    let mut bytes = vec![0; values.len() * dtype.size()];
    match dtype {
        DType::F32 => each(values, &mut bytes, f32::to_le_bytes),
        DType::F16 => {
            let mut halves = [f16::ZERO; BLOCK];
            let blocks = bytes.chunks_mut(BLOCK * size_of::<f16>());
            for (bytes, values) in blocks.zip(values.chunks(BLOCK)) {
                let halves = &mut halves[..values.len()];
                halves.convert_from_f32_slice(values);
                each(halves, bytes, f16::to_le_bytes);
            }
        }
        DType::Bf16 => each(values, &mut bytes, |v| bf16::from_f32(v).to_le_bytes()),
    }
    bytes
}

/// Compares names as people number them: `fc2` before `fc10`.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (a.first(), b.first()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (x, y) = (take_number(&mut a), take_number(&mut b));
            x.len().cmp(&y.len()).then(x.cmp(y))
        } else {
            (a, b) = (&a[1..], &b[1..]);
            x.cmp(y)
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// Takes the leading digits off, without their leading zeros.
fn take_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text
        .iter()
        .position(|c| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits
        .iter()
        .position(|c| *c != b'0')
        .unwrap_or(digits.len());
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_order_counts() {
        let mut layers = vec!["fc10", "fc2", "fc1", "fc02b", "a"];
        layers.sort_by(|a, b| natural(a, b));
        assert_eq!(layers, ["a", "fc1", "fc2", "fc02b", "fc10"]);
    }

    #[test]
    fn what_training_programs_put_before_names_is_found() {
        let found = |names: &[&str], outer: &str| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            prefix(&names, |key| key == outer)
        };
        assert_eq!(found(&["fc.bias", "fc.weight"], ""), "");
        assert_eq!(
            found(&["module.fc.bias", "module.fc.weight"], ""),
            "module."
        );
        let nested = ["epoch_loss", "optimizer.state.0", "state_dict.fc.bias"];
        assert_eq!(found(&nested, "state_dict"), "state_dict.");
        assert_eq!(
            found(&["model.module.fc.bias", "step"], "model"),
            "model.module."
        );
        // A module that is called so.
        assert_eq!(found(&["net.fc.bias", "head.bias"], ""), "");
    }
}
