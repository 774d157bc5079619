//! What every entry point shares: no panic crosses it, errors become a status and a text, and
//! structs of other versions are read and written within their size.

use std::{
    any::Any,
    cell::Cell,
    ffi::{CStr, c_char},
    mem::MaybeUninit,
    panic::{self, AssertUnwindSafe},
    slice,
    sync::Once,
};

use super::types::dwf_status;
use crate::{
    Error, Result, Status,
    log::{self, Level},
};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs an entry point's body; its error text goes to `err`, an empty text on success, and to the
/// log, unless it is what the caller asked for.
///
/// # Safety
/// `err` is NULL or has room for `err_cap` bytes.
pub(super) unsafe fn guard(
    err: *mut c_char,
    err_cap: usize,
    body: impl FnOnce() -> Result<()>,
) -> dwf_status {
    let result = catch(body).unwrap_or_else(|message| Err(internal(&message)));
    let (status, message) = match &result {
        Ok(()) => (Status::Ok, ""),
        Err(e) => (e.status(), e.message()),
    };
    if !matches!(status, Status::Ok | Status::Cancelled) {
        log::write(Level::Error, || {
            format!("{}: {message}", status.name().to_string_lossy())
        });
    }
    if !err.is_null() && err_cap > 0 {
        // SAFETY: the caller's promise.
        let text = unsafe { slice::from_raw_parts_mut(err.cast::<u8>(), err_cap) };
        write_text(message, text);
    }
    status as dwf_status
}

/// Runs `body`; `Err` is the message of its panic.
pub(super) fn catch<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    silence_panics();
    let outer = INSIDE.replace(true);
    // Handles that a panic may leave half-changed record it and refuse further use.
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    INSIDE.set(outer);
    result.map_err(|payload| panic_message(&*payload))
}

pub(super) fn internal(message: &str) -> Error {
    Error::new(
        Status::Internal,
        format!("a bug in libdwf: {message}; please report it with what led to it"),
    )
}

/// The library never prints: panics inside a call are kept from the default hook. Other
/// threads of a Rust program keep theirs.
fn silence_panics() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let worker = std::thread::current()
                .name()
                .is_some_and(|name| name.starts_with(crate::team::THREAD_PREFIX));
            if !worker && !INSIDE.get() {
                previous(info);
            }
        }));
    });
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without message".to_owned()
    }
}

/// Copies as much of `message` as fits, cut between characters, and terminates it.
fn write_text(message: &str, to: &mut [u8]) {
    let room = to.len() - 1;
    let end = message.floor_char_boundary(room.min(message.len()));
    // A NUL inside would hide the rest.
    for (to, byte) in to.iter_mut().zip(&message.as_bytes()[..end]) {
        *to = if *byte == 0 { b' ' } else { *byte };
    }
    to[end] = 0;
}

/// Structs of the ABI: plain data that begins with `struct_size`, for which zero is valid.
///
/// # Safety
/// Implemented only for the structs in `types`.
pub(super) unsafe trait AbiStruct: Copy {
    const NAME: &'static str;
}

macro_rules! abi_structs {
    ($($name:ident)*) => {$(
        // SAFETY: integers, pointers and nullable function pointers, `struct_size` first.
        unsafe impl AbiStruct for super::types::$name {
            const NAME: &'static str = stringify!($name);
        }
    )*};
}

abi_structs! {
    dwf_model_options dwf_model_info dwf_tensor_info dwf_sampler_options dwf_sampler_info
    dwf_sample_options dwf_buffer
}

/// No struct of any version is larger; it bounds what a wrong `struct_size` makes us read.
const MAX_STRUCT_SIZE: usize = 4096;

/// Reads an options struct of any version; NULL is all defaults.
///
/// Errors: INVALID_ARGUMENT for a size that no version has, UNSUPPORTED for a nonzero field
/// that this version does not know.
///
/// # Safety
/// `from` is NULL or points to as many bytes as its `struct_size` says.
pub(super) unsafe fn read_struct<T: AbiStruct>(from: *const T) -> Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    if !from.is_null() {
        // SAFETY: the caller's promise; `struct_size` comes first in every struct.
        unsafe {
            let size = struct_size::<T>(from)?;
            let bytes = slice::from_raw_parts(from.cast::<u8>(), size);
            let known = size.min(size_of::<T>());
            if bytes[known..].iter().any(|byte| *byte != 0) {
                return Err(Error::new(
                    Status::Unsupported,
                    format!(
                        "{} sets a field behind the {known} bytes that this libdwf knows; update \
                         libdwf or leave it zero",
                        T::NAME
                    ),
                ));
            }
            value
                .as_mut_ptr()
                .cast::<u8>()
                .copy_from_nonoverlapping(bytes.as_ptr(), known);
        }
    }
    // SAFETY: zeroed bytes and the caller's fields are valid for these structs.
    Ok(unsafe { value.assume_init() })
}

/// Writes as much of `value` as the caller's version of the struct has; its `struct_size` stays,
/// and fields that this version does not know become zero.
///
/// Errors: INVALID_ARGUMENT for NULL or a size that no version has.
///
/// # Safety
/// `to` is NULL or points to as many bytes as its `struct_size` says.
pub(super) unsafe fn write_struct<T: AbiStruct>(to: *mut T, value: &T) -> Result<()> {
    if to.is_null() {
        return Err(null(T::NAME));
    }
    const HEAD: usize = size_of::<usize>();
    // SAFETY: the caller's promise.
    unsafe {
        let size = struct_size::<T>(to)?;
        let known = size.min(size_of::<T>());
        let bytes = to.cast::<u8>();
        bytes
            .add(HEAD)
            .copy_from_nonoverlapping((value as *const T).cast::<u8>().add(HEAD), known - HEAD);
        bytes.add(known).write_bytes(0, size - known);
    }
    Ok(())
}

unsafe fn struct_size<T: AbiStruct>(at: *const T) -> Result<usize> {
    if !at.is_aligned() {
        return Err(Error::argument(format!("the {} is not aligned", T::NAME)));
    }
    // SAFETY: every struct begins with it.
    let size = unsafe { at.cast::<usize>().read() };
    if (size_of::<usize>()..=MAX_STRUCT_SIZE).contains(&size) {
        return Ok(size);
    }
    Err(Error::argument(format!(
        "{name}.struct_size is {size}; set it to sizeof({name})",
        name = T::NAME
    )))
}

pub(super) fn null(name: &str) -> Error {
    Error::argument(format!("{name} is NULL"))
}

/// A handle or other required pointer.
///
/// # Safety
/// `ptr` is NULL or valid for `'a`.
pub(super) unsafe fn required<'a, T>(ptr: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { ptr.as_ref() }.ok_or_else(|| null(name))
}

/// A path; NULL is `None`.
///
/// # Safety
/// `text` is NULL or a C string valid for `'a`.
pub(super) unsafe fn path<'a>(text: *const c_char) -> Result<Option<&'a std::path::Path>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    #[cfg(unix)]
    let path = std::os::unix::ffi::OsStrExt::from_bytes(text.to_bytes());
    #[cfg(not(unix))]
    let path = text
        .to_str()
        .map(std::ffi::OsStr::new)
        .map_err(|_| Error::argument("the path is not UTF-8"))?;
    Ok(Some(std::path::Path::new::<std::ffi::OsStr>(path)))
}

/// A switch that C has as an integer.
pub(super) fn switch(name: &str, value: u32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::argument(format!("{name} is {value}; use 0 or 1"))),
    }
}
