//! Artifacts: libdwf reads them, and samples what the trainer's own network says.

mod common;

use std::{fs, path::Path};

use dwf::{
    Model, SampleOptions, Sampler,
    artifact::{self, Description},
    layout::Layout,
    metadata::BasisKind,
    noise,
    ode::{Grid, Method, Solver, Workspace, integrate},
};
use dwf_trainer::{
    components::{Components, Precision},
    export::{self, About},
    latent::Basis,
    rows::Rows,
    velocity::{Device, Velocity},
};
use half::f16;

const LATENT: usize = 5;

fn solver() -> Solver {
    Solver::fixed(Method::Rk4, 6, Grid::Uniform)
}

/// Every kind of basis, from `LATENT` latents.
fn bases() -> [Basis; 3] {
    let positive = |count, seed| {
        common::normals(count, seed)
            .iter()
            .map(|x| x.abs())
            .collect()
    };
    [
        Basis::Identity { weights: LATENT },
        Basis::Diagonal {
            mean: common::normals(LATENT, 1),
            scale: positive(LATENT, 2),
        },
        Basis::Linear {
            components: Components::new(&common::normals(LATENT * 11, 3), 11, Precision::Half)
                .unwrap(),
            mean: common::normals(11, 4),
            scale: positive(LATENT, 5),
        },
    ]
}

/// A network whose matrices lose nothing in half precision.
fn velocity() -> Velocity {
    let mut velocity = Velocity::random(common::shape(LATENT, 16), 6);
    for tensor in velocity
        .tensors()
        .iter()
        .filter(|tensor| tensor.is_matrix())
    {
        let weights = &mut velocity.weights[tensor.range.clone()];
        weights
            .iter_mut()
            .for_each(|w| *w = f16::from_f32(*w).to_f32());
    }
    velocity
}

/// The layout of an MLP without hidden layers of this many weights, which is odd or even.
fn layout(weights: usize) -> Layout {
    let outputs = weights / 2;
    let tensor = |name: &str, shape: &[usize]| {
        (
            name.to_owned(),
            shape.to_vec(),
            Default::default(),
            Default::default(),
        )
    };
    Layout::pack([
        tensor("a.weight", &[weights - outputs]),
        tensor("a.bias", &[outputs]),
    ])
    .unwrap()
}

fn about(basis: &Basis) -> About {
    common::about(&layout(basis.weights()))
}

fn write(folder: &Path, basis: &Basis) -> std::path::PathBuf {
    let path = folder.join("flow.onnx");
    export::write(&path, &velocity(), basis, &about(basis)).unwrap();
    path
}

#[test]
fn libdwf_reads_every_basis_and_every_tensor_is_aligned() {
    for basis in bases() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &basis);
        assert_eq!(
            common::names(folder.path()),
            ["flow.onnx", "flow.safetensors"]
        );
        let sidecar = fs::read(path.with_extension("safetensors")).unwrap();
        let description = Description::parse(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(description.latent, LATENT);
        assert_eq!(description.metadata.basis, basis.kind());
        assert_eq!(description.metadata.layout, layout(basis.weights()));
        assert_eq!(description.sidecar_name, "flow.safetensors");
        assert!(
            description
                .weights
                .iter()
                .all(|weight| weight.bytes.start % 64 == 0)
        );
        let views = match description.basis(&sidecar).unwrap() {
            artifact::Basis::Identity => vec![],
            artifact::Basis::Diagonal { mean, scale } => vec![mean, scale],
            artifact::Basis::Linear {
                components,
                mean,
                scale,
            } => vec![components, mean, scale],
        };
        assert_eq!(views.is_empty(), basis.kind() == BasisKind::Identity);
        assert!(views.iter().all(|view| view.bytes.start % 64 == 0));
    }
}

#[test]
fn samples_are_those_of_the_trainers_network() {
    let velocity = velocity();
    for basis in bases() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &basis);
        let model = Model::open(&path, &Default::default()).unwrap();
        let mut sampler = Sampler::new(&model, &Default::default()).unwrap();
        let mut weights = vec![0f32; 3 * basis.weights()];
        let options = SampleOptions {
            seed: 9,
            count: 3,
            solver: Some(solver()),
            ..Default::default()
        };
        sampler.sample(options, &mut weights[..]).unwrap();
        for (i, weights) in weights.chunks_exact(basis.weights()).enumerate() {
            let mut z = vec![0f32; LATENT];
            noise::fill(9, i as u64, 1.0, &mut z);
            let mut field = |t: &[f32], x: &[f32], v: &mut [f32]| {
                v.copy_from_slice(&velocity.evaluate(&common::points(x, t), Device::Cpu)?);
                Ok(())
            };
            integrate(
                &mut field,
                &solver(),
                1.0,
                LATENT,
                &mut z,
                &mut Workspace::default(),
            )
            .unwrap();
            for (weight, expected) in weights.iter().zip(decode(&basis, &z)) {
                // f32 rounding in two implementations, through 24 evaluations and the basis.
                let error = (f64::from(*weight) - expected).abs();
                assert!(
                    error < 2e-5 * (1.0 + expected.abs()),
                    "{weight} and {expected}"
                );
            }
        }
    }
}

fn decode(basis: &Basis, z: &[f32]) -> Vec<f64> {
    let z = z.iter().map(|z| f64::from(*z));
    match basis {
        Basis::Identity { .. } => z.collect(),
        Basis::Diagonal { mean, scale } => {
            let affine = |((m, s), z): ((&f32, &f32), f64)| f64::from(*m) + f64::from(*s) * z;
            mean.iter().zip(scale).zip(z).map(affine).collect()
        }
        Basis::Linear {
            components,
            mean,
            scale,
        } => {
            let mut weights: Vec<f64> = mean.iter().map(|m| f64::from(*m)).collect();
            for ((k, s), z) in scale.iter().enumerate().zip(z) {
                let factor = f64::from(*s) * z;
                weights
                    .iter_mut()
                    .zip(components.row(k))
                    .for_each(|(w, c)| *w += factor * f64::from(c));
            }
            weights
        }
    }
}

#[test]
fn the_same_content_gives_the_same_bytes_and_replaces_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let [identity, diagonal, _] = bases();
    let files = |path: &Path| {
        [path.to_owned(), path.with_extension("safetensors")].map(|f| fs::read(f).unwrap())
    };
    let first = files(&write(folder.path(), &diagonal));
    let other = files(&write(folder.path(), &identity));
    assert_ne!(first, other);
    let path = write(folder.path(), &diagonal);
    assert_eq!(first, files(&path));
    assert_eq!(common::names(folder.path()).len(), 2);
    let options = dwf::ModelOptions {
        verify: true,
        ..Default::default()
    };
    Model::open(&path, &options).unwrap();
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [identity, _, _] = bases();
    let refuse = |name: &str, velocity: &Velocity, about: &About| {
        let path = folder.path().join(name);
        let error = export::write(&path, velocity, &identity, about).unwrap_err();
        assert!(common::names(folder.path()).is_empty());
        error.to_string()
    };
    let about = about(&identity);
    let latents = refuse(
        "a.onnx",
        &Velocity::random(common::shape(LATENT + 1, 16), 0),
        &about,
    );
    assert!(latents.contains("a velocity over 6 latents"), "{latents}");
    let weights = refuse("a.onnx", &velocity(), &common::about(&layout(LATENT + 2)));
    assert!(weights.contains("a layout of 7 weights"), "{weights}");
    for bad in [f32::NAN, f32::INFINITY, 1e6] {
        let mut velocity = velocity();
        velocity.weights[0] = bad;
        assert!(refuse("a.onnx", &velocity, &about).contains("diverged"));
    }
    for name in ["a.safetensors", ".onnx", "onnx"] {
        let message = refuse(name, &velocity(), &about);
        assert!(message.contains("is not called NAME.onnx"), "{message}");
    }
}

/// The sidecar goes from file to file: it may be larger than memory.
#[cfg(target_os = "linux")]
#[test]
fn an_exported_sampler_is_not_held_in_memory() {
    const WEIGHTS: usize = 12 << 20;
    let folder = tempfile::tempdir().unwrap();
    let components = vec![0.5; LATENT * WEIGHTS];
    let basis = Basis::Linear {
        components: Components::new(&components, WEIGHTS, Precision::Half).unwrap(),
        mean: vec![0.5; WEIGHTS],
        scale: vec![1.0; LATENT],
    };
    let sidecar = write(folder.path(), &basis).with_extension("safetensors");
    let size = fs::metadata(&sidecar).unwrap().len();
    assert!(size > 150 << 20, "{size}");
    // What the process allocates, in KiB; files that it maps are not counted.
    let limit = (size / 2 / 1024).to_string();
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -d $0 && exec \"$@\"", &limit])
        .args([env!("CARGO_BIN_EXE_dwf"), "export-sampler"])
        .args(["flow.onnx", "-o", "sampler.onnx"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let copy = fs::read(folder.path().join("sampler.safetensors")).unwrap();
    assert!(copy == fs::read(&sidecar).unwrap());
}
