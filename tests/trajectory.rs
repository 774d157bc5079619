//! The trajectory composed as one graph, run by ONNX Runtime's ordinary API, against the sampler's
//! loop.

mod common;

use std::path::Path;

use common::{Fixture, networks::relative_error};
use dwf::{
    Model, SampleOptions, Sampler, Status,
    condition::{Condition, ConditionSchema},
    metadata::BasisKind,
    ode::{Grid, Method, Solver},
    trajectory::{MAX_EVALUATIONS, Precision, compose},
};
use ort::{environment::Environment, session::Session, value::Tensor};
use prost::Message;

const ROWS: usize = 3;
const SEED: u64 = 11;

/// Runs a composed graph on the noise of networks 0.. of [`SEED`].
fn run(environment: &Environment, model: &Model, folder: &Path, graph: &[u8]) -> Vec<f32> {
    let path = folder.join("sampler.onnx");
    std::fs::write(&path, graph).unwrap();
    let mut session = Session::builder(environment)
        .unwrap()
        .commit_from_file(&path)
        .unwrap();
    let latent = model.latent();
    let mut rows = vec![0f32; ROWS * latent];
    for (i, row) in rows.chunks_exact_mut(latent).enumerate() {
        model.metadata().source.fill(SEED, i as u64, row);
    }
    let mut inputs = vec![("noise", Tensor::from_array(([ROWS, latent], rows)).unwrap())];
    if let Some(condition) = &model.metadata().condition {
        let rows = conditions(condition);
        let tensor = Tensor::from_array(([ROWS, condition.size()], rows)).unwrap();
        inputs.push(("condition", tensor));
    }
    let outputs = session.run(inputs).unwrap();
    let (shape, weights) = outputs["weights"].try_extract_tensor::<f32>().unwrap();
    assert_eq!(
        shape[..],
        [ROWS as i64, model.metadata().layout.len() as i64]
    );
    weights.to_vec()
}

/// One-hot rows, a class a network.
fn conditions(condition: &Condition) -> Vec<f32> {
    let size = condition.size();
    let value = |i: usize| f32::from(i % size == (i / size) % size);
    (0..ROWS * size).map(value).collect()
}

fn sample(model: &Model, solver: Solver) -> Vec<f32> {
    let conditions = model.metadata().condition.as_ref().map(conditions);
    let mut weights = vec![0f32; ROWS * model.metadata().layout.len()];
    let options = SampleOptions {
        seed: SEED,
        count: ROWS,
        solver: Some(solver),
        condition: conditions.as_deref(),
        ..SampleOptions::default()
    };
    let mut sampler = Sampler::new(model, &Default::default()).unwrap();
    sampler.sample(options, &mut weights[..]).unwrap();
    weights
}

fn fixtures() -> Vec<Fixture> {
    let classes = ["a", "b", "c", "d"].map(String::from).to_vec();
    vec![
        Fixture::with_basis(BasisKind::Identity),
        Fixture::with_basis(BasisKind::Diagonal).with_logs(),
        Fixture::default().with_logs(),
        Fixture {
            source_std: 0.1,
            ..Fixture::with_basis(BasisKind::Linear)
        },
        Fixture {
            condition: Some(Condition {
                schema: ConditionSchema::Classes(classes),
                unconditional: None,
            }),
            ..Fixture::default()
        },
    ]
}

/// One test, because a process has one ONNX Runtime environment.
#[test]
fn composed_graphs_compute_what_the_loop_does() {
    let runtime = std::env::var_os("DWF_ONNXRUNTIME").unwrap();
    let environment = ort::init_from(Path::new(&runtime))
        .unwrap()
        .build()
        .unwrap();
    for fixture in fixtures() {
        let folder = tempfile::tempdir().unwrap();
        let model = Model::open(fixture.write(folder.path()), &Default::default()).unwrap();
        for (method, steps, grid) in [
            (Method::Euler, 3, Grid::Uniform),
            (Method::Midpoint, 3, Grid::Stretched),
            (Method::Heun, 2, Grid::Uniform),
            (Method::Rk4, 4, Grid::Stretched),
        ] {
            let solver = Solver::fixed(method, steps, grid);
            let expected = sample(&model, solver);
            let composed = |precision| {
                let graph = compose(&model, &solver, precision, "net.safetensors").unwrap();
                run(&environment, &model, folder.path(), &graph.encode_to_vec())
            };
            // The same float32 operations; only fusions may order sums differently.
            let error = relative_error(&composed(Precision::Single), &expected);
            assert!(error < 1e-5, "{method:?}: {error:.1e}");
            // float16 rounds to 5e-4 at every operation of the network, not in the state.
            let error = relative_error(&composed(Precision::Half), &expected);
            assert!(error < 5e-3, "{method:?} half: {error:.1e}");
            assert!(error > 1e-6, "{method:?} half computes in float32");
        }
    }
}

#[test]
fn what_cannot_be_unrolled_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::open(Fixture::default().write(folder.path()), &Default::default()).unwrap();
    for (solver, status) in [
        (Solver::adaptive(1e-4), Status::Unsupported),
        (
            Solver::fixed(Method::Euler, MAX_EVALUATIONS + 1, Grid::Uniform),
            Status::Unsupported,
        ),
        (
            Solver::fixed(Method::Euler, 0, Grid::Uniform),
            Status::InvalidArgument,
        ),
    ] {
        let error = compose(&model, &solver, Precision::Single, "net.safetensors").unwrap_err();
        assert_eq!(error.status(), status, "{error}");
    }
}
