//! Sessions of ONNX Runtime on its raw bindings, and memory bound to their inputs and outputs.

use std::{
    ffi::{CString, c_char, c_int, c_void},
    mem::ManuallyDrop,
    ptr::{NonNull, null, null_mut},
    slice,
    sync::Arc,
    thread::ThreadId,
};

use ort::sys;
use prost::Message;

use crate::{
    device::cuda,
    error::{Error, Result, Status},
    layout::DType,
    model::Model,
    onnx::{GraphProto, ModelProto, TensorProto, data_type},
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
owned!(
    CudaOptions,
    OrtCUDAProviderOptionsV2,
    ReleaseCUDAProviderOptions
);
owned!(RunOptions, OrtRunOptions, ReleaseRunOptions);
owned!(OrtSession, OrtSession, ReleaseSession);
owned!(OrtBinding, OrtIoBinding, ReleaseIoBinding);
owned!(OrtTensor, OrtValue, ReleaseValue);
owned!(
    OrtShape,
    OrtTensorTypeAndShapeInfo,
    ReleaseTensorTypeAndShapeInfo
);
owned!(MemoryInfo, OrtMemoryInfo, ReleaseMemoryInfo);

/// The name of ONNX Runtime's CUDA provider.
pub(crate) const CUDA_PROVIDER: &str = "CUDAExecutionProvider";

/// The name of its provider for processors.
pub(crate) const CPU_PROVIDER: &str = "CPUExecutionProvider";

/// Where a session computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    /// On the thread that runs it: batches run side by side instead, which needs no
    /// synchronisation within one.
    Cpu,
    /// On a GPU; `record`: as CUDA graphs, recorded by the first run of each graph id.
    Cuda { device_id: i32, record: bool },
}

/// Whether the loaded ONNX Runtime has `provider`.
pub(crate) fn has_provider(provider: &str) -> Result<bool> {
    let api = ort::api();
    let (mut names, mut count) = (null_mut(), 0 as c_int);
    // SAFETY: the array has `count` C strings until it is released.
    unsafe {
        check((api.GetAvailableProviders)(&mut names, &mut count))?;
        let list: &[*mut c_char] = match count {
            0 => &[],
            count => slice::from_raw_parts(names, count as usize),
        };
        let found = list
            .iter()
            .any(|name| std::ffi::CStr::from_ptr(*name).to_bytes() == provider.as_bytes());
        check((api.ReleaseAvailableProviders)(names, count))?;
        Ok(found)
    }
}

/// A graph, loaded.
pub(crate) struct Session {
    // Field order is drop order: the initialisers lie in the model's mapping.
    session: ManuallyDrop<OrtSession>,
    host: MemoryInfo,
    /// The memory that a GPU's tensors lie in; on the CPU, the host's too.
    device: MemoryInfo,
    provider: Provider,
    model: Model,
}

// SAFETY: ONNX Runtime lets one session run on many threads at once, and the memory descriptions
// are constant.
unsafe impl Sync for Session {}

impl Session {
    /// Loads `graph`, whose external initialisers lie in `model`'s sidecar.
    ///
    /// Errors: RUNTIME_FAILED in ONNX Runtime's own words; RUNTIME_MISSING if the provider cannot
    /// be loaded.
    pub(crate) fn new(
        runtime: &Runtime,
        model: &Model,
        graph: GraphProto,
        provider: Provider,
    ) -> Result<Self> {
        let host = host_memory()?;
        let device = match provider {
            Provider::Cpu => host_memory()?,
            Provider::Cuda { device_id, .. } => cuda_memory(device_id)?,
        };
        let options = session_options(provider)?;
        Initializers::new(&graph, model, &host)?.add_to(&options)?;
        let bytes = ModelProto {
            graph: Some(graph),
            ..model.description().graph.clone()
        }
        .encode_to_vec();
        let _shared = provider.is_cuda().then(cuda::shared);
        // SAFETY: ONNX Runtime copies the graph; the initialisers' bytes outlive the session,
        // which holds the model.
        let session = OrtSession::create(|out| unsafe {
            (ort::api().CreateSessionFromArray)(
                runtime.env(),
                bytes.as_ptr().cast(),
                bytes.len(),
                options.as_ptr(),
                out,
            )
        })
        .map_err(|e| e.at(model.place()))?;
        Ok(Self {
            session: ManuallyDrop::new(session),
            host,
            device,
            provider,
            model: model.clone(),
        })
    }

    /// Whose initialisers it computes with.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    pub(crate) fn provider(&self) -> Provider {
        self.provider
    }

    /// Runs on `rows` rows of one column of host memory; the outputs, which must be float32
    /// matrices of as many rows. For what is computed once.
    ///
    /// Errors: RUNTIME_FAILED.
    pub(crate) fn compute(
        &self,
        input: &str,
        column: &mut [f32],
        outputs: &[String],
    ) -> Result<Vec<Vec<f32>>> {
        let rows = column.len();
        let shape = [rows, 1];
        let bound = Tensor::new(column.as_mut_ptr().cast(), DType::F32, &shape);
        // SAFETY: the tensor is released before `column` is.
        let tensor = unsafe { bound.value(&self.host) }?;
        let input = c_name(input)?;
        let names: Vec<CString> = outputs
            .iter()
            .map(|name| c_name(name))
            .collect::<Result<_>>()?;
        let pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let mut values = vec![null_mut(); outputs.len()];
        // SAFETY: all arrays have the lengths given; NULL outputs are allocated by ONNX Runtime.
        check(unsafe {
            (ort::api().Run)(
                self.session.as_ptr(),
                null(),
                [input.as_ptr()].as_ptr(),
                [tensor.as_ptr().cast_const()].as_ptr(),
                1,
                pointers.as_ptr(),
                pointers.len(),
                values.as_mut_ptr(),
            )
        })?;
        let values: Vec<OrtTensor> = values
            .into_iter()
            .filter_map(|value| NonNull::new(value).map(OrtTensor))
            .collect();
        values.iter().map(|value| matrix(value, rows)).collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Freeing GPU memory would disturb a recording.
        let _shared = self.provider.is_cuda().then(cuda::shared);
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.session) }
    }
}

impl Provider {
    pub(crate) fn is_cuda(self) -> bool {
        matches!(self, Self::Cuda { .. })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => CPU_PROVIDER,
            Self::Cuda { .. } => CUDA_PROVIDER,
        }
    }
}

/// A copy of a float32 matrix of `rows` rows.
fn matrix(value: &OrtTensor, rows: usize) -> Result<Vec<f32>> {
    let api = ort::api();
    let shape = OrtShape::create(|out| {
        // SAFETY: the value is live, `out` is written.
        unsafe { (api.GetTensorTypeAndShape)(value.as_ptr(), out) }
    })?;
    let mut element = ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    let (mut rank, mut dims) = (0, [0i64; 2]);
    // SAFETY: as above; `dims` has room for what it is asked for.
    unsafe {
        check((api.GetTensorElementType)(shape.as_ptr(), &mut element))?;
        check((api.GetDimensionsCount)(shape.as_ptr(), &mut rank))?;
        if rank == 2 {
            check((api.GetDimensions)(shape.as_ptr(), dims.as_mut_ptr(), rank))?;
        }
    }
    if element != ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
        || rank != 2
        || dims[0] != rows as i64
    {
        return Err(runtime_failed(
            "an output is no float32 matrix of a row a time",
        ));
    }
    let mut data = null_mut();
    // SAFETY: the tensor holds the elements that its shape says.
    unsafe {
        check((api.GetTensorMutableData)(value.as_ptr(), &mut data))?;
        Ok(slice::from_raw_parts(data.cast::<f32>(), rows * dims[1] as usize).to_vec())
    }
}

/// Memory to be bound: of the session's device, row-major.
#[derive(Clone, Copy)]
pub(crate) struct Tensor<'a> {
    data: *mut u8,
    dtype: DType,
    shape: &'a [usize],
}

impl<'a> Tensor<'a> {
    pub(crate) fn new(data: *mut u8, dtype: DType, shape: &'a [usize]) -> Self {
        Self { data, dtype, shape }
    }

    /// # Safety
    /// `data` must outlive the value and every binding that holds it.
    unsafe fn value(&self, memory: &MemoryInfo) -> Result<OrtTensor> {
        let element = match self.dtype {
            DType::F32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
            DType::F16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
            DType::Bf16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        };
        let dims: Vec<i64> = self.shape.iter().map(|dim| *dim as i64).collect();
        let bytes = self.shape.iter().product::<usize>() * self.dtype.size();
        tensor(memory, self.data.cast(), bytes, &dims, element)
    }
}

/// A session's inputs and outputs, each bound to memory.
pub(crate) struct Binding {
    binding: OrtBinding,
    options: Option<RunOptions>,
    /// Whose runs replay the CUDA graph: ONNX Runtime keeps one a thread.
    recorded: Option<ThreadId>,
    session: Arc<Session>,
}

impl Binding {
    pub(crate) fn new(session: &Arc<Session>) -> Result<Self> {
        // SAFETY: the session is live, and held by what is made.
        let binding = OrtBinding::create(|out| unsafe {
            (ort::api().CreateIoBinding)(session.session.as_ptr(), out)
        })?;
        Ok(Self {
            binding,
            options: None,
            recorded: None,
            session: session.clone(),
        })
    }

    /// # Safety
    /// The memory outlives the binding, and nobody writes it during a run.
    pub(crate) unsafe fn input(&mut self, name: &str, tensor: Tensor) -> Result<()> {
        let name = c_name(name)?;
        // SAFETY: the caller's promise.
        unsafe {
            let value = tensor.value(&self.session.device)?;
            check((ort::api().BindInput)(
                self.binding.as_ptr(),
                name.as_ptr(),
                value.as_ptr(),
            ))
        }
    }

    /// # Safety
    /// The memory outlives the binding, is bound to nothing else, and nobody uses it during a run.
    pub(crate) unsafe fn output(&mut self, name: &str, tensor: Tensor) -> Result<()> {
        let name = c_name(name)?;
        // SAFETY: the caller's promise.
        unsafe {
            let value = tensor.value(&self.session.device)?;
            check((ort::api().BindOutput)(
                self.binding.as_ptr(),
                name.as_ptr(),
                value.as_ptr(),
            ))
        }
    }

    /// Gives the CUDA graph of these shapes and addresses its number, from 1 on. The first run
    /// records it.
    pub(crate) fn set_graph(&mut self, id: usize) -> Result<()> {
        let api = ort::api();
        let id = c_name(&id.to_string())?;
        // SAFETY: `out` is written; the strings are copied.
        let options = RunOptions::create(|out| unsafe { (api.CreateRunOptions)(out) })?;
        check(unsafe {
            (api.AddRunConfigEntry)(options.as_ptr(), c"gpu_graph_id".as_ptr(), id.as_ptr())
        })?;
        self.options = Some(options);
        Ok(())
    }

    /// Computes the outputs from the inputs, and waits for them.
    ///
    /// Errors: RUNTIME_FAILED.
    pub(crate) fn run(&mut self) -> Result<()> {
        let thread = std::thread::current().id();
        let (on_gpu, records) = match self.session.provider {
            Provider::Cpu => (false, false),
            Provider::Cuda { record, .. } => (true, record && self.recorded != Some(thread)),
        };
        let _exclusive = records.then(cuda::exclusive);
        let _shared = (on_gpu && !records).then(cuda::shared);
        let options = self
            .options
            .as_ref()
            .map_or(null(), |o| o.as_ptr().cast_const());
        // SAFETY: the binding belongs to this session, and its memory is as `input` and `output`
        // ask for.
        check(unsafe {
            (ort::api().RunWithBinding)(
                self.session.session.as_ptr(),
                options,
                self.binding.as_ptr(),
            )
        })?;
        self.recorded = Some(thread);
        Ok(())
    }
}

/// A graph's external initialisers as ONNX Runtime values over the artifact's mapping.
struct Initializers {
    names: Vec<CString>,
    values: Vec<OrtTensor>,
}

impl Initializers {
    fn new(graph: &GraphProto, model: &Model, memory: &MemoryInfo) -> Result<Self> {
        let external = || {
            graph
                .initializer
                .iter()
                .filter(|tensor| tensor.is_external())
        };
        Ok(Self {
            names: external()
                .map(|tensor| c_name(tensor.name()))
                .collect::<Result<_>>()?,
            values: external()
                .map(|tensor| external_tensor(tensor, model, memory))
                .collect::<Result<_>>()?,
        })
    }

    /// Hands the values to ONNX Runtime, so that it opens no file itself.
    fn add_to(&self, options: &SessionOptions) -> Result<()> {
        let names: Vec<_> = self.names.iter().map(|name| name.as_ptr()).collect();
        let values: Vec<_> = self
            .values
            .iter()
            .map(|value| value.as_ptr().cast_const())
            .collect();
        if names.is_empty() {
            return Ok(());
        }
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

/// A value over read-only bytes of the sidecar; initialisers are never written. Opening the
/// artifact has checked that they lie in it.
fn external_tensor(tensor: &TensorProto, model: &Model, memory: &MemoryInfo) -> Result<OrtTensor> {
    let number = |key| {
        tensor
            .external(key)
            .and_then(|text| text.parse::<usize>().ok())
    };
    let bytes = number("offset")
        .zip(number("length"))
        .and_then(|(start, length)| model.sidecar().get(start..start.checked_add(length)?))
        .ok_or_else(|| {
            Error::artifact(format!(
                "initialiser '{}' lies outside the sidecar",
                tensor.name()
            ))
        })?;
    let element = match tensor.data_type() {
        data_type::FLOAT16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        _ => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
    };
    let data = bytes.as_ptr().cast_mut().cast();
    self::tensor(memory, data, bytes.len(), &tensor.dims, element)
}

fn session_options(provider: Provider) -> Result<SessionOptions> {
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
    if let Provider::Cuda { device_id, record } = provider {
        add_cuda(&options, device_id, record).map_err(|e| {
            Error::new(
                Status::RuntimeMissing,
                format!("the CUDA provider cannot be used: {e}"),
            )
        })?;
    }
    Ok(options)
}

/// ONNX Runtime's CUDA provider, in front of the CPU's.
fn add_cuda(options: &SessionOptions, device_id: i32, record: bool) -> Result<()> {
    let api = ort::api();
    let device_id = c_name(&device_id.to_string())?;
    let entries = [
        (c"device_id", device_id.as_c_str()),
        (c"enable_cuda_graph", if record { c"1" } else { c"0" }),
        // The state and the decoder are float32, and mean it.
        (c"use_tf32", c"0"),
        (c"arena_extend_strategy", c"kSameAsRequested"),
    ];
    let keys = entries.map(|(key, _)| key.as_ptr());
    let values = entries.map(|(_, value)| value.as_ptr());
    // SAFETY: `out` is written before it is read; both arrays have `len` strings, which are copied.
    unsafe {
        let cuda = CudaOptions::create(|out| (api.CreateCUDAProviderOptions)(out))?;
        check((api.UpdateCUDAProviderOptions)(
            cuda.as_ptr(),
            keys.as_ptr(),
            values.as_ptr(),
            keys.len(),
        ))?;
        let _shared = cuda::shared();
        check((api.SessionOptionsAppendExecutionProvider_CUDA_V2)(
            options.as_ptr(),
            cuda.as_ptr(),
        ))
    }
}

fn host_memory() -> Result<MemoryInfo> {
    // SAFETY: `out` is written before it is read.
    MemoryInfo::create(|out| unsafe {
        (ort::api().CreateCpuMemoryInfo)(
            sys::OrtAllocatorType::OrtDeviceAllocator,
            sys::OrtMemType::OrtMemTypeDefault,
            out,
        )
    })
}

fn cuda_memory(device_id: i32) -> Result<MemoryInfo> {
    // SAFETY: `out` is written before it is read; the name is a constant.
    MemoryInfo::create(|out| unsafe {
        (ort::api().CreateMemoryInfo)(
            c"Cuda".as_ptr(),
            sys::OrtAllocatorType::OrtDeviceAllocator,
            device_id,
            sys::OrtMemType::OrtMemTypeDefault,
            out,
        )
    })
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

fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::artifact("a name in the graph has a NUL in it"))
}
