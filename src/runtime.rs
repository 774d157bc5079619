//! Finding and loading ONNX Runtime, once a process.

use std::{
    error::Error as _,
    ffi::{CStr, OsString, c_char, c_void},
    path::{Path, PathBuf},
    ptr::{NonNull, null_mut},
    sync::{Mutex, PoisonError},
};

use ort::sys;

use crate::{
    error::{Error, Result, Status},
    log::{self, Level},
};

/// The environment variable that names the library.
pub const PATH_VARIABLE: &str = "DWF_ONNXRUNTIME";

/// ONNX Runtime, loaded for the life of the process.
#[derive(Debug)]
pub struct Runtime {
    /// Where it was loaded from, as given or found.
    pub path: PathBuf,
    /// Its version, `1.31.1` say.
    pub version: String,
    env: NonNull<sys::OrtEnv>,
}

// SAFETY: OrtEnv is documented as safe to share between threads.
unsafe impl Send for Runtime {}
// SAFETY: as above.
unsafe impl Sync for Runtime {}

/// ONNX Runtime's own switch. Without it official builds (1.31.1 for Linux is one) keep a database
/// and a device id in the user's cache folder, report to their vendor over the network, and leave
/// a thread running that outlives their static objects when the process exits.
const DISABLE_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

static LOADED: Mutex<Option<&'static Runtime>> = Mutex::new(None);

impl Runtime {
    /// ONNX Runtime from, in this order: `path`, `$DWF_ONNXRUNTIME`, the folder that libdwf
    /// (or the program it is linked into) lies in, the system's library path. A place that is
    /// named but does not work is an error; the search does not go past it.
    ///
    /// Switches off ONNX Runtime's telemetry: the first call sets the environment variable
    /// `ORT_DISABLE_TELEMETRY` to 1 unless it is set. Other threads must not use the environment
    /// through C meanwhile.
    ///
    /// Errors: RUNTIME_MISSING with what was tried, UNSUPPORTED if the process has already
    /// loaded another one than `path`.
    pub fn load(path: Option<&Path>) -> Result<&'static Self> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = *loaded {
            return runtime.serves(path);
        }
        let runtime: &'static Self = Box::leak(Box::new(Self::find(path)?));
        *loaded = Some(runtime);
        // The hook may take its time, or ask for a sampler of its own.
        drop(loaded);
        log::write(Level::Info, || {
            format!(
                "ONNX Runtime {} from {}",
                runtime.version,
                runtime.path.display()
            )
        });
        Ok(runtime)
    }

    pub(crate) fn env(&self) -> *mut sys::OrtEnv {
        self.env.as_ptr()
    }

    fn serves(&'static self, path: Option<&Path>) -> Result<&'static Self> {
        let same = |path: &Path| match (path.canonicalize(), self.path.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => path == self.path,
        };
        if path.is_none_or(same) {
            return Ok(self);
        }
        Err(Error::new(
            Status::Unsupported,
            format!(
                "this process has already loaded ONNX Runtime from {}; a process can have one, so \
                 give that path or none",
                self.path.display()
            ),
        ))
    }

    fn find(path: Option<&Path>) -> Result<Self> {
        if let Some(path) = path {
            return Self::open(path).map_err(|why| missing(&[why]));
        }
        if let Some(path) = std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty()) {
            return Self::open(Path::new(&path))
                .map_err(|why| missing(&[format!("${PATH_VARIABLE}: {why}")]));
        }
        let mut tried = Vec::new();
        for candidate in candidates() {
            match Self::open(&candidate) {
                Ok(runtime) => return Ok(runtime),
                Err(why) => tried.push(why),
            }
        }
        Err(missing(&tried))
    }

    fn open(path: &Path) -> Result<Self, String> {
        let bare = path.components().count() == 1;
        let absolute = if bare {
            path.to_owned()
        } else {
            std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?
        };
        disable_telemetry();
        // Loaded here first, since `ort` keeps the system's reason for a failure to itself.
        // SAFETY: whoever named the path trusts the library's initialisers.
        let library =
            unsafe { libloading::Library::new(&absolute) }.map_err(|e| reason(&absolute, &e))?;
        let version = version(&library).map_err(|e| reason(&absolute, &e))?;
        // Not the crate's lazy loader, which panics where the library is missing. The builder
        // is dropped: the environment below has a logger of ours.
        drop(ort::init_from(&absolute).map_err(|e| e.to_string())?);
        let env = environment().map_err(|e| e.message().to_owned())?;
        Ok(Self {
            path: absolute,
            version,
            env,
        })
    }
}

/// A variable that is set, to whatever, is the user's decision.
fn disable_telemetry() {
    if std::env::var_os(DISABLE_TELEMETRY).is_none() {
        // `DisableTelemetryEvents` comes too late: making the environment has started it all.
        // SAFETY: this happens once a process; that no other thread may use the environment
        // meanwhile is documented.
        unsafe { std::env::set_var(DISABLE_TELEMETRY, "1") };
    }
}

fn version(library: &libloading::Library) -> Result<String, libloading::Error> {
    // SAFETY: this is the signature that every ONNX Runtime gives the function.
    let text = unsafe {
        let base: libloading::Symbol<unsafe extern "C" fn() -> *const sys::OrtApiBase> =
            library.get(b"OrtGetApiBase")?;
        CStr::from_ptr(((*base()).GetVersionString)())
    };
    Ok(text.to_string_lossy().into_owned())
}

/// Why a library could not be loaded, in the system's words, which often begin with its path.
pub(crate) fn reason(path: &Path, error: &libloading::Error) -> String {
    let words = error
        .source()
        .map_or_else(|| error.to_string(), |words| words.to_string());
    let path = path.display().to_string();
    if words.starts_with(&path) {
        words
    } else {
        format!("{path}: {words}")
    }
}

/// An environment that logs through [`log`] instead of standard error.
fn environment() -> Result<NonNull<sys::OrtEnv>> {
    let mut env = null_mut();
    // SAFETY: the logger is a function without state; the environment is never released, since
    // the order of static destructors at exit is not ours to know.
    check(unsafe {
        (ort::api().CreateEnvWithCustomLogger)(
            forward_log,
            null_mut(),
            sys::OrtLoggingLevel::ORT_LOGGING_LEVEL_WARNING,
            c"libdwf".as_ptr(),
            &mut env,
        )
    })?;
    NonNull::new(env).ok_or_else(|| runtime_failed("no environment was created"))
}

extern "system" fn forward_log(
    _: *mut c_void,
    severity: sys::OrtLoggingLevel,
    _: *const c_char,
    _: *const c_char,
    _: *const c_char,
    message: *const c_char,
) {
    use sys::OrtLoggingLevel::*;
    let level = match severity {
        ORT_LOGGING_LEVEL_ERROR | ORT_LOGGING_LEVEL_FATAL => Level::Error,
        ORT_LOGGING_LEVEL_WARNING => Level::Warn,
        _ => Level::Debug,
    };
    // A panic in the caller's hook must not unwind into C++.
    let _ = std::panic::catch_unwind(|| {
        log::write(level, || {
            // SAFETY: ONNX Runtime passes a C string that lives through this call.
            let text = unsafe { CStr::from_ptr(message) }.to_string_lossy();
            format!("ONNX Runtime: {text}")
        });
    });
}

/// Places to look when nobody named one.
fn candidates() -> Vec<PathBuf> {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    let plain = format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}");
    let names = [plain.clone(), format!("{plain}.1")];
    let mut candidates = Vec::new();
    if let Some(folder) = own_folder() {
        candidates.extend(names.iter().map(|name| folder.join(name)));
        candidates.extend(versioned(&folder, &plain));
        candidates.retain(|path| path.exists());
    }
    candidates.extend(names.iter().map(PathBuf::from));
    candidates
}

/// Files like `libonnxruntime.so.1.31.1` in `folder`, the highest name first.
fn versioned(folder: &Path, plain: &str) -> Vec<PathBuf> {
    let prefix = format!("{plain}.");
    let Ok(entries) = folder.read_dir() else {
        return Vec::new();
    };
    let mut names: Vec<OsString> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| name.to_string_lossy().starts_with(&prefix))
        .collect();
    names.sort();
    names.iter().rev().map(|name| folder.join(name)).collect()
}

/// The folder of the shared library or program that holds this code.
#[cfg(unix)]
fn own_folder() -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: `info` is written by dladdr where it returns nonzero, and then names a C string.
    let file = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let here = own_folder as fn() -> Option<PathBuf> as *const c_void;
        if libc::dladdr(here, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        PathBuf::from(std::ffi::OsStr::from_bytes(
            CStr::from_ptr(info.dli_fname).to_bytes(),
        ))
    };
    Some(file.canonicalize().ok()?.parent()?.to_owned())
}

#[cfg(not(unix))]
fn own_folder() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.to_owned())
}

fn missing(tried: &[String]) -> Error {
    Error::new(
        Status::RuntimeMissing,
        format!(
            "ONNX Runtime (1.{} or newer) could not be loaded: {}; set {PATH_VARIABLE} or \
             dwf_sampler_options.onnxruntime to the path of its shared library (PyPI's package onnxruntime holds \
             one), or put that beside libdwf",
            ort::MINOR_VERSION,
            tried.join("; ")
        ),
    )
}

pub(crate) fn runtime_failed(message: impl Into<String>) -> Error {
    Error::new(
        Status::RuntimeFailed,
        format!("ONNX Runtime: {}", message.into()),
    )
}

/// Turns a status of ONNX Runtime into a result, and frees it.
pub(crate) fn check(status: sys::OrtStatusPtr) -> Result<()> {
    if status.0.is_null() {
        return Ok(());
    }
    let api = ort::api();
    // SAFETY: a nonnull status holds a C string until it is released.
    let message = unsafe {
        let text = CStr::from_ptr((api.GetErrorMessage)(status.0))
            .to_string_lossy()
            .into_owned();
        (api.ReleaseStatus)(status.0);
        text
    };
    Err(runtime_failed(message))
}
