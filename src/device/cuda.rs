//! The CUDA driver, loaded at run time, as far as memory and copies need it.
//!
//! It shares the primary context with ONNX Runtime's CUDA provider. Every call makes that current
//! on the calling thread and puts back what was there.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    path::Path,
    ptr::{null, null_mut},
    slice,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::Rows;
use crate::{
    error::{Error, Result, Status},
    memory::out_of_memory,
    runtime::reason,
    team::threads,
};

type Code = c_int;
pub(crate) type Context = *mut c_void;
type Stream = *mut c_void;
type Pointer = u64;

const OUT_OF_MEMORY: Code = 2;
/// `CU_STREAM_NON_BLOCKING`: not ordered by the legacy default stream, which others may use.
const NON_BLOCKING: c_uint = 1;
/// `CU_MEMHOSTALLOC_PORTABLE`: pinned for every context.
const PORTABLE: c_uint = 1;
/// `CU_POINTER_ATTRIBUTE_MEMORY_TYPE` and `CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL`.
const MEMORY_TYPE: c_int = 2;
const DEVICE_ORDINAL: c_int = 9;
/// `CU_MEMORYTYPE_DEVICE`.
const DEVICE_MEMORY: c_uint = 2;
/// `CU_MEMORYTYPE_UNIFIED`: the driver tells from the address whether it is the host's.
const ANY_MEMORY: c_uint = 4;
/// The largest pitch of a copy of rows: `CU_DEVICE_ATTRIBUTE_MAX_PITCH` of every GPU.
const MAX_PITCH: usize = i32::MAX as usize;

/// While ONNX Runtime records a CUDA graph, no thread may allocate or synchronise: recording
/// writes, everything else of this library that reaches the GPU reads.
static RECORDING: RwLock<()> = RwLock::new(());

/// Held around anything on the GPU that is not recorded.
pub(crate) fn shared() -> RwLockReadGuard<'static, ()> {
    RECORDING.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held while a CUDA graph is recorded.
pub(crate) fn exclusive() -> RwLockWriteGuard<'static, ()> {
    RECORDING.write().unwrap_or_else(PoisonError::into_inner)
}

/// Declares the driver's functions and finds them in the library.
macro_rules! driver {
    ($($(#[$cfg:meta])? $field:ident = $symbol:literal ($($argument:ty),*);)*) => {
        struct Driver {
            $($(#[$cfg])? $field: unsafe extern "C" fn($($argument),*) -> Code,)*
            _library: libloading::Library,
        }

        impl Driver {
            fn find(library: libloading::Library) -> Result<Self, libloading::Error> {
                // SAFETY: these are the signatures in the driver's documentation.
                unsafe {
                    Ok(Self {
                        $($(#[$cfg])? $field: *library.get(concat!($symbol, "\0").as_bytes())?,)*
                        _library: library,
                    })
                }
            }
        }
    };
}

driver! {
    init = "cuInit" (c_uint);
    error_name = "cuGetErrorName" (Code, *mut *const c_char);
    device_count = "cuDeviceGetCount" (*mut c_int);
    device_get = "cuDeviceGet" (*mut c_int, c_int);
    device_name = "cuDeviceGetName" (*mut c_char, c_int, c_int);
    retain = "cuDevicePrimaryCtxRetain" (*mut Context, c_int);
    release = "cuDevicePrimaryCtxRelease_v2" (c_int);
    push = "cuCtxPushCurrent_v2" (Context);
    pop = "cuCtxPopCurrent_v2" (*mut Context);
    #[cfg(test)]
    current = "cuCtxGetCurrent" (*mut Context);
    memory_info = "cuMemGetInfo_v2" (*mut usize, *mut usize);
    allocate = "cuMemAlloc_v2" (*mut Pointer, usize);
    free = "cuMemFree_v2" (Pointer);
    allocate_host = "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
    free_host = "cuMemFreeHost" (*mut c_void);
    pointer_attribute = "cuPointerGetAttribute" (*mut c_void, c_int, Pointer);
    stream_create = "cuStreamCreate" (*mut Stream, c_uint);
    stream_destroy = "cuStreamDestroy_v2" (Stream);
    stream_wait = "cuStreamSynchronize" (Stream);
    upload = "cuMemcpyHtoDAsync_v2" (Pointer, *const c_void, usize, Stream);
    download = "cuMemcpyDtoHAsync_v2" (*mut c_void, Pointer, usize, Stream);
    copy_rows = "cuMemcpy2DAsync_v2" (*const Copy2D, Stream);
    fill16 = "cuMemsetD16Async" (Pointer, u16, usize, Stream);
    fill32 = "cuMemsetD32Async" (Pointer, c_uint, usize, Stream);
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
struct Copy2D {
    from: Side,
    to: Side,
    row_bytes: usize,
    rows: usize,
}

/// One half of `CUDA_MEMCPY2D`.
#[repr(C)]
struct Side {
    column: usize,
    row: usize,
    memory: c_uint,
    host: *mut c_void,
    device: Pointer,
    array: *mut c_void,
    pitch: usize,
}

impl From<Rows> for Side {
    fn from(rows: Rows) -> Self {
        Self {
            column: 0,
            row: 0,
            memory: ANY_MEMORY,
            host: null_mut(),
            device: rows.data as Pointer,
            array: null_mut(),
            pitch: rows.pitch,
        }
    }
}

impl Driver {
    /// The driver, loaded once a process. What failed is tried again.
    fn load() -> Result<&'static Self> {
        static LOADED: Mutex<Option<&'static Driver>> = Mutex::new(None);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = *loaded {
            return Ok(driver);
        }
        let name = if cfg!(windows) {
            "nvcuda.dll"
        } else {
            "libcuda.so.1"
        };
        // SAFETY: it is the system's own graphics driver.
        let driver = unsafe { libloading::Library::new(name) }
            .and_then(Self::find)
            .map_err(|e| {
                let why = reason(Path::new(name), &e);
                no_gpu(&format!("NVIDIA's driver could not be loaded ({why})"))
            })?;
        // SAFETY: the one argument must be 0.
        let started = unsafe { (driver.init)(0) };
        let started = driver.check(started, "cuInit");
        started.map_err(|e| no_gpu(&format!("NVIDIA's driver does not start ({e})")))?;
        Ok(loaded.insert(Box::leak(Box::new(driver))))
    }

    fn check(&self, code: Code, what: &str) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let mut name = null();
        // SAFETY: the driver writes a static string, or NULL for a code it does not know.
        let name = unsafe {
            (self.error_name)(code, &mut name);
            match name.is_null() {
                true => "an unknown error".into(),
                false => CStr::from_ptr(name).to_string_lossy(),
            }
        };
        Err(Error::new(
            Status::RuntimeFailed,
            format!("CUDA: {what} failed with {name} ({code})"),
        ))
    }
}

fn no_gpu(why: &str) -> Error {
    Error::new(
        Status::Unsupported,
        format!("CUDA cannot be used here: {why}; use DWF_DEVICE_CPU, or DWF_DEVICE_AUTO"),
    )
}

/// One GPU: its primary context, a stream for copies, and a thread.
pub(crate) struct Cuda {
    /// Where ONNX Runtime runs. It sets the device of a thread that it runs on, which is the
    /// caller's own affair on the caller's threads, and keeps handles and recordings for each.
    thread: rayon::ThreadPool,
    driver: &'static Driver,
    context: Context,
    stream: Stream,
    device: c_int,
    ordinal: i32,
    name: String,
}

// SAFETY: contexts and streams may be used from any thread.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

impl Cuda {
    /// GPU number `ordinal`.
    ///
    /// Errors: UNSUPPORTED without a driver or a GPU, INVALID_ARGUMENT for a number that no GPU
    /// has, RUNTIME_FAILED in the driver's words.
    pub(crate) fn open(ordinal: i32) -> Result<Arc<Self>> {
        let driver = Driver::load()?;
        let recording = shared();
        let (mut count, mut device, mut context) = (0, 0, null_mut());
        let mut name = [0 as c_char; 128];
        // SAFETY: every out-pointer is live, and the name's length is its room.
        unsafe {
            driver.check((driver.device_count)(&mut count), "cuDeviceGetCount")?;
            if count == 0 {
                return Err(no_gpu("there is no GPU"));
            }
            if !(0..count).contains(&ordinal) {
                return Err(Error::argument(format!(
                    "device_id is {ordinal}, but this machine's GPUs are 0 to {}",
                    count - 1
                )));
            }
            driver.check((driver.device_get)(&mut device, ordinal), "cuDeviceGet")?;
            let room = name.len() as c_int;
            driver.check(
                (driver.device_name)(name.as_mut_ptr(), room, device),
                "cuDeviceGetName",
            )?;
            driver.check(
                (driver.retain)(&mut context, device),
                "cuDevicePrimaryCtxRetain",
            )?;
        }
        // Dropping the new value, on an error, takes the lock again.
        drop(recording);
        let mut cuda = Self {
            thread: threads(1)?,
            driver,
            context,
            stream: null_mut(),
            device,
            ordinal,
            // SAFETY: the driver terminates it.
            name: unsafe { CStr::from_ptr(name.as_ptr()) }
                .to_string_lossy()
                .into_owned(),
        };
        let mut stream = null_mut();
        let recording = shared();
        // SAFETY: the context is retained, the out-pointer live.
        let created = cuda.call("cuStreamCreate", || unsafe {
            (driver.stream_create)(&mut stream, NON_BLOCKING)
        });
        drop(recording);
        created?;
        cuda.stream = stream;
        Ok(Arc::new(cuda))
    }

    /// Runs `work` on this GPU's thread.
    pub(super) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.thread.install(work)
    }

    pub(crate) fn ordinal(&self) -> i32 {
        self.ordinal
    }

    /// What NVIDIA calls the GPU.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a driver function in this GPU's context.
    fn call(&self, what: &str, function: impl FnOnce() -> Code) -> Result<()> {
        // SAFETY: the context is retained as long as `self` lives.
        let entered = unsafe { (self.driver.push)(self.context) };
        self.driver.check(entered, "cuCtxPushCurrent")?;
        let code = function();
        let mut left = null_mut();
        // SAFETY: takes off what was pushed above.
        let popped = unsafe { (self.driver.pop)(&mut left) };
        self.driver.check(code, what)?;
        self.driver.check(popped, "cuCtxPopCurrent")
    }

    /// The calling thread's context.
    #[cfg(test)]
    pub(crate) fn current(&self) -> Result<Context> {
        let mut context = null_mut();
        // SAFETY: the out-pointer is live.
        let code = unsafe { (self.driver.current)(&mut context) };
        self.driver.check(code, "cuCtxGetCurrent")?;
        Ok(context)
    }

    /// Bytes of memory that nobody uses.
    pub(crate) fn free_memory(&self) -> Result<usize> {
        let _shared = shared();
        let (mut free, mut total) = (0, 0);
        // SAFETY: both out-pointers are live.
        self.call("cuMemGetInfo", || unsafe {
            (self.driver.memory_info)(&mut free, &mut total)
        })?;
        Ok(free)
    }

    pub(super) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<Memory> {
        let _shared = shared();
        let mut pointer = 0;
        // The driver refuses to allocate nothing.
        // SAFETY: the out-pointer is live.
        let result = self.call("cuMemAlloc", || unsafe {
            match (self.driver.allocate)(&mut pointer, bytes.max(1)) {
                OUT_OF_MEMORY => {
                    pointer = 0;
                    0
                }
                code => code,
            }
        });
        result?;
        if pointer == 0 {
            return Err(Error::new(
                Status::OutOfMemory,
                format!(
                    "the GPU has no {bytes} bytes of memory left; lower max_batch or gpu_memory_limit"
                ),
            ));
        }
        Ok(Memory {
            cuda: self.clone(),
            pointer,
            bytes,
        })
    }

    pub(super) fn pinned(self: &Arc<Self>, bytes: usize) -> Result<Pinned> {
        let _shared = shared();
        let mut pointer = null_mut();
        // SAFETY: the out-pointer is live.
        let result = self.call("cuMemHostAlloc", || unsafe {
            (self.driver.allocate_host)(&mut pointer, bytes.max(1), PORTABLE)
        });
        result.map_err(|_| out_of_memory(bytes))?;
        // SAFETY: that much was allocated.
        unsafe { pointer.cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned {
            cuda: self.clone(),
            pointer: pointer.cast(),
            bytes,
        })
    }

    /// Checks that a caller's pointer, to `bytes` bytes, leads to this GPU's memory.
    ///
    /// Errors: INVALID_ARGUMENT.
    pub(crate) fn check_pointer(&self, pointer: *const u8, bytes: usize) -> Result<()> {
        self.check_address(pointer)?;
        self.check_address(pointer.wrapping_add(bytes.saturating_sub(1)))
    }

    fn check_address(&self, pointer: *const u8) -> Result<()> {
        let _shared = shared();
        let (mut kind, mut ordinal): (c_uint, c_int) = (0, -1);
        // SAFETY: both attributes are of these types; a pointer the driver does not know is an error.
        let known = self.call("cuPointerGetAttribute", || unsafe {
            let ask = self.driver.pointer_attribute;
            match ask((&raw mut kind).cast(), MEMORY_TYPE, pointer as Pointer) {
                0 => ask(
                    (&raw mut ordinal).cast(),
                    DEVICE_ORDINAL,
                    pointer as Pointer,
                ),
                code => code,
            }
        });
        if known.is_ok() && kind == DEVICE_MEMORY && ordinal == self.ordinal {
            return Ok(());
        }
        Err(Error::argument(format!(
            "{pointer:p}, in the buffer, is not memory of GPU {}, where this sampler runs",
            self.ordinal
        )))
    }

    pub(super) unsafe fn upload(&self, from: &[u8], to: *mut u8) -> Result<()> {
        let _shared = shared();
        // SAFETY: the caller's promise.
        self.call("cuMemcpyHtoDAsync", || unsafe {
            (self.driver.upload)(to as Pointer, from.as_ptr().cast(), from.len(), self.stream)
        })
    }

    pub(super) unsafe fn download(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
        let _shared = shared();
        // SAFETY: the caller's promise; the copy is waited for while `to` is borrowed.
        self.call("cuMemcpyDtoHAsync", || unsafe {
            match (self.driver.download)(
                to.as_mut_ptr().cast(),
                from as Pointer,
                to.len(),
                self.stream,
            ) {
                0 => (self.driver.stream_wait)(self.stream),
                code => code,
            }
        })
    }

    pub(super) unsafe fn copy_rows(
        &self,
        from: Rows,
        to: Rows,
        row_bytes: usize,
        rows: usize,
    ) -> Result<()> {
        let _shared = shared();
        let copy = |from: Rows, to: Rows, rows| {
            let copy = Copy2D {
                from: from.into(),
                to: to.into(),
                row_bytes,
                rows,
            };
            // SAFETY: the caller's promise.
            self.call("cuMemcpy2DAsync", || unsafe {
                (self.driver.copy_rows)(&copy, self.stream)
            })
        };
        if from.pitch.max(to.pitch) <= MAX_PITCH {
            return copy(from, to, rows);
        }
        let single = |side: Rows, row| Rows {
            pitch: row_bytes,
            ..side.skip(row)
        };
        (0..rows).try_for_each(|row| copy(single(from, row), single(to, row), 1))
    }

    pub(super) unsafe fn fill(
        &self,
        to: *mut u8,
        bits: u32,
        size: usize,
        count: usize,
    ) -> Result<()> {
        let _shared = shared();
        // SAFETY: the caller's promise.
        self.call("cuMemsetAsync", || unsafe {
            match size {
                4 => (self.driver.fill32)(to as Pointer, bits, count, self.stream),
                _ => (self.driver.fill16)(to as Pointer, bits as u16, count, self.stream),
            }
        })
    }

    pub(super) fn wait(&self) -> Result<()> {
        let _shared = shared();
        // SAFETY: the stream lives as long as `self`.
        self.call("cuStreamSynchronize", || unsafe {
            (self.driver.stream_wait)(self.stream)
        })
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        let _shared = shared();
        if !self.stream.is_null() {
            // SAFETY: the stream is ours and destroyed once.
            let _ = self.call("cuStreamDestroy", || unsafe {
                (self.driver.stream_destroy)(self.stream)
            });
        }
        // SAFETY: it was retained once.
        unsafe { (self.driver.release)(self.device) };
    }
}

/// Memory of a GPU.
pub(crate) struct Memory {
    cuda: Arc<Cuda>,
    pointer: Pointer,
    bytes: usize,
}

impl Memory {
    pub(super) fn address(&self) -> *mut u8 {
        self.pointer as *mut u8
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _shared = shared();
        // SAFETY: it was allocated in this context and is freed once.
        let _ = self.cuda.call("cuMemFree", || unsafe {
            (self.cuda.driver.free)(self.pointer)
        });
    }
}

/// Pinned host memory.
pub(crate) struct Pinned {
    cuda: Arc<Cuda>,
    pointer: *mut u8,
    bytes: usize,
}

// SAFETY: it is memory that is owned.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: as much was allocated and initialised.
        unsafe { slice::from_raw_parts(self.pointer, self.bytes) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and it is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.pointer, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _shared = shared();
        // SAFETY: it was allocated in this context and is freed once.
        let _ = self.cuda.call("cuMemFreeHost", || unsafe {
            (self.cuda.driver.free_host)(self.pointer.cast())
        });
    }
}
