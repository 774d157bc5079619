//! Noise, integration, decoding: the whole way from a seed to weights in the caller's buffers.

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

use crate::{
    budget::Budget,
    decode::Decoder,
    error::{Error, Result, Status},
    guidance::{Guide, Guided, unconditional_row},
    log::{self, Level},
    memory::zeros,
    model::Model,
    noise,
    ode::{self, Solver},
    output::{Output, Writer},
    progress::{Callback, Flow, Meter, Progress},
    runtime::Runtime,
    session::{Evaluator, Session},
    team::Team,
};

/// Most rows a batch may have.
pub const MAX_BATCH: usize = 4096;

/// Rows a thread takes at a time unless the options say otherwise; enough to be compute-bound.
const ROWS_A_THREAD: usize = 64;

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
    /// Most networks generated at a time, 1 to [`MAX_BATCH`]; it bounds the workspace. 0: 64 a
    /// thread, or as many as `memory_limit` allows.
    pub max_batch: usize,
    /// Most bytes that the sampler may take, ONNX Runtime's part reckoned from the velocity
    /// network; 0: [`crate::limits::DEFAULT_MEMORY`].
    pub memory_limit: u64,
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
    lanes: Vec<Lane>,
    decoder: Decoder,
    state: Box<[f32]>,
    max_batch: usize,
    budget: Budget,
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
    /// Errors: INVALID_ARGUMENT for an option out of range, RUNTIME_MISSING with what was tried,
    /// RUNTIME_FAILED in ONNX Runtime's words, UNSUPPORTED for CUDA, OUT_OF_MEMORY where memory
    /// ends or would pass the limit.
    pub fn new(model: &Model, options: &SamplerOptions) -> Result<Self> {
        let threads = limited("threads", options.threads, MAX_THREADS, cores)?;
        let method = model.metadata().solver.method;
        let budget = Budget::new(model, threads, options.memory_limit);
        let max_batch = limited("max_batch", options.max_batch, MAX_BATCH, || {
            budget.batch(method, MAX_BATCH.min(threads * ROWS_A_THREAD))
        })?;
        if options.device == Device::Cuda {
            return Err(unsupported("CUDA is not built yet; use DWF_DEVICE_CPU"));
        }
        budget.check(method, max_batch)?;
        let runtime = Runtime::load(options.onnxruntime.as_deref())?;
        let session = Arc::new(Session::new(runtime, model)?);
        let lanes = threads.min(max_batch);
        let rows = max_batch.div_ceil(lanes);
        let sampler = Self {
            model: model.clone(),
            runtime,
            team: Team::new(threads)?,
            lanes: (0..lanes)
                .map(|_| Lane::new(&session, model, rows))
                .collect::<Result<_>>()?,
            decoder: Decoder::new(model, max_batch, threads)?,
            state: zeros(max_batch, model.latent())?,
            max_batch,
            budget,
        };
        log::write(Level::Info, || format!("sampler: {:?}", sampler.info()));
        Ok(sampler)
    }

    /// What was chosen.
    pub fn info(&self) -> SamplerInfo {
        let lanes: usize = self.lanes.iter().map(Lane::bytes).sum();
        SamplerInfo {
            device: Device::Cpu,
            threads: self.team.size(),
            max_batch: self.max_batch,
            workspace_bytes: size_of_val(&self.state[..]) + self.decoder.bytes() + lanes,
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

        let call = Call {
            seed: options.seed,
            first_index: options.first_index,
            solver,
            guide,
            writer: output.writer(layout),
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

    /// Rows that each thread takes of a batch.
    fn share(&self, rows: usize) -> usize {
        rows.div_ceil(self.lanes.len())
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
        let share = self.share(rows.len());
        let latent = self.model.latent();
        let state = &mut self.state[..rows.len() * latent];
        let source_std = self.model.metadata().source.std;
        let integrate = |i: usize, lane: &mut Lane, state: &mut [f32], callback| {
            let first = rows.start + i * share;
            let result = lane.integrate(call, first, source_std, state, meter, callback);
            meter.record(first, result);
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
        self.decoder
            .decode(&self.team, &self.model, state, rows.start, &call.writer)
            .map_err(|row| {
                call.diverged(
                    rows.start + row,
                    "has a weight that the output type cannot hold; use float32",
                )
            })
    }
}

impl Lane {
    fn new(session: &Arc<Session>, model: &Model, rows: usize) -> Result<Self> {
        let guidable = unconditional_row(model).is_some();
        let mut workspace = ode::Workspace::default();
        workspace.reserve(model.metadata().solver.method, rows, model.latent())?;
        Ok(Self {
            evaluator: Evaluator::new(session, rows)?,
            workspace,
            unconditional: zeros(if guidable { rows } else { 0 }, model.latent())?,
        })
    }

    fn bytes(&self) -> usize {
        self.evaluator.bytes() + self.workspace.bytes() + size_of_val(&self.unconditional[..])
    }

    /// Carries the networks from `first` on, counted within the call, from noise into `state`.
    fn integrate(
        &mut self,
        call: &Call,
        first: usize,
        source_std: f64,
        state: &mut [f32],
        meter: &Meter,
        callback: Option<Callback>,
    ) -> Result<()> {
        let latent = self.evaluator.latent();
        for (row, state) in (first..).zip(state.chunks_exact_mut(latent)) {
            noise::fill(call.seed, call.index(row), source_std, state);
        }
        let mut velocity = Guided {
            evaluator: &mut self.evaluator,
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
            Some(row) => Err(call.diverged(
                first + row,
                "left the finite numbers while integrating; use more steps",
            )),
        }
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

fn unsupported(message: &str) -> Error {
    Error::new(Status::Unsupported, message)
}
