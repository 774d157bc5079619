//! The C ABI: each function checks and converts its arguments and calls the Rust API.

#![allow(
    clippy::missing_safety_doc,
    reason = "the conventions on top of the header say it once for all functions"
)]

mod guard;
mod types;

use std::{
    ffi::{CStr, CString, c_char, c_void},
    ptr, slice,
    sync::{Mutex, OnceLock, TryLockError},
};

use guard::{catch, guard, internal, null, path, read_struct, required, switch, write_struct};
pub use types::*;

use crate::{
    Device, Error, Flow, Model, ModelOptions, Output, Result, SampleOptions, Sampler,
    SamplerOptions, Status,
    condition::{Condition, ConditionSchema},
    layout::DType,
    log::{self, Level},
    ode::{Grid, Method, Solver},
};

/// An opened artifact: immutable, usable from any thread at any time.
#[allow(non_camel_case_types, reason = "the name that C programs write")]
pub struct dwf_model {
    model: Model,
    names: Vec<CString>,
    shapes: Vec<Vec<u64>>,
    quality: CString,
    provenance: CString,
    condition: Option<CString>,
    columns: Columns,
}

/// The condition's columns as C reads them.
#[derive(Default)]
struct Columns {
    /// What `pointers` point to.
    _names: Vec<CString>,
    pointers: Vec<*const c_char>,
    min: Vec<f32>,
    max: Vec<f32>,
}

// SAFETY: the pointers lead to strings that the struct owns and nobody changes.
unsafe impl Send for Columns {}
// SAFETY: as above.
unsafe impl Sync for Columns {}

impl Columns {
    fn new(condition: &Condition) -> Self {
        let (names, min, max): (Vec<CString>, _, _) = match &condition.schema {
            ConditionSchema::Classes(names) => (
                names.iter().map(|name| c_string(name)).collect(),
                Vec::new(),
                Vec::new(),
            ),
            ConditionSchema::Axes(axes) => (
                axes.iter().map(|axis| c_string(&axis.name)).collect(),
                axes.iter().map(|axis| axis.min).collect(),
                axes.iter().map(|axis| axis.max).collect(),
            ),
        };
        Self {
            pointers: names.iter().map(|name| name.as_ptr()).collect(),
            _names: names,
            min,
            max,
        }
    }
}

/// NULL for an empty list.
fn or_null<T>(list: &[T]) -> *const T {
    if list.is_empty() {
        ptr::null()
    } else {
        list.as_ptr()
    }
}

/// A sampler over a model: one session and its workspace, for one thread at a time.
#[allow(non_camel_case_types, reason = "the name that C programs write")]
pub struct dwf_sampler {
    sampler: Mutex<Sampler>,
    onnxruntime_version: CString,
    onnxruntime_path: CString,
    provider: CString,
    /// The message of a panic; once set, the sampler's state is not to be trusted.
    fault: OnceLock<String>,
}

/// The library's version, "0.1.0" say.
///
/// Ownership: static. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn dwf_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no NUL in it"),
        };
    VERSION.as_ptr()
}

/// The name of a status, "DWF_OK" say; "DWF_UNKNOWN" for a number this version does not know.
///
/// Ownership: static. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn dwf_status_name(status: dwf_status) -> *const c_char {
    Status::from_code(status)
        .map_or(c"DWF_UNKNOWN", Status::name)
        .as_ptr()
}

/// Sends log messages up to `level` (`DWF_LOG_*`) to `callback`, process-wide; NULL silences the
/// library, which is its default. When this returns, the previous callback is not running and
/// will not be called again.
///
/// Nullable: callback, user. Threads: any, but not from within the callback.
/// Errors: INVALID_ARGUMENT for an unknown level.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dwf_set_log(
    callback: dwf_log_callback,
    user: *mut c_void,
    level: u32,
) -> dwf_status {
    // SAFETY: there is no error buffer.
    unsafe {
        guard(ptr::null_mut(), 0, || {
            let Some(callback) = callback else {
                log::set(Level::Error, None);
                return Ok(());
            };
            let level = Level::from_code(level)
                .ok_or_else(|| Error::argument(format!("log level {level}")))?;
            let user = User(user);
            log::set(
                level,
                Some(Box::new(move |level, message| {
                    let User(user) = &user;
                    if let Ok(message) = CString::new(message) {
                        callback(*user, level as u32, message.as_ptr());
                    }
                })),
            );
            Ok(())
        })
    }
}

/// Opens the artifact `path` (`name.onnx`) and maps the sidecar beside it.
///
/// Ownership: `*out` is the caller's until `dwf_model_free`; `path` is not kept.
/// Nullable: options, err. Threads: any.
/// Errors: IO, BAD_ARTIFACT, UNSUPPORTED, INVALID_ARGUMENT, OUT_OF_MEMORY; `*out` is then NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dwf_model_open(
    path: *const c_char,
    options: *const dwf_model_options,
    out: *mut *mut dwf_model,
    err: *mut c_char,
    err_cap: usize,
) -> dwf_status {
    // SAFETY: the caller's promise.
    unsafe {
        create(out, err, err_cap, || {
            let path = guard::path(path)?.ok_or_else(|| null("path"))?;
            let model = Model::open(path, &model_options(options)?)?;
            Ok(dwf_model::new(model))
        })
    }
}

/// Opens an artifact in memory: the bytes of its `.onnx` and of its sidecar.
///
/// Ownership: `onnx` is not kept; `sidecar` is used in place until the model and all its samplers
/// are freed, unless `options.copy` is set. `*out` is the caller's until `dwf_model_free`.
/// Nullable: options, err. Threads: any. Units: sizes in bytes.
/// Errors: as `dwf_model_open`; INVALID_ARGUMENT unless `sidecar` is aligned to 8 bytes or
/// `options.copy` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dwf_model_open_memory(
    onnx: *const c_void,
    onnx_size: usize,
    sidecar: *const c_void,
    sidecar_size: usize,
    options: *const dwf_model_options,
    out: *mut *mut dwf_model,
    err: *mut c_char,
    err_cap: usize,
) -> dwf_status {
    // SAFETY: the caller's promise, which makes the sidecar live as long as the model uses it.
    unsafe {
        create(out, err, err_cap, || {
            let onnx = slice::from_raw_parts(required(onnx.cast::<u8>(), "onnx")?, onnx_size);
            let sidecar =
                slice::from_raw_parts(required(sidecar.cast::<u8>(), "sidecar")?, sidecar_size);
            let model = Model::from_static(onnx, sidecar, &model_options(options)?)?;
            Ok(dwf_model::new(model))
        })
    }
}

/// Frees a model. Samplers made from it go on working.
///
/// Nullable: model. Threads: any, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dwf_model_free(model: *mut dwf_model) {
    // SAFETY: the caller's promise.
    unsafe { free(model) }
}

/// Writes what the artifact says about itself to `*info`, whose `struct_size` is set.
///
/// Ownership: strings in `info` live as long as the model. Nullable: err. Threads: any.
/// Errors: INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dwf_model_get_info(
    model: *const dwf_model,
    info: *mut dwf_model_info,
    err: *mut c_char,
    err_cap: usize,
) -> dwf_status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(err, err_cap, || {
            write_struct(info, &required(model, "model")?.info())
        })
    }
}

/// Writes the description of tensor `index` of the target network to `*info`, whose
/// `struct_size` is set. Tensors come in the order of their offsets.
///
/// Ownership: name and shape live as long as the model. Nullable: err. Threads: any.
/// Errors: INVALID_ARGUMENT for an index past the last tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dwf_model_get_tensor(
    model: *const dwf_model,
    index: usize,
    info: *mut dwf_tensor_info,
    err: *mut c_char,
    err_cap: usize,
) -> dwf_status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(err, err_cap, || {
            write_struct(info, &required(model, "model")?.tensor(index)?)
        })
    }
}

/// Makes a sampler over `model`: finds ONNX Runtime, loads the velocity network, allocates the
/// workspace.
///
/// Official builds of ONNX Runtime report to their vendor. The first call switches that off by
/// setting the environment variable ORT_DISABLE_TELEMETRY to 1 unless it is set; where another
/// thread may call getenv meanwhile, set it at the start of the program instead.
///
/// Ownership: `*out` is the caller's until `dwf_sampler_free`; it keeps what it needs of the
/// model. Nullable: options, err. Threads: any.
/// Errors: RUNTIME_MISSING, RUNTIME_FAILED, INVALID_ARGUMENT, UNSUPPORTED, OUT_OF_MEMORY; `*out`
/// is then NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dwf_sampler_new(
    model: *const dwf_model,
    options: *const dwf_sampler_options,
    out: *mut *mut dwf_sampler,
    err: *mut c_char,
    err_cap: usize,
) -> dwf_status {
    // SAFETY: the caller's promise.
    unsafe {
        create(out, err, err_cap, || {
            let model = required(model, "model")?;
            let sampler = Sampler::new(&model.model, &sampler_options(options)?)?;
            Ok(dwf_sampler::new(sampler))
        })
    }
}

/// Writes what the sampler chose and holds to `*info`, whose `struct_size` is set.
///
/// Ownership: strings in `info` live as long as the sampler. Nullable: err.
/// Threads: one at a time. Errors: INVALID_ARGUMENT, BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dwf_sampler_get_info(
    sampler: *const dwf_sampler,
    info: *mut dwf_sampler_info,
    err: *mut c_char,
    err_cap: usize,
) -> dwf_status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(err, err_cap, || {
            let handle = required(sampler, "sampler")?;
            let value = handle.with(|sampler| Ok(handle.info(sampler)))?;
            write_struct(info, &value)
        })
    }
}

/// Generates `options.count` networks into `buffer`.
///
/// Nothing is written before all arguments are checked. If the call fails after that, every
/// weight of the networks it had written, and of those it was working on, is NaN.
///
/// Ownership: nothing is kept. Nullable: options, err.
/// Threads: one at a time on a sampler; many samplers on one model run at once.
/// Units: `row_stride` in elements, sizes in bytes.
/// Errors: INVALID_ARGUMENT, BUFFER_TOO_SMALL, DIVERGED, CANCELLED, BUSY, UNSUPPORTED,
/// RUNTIME_FAILED, OUT_OF_MEMORY, INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dwf_sample(
    sampler: *mut dwf_sampler,
    options: *const dwf_sample_options,
    buffer: *const dwf_buffer,
    err: *mut c_char,
    err_cap: usize,
) -> dwf_status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(err, err_cap, || {
            let handle = required(sampler.cast_const(), "sampler")?;
            let options = read_struct(options)?;
            let buffer = read_struct(required(buffer, "buffer")?)?;
            handle.with(|sampler| sample(sampler, &options, &buffer))
        })
    }
}

/// Frees a sampler.
///
/// Nullable: sampler. Threads: any, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dwf_sampler_free(sampler: *mut dwf_sampler) {
    // SAFETY: the caller's promise.
    unsafe { free(sampler) }
}

/// A caller's pointer, handed back on any thread.
struct User(*mut c_void);
// SAFETY: `dwf_set_log` asks for a pointer that is usable from any thread.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

/// The shared end of the functions that make a handle.
unsafe fn create<T>(
    out: *mut *mut T,
    err: *mut c_char,
    err_cap: usize,
    new: impl FnOnce() -> Result<T>,
) -> dwf_status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(err, err_cap, || {
            if out.is_null() {
                return Err(null("out"));
            }
            out.write(ptr::null_mut());
            out.write(Box::into_raw(Box::new(new()?)));
            Ok(())
        })
    }
}

unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        // A panic while freeing has nobody to be told to.
        // SAFETY: the caller's promise: a live handle of ours.
        let _ = catch(|| drop(unsafe { Box::from_raw(handle) }));
    }
}

unsafe fn model_options(options: *const dwf_model_options) -> Result<ModelOptions> {
    // SAFETY: the caller's promise.
    let options = unsafe { read_struct(options) }?;
    Ok(ModelOptions {
        copy: switch("copy", options.copy)?,
        verify: switch("verify", options.verify)?,
        memory_limit: options.memory_limit,
    })
}

unsafe fn sampler_options(options: *const dwf_sampler_options) -> Result<SamplerOptions> {
    // SAFETY: the caller's promise.
    unsafe {
        let options = read_struct(options)?;
        Ok(SamplerOptions {
            onnxruntime: path(options.onnxruntime)?.map(Into::into),
            device: choice("device", options.device, Device::from_code)?,
            threads: options.threads as usize,
            max_batch: options.max_batch as usize,
            memory_limit: options.memory_limit,
            device_id: options.device_id,
            gpu_memory_limit: options.gpu_memory_limit,
        })
    }
}

unsafe fn sample(
    sampler: &mut Sampler,
    options: &dwf_sample_options,
    buffer: &dwf_buffer,
) -> Result<()> {
    let mut report = |progress: crate::Progress| {
        let Some(callback) = options.progress else {
            return Flow::Continue;
        };
        // SAFETY: the caller's function with the caller's pointer.
        match unsafe { callback(options.progress_user, progress.done, progress.total) } {
            0 => Flow::Continue,
            _ => Flow::Cancel,
        }
    };
    let metadata = sampler.model().metadata();
    let condition_size = metadata.condition.as_ref().map_or(0, |c| c.size());
    // SAFETY: the caller's promise.
    let condition = unsafe { condition(options, condition_size) }?;
    let solver = solver(options, metadata.solver.solver())?;
    let count = options.count.max(1);
    // SAFETY: the caller's promise.
    let output = unsafe { output(buffer, count) }?;
    let options = SampleOptions {
        seed: options.seed,
        first_index: options.first_index,
        count,
        solver: Some(solver),
        condition,
        guidance: if options.guidance == 0.0 {
            1.0
        } else {
            options.guidance
        },
        progress: options.progress.is_some().then_some(&mut report),
    };
    sampler.sample(options, output)
}

unsafe fn condition<'a>(options: &dwf_sample_options, size: usize) -> Result<Option<&'a [f32]>> {
    if options.condition.is_null() {
        return match options.condition_rows {
            0 => Ok(None),
            rows => Err(Error::argument(format!(
                "condition is NULL, but condition_rows is {rows}"
            ))),
        };
    }
    let len = options
        .condition_rows
        .checked_mul(size)
        .filter(|len| *len <= isize::MAX as usize / size_of::<f32>())
        .ok_or_else(|| Error::argument("condition_rows is too large"))?;
    if !options.condition.is_aligned() {
        return Err(Error::argument("condition is not aligned to 4 bytes"));
    }
    // SAFETY: the caller's promise.
    Ok(Some(unsafe {
        slice::from_raw_parts(options.condition, len)
    }))
}

/// The artifact's solver with the options that are set in its place.
fn solver(options: &dwf_sample_options, default: Solver) -> Result<Solver> {
    Ok(Solver {
        method: match options.solver {
            0 => default.method,
            code => choice("solver", code, Method::from_code)?,
        },
        grid: match options.grid {
            0 => default.grid,
            code => choice("grid", code, Grid::from_code)?,
        },
        steps: match options.steps {
            0 => default.steps,
            steps => usize::try_from(steps).unwrap_or(usize::MAX),
        },
        tolerance: match options.tolerance {
            0.0 => default.tolerance,
            tolerance => tolerance,
        },
    })
}

unsafe fn output<'a>(buffer: &dwf_buffer, count: usize) -> Result<Output<'a>> {
    let dtype = choice("buffer dtype", buffer.dtype, DType::from_code)?;
    let device = choice("buffer device_type", buffer.device_type, Device::from_code)?;
    let device_id = match device {
        Device::Cuda => 0,
        _ => buffer.device_id as u32,
    };
    for (name, value) in [("reserved", buffer.reserved), ("device_id", device_id)] {
        if value != 0 {
            return Err(Error::argument(format!("dwf_buffer.{name} is not zero")));
        }
    }
    let on_device = |output: Output<'a>| match device {
        Device::Cuda => output.on_gpu(buffer.device_id),
        _ => output,
    };
    // SAFETY: the caller's promise.
    unsafe {
        if buffer.tensors.is_null() {
            if buffer.tensor_count != 0 || !buffer.tensor_sizes.is_null() {
                return Err(Error::argument(
                    "dwf_buffer.tensors is NULL, but tensor_sizes or tensor_count is set",
                ));
            }
            let output = Output::from_raw(buffer.data.cast(), buffer.size_bytes, dtype);
            let output = on_device(output);
            return Ok(match buffer.row_stride {
                0 => output,
                stride => output.with_row_stride(stride),
            });
        }
        if !buffer.data.is_null() {
            return Err(Error::argument(
                "dwf_buffer has both data and tensors; set one to NULL",
            ));
        }
        if buffer.tensor_sizes.is_null() {
            return Err(null("dwf_buffer.tensor_sizes"));
        }
        if !buffer.tensors.is_aligned() || !buffer.tensor_sizes.is_aligned() {
            return Err(Error::argument(
                "dwf_buffer.tensors or tensor_sizes is not aligned to its elements",
            ));
        }
        let pointers = count
            .checked_mul(buffer.tensor_count)
            .filter(|len| *len <= isize::MAX as usize / size_of::<*mut u8>())
            .ok_or_else(|| Error::argument("dwf_buffer.tensor_count is too large"))?;
        Ok(on_device(Output::from_raw_tensors(
            slice::from_raw_parts(buffer.tensors.cast(), pointers),
            slice::from_raw_parts(buffer.tensor_sizes, buffer.tensor_count),
            dtype,
        )))
    }
}

fn choice<T>(name: &str, code: u32, from_code: impl FnOnce(u32) -> Option<T>) -> Result<T> {
    from_code(code)
        .ok_or_else(|| Error::argument(format!("{name} {code} is not one of its values")))
}

impl dwf_model {
    fn new(model: Model) -> Self {
        let metadata = model.metadata();
        let tensors = metadata.layout.tensors();
        let names = tensors.iter().map(|spec| c_string(&spec.name)).collect();
        let shapes = tensors
            .iter()
            .map(|spec| spec.shape.iter().map(|dim| *dim as u64).collect())
            .collect();
        let json = |value: serde_json::Result<String>| c_string(&value.unwrap_or_default());
        Self {
            names,
            shapes,
            quality: json(serde_json::to_string(&metadata.quality)),
            provenance: json(serde_json::to_string(&metadata.provenance)),
            condition: metadata
                .condition
                .as_ref()
                .map(|condition| json(serde_json::to_string(condition))),
            columns: metadata
                .condition
                .as_ref()
                .map(Columns::new)
                .unwrap_or_default(),
            model,
        }
    }

    fn info(&self) -> dwf_model_info {
        let metadata = self.model.metadata();
        let condition = metadata.condition.as_ref();
        dwf_model_info {
            struct_size: size_of::<dwf_model_info>(),
            weight_count: metadata.layout.len() as u64,
            tensor_count: metadata.layout.tensors().len() as u64,
            latent_size: self.model.latent() as u64,
            condition_size: condition.map_or(0, |condition| condition.size() as u64),
            steps: metadata.solver.steps as u64,
            evaluations: metadata.solver.solver().evaluations().unwrap_or(0) as u64,
            solver_error: metadata.solver.relative_error.unwrap_or(f64::NAN),
            source_std: metadata.source.std,
            solver: metadata.solver.method as u32,
            grid: metadata.solver.grid as u32,
            basis: metadata.basis as u32,
            unconditional: condition
                .is_none_or(|condition| condition.unconditional.is_some())
                .into(),
            quality: self.quality.as_ptr(),
            provenance: self.provenance.as_ptr(),
            condition: self
                .condition
                .as_ref()
                .map_or(ptr::null(), |text| text.as_ptr()),
            condition_names: or_null(&self.columns.pointers),
            condition_min: or_null(&self.columns.min),
            condition_max: or_null(&self.columns.max),
        }
    }

    fn tensor(&self, index: usize) -> Result<dwf_tensor_info> {
        let tensors = self.model.metadata().layout.tensors();
        let spec = tensors.get(index).ok_or_else(|| {
            Error::argument(format!(
                "tensor {index}; the network has {}, counted from 0",
                tensors.len()
            ))
        })?;
        Ok(dwf_tensor_info {
            struct_size: size_of::<dwf_tensor_info>(),
            name: self.names[index].as_ptr(),
            shape: self.shapes[index].as_ptr(),
            offset: spec.offset as u64,
            count: spec.count() as u64,
            rank: spec.shape.len() as u32,
            dtype: spec.dtype as u32,
            kind: spec.kind as u32,
            reserved: 0,
        })
    }
}

impl dwf_sampler {
    fn new(sampler: Sampler) -> Self {
        let info = sampler.info();
        Self {
            sampler: Mutex::new(sampler),
            onnxruntime_version: c_string(info.onnxruntime_version),
            onnxruntime_path: c_string(&info.onnxruntime_path.to_string_lossy()),
            provider: c_string(info.provider),
            fault: OnceLock::new(),
        }
    }

    /// Runs `body` on the sampler, if nobody else does and no panic has befallen it.
    fn with<T>(&self, body: impl FnOnce(&mut Sampler) -> Result<T>) -> Result<T> {
        if let Some(message) = self.fault.get() {
            return Err(internal(message));
        }
        let mut sampler = match self.sampler.try_lock() {
            Ok(sampler) => sampler,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    Status::Busy,
                    "the sampler is in use; make one a thread, models are shared",
                ));
            }
        };
        catch(|| body(&mut sampler))
            .unwrap_or_else(|message| Err(internal(self.fault.get_or_init(|| message))))
    }

    fn info(&self, sampler: &Sampler) -> dwf_sampler_info {
        let info = sampler.info();
        let metadata = sampler.model().metadata();
        dwf_sampler_info {
            struct_size: size_of::<dwf_sampler_info>(),
            workspace_bytes: info.workspace_bytes as u64,
            device: info.device as u32,
            device_id: info.device_id,
            threads: info.threads as u32,
            max_batch: info.max_batch as u32,
            onnxruntime_version: self.onnxruntime_version.as_ptr(),
            onnxruntime_path: self.onnxruntime_path.as_ptr(),
            weight_count: metadata.layout.len() as u64,
            tensor_count: metadata.layout.tensors().len() as u64,
            condition_size: metadata.condition.as_ref().map_or(0, |c| c.size() as u64),
            provider: self.provider.as_ptr(),
            gpu_bytes: info.gpu_bytes as u64,
            evaluations: info.solver.evaluations().unwrap_or(0) as u64,
            solver: info.solver.method as u32,
            basis_streamed: info.basis_streamed.into(),
        }
    }
}

/// The text up to its first NUL.
fn c_string(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panic inside a call is reported, silences the handle for good, and lets it be freed.
    #[test]
    fn a_panic_poisons_the_handle() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/iris/iris.onnx");
        let model = Model::open(path, &ModelOptions::default()).unwrap();
        let sampler = Sampler::new(&model, &SamplerOptions::default()).unwrap();
        let handle = Box::into_raw(Box::new(dwf_sampler::new(sampler)));
        let mut err = [0 as c_char; 256];
        let mut weights = vec![7f32; 131];
        let buffer = dwf_buffer {
            struct_size: size_of::<dwf_buffer>(),
            data: weights.as_mut_ptr().cast(),
            size_bytes: 131 * size_of::<f32>(),
            row_stride: 0,
            dtype: DWF_DTYPE_F32,
            device_type: DWF_DEVICE_AUTO,
            device_id: 0,
            reserved: 0,
            tensors: ptr::null(),
            tensor_sizes: ptr::null(),
            tensor_count: 0,
        };
        // SAFETY: the handle is live, the buffers are as long as they say.
        unsafe {
            let status = guard(err.as_mut_ptr(), err.len(), || {
                (*handle).with(|_| -> Result<()> { panic!("a planted panic") })
            });
            assert_eq!(status, DWF_INTERNAL);
            for _ in 0..2 {
                let text = CStr::from_ptr(err.as_ptr()).to_str().unwrap();
                assert!(text.contains("a planted panic"), "{text}");
                err[0] = 0;
                let status = dwf_sample(handle, ptr::null(), &buffer, err.as_mut_ptr(), err.len());
                assert_eq!(status, DWF_INTERNAL);
            }
            dwf_sampler_free(handle);
        }
        assert_eq!(weights, [7f32; 131]);
    }
}
