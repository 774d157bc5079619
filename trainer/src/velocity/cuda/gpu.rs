//! The first NVIDIA GPU: its memory, its products of matrices, and the kernels of kernels.cu.
//!
//! NVIDIA's driver, NVRTC, which compiles the kernels, and cuBLAS are loaded at run time.

use std::{
    ffi::{CStr, CString},
    sync::{Arc, Mutex, PoisonError},
};

use cudarc::{
    cublas::{self, CudaBlas, sys::cublasOperation_t as Operation},
    driver::{
        self, CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError,
        LaunchConfig, PushKernelArg, sys::CUresult,
    },
    nvrtc::{self, Ptx, result::NvrtcError},
};

use super::super::NORM_EPSILON;
use crate::{
    adamw::{BETA1, BETA2, EPSILON},
    error::{Error, Result, Status},
};

/// Threads of a block.
const THREADS: usize = 256;
/// Blocks that add up parts of one sum.
pub(super) const SUMS: usize = 1024;
/// More of them would only wait for one another.
const MOST_BLOCKS: usize = 2048;

/// The GPU, ready to compute.
pub(in super::super) struct Gpu {
    stream: Arc<CudaStream>,
    blas: CudaBlas,
    pub(super) kernels: Kernels,
}

/// Numbers on the GPU.
pub(super) struct Buffer {
    memory: CudaSlice<f32>,
    whole: Place,
}

/// Some of a buffer's numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    address: u64,
    pub(super) length: usize,
}

/// A row-major matrix in a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix {
    place: Place,
    rows: usize,
    columns: usize,
    transposed: bool,
}

/// How a kernel's work is shared.
#[derive(Clone, Copy, Debug)]
pub(super) enum Blocks {
    /// Any number of blocks, for so many elements.
    Elements(usize),
    /// One for each row.
    Rows(usize),
    /// One for each part of a sum.
    Sums,
}

macro_rules! kernels {
    ($($name:ident)*) => {
        /// The functions of kernels.cu.
        pub(super) struct Kernels {
            $(pub(super) $name: CudaFunction,)*
        }

        impl Kernels {
            fn find(module: &Arc<CudaModule>) -> Result<Self, DriverError> {
                Ok(Self { $($name: module.load_function(stringify!($name))?,)* })
            }
        }
    };
}

kernels! {
    bias copy add add_to multiply add_product gelu gelu_back layer_norm layer_norm_back
    layer_norm_weights sum_rows
    difference squares adamw
}

impl Gpu {
    /// The GPU, opened once a process. What failed is tried again.
    ///
    /// Errors: UNSUPPORTED if it or what it needs is missing.
    pub(in super::super) fn open() -> Result<Arc<Self>> {
        static OPENED: Mutex<Option<Arc<Gpu>>> = Mutex::new(None);
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = &*opened {
            return Ok(gpu.clone());
        }
        find_libraries()?;
        let start = |e| {
            let name = name(e);
            unusable(&format!(
                "NVIDIA's driver fails with {name}; look into nvidia-smi"
            ))
        };
        let context = CudaContext::new(0).map_err(start)?;
        let kernels = compile(&context)?;
        let kernels = Kernels::find(&context.load_module(kernels).map_err(start)?);
        let stream = context.default_stream();
        let blas = CudaBlas::new(stream.clone());
        let gpu = Arc::new(Self {
            blas: blas.map_err(|e| {
                unusable(&format!(
                    "cuBLAS fails with {e}; free the GPU's memory, install another"
                ))
            })?,
            kernels: kernels.map_err(start)?,
            stream,
        });
        Ok(opened.insert(gpu).clone())
    }

    /// A buffer of zeros.
    pub(super) fn zeros(&self, length: usize) -> Result<Buffer> {
        // The driver has no memory of no length.
        let memory = self.stream.alloc_zeros(length.max(1)).map_err(failed)?;
        let (address, _) = memory.device_ptr(&self.stream);
        let whole = Place { address, length };
        Ok(Buffer { memory, whole })
    }

    /// A buffer of these numbers.
    pub(super) fn upload(&self, values: &[f32]) -> Result<Buffer> {
        let mut buffer = self.zeros(values.len())?;
        self.write(values, &mut buffer, 0)?;
        Ok(buffer)
    }

    /// The buffer's numbers from `start` on become these.
    pub(super) fn write(&self, values: &[f32], buffer: &mut Buffer, start: usize) -> Result<()> {
        let mut to = buffer.memory.slice_mut(start..start + values.len());
        self.stream.memcpy_htod(values, &mut to).map_err(failed)
    }

    /// What the place holds when all that was asked for before is done.
    pub(super) fn read(&self, place: Place, to: &mut [f32]) -> Result<()> {
        debug_assert_eq!(place.length, to.len());
        // SAFETY: a place is a part of a buffer, as long as `to`; the copy is over at the end.
        unsafe {
            driver::result::memcpy_dtoh_async(to, place.address, self.stream.cu_stream())
                .and_then(|()| self.stream.synchronize())
                .map_err(failed)
        }
    }

    /// The place becomes zeros.
    pub(super) fn clear(&self, place: Place) -> Result<()> {
        let bytes = size_of::<f32>() * place.length;
        // SAFETY: a place is a part of a buffer.
        let cleared = unsafe {
            driver::result::memset_d8_async(place.address, 0, bytes, self.stream.cu_stream())
        };
        cleared.map_err(failed)
    }

    /// Starts a kernel.
    ///
    /// # Safety
    ///
    /// The arguments must be those that it has in kernels.cu: places as large as it takes them to
    /// be, then counts, then numbers.
    pub(super) unsafe fn launch(
        &self,
        kernel: &CudaFunction,
        blocks: Blocks,
        places: &[Place],
        counts: &[usize],
        numbers: &[f32],
    ) -> Result<()> {
        let blocks = match blocks {
            Blocks::Elements(count) => count.div_ceil(THREADS).clamp(1, MOST_BLOCKS),
            Blocks::Rows(count) => count,
            Blocks::Sums => SUMS,
        };
        let config = LaunchConfig {
            grid_dim: (blocks as u32, 1, 1),
            block_dim: (THREADS as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut launch = self.stream.launch_builder(kernel);
        for place in places {
            launch.arg(&place.address);
        }
        for count in counts {
            launch.arg(count);
        }
        for number in numbers {
            launch.arg(number);
        }
        // SAFETY: the caller's.
        unsafe { launch.launch(config) }.map_err(failed)?;
        Ok(())
    }

    /// `to` becomes a b, and what it was is added where `add` says so.
    pub(super) fn product(&self, a: Matrix, b: Matrix, to: Place, add: bool) -> Result<()> {
        let ([rows, inner], [depth, columns]) = (a.size(), b.size());
        debug_assert!(inner == depth && to.length == rows * columns);
        // cuBLAS reads columns where these have rows: of the transposed matrices.
        let (one, start) = (1f32, if add { 1f32 } else { 0f32 });
        // SAFETY: the matrices lie in buffers, and are as large as asserted.
        let done = unsafe {
            cublas::result::sgemm(
                *self.blas.handle(),
                b.operation(),
                a.operation(),
                columns as i32,
                rows as i32,
                inner as i32,
                &one,
                b.place.address as *const f32,
                b.columns as i32,
                a.place.address as *const f32,
                a.columns as i32,
                &start,
                to.address as *mut f32,
                columns as i32,
            )
        };
        done.map_err(|e| Error::new(Status::RuntimeFailed, format!("CUDA: cuBLAS failed: {e}")))
    }
}

impl Buffer {
    /// All of it.
    pub(super) fn whole(&self) -> Place {
        self.whole
    }
}

impl Place {
    /// A part of it.
    pub(super) fn part(self, start: usize, length: usize) -> Self {
        debug_assert!(start + length <= self.length);
        Self {
            address: self.address + (size_of::<f32>() * start) as u64,
            length,
        }
    }

    /// It as a matrix.
    pub(super) fn rows(self, columns: usize) -> Matrix {
        Matrix {
            place: self,
            rows: self.length / columns,
            columns,
            transposed: false,
        }
    }
}

impl Matrix {
    /// Transposed.
    pub(super) fn t(self) -> Self {
        Self {
            transposed: !self.transposed,
            ..self
        }
    }

    fn size(&self) -> [usize; 2] {
        match self.transposed {
            false => [self.rows, self.columns],
            true => [self.columns, self.rows],
        }
    }

    fn operation(&self) -> Operation {
        match self.transposed {
            false => Operation::CUBLAS_OP_N,
            true => Operation::CUBLAS_OP_T,
        }
    }
}

/// Asks for the libraries before anything else does: what cannot load them panics.
fn find_libraries() -> Result<()> {
    // SAFETY: they are NVIDIA's own.
    let [driver, compiler, products] = unsafe {
        [
            driver::sys::is_culib_present(),
            nvrtc::sys::is_culib_present(),
            cublas::sys::is_culib_present(),
        ]
    };
    if !driver {
        return Err(unusable(
            "NVIDIA's driver (libcuda) could not be loaded; install it",
        ));
    }
    let missing = match (compiler, products) {
        (true, true) => return Ok(()),
        (false, true) => "NVRTC (libnvrtc)",
        (true, false) => "cuBLAS (libcublas)",
        (false, false) => "NVRTC (libnvrtc) and cuBLAS (libcublas)",
    };
    Err(unusable(&format!(
        "{missing} of CUDA 12 or 13 could not be loaded; install CUDA, or PyPI's nvidia-cuda-nvrtc \
         and nvidia-cublas, and name the folders of their libraries in LD_LIBRARY_PATH"
    )))
}

/// The kernels, for the GPU at hand.
fn compile(context: &CudaContext) -> Result<Ptx> {
    const SOURCE: &str = include_str!("kernels.cu");
    let refused =
        |why: &dyn std::fmt::Display| unusable(&format!("NVRTC says {why}; install another"));
    let capability = context.compute_capability().map_err(failed)?;
    let source = CString::new(SOURCE).expect("it is text");
    let program = nvrtc::result::create_program(&source, Some(c"kernels.cu"));
    let program = program.map_err(|e| refused(&e))?;
    let options = [
        format!("--gpu-architecture=sm_{}{}", capability.0, capability.1),
        format!("-DTHREADS={THREADS}"),
        format!("-DSUMS={SUMS}"),
        format!("-DNORM_EPSILON={NORM_EPSILON:?}f"),
        format!("-DBETA1={BETA1:?}f"),
        format!("-DBETA2={BETA2:?}f"),
        format!("-DEPSILON={EPSILON:?}f"),
    ];
    // SAFETY: the program is one, until it is destroyed; a log ends with a zero.
    unsafe {
        let compiled = nvrtc::result::compile_program(program, &options);
        let compiled = compiled.map_err(|e| match nvrtc::result::get_program_log(program) {
            Ok(log) => refused(&CStr::from_ptr(log.as_ptr()).to_string_lossy()),
            Err(_) => refused(&e),
        });
        let binary = compiled.and_then(|()| binary(program).map_err(|e| refused(&e)));
        let _ = nvrtc::result::destroy_program(program);
        binary.map(Ptx::from_binary)
    }
}

/// A compiled program, which unlike its PTX does not ask for a driver as new as NVRTC.
///
/// # Safety
///
/// It must be compiled for an sm architecture.
unsafe fn binary(program: nvrtc::sys::nvrtcProgram) -> Result<Vec<u8>, NvrtcError> {
    let mut size = 0;
    // SAFETY: the caller's, and the buffer is as large as NVRTC says.
    unsafe {
        nvrtc::sys::nvrtcGetCUBINSize(program, &mut size).result()?;
        let mut bytes = vec![0u8; size];
        nvrtc::sys::nvrtcGetCUBIN(program, bytes.as_mut_ptr().cast()).result()?;
        Ok(bytes)
    }
}

fn unusable(why: &str) -> Error {
    let message = format!("CUDA cannot be used here: {why}, or use --device cpu");
    Error::new(Status::Unsupported, message)
}

fn failed(e: DriverError) -> Error {
    match e.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::new(
            Status::OutOfMemory,
            "the GPU's memory is too small; lower --width, --latent or --batch, or use --device cpu",
        ),
        _ => Error::new(Status::RuntimeFailed, format!("CUDA failed: {}", name(e))),
    }
}

/// As in CUDA's documentation.
fn name(e: DriverError) -> String {
    let known = e
        .error_name()
        .map(|name| name.to_string_lossy().into_owned());
    known.unwrap_or_else(|_| format!("{:?}", e.0))
}
