//! What goes wrong around the library rather than in it: flipped bits, files that change under a
//! model, memory that ends, an ONNX Runtime that fails.

mod common;

use std::{
    fs,
    mem::offset_of,
    path::Path,
    process::{Command, ExitStatus},
};

use common::{
    Fixture,
    c::{Linkage, Workshop, compiler, executable, sources, succeeds},
};
use dwf::{
    Model, ModelOptions, SampleOptions, Sampler, Status, artifact::Description,
    runtime::PATH_VARIABLE,
};
use ort::sys::OrtApi;
use prost::Message;

fn small() -> Fixture {
    Fixture {
        latent: 2,
        hidden: 4,
        ..Default::default()
    }
}

fn generate(model: &Model) -> Vec<f32> {
    let mut weights = vec![0f32; 3 * model.metadata().layout.len()];
    let options = SampleOptions {
        count: 3,
        ..Default::default()
    };
    Sampler::new(model, &Default::default())
        .and_then(|mut sampler| sampler.sample(options, &mut weights[..]))
        .unwrap();
    weights
}

/// Every bit of a sidecar, one by one: `verify` finds each.
#[test]
fn verify_finds_every_flipped_bit() {
    let artifact = small().build();
    let onnx = artifact.onnx.encode_to_vec();
    let len = artifact.sidecar.len();
    let mut words = vec![0u64; len.div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..len].copy_from_slice(&artifact.sidecar);
    let verify = ModelOptions {
        copy: true,
        verify: true,
        ..Default::default()
    };
    let mut open = |flip: Option<usize>| {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        if let Some(bit) = flip {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        // SAFETY: the model copies the bytes and keeps none of them.
        let sidecar = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), len) };
        let result = Model::from_static(&onnx, sidecar, &verify);
        if let Some(bit) = flip {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        result
    };
    open(None).unwrap();
    for bit in 0..8 * len {
        let error = open(Some(bit)).unwrap_err();
        assert_eq!(error.status(), Status::BadArtifact, "bit {bit}: {error}");
    }
}

/// Every bit of a `.onnx`: an error or another artifact, but never a panic. Most change a number
/// that is as good as the one before; nothing but a signature could find those.
#[test]
fn a_flipped_bit_of_the_onnx_never_panics() {
    let artifact = small().build();
    let mut onnx = artifact.onnx.encode_to_vec();
    let mut refused = 0;
    for bit in 0..8 * onnx.len() {
        onnx[bit / 8] ^= 1 << (bit % 8);
        let opened = Description::parse(&onnx).and_then(|it| it.basis(&artifact.sidecar));
        refused += usize::from(opened.is_err());
        onnx[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(refused > onnx.len(), "{refused} of {}", 8 * onnx.len());
}

/// Whoever updates an artifact puts new files in the place of the old: an open model keeps its own.
#[test]
fn a_file_replaced_while_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = Fixture::default().write(folder.path());
    let model = Model::open(&path, &Default::default()).unwrap();
    let expected = generate(&model);
    let other = Fixture {
        seed: 2,
        ..Default::default()
    };
    let new = tempfile::tempdir_in(folder.path()).unwrap();
    let new = other.write(new.path());
    for extension in ["onnx", "safetensors"] {
        fs::rename(
            new.with_extension(extension),
            path.with_extension(extension),
        )
        .unwrap();
    }
    assert_eq!(generate(&model), expected);
    let replaced = Model::open(&path, &Default::default()).unwrap();
    assert_ne!(generate(&replaced), expected);
}

/// Memory ends at every large allocation in turn, libdwf's own and ONNX Runtime's.
#[test]
fn scarce_memory() {
    let workshop = Workshop::new();
    let wide = Fixture {
        name: "wide",
        latent: 256,
        hidden: 512,
        ..Default::default()
    };
    wide.write(workshop.path());
    for linkage in [Linkage::Shared, Linkage::Static] {
        let program = workshop.compile("scarce", linkage);
        succeeds(executable(&program).arg(workshop.path()).arg("20"));
    }
}

/// Every call into ONNX Runtime fails in turn, by a library between it and libdwf.
#[test]
fn injected_failures() {
    let workshop = Workshop::new();
    Fixture::default().write(workshop.path());
    let shim = shim(workshop.path());
    let program = workshop.compile("injected", Linkage::Shared);
    let mut command = executable(&program);
    command.env("SHIM_REAL", std::env::var(PATH_VARIABLE).unwrap());
    succeeds(command.arg(workshop.path()).arg(shim).arg("60"));
}

/// The library of `tests/c/shim.c`, for this crate's version of ONNX Runtime's table.
fn shim(folder: &Path) -> std::path::PathBuf {
    macro_rules! wrapped {
        ($($name:ident)*) => {
            [$((stringify!($name), offset_of!(OrtApi, $name))),*]
        };
    }
    // Those that return a status and that libdwf calls.
    let functions = wrapped!(
        CreateEnvWithCustomLogger CreateCpuMemoryInfo CreateSessionOptions SetIntraOpNumThreads
        SetInterOpNumThreads AddSessionConfigEntry CreateTensorWithDataAsOrtValue
        AddExternalInitializers CreateSessionFromArray CreateIoBinding BindInput BindOutput
        RunWithBinding Run GetAvailableProviders GetTensorTypeAndShape GetDimensionsCount
        GetDimensions GetTensorElementType GetTensorMutableData
    );
    let lines = functions.map(|(name, offset)| format!("WRAP({name}, {offset})\n"));
    fs::write(folder.join("wrapped.h"), lines.concat()).unwrap();
    let library = folder.join("libshim.so");
    let mut command = compiler("cc", "c99");
    command.args(["-shared", "-fPIC", "-I"]).arg(folder);
    command.arg(format!("-DAPI_SIZE={}", size_of::<OrtApi>()));
    let create_status = offset_of!(OrtApi, CreateStatus);
    command.arg(format!("-DCREATE_STATUS={create_status}"));
    command.arg(sources().join("shim.c")).arg("-ldl");
    succeeds(command.arg("-o").arg(&library));
    library
}

/// What the contract says of a mapped file that another process cuts short: the process ends. A
/// copy does not care (`sampling.rs`). Here the end must be that signal, and nothing else.
#[test]
#[cfg(unix)]
fn a_file_cut_short_while_mapped() {
    use std::os::unix::process::ExitStatusExt;
    const FOLDER: &str = "FAULTS_FOLDER";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let path = Path::new(&folder).join("net.onnx");
        let model = Model::open(&path, &Default::default()).unwrap();
        let sidecar = fs::File::options()
            .write(true)
            .open(path.with_extension("safetensors"));
        sidecar.unwrap().set_len(0).unwrap();
        generate(&model);
        unreachable!("the mapping outlived the file");
    }
    let folder = tempfile::tempdir().unwrap();
    Fixture::default().write(folder.path());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["a_file_cut_short_while_mapped", "--exact", "--nocapture"]);
    let output = command.env(FOLDER, folder.path()).output().unwrap();
    let status: ExitStatus = output.status;
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}
