//! A zoo's weights: one flat vector a network, in memory or in a mapped file.

use std::{
    fs::File,
    ops::{Deref, DerefMut},
    path::Path,
};

use memmap2::{MmapMut, MmapOptions};

use crate::error::{Result, io};

/// A matrix [networks, weights], row-major, that the system keeps on disk where it is larger than
/// memory. It derefs to its elements.
pub struct Store {
    elements: Elements,
    size: usize,
}

enum Elements {
    Memory(Vec<f32>),
    Mapped(MmapMut),
}

impl Store {
    /// Networks of `size` weights in memory.
    ///
    /// Panics unless `weights` holds whole networks.
    pub fn memory(weights: Vec<f32>, size: usize) -> Self {
        assert!(size > 0 && weights.len().is_multiple_of(size));
        let elements = Elements::Memory(weights);
        Self { elements, size }
    }

    /// `count` networks of `size` weights, all zero, in a file without a name in `folder`, which is
    /// gone with the store.
    ///
    /// Errors: IO, if there is no room for all of it.
    pub fn temporary(folder: &Path, count: usize, size: usize) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(io("write to", folder))?;
        let bytes = (count * size * size_of::<f32>()) as u64;
        reserve(&file, bytes).map_err(io("write to", folder))?;
        // SAFETY: nobody else can name the file, and so truncate it.
        let map = unsafe { MmapOptions::new().map_mut(&file) }.map_err(io("map", folder))?;
        let elements = Elements::Mapped(map);
        Ok(Self { elements, size })
    }

    /// Weights of a network.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Number of networks.
    pub fn count(&self) -> usize {
        self.len() / self.size
    }

    /// The networks.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.chunks_exact(self.size)
    }

    /// Network `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self[i * self.size..][..self.size]
    }

    /// Network `i`, to be written.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        let size = self.size;
        &mut self[i * size..][..size]
    }
}

impl Deref for Store {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.elements {
            Elements::Memory(weights) => weights,
            // Mappings begin at a page.
            Elements::Mapped(map) => bytemuck::cast_slice(map),
        }
    }
}

impl DerefMut for Store {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.elements {
            Elements::Memory(weights) => weights,
            Elements::Mapped(map) => bytemuck::cast_slice_mut(map),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store [{}, {}]", self.count(), self.size)
    }
}

/// Gives a file its length. Where the system can, the disk has room for all of it afterwards: a full
/// disk would end the process when a mapped page is written to.
fn reserve(file: &File, bytes: u64) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::{fs, io::Errno};
        match fs::fallocate(file, fs::FallocateFlags::empty(), 0, bytes) {
            // Some network file systems cannot.
            Err(Errno::OPNOTSUPP) => (),
            result => return Ok(result?),
        }
    }
    file.set_len(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_what_is_written_and_nothing_is_left_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::temporary(folder.path(), 3, 2).unwrap();
        assert_eq!(store[..], [0.0; 6]);
        store.row_mut(1).copy_from_slice(&[1.5, -2.0]);
        assert_eq!((store.count(), store.size()), (3, 2));
        assert_eq!(store.row(1), [1.5, -2.0]);
        assert_eq!(store.rows().count(), 3);
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    }

    #[test]
    fn what_no_disk_holds_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Store::temporary(folder.path(), 1 << 20, 1 << 30).unwrap_err();
        assert!(error.to_string().contains("cannot write to"), "{error}");
    }
}
