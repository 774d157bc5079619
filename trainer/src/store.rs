//! A zoo's weights: one flat vector a network, in memory or in a mapped file.

use std::{
    fs::{File, OpenOptions},
    ops::{Deref, DerefMut},
    path::Path,
};

use memmap2::{MmapMut, MmapOptions};

use crate::error::{Error, Result, Status, invalid, io};

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

    /// A new file, or a longer life for one of this very size: `count` networks of `size` weights,
    /// all zero where nothing was written. What is written reaches the disk in the system's own
    /// time, at the latest by [`Store::flush`].
    ///
    /// Errors: IO.
    pub fn open(path: &Path, count: usize, size: usize) -> Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(io("write", path))?;
        let bytes = (count * size * size_of::<f32>()) as u64;
        if file.metadata().map_err(io("read", path))?.len() != bytes {
            file.set_len(0).map_err(io("write", path))?;
            file.set_len(bytes).map_err(io("write", path))?;
        }
        Self::map(&file, path, size)
    }

    /// A file without a name in `folder`, gone with the store.
    ///
    /// Errors: IO.
    pub fn temporary(folder: &Path, count: usize, size: usize) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(io("write to", folder))?;
        let bytes = (count * size * size_of::<f32>()) as u64;
        file.set_len(bytes).map_err(io("write to", folder))?;
        Self::map(&file, folder, size)
    }

    fn map(file: &File, path: &Path, size: usize) -> Result<Self> {
        if cfg!(target_endian = "big") {
            let what = "files of weights are little-endian; this machine is not";
            return Err(Error::new(Status::Unsupported, what));
        }
        // SAFETY: the file is this process's own, in its work folder or without a name; whoever
        // truncates it meanwhile ends the process, as the README says of mapped files.
        let map = unsafe { MmapOptions::new().map_mut(file) }.map_err(io("map", path))?;
        if !map.len().is_multiple_of(size * size_of::<f32>()) {
            return Err(invalid(format!("'{}' is damaged", path.display())));
        }
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

    /// Waits until everything written lies on the disk.
    ///
    /// Errors: IO.
    pub fn flush(&self) -> Result<()> {
        match &self.elements {
            Elements::Memory(_) => Ok(()),
            Elements::Mapped(map) => map
                .flush()
                .map_err(io("write", Path::new("the work folder"))),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zoo.f32");
        let mut store = Store::open(&path, 3, 2).unwrap();
        assert_eq!(store[..], [0.0; 6]);
        store.row_mut(1).copy_from_slice(&[1.5, -2.0]);
        drop(store);
        let store = Store::open(&path, 3, 2).unwrap();
        assert_eq!((store.count(), store.size()), (3, 2));
        assert_eq!(store.row(1), [1.5, -2.0]);
        assert_eq!(store.rows().count(), 3);
        // Of another size it is another matrix.
        assert_eq!(Store::open(&path, 2, 2).unwrap()[..], [0.0; 4]);
    }
}
