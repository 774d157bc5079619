//! The trainer's errors are libdwf's: a status and a sentence that says what, where, what to do.

use std::{io::ErrorKind, path::Path};

pub use dwf::error::{Error, Result, Status};

/// Input or options that cannot be worked with.
pub fn invalid(message: impl Into<String>) -> Error {
    Error::new(Status::InvalidArgument, message)
}

/// For `map_err`: the system could not do `action` to `path`.
pub fn io(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |e| {
        let remedy = remedy(e.kind());
        let message = format!("cannot {action} '{}': {e}{remedy}", path.display());
        Error::new(Status::Io, message)
    }
}

/// What most likely helps.
fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; free some space, or name a place on another disk"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; change its permissions, or name another place"
        }
        _ => "",
    }
}
