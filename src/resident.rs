//! Sampling on a device with memory of its own: noise goes in, the trajectory runs as one graph,
//! the basis decodes it there, and finished weights come out.

use std::{ops::Range, sync::Arc};

use crate::{
    artifact::value,
    device::{Buffer, Space},
    error::{Error, Result, Status},
    evaluator::Features,
    guidance::{Guide, repeat},
    layout::DType,
    log::{self, Level},
    model::Model,
    ode::Solver,
    output::Writer,
    panels::Panels,
    runtime::Runtime,
    session::{Binding, Session, Tensor},
    trajectory::{
        GUIDANCE, LATENTS, NOISE, Precision, UNCONDITIONAL, check_unrollable, compose_flow,
    },
};

/// Where and how a sampler's graphs run.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) space: Space,
    /// What the velocity network computes in.
    pub(crate) precision: Precision,
    /// Most bytes of the device's memory.
    pub(crate) limit: usize,
}

/// The device's share of a sampler.
pub(crate) struct Resident {
    // Field order is drop order: bindings point into the buffers.
    flow: Option<Flow>,
    panels: Panels,
    noise: Buffer,
    condition: Buffer,
    unconditional: Buffer,
    guidance: Buffer,
    latents: Buffer,
    place: Place,
    runtime: &'static Runtime,
    model: Model,
    max_batch: usize,
}

/// The trajectory of one solver, bound to the buffers once for each number of rows it has run.
struct Flow {
    buckets: Vec<(usize, Binding)>,
    session: Arc<Session>,
    solver: Solver,
    guided: bool,
}

impl Resident {
    /// For batches of up to `max_batch` networks, where `taken` bytes of the device's memory are
    /// the sampler's already.
    ///
    /// Errors: OUT_OF_MEMORY if the limit leaves no room, RUNTIME_FAILED.
    pub(crate) fn new(
        runtime: &'static Runtime,
        model: &Model,
        place: &Place,
        max_batch: usize,
        taken: usize,
    ) -> Result<Self> {
        let space = &place.space;
        let buffer = |columns| Buffer::new(space, max_batch, columns);
        let (latent, condition) = (model.latent(), model.condition_size());
        let own = max_batch
            .saturating_mul(2 * (latent + condition))
            .saturating_add(1)
            .saturating_mul(size_of::<f32>());
        let room = place.limit.saturating_sub(taken.saturating_add(own));
        let resident = Self {
            flow: None,
            panels: Panels::new(runtime, model, space, max_batch, room)?,
            noise: buffer(latent)?,
            condition: buffer(condition)?,
            unconditional: buffer(condition)?,
            guidance: Buffer::new(space, 1, 1)?,
            latents: buffer(latent)?,
            place: place.clone(),
            runtime,
            model: model.clone(),
            max_batch,
        };
        let needed = taken + resident.device_bytes();
        if needed > place.limit {
            return Err(Error::new(
                Status::OutOfMemory,
                format!(
                    "batches of {max_batch} networks need {needed} bytes of GPU memory, and \
                     gpu_memory_limit is {}; raise it or lower max_batch",
                    place.limit
                ),
            ));
        }
        Ok(resident)
    }

    pub(crate) fn space(&self) -> &Space {
        &self.place.space
    }

    /// The number of the GPU.
    pub(crate) fn device_id(&self) -> i32 {
        match &self.place.space {
            Space::Host => 0,
            Space::Cuda(cuda) => cuda.ordinal(),
        }
    }

    /// Whether the basis goes to the device with every batch.
    pub(crate) fn streams(&self) -> bool {
        self.panels.streams()
    }

    /// Bytes of the device's memory.
    pub(crate) fn device_bytes(&self) -> usize {
        self.buffers().map(Buffer::bytes).sum::<usize>() + self.panels.device_bytes()
    }

    /// Bytes of host memory.
    pub(crate) fn host_bytes(&self) -> usize {
        self.buffers().map(Buffer::host_bytes).sum::<usize>() + self.panels.host_bytes()
    }

    fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        [
            &self.noise,
            &self.condition,
            &self.unconditional,
            &self.guidance,
            &self.latents,
        ]
        .into_iter()
    }

    /// Whether `solver` can run as one graph.
    pub(crate) fn unrolls(&self, solver: &Solver) -> bool {
        check_unrollable(solver).is_ok()
    }

    /// Carries networks `rows`, counted within the call, from noise to latents, which stay on the
    /// device. `noise` fills a row.
    ///
    /// Errors: RUNTIME_FAILED.
    pub(crate) fn integrate(
        &mut self,
        solver: &Solver,
        features: &Features,
        guide: &Guide,
        rows: Range<usize>,
        mut noise: impl FnMut(usize, &mut [f32]) + Send,
    ) -> Result<()> {
        let space = self.place.space.clone();
        space.run(|| self.integrate_here(solver, features, guide, rows, &mut noise))
    }

    fn integrate_here(
        &mut self,
        solver: &Solver,
        features: &Features,
        guide: &Guide,
        rows: Range<usize>,
        noise: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        let (first, rows) = (rows.start, rows.len());
        let latent = self.model.latent();
        let bucket = rows.next_power_of_two().min(self.max_batch);
        let (used, padding) = self.noise.host_mut()[..bucket * latent].split_at_mut(rows * latent);
        for (row, to) in used.chunks_exact_mut(latent).enumerate() {
            noise(row, to);
        }
        padding.fill(0.0);
        self.noise.upload(bucket * latent)?;
        self.set_conditions(guide, first, rows, bucket)?;
        self.load(solver, features, guide.guidance().is_some())?;
        let i = self.bucket(bucket)?;
        self.place.space.wait()?;
        let flow = self.flow.as_mut().expect("loaded above");
        let result = flow.buckets[i].1.run();
        if result.is_err() {
            // What a failed run has left of a recording is not to be replayed.
            self.flow = None;
        }
        result
    }

    fn set_conditions(
        &mut self,
        guide: &Guide,
        first: usize,
        rows: usize,
        bucket: usize,
    ) -> Result<()> {
        let size = self.model.condition_size();
        let (used, padding) = self.condition.host_mut()[..bucket * size].split_at_mut(rows * size);
        guide.write(first, used);
        padding.fill(0.0);
        self.condition.upload(bucket * size)?;
        if let Some((row, scale)) = guide.guidance() {
            repeat(row, &mut self.unconditional.host_mut()[..bucket * size]);
            self.unconditional.upload(bucket * size)?;
            self.guidance.host_mut()[0] = scale;
            self.guidance.upload(1)?;
        }
        Ok(())
    }

    /// Loads the trajectory of `solver`, unless it is the last call's.
    fn load(&mut self, solver: &Solver, features: &Features, guided: bool) -> Result<()> {
        let same = |flow: &Flow| flow.solver == *solver && flow.guided == guided;
        if self.flow.as_ref().is_some_and(same) {
            return Ok(());
        }
        self.flow = None;
        let precision = self.place.precision;
        let graph = compose_flow(&self.model, solver, precision, features, guided)?;
        let (runtime, model, space) = (self.runtime, &self.model, &self.place.space);
        let session = Session::recorded(runtime, model, graph.clone(), space).or_else(|e| {
            let session = Session::new(runtime, model, graph, space)?;
            log::write(Level::Warn, || {
                format!("the trajectory runs on the GPU, but not as a CUDA graph: {e}")
            });
            Ok::<_, Error>(session)
        })?;
        self.flow = Some(Flow {
            buckets: Vec::new(),
            session: Arc::new(session),
            solver: *solver,
            guided,
        });
        Ok(())
    }

    /// The binding for `rows` rows, made when they first occur.
    fn bucket(&mut self, rows: usize) -> Result<usize> {
        let Self {
            flow,
            noise,
            condition,
            unconditional,
            guidance,
            latents,
            model,
            ..
        } = self;
        let flow = flow.as_mut().expect("the trajectory is loaded");
        if let Some(i) = flow.buckets.iter().position(|(known, _)| *known == rows) {
            return Ok(i);
        }
        let (latent, size) = (model.latent(), model.condition_size());
        let mut binding = Binding::new(&flow.session)?;
        fn bound<'a>(buffer: &mut Buffer, shape: &'a [usize]) -> Tensor<'a> {
            Tensor::new(buffer.address(), DType::F32, shape)
        }
        // SAFETY: the buffers are never reallocated, outlive the binding and are distinct.
        unsafe {
            binding.input(NOISE, bound(noise, &[rows, latent]))?;
            if size > 0 {
                binding.input(value::CONDITION, bound(condition, &[rows, size]))?;
            }
            if flow.guided {
                binding.input(UNCONDITIONAL, bound(unconditional, &[rows, size]))?;
                binding.input(GUIDANCE, bound(guidance, &[1]))?;
            }
            binding.output(LATENTS, bound(latents, &[rows, latent]))?;
        }
        binding.set_graph(flow.buckets.len() + 1)?;
        flow.buckets.push((rows, binding));
        Ok(flow.buckets.len() - 1)
    }

    /// Takes latents that were integrated elsewhere.
    ///
    /// Errors: RUNTIME_FAILED.
    pub(crate) fn set_latents(&mut self, latents: &[f32]) -> Result<()> {
        self.latents.host_mut()[..latents.len()].copy_from_slice(latents);
        self.latents.upload(latents.len())
    }

    /// Decodes the latents as [`Panels::decode`] does.
    ///
    /// Errors: RUNTIME_FAILED.
    pub(crate) fn decode(
        &mut self,
        rows: usize,
        first_row: usize,
        writer: &Writer,
    ) -> Result<Option<usize>> {
        let space = self.place.space.clone();
        space.run(|| {
            let latents = self.latents.address();
            self.panels.decode(latents, rows, first_row, writer)
        })
    }

    /// Whether network `row` of the batch is finite before decoding.
    ///
    /// Errors: RUNTIME_FAILED.
    pub(crate) fn is_finite(&mut self, row: usize) -> Result<bool> {
        let latent = self.model.latent();
        let latents = self.latents.download((row + 1) * latent)?;
        Ok(latents[row * latent..]
            .iter()
            .all(|value| value.is_finite()))
    }
}
