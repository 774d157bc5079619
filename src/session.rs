//! Sessions of ONNX Runtime on its raw bindings, and memory bound to their inputs and outputs.

mod handles;
mod provider;

use std::{
    ffi::{CString, c_void},
    mem::ManuallyDrop,
    ptr::{NonNull, null, null_mut},
    slice,
    sync::Arc,
};

use ort::sys;
use prost::Message;

use crate::{
    device::{Space, cuda},
    error::{Error, Result},
    layout::DType,
    model::Model,
    onnx::{GraphProto, ModelProto, TensorProto, data_type},
    runtime::{Runtime, check, runtime_failed},
};

pub(crate) use provider::has_cuda;

use handles::{
    MemoryInfo, OrtBinding, OrtSession, OrtShape, OrtTensor, RunOptions, SessionOptions,
};
use provider::{cuda_memory, host_memory, provider_name, session_options};
use sys::ONNXTensorElementDataType as ElementType;

/// A graph, loaded.
pub(crate) struct Session {
    // Field order is drop order: the initialisers lie in the model's mapping.
    session: ManuallyDrop<OrtSession>,
    host: MemoryInfo,
    /// The memory that a GPU's tensors lie in; on the CPU, the host's too.
    device: MemoryInfo,
    space: Space,
    /// Whether runs are recorded as CUDA graphs, by the first run of each graph id.
    recorded: bool,
    model: Model,
}

// SAFETY: ONNX Runtime lets one session run on many threads at once, and the memory descriptions
// are constant.
unsafe impl Sync for Session {}

impl Session {
    /// Loads `graph`, whose external initialisers lie in `model`'s sidecar, to compute in `space`:
    /// on the CPU on the thread that runs it, since batches run side by side instead, which needs
    /// no synchronisation within one.
    ///
    /// Errors: RUNTIME_FAILED in ONNX Runtime's own words; RUNTIME_MISSING if the provider cannot
    /// be loaded.
    pub(crate) fn new(
        runtime: &Runtime,
        model: &Model,
        graph: GraphProto,
        space: &Space,
    ) -> Result<Self> {
        Self::load(runtime, model, graph, space, false)
    }

    /// As [`Session::new`]; on a GPU its runs are recorded as CUDA graphs, which takes memory that
    /// stays where it is.
    ///
    /// Errors: as [`Session::new`], and for a graph that does not run on the GPU to its last
    /// operator.
    pub(crate) fn recorded(
        runtime: &Runtime,
        model: &Model,
        graph: GraphProto,
        space: &Space,
    ) -> Result<Self> {
        Self::load(runtime, model, graph, space, true)
    }

    fn load(
        runtime: &Runtime,
        model: &Model,
        graph: GraphProto,
        space: &Space,
        recorded: bool,
    ) -> Result<Self> {
        let host = host_memory()?;
        let device = match space {
            Space::Host => host_memory()?,
            Space::Cuda(gpu) => cuda_memory(gpu.ordinal())?,
        };
        let initializers = Initializers::new(&graph, model, &host)?;
        let bytes = ModelProto {
            graph: Some(graph),
            ..model.description().graph.clone()
        }
        .encode_to_vec();
        let session = space.run(move || {
            let options = session_options(space, recorded)?;
            initializers.add_to(&options)?;
            let _shared = space.is_gpu().then(cuda::shared);
            // SAFETY: ONNX Runtime copies the graph; the initialisers' bytes outlive the session,
            // which holds the model.
            OrtSession::create(|out| unsafe {
                (ort::api().CreateSessionFromArray)(
                    runtime.env(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    options.as_ptr(),
                    out,
                )
            })
            .map_err(|e| e.at(model.place()))
        })?;
        Ok(Self {
            session: ManuallyDrop::new(session),
            host,
            device,
            space: space.clone(),
            recorded,
            model: model.clone(),
        })
    }

    /// Whose initialisers it computes with.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// The name of ONNX Runtime's provider.
    pub(crate) fn provider(&self) -> &'static str {
        provider_name(&self.space)
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
        let Self { session, space, .. } = self;
        space.run(|| {
            // Freeing GPU memory would disturb a recording.
            let _shared = space.is_gpu().then(cuda::shared);
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(session) }
        });
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
    /// Whether a run has been recorded, which the next ones replay.
    recorded: bool,
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
            recorded: false,
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
        // SAFETY: `out` is written before it is read.
        let options = RunOptions::create(|out| unsafe { (api.CreateRunOptions)(out) })?;
        let key = c"gpu_graph_id";
        // SAFETY: the options are live, and both strings are copied.
        check(unsafe { (api.AddRunConfigEntry)(options.as_ptr(), key.as_ptr(), id.as_ptr()) })?;
        self.options = Some(options);
        Ok(())
    }

    /// Computes the outputs from the inputs, and waits for them.
    ///
    /// Errors: RUNTIME_FAILED.
    pub(crate) fn run(&mut self) -> Result<()> {
        let session = self.session.clone();
        session.space.run(|| self.run_here())
    }

    fn run_here(&mut self) -> Result<()> {
        let session = &self.session;
        let on_gpu = session.space.is_gpu();
        let records = session.recorded && !self.recorded;
        let _exclusive = (on_gpu && records).then(cuda::exclusive);
        let _shared = (on_gpu && !records).then(cuda::shared);
        let options = self
            .options
            .as_ref()
            .map_or(null(), |o| o.as_ptr().cast_const());
        // SAFETY: the binding belongs to this session, and its memory is as `input` and `output`
        // ask for.
        check(unsafe {
            (ort::api().RunWithBinding)(session.session.as_ptr(), options, self.binding.as_ptr())
        })?;
        self.recorded = session.recorded;
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
