//! The C ABI's constants and structs. Nothing here has implicit padding; enums cross as plain
//! integers and are validated.

#![allow(
    non_camel_case_types,
    reason = "these are the names that C programs write"
)]

use std::ffi::{c_char, c_void};

use crate::{
    Device, MAX_BATCH, MAX_THREADS, Status,
    layout::{DType, TensorKind},
    log::Level,
    metadata::BasisKind,
    ode::{Grid, MAX_STEPS, Method},
};

/// The result of a call: `DWF_OK` or what went wrong. The list only grows at its end.
pub type dwf_status = i32;

/// Success.
pub const DWF_OK: i32 = 0;
/// An argument, option or handle is not valid.
pub const DWF_INVALID_ARGUMENT: i32 = 1;
/// A file could not be opened, mapped or read.
pub const DWF_IO: i32 = 2;
/// The artifact's files are damaged, do not belong together, or are not an artifact.
pub const DWF_BAD_ARTIFACT: i32 = 3;
/// A valid request that this build, device or format version cannot serve.
pub const DWF_UNSUPPORTED: i32 = 4;
/// ONNX Runtime was not found, is too old, or lacks the requested provider.
pub const DWF_RUNTIME_MISSING: i32 = 5;
/// Memory could not be allocated.
pub const DWF_OUT_OF_MEMORY: i32 = 6;
/// The output buffer is smaller than the networks that were asked for.
pub const DWF_BUFFER_TOO_SMALL: i32 = 7;
/// A network became NaN or infinite; the error text names it.
pub const DWF_DIVERGED: i32 = 8;
/// The progress callback asked to stop.
pub const DWF_CANCELLED: i32 = 9;
/// The sampler is in use by another thread.
pub const DWF_BUSY: i32 = 10;
/// A bug in libdwf; the handle it happened on only takes being freed.
pub const DWF_INTERNAL: i32 = 11;
/// ONNX Runtime refused the velocity network or failed while running it.
pub const DWF_RUNTIME_FAILED: i32 = 12;

/// Element type: IEEE 754 binary32.
pub const DWF_DTYPE_F32: u32 = 0;
/// Element type: IEEE 754 binary16.
pub const DWF_DTYPE_F16: u32 = 1;
/// Element type: bfloat16.
pub const DWF_DTYPE_BF16: u32 = 2;

/// Device: for a sampler the best that works, for a buffer host memory.
pub const DWF_DEVICE_AUTO: u32 = 0;
/// Device: the processor, host memory.
pub const DWF_DEVICE_CPU: u32 = 1;
/// Device: an NVIDIA GPU.
pub const DWF_DEVICE_CUDA: u32 = 2;

/// Solver: Euler, 1 evaluation a step.
pub const DWF_SOLVER_EULER: u32 = 1;
/// Solver: explicit midpoint, 2 evaluations a step.
pub const DWF_SOLVER_MIDPOINT: u32 = 2;
/// Solver: Heun, 2 evaluations a step.
pub const DWF_SOLVER_HEUN: u32 = 3;
/// Solver: classical Runge-Kutta, 4 evaluations a step.
pub const DWF_SOLVER_RK4: u32 = 4;
/// Solver: Dormand-Prince 5(4), steps chosen for every network from `tolerance`.
pub const DWF_SOLVER_DOPRI5: u32 = 5;

/// Grid: equal steps in time.
pub const DWF_GRID_UNIFORM: u32 = 1;
/// Grid: steps that grow with time, for a narrow source.
pub const DWF_GRID_STRETCHED: u32 = 2;

/// Basis: weights = latent.
pub const DWF_BASIS_IDENTITY: u32 = 1;
/// Basis: weights = mean + scale * latent, coordinate by coordinate.
pub const DWF_BASIS_DIAGONAL: u32 = 2;
/// Basis: weights = mean + (scale * latent) components.
pub const DWF_BASIS_LINEAR: u32 = 3;

/// Tensor kind: trained by gradient.
pub const DWF_TENSOR_PARAMETER: u32 = 0;
/// Tensor kind: kept by the network, a running mean say.
pub const DWF_TENSOR_BUFFER: u32 = 1;

/// Log level: a call is about to fail, with this text; not one that was cancelled.
pub const DWF_LOG_ERROR: u32 = 1;
/// Log level: it works, but not as well as it could.
pub const DWF_LOG_WARN: u32 = 2;
/// Log level: what was found and chosen.
pub const DWF_LOG_INFO: u32 = 3;
/// Log level: everything.
pub const DWF_LOG_DEBUG: u32 = 4;

// The C names and the Rust enums are one list.
const _: () = {
    assert!(DWF_OK == Status::Ok as i32);
    assert!(DWF_INVALID_ARGUMENT == Status::InvalidArgument as i32);
    assert!(DWF_IO == Status::Io as i32);
    assert!(DWF_BAD_ARTIFACT == Status::BadArtifact as i32);
    assert!(DWF_UNSUPPORTED == Status::Unsupported as i32);
    assert!(DWF_RUNTIME_MISSING == Status::RuntimeMissing as i32);
    assert!(DWF_OUT_OF_MEMORY == Status::OutOfMemory as i32);
    assert!(DWF_BUFFER_TOO_SMALL == Status::BufferTooSmall as i32);
    assert!(DWF_DIVERGED == Status::Diverged as i32);
    assert!(DWF_CANCELLED == Status::Cancelled as i32);
    assert!(DWF_BUSY == Status::Busy as i32);
    assert!(DWF_INTERNAL == Status::Internal as i32);
    assert!(DWF_RUNTIME_FAILED == Status::RuntimeFailed as i32);
    assert!(DWF_DTYPE_F32 == DType::F32 as u32);
    assert!(DWF_DTYPE_F16 == DType::F16 as u32);
    assert!(DWF_DTYPE_BF16 == DType::Bf16 as u32);
    assert!(DWF_DEVICE_AUTO == Device::Auto as u32);
    assert!(DWF_DEVICE_CPU == Device::Cpu as u32);
    assert!(DWF_DEVICE_CUDA == Device::Cuda as u32);
    assert!(DWF_SOLVER_EULER == Method::Euler as u32);
    assert!(DWF_SOLVER_MIDPOINT == Method::Midpoint as u32);
    assert!(DWF_SOLVER_HEUN == Method::Heun as u32);
    assert!(DWF_SOLVER_RK4 == Method::Rk4 as u32);
    assert!(DWF_SOLVER_DOPRI5 == Method::Dopri5 as u32);
    assert!(DWF_GRID_UNIFORM == Grid::Uniform as u32);
    assert!(DWF_GRID_STRETCHED == Grid::Stretched as u32);
    assert!(DWF_BASIS_IDENTITY == BasisKind::Identity as u32);
    assert!(DWF_BASIS_DIAGONAL == BasisKind::Diagonal as u32);
    assert!(DWF_BASIS_LINEAR == BasisKind::Linear as u32);
    assert!(DWF_TENSOR_PARAMETER == TensorKind::Parameter as u32);
    assert!(DWF_TENSOR_BUFFER == TensorKind::Buffer as u32);
    assert!(DWF_LOG_ERROR == Level::Error as u32);
    assert!(DWF_LOG_WARN == Level::Warn as u32);
    assert!(DWF_LOG_INFO == Level::Info as u32);
    assert!(DWF_LOG_DEBUG == Level::Debug as u32);
};

// The limits as the comments below give them.
const _: () = assert!(MAX_THREADS == 1024 && MAX_BATCH == 4096 && MAX_STEPS == 100_000);

/// Receives log messages, from any thread. `message` lives for the call. It must not call libdwf.
pub type dwf_log_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, level: u32, message: *const c_char)>;

/// Told how many of `total` evaluations of the velocity network have begun, always on the thread that
/// called `dwf_sample`: before each one that this thread makes and, once its share of a batch is done,
/// whenever another thread has begun one. `total` is 0 where an adaptive solver finds out on the way.
/// Nonzero cancels: every thread stops before its next evaluation. On a GPU a call with a callback runs
/// evaluation by evaluation, and slower, instead of replaying the whole trajectory as one CUDA graph;
/// see Determinism.
pub type dwf_progress_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, done: u64, total: u64) -> i32>;

/// How to open an artifact. Zero means default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dwf_model_options {
    /// `sizeof(dwf_model_options)`.
    pub struct_size: usize,
    /// 1: read the sidecar into memory instead of mapping it. A mapped file that another process
    /// truncates kills this process at the next access; a copy does not care.
    pub copy: u32,
    /// 1: compare the sidecar with the SHA-256 that the `.onnx` carries; reads the whole file.
    pub verify: u32,
    /// Most bytes that a copy may take; 0: 4 GiB.
    pub memory_limit: u64,
}

/// What an artifact says about itself. The strings live as long as the model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dwf_model_info {
    /// `sizeof(dwf_model_info)`; set it before the call.
    pub struct_size: usize,
    /// Weights of one network: elements of its flat vector.
    pub weight_count: u64,
    /// Tensors of one network.
    pub tensor_count: u64,
    /// Length of a latent vector.
    pub latent_size: u64,
    /// Length of a condition vector; 0: the artifact takes none.
    pub condition_size: u64,
    /// Steps of the default solver.
    pub steps: u64,
    /// Evaluations of the velocity network that the default solver needs; 0: each network's own.
    pub evaluations: u64,
    /// Relative error of the default solver's weights against a fine solution; NaN: not measured.
    pub solver_error: f64,
    /// Standard deviation of the source noise.
    pub source_std: f64,
    /// Default solver, `DWF_SOLVER_*`.
    pub solver: u32,
    /// Default grid, `DWF_GRID_*`.
    pub grid: u32,
    /// Basis, `DWF_BASIS_*`.
    pub basis: u32,
    /// 1 if networks can be generated without a condition. Where `condition_size` is not 0,
    /// conditions can then be strengthened by guidance.
    pub unconditional: u32,
    /// JSON object of the trainer's figures by name.
    pub quality: *const c_char,
    /// JSON object: who made the artifact from what.
    pub provenance: *const c_char,
    /// JSON of the condition's classes or axes with their ranges; NULL without condition.
    pub condition: *const c_char,
    /// Names of the condition's columns, `condition_size` of them: classes, or continuous axes.
    pub condition_names: *const *const c_char,
    /// Smallest value of every axis; NULL for classes, whose row is one-hot.
    pub condition_min: *const f32,
    /// Largest value of every axis; NULL for classes.
    pub condition_max: *const f32,
}

/// One tensor of the target network. Name and shape live as long as the model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dwf_tensor_info {
    /// `sizeof(dwf_tensor_info)`; set it before the call.
    pub struct_size: usize,
    /// Name as in the checkpoint, "fc1.weight" say.
    pub name: *const c_char,
    /// Row-major shape, `rank` numbers.
    pub shape: *const u64,
    /// First element in the flat vector.
    pub offset: u64,
    /// Number of elements.
    pub count: u64,
    /// Number of dimensions, 0 for a scalar.
    pub rank: u32,
    /// Element type in the checkpoint, `DWF_DTYPE_*`; output has the buffer's type.
    pub dtype: u32,
    /// `DWF_TENSOR_*`.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}

/// How to make a sampler. Zero means default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dwf_sampler_options {
    /// `sizeof(dwf_sampler_options)`.
    pub struct_size: usize,
    /// Path of ONNX Runtime's shared library. NULL: `$DWF_ONNXRUNTIME`, then the folder libdwf
    /// lies in, then the system's library path.
    pub onnxruntime: *const c_char,
    /// `DWF_DEVICE_*`. Asking for CUDA where it does not work is an error, never a fall-back.
    pub device: u32,
    /// Which GPU.
    pub device_id: i32,
    /// Threads, at most 1024; 0: one a core. On a GPU the calling one and one of the sampler's own.
    pub threads: u32,
    /// Most networks generated at a time, at most 4096; it bounds the workspace. 0: 64 a thread, 256
    /// on a GPU, or as many as `memory_limit` allows.
    pub max_batch: u32,
    /// Most bytes that the sampler may take, ONNX Runtime's part reckoned from the velocity
    /// network; beyond it is OUT_OF_MEMORY. 0: 4 GiB.
    pub memory_limit: u64,
    /// Most bytes of GPU memory that the sampler's own buffers may take, the basis among them; a
    /// basis that does not fit is streamed with every batch. 0: half of what is free.
    pub gpu_memory_limit: u64,
}

/// What a sampler chose and holds. The strings live as long as the sampler.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dwf_sampler_info {
    /// `sizeof(dwf_sampler_info)`; set it before the call.
    pub struct_size: usize,
    /// Bytes of workspace in host memory beyond ONNX Runtime's own.
    pub workspace_bytes: u64,
    /// `DWF_DEVICE_CPU` or `DWF_DEVICE_CUDA`.
    pub device: u32,
    /// Which GPU; 0 on the CPU.
    pub device_id: i32,
    /// Threads it uses.
    pub threads: u32,
    /// Networks generated at a time.
    pub max_batch: u32,
    /// ONNX Runtime's version, "1.31.1" say.
    pub onnxruntime_version: *const c_char,
    /// Where ONNX Runtime was loaded from.
    pub onnxruntime_path: *const c_char,
    /// As in `dwf_model_info`, for code that has only the sampler at hand.
    pub weight_count: u64,
    /// As in `dwf_model_info`.
    pub tensor_count: u64,
    /// As in `dwf_model_info`.
    pub condition_size: u64,
    /// ONNX Runtime's provider that runs the velocity network, "CUDAExecutionProvider" say.
    pub provider: *const c_char,
    /// Bytes of GPU memory beyond ONNX Runtime's own.
    pub gpu_bytes: u64,
    /// Evaluations of the velocity network in a call that names no solver; 0: each network's own.
    pub evaluations: u64,
    /// The solver of such a call, `DWF_SOLVER_*`.
    pub solver: u32,
    /// 1 if the basis goes to the GPU with every batch, since it does not fit there.
    pub basis_streamed: u32,
}

/// What to generate. Zero means default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dwf_sample_options {
    /// `sizeof(dwf_sample_options)`.
    pub struct_size: usize,
    /// Any number, 0 too; with the index it determines a network's noise.
    pub seed: u64,
    /// Index of the first network.
    pub first_index: u64,
    /// How many networks; 0: 1. They are made in batches of the sampler's `max_batch`.
    pub count: usize,
    /// `DWF_SOLVER_*`; 0: the artifact's.
    pub solver: u32,
    /// `DWF_GRID_*`; 0: the artifact's.
    pub grid: u32,
    /// Steps on the grid, at most 100000; 0: the artifact's.
    pub steps: u64,
    /// Error a step of `DWF_SOLVER_DOPRI5`, 1e-6 to 0.1; 0: the artifact's, or 1e-4.
    pub tolerance: f64,
    /// Conditions, row-major [condition_rows, condition_size]; NULL: unconditional.
    pub condition: *const f32,
    /// 1: one row for all networks; `count`: a row a network.
    pub condition_rows: usize,
    /// Classifier-free guidance scale, finite in float32; 0 or 1: the condition alone.
    pub guidance: f64,
    /// NULL: no progress, no cancelling.
    pub progress: dwf_progress_callback,
    /// Handed to `progress`.
    pub progress_user: *mut c_void,
}

/// The caller's memory for generated networks, in DLPack's vocabulary: either rows at `data`, or
/// one pointer a tensor in `tensors`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dwf_buffer {
    /// `sizeof(dwf_buffer)`.
    pub struct_size: usize,
    /// Row i, the weights of network first_index + i, begins `i * row_stride` elements in. NULL
    /// if `tensors` is used.
    pub data: *mut c_void,
    /// Bytes at `data`.
    pub size_bytes: usize,
    /// Elements from row to row; 0: `weight_count`, rows end to end.
    pub row_stride: usize,
    /// `DWF_DTYPE_*`.
    pub dtype: u32,
    /// Where the memory lies, `DWF_DEVICE_*`; 0: host memory. A GPU's must be ready before the call:
    /// what your streams have queued on it is not waited for. It is written when the call returns.
    pub device_type: u32,
    /// Which GPU it lies on.
    pub device_id: i32,
    /// Zero.
    pub reserved: u32,
    /// Tensor j of network i goes to `tensors[i * tensor_count + j]`; NULL if `data` is used.
    pub tensors: *const *mut c_void,
    /// Room behind the pointers to tensor j, in bytes; `tensor_count` numbers.
    pub tensor_sizes: *const usize,
    /// Tensors of one network, as in `dwf_model_info`.
    pub tensor_count: usize,
}
