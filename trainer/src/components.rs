//! A linear basis's components: a matrix that may be larger than the memory.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    ops::Range,
    path::Path,
    sync::{Mutex, PoisonError},
};

use dwf::layout::DType;
use memmap2::Mmap;

use crate::{
    checkpoint::{decode, encode},
    error::{Result, io},
    rows::Rows,
};

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Precision {
    /// float16.
    Half,
    /// float32.
    Single,
}

impl Precision {
    /// The type of a number.
    pub fn dtype(self) -> DType {
        match self {
            Self::Half => DType::F16,
            Self::Single => DType::F32,
        }
    }
}

/// [latent, weights] row-major, in a mapped file.
#[derive(Debug)]
pub struct Components {
    map: Mmap,
    /// Where they lie in it.
    range: Range<usize>,
    weights: usize,
    precision: Precision,
}

impl Components {
    /// Components from their values, for small ones.
    ///
    /// Errors: IO.
    pub fn new(values: &[f32], weights: usize, precision: Precision) -> Result<Self> {
        let writer = Writer::new(
            &std::env::temp_dir(),
            values.len() / weights,
            weights,
            precision,
        )?;
        for (row, values) in values.chunks_exact(weights).enumerate() {
            let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            writer.write(row, 0, &values)?;
        }
        writer.finish()
    }

    /// Those that lie in this range of a mapped file.
    pub fn mapped(map: Mmap, range: Range<usize>, weights: usize, precision: Precision) -> Self {
        Self {
            map,
            range,
            weights,
            precision,
        }
    }

    /// Number of components.
    pub fn latent(&self) -> usize {
        self.range.len() / (self.weights * self.precision.dtype().size())
    }

    /// Length of each.
    pub fn weights(&self) -> usize {
        self.weights
    }

    /// How they are stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// All of them as stored, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl Rows for Components {
    fn count(&self) -> usize {
        self.latent()
    }

    fn size(&self) -> usize {
        self.weights
    }

    fn read(&self, row: usize, from: usize, to: &mut [f32]) {
        let start = (row * self.weights + from) * self.precision.dtype().size();
        let length = to.len() * self.precision.dtype().size();
        decode(&self.bytes()[start..][..length], self.precision.dtype(), to);
    }
}

/// Components being written, piece by piece in any order and from any thread.
pub struct Writer {
    file: Mutex<File>,
    weights: usize,
    precision: Precision,
}

impl Writer {
    /// In a file of `folder` that has no name, and is gone when it is closed.
    ///
    /// Errors: IO.
    pub fn new(folder: &Path, latent: usize, weights: usize, precision: Precision) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(io("make a temporary file in", folder))?;
        let bytes = latent as u64 * weights as u64 * precision.dtype().size() as u64;
        file.set_len(bytes)
            .map_err(io("write a basis of this size in", folder))?;
        Ok(Self {
            file: Mutex::new(file),
            weights,
            precision,
        })
    }

    /// Writes elements of one component from `from` on. Returns the sum of squares of what rounding
    /// them has added.
    ///
    /// Errors: IO.
    pub fn write(&self, row: usize, from: usize, values: &[f64]) -> Result<f64> {
        let dtype = self.precision.dtype();
        // By way of f32, as `half` itself goes on some processors only: the same bits on all.
        let mut stored: Vec<f32> = values.iter().map(|value| *value as f32).collect();
        let bytes = encode(&stored, dtype);
        let start = (row * self.weights + from) as u64 * dtype.size() as u64;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.write_all(&bytes))
            .map_err(io("write", Path::new("the basis")))?;
        drop(file);
        decode(&bytes, dtype, &mut stored);
        let errors = stored.iter().zip(values);
        Ok(errors
            .map(|(stored, value)| (f64::from(*stored) - value).powi(2))
            .sum())
    }

    /// All is written.
    ///
    /// Errors: IO.
    pub fn finish(self) -> Result<Components> {
        let file = self
            .file
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the file has no name, so no other process can change it while it is mapped.
        let map = unsafe { Mmap::map(&file) }.map_err(io("map", Path::new("the basis")))?;
        let range = 0..map.len();
        Ok(Components::mapped(map, range, self.weights, self.precision))
    }
}
