//! What a caller may ask of a sampler, and what it answers about itself.

use std::path::{Path, PathBuf};

use crate::{
    ode::Solver,
    progress::{Flow, Progress},
};

/// Most rows a batch may have.
pub const MAX_BATCH: usize = 4096;

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
    /// ONNX Runtime's shared library; `None`: searched for as [`crate::runtime::Runtime::load`] says.
    pub onnxruntime: Option<PathBuf>,
    /// Where to run.
    pub device: Device,
    /// Threads, at most [`MAX_THREADS`]; 0: as many as the machine has cores. On a GPU the calling one
    /// and one of its own.
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
    pub onnxruntime_version: &'static str,
    /// Where ONNX Runtime was loaded from.
    pub onnxruntime_path: &'static Path,
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
    /// plus `guidance` times the difference that the condition makes. 1: the condition alone. Any
    /// number that is finite in f32.
    pub guidance: f64,
    /// Called on the calling thread, before every evaluation that it makes and, once its share of
    /// a batch is done, whenever another thread has begun one.
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
