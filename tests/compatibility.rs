//! What was made for an earlier libdwf works with this one: artifacts of every format version, and
//! programs compiled with every released header.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{
    Fixture,
    c::{Linkage, Workshop, executable, root, succeeds},
};
use dwf::{
    Model, ModelOptions, SampleOptions, Sampler,
    metadata::FORMAT_VERSION,
    ode::{Grid, Method},
};

/// A folder a format version: an artifact as it was written then, and the networks it gave. They
/// are never written again; `DWF_WRITE_GOLDEN=1` makes the one that a new version lacks.
fn golden(version: u32) -> PathBuf {
    let folder = root().join(format!("tests/golden/v{version}"));
    if !folder.exists() && std::env::var_os("DWF_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        let mut fixture = Fixture {
            latent: 5,
            hidden: 8,
            ..Default::default()
        };
        fixture.solver.method = Method::Heun;
        fixture.solver.grid = Grid::Stretched;
        if version > 1 {
            fixture = fixture.with_logs();
        }
        let path = fixture.write(&folder);
        let networks: Vec<u8> = networks(&path)
            .iter()
            .flat_map(|weight| weight.to_le_bytes())
            .collect();
        fs::write(folder.join("networks.f32"), networks).unwrap();
    }
    folder
}

fn networks(path: &Path) -> Vec<f32> {
    let verify = ModelOptions {
        verify: true,
        ..Default::default()
    };
    let model = Model::open(path, &verify).unwrap();
    let mut weights = vec![0f32; 4 * model.metadata().layout.len()];
    let options = SampleOptions {
        seed: 7,
        first_index: 40,
        count: 4,
        ..Default::default()
    };
    let mut sampler = Sampler::new(&model, &Default::default()).unwrap();
    sampler.sample(options, &mut weights[..]).unwrap();
    weights
}

#[test]
fn artifacts_of_every_format_version() {
    for version in 1..=FORMAT_VERSION {
        let folder = golden(version);
        let expected = fs::read(folder.join("networks.f32")).unwrap();
        let expected = expected
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b));
        let found = networks(&folder.join("net.onnx"));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.into_iter().zip(expected) {
            // What the README promises across machines and versions of ONNX Runtime.
            let tolerance = 1e-5 * expected.abs().max(1.0);
            assert!(
                (found - expected).abs() <= tolerance,
                "v{version}: {found}, {expected}"
            );
        }
    }
}

/// What a new version is not needed for is written as the first, which every libdwf reads.
#[test]
fn the_oldest_format_that_says_it() {
    for (fixture, version) in [
        (Fixture::default(), "1"),
        (Fixture::default().with_logs(), "2"),
    ] {
        assert_eq!(fixture.build().prop("dwf.format"), version);
    }
}

/// A released header's structs end earlier than today's.
#[test]
fn programs_compiled_with_earlier_headers() {
    let mut headers = 0;
    for header in fs::read_dir(root().join("tests/headers")).unwrap() {
        let workshop = Workshop::new();
        Fixture::default().write(workshop.path());
        fs::copy(header.unwrap().path(), workshop.path().join("dwf.h")).unwrap();
        for name in ["sizes", "busy"] {
            let program = workshop.compile_against(workshop.path(), name, Linkage::Shared);
            succeeds(executable(&program).arg(workshop.path()));
        }
        headers += 1;
    }
    assert!(headers > 0);
}

/// And today's, at every size that a struct has had or may have.
#[test]
fn structs_of_every_size() {
    let workshop = Workshop::new();
    Fixture::default().write(workshop.path());
    for linkage in [Linkage::Shared, Linkage::Static] {
        let program = workshop.compile("sizes", linkage);
        succeeds(executable(&program).arg(workshop.path()));
    }
}
