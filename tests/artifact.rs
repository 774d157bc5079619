//! Opening what is not, or not wholly, an artifact: an error that names the file and the field,
//! never a panic.

mod common;

use std::{fs::File, path::Path};

use common::{Fixture, damage};
use dwf::{
    Error, Model, ModelOptions, Status, artifact::Description, layout::Layout, metadata::BasisKind,
};
use prost::Message;
use tempfile::TempDir;

fn open(path: &Path) -> Result<Model, Error> {
    Model::open(path, &ModelOptions::default())
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[track_caller]
fn assert_error(result: Result<Model, Error>, what: &str, status: Status, texts: &[&str]) {
    let Err(error) = result else {
        panic!("{what}: it opened")
    };
    assert_eq!(error.status(), status, "{what}: {error}");
    for text in texts {
        assert!(
            error.message().contains(text),
            "{what}: no '{text}' in: {error}"
        );
    }
}

#[test]
fn fixtures_open() {
    for basis in [BasisKind::Identity, BasisKind::Diagonal, BasisKind::Linear] {
        let fixture = Fixture::with_basis(basis);
        let folder = folder();
        let model = open(&fixture.write(folder.path())).unwrap();
        assert_eq!(model.latent(), fixture.latent_size());
        assert_eq!(model.metadata().basis, basis);
        assert_eq!(model.metadata().layout, fixture.layout);
    }
}

#[test]
fn every_damage_is_named() {
    for damage in damage::all() {
        let folder = folder();
        let path = damage.artifact.write(folder.path());
        for copy in [false, true] {
            let options = ModelOptions {
                copy,
                ..Default::default()
            };
            let result = Model::open(&path, &options);
            assert_error(result, &damage.what, damage.status, &damage.texts);
        }
    }
}

/// The same from bytes alone, which Miri can follow; it takes its time, and gets a few.
#[test]
fn damage_is_found_in_memory() {
    let step = if cfg!(miri) { 23 } else { 1 };
    for damage in damage::every(step) {
        let onnx = damage.artifact.onnx.encode_to_vec();
        let parsed = Description::parse(&onnx);
        let result = parsed.and_then(|parsed| parsed.basis(&damage.artifact.sidecar).map(drop));
        assert!(result.is_err(), "{}", damage.what);
    }
}

#[test]
fn missing_files() {
    let folder = folder();
    let path = folder.path().join("net.onnx");
    assert_error(open(&path), "no .onnx", Status::Io, &["net.onnx", "open"]);
    Fixture::default().write(folder.path());
    std::fs::remove_file(path.with_extension("safetensors")).unwrap();
    let texts = ["net.safetensors", "two files"];
    assert_error(open(&path), "no sidecar", Status::Io, &texts);
}

#[test]
fn what_is_no_file() {
    let folder = folder();
    let result = open(folder.path());
    assert_error(result, "a folder", Status::Io, &["regular file"]);
    let path = Fixture::default().write(folder.path());
    let sidecar = path.with_extension("safetensors");
    std::fs::remove_file(&sidecar).unwrap();
    std::fs::create_dir(&sidecar).unwrap();
    let texts = ["net.safetensors", "regular file"];
    assert_error(open(&path), "a folder as sidecar", Status::Io, &texts);
}

#[test]
fn an_empty_onnx() {
    let folder = folder();
    let path = folder.path().join("net.onnx");
    std::fs::write(&path, []).unwrap();
    let texts = ["net.onnx", "dwf.format"];
    assert_error(open(&path), "empty", Status::BadArtifact, &texts);
}

#[test]
fn something_else_as_onnx() {
    let folder = folder();
    let path = folder.path().join("net.onnx");
    std::fs::write(&path, b"\x89PNG\r\n\x1a\n not an ONNX file").unwrap();
    let texts = ["net.onnx", "not an ONNX file"];
    assert_error(open(&path), "a picture", Status::BadArtifact, &texts);
}

/// Cut at every byte of the .onnx. A cut at the end of a protobuf field leaves a valid file, so
/// that BAD_ARTIFACT comes from what is then missing.
#[test]
fn truncated_onnx() {
    let folder = folder();
    let path = Fixture::default().write(folder.path());
    for len in shrinking(&path, 1) {
        let what = format!("{len} bytes");
        assert_error(open(&path), &what, Status::BadArtifact, &["net.onnx"]);
    }
}

/// Cuts a file shorter by `step` bytes at a time, down to nothing; its lengths.
fn shrinking(path: &Path, step: usize) -> impl Iterator<Item = u64> {
    let file = File::options().write(true).open(path).unwrap();
    let whole = file.metadata().unwrap().len();
    (0..whole)
        .rev()
        .step_by(step)
        .inspect(move |len| file.set_len(*len).unwrap())
}

/// Cut at every byte in memory, and at some in the file, where reading past its end would be a
/// bus error.
#[test]
fn truncated_sidecar() {
    let artifact = small().build();
    let description = Description::parse(&artifact.onnx.encode_to_vec()).unwrap();
    let whole = &artifact.sidecar;
    for len in 0..whole.len() {
        let error = description.basis(&whole[..len]).unwrap_err();
        assert_eq!(error.status(), Status::BadArtifact, "{len}: {error}");
    }
    let folder = folder();
    let path = artifact.write(folder.path());
    for len in shrinking(&path.with_extension("safetensors"), 61) {
        let what = format!("{len} bytes");
        let texts = ["net.safetensors"];
        assert_error(open(&path), &what, Status::BadArtifact, &texts);
    }
}

/// Any byte of the header changed to any of a few values: an error or a valid artifact, never a
/// panic.
#[test]
fn a_garbled_header_never_panics() {
    let mut artifact = small().build();
    let description = Description::parse(&artifact.onnx.encode_to_vec()).unwrap();
    let mut refused = 0;
    for at in 0..artifact.header_end() {
        let before = artifact.sidecar[at];
        for byte in [0, b'9', b'"', b'}', b',', 0xff] {
            artifact.sidecar[at] = byte;
            refused += usize::from(description.basis(&artifact.sidecar).is_err());
        }
        artifact.sidecar[at] = before;
    }
    assert!(refused > artifact.header_end());
}

fn small() -> Fixture {
    Fixture {
        latent: 2,
        hidden: 4,
        ..Default::default()
    }
}

#[test]
fn verify_finds_a_flipped_bit() {
    let verify = ModelOptions {
        verify: true,
        ..Default::default()
    };
    let folder = folder();
    let path = Fixture::default().write(folder.path());
    Model::open(&path, &verify).unwrap();
    let path = damage::flipped_bit().write(folder.path());
    open(&path).unwrap();
    let texts = ["net.safetensors", "SHA-256", "copy it again"];
    let result = Model::open(&path, &verify);
    assert_error(result, "a flipped bit", Status::BadArtifact, &texts);
}

#[test]
fn a_layout_must_fit_the_address_space() {
    let tensor = |name: &str, shape: &[usize]| {
        (
            name.to_owned(),
            shape.to_vec(),
            Default::default(),
            Default::default(),
        )
    };
    let largest = isize::MAX as usize / size_of::<f32>();
    assert!(Layout::pack([tensor("all", &[largest])]).is_ok());
    for shape in [
        &[largest + 1][..],
        &[usize::MAX, 2],
        &[usize::MAX, usize::MAX],
    ] {
        let error = Layout::pack([tensor("all", shape)]).unwrap_err();
        assert!(error.message().contains("too large"), "{error}");
    }
    let error = Layout::pack([tensor("a", &[largest]), tensor("b", &[1])]).unwrap_err();
    assert!(error.message().contains("'b'"), "{error}");
}
