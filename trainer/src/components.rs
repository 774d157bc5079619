//! A linear basis's components: a matrix that may be larger than the memory.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};

use half::{f16, slice::HalfFloatSliceExt};
use memmap2::Mmap;

use crate::error::{Result, io};

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Precision {
    /// float16.
    Half,
    /// float32.
    Single,
}

impl Precision {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Half => size_of::<f16>(),
            Self::Single => size_of::<f32>(),
        }
    }

    /// The number as stored.
    pub fn round(self, value: f64) -> f64 {
        match self {
            Self::Half => half(value).to_f64(),
            Self::Single => f64::from(value as f32),
        }
    }

    /// Appends the numbers, little-endian.
    fn write(self, values: &[f64], to: &mut Vec<u8>) {
        let values = values.iter().copied();
        match self {
            Self::Half => to.extend(values.flat_map(|v| half(v).to_le_bytes())),
            Self::Single => to.extend(values.flat_map(|v| (v as f32).to_le_bytes())),
        }
    }

    fn read(self, bytes: &[u8], to: &mut [f32]) {
        match self {
            Self::Half => {
                let halves: Vec<f16> = bytes
                    .chunks_exact(2)
                    .map(|b| f16::from_le_bytes([b[0], b[1]]))
                    .collect();
                halves.convert_to_f32_slice(to);
            }
            Self::Single => {
                for (to, b) in to.iter_mut().zip(bytes.chunks_exact(4)) {
                    *to = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
        }
    }
}

/// By way of f32, as `half` itself goes on some processors only: the same bits on all.
fn half(value: f64) -> f16 {
    f16::from_f32(value as f32)
}

/// [latent, weights] row-major, in a mapped file without a name.
#[derive(Debug)]
pub struct Components {
    map: Mmap,
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

    /// Number of components.
    pub fn latent(&self) -> usize {
        self.map.len() / (self.weights * self.precision.bytes())
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
        &self.map
    }

    /// One component's elements from `from` on, as many as `to` takes.
    pub fn read(&self, row: usize, from: usize, to: &mut [f32]) {
        let start = (row * self.weights + from) * self.precision.bytes();
        let length = to.len() * self.precision.bytes();
        self.precision.read(&self.map[start..][..length], to);
    }

    /// One whole component.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.weights];
        self.read(row, 0, &mut values);
        values
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
        let bytes = latent as u64 * weights as u64 * precision.bytes() as u64;
        file.set_len(bytes)
            .map_err(io("write a basis of this size in", folder))?;
        Ok(Self {
            file: Mutex::new(file),
            weights,
            precision,
        })
    }

    /// Writes elements of one component from `from` on.
    ///
    /// Errors: IO.
    pub fn write(&self, row: usize, from: usize, values: &[f64]) -> Result<()> {
        let mut bytes = Vec::with_capacity(values.len() * self.precision.bytes());
        self.precision.write(values, &mut bytes);
        let start = (row * self.weights + from) as u64 * self.precision.bytes() as u64;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.write_all(&bytes))
            .map_err(io("write", Path::new("the basis")))
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
        Ok(Components {
            map,
            weights: self.weights,
            precision: self.precision,
        })
    }
}
