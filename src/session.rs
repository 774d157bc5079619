//! The velocity network in ONNX Runtime, on its raw bindings over preallocated memory.

use std::{
    ffi::{CString, c_void},
    ptr::{NonNull, null, null_mut},
    sync::Arc,
};

use ort::sys;
use prost::Message;

use crate::{
    artifact::{Float, Weight, value},
    error::{Error, Result},
    memory::{float_bytes, zeros},
    model::Model,
    ode::Velocity,
    runtime::{Runtime, check, runtime_failed},
};

use sys::ONNXTensorElementDataType as ElementType;

/// A nonnull object of ONNX Runtime that is released when dropped.
macro_rules! owned {
    ($name:ident, $sys:ident, $release:ident) => {
        struct $name(NonNull<sys::$sys>);

        impl $name {
            fn create(new: impl FnOnce(*mut *mut sys::$sys) -> sys::OrtStatusPtr) -> Result<Self> {
                let mut ptr = null_mut();
                check(new(&mut ptr))?;
                NonNull::new(ptr)
                    .map(Self)
                    .ok_or_else(|| runtime_failed(concat!("no ", stringify!($sys))))
            }

            fn as_ptr(&self) -> *mut sys::$sys {
                self.0.as_ptr()
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the pointer came from ONNX Runtime and is released once.
                unsafe { (ort::api().$release)(self.as_ptr()) }
            }
        }

        // SAFETY: the object is owned; ONNX Runtime has no thread affinity.
        unsafe impl Send for $name {}
    };
}

owned!(SessionOptions, OrtSessionOptions, ReleaseSessionOptions);
owned!(OrtSession, OrtSession, ReleaseSession);
owned!(OrtBinding, OrtIoBinding, ReleaseIoBinding);
owned!(OrtTensor, OrtValue, ReleaseValue);
owned!(MemoryInfo, OrtMemoryInfo, ReleaseMemoryInfo);

/// The velocity network, loaded; shared by the threads of a sampler.
pub(crate) struct Session {
    // Field order is drop order: the session's initialisers lie in the model's mapping.
    session: OrtSession,
    memory: MemoryInfo,
    model: Model,
}

// SAFETY: ONNX Runtime lets one session run on many threads at once, and the memory description
// is constant.
unsafe impl Sync for Session {}

impl Session {
    /// Loads the velocity network of `model`. Each evaluation runs on the thread that asks for
    /// it: batches run side by side instead, which needs no synchronisation within one.
    ///
    /// Errors: RUNTIME_FAILED in ONNX Runtime's own words.
    pub(crate) fn new(runtime: &Runtime, model: &Model) -> Result<Self> {
        let api = ort::api();
        // SAFETY: `out` is written before it is read.
        let memory = MemoryInfo::create(|out| unsafe {
            (api.CreateCpuMemoryInfo)(
                sys::OrtAllocatorType::OrtDeviceAllocator,
                sys::OrtMemType::OrtMemTypeDefault,
                out,
            )
        })?;
        let options = session_options()?;
        Initializers::new(model, &memory)?.add_to(&options)?;
        let graph = model.description().graph.encode_to_vec();
        // SAFETY: ONNX Runtime copies the graph; the initialisers' bytes outlive the session,
        // which holds the model.
        let session = OrtSession::create(|out| unsafe {
            (api.CreateSessionFromArray)(
                runtime.env(),
                graph.as_ptr().cast(),
                graph.len(),
                options.as_ptr(),
                out,
            )
        })
        .map_err(|e| e.at(model.place()))?;
        Ok(Self {
            session,
            memory,
            model: model.clone(),
        })
    }
}

/// One thread's way into a session: memory that the network reads and writes, bound once.
pub(crate) struct Evaluator {
    // Field order is drop order: the binding points into the buffers and the session.
    binding: Option<((usize, usize), OrtBinding)>,
    buffers: Buffers,
    session: Arc<Session>,
}

/// What a binding points at; never reallocated.
struct Buffers {
    latent: usize,
    condition_size: usize,
    t: Box<[f32]>,
    x: Box<[f32]>,
    condition: Box<[f32]>,
    v: Box<[f32]>,
}

impl Evaluator {
    /// For batches of up to `max_rows` rows.
    ///
    /// Errors: OUT_OF_MEMORY.
    pub(crate) fn new(session: &Arc<Session>, max_rows: usize) -> Result<Self> {
        Ok(Self {
            binding: None,
            buffers: Buffers::new(&session.model, max_rows)?,
            session: session.clone(),
        })
    }

    /// Bytes that the buffers of one will take.
    pub(crate) fn needed(model: &Model, max_rows: usize) -> u64 {
        float_bytes(&Buffers::columns(model).map(|columns| (max_rows, columns)))
    }

    /// Length of a latent vector.
    pub(crate) fn latent(&self) -> usize {
        self.buffers.latent
    }

    /// The conditions of the next evaluation, [rows, condition], for states of `len` elements.
    pub(crate) fn condition_mut(&mut self, len: usize) -> &mut [f32] {
        let rows = len / self.buffers.latent;
        &mut self.buffers.condition[..rows * self.buffers.condition_size]
    }

    /// Bytes of the buffers.
    pub(crate) fn bytes(&self) -> usize {
        let Buffers {
            t, x, condition, v, ..
        } = &self.buffers;
        size_of_val(&t[..])
            + size_of_val(&x[..])
            + size_of_val(&condition[..])
            + size_of_val(&v[..])
    }

    /// A binding for `rows` rows and `times` times; the last one is kept, since most calls repeat
    /// its shape.
    fn binding(&mut self, rows: usize, times: usize) -> Result<*mut sys::OrtIoBinding> {
        if !matches!(&self.binding, Some((bound, _)) if *bound == (rows, times)) {
            self.binding = None;
            self.binding = Some(((rows, times), self.bind(rows, times)?));
        }
        let (_, binding) = self.binding.as_ref().expect("bound above");
        Ok(binding.as_ptr())
    }

    fn bind(&mut self, rows: usize, times: usize) -> Result<OrtBinding> {
        let api = ort::api();
        let Session {
            session, memory, ..
        } = &*self.session;
        // SAFETY: the session is live.
        let binding =
            OrtBinding::create(|out| unsafe { (api.CreateIoBinding)(session.as_ptr(), out) })?;
        let Buffers {
            latent,
            condition_size,
            t,
            x,
            condition,
            v,
        } = &mut self.buffers;
        // SAFETY: the buffers are never reallocated and outlive the binding.
        unsafe {
            let input = |name: &str, data: &mut [f32], shape: [usize; 2]| {
                let tensor = float_tensor(memory, data, shape)?;
                let name = c_name(name);
                check((api.BindInput)(
                    binding.as_ptr(),
                    name.as_ptr(),
                    tensor.as_ptr(),
                ))
            };
            input(value::X, x, [rows, *latent])?;
            input(value::T, t, [times, 1])?;
            if *condition_size > 0 {
                input(value::CONDITION, condition, [rows, *condition_size])?;
            }
            let tensor = float_tensor(memory, v, [rows, *latent])?;
            let name = c_name(value::V);
            check((api.BindOutput)(
                binding.as_ptr(),
                name.as_ptr(),
                tensor.as_ptr(),
            ))?;
        }
        Ok(binding)
    }
}

impl Velocity for Evaluator {
    fn evaluate(&mut self, t: &[f32], x: &[f32], v: &mut [f32]) -> Result<()> {
        let rows = x.len() / self.buffers.latent;
        let binding = self.binding(rows, t.len())?;
        // Copying in and out costs d floats a row against the network's d * h multiplications,
        // and lets the solver own its memory.
        self.buffers.t[..t.len()].copy_from_slice(t);
        self.buffers.x[..x.len()].copy_from_slice(x);
        let session = self.session.session.as_ptr();
        // SAFETY: the binding belongs to this session, and nobody else holds its buffers.
        check(unsafe { (ort::api().RunWithBinding)(session, null(), binding) })?;
        v.copy_from_slice(&self.buffers.v[..x.len()]);
        Ok(())
    }
}

impl Buffers {
    fn new(model: &Model, max_rows: usize) -> Result<Self> {
        let [t, x, condition, v] = Self::columns(model);
        Ok(Self {
            latent: x,
            condition_size: condition,
            t: zeros(max_rows, t)?,
            x: zeros(max_rows, x)?,
            condition: zeros(max_rows, condition)?,
            v: zeros(max_rows, v)?,
        })
    }

    /// Columns of t, x, condition and v.
    fn columns(model: &Model) -> [usize; 4] {
        let condition = &model.metadata().condition;
        let condition = condition.as_ref().map_or(0, |condition| condition.size());
        [1, model.latent(), condition, model.latent()]
    }
}

/// The velocity network's weights as ONNX Runtime values over the artifact's mapping.
struct Initializers {
    names: Vec<CString>,
    values: Vec<OrtTensor>,
}

impl Initializers {
    fn new(model: &Model, memory: &MemoryInfo) -> Result<Self> {
        let weights = &model.description().weights;
        let names = weights
            .iter()
            .map(|weight| {
                CString::new(weight.name.as_str())
                    .map_err(|_| Error::artifact("an initialiser's name has a NUL in it"))
            })
            .collect::<Result<_>>()?;
        let values = weights
            .iter()
            .map(|weight| weight_tensor(memory, weight, &model.sidecar()[weight.bytes.clone()]))
            .collect::<Result<_>>()?;
        Ok(Self { names, values })
    }

    /// Hands the values to ONNX Runtime, so that it opens no file itself.
    fn add_to(&self, options: &SessionOptions) -> Result<()> {
        let names: Vec<_> = self.names.iter().map(|name| name.as_ptr()).collect();
        let values: Vec<_> = self
            .values
            .iter()
            .map(|value| value.as_ptr().cast_const())
            .collect();
        // SAFETY: both arrays have `len` entries; the values are copied by reference count.
        check(unsafe {
            (ort::api().AddExternalInitializers)(
                options.as_ptr(),
                names.as_ptr(),
                values.as_ptr(),
                names.len(),
            )
        })
    }
}

fn session_options() -> Result<SessionOptions> {
    let api = ort::api();
    // SAFETY: `out` is written before it is read.
    let options = SessionOptions::create(|out| unsafe { (api.CreateSessionOptions)(out) })?;
    let ptr = options.as_ptr();
    // SAFETY: `options` is live and the strings are constants.
    unsafe {
        check((api.SetIntraOpNumThreads)(ptr, 1))?;
        check((api.SetInterOpNumThreads)(ptr, 1))?;
        // A game's other threads want the cores that spinning would hold.
        for key in [
            c"session.intra_op.allow_spinning",
            c"session.inter_op.allow_spinning",
        ] {
            check((api.AddSessionConfigEntry)(
                ptr,
                key.as_ptr(),
                c"0".as_ptr(),
            ))?;
        }
    }
    Ok(options)
}

/// A float32 value over the first elements of `data`.
///
/// # Safety
/// `data` must outlive the value and every binding that holds it.
unsafe fn float_tensor(
    memory: &MemoryInfo,
    data: &mut [f32],
    shape: [usize; 2],
) -> Result<OrtTensor> {
    let bytes = shape[0] * shape[1] * size_of::<f32>();
    debug_assert!(bytes <= size_of_val(data));
    let shape = shape.map(|dim| dim as i64);
    tensor(
        memory,
        data.as_mut_ptr().cast(),
        bytes,
        &shape,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
    )
}

/// A value over read-only bytes of the sidecar; initialisers are never written.
fn weight_tensor(memory: &MemoryInfo, weight: &Weight, bytes: &[u8]) -> Result<OrtTensor> {
    let shape: Vec<i64> = weight.shape.iter().map(|dim| *dim as i64).collect();
    let element = match weight.float {
        Float::F32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Float::F16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
    };
    let data = bytes.as_ptr().cast_mut().cast();
    tensor(memory, data, bytes.len(), &shape, element)
}

fn tensor(
    memory: &MemoryInfo,
    data: *mut c_void,
    bytes: usize,
    shape: &[i64],
    element: ElementType,
) -> Result<OrtTensor> {
    // SAFETY: ONNX Runtime checks that `shape` fits into `bytes`; it keeps only the pointer.
    OrtTensor::create(|out| unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            memory.as_ptr(),
            data,
            bytes,
            shape.as_ptr(),
            shape.len(),
            element,
            out,
        )
    })
}

fn c_name(name: &str) -> CString {
    CString::new(name).expect("names of inputs and outputs are constants")
}
