//! The cases through the C ABI, as a C program would write them.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    os::unix::ffi::OsStrExt,
    ptr, slice,
};

use dwf::capi::*;
use serde_json::{Value, json};

use super::{Case, Host, Memory, Op, Outcome};

pub struct CAbi;

impl Host for CAbi {
    const NAME: &str = "c";

    fn run(&self, case: &Case) -> Option<Outcome> {
        let mut outcome = Outcome::default();
        if let Some(model) = Model::open(case, &mut outcome) {
            match case.op {
                Op::Open => {}
                Op::Info => outcome.info = Some(model.info_json()),
                Op::Tensors => outcome.tensors = Some(model.tensors_json()),
                Op::Sample | Op::Cancel | Op::Busy => sample(case, &model, &mut outcome),
            }
        }
        Some(outcome)
    }
}

/// Memory for an error's text.
type Text = [c_char; 512];

impl Outcome {
    /// Makes a call, which gets `err` and `err_cap`, and keeps what it says.
    fn call(&mut self, call: impl FnOnce(*mut c_char, usize) -> dwf_status) -> bool {
        let mut text: Text = [1; 512];
        let status = call(text.as_mut_ptr(), text.len());
        self.status = status_name(status);
        self.error = string(text.as_ptr()).unwrap();
        status == DWF_OK
    }
}

fn status_name(status: dwf_status) -> String {
    string(dwf_status_name(status)).unwrap()
}

/// A string of the library's; `None` for NULL.
fn string(text: *const c_char) -> Option<String> {
    // SAFETY: the library terminates its strings.
    let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
    text.map(|text| text.to_str().unwrap().to_owned())
}

/// An array of the library's, element by element; `None` for NULL.
fn array<T: Copy, V: Into<Value>>(at: *const T, len: u64, value: fn(T) -> V) -> Option<Value> {
    // SAFETY: so many elements, which live as long as the model.
    let array = (!at.is_null()).then(|| unsafe { slice::from_raw_parts(at, len as usize) });
    array.map(|array| array.iter().map(|element| value(*element)).collect())
}

/// A zeroed struct of the ABI with its size.
macro_rules! new {
    ($name:ident) => {{
        // SAFETY: zero is valid for every field.
        let mut value: $name = unsafe { std::mem::zeroed() };
        value.struct_size = size_of::<$name>();
        value
    }};
}

struct Model(*mut dwf_model);

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: it is freed once.
        unsafe { dwf_model_free(self.0) }
    }
}

impl Model {
    fn open(case: &Case, outcome: &mut Outcome) -> Option<Self> {
        let path = CString::new(case.path().as_os_str().as_bytes()).unwrap();
        let mut model = ptr::null_mut();
        // SAFETY: every pointer is valid for the call.
        let ok = outcome.call(|err, cap| unsafe {
            dwf_model_open(path.as_ptr(), ptr::null(), &mut model, err, cap)
        });
        assert_eq!(ok, !model.is_null());
        ok.then_some(Self(model))
    }

    fn info(&self) -> dwf_model_info {
        let mut info = new!(dwf_model_info);
        // SAFETY: every pointer is valid for the call.
        let status = unsafe { dwf_model_get_info(self.0, &mut info, ptr::null_mut(), 0) };
        assert_eq!(status, DWF_OK);
        info
    }

    fn tensors(&self) -> Vec<dwf_tensor_info> {
        let count = self.info().tensor_count as usize;
        let tensor = |i| {
            let mut tensor = new!(dwf_tensor_info);
            // SAFETY: every pointer is valid for the call.
            let status =
                unsafe { dwf_model_get_tensor(self.0, i, &mut tensor, ptr::null_mut(), 0) };
            assert_eq!(status, DWF_OK);
            tensor
        };
        (0..count).map(tensor).collect()
    }

    fn info_json(&self) -> Value {
        let info = self.info();
        json!({
            "weight_count": info.weight_count,
            "tensor_count": info.tensor_count,
            "latent_size": info.latent_size,
            "condition_size": info.condition_size,
            "steps": info.steps,
            "evaluations": info.evaluations,
            "solver_error": info.solver_error,
            "source_std": info.source_std,
            "solver": info.solver,
            "grid": info.grid,
            "basis": info.basis,
            "unconditional": info.unconditional,
            "quality": string(info.quality),
            "provenance": string(info.provenance),
            "condition": string(info.condition),
            "condition_names": array(info.condition_names, info.condition_size, string),
            "condition_min": array(info.condition_min, info.condition_size, f64::from),
            "condition_max": array(info.condition_max, info.condition_size, f64::from),
        })
    }

    fn tensors_json(&self) -> Value {
        let tensor = |tensor: dwf_tensor_info| {
            // SAFETY: `rank` numbers, which live as long as the model.
            let shape = unsafe { slice::from_raw_parts(tensor.shape, tensor.rank as usize) };
            json!({
                "name": string(tensor.name),
                "shape": shape,
                "offset": tensor.offset,
                "count": tensor.count,
                "dtype": tensor.dtype,
                "kind": tensor.kind,
            })
        };
        self.tensors().into_iter().map(tensor).collect()
    }
}

struct Sampler(*mut dwf_sampler);

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: it is freed once.
        unsafe { dwf_sampler_free(self.0) }
    }
}

impl Sampler {
    fn new(model: &Model) -> Self {
        let mut options = new!(dwf_sampler_options);
        (options.threads, options.max_batch) = (1, 4);
        let mut sampler = ptr::null_mut();
        let mut outcome = Outcome::default();
        // SAFETY: every pointer is valid for the call.
        let ok = outcome
            .call(|err, cap| unsafe { dwf_sampler_new(model.0, &options, &mut sampler, err, cap) });
        assert!(ok, "{}", outcome.error);
        Self(sampler)
    }
}

/// What the progress callback needs.
struct Watch<'a> {
    case: &'a Case,
    sampler: *mut dwf_sampler,
    tensors: &'a [usize],
    calls: u64,
    total: u64,
    nested_status: Option<String>,
}

unsafe extern "C" fn progress(user: *mut c_void, done: u64, total: u64) -> i32 {
    // SAFETY: `sample` hands over its own and leaves it alone during the call.
    let watch = unsafe { &mut *user.cast::<Watch>() };
    watch.calls += 1;
    watch.total = total;
    if watch.case.op == Op::Busy && done == 0 {
        let mut nested = Outcome::default();
        let mut memory = Memory::new(watch.case, watch.tensors);
        with_buffer(watch.case, watch.tensors, &mut memory, |buffer| {
            // SAFETY: a sampler may be used while it is in use; it says BUSY.
            nested.call(|err, cap| unsafe {
                dwf_sample(watch.sampler, ptr::null(), buffer, err, cap)
            });
        });
        assert!(memory.is_untouched(), "written while busy");
        watch.nested_status = Some(nested.status);
    }
    i32::from(watch.case.cancel_at == Some(done))
}

fn sample(case: &Case, model: &Model, outcome: &mut Outcome) {
    let sampler = Sampler::new(model);
    let tensors = model.tensors();
    let tensors: Vec<usize> = tensors.iter().map(|t| t.count as usize).collect();
    let mut memory = Memory::new(case, &tensors);
    let mut watch = Watch {
        case,
        sampler: sampler.0,
        tensors: &tensors,
        calls: 0,
        total: 0,
        nested_status: None,
    };
    let mut options = options(case);
    if case.op != Op::Sample {
        options.progress = Some(progress);
        options.progress_user = (&raw mut watch).cast();
    }
    with_buffer(case, &tensors, &mut memory, |buffer| {
        // SAFETY: every pointer is valid for the call.
        outcome.call(|err, cap| unsafe { dwf_sample(sampler.0, &options, buffer, err, cap) });
    });
    outcome.memory = Some(memory);
    (outcome.calls, outcome.total) = (watch.calls, watch.total);
    outcome.nested_status = watch.nested_status;
}

fn options(case: &Case) -> dwf_sample_options {
    let from = &case.options;
    let condition = from.condition.as_deref();
    dwf_sample_options {
        seed: from.seed,
        first_index: from.first_index,
        count: from.count,
        solver: from.solver,
        grid: from.grid,
        steps: from.steps,
        tolerance: from.tolerance,
        condition: condition.map_or(ptr::null(), <[f32]>::as_ptr),
        condition_rows: from.condition_rows,
        guidance: from.guidance,
        ..new!(dwf_sample_options)
    }
}

/// Describes `memory` in the arrangement that the case asks for.
fn with_buffer(case: &Case, tensors: &[usize], memory: &mut Memory, f: impl FnOnce(&dwf_buffer)) {
    let dtype = case.buffer.dtype;
    let pointers: Vec<*mut c_void> = memory.pointers().into_iter().map(<*mut u8>::cast).collect();
    let sizes: Vec<usize> = tensors.iter().map(|len| len * dtype.size()).collect();
    let mut buffer = new!(dwf_buffer);
    buffer.dtype = dtype as u32;
    if case.buffer.scatter {
        buffer.tensors = pointers.as_ptr();
        buffer.tensor_sizes = sizes.as_ptr();
        buffer.tensor_count = sizes.len();
    } else {
        buffer.data = pointers[0];
        buffer.size_bytes = memory.blocks[0].size;
        buffer.row_stride = case.buffer.row_stride.unwrap_or(0);
    }
    f(&buffer);
}
