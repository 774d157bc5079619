//! What the fuzz targets share: the tests' small artifact, changes of graphs, reading checkpoints.

#![allow(dead_code, reason = "the tests use more of it")]

#[path = "../../tests/common/artifact.rs"]
pub mod artifact;
pub mod checkpoint;
#[path = "../../tests/common/fixture.rs"]
pub mod fixture;
pub mod graph;
#[path = "../../tests/common/sidecar.rs"]
pub mod sidecar;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use artifact::Artifact;
use dwf::{
    condition::{Condition, ConditionSchema},
    layout::{DType, Layout, TensorKind},
    metadata::BasisKind,
};
use fixture::Fixture;
use tempfile::TempDir;

/// The smallest artifact with everything: a condition, guidance, two tensors, each basis.
pub fn small(basis: BasisKind) -> Artifact {
    let tensor = |name: &str, shape: &[usize]| {
        (name.into(), shape.into(), DType::F32, TensorKind::Parameter)
    };
    Fixture {
        latent: 2,
        hidden: 4,
        layout: Layout::pack([tensor("w", &[2, 2]), tensor("b", &[])]).unwrap(),
        condition: Some(Condition {
            schema: ConditionSchema::Classes(vec!["a".into(), "b".into()]),
            unconditional: Some(vec![0.0, 0.0]),
        }),
        ..Fixture::with_basis(basis)
    }
    .build()
}

/// A file of these bytes in a folder of this process, in the place of the last one of its name.
pub fn file(name: impl AsRef<Path>, bytes: &[u8]) -> PathBuf {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
    let path = FOLDER.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}
