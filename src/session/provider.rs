//! Where sessions compute: ONNX Runtime's execution providers.

use std::{
    ffi::{CStr, c_char, c_int},
    ptr::null_mut,
    slice,
};

use ort::sys;

use super::{
    c_name,
    handles::{CudaOptions, MemoryInfo, SessionOptions},
};
use crate::{
    device::{Space, cuda},
    error::{Error, Result, Status},
    runtime::check,
};

/// The name of ONNX Runtime's CUDA provider.
const CUDA_PROVIDER: &str = "CUDAExecutionProvider";

/// The name of its provider for processors.
const CPU_PROVIDER: &str = "CPUExecutionProvider";

/// The name of ONNX Runtime's provider for a device.
pub(super) fn provider_name(space: &Space) -> &'static str {
    match space {
        Space::Host => CPU_PROVIDER,
        Space::Cuda(_) => CUDA_PROVIDER,
    }
}

/// Whether the loaded ONNX Runtime has its CUDA provider.
pub(crate) fn has_cuda() -> Result<bool> {
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
            .any(|name| CStr::from_ptr(*name).to_bytes() == CUDA_PROVIDER.as_bytes());
        check((api.ReleaseAvailableProviders)(names, count))?;
        Ok(found)
    }
}

pub(super) fn session_options(space: &Space, recorded: bool) -> Result<SessionOptions> {
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
    if let Space::Cuda(gpu) = space {
        add_cuda(&options, gpu.ordinal(), recorded).map_err(|e| {
            Error::new(
                Status::RuntimeMissing,
                format!("the CUDA provider cannot be used: {e}"),
            )
        })?;
    }
    Ok(options)
}

/// ONNX Runtime's CUDA provider, in front of the CPU's.
fn add_cuda(options: &SessionOptions, device_id: i32, recorded: bool) -> Result<()> {
    let api = ort::api();
    let device_id = c_name(&device_id.to_string())?;
    let entries = [
        (c"device_id", device_id.as_c_str()),
        (c"enable_cuda_graph", if recorded { c"1" } else { c"0" }),
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

pub(super) fn host_memory() -> Result<MemoryInfo> {
    // SAFETY: `out` is written before it is read.
    MemoryInfo::create(|out| unsafe {
        (ort::api().CreateCpuMemoryInfo)(
            sys::OrtAllocatorType::OrtDeviceAllocator,
            sys::OrtMemType::OrtMemTypeDefault,
            out,
        )
    })
}

pub(super) fn cuda_memory(device_id: i32) -> Result<MemoryInfo> {
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
