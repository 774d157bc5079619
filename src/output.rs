//! The caller's buffers: where generated weights go, in which type and arrangement.

use std::{marker::PhantomData, ops::Range};

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::{
    error::{Error, Result, Status},
    layout::{DType, Layout},
};

/// Memory for generated networks, borrowed from the caller.
#[derive(Debug)]
pub struct Output<'a> {
    dtype: DType,
    place: Place<'a>,
}

#[derive(Debug)]
enum Place<'a> {
    /// Row i begins `i * stride` elements into `data`.
    Rows {
        data: *mut u8,
        elements: usize,
        stride: Option<usize>,
        lifetime: PhantomData<&'a mut [u8]>,
    },
    /// Tensor j of network i begins at `pointers[i * sizes.len() + j]`.
    Tensors {
        pointers: &'a [*mut u8],
        sizes: &'a [usize],
    },
}

impl<'a> From<&'a mut [f32]> for Output<'a> {
    fn from(rows: &'a mut [f32]) -> Self {
        Self::rows(rows.as_mut_ptr().cast(), rows.len(), DType::F32)
    }
}

impl<'a> From<&'a mut [f16]> for Output<'a> {
    fn from(rows: &'a mut [f16]) -> Self {
        Self::rows(rows.as_mut_ptr().cast(), rows.len(), DType::F16)
    }
}

impl<'a> From<&'a mut [bf16]> for Output<'a> {
    fn from(rows: &'a mut [bf16]) -> Self {
        Self::rows(rows.as_mut_ptr().cast(), rows.len(), DType::Bf16)
    }
}

impl<'a> Output<'a> {
    fn rows(data: *mut u8, elements: usize, dtype: DType) -> Self {
        Self {
            dtype,
            place: Place::Rows {
                data,
                elements,
                stride: None,
                lifetime: PhantomData,
            },
        }
    }

    /// Rows in raw memory: `size_bytes` at `data`, elements of `dtype`.
    ///
    /// # Safety
    /// The memory must be writable and nobody else's during the calls that take this output.
    pub unsafe fn from_raw(data: *mut u8, size_bytes: usize, dtype: DType) -> Self {
        Self::rows(data, size_bytes / dtype.size(), dtype)
    }

    /// One pointer a tensor: tensor j of network i goes to `pointers[i * sizes.len() + j]`,
    /// which has room for `sizes[j]` bytes.
    ///
    /// # Safety
    /// As [`Output::from_raw`], for every pointer; the memory must not overlap.
    pub unsafe fn from_raw_tensors(
        pointers: &'a [*mut u8],
        sizes: &'a [usize],
        dtype: DType,
    ) -> Self {
        Self {
            dtype,
            place: Place::Tensors { pointers, sizes },
        }
    }

    /// Puts rows `stride` elements apart instead of end to end.
    pub fn with_row_stride(mut self, elements: usize) -> Self {
        if let Place::Rows { stride, .. } = &mut self.place {
            *stride = Some(elements);
        }
        self
    }

    /// Checks that `count` networks of `layout` fit.
    ///
    /// Errors: BUFFER_TOO_SMALL with both sizes, INVALID_ARGUMENT for a null or misaligned
    /// pointer or a stride shorter than a network.
    pub(crate) fn check(&self, count: usize, layout: &Layout) -> Result<()> {
        match &self.place {
            Place::Rows {
                data,
                elements,
                stride,
                ..
            } => self.check_rows(*data, *elements, *stride, count, layout),
            Place::Tensors { pointers, sizes } => {
                self.check_tensors(pointers, sizes, count, layout)
            }
        }
    }

    fn check_rows(
        &self,
        data: *mut u8,
        elements: usize,
        stride: Option<usize>,
        count: usize,
        layout: &Layout,
    ) -> Result<()> {
        let weights = layout.len();
        let stride = stride.unwrap_or(weights);
        if stride < weights {
            return Err(Error::argument(format!(
                "row_stride is {stride} elements, but a network has {weights}"
            )));
        }
        self.check_pointer(data, "data")?;
        // The last row needs no padding behind it.
        let needed = stride
            .checked_mul(count - 1)
            .and_then(|before| before.checked_add(weights));
        if needed.is_some_and(|needed| needed <= elements) {
            return Ok(());
        }
        let size = self.dtype.size();
        Err(too_small(format!(
            "the buffer holds {} bytes, but {count} networks of {weights} {:?} weights need {}",
            elements * size,
            self.dtype,
            needed.map_or("more than this machine can address".into(), |needed| {
                (needed as u128 * size as u128).to_string()
            }),
        )))
    }

    fn check_tensors(
        &self,
        pointers: &[*mut u8],
        sizes: &[usize],
        count: usize,
        layout: &Layout,
    ) -> Result<()> {
        let tensors = layout.tensors();
        if sizes.len() != tensors.len() {
            return Err(Error::argument(format!(
                "tensor_count is {}, but the network has {} tensors",
                sizes.len(),
                tensors.len()
            )));
        }
        let needed = count.saturating_mul(tensors.len());
        if pointers.len() < needed {
            return Err(too_small(format!(
                "{} tensor pointers for {count} networks; give {needed}",
                pointers.len()
            )));
        }
        for (spec, size) in tensors.iter().zip(sizes) {
            let needed = spec.count() * self.dtype.size();
            if *size < needed {
                return Err(too_small(format!(
                    "tensor '{}' has room for {size} bytes and needs {needed}",
                    spec.name
                )));
            }
        }
        pointers[..needed]
            .iter()
            .zip(tensors.iter().cycle())
            .try_for_each(|(pointer, spec)| self.check_pointer(*pointer, &spec.name))
    }

    fn check_pointer(&self, pointer: *mut u8, name: &str) -> Result<()> {
        if pointer.is_null() {
            return Err(Error::argument(format!("the buffer's '{name}' is NULL")));
        }
        if pointer.align_offset(self.dtype.size()) != 0 {
            return Err(Error::argument(format!(
                "the buffer's '{name}' is not aligned to {} bytes",
                self.dtype.size()
            )));
        }
        Ok(())
    }

    /// Write access, after [`Output::check`] has passed.
    pub(crate) fn writer<'w>(&'w mut self, layout: &'w Layout) -> Writer<'w> {
        Writer {
            output: self,
            layout,
        }
    }
}

fn too_small(message: String) -> Error {
    Error::new(Status::BufferTooSmall, message)
}

/// Writes stretches of networks; distinct stretches may be written from several threads.
pub(crate) struct Writer<'a> {
    output: &'a Output<'a>,
    layout: &'a Layout,
}

// SAFETY: the output is borrowed mutably for the writer's life, and every method writes only the
// elements it is asked for; callers give each thread its own.
unsafe impl Sync for Writer<'_> {}

impl Writer<'_> {
    /// Writes `values` from element `start` of network `row`; false if one of them is not finite
    /// in the output's type.
    pub(crate) fn write(&self, row: usize, start: usize, values: &[f32]) -> bool {
        match &self.output.place {
            Place::Rows { data, stride, .. } => {
                let element = row * stride.unwrap_or(self.layout.len()) + start;
                let size = self.output.dtype.size();
                // SAFETY: `check` has shown that the row lies in the buffer.
                unsafe { self.convert(data.add(element * size), values) }
            }
            Place::Tensors { pointers, sizes } => {
                self.scatter(&pointers[row * sizes.len()..], start, values)
            }
        }
    }

    fn scatter(&self, pointers: &[*mut u8], mut start: usize, mut values: &[f32]) -> bool {
        let tensors = self.layout.tensors();
        let mut index = tensors.partition_point(|spec| spec.range().end <= start);
        let mut finite = true;
        while !values.is_empty() {
            let range = tensors[index].range();
            let (now, later) = values.split_at(values.len().min(range.end - start));
            let offset = (start - range.start) * self.output.dtype.size();
            // SAFETY: `check` has shown that the tensor fits behind its pointer.
            finite &= unsafe { self.convert(pointers[index].add(offset), now) };
            start += now.len();
            values = later;
            index += 1;
        }
        finite
    }

    /// # Safety
    /// `to` must be aligned and have room for `values` in the output's type.
    unsafe fn convert(&self, to: *mut u8, values: &[f32]) -> bool {
        // The smallest magnitudes that round to infinity: halfway past the largest value.
        const F16_OVERFLOW: f32 = 65520.0;
        const BF16_OVERFLOW: f32 = f32::from_bits(0x7f7f_8000);
        let len = values.len();
        // SAFETY: the caller's promise.
        unsafe {
            match self.output.dtype {
                DType::F32 => {
                    std::slice::from_raw_parts_mut(to.cast::<f32>(), len).copy_from_slice(values);
                    all_below(values, f32::INFINITY)
                }
                DType::F16 => {
                    std::slice::from_raw_parts_mut(to.cast::<f16>(), len)
                        .convert_from_f32_slice(values);
                    all_below(values, F16_OVERFLOW)
                }
                DType::Bf16 => {
                    std::slice::from_raw_parts_mut(to.cast::<bf16>(), len)
                        .convert_from_f32_slice(values);
                    all_below(values, BF16_OVERFLOW)
                }
            }
        }
    }

    /// Marks networks as invalid, every weight NaN, unless it is told that they are finished: by an
    /// error's return or by a panic.
    pub(crate) fn invalidate_unless_finished(&self, rows: Range<usize>) -> Unfinished<'_> {
        Unfinished { writer: self, rows }
    }

    fn invalidate(&self, rows: Range<usize>) {
        const NANS: [f32; 256] = [f32::NAN; 256];
        for row in rows {
            for start in (0..self.layout.len()).step_by(NANS.len()) {
                let len = NANS.len().min(self.layout.len() - start);
                self.write(row, start, &NANS[..len]);
            }
        }
    }
}

/// Networks that are invalid until [`Unfinished::finish`].
pub(crate) struct Unfinished<'a> {
    writer: &'a Writer<'a>,
    rows: Range<usize>,
}

impl Unfinished<'_> {
    pub(crate) fn finish(mut self) {
        self.rows = 0..0;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.writer.invalidate(self.rows.clone());
    }
}

/// Whether every magnitude is below `limit`; false for NaN.
fn all_below(values: &[f32], limit: f32) -> bool {
    values
        .iter()
        .fold(true, |below, value| below & (value.abs() < limit))
}
