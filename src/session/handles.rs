//! Objects of ONNX Runtime's C API, each released once.

use std::ptr::{NonNull, null_mut};

use ort::sys;

use crate::{
    error::Result,
    runtime::{check, runtime_failed},
};

/// A nonnull object of ONNX Runtime that is released when dropped.
macro_rules! owned {
    ($name:ident, $sys:ident, $release:ident) => {
        pub(super) struct $name(pub(super) NonNull<sys::$sys>);

        impl $name {
            pub(super) fn create(
                new: impl FnOnce(*mut *mut sys::$sys) -> sys::OrtStatusPtr,
            ) -> Result<Self> {
                let mut ptr = null_mut();
                check(new(&mut ptr))?;
                NonNull::new(ptr)
                    .map(Self)
                    .ok_or_else(|| runtime_failed(concat!("no ", stringify!($sys))))
            }

            pub(super) fn as_ptr(&self) -> *mut sys::$sys {
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
