//! The trainer's errors are libdwf's: a status and a sentence that says what, where, what to do.

use std::path::Path;

pub use dwf::error::{Error, Result, Status};

/// Input or options that cannot be worked with.
pub fn invalid(message: impl Into<String>) -> Error {
    Error::new(Status::InvalidArgument, message)
}

/// For `map_err`: the system could not do `action` to `path`.
pub fn io(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |e| {
        Error::new(
            Status::Io,
            format!("cannot {action} '{}': {e}", path.display()),
        )
    }
}
