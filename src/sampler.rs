//! Noise, integration, decoding: the whole way from a seed to weights in the caller's buffers.

use std::{fmt, ops::Range, path::PathBuf};

use crate::{
    decode::Decoder,
    error::{Error, Result, Status},
    guidance::{Guide, Guided, unconditional_row},
    log::{self, Level},
    memory::zeros,
    model::Model,
    noise,
    ode::{self, Solver},
    output::{Output, Writer},
    runtime::Runtime,
    session::Session,
};

/// Most rows a batch may have.
pub const MAX_BATCH: usize = 4096;

/// Rows a batch has unless the options say otherwise; enough to keep the network compute-bound.
const DEFAULT_BATCH: usize = 128;

/// How the names of a sampler's own threads begin.
pub(crate) const THREAD_PREFIX: &str = "dwf-";

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
    /// Threads; 0: as many as the machine has cores.
    pub threads: usize,
    /// Most networks generated at a time, 1 to [`MAX_BATCH`]; it bounds the workspace. 0: 128.
    pub max_batch: usize,
}

/// What a sampler chose and holds.
#[derive(Clone, Debug)]
pub struct SamplerInfo {
    /// Where it runs; never `Auto`.
    pub device: Device,
    /// Threads it uses.
    pub threads: usize,
    /// Networks generated at a time.
    pub max_batch: usize,
    /// Bytes of workspace beyond ONNX Runtime's own.
    pub workspace_bytes: usize,
    /// ONNX Runtime's version.
    pub onnxruntime_version: String,
    /// Where ONNX Runtime was loaded from.
    pub onnxruntime_path: PathBuf,
}

/// How far a call is: evaluations of the velocity network, over all batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Evaluations done.
    pub done: u64,
    /// Evaluations in all.
    pub total: u64,
}

/// Whether a call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Continue,
    /// It stops with CANCELLED.
    Cancel,
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
    /// Called before every evaluation, on the calling thread.
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
    session: Session,
    pool: Option<rayon::ThreadPool>,
    state: Box<[f32]>,
    /// Velocities without condition, while guidance is at work; empty if it cannot be.
    unconditional: Box<[f32]>,
    workspace: ode::Workspace,
    decoder: Decoder,
    threads: usize,
    max_batch: usize,
    runtime: &'static Runtime,
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
    /// Errors: INVALID_ARGUMENT for an option out of range, RUNTIME_MISSING with what was tried,
    /// RUNTIME_FAILED in ONNX Runtime's words, UNSUPPORTED for CUDA, OUT_OF_MEMORY.
    pub fn new(model: &Model, options: &SamplerOptions) -> Result<Self> {
        let threads = limited("threads", options.threads, MAX_THREADS, cores)?;
        let max_batch = limited("max_batch", options.max_batch, MAX_BATCH, || DEFAULT_BATCH)?;
        if options.device == Device::Cuda {
            return Err(unsupported("CUDA is not built yet; use DWF_DEVICE_CPU"));
        }
        let runtime = Runtime::load(options.onnxruntime.as_deref())?;
        let guidable = unconditional_row(model).is_some();
        let sampler = Self {
            model: model.clone(),
            session: Session::new(runtime, model, max_batch, threads)?,
            pool: pool(threads)?,
            state: zeros(max_batch, model.latent())?,
            unconditional: zeros(if guidable { max_batch } else { 0 }, model.latent())?,
            workspace: ode::Workspace::default(),
            decoder: Decoder::new(model, max_batch)?,
            threads,
            max_batch,
            runtime,
        };
        log::write(Level::Info, || format!("sampler: {:?}", sampler.info()));
        Ok(sampler)
    }

    /// What was chosen.
    pub fn info(&self) -> SamplerInfo {
        SamplerInfo {
            device: Device::Cpu,
            threads: self.threads,
            max_batch: self.max_batch,
            workspace_bytes: size_of_val(&self.state[..])
                + size_of_val(&self.unconditional[..])
                + self.workspace.bytes()
                + self.decoder.bytes()
                + self.session.bytes(),
            onnxruntime_version: self.runtime.version.clone(),
            onnxruntime_path: self.runtime.path.clone(),
        }
    }

    /// The model it samples.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Generates networks into `output`, row i being network `first_index + i` of the seed.
    ///
    /// Nothing is written before all arguments are checked. If the call fails after that, every
    /// weight of the networks it had written is NaN.
    ///
    /// Errors: INVALID_ARGUMENT, BUFFER_TOO_SMALL, CANCELLED, DIVERGED naming the network,
    /// RUNTIME_FAILED.
    pub fn sample<'o>(
        &mut self,
        mut options: SampleOptions,
        output: impl Into<Output<'o>>,
    ) -> Result<()> {
        let model = self.model.clone();
        let layout = &model.metadata().layout;
        let mut output = output.into();
        let solver = self.check(&options)?;
        let guide = Guide::new(&model, options.condition, options.guidance, options.count)?;
        output.check(options.count, layout)?;

        let batches = options.count.div_ceil(self.max_batch);
        let evaluations = solver.evaluations() * guide.evaluations();
        let mut progress = Meter {
            done: 0,
            total: (batches * evaluations) as u64,
            callback: options.progress.take(),
        };
        let call = Call {
            seed: options.seed,
            first_index: options.first_index,
            solver,
            guide,
            writer: output.writer(layout),
        };
        for first in (0..options.count).step_by(self.max_batch) {
            let rows = first..options.count.min(first + self.max_batch);
            self.batch(&call, rows.clone(), &mut progress)
                .inspect_err(|_| call.writer.invalidate(0..rows.end))?;
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
    fn batch(&mut self, call: &Call, rows: Range<usize>, progress: &mut Meter) -> Result<()> {
        let latent = self.model.latent();
        let std = self.model.metadata().source.std;
        let state = &mut self.state[..rows.len() * latent];
        for (row, state) in rows.clone().zip(state.chunks_exact_mut(latent)) {
            noise::fill(call.seed, call.index(row), std, state);
        }
        let mut velocity = Guided {
            session: &mut self.session,
            guide: &call.guide,
            first: rows.start,
            unconditional: &mut self.unconditional,
            progress,
        };
        ode::integrate(&mut velocity, &call.solver, std, state, &mut self.workspace)?;

        let finite = |row: &[f32]| row.iter().all(|value| value.is_finite());
        if let Some(row) = state.chunks_exact(latent).position(|row| !finite(row)) {
            return Err(call.diverged(
                rows.start + row,
                "left the finite numbers while integrating; use more steps",
            ));
        }
        let mut decode = || {
            self.decoder
                .decode(&self.model, state, rows.start, &call.writer)
        };
        match &self.pool {
            Some(pool) => pool.install(decode),
            None => decode(),
        }
        .map_err(|row| {
            call.diverged(
                rows.start + row,
                "has a weight that the output type cannot hold; use float32",
            )
        })
    }
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

/// Counts evaluations and asks the caller whether to go on.
pub(crate) struct Meter<'a> {
    done: u64,
    total: u64,
    callback: Option<&'a mut dyn FnMut(Progress) -> Flow>,
}

impl Meter<'_> {
    pub(crate) fn tick(&mut self) -> Result<()> {
        let progress = Progress {
            done: self.done,
            total: self.total,
        };
        self.done += 1;
        match self.callback.as_mut().map(|callback| callback(progress)) {
            Some(Flow::Cancel) => Err(Error::new(
                Status::Cancelled,
                "cancelled by the progress callback",
            )),
            _ => Ok(()),
        }
    }
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

fn pool(threads: usize) -> Result<Option<rayon::ThreadPool>> {
    if threads == 1 {
        return Ok(None);
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("{THREAD_PREFIX}{i}"))
        .build()
        .map(Some)
        .map_err(|e| {
            Error::new(
                Status::OutOfMemory,
                format!("{threads} threads could not be started: {e}"),
            )
        })
}

fn unsupported(message: &str) -> Error {
    Error::new(Status::Unsupported, message)
}
