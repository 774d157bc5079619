//! Generated networks against an independent computation in f64 from the same noise.

mod common;

use std::{path::Path, process::Command};

use common::{Fixture, Reference};
use dwf::{
    Model, SampleOptions, Sampler, SamplerOptions,
    artifact::Float,
    condition::{Axis, Condition, ConditionSchema},
    layout::{DType, Layout, TensorKind},
    metadata::BasisKind,
    ode::{Grid, Method, Solver},
};
use half::{bf16, f16};
use tempfile::TempDir;

/// Largest relative error of a network, in the 2-norm. Rounding to f32 (6e-8) at every operation
/// measures 1e-7 to 3e-7 here, 1e-6 over 99 steps; a tenfold margin covers other processors. A
/// wrong coefficient anywhere costs more (`methods_differ_on_the_fixture`). The contract is 1e-4.
const TOLERANCE: f64 = 1e-5;

/// An artifact opened by the library and by the reference.
struct Case {
    model: Model,
    reference: Reference,
    _folder: Option<TempDir>,
}

impl Case {
    fn new(fixture: &Fixture) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = fixture.write(folder.path());
        Self {
            _folder: Some(folder),
            ..Self::open(&path)
        }
    }

    fn open(path: &Path) -> Self {
        Self {
            model: Model::open(path, &Default::default()).unwrap(),
            reference: Reference::open(path),
            _folder: None,
        }
    }

    fn weights(&self) -> usize {
        self.model.metadata().layout.len()
    }

    /// Checks the networks that `options` ask for, generated `max_batch` at a time (0: default).
    fn check(&self, max_batch: usize, options: SampleOptions) {
        let what = format!(
            "count {}, max_batch {max_batch}, {:?}, condition {:?}, guidance {}",
            options.count, options.solver, options.condition, options.guidance
        );
        let expected = self.reference.sample(&options);
        let mut found = vec![0f32; expected.len()];
        self.sampler(max_batch)
            .sample(options, &mut found[..])
            .unwrap();
        let error = error(&found, &expected, self.weights());
        assert!(error < TOLERANCE, "relative error {error:.2e}: {what}");
    }

    fn sampler(&self, max_batch: usize) -> Sampler {
        let options = SamplerOptions {
            max_batch,
            ..Default::default()
        };
        Sampler::new(&self.model, &options).unwrap()
    }
}

fn error(found: &[f32], expected: &[f64], weights: usize) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let network = |(found, expected): (&[f32], &[f64])| {
        let pairs = found.iter().zip(expected);
        let difference = norm(&mut pairs.map(|(found, expected)| f64::from(*found) - expected));
        difference / norm(&mut expected.iter().copied())
    };
    found
        .chunks_exact(weights)
        .zip(expected.chunks_exact(weights))
        .map(network)
        .fold(0.0, f64::max)
}

fn some<'a>(count: usize) -> SampleOptions<'a> {
    SampleOptions {
        seed: 7,
        first_index: 1000,
        count,
        ..Default::default()
    }
}

#[test]
fn every_basis() {
    for basis in [BasisKind::Identity, BasisKind::Diagonal, BasisKind::Linear] {
        for float in [Float::F32, Float::F16] {
            let fixture = Fixture {
                basis_float: float,
                weight_float: float,
                ..Fixture::with_basis(basis)
            };
            Case::new(&fixture).check(0, some(3));
        }
    }
}

/// Exponentials and a uniform source; for few and for many networks, whose panels go other ways.
#[test]
fn logarithms_and_uniform_sources() {
    for basis in [BasisKind::Identity, BasisKind::Diagonal, BasisKind::Linear] {
        let case = Case::new(&Fixture::with_basis(basis).with_logs());
        case.check(0, some(3));
        case.check(0, some(40));
    }
}

#[test]
fn every_method_and_grid() {
    for source_std in [1.0, 0.01] {
        let case = Case::new(&Fixture {
            source_std,
            ..Default::default()
        });
        for method in [Method::Euler, Method::Midpoint, Method::Heun, Method::Rk4] {
            for (grid, steps) in [(Grid::Uniform, 5), (Grid::Stretched, 6)] {
                let solver = Solver::fixed(method, steps, grid);
                let options = SampleOptions {
                    solver: Some(solver),
                    ..some(3)
                };
                case.check(0, options);
            }
        }
    }
}

/// The tests above can only fail where methods and grids differ by more than the tolerance.
#[test]
fn methods_differ_on_the_fixture() {
    let case = Case::new(&Fixture {
        source_std: 0.5,
        ..Default::default()
    });
    let solution = |method, grid| {
        let solver = Solver::fixed(method, 5, grid);
        case.reference.sample(&SampleOptions {
            solver: Some(solver),
            ..some(3)
        })
    };
    let all: Vec<_> = [Method::Euler, Method::Midpoint, Method::Heun, Method::Rk4]
        .into_iter()
        .flat_map(|method| [Grid::Uniform, Grid::Stretched].map(|grid| solution(method, grid)))
        .collect();
    for (i, a) in all.iter().enumerate() {
        let a: Vec<f32> = a.iter().map(|value| *value as f32).collect();
        for b in &all[..i] {
            assert!(error(&a, b, case.weights()) > 5.0 * TOLERANCE);
        }
    }
}

#[test]
fn every_batch() {
    let case = Case::new(&Fixture::default());
    for count in [1, 3, 100] {
        for max_batch in [0, 1, 7, 100] {
            case.check(max_batch, some(count));
        }
    }
}

#[test]
fn the_reference_solver() {
    let case = Case::new(&Fixture::default());
    let solver = Solver::fixed(Method::Rk4, 99, Grid::Uniform);
    case.check(
        0,
        SampleOptions {
            solver: Some(solver),
            ..some(3)
        },
    );
}

#[test]
fn a_network_that_several_threads_decode() {
    let tensor = |name: &str, shape: &[usize]| {
        (
            name.to_owned(),
            shape.to_vec(),
            DType::F32,
            TensorKind::Parameter,
        )
    };
    let layout = Layout::pack([
        tensor("big", &[300, 133]),
        tensor("small", &[1]),
        tensor("odd", &[7, 211]),
    ]);
    let case = Case::new(&Fixture {
        layout: layout.unwrap(),
        ..Default::default()
    });
    case.check(2, some(5));
}

fn classes(unconditional: Option<Vec<f32>>) -> Fixture {
    let names = ["setosa", "versicolor", "virginica"];
    Fixture {
        condition: Some(Condition {
            schema: ConditionSchema::Classes(names.map(String::from).into()),
            unconditional,
        }),
        ..Default::default()
    }
}

#[test]
fn conditions() {
    let axis = |name: &str| Axis {
        name: name.into(),
        min: -1.0,
        max: 2.0,
    };
    let axes = Fixture {
        condition: Some(Condition {
            schema: ConditionSchema::Axes(vec![axis("speed"), axis("caution")]),
            unconditional: None,
        }),
        ..Default::default()
    };
    let with = |condition: &'static [f32]| SampleOptions {
        condition: Some(condition),
        ..some(4)
    };
    let case = Case::new(&classes(None));
    case.check(0, with(&[0.0, 1.0, 0.0]));
    let rows = with(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    case.check(3, rows);
    let case = Case::new(&axes);
    case.check(0, with(&[0.5, 2.0]));
    case.check(3, with(&[0.5, 2.0, -1.0, 0.0, 1.0, 1.5, 0.0, 0.0]));
}

#[test]
fn guidance() {
    let case = Case::new(&classes(Some(vec![0.0; 3])));
    case.check(0, some(4));
    let rows = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0];
    for guidance in [0.0, 0.5, 1.0, 3.0] {
        for condition in [&rows[..3], &rows[..]] {
            let options = SampleOptions {
                condition: Some(condition),
                guidance,
                ..some(4)
            };
            case.check(3, options);
        }
    }
}

/// Half precision rounds each weight by up to half a unit in the last place: 2^-11 of it for
/// float16, which has subnormals below 2^-14 with 2^-25, and 2^-8 for bfloat16.
#[test]
fn half_precision_output() {
    let case = Case::new(&Fixture::default());
    let expected = case.reference.sample(&some(3));
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let check = |found: Vec<f64>, relative: f64, absolute: f64| {
        for (found, expected) in found.iter().zip(&expected) {
            let bound = relative * expected.abs() + absolute + TOLERANCE * largest;
            assert!((found - expected).abs() <= bound, "{found} for {expected}");
        }
    };
    let mut sampler = case.sampler(0);
    let mut halves = vec![f16::ZERO; expected.len()];
    sampler.sample(some(3), &mut halves[..]).unwrap();
    let wide = halves.iter().map(|x| x.to_f64()).collect();
    check(wide, 2f64.powi(-11), 2f64.powi(-25));

    let mut brains = vec![bf16::ZERO; expected.len()];
    sampler.sample(some(3), &mut brains[..]).unwrap();
    let wide = brains.iter().map(|x| x.to_f64()).collect();
    check(wide, 2f64.powi(-8), 0.0);
}

/// The artifact that the trainer made, by its own solver.
#[test]
fn the_committed_artifact() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/iris/iris.onnx");
    Case::open(&path).check(0, some(100));
}

/// All of this again on the oldest and the newest ONNX Runtime that are tested, each of which needs
/// its own process.
#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "pinned for x86-64 only")]
fn on_other_onnx_runtimes() {
    for version in ["1.20.1", "1.32.0"] {
        let library = format!(".ort/{version}/libonnxruntime.so");
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join(library);
        assert!(
            library.exists(),
            "`make test` fetches {}",
            library.display()
        );
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--skip", "on_other_onnx_runtimes"])
            .env(dwf::runtime::PATH_VARIABLE, library)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{version}: {text}");
    }
}

/// A local error of 1e-5 a step over tens of steps stays below 1e-3 of the exact solution, here
/// RK4 with 200 steps in f64.
#[test]
fn adaptive_steps_reach_the_exact_solution() {
    let case = Case::new(&Fixture {
        gain: 3.0,
        ..Fixture::default()
    });
    let solved = |solver| SampleOptions {
        solver: Some(solver),
        ..some(9)
    };
    let fine = Solver::fixed(Method::Rk4, 200, Grid::Uniform);
    let exact = case.reference.sample(&solved(fine));
    let weights = case.weights();
    let mut found = vec![0f32; exact.len()];
    let mut sampler = case.sampler(0);
    let mut sample = |options, networks: &mut [f32]| sampler.sample(options, networks).unwrap();
    sample(solved(Solver::adaptive(1e-5)), &mut found);
    let distance = error(&found, &exact, weights);
    assert!(distance < 1e-3, "{distance:.2e}");

    // A network alone takes the steps it takes in a batch: only the order of sums inside the
    // velocity network may differ, and what rounding makes of it.
    for (i, row) in found.chunks_exact(weights).enumerate() {
        let mut alone = vec![0f32; weights];
        let options = SampleOptions {
            first_index: 1000 + i as u64,
            count: 1,
            ..solved(Solver::adaptive(1e-5))
        };
        sample(options, &mut alone);
        let row: Vec<f64> = row.iter().map(|weight| f64::from(*weight)).collect();
        let distance = error(&alone, &row, weights);
        assert!(distance < TOLERANCE, "network {i}: {distance:.2e}");
    }
}
