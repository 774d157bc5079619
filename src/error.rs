//! Status codes and the one error type of the crate.

use std::{borrow::Cow, fmt};

/// What went wrong, as it crosses the C ABI. The list only grows at its end.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Success.
    Ok = 0,
    /// An argument, option or handle is not valid.
    InvalidArgument = 1,
    /// A file could not be opened, mapped or read.
    Io = 2,
    /// The artifact's files are damaged, do not belong together, or are not an artifact.
    BadArtifact = 3,
    /// A valid request that this build, device or format version cannot serve.
    Unsupported = 4,
    /// ONNX Runtime was not found, is too old, or lacks the requested provider.
    RuntimeMissing = 5,
    /// Memory could not be allocated.
    OutOfMemory = 6,
    /// The output buffer is smaller than the networks that were asked for.
    BufferTooSmall = 7,
    /// A sample became NaN or infinite during integration or in the output type.
    Diverged = 8,
    /// The progress callback asked to stop.
    Cancelled = 9,
    /// The sampler is in use by another thread.
    Busy = 10,
    /// A bug in libdwf; the handle it happened on only takes being freed.
    Internal = 11,
    /// ONNX Runtime refused the velocity network or failed while running it.
    RuntimeFailed = 12,
}

impl Status {
    /// The constant's name in C, as a C string.
    pub const fn name(self) -> &'static std::ffi::CStr {
        match self {
            Self::Ok => c"DWF_OK",
            Self::InvalidArgument => c"DWF_INVALID_ARGUMENT",
            Self::Io => c"DWF_IO",
            Self::BadArtifact => c"DWF_BAD_ARTIFACT",
            Self::Unsupported => c"DWF_UNSUPPORTED",
            Self::RuntimeMissing => c"DWF_RUNTIME_MISSING",
            Self::OutOfMemory => c"DWF_OUT_OF_MEMORY",
            Self::BufferTooSmall => c"DWF_BUFFER_TOO_SMALL",
            Self::Diverged => c"DWF_DIVERGED",
            Self::Cancelled => c"DWF_CANCELLED",
            Self::Busy => c"DWF_BUSY",
            Self::Internal => c"DWF_INTERNAL",
            Self::RuntimeFailed => c"DWF_RUNTIME_FAILED",
        }
    }

    /// The status with this number, if there is one.
    pub fn from_code(code: i32) -> Option<Self> {
        use Status::*;
        [
            Ok,
            InvalidArgument,
            Io,
            BadArtifact,
            Unsupported,
            RuntimeMissing,
            OutOfMemory,
            BufferTooSmall,
            Diverged,
            Cancelled,
            Busy,
            Internal,
            RuntimeFailed,
        ]
        .into_iter()
        .find(|status| *status as i32 == code)
    }
}

/// A status with a sentence that says what went wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: Status,
    message: Cow<'static, str>,
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of class `status` with its sentence.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into().into(),
        }
    }

    /// An error whose sentence is always the same, and so needs no memory.
    pub(crate) const fn constant(status: Status, message: &'static str) -> Self {
        Self {
            status,
            message: Cow::Borrowed(message),
        }
    }

    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(Status::InvalidArgument, message)
    }

    pub(crate) fn artifact(message: impl Into<String>) -> Self {
        Self::new(Status::BadArtifact, message)
    }

    /// The class of the error.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with the place it happened in front.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message).into();
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
