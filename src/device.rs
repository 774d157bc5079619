//! Memory of the device that a sampler computes on: a GPU's, or the host's own, on which tests
//! take the same way.

pub(crate) mod cuda;

use std::{slice, sync::Arc};

use crate::{error::Result, memory::zeros};
use cuda::Cuda;

/// Where memory lies.
#[derive(Clone)]
pub(crate) enum Space {
    Host,
    Cuda(Arc<Cuda>),
}

impl Space {
    pub(crate) fn is_gpu(&self) -> bool {
        matches!(self, Self::Cuda(_))
    }

    /// Runs `work` where ONNX Runtime has to be called from for this device: a GPU has a thread.
    /// From that thread it is a plain call.
    pub(crate) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Host => work(),
            Self::Cuda(cuda) => cuda.run(work),
        }
    }

    /// Uninitialised memory of the device.
    ///
    /// Errors: OUT_OF_MEMORY, RUNTIME_FAILED.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<Block> {
        Ok(match self {
            Self::Host => Block::Host(host(bytes)?, bytes),
            Self::Cuda(cuda) => Block::Cuda(cuda.allocate(bytes)?),
        })
    }

    /// Host memory that the device copies from and to at full speed: pinned, for a GPU.
    ///
    /// Errors: as [`Space::allocate`].
    pub(crate) fn staging(&self, bytes: usize) -> Result<Staging> {
        Ok(match self {
            Self::Host => Staging::Host(host(bytes)?, bytes),
            Self::Cuda(cuda) => Staging::Pinned(cuda.pinned(bytes)?),
        })
    }

    /// Copies host memory to the device; the copy is under way until [`Space::wait`].
    ///
    /// # Safety
    /// `to` has room, and `from` stays as it is until then.
    pub(crate) unsafe fn upload(&self, from: &[u8], to: *mut u8) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Host => {
                    to.copy_from_nonoverlapping(from.as_ptr(), from.len());
                    Ok(())
                }
                Self::Cuda(cuda) => cuda.upload(from, to),
            }
        }
    }

    /// Copies device memory to the host, after all that is under way.
    ///
    /// # Safety
    /// As much is readable at `from`.
    pub(crate) unsafe fn download(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Host => {
                    to.as_mut_ptr().copy_from_nonoverlapping(from, to.len());
                    Ok(())
                }
                Self::Cuda(cuda) => cuda.download(from, to),
            }
        }
    }

    /// Copies rows of `row_bytes` bytes from the device to itself or to staging memory; under way
    /// until [`Space::wait`].
    ///
    /// # Safety
    /// Both sides are valid for as many rows, and do not overlap.
    pub(crate) unsafe fn copy_rows(
        &self,
        from: Rows,
        to: Rows,
        row_bytes: usize,
        rows: usize,
    ) -> Result<()> {
        if let Self::Cuda(cuda) = self {
            // SAFETY: the caller's promise.
            return unsafe { cuda.copy_rows(from, to, row_bytes, rows) };
        }
        for row in 0..rows {
            let (from, to) = (from.skip(row).data, to.skip(row).data);
            // SAFETY: the caller's promise.
            unsafe { to.copy_from_nonoverlapping(from, row_bytes) };
        }
        Ok(())
    }

    /// Fills device memory with `count` elements of `size` bytes, 2 or 4, of these bits; under way
    /// until [`Space::wait`].
    ///
    /// # Safety
    /// `to` is aligned and has room.
    pub(crate) unsafe fn fill(
        &self,
        to: *mut u8,
        bits: u32,
        size: usize,
        count: usize,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            match (self, size) {
                (Self::Cuda(cuda), _) => return cuda.fill(to, bits, size, count),
                (Self::Host, 4) => slice::from_raw_parts_mut(to.cast::<u32>(), count).fill(bits),
                (Self::Host, _) => {
                    slice::from_raw_parts_mut(to.cast::<u16>(), count).fill(bits as u16);
                }
            }
        }
        Ok(())
    }

    /// Waits until all copies are done.
    pub(crate) fn wait(&self) -> Result<()> {
        match self {
            Self::Host => Ok(()),
            Self::Cuda(cuda) => cuda.wait(),
        }
    }
}

/// Rows of bytes, each `pitch` bytes after the one before.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) data: *mut u8,
    pub(crate) pitch: usize,
}

impl Rows {
    fn skip(self, rows: usize) -> Self {
        Self {
            data: self.data.wrapping_add(rows * self.pitch),
            ..self
        }
    }
}

fn host(bytes: usize) -> Result<Box<[u64]>> {
    zeros(bytes.div_ceil(size_of::<u64>()), 1)
}

/// Memory of a device; freed when dropped.
pub(crate) enum Block {
    Host(Box<[u64]>, usize),
    Cuda(cuda::Memory),
}

impl Block {
    pub(crate) fn address(&mut self) -> *mut u8 {
        match self {
            Self::Host(words, _) => words.as_mut_ptr().cast(),
            Self::Cuda(memory) => memory.address(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Host(_, bytes) => *bytes,
            Self::Cuda(memory) => memory.bytes(),
        }
    }
}

/// Host memory for copies; freed when dropped.
pub(crate) enum Staging {
    Host(Box<[u64]>, usize),
    Pinned(cuda::Pinned),
}

impl Staging {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Host(words, bytes) => &bytemuck::cast_slice(words)[..*bytes],
            Self::Pinned(pinned) => pinned.as_slice(),
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Host(words, bytes) => &mut bytemuck::cast_slice_mut(words)[..*bytes],
            Self::Pinned(pinned) => pinned.as_mut_slice(),
        }
    }
}

/// Device memory of float32 that the host writes and reads.
pub(crate) struct Buffer {
    block: Block,
    /// `None` where the host reaches the block itself.
    staging: Option<Staging>,
    space: Space,
}

impl Buffer {
    /// Room for `rows * columns` elements, all zero.
    ///
    /// Errors: OUT_OF_MEMORY, RUNTIME_FAILED.
    pub(crate) fn new(space: &Space, rows: usize, columns: usize) -> Result<Self> {
        let bytes = rows
            .checked_mul(columns)
            .and_then(|elements| elements.checked_mul(size_of::<f32>()))
            .ok_or_else(|| crate::memory::out_of_memory(usize::MAX))?;
        let mut buffer = Self {
            block: space.allocate(bytes)?,
            staging: match space {
                Space::Host => None,
                Space::Cuda(_) => Some(space.staging(bytes)?),
            },
            space: space.clone(),
        };
        buffer.host_mut().fill(0.0);
        buffer.upload(rows * columns)?;
        Ok(buffer)
    }

    pub(crate) fn address(&mut self) -> *mut u8 {
        self.block.address()
    }

    /// Bytes on the device.
    pub(crate) fn bytes(&self) -> usize {
        self.block.bytes()
    }

    /// Bytes of host memory beside them.
    pub(crate) fn host_bytes(&self) -> usize {
        self.staging
            .as_ref()
            .map_or(0, |staging| staging.bytes().len())
    }

    /// What the host sees: written before [`Buffer::upload`], valid after [`Buffer::download`].
    pub(crate) fn host_mut(&mut self) -> &mut [f32] {
        let bytes = match (&mut self.staging, &mut self.block) {
            (Some(staging), _) => staging.bytes_mut(),
            (None, Block::Host(words, bytes)) => &mut bytemuck::cast_slice_mut(words)[..*bytes],
            (None, Block::Cuda(_)) => unreachable!("a GPU's memory has a staging buffer"),
        };
        bytemuck::cast_slice_mut(bytes)
    }

    /// Brings the first `count` elements to the device; under way until [`Space::wait`].
    pub(crate) fn upload(&mut self, count: usize) -> Result<()> {
        let to = self.block.address();
        match &self.staging {
            None => Ok(()),
            // SAFETY: block and staging are of one size; users wait before they write again.
            Some(staging) => unsafe {
                self.space
                    .upload(&staging.bytes()[..count * size_of::<f32>()], to)
            },
        }
    }

    /// The first `count` elements as the device left them.
    pub(crate) fn download(&mut self, count: usize) -> Result<&[f32]> {
        let from = self.block.address();
        if let Some(staging) = &mut self.staging {
            let to = &mut staging.bytes_mut()[..count * size_of::<f32>()];
            // SAFETY: block and staging are of one size.
            unsafe { self.space.download(from, to) }?;
        }
        Ok(&self.host_mut()[..count])
    }
}
