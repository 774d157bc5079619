//! The artifact's safetensors file: every tensor, aligned so that it can be used where it lies.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    ops::Range,
    path::Path,
};

use dwf::metadata::{PAIR_KEY, hex};
use half::f16;
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use sha2::{Digest, Sha256};

use crate::error::{Result, io};

/// Every tensor starts at a multiple of this many bytes: a cache line.
pub const ALIGNMENT: usize = 64;
/// Bytes of a header that the safetensors library accepts.
const LONGEST_HEADER: u64 = 100_000_000;

/// Tensors to be written.
#[derive(Default)]
pub struct Sidecar<'a> {
    tensors: Vec<Tensor<'a>>,
}

struct Tensor<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

/// What is known of a finished file.
pub struct Written {
    /// Every tensor's bytes in it.
    pub ranges: HashMap<String, Range<usize>>,
    /// What its own metadata says under `dwf.pair`: 32 hex digits that depend on the tensors alone.
    pub pair: String,
    /// SHA-256 of the whole file, in hex digits.
    pub sha256: String,
}

impl<'a> Sidecar<'a> {
    /// Adds a tensor in single precision.
    pub fn add_f32(&mut self, name: &str, shape: &[usize], values: &'a [f32]) {
        // libdwf maps these bytes as numbers, too: it runs on little-endian machines only.
        self.add(name, Dtype::F32, shape, bytemuck::cast_slice(values).into());
    }

    /// Adds a tensor in half precision.
    pub fn add_f16(&mut self, name: &str, shape: &[usize], values: impl Iterator<Item = f16>) {
        let bytes: Vec<u8> = values.flat_map(f16::to_le_bytes).collect();
        self.add(name, Dtype::F16, shape, bytes.into());
    }

    /// Adds a tensor as its little-endian bytes.
    pub fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Cow<'a, [u8]>) {
        self.tensors.push(Tensor {
            name: name.into(),
            dtype,
            shape: shape.into(),
            bytes,
        });
    }

    /// Writes the tensors: those whose size is a multiple of [`ALIGNMENT`] first, so that few
    /// of the others need padding. The format allows no gaps, so padding is a tensor `padding.N`.
    ///
    /// Errors: those of `to`.
    pub fn write(mut self, to: &mut impl Write) -> std::io::Result<Written> {
        self.tensors
            .sort_by_key(|tensor| !tensor.bytes.len().is_multiple_of(ALIGNMENT));
        let mut infos: Vec<(String, TensorInfo)> = Vec::new();
        let mut parts: Vec<Cow<'a, [u8]>> = Vec::new();
        let mut end = 0usize;
        let mut push = |name, dtype, shape, bytes: Cow<'a, [u8]>| {
            let data_offsets = (end, end + bytes.len());
            end = data_offsets.1;
            let info = TensorInfo {
                dtype,
                shape,
                data_offsets,
            };
            infos.push((name, info));
            parts.push(bytes);
            infos.len()
        };
        let (mut position, mut count) = (0usize, 0);
        for tensor in self.tensors {
            let padding = position.next_multiple_of(ALIGNMENT) - position;
            if padding > 0 {
                let name = format!("padding.{count}");
                push(name, Dtype::U8, vec![padding], vec![0; padding].into());
            }
            position += padding + tensor.bytes.len();
            count = push(tensor.name, tensor.dtype, tensor.shape, tensor.bytes);
        }
        let mut data = Sha256::new();
        parts.iter().for_each(|part| data.update(part));
        let pair = hex(&data.finalize())[..32].to_owned();
        let header = header(&infos, &pair);
        let mut file = Sha256::new();
        for part in std::iter::once(&header[..]).chain(parts.iter().map(|part| &**part)) {
            file.update(part);
            to.write_all(part)?;
        }
        let start = header.len();
        let place = |(name, info): (String, TensorInfo)| {
            (
                name,
                start + info.data_offsets.0..start + info.data_offsets.1,
            )
        };
        Ok(Written {
            ranges: infos.into_iter().map(place).collect(),
            pair,
            sha256: hex(&file.finalize()),
        })
    }
}

/// The header with its length, padded with spaces so that the data are aligned.
fn header(infos: &[(String, TensorInfo)], pair: &str) -> Vec<u8> {
    let metadata = HashMap::from([(PAIR_KEY.to_owned(), pair.to_owned())]);
    let metadata = Metadata::new(Some(metadata), infos.to_vec()).expect("no gaps, no overlaps");
    let mut json = serde_json::to_vec(&metadata).expect("string keys only");
    let length = size_of::<u64>();
    json.resize(
        (json.len() + length).next_multiple_of(ALIGNMENT) - length,
        b' ',
    );
    [&(json.len() as u64).to_le_bytes()[..], &json].concat()
}

/// Whether a file is an artifact's sidecar: a safetensors file whose metadata has `dwf.pair`.
///
/// Errors: IO.
pub fn is_sidecar(path: &Path) -> Result<bool> {
    let mut file = File::open(path).map_err(io("read", path))?;
    let mut length = [0; size_of::<u64>()];
    let mut json = Vec::new();
    if file.read_exact(&mut length).is_err() {
        return Ok(false);
    }
    file.take(u64::from_le_bytes(length).min(LONGEST_HEADER))
        .read_to_end(&mut json)
        .map_err(io("read", path))?;
    let header: Option<Metadata> = serde_json::from_slice(&json).ok();
    let metadata = header
        .as_ref()
        .and_then(|header| header.metadata().as_ref());
    Ok(metadata.is_some_and(|metadata| metadata.contains_key(PAIR_KEY)))
}
