//! Asking for a GPU where there is none. What needs one is in src/sampler/tests.rs, for
//! `make gpu-check`.

mod common;

use std::{path::PathBuf, sync::Mutex};

use common::Fixture;
use dwf::{
    Device, Model, SampleOptions, Sampler, SamplerOptions, Status,
    log::{self, Level},
};

/// What the library said.
static LOG: Mutex<String> = Mutex::new(String::new());

fn model() -> Model {
    let folder = tempfile::tempdir().unwrap();
    Model::open(Fixture::default().write(folder.path()), &Default::default()).unwrap()
}

/// A sampler of device `Auto` must take the CPU, say why, and work.
fn automatic(onnxruntime: Option<PathBuf>, device_id: i32, why: &str) {
    let model = model();
    let hook = |_, message: &str| *LOG.lock().unwrap() += message;
    log::set(Level::Info, Some(Box::new(hook)));
    let options = SamplerOptions {
        onnxruntime,
        device_id,
        ..Default::default()
    };
    let mut sampler = Sampler::new(&model, &options).unwrap();
    log::set(Level::Info, None);
    let said = std::mem::take(&mut *LOG.lock().unwrap());
    assert!(
        said.contains("takes the CPU") && said.contains(why),
        "{said}"
    );
    let info = sampler.info();
    assert_eq!(info.device, Device::Cpu);
    assert_eq!(info.provider, "CPUExecutionProvider");
    let mut weights = vec![0f32; model.metadata().layout.len()];
    sampler
        .sample(SampleOptions::default(), &mut weights[..])
        .unwrap();
}

#[test]
fn without_a_cuda_provider() {
    let options = SamplerOptions {
        device: Device::Cuda,
        ..Default::default()
    };
    let error = Sampler::new(&model(), &options).unwrap_err();
    assert_eq!(error.status(), Status::RuntimeMissing);
    assert!(error.message().contains("onnxruntime-gpu"), "{error}");
    automatic(None, 0, "no CUDA provider");
    automatic(None, 3, "no CUDA provider");
}

/// The GPU build of ONNX Runtime on a machine without a driver: 300 MB, so it is not in CI. It was
/// run with the libraries of PyPI's onnxruntime-gpu 1.31.1.
#[test]
#[ignore = "needs DWF_ONNXRUNTIME_GPU, the path of a GPU build, and no driver"]
fn without_a_driver() {
    let onnxruntime = Some(PathBuf::from(
        std::env::var_os("DWF_ONNXRUNTIME_GPU").unwrap(),
    ));
    let options = SamplerOptions {
        device: Device::Cuda,
        onnxruntime: onnxruntime.clone(),
        ..Default::default()
    };
    let error = Sampler::new(&model(), &options).unwrap_err();
    assert_eq!(error.status(), Status::Unsupported, "{error}");
    assert!(error.message().contains("libcuda.so.1"), "{error}");
    automatic(onnxruntime, 0, "libcuda.so.1");
}
