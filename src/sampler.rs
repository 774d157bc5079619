//! Noise, integration, decoding: the whole way from a seed to weights in the caller's buffers.

#[cfg(test)]
mod tests;

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

use crate::{
    budget::Budget,
    decode::Decoder,
    device::{Space, cuda::Cuda},
    error::{Error, Result, Status},
    evaluator::{Evaluator, Features, Network},
    guidance::{Guide, Guided, unconditional_row},
    log::{self, Level},
    memory::zeros,
    model::Model,
    noise,
    ode::{self, Solver},
    output::{Output, Writer},
    progress::{Callback, Flow, Meter, Progress},
    resident::{Place, Resident},
    runtime::Runtime,
    session::{CUDA_PROVIDER, Provider, has_provider},
    team::Team,
    trajectory::Precision,
};

/// Most rows a batch may have.
pub const MAX_BATCH: usize = 4096;

/// Rows a thread takes at a time unless the options say otherwise; enough to be compute-bound.
const ROWS_A_THREAD: usize = 64;

/// Rows a GPU takes at a time unless the options say otherwise.
const ROWS_A_GPU: usize = 256;

/// Largest relative difference between a GPU's network and the CPU's: tens of evaluations in half
/// precision, of 5e-4 each.
const AGREEMENT: f64 = 2e-2;

/// What befalls a trajectory.
const LEFT_FINITE: &str = "left the finite numbers while integrating; use more steps";

/// Most threads a sampler may use.
pub const MAX_THREADS: usize = 1024;

/// Where the velocity network runs.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The best that works; [`SamplerInfo`] and the log say which.
    #[default]
    Auto = 0,
    /// The processor.
    Cpu = 1,
    /// An NVIDIA GPU.
    Cuda = 2,
}

impl Device {
    /// The device with this number in the C ABI.
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::Auto, Self::Cpu, Self::Cuda]
            .into_iter()
            .find(|device| *device as u32 == code)
    }
}

/// How to make a sampler.
#[derive(Clone, Debug, Default)]
pub struct SamplerOptions {
    /// ONNX Runtime's shared library; `None`: searched for as [`Runtime::load`] says.
    pub onnxruntime: Option<PathBuf>,
    /// Where to run.
    pub device: Device,
    /// Threads; 0: as many as the machine has cores. A GPU needs only the calling one.
    pub threads: usize,
    /// Most networks generated at a time, 1 to [`MAX_BATCH`]; it bounds the workspace. 0: 64 a
    /// thread, 256 on a GPU, or as many as `memory_limit` allows.
    pub max_batch: usize,
    /// Most bytes that the sampler may take, ONNX Runtime's part reckoned from the velocity
    /// network; 0: [`crate::limits::DEFAULT_MEMORY`].
    pub memory_limit: u64,
    /// Which GPU, where it is one.
    pub device_id: i32,
    /// Most bytes of GPU memory that the sampler's own buffers may take, the basis among them; a
    /// basis that does not fit is streamed with every batch. 0: half of what is free.
    pub gpu_memory_limit: u64,
}

/// What a sampler chose and holds.
#[derive(Clone, Debug)]
pub struct SamplerInfo {
    /// Where it runs; never `Auto`.
    pub device: Device,
    /// Which GPU; 0 on the CPU.
    pub device_id: i32,
    /// The name of ONNX Runtime's provider that runs the velocity network.
    pub provider: &'static str,
    /// Threads it uses.
    pub threads: usize,
    /// Networks generated at a time.
    pub max_batch: usize,
    /// Bytes of workspace in host memory beyond ONNX Runtime's own.
    pub workspace_bytes: usize,
    /// Bytes of GPU memory beyond ONNX Runtime's own.
    pub gpu_bytes: usize,
    /// Whether the basis goes to the GPU with every batch, since it does not fit there.
    pub basis_streamed: bool,
    /// The solver of calls that name none.
    pub solver: Solver,
    /// ONNX Runtime's version.
    pub onnxruntime_version: String,
    /// Where ONNX Runtime was loaded from.
    pub onnxruntime_path: PathBuf,
}

/// What to generate.
pub struct SampleOptions<'a> {
    /// Any number; with the index it determines a network's noise.
    pub seed: u64,
    /// Index of the first network: networks `first_index..first_index + count` are made.
    pub first_index: u64,
    /// How many networks.
    pub count: usize,
    /// `None`: the artifact's own.
    pub solver: Option<Solver>,
    /// Conditions, row-major: one row for all networks, or a row a network. `None`: the
    /// artifact's unconditional row, if it has one.
    pub condition: Option<&'a [f32]>,
    /// Classifier-free guidance (Ho and Salimans, 2022): the velocity is that of no condition
    /// plus `guidance` times the difference that the condition makes. 1: the condition alone.
    pub guidance: f64,
    /// Called on the calling thread before every evaluation that it makes; other threads' are
    /// counted with them.
    pub progress: Option<&'a mut dyn FnMut(Progress) -> Flow>,
}

impl Default for SampleOptions<'_> {
    fn default() -> Self {
        Self {
            seed: 0,
            first_index: 0,
            count: 1,
            solver: None,
            condition: None,
            guidance: 1.0,
            progress: None,
        }
    }
}

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

/// What one thread needs to integrate its share of a batch.
struct Lane {
    evaluator: Evaluator,
    workspace: ode::Workspace,
    /// Velocities without condition, while guidance is at work; empty if it cannot be.
    unconditional: Box<[f32]>,
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

    fn on_best(model: &Model, options: &SamplerOptions) -> Result<Self> {
        // A GPU's number does not make the CPU an error here.
        let cpu = SamplerOptions {
            device_id: 0,
            ..options.clone()
        };
        let mut cpu = Self::on_cpu(model, &cpu)?;
        let why = if has_provider(CUDA_PROVIDER)? {
            let gpu = Self::on_cuda(model, options).and_then(|mut gpu| {
                gpu.check_against(&mut cpu)?;
                Ok(gpu)
            });
            match gpu {
                Ok(gpu) => return Ok(gpu),
                Err(e) => e.message().to_owned(),
            }
        } else {
            "this ONNX Runtime has no CUDA provider".into()
        };
        let level = match options.device_id {
            0 => Level::Info,
            _ => Level::Warn,
        };
        log::write(level, || format!("DWF_DEVICE_AUTO takes the CPU: {why}"));
        Ok(cpu)
    }

    fn on_cpu(model: &Model, options: &SamplerOptions) -> Result<Self> {
        if options.device_id != 0 {
            return Err(Error::argument(
                "device_id chooses a GPU, and this sampler runs on the CPU; leave it 0",
            ));
        }
        let threads = limited("threads", options.threads, MAX_THREADS, cores)?;
        let (budget, max_batch) = budget(model, options, threads, threads * ROWS_A_THREAD)?;
        let runtime = Runtime::load(options.onnxruntime.as_deref())?;
        let (space, provider) = (Space::Host, Provider::Cpu);
        let network = Network::new(runtime, model, &space, provider, Precision::Single)?;
        let decoding = Decoding::Host(Decoder::new(model, max_batch, threads)?);
        Self::assemble(runtime, network, decoding, threads, max_batch, budget)
    }

    fn on_cuda(model: &Model, options: &SamplerOptions) -> Result<Self> {
        limited("threads", options.threads, MAX_THREADS, cores)?;
        let (budget, max_batch) = budget(model, options, 1, ROWS_A_GPU)?;
        let runtime = Runtime::load(options.onnxruntime.as_deref())?;
        if !has_provider(CUDA_PROVIDER)? {
            return Err(Error::new(
                Status::RuntimeMissing,
                format!(
                    "ONNX Runtime {} from {} has no CUDA provider; PyPI's package onnxruntime-gpu \
                     holds one that has, or use DWF_DEVICE_CPU",
                    runtime.version,
                    runtime.path.display()
                ),
            ));
        }
        let device_id = options.device_id;
        let gpu = Cuda::open(device_id)?;
        log::write(Level::Info, || format!("GPU {device_id}: {}", gpu.name()));
        let limit = match options.gpu_memory_limit {
            0 => gpu.free_memory()? / 2,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let provider = |record| Provider::Cuda { device_id, record };
        let place = Place {
            space: Space::Cuda(gpu),
            provider: provider(false),
            recorder: provider(true),
            precision: Precision::Half,
            limit,
        };
        Self::on_device(model, runtime, &place, max_batch, budget)
    }

    /// A sampler whose trajectories and decoding run as graphs where `place` says.
    fn on_device(
        model: &Model,
        runtime: &'static Runtime,
        place: &Place,
        max_batch: usize,
        budget: Budget,
    ) -> Result<Self> {
        let (space, provider) = (&place.space, place.provider);
        let network = Network::new(runtime, model, space, provider, place.precision)?;
        let resident = Resident::new(runtime, model, place, max_batch)?;
        let decoding = Decoding::Device(Box::new(resident));
        Self::assemble(runtime, network, decoding, 1, max_batch, budget)
    }

    fn assemble(
        runtime: &'static Runtime,
        network: Network,
        decoding: Decoding,
        threads: usize,
        max_batch: usize,
        budget: Budget,
    ) -> Result<Self> {
        let model = network.model().clone();
        let network = Arc::new(network);
        let lanes = threads.min(max_batch);
        let rows = max_batch.div_ceil(lanes);
        Ok(Self {
            runtime,
            team: Team::new(threads)?,
            lanes: (0..lanes)
                .map(|_| Lane::new(&network, &model, rows))
                .collect::<Result<_>>()?,
            network,
            features: Features::default(),
            grid: None,
            decoding,
            state: zeros(max_batch, model.latent())?,
            max_batch,
            budget,
            model,
        })
    }

    /// Whether one network comes out as it does on the CPU, up to what half precision in the
    /// velocity network costs. Skipped for networks that are too large to hold twice.
    fn check_against(&mut self, cpu: &mut Self) -> Result<()> {
        const LARGEST: usize = 1 << 24;
        let weights = self.model.metadata().layout.len();
        if weights > LARGEST {
            return Ok(());
        }
        let condition = self.model.metadata().condition.clone();
        let condition = condition.map(|condition| condition.any_row());
        let sample = |sampler: &mut Self| -> Result<Box<[f32]>> {
            let mut network = zeros(1, weights)?;
            let options = SampleOptions {
                condition: condition.as_deref(),
                ..Default::default()
            };
            sampler.sample(options, &mut network[..])?;
            Ok(network)
        };
        let (found, expected) = (sample(self)?, sample(cpu)?);
        let norm = |values: &mut dyn Iterator<Item = f32>| -> f64 {
            values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
        };
        let difference = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        let relative = difference / norm(&mut expected.iter().copied());
        if relative < AGREEMENT {
            return Ok(());
        }
        Err(Error::new(
            Status::RuntimeFailed,
            format!("its network differs from the CPU's by {relative:.1e}, relative"),
        ))
    }

    /// What was chosen.
    pub fn info(&self) -> SamplerInfo {
        let lanes: usize = self.lanes.iter().map(Lane::bytes).sum();
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
            onnxruntime_version: self.runtime.version.clone(),
            onnxruntime_path: self.runtime.path.clone(),
        };
        match &self.decoding {
            Decoding::Host(decoder) => SamplerInfo {
                workspace_bytes: own + decoder.bytes(),
                ..chosen
            },
            Decoding::Device(resident) => SamplerInfo {
                device: Device::Cuda,
                device_id: resident.device_id(),
                workspace_bytes: own + resident.host_bytes(),
                gpu_bytes: lanes + resident.device_bytes(),
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
        let meter = Meter::new(shares.saturating_mul(evaluations) as u64);
        let mut callback = options.progress;
        for rows in batches(options.count, self.max_batch) {
            let callback: Option<Callback> = match &mut callback {
                Some(callback) => Some(&mut **callback),
                None => None,
            };
            let unfinished = call.writer.invalidate_unless_finished(0..rows.end);
            self.batch(&call, rows, &meter, callback)?;
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
        Ok(solver)
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
            Some(row) => Err(call.diverged(rows.start + row, LEFT_FINITE)),
        }
    }

    /// Integrates as one graph on the device, if there is one and the solver's steps are known.
    fn replay(&mut self, call: &Call, rows: &Range<usize>) -> Result<bool> {
        let source_std = self.model.metadata().source.std;
        match &mut self.decoding {
            Decoding::Device(resident) if resident.unrolls(&call.solver) => {
                let noise = |row: usize, to: &mut [f32]| {
                    noise::fill(call.seed, call.index(rows.start + row), source_std, to);
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
        callback: Option<Callback>,
    ) -> Result<()> {
        let share = self.share(rows.len());
        let latent = self.model.latent();
        let state = &mut self.state[..rows.len() * latent];
        let source_std = self.model.metadata().source.std;
        let features = &self.features;
        let integrate = |i: usize, lane: &mut Lane, state: &mut [f32], callback| {
            let work = Work {
                call,
                features,
                first: rows.start + i * share,
                source_std,
                meter,
            };
            meter.record(work.first, lane.integrate(&work, state, callback));
        };
        let mut shares = self.lanes.iter_mut().zip(state.chunks_mut(share * latent));
        let (lane, mine) = shares
            .next()
            .expect("a batch has rows, and a sampler lanes");
        self.team.run(
            || integrate(0, lane, mine, callback),
            (1..).zip(shares),
            |(i, (lane, state))| integrate(i, lane, state, None),
        );
        meter.result()?;
        match &mut self.decoding {
            Decoding::Host(_) => Ok(()),
            Decoding::Device(resident) => resident.set_latents(state),
        }
    }
}

impl Lane {
    fn new(network: &Arc<Network>, model: &Model, rows: usize) -> Result<Self> {
        let guidable = unconditional_row(model).is_some();
        let mut workspace = ode::Workspace::default();
        workspace.reserve(model.metadata().solver.method, rows, model.latent())?;
        Ok(Self {
            evaluator: Evaluator::new(network, rows)?,
            workspace,
            unconditional: zeros(if guidable { rows } else { 0 }, model.latent())?,
        })
    }

    fn bytes(&self) -> usize {
        self.evaluator.bytes() + self.workspace.bytes() + size_of_val(&self.unconditional[..])
    }

    /// Carries the networks of `work` from noise into `state`.
    fn integrate(
        &mut self,
        work: &Work,
        state: &mut [f32],
        callback: Option<Callback>,
    ) -> Result<()> {
        let Work {
            call,
            features,
            first,
            source_std,
            meter,
        } = *work;
        let latent = self.evaluator.latent();
        for (row, state) in (first..).zip(state.chunks_exact_mut(latent)) {
            noise::fill(call.seed, call.index(row), source_std, state);
        }
        let mut velocity = Guided {
            evaluator: &mut self.evaluator,
            features,
            guide: &call.guide,
            first,
            unconditional: &mut self.unconditional,
            meter,
            callback,
        };
        ode::integrate(
            &mut velocity,
            &call.solver,
            source_std,
            latent,
            state,
            &mut self.workspace,
        )?;
        let finite = |row: &[f32]| row.iter().all(|value| value.is_finite());
        match state.chunks_exact(latent).position(|row| !finite(row)) {
            None => Ok(()),
            Some(row) => Err(call.diverged(first + row, LEFT_FINITE)),
        }
    }
}

/// A thread's share of a batch.
struct Work<'a, 'c> {
    call: &'a Call<'c>,
    features: &'a Features,
    /// The first network, counted within the call.
    first: usize,
    source_std: f64,
    meter: &'a Meter,
}

/// What all batches of one call share.
struct Call<'a> {
    seed: u64,
    first_index: u64,
    solver: Solver,
    guide: Guide<'a>,
    writer: Writer<'a>,
}

impl Call<'_> {
    /// The index of a network from its place in the call.
    fn index(&self, row: usize) -> u64 {
        self.first_index + row as u64
    }

    fn diverged(&self, row: usize, what: &str) -> Error {
        let (index, seed) = (self.index(row), self.seed);
        Error::new(
            Status::Diverged,
            format!("network {index} of seed {seed} {what}"),
        )
    }
}

/// The networks of a call, `max_batch` at a time.
fn batches(count: usize, max_batch: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count)
        .step_by(max_batch)
        .map(move |first| first..count.min(first + max_batch))
}

/// An option's value, its default for 0.
fn limited(
    name: &str,
    value: usize,
    most: usize,
    default: impl FnOnce() -> usize,
) -> Result<usize> {
    match value {
        0 => Ok(default()),
        _ if value <= most => Ok(value),
        _ => Err(Error::argument(format!(
            "{name} is {value}; at most {most}"
        ))),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(MAX_THREADS)
}

/// What the sampler may take, and its batch: `batch` or as many as fit, unless the options say.
fn budget(
    model: &Model,
    options: &SamplerOptions,
    threads: usize,
    batch: usize,
) -> Result<(Budget, usize)> {
    let method = model.metadata().solver.method;
    let budget = Budget::new(model, threads, options.memory_limit);
    let max_batch = limited("max_batch", options.max_batch, MAX_BATCH, || {
        budget.batch(method, MAX_BATCH.min(batch))
    })?;
    budget.check(method, max_batch)?;
    Ok((budget, max_batch))
}
