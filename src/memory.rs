//! Allocation that reports failure instead of aborting the caller's process.

use crate::error::{Error, Result, Status};

/// A zeroed buffer of `rows * columns`.
///
/// Errors: OUT_OF_MEMORY.
pub(crate) fn zeros<T: Copy + Default>(rows: usize, columns: usize) -> Result<Box<[T]>> {
    let len = rows
        .checked_mul(columns)
        .ok_or_else(|| out_of_memory(usize::MAX))?;
    let mut buffer = Vec::new();
    grow(&mut buffer, len)?;
    Ok(buffer.into_boxed_slice())
}

/// Makes `buffer` at least `len` long; new elements are zero.
///
/// Errors: OUT_OF_MEMORY.
pub(crate) fn grow<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> Result<()> {
    if buffer.len() < len {
        buffer
            .try_reserve_exact(len - buffer.len())
            .map_err(|_| out_of_memory(len.saturating_mul(size_of::<T>())))?;
        buffer.resize(len, T::default());
    }
    Ok(())
}

/// Bytes of float buffers of `rows * columns` each; the largest number where that is too large.
pub(crate) fn float_bytes(buffers: &[(usize, usize)]) -> u64 {
    let bytes = buffers
        .iter()
        .map(|(rows, columns)| (*rows as u64).saturating_mul(*columns as u64));
    bytes
        .fold(0, u64::saturating_add)
        .saturating_mul(size_of::<f32>() as u64)
}

pub(crate) fn out_of_memory(bytes: usize) -> Error {
    Error::new(
        Status::OutOfMemory,
        format!("{bytes} bytes of memory could not be allocated"),
    )
}
