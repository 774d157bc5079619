//! Noise, integration, decoding: the whole way from a seed to weights in the caller's buffers.

mod making;
#[cfg(test)]
mod tests;

use std::{fmt, ops::Range, sync::Arc};

use crate::{
    Device, SampleOptions, SamplerInfo, SamplerOptions,
    budget::Budget,
    decode::Decoder,
    device::Space,
    error::{Error, Result, Status},
    evaluator::{Features, Network},
    guidance::Guide,
    lane::{Call, Lane, Work},
    log::{self, Level},
    model::Model,
    ode::{Method, Solver},
    output::Output,
    progress::{Callback, Meter},
    resident::Resident,
    runtime::Runtime,
    team::Team,
};

/// One session over a model, with its workspace. It generates one call at a time.
pub struct Sampler {
    model: Model,
    runtime: &'static Runtime,
    team: Team,
    network: Arc<Network>,
    /// The features of the last solver's grid.
    features: Features,
    grid: Option<Solver>,
    lanes: Vec<Lane>,
    decoding: Decoding,
    state: Box<[f32]>,
    max_batch: usize,
    budget: Budget,
}

/// Where latents become weights.
enum Decoding {
    Host(Decoder),
    Device(Box<Resident>),
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler")
            .field("info", &self.info())
            .finish_non_exhaustive()
    }
}

impl Sampler {
    /// A sampler over `model`, which it keeps alive.
    ///
    /// `Auto` takes the GPU where ONNX Runtime has its CUDA provider, everything loads, and a
    /// network generated there agrees with the CPU's; the log says why not.
    ///
    /// Errors: INVALID_ARGUMENT for an option out of range, RUNTIME_MISSING with what was tried or
    /// for a provider that ONNX Runtime lacks, RUNTIME_FAILED in the words of ONNX Runtime or the
    /// driver, UNSUPPORTED for CUDA where there is no GPU, OUT_OF_MEMORY where memory ends or would
    /// pass a limit.
    pub fn new(model: &Model, options: &SamplerOptions) -> Result<Self> {
        let sampler = match options.device {
            Device::Cpu => Self::on_cpu(model, options),
            Device::Cuda => Self::on_cuda(model, options),
            Device::Auto => Self::on_best(model, options),
        }?;
        log::write(Level::Info, || format!("sampler: {:?}", sampler.info()));
        Ok(sampler)
    }

    /// What was chosen.
    pub fn info(&self) -> SamplerInfo {
        let lanes: usize = self.lanes.iter().map(Lane::host_bytes).sum();
        let inputs: usize = self.lanes.iter().map(Lane::device_bytes).sum();
        let own = size_of_val(&self.state[..]) + self.features.bytes() + lanes;
        let chosen = SamplerInfo {
            device: Device::Cpu,
            device_id: 0,
            provider: self.network.provider(),
            threads: self.team.size(),
            max_batch: self.max_batch,
            workspace_bytes: own,
            gpu_bytes: 0,
            basis_streamed: false,
            solver: self.model.metadata().solver.solver(),
            onnxruntime_version: &self.runtime.version,
            onnxruntime_path: &self.runtime.path,
        };
        match &self.decoding {
            Decoding::Host(decoder) => SamplerInfo {
                workspace_bytes: own + inputs + decoder.bytes(),
                ..chosen
            },
            Decoding::Device(resident) => SamplerInfo {
                device: Device::Cuda,
                device_id: resident.device_id(),
                workspace_bytes: own + resident.host_bytes(),
                gpu_bytes: inputs + resident.device_bytes(),
                basis_streamed: resident.streams(),
                ..chosen
            },
        }
    }

    /// The model it samples.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Generates networks into `output`, row i being network `first_index + i` of the seed.
    ///
    /// Nothing is written before all arguments are checked. If the call fails after that, every
    /// weight of the networks it had written, and of those it was working on, is NaN.
    ///
    /// Errors: INVALID_ARGUMENT, BUFFER_TOO_SMALL, CANCELLED, DIVERGED naming the network,
    /// RUNTIME_FAILED, OUT_OF_MEMORY for a solver that needs more than the artifact's own.
    pub fn sample<'o>(
        &mut self,
        options: SampleOptions,
        output: impl Into<Output<'o>>,
    ) -> Result<()> {
        let model = self.model.clone();
        let layout = &model.metadata().layout;
        let mut output = output.into();
        let solver = self.check(&options)?;
        self.budget.check(solver.method, self.max_batch)?;
        let guide = Guide::new(&model, options.condition, options.guidance, options.count)?;
        output.check(options.count, layout)?;
        let device = self.device_of(&output)?;
        self.prepare(&solver)?;

        let call = Call {
            seed: options.seed,
            first_index: options.first_index,
            solver,
            guide,
            writer: output.writer(layout, device.as_ref()),
        };
        let shares: usize = batches(options.count, self.max_batch)
            .map(|rows| rows.len().div_ceil(self.share(rows.len())))
            .sum();
        let evaluations = call.solver.evaluations().unwrap_or(0) * call.guide.evaluations();
        let mut callback = options.progress;
        let total = shares.saturating_mul(evaluations) as u64;
        let meter = Meter::new(total, callback.is_some());
        for rows in batches(options.count, self.max_batch) {
            let unfinished = call.writer.invalidate_unless_finished(0..rows.end);
            self.batch(&call, rows, &meter, again(&mut callback))?;
            unfinished.finish();
        }
        Ok(())
    }

    /// Where the output lies, if that is not the host's memory.
    ///
    /// Errors: UNSUPPORTED, INVALID_ARGUMENT if this sampler cannot write there.
    fn device_of(&self, output: &Output) -> Result<Option<Space>> {
        let Some(gpu) = output.gpu() else {
            return Ok(None);
        };
        match &self.decoding {
            Decoding::Host(_) => Err(Error::new(
                Status::Unsupported,
                "the buffer lies on a GPU, and this sampler runs on the CPU; make it with \
                 DWF_DEVICE_CUDA, or give host memory",
            )),
            Decoding::Device(resident) if resident.device_id() != gpu => {
                Err(Error::argument(format!(
                    "the buffer lies on GPU {gpu}, and this sampler runs on GPU {}",
                    resident.device_id()
                )))
            }
            Decoding::Device(resident) => {
                output.check_space(resident.space())?;
                Ok(Some(resident.space().clone()))
            }
        }
    }

    /// Rows that each thread takes of a batch.
    fn share(&self, rows: usize) -> usize {
        rows.div_ceil(self.lanes.len())
    }

    /// Computes what the velocity network makes of the grid's times, unless it is the last call's.
    fn prepare(&mut self, solver: &Solver) -> Result<()> {
        if self.grid != Some(*solver) {
            self.grid = None;
            let source_std = self.model.metadata().source.std;
            self.features = self.network.features(solver, source_std)?;
            self.grid = Some(*solver);
        }
        Ok(())
    }

    fn check(&self, options: &SampleOptions) -> Result<Solver> {
        if options.count == 0 {
            return Err(Error::argument("count is 0; ask for 1 or more networks"));
        }
        let last = options.count as u64 - 1;
        if options.first_index.checked_add(last).is_none() {
            return Err(Error::argument(format!(
                "first_index {} with {} networks passes the last index, 2^64 - 1",
                options.first_index, options.count
            )));
        }
        let solver = options
            .solver
            .unwrap_or_else(|| self.model.metadata().solver.solver());
        solver.check()?;
        Ok(match solver.method {
            Method::Dopri5 => solver,
            // A tolerance that is not used must not look like another grid.
            method => Solver::fixed(method, solver.steps, solver.grid),
        })
    }

    /// Generates the networks `rows`, counted within the call.
    fn batch(
        &mut self,
        call: &Call,
        rows: Range<usize>,
        meter: &Meter,
        callback: Option<Callback>,
    ) -> Result<()> {
        // A callback wants to be asked between evaluations.
        if callback.is_some() || !self.replay(call, &rows)? {
            self.step(call, &rows, meter, callback)?;
        }
        let state = &self.state[..rows.len() * self.model.latent()];
        let (row, before) = match &mut self.decoding {
            Decoding::Host(decoder) => {
                let decoded =
                    decoder.decode(&self.team, &self.model, state, rows.start, &call.writer);
                (decoded.err(), true)
            }
            Decoding::Device(resident) => {
                let row = resident.decode(rows.len(), rows.start, &call.writer)?;
                (row, row.map_or(Ok(true), |row| resident.is_finite(row))?)
            }
        };
        match row {
            None => Ok(()),
            Some(row) if before => Err(call.diverged(
                rows.start + row,
                "has a weight that the output type cannot hold; use float32",
            )),
            Some(row) => Err(call.left_finite(rows.start + row)),
        }
    }

    /// Integrates as one graph on the device, if there is one and the solver's steps are known.
    fn replay(&mut self, call: &Call, rows: &Range<usize>) -> Result<bool> {
        let source = self.model.metadata().source;
        match &mut self.decoding {
            Decoding::Device(resident) if resident.unrolls(&call.solver) => {
                let noise = |row: usize, to: &mut [f32]| {
                    source.fill(call.seed, call.index(rows.start + row), to);
                };
                let (solver, guide) = (&call.solver, &call.guide);
                resident.integrate(solver, &self.features, guide, rows.clone(), noise)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Integrates evaluation by evaluation, on all threads.
    fn step(
        &mut self,
        call: &Call,
        rows: &Range<usize>,
        meter: &Meter,
        mut callback: Option<Callback>,
    ) -> Result<()> {
        let share = self.share(rows.len());
        let latent = self.model.latent();
        let state = &mut self.state[..rows.len() * latent];
        let source = self.model.metadata().source;
        let features = &self.features;
        let integrate = |i, lane: &mut Lane, state: &mut [f32], callback: Option<Callback>| {
            let work = Work {
                call,
                features,
                first: rows.start + i * share,
                source,
                meter,
            };
            meter.record(work.first, lane.integrate(&work, state, callback));
        };
        let mut shares = self.lanes.iter_mut().zip(state.chunks_mut(share * latent));
        let (lane, mine) = shares
            .next()
            .expect("a batch has rows, and a sampler lanes");
        meter.expect_helpers(rows.len().div_ceil(share) - 1);
        self.team.run(
            || {
                integrate(0, lane, mine, again(&mut callback));
                meter.record(rows.start, meter.watch_helpers(callback));
            },
            (1..).zip(shares),
            |(i, (lane, state))| {
                let _helper = meter.helper();
                integrate(i, lane, state, None);
            },
        );
        meter.result()?;
        match &mut self.decoding {
            Decoding::Host(_) => Ok(()),
            Decoding::Device(resident) => resident.set_latents(state),
        }
    }
}

/// The callback, to be used once more afterwards.
fn again<'a>(callback: &'a mut Option<Callback>) -> Option<Callback<'a>> {
    match callback {
        Some(callback) => Some(&mut **callback),
        None => None,
    }
}

/// The networks of a call, `max_batch` at a time.
fn batches(count: usize, max_batch: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count)
        .step_by(max_batch)
        .map(move |first| first..count.min(first + max_batch))
}
