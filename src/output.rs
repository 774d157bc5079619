//! The caller's buffers: where generated weights go, in which type and arrangement.

use std::{marker::PhantomData, ops::Range};

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::{
    device::{Rows, Space},
    error::{Error, Result, Status},
    layout::{DType, Layout, Transform},
};

/// Memory for generated networks, borrowed from the caller.
#[derive(Debug)]
pub struct Output<'a> {
    dtype: DType,
    place: Place<'a>,
    /// The GPU that the memory lies on; `None`: the host's memory.
    gpu: Option<i32>,
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
            gpu: None,
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
            gpu: None,
        }
    }

    /// Says that the memory, a raw constructor's, lies on this GPU. The sampler must run there.
    pub fn on_gpu(mut self, device_id: i32) -> Self {
        self.gpu = Some(device_id);
        self
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

    /// The GPU that the memory lies on.
    pub(crate) fn gpu(&self) -> Option<i32> {
        self.gpu
    }

    /// Checks that every pointer leads to memory of `space`.
    ///
    /// Errors: INVALID_ARGUMENT.
    pub(crate) fn check_space(&self, space: &Space) -> Result<()> {
        let Space::Cuda(cuda) = space else {
            return Ok(());
        };
        match &self.place {
            Place::Rows { data, elements, .. } => {
                cuda.check_pointer(*data, elements * self.dtype.size())
            }
            Place::Tensors { pointers, sizes } => pointers
                .iter()
                .zip(sizes.iter().cycle())
                .try_for_each(|(pointer, size)| cuda.check_pointer(*pointer, *size)),
        }
    }

    /// Write access, after [`Output::check`] has passed; `device`: where the memory lies, if that
    /// is not the host's.
    pub(crate) fn writer<'w>(
        &'w mut self,
        layout: &'w Layout,
        device: Option<&'w Space>,
    ) -> Writer<'w> {
        Writer {
            output: self,
            layout,
            device,
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
    device: Option<&'a Space>,
}

// SAFETY: the output is borrowed mutably for the writer's life, and every method writes only the
// elements it is asked for; callers give each thread its own.
unsafe impl Sync for Writer<'_> {}

impl Writer<'_> {
    /// The type that the device's memory wants; `None` for the host's memory.
    pub(crate) fn device_dtype(&self) -> Option<DType> {
        self.device.map(|_| self.output.dtype)
    }

    /// Writes `values` to host memory from element `start` of network `row`; false if one of them
    /// is not finite in the output's type.
    pub(crate) fn write(&self, row: usize, start: usize, values: &[f32]) -> bool {
        let mut finite = true;
        self.stretches(row, start..start + values.len(), |to, part| {
            // SAFETY: `stretches` leads to memory that `check` has found large enough.
            finite &= unsafe { self.convert(to, &values[part]) };
        });
        finite
    }

    /// Writes what a basis gives for elements from `start` of network `row`, as
    /// [`Writer::write`]: exponentials of what are logarithms.
    pub(crate) fn write_decoded(&self, row: usize, start: usize, values: &[f32]) -> bool {
        let mut finite = true;
        for (columns, transform) in self.layout.stretches(start..start + values.len()) {
            let part = &values[columns.start - start..columns.end - start];
            finite &= match transform {
                Transform::None => self.write(row, columns.start, part),
                Transform::Log => self.write_exponentials(row, columns.start, part),
            };
        }
        finite
    }

    fn write_exponentials(&self, row: usize, start: usize, logarithms: &[f32]) -> bool {
        let mut finite = true;
        let mut values = [0f32; 64];
        for (i, part) in logarithms.chunks(values.len()).enumerate() {
            let at = start + i * values.len();
            let values = &mut values[..part.len()];
            for (value, log) in values.iter_mut().zip(part) {
                *value = libm::expf(*log);
            }
            finite &= self.write(row, at, values);
        }
        finite
    }

    /// Copies elements `columns` of networks `rows`, which lie densely at `from`, within the device;
    /// under way until [`Space::wait`].
    ///
    /// Errors: RUNTIME_FAILED.
    ///
    /// # Safety
    /// As many elements of the output's type are at `from`, in the device's memory.
    pub(crate) unsafe fn copy(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        from: *mut u8,
    ) -> Result<()> {
        let device = self.device.expect("the output lies on a device");
        let size = self.output.dtype.size();
        let dense = |data, columns: usize| Rows {
            data,
            pitch: columns * size,
        };
        let from = dense(from, columns.len());
        if let Place::Rows { data, stride, .. } = &self.output.place {
            let stride = stride.unwrap_or(self.layout.len());
            let first = data.wrapping_add((rows.start * stride + columns.start) * size);
            let to = dense(first, stride);
            // SAFETY: the caller's promise, and `check` has found the goal large enough.
            return unsafe { device.copy_rows(from, to, from.pitch, rows.len()) };
        }
        let mut result = Ok(());
        for (i, row) in rows.enumerate() {
            self.stretches(row, columns.clone(), |to, part| {
                let from = from.data.wrapping_add(i * from.pitch + part.start * size);
                let (from, to) = (dense(from, part.len()), dense(to, part.len()));
                if result.is_ok() {
                    // SAFETY: as above.
                    result = unsafe { device.copy_rows(from, to, from.pitch, 1) };
                }
            });
        }
        result
    }

    /// Calls `each` with the address, and the place within `columns`, of every stretch of these
    /// columns of network `row` that lies in one piece.
    fn stretches(
        &self,
        row: usize,
        columns: Range<usize>,
        mut each: impl FnMut(*mut u8, Range<usize>),
    ) {
        let size = self.output.dtype.size();
        match &self.output.place {
            Place::Rows { data, stride, .. } => {
                let element = row * stride.unwrap_or(self.layout.len()) + columns.start;
                each(data.wrapping_add(element * size), 0..columns.len());
            }
            Place::Tensors { pointers, sizes } => {
                let pointers = &pointers[row * sizes.len()..];
                let tensors = self.layout.tensors();
                let mut index = tensors.partition_point(|spec| spec.range().end <= columns.start);
                let mut at = columns.start;
                while at < columns.end {
                    let range = tensors[index].range();
                    let end = range.end.min(columns.end);
                    let to = pointers[index].wrapping_add((at - range.start) * size);
                    each(to, at - columns.start..end - columns.start);
                    at = end;
                    index += 1;
                }
            }
        }
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
        if let Some(device) = self.device {
            let nan = match self.output.dtype {
                DType::F32 => f32::NAN.to_bits(),
                DType::F16 => f16::NAN.to_bits().into(),
                DType::Bf16 => bf16::NAN.to_bits().into(),
            };
            let size = self.output.dtype.size();
            for row in rows {
                self.stretches(row, 0..self.layout.len(), |to, part| {
                    // A device that fails here has failed before, which is what the caller is told.
                    // SAFETY: `check` has found the memory large enough.
                    let _ = unsafe { device.fill(to, nan, size, part.len()) };
                });
            }
            let _ = device.wait();
            return;
        }
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
