//! Decoding on a device: the basis in panels of columns, resident in the device's memory or
//! streamed to it with every batch.

use std::{ops::Range, sync::Arc};

use half::f16;

use crate::{
    artifact::{Basis, Float, View},
    composer::{Composer, onnx_type},
    device::{Block, Buffer, Rows, Space, Staging},
    error::Result,
    layout::{DType, Layout, Transform},
    metadata::basis_tensor,
    model::Model,
    onnx::{GraphProto, ValueInfoProto, data_type},
    output::Writer,
    runtime::Runtime,
    session::{Binding, Session, Tensor},
    trajectory::{LATENTS, WEIGHTS},
};

/// Output of the decoding graph where the device's memory is the goal: a row a network, NaN if
/// one of its weights is not finite in the output's type.
const CHECK: &str = "check";

/// Input of the decoding graph: one where the basis gives a logarithm, else zero.
const LOGS: &str = "logs";

/// Input of the decoding graph: a zero a column, for [`CHECK`].
const ZEROS: &str = "zeros";

/// Most elements of a panel's output: large, since a run takes 0.06 ms however small it is.
const OUTPUT: usize = 64 << 20;

/// Most elements of a panel's basis, which the device widens to float32.
const WIDENED: usize = 64 << 20;

/// Host memory through which the basis goes to the device, and what a streamed panel aims at.
const STAGED: usize = 8 << 20;

/// Each of the two parts of host memory through which the output comes back.
const RETURNED: usize = 8 << 20;

/// Parts of a panel begin at multiples of this.
const ALIGNMENT: usize = 256;

/// A tensor that is cut into panels: [rows, weights].
struct Source {
    name: &'static str,
    /// Where it lies in the sidecar; `None` for [`LOGS`], which the layout tells.
    view: Option<View>,
    rows: usize,
    /// Whether ONNX has it as one dimension instead of two.
    vector: bool,
}

/// Decodes latents on a device.
pub(crate) struct Panels {
    runtime: &'static Runtime,
    model: Model,
    space: Space,
    sources: Vec<Source>,
    shape: Shape,
    storage: Storage,
    /// One for the host's memory, and one for each type in the device's, as they are asked for.
    sessions: Vec<(Option<DType>, Arc<Session>)>,
    output: Block,
    /// Part i of an output comes to slot i % 2 while the one before is written.
    returned: [Staging; 2],
    zeros: Block,
    check: Buffer,
}

enum Storage {
    /// Every panel.
    Resident(Vec<Block>),
    /// Panel i goes to slot i % 2 while the one before is decoded.
    Streamed([(Block, Staging); 2]),
}

impl Panels {
    /// A decoder for up to `max_batch` latents in `room` bytes of the device's memory, or in as
    /// few as it can be done: with the basis there if that fits, in panels as wide as fit.
    ///
    /// Errors: OUT_OF_MEMORY, RUNTIME_FAILED.
    pub(crate) fn new(
        runtime: &'static Runtime,
        model: &Model,
        space: &Space,
        max_batch: usize,
        room: usize,
    ) -> Result<Self> {
        let sources = sources(model);
        let shapes = |elements| Shape::narrowing(model, &sources, max_batch, elements);
        let fitting = |elements, streamed| {
            shapes(elements).find(|shape| shape.device_bytes(&sources, streamed) <= room)
        };
        // Only a linear basis can be larger than what it makes.
        let linear = matches!(model.basis(), Basis::Linear { .. });
        let resident = fitting(WIDENED, false).or_else(|| match linear {
            true => None,
            false => shapes(WIDENED).last(),
        });
        let (shape, streamed) = match resident {
            Some(shape) => (shape, false),
            None => {
                let shape = fitting(STAGED / 4, true).or_else(|| shapes(STAGED / 4).last());
                (shape.expect("there is a narrowest shape"), true)
            }
        };
        let output = shape.output_bytes();
        let mut panels = Self {
            runtime,
            model: model.clone(),
            space: space.clone(),
            shape,
            storage: Storage::Resident(Vec::new()),
            sessions: Vec::new(),
            output: space.allocate(output)?,
            returned: [
                space.staging(output.min(RETURNED))?,
                space.staging(output.min(RETURNED))?,
            ],
            zeros: zeros(space, shape.width)?,
            check: Buffer::new(space, max_batch, 1)?,
            sources,
        };
        panels.storage = match streamed {
            false => panels.upload()?,
            true => {
                let bytes = size(&panels.sources, shape.width);
                let slot =
                    || Ok::<_, crate::Error>((space.allocate(bytes)?, space.staging(bytes)?));
                Storage::Streamed([slot()?, slot()?])
            }
        };
        panels.session(None)?;
        Ok(panels)
    }

    /// Whether the basis goes to the device with every batch.
    pub(crate) fn streams(&self) -> bool {
        matches!(self.storage, Storage::Streamed(_))
    }

    /// Bytes of the device's memory.
    pub(crate) fn device_bytes(&self) -> usize {
        let basis: usize = match &self.storage {
            Storage::Resident(panels) => panels.iter().map(Block::bytes).sum(),
            Storage::Streamed(slots) => slots.iter().map(|(block, _)| block.bytes()).sum(),
        };
        basis + self.output.bytes() + self.zeros.bytes() + self.check.bytes()
    }

    /// Bytes of host memory.
    pub(crate) fn host_bytes(&self) -> usize {
        let slots: usize = match &self.storage {
            Storage::Resident(_) => 0,
            Storage::Streamed(slots) => {
                slots.iter().map(|(_, staging)| staging.bytes().len()).sum()
            }
        };
        let returned: usize = self.returned.iter().map(|slot| slot.bytes().len()).sum();
        slots + returned + self.check.host_bytes()
    }

    /// Decodes `rows` latents at `latents`, on the device, into networks `first_row..`.
    ///
    /// `Ok(Some(row))`: the first network, counted from `first_row`, with a weight that is not
    /// finite in the output's type.
    ///
    /// Errors: RUNTIME_FAILED.
    pub(crate) fn decode(
        &mut self,
        latents: *mut u8,
        rows: usize,
        first_row: usize,
        writer: &Writer,
    ) -> Result<Option<usize>> {
        let goal = writer.device_dtype();
        let session = self.session(goal)?;
        let Shape { weights, width, .. } = self.shape;
        let count = weights.div_ceil(width);
        let panel = |i: usize| i * width..weights.min((i + 1) * width);
        let mut failed: Option<usize> = None;
        self.send(0, panel(0))?;
        for i in 0..count {
            // The panel is there, and what was written from the last output has left it.
            self.space.wait()?;
            if i + 1 < count {
                self.send(i + 1, panel(i + 1))?;
            }
            self.bind(&session, goal, latents, rows, i, panel(i))?
                .run()?;
            let bad = match goal {
                None => self.write(rows, first_row, panel(i), writer)?,
                Some(_) => self.copy(rows, first_row, panel(i), writer)?,
            };
            failed = failed.into_iter().chain(bad).min();
        }
        self.space.wait()?;
        Ok(failed)
    }

    /// Has panel `i` on its way, if it is not there already.
    fn send(&mut self, i: usize, columns: Range<usize>) -> Result<()> {
        let Storage::Streamed(slots) = &mut self.storage else {
            return Ok(());
        };
        let (block, staging) = &mut slots[i % 2];
        let mut upload = Upload::new(&self.space, staging, block.address());
        upload.panel(&self.model, &self.sources, columns)
    }

    /// All panels to the device.
    fn upload(&mut self) -> Result<Storage> {
        let shape = self.shape;
        if self.sources.is_empty() {
            return Ok(Storage::Resident(Vec::new()));
        }
        let mut staging = self.space.staging(STAGED)?;
        let panels = shape.panels().map(|columns| {
            let mut block = self.space.allocate(size(&self.sources, columns.len()))?;
            let mut upload = Upload::new(&self.space, &mut staging, block.address());
            upload.panel(&self.model, &self.sources, columns)?;
            self.space.wait()?;
            Ok(block)
        });
        Ok(Storage::Resident(panels.collect::<Result<_>>()?))
    }

    fn session(&mut self, goal: Option<DType>) -> Result<Arc<Session>> {
        if let Some((_, session)) = self.sessions.iter().find(|(known, _)| *known == goal) {
            return Ok(session.clone());
        }
        let graph = compose(&self.model, &self.sources, goal);
        let session = Session::new(self.runtime, &self.model, graph, &self.space)?;
        let session = Arc::new(session);
        self.sessions.push((goal, session.clone()));
        Ok(session)
    }

    fn bind(
        &mut self,
        session: &Arc<Session>,
        goal: Option<DType>,
        latents: *mut u8,
        rows: usize,
        i: usize,
        columns: Range<usize>,
    ) -> Result<Binding> {
        let block = match &mut self.storage {
            Storage::Resident(panels) => panels.get_mut(i),
            Storage::Streamed(slots) => Some(&mut slots[i % 2].0),
        };
        let mut at = block.map_or(std::ptr::null_mut(), Block::address);
        let columns = columns.len();
        let mut binding = Binding::new(session)?;
        // SAFETY: the blocks outlive the binding, which lives for one run, and are distinct.
        unsafe {
            let latent = self.model.latent();
            binding.input(LATENTS, Tensor::new(latents, DType::F32, &[rows, latent]))?;
            for source in &self.sources {
                let dtype = source.float().dtype();
                let shape = source.shape(columns);
                binding.input(source.name, Tensor::new(at, dtype, source.dims(&shape)))?;
                at = at.wrapping_add(source.size(columns));
            }
            let output = self.output.address();
            let dtype = goal.unwrap_or(DType::F32);
            binding.output(WEIGHTS, Tensor::new(output, dtype, &[rows, columns]))?;
            if goal.is_some() {
                let zeros = self.zeros.address();
                binding.input(ZEROS, Tensor::new(zeros, DType::F32, &[columns, 1]))?;
                let check = self.check.address();
                binding.output(CHECK, Tensor::new(check, DType::F32, &[rows, 1]))?;
            }
        }
        Ok(binding)
    }

    /// The panel's output into host memory; the first row that is not finite there.
    fn write(
        &mut self,
        rows: usize,
        first_row: usize,
        columns: Range<usize>,
        writer: &Writer,
    ) -> Result<Option<usize>> {
        let width = columns.len();
        let share = (RETURNED / size_of::<f32>() / rows).clamp(1, width);
        let count = width.div_ceil(share);
        let part = |i: usize| i * share..width.min((i + 1) * share);
        let mut failed = None;
        self.bring(0, rows, width, part(0))?;
        for i in 0..count {
            self.space.wait()?;
            if i + 1 < count {
                self.bring(i + 1, rows, width, part(i + 1))?;
            }
            let part = part(i);
            let values: &[f32] = bytemuck::cast_slice(self.returned[i % 2].bytes());
            for (row, values) in values.chunks_exact(part.len()).take(rows).enumerate() {
                if !writer.write(first_row + row, columns.start + part.start, values) {
                    failed = failed.into_iter().chain([row]).min();
                }
            }
        }
        Ok(failed)
    }

    /// Has part `i` of an output of `width` columns on its way to its slot.
    fn bring(&mut self, i: usize, rows: usize, width: usize, part: Range<usize>) -> Result<()> {
        let row = |columns: usize| columns * size_of::<f32>();
        let from = Rows {
            data: self.output.address().wrapping_add(row(part.start)),
            pitch: row(width),
        };
        let to = Rows {
            data: self.returned[i % 2].bytes_mut().as_mut_ptr(),
            pitch: row(part.len()),
        };
        // SAFETY: the run has written as much, and a slot has room for the rows of a part.
        unsafe { self.space.copy_rows(from, to, to.pitch, rows) }
    }

    /// The panel's output into the caller's memory on the device, as [`Panels::write`].
    fn copy(
        &mut self,
        rows: usize,
        first_row: usize,
        columns: Range<usize>,
        writer: &Writer,
    ) -> Result<Option<usize>> {
        let from = self.output.address();
        // SAFETY: the run has written the rows, and `writer` was checked.
        unsafe { writer.copy(first_row..first_row + rows, columns, from) }?;
        let check = self.check.download(rows)?;
        Ok(check.iter().position(|sum| !sum.is_finite()))
    }
}

/// How the columns are cut.
#[derive(Clone, Copy)]
struct Shape {
    weights: usize,
    width: usize,
    max_batch: usize,
}

impl Shape {
    /// Panels whose basis has at most `elements` elements, and narrower ones by halves. Only a
    /// linear basis is cut: the latents of the others are as wide as the network.
    fn narrowing(
        model: &Model,
        sources: &[Source],
        max_batch: usize,
        elements: usize,
    ) -> impl Iterator<Item = Self> + use<> {
        let weights = model.metadata().layout.len();
        let least = match model.basis() {
            Basis::Linear { .. } => weights.min(1024),
            _ => weights,
        };
        let rows: usize = sources.iter().map(|source| source.rows).sum();
        let most = (OUTPUT / max_batch).min(elements / rows.max(1));
        let widest = Self {
            weights,
            width: most.clamp(least, weights),
            max_batch,
        };
        std::iter::successors(Some(widest), move |shape| {
            let width = (shape.width / 2).max(least);
            (width < shape.width).then_some(Self { width, ..*shape })
        })
    }

    fn panels(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Self { weights, width, .. } = *self;
        (0..weights)
            .step_by(width)
            .map(move |start| start..weights.min(start + width))
    }

    fn output_bytes(&self) -> usize {
        self.max_batch
            .saturating_mul(self.width)
            .saturating_mul(size_of::<f32>())
    }

    /// Bytes of the device's memory.
    fn device_bytes(&self, sources: &[Source], streamed: bool) -> usize {
        let basis = match streamed {
            false => self
                .panels()
                .map(|columns| size(sources, columns.len()))
                .sum(),
            true => 2 * size(sources, self.width),
        };
        let floats = (self.width + self.max_batch).saturating_mul(size_of::<f32>());
        self.output_bytes()
            .saturating_add(basis)
            .saturating_add(floats)
    }
}

/// `count` zeros of float32 on the device.
fn zeros(space: &Space, count: usize) -> Result<Block> {
    let mut block = space.allocate(count.saturating_mul(size_of::<f32>()))?;
    // SAFETY: the block has room.
    unsafe { space.fill(block.address(), 0, size_of::<f32>(), count) }?;
    Ok(block)
}

impl Source {
    fn float(&self) -> Float {
        self.view.as_ref().map_or(Float::F16, |view| view.float)
    }

    fn shape(&self, columns: usize) -> [usize; 2] {
        [self.rows, columns]
    }

    /// The dimensions that ONNX knows of these.
    fn dims<'a, T>(&self, shape: &'a [T; 2]) -> &'a [T] {
        &shape[usize::from(self.vector)..]
    }

    /// Bytes of `columns` columns, padded.
    fn size(&self, columns: usize) -> usize {
        (self.rows * columns * self.float().size()).next_multiple_of(ALIGNMENT)
    }
}

fn size(sources: &[Source], columns: usize) -> usize {
    sources.iter().map(|source| source.size(columns)).sum()
}

fn sources(model: &Model) -> Vec<Source> {
    let vector = |name, view: &View| Source {
        name,
        view: Some(view.clone()),
        rows: 1,
        vector: true,
    };
    let mut sources = match model.basis() {
        Basis::Identity => Vec::new(),
        Basis::Diagonal { mean, scale } => vec![
            vector(basis_tensor::SCALE, scale),
            vector(basis_tensor::MEAN, mean),
        ],
        Basis::Linear {
            components, mean, ..
        } => {
            let components = Source {
                rows: model.latent(),
                vector: false,
                ..vector(basis_tensor::COMPONENTS, components)
            };
            vec![components, vector(basis_tensor::MEAN, mean)]
        }
    };
    if model.metadata().layout.is_transformed() {
        sources.push(Source {
            name: LOGS,
            view: None,
            rows: 1,
            vector: true,
        });
    }
    sources
}

/// Bytes on their way to a device through staging memory.
struct Upload<'a> {
    space: &'a Space,
    staging: &'a mut Staging,
    to: *mut u8,
    filled: usize,
}

impl<'a> Upload<'a> {
    fn new(space: &'a Space, staging: &'a mut Staging, to: *mut u8) -> Self {
        Self {
            space,
            staging,
            to,
            filled: 0,
        }
    }

    /// Sends the columns of every source; the last copy is under way until [`Space::wait`].
    fn panel(&mut self, model: &Model, sources: &[Source], columns: Range<usize>) -> Result<()> {
        let weights = model.metadata().layout.len();
        for source in sources {
            let size = source.float().size();
            match &source.view {
                Some(view) => {
                    let bytes = &model.sidecar()[view.bytes.clone()];
                    for row in 0..source.rows {
                        let row = row * weights;
                        self.push(
                            &bytes[(row + columns.start) * size..(row + columns.end) * size],
                        )?;
                    }
                }
                None => self.logs(&model.metadata().layout, columns.clone())?,
            }
            let sent = source.rows * columns.len() * size;
            self.push(&[0; ALIGNMENT][..source.size(columns.len()) - sent])?;
        }
        self.flush()
    }

    fn logs(&mut self, layout: &Layout, columns: Range<usize>) -> Result<()> {
        for (stretch, transform) in layout.stretches(columns) {
            let row = match transform {
                Transform::None => [f16::ZERO; 256],
                Transform::Log => [f16::ONE; 256],
            };
            for start in stretch.clone().step_by(row.len()) {
                let count = row.len().min(stretch.end - start);
                self.push(bytemuck::cast_slice(&row[..count]))?;
            }
        }
        Ok(())
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.filled == self.staging.bytes().len() {
                self.flush()?;
                self.space.wait()?;
            }
            let room = &mut self.staging.bytes_mut()[self.filled..];
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        // SAFETY: the block has room for the whole panel; the staging memory is written again only
        // after a wait.
        unsafe {
            self.space
                .upload(&self.staging.bytes()[..self.filled], self.to)
        }?;
        self.to = self.to.wrapping_add(self.filled);
        self.filled = 0;
        Ok(())
    }
}

/// The graph that decodes a panel: latents and the panel's basis to weights, in float32 for the
/// host (`None`) or in a type for the device's memory, with the check of every row.
fn compose(model: &Model, sources: &[Source], goal: Option<DType>) -> GraphProto {
    let mut composer = Composer::default();
    let names: Vec<String> = sources
        .iter()
        .filter_map(|source| Some(composer.single(source.name, source.view.as_ref()?.float)))
        .collect();
    let decoded = match (model.basis(), &names[..]) {
        (Basis::Diagonal { .. }, [scale, mean]) => {
            let scaled = composer.node("Mul", &[LATENTS, scale]);
            composer.node("Add", &[&scaled, mean])
        }
        (Basis::Linear { scale, .. }, [components, mean]) => {
            let shape = [model.latent()];
            let name = basis_tensor::SCALE;
            let scale = composer.basis(name, scale, &shape, model.sidecar_name());
            let scaled = composer.node("Mul", &[LATENTS, &scale]);
            composer.node("Gemm", &[&scaled, components, mean])
        }
        _ => composer.node("Identity", &[LATENTS]),
    };
    let weights = match model.metadata().layout.is_transformed() {
        true => {
            let logs = composer.cast(LOGS, data_type::BOOL);
            let exponentials = composer.node("Exp", &[&decoded]);
            composer.node("Where", &[&logs, &exponentials, &decoded])
        }
        false => decoded,
    };
    let (element, half) = match goal {
        None | Some(DType::F32) => (data_type::FLOAT, false),
        Some(DType::F16) => (data_type::FLOAT16, true),
        Some(DType::Bf16) => (data_type::BFLOAT16, true),
    };
    if half {
        let narrow = composer.cast(&weights, element);
        composer.name_last(&narrow, WEIGHTS);
    } else {
        composer.name_last(&weights, WEIGHTS);
    }
    let matrix =
        |name, element, columns| ValueInfoProto::tensor(name, element, &[Err("batch"), columns]);
    let mut output = vec![matrix(WEIGHTS, element, Err("columns"))];
    if goal.is_some() {
        // Zero times a weight is zero, or NaN if the weight is not finite; so is their sum.
        let wide = if half {
            composer.cast(WEIGHTS, data_type::FLOAT)
        } else {
            WEIGHTS.into()
        };
        let sum = composer.node("MatMul", &[&wide, ZEROS]);
        composer.name_last(&sum, CHECK);
        output.push(matrix(CHECK, data_type::FLOAT, Ok(1)));
    }
    let mut input = vec![matrix(LATENTS, data_type::FLOAT, Ok(model.latent()))];
    input.extend(sources.iter().map(|source| {
        let shape = [Ok(source.rows), Err("columns")];
        ValueInfoProto::tensor(source.name, onnx_type(source.float()), source.dims(&shape))
    }));
    if goal.is_some() {
        let shape = [Err("columns"), Ok(1)];
        input.push(ValueInfoProto::tensor(ZEROS, data_type::FLOAT, &shape));
    }
    GraphProto {
        node: composer.nodes,
        name: Some("decode".into()),
        initializer: composer.initializers,
        input,
        output,
        value_info: Vec::new(),
    }
}
