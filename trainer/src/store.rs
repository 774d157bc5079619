//! A zoo's weights, in the checkpoints' own types and, until they are changed, in the checkpoints
//! themselves: a zoo need fit neither into memory nor twice onto the disk.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use dwf::layout::{DType, Layout, TensorSpec};
use memmap2::{Mmap, MmapMut, MmapOptions};
use rayon::prelude::*;

use crate::{
    checkpoint::{Checkpoint, decode, encode},
    error::{Result, io},
    rows::Rows,
};

/// Networks of one layout, as rows of flat vectors.
pub struct Store {
    tensors: Vec<Tensor>,
    /// Weights of a network.
    size: usize,
    rows: Vec<Row>,
    changed: Changed,
}

/// A tensor in every row.
struct Tensor {
    name: String,
    /// Its first element in the flat vector.
    start: usize,
    dtype: DType,
    /// Its first byte where tensors lie end to end.
    byte: usize,
}

/// The bytes of one network.
enum Row {
    /// In a checkpoint; where every tensor begins.
    Checkpoint(Arc<Mmap>, Vec<usize>),
    /// End to end in memory.
    Memory(Vec<u8>),
    /// End to end in the file of what has changed.
    File(MmapMut),
}

/// Where networks go that cannot stay where they are.
struct Changed {
    /// `None`: into memory.
    folder: Option<PathBuf>,
    /// Bytes of a network.
    stride: usize,
    /// How many there may be.
    count: usize,
    /// Made for the first of them. It has no name, and is gone with the store.
    file: Mutex<Option<File>>,
}

/// A network of fewer bytes is read into memory: a mapping would take more, and systems have 65,530
/// of them.
const FEW_BYTES: usize = 1 << 16;

impl Store {
    /// The networks of these checkpoints, in order, each opened by its number. Those that are
    /// changed, and those whose files cannot be used as they are, go to a file without a name in
    /// `folder`, or into memory. `done` is called after each.
    ///
    /// Errors: those of `open`; IO; INVALID_ARGUMENT naming file and tensor if a weight is not
    /// finite or beyond [`LARGEST_WEIGHT`](crate::checkpoint::LARGEST_WEIGHT).
    pub fn open(
        layout: &Layout,
        count: usize,
        open: impl Fn(usize) -> Result<Checkpoint> + Sync,
        folder: Option<&Path>,
        done: impl Fn() + Sync,
    ) -> Result<Self> {
        let mut byte = 0;
        let tensor = |spec: &TensorSpec| {
            let start = byte;
            byte += spec.count() * spec.dtype.size();
            Tensor {
                name: spec.name.clone(),
                start: spec.offset,
                dtype: spec.dtype,
                byte: start,
            }
        };
        let tensors: Vec<Tensor> = layout.tensors().iter().map(tensor).collect();
        let changed = Changed {
            folder: folder.map(Path::to_owned),
            stride: byte,
            count,
            file: Mutex::default(),
        };
        let read = |i| {
            let row = Row::read(&open(i)?, &tensors, i, &changed)?;
            done();
            Ok(row)
        };
        let rows = (0..count)
            .into_par_iter()
            .map(read)
            .collect::<Result<_>>()?;
        Ok(Self {
            size: layout.len(),
            rows,
            tensors,
            changed,
        })
    }

    /// Networks of `size` weights in memory.
    ///
    /// Panics unless `weights` holds whole networks.
    pub fn memory(weights: &[f32], size: usize) -> Self {
        assert!(size > 0 && weights.len().is_multiple_of(size));
        let bytes = |row: &[f32]| Row::Memory(encode(row, DType::F32));
        Self {
            tensors: vec![Tensor {
                name: String::new(),
                start: 0,
                dtype: DType::F32,
                byte: 0,
            }],
            size,
            rows: weights.chunks_exact(size).map(bytes).collect(),
            changed: Changed {
                folder: None,
                stride: size * DType::F32.size(),
                count: weights.len() / size,
                file: Mutex::default(),
            },
        }
    }

    /// The networks, one after the other.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Vec<f32>> {
        (0..self.count()).map(|row| self.row(row))
    }

    /// Changes networks, side by side: `change` is given each with its number and says what becomes
    /// of it; `None` if it stays as it is. Weights are rounded to the tensors' types.
    ///
    /// Errors: those of `change`; IO, if there is no room.
    pub fn change(
        &mut self,
        change: impl Fn(usize, &[f32]) -> Result<Option<Vec<f32>>> + Sync,
    ) -> Result<()> {
        let Self {
            tensors,
            size,
            rows,
            changed,
        } = self;
        rows.par_iter_mut().enumerate().try_for_each(|(i, row)| {
            let mut before = vec![0.0; *size];
            row.decode(tensors, 0, &mut before);
            match change(i, &before)? {
                Some(after) if after != before => row.write(tensors, &after, i, changed),
                _ => Ok(()),
            }
        })
    }
}

impl Rows for Store {
    fn count(&self) -> usize {
        self.rows.len()
    }

    fn size(&self) -> usize {
        self.size
    }

    fn read(&self, row: usize, from: usize, to: &mut [f32]) {
        self.rows[row].decode(&self.tensors, from, to);
    }
}

impl Row {
    fn read(
        checkpoint: &Checkpoint,
        tensors: &[Tensor],
        i: usize,
        changed: &Changed,
    ) -> Result<Self> {
        let mapped = checkpoint.mapped(tensors.iter().map(|tensor| &*tensor.name));
        if let (Some((map, starts)), true) = (mapped, changed.stride >= FEW_BYTES) {
            for tensor in tensors {
                checkpoint.bytes(&tensor.name)?;
            }
            return Ok(Self::Checkpoint(map.clone(), starts));
        }
        let mut row = changed.place(i)?;
        for tensor in tensors {
            let bytes = checkpoint.bytes(&tensor.name)?;
            row.own()[tensor.byte..][..bytes.len()].copy_from_slice(&bytes);
        }
        Ok(row)
    }

    fn write(
        &mut self,
        tensors: &[Tensor],
        weights: &[f32],
        i: usize,
        changed: &Changed,
    ) -> Result<()> {
        if let Self::Checkpoint(..) = self {
            *self = changed.place(i)?;
        }
        let ends = tensors.iter().skip(1).map(|next| next.start);
        for (tensor, end) in tensors.iter().zip(ends.chain([weights.len()])) {
            let bytes = encode(&weights[tensor.start..end], tensor.dtype);
            self.own()[tensor.byte..][..bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    /// The bytes of a network that has left its checkpoint.
    fn own(&mut self) -> &mut [u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::File(map) => map,
            Self::Checkpoint(..) => unreachable!("checkpoints are only read"),
        }
    }

    /// Weights from `from` on, as many as `to` takes.
    fn decode(&self, tensors: &[Tensor], from: usize, mut to: &mut [f32]) {
        let mut at = from;
        let mut i = tensors.partition_point(|tensor| tensor.start <= from) - 1;
        while !to.is_empty() {
            let Tensor {
                start, dtype, byte, ..
            } = tensors[i];
            let end = tensors.get(i + 1).map_or(usize::MAX, |next| next.start);
            let length = to.len().min(end - at);
            let (part, rest) = std::mem::take(&mut to).split_at_mut(length);
            let (bytes, first): (&[u8], usize) = match self {
                Self::Checkpoint(map, starts) => (map, starts[i]),
                Self::Memory(bytes) => (bytes, byte),
                Self::File(map) => (map, byte),
            };
            let first = first + (at - start) * dtype.size();
            decode(&bytes[first..][..part.len() * dtype.size()], dtype, part);
            (at, i, to) = (at + part.len(), i + 1, rest);
        }
    }
}

impl Changed {
    /// Room for network `i`, all zero.
    fn place(&self, i: usize) -> Result<Row> {
        let Some(folder) = self.folder.as_ref().filter(|_| self.stride >= FEW_BYTES) else {
            return Ok(Row::Memory(vec![0; self.stride]));
        };
        let mut made = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &mut *made {
            Some(file) => file,
            none => {
                let file = tempfile::tempfile_in(folder).map_err(io("write to", folder))?;
                let bytes = self.count as u64 * self.stride as u64;
                reserve(&file, bytes).map_err(io("write to", folder))?;
                none.insert(file)
            }
        };
        let mut options = MmapOptions::new();
        options
            .offset(i as u64 * self.stride as u64)
            .len(self.stride);
        // SAFETY: nobody else can name the file, and so truncate it.
        let map = unsafe { options.map_mut(&*file) }.map_err(io("map", folder))?;
        Ok(Row::File(map))
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
    use dwf::layout::TensorKind;

    use super::*;
    use crate::zoo::Writer;

    const SIZE: usize = 40_003;

    /// Of two types, more than is read into memory, and with tensors at odd places.
    fn layout() -> Layout {
        let tensor =
            |name: &str, count, dtype| (name.to_owned(), vec![count], dtype, TensorKind::Parameter);
        Layout::pack([
            tensor("a", 3, DType::F16),
            tensor("b", 20_000, DType::F32),
            tensor("c", 20_000, DType::Bf16),
        ])
        .unwrap()
    }

    fn networks() -> Vec<Vec<f32>> {
        let network = |i| (0..SIZE).map(|j| ((i + j) % 128) as f32).collect();
        (0..3).map(network).collect()
    }

    fn write(folder: &Path) -> Vec<PathBuf> {
        let layout = layout();
        let mut writer = Writer::new(folder, &layout, 0).unwrap();
        let files = (0..3).map(|i| folder.join(writer.file(i))).collect();
        networks().iter().for_each(|n| writer.add(n).unwrap());
        writer.finish().unwrap();
        files
    }

    fn open(files: &[PathBuf], folder: Option<&Path>) -> Store {
        let checkpoint = |i: usize| Checkpoint::open(&files[i]);
        Store::open(&layout(), files.len(), checkpoint, folder, || ()).unwrap()
    }

    #[test]
    fn networks_are_read_where_they_lie_and_change_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let files = write(&folder.path().join("zoo"));
        let before = files.iter().map(std::fs::read).map(Result::unwrap);
        let before: Vec<Vec<u8>> = before.collect();
        for place in [None, Some(folder.path())] {
            let mut store = open(&files, place);
            assert_eq!(store.rows().collect::<Vec<_>>(), networks());
            let doubled = |i: usize, network: &[f32]| {
                Ok((i == 1).then(|| network.iter().map(|w| 2.0 * w).collect()))
            };
            store.change(doubled).unwrap();
            store.change(doubled).unwrap();
            assert_eq!(store.row(0), networks()[0]);
            let expected: Vec<f32> = networks()[1].iter().map(|w| 4.0 * w).collect();
            assert_eq!(store.row(1), expected);
            // Across the ends of tensors.
            let mut part = [0.0; 20_010];
            store.read(1, 1, &mut part);
            assert_eq!(part, expected[1..][..20_010]);
        }
        let after = files.iter().map(std::fs::read).map(Result::unwrap);
        assert_eq!(after.collect::<Vec<_>>(), before);
        let names = std::fs::read_dir(folder.path()).unwrap();
        assert_eq!(names.count(), 1, "nothing but the zoo");
    }

    #[test]
    fn what_no_disk_holds_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let changed = Changed {
            folder: Some(folder.path().to_owned()),
            stride: 1 << 32,
            count: 1 << 20,
            file: Mutex::default(),
        };
        let error = changed.place(0).err().unwrap();
        assert!(error.to_string().contains("cannot write to"), "{error}");
    }
}
