//! What one graph should hold: an evaluation of the velocity network, as the sampler has it, a step
//! of RK4, or a whole trajectory. The reference network (latent 99, h 512) without a basis, RK4 with
//! 8 steps, one thread; prints microseconds an evaluation, and of loading. Below an evaluation of one
//! network lies the time in which a core reads the network's matrices from its cache.
//!
//! usage: cargo bench --bench graphs

#![allow(clippy::print_stdout, reason = "its table")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "common/reading.rs"]
mod reading;

use std::{hint::black_box, path::Path, time::Instant};

use common::Fixture;
use dwf::{
    Model, SampleOptions, Sampler, SamplerOptions,
    layout::{DType, Layout, TensorKind},
    metadata::BasisKind,
    ode::{Grid, Method, Solver},
    trajectory::{Precision, compose},
};
use ort::{environment::Environment, session::Session, value::Tensor};
use prost::Message;
use reading::read;

const LATENT: usize = 99;
const HIDDEN: usize = 512;
const STEPS: usize = 8;
/// Numbers in the matrices of an evaluation; the one of time is applied once a grid.
const MATRICES: usize = 2 * (LATENT * HIDDEN + HIDDEN * HIDDEN / 2);

fn main() {
    let runtime = std::env::var_os("DWF_ONNXRUNTIME").expect(".cargo/config.toml sets it");
    let runtime = ort::init_from(Path::new(&runtime)).expect("ONNX Runtime");
    let environment = runtime.build().expect("an environment");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let layout = [("w".into(), vec![LATENT], DType::F32, TensorKind::Parameter)];
    let fixture = Fixture {
        hidden: HIDDEN,
        layout: Layout::pack(layout).expect("one tensor"),
        ..Fixture::with_basis(BasisKind::Identity)
    };
    let model =
        Model::open(fixture.write(folder.path()), &Default::default()).expect("an artifact");
    let start = Instant::now();
    let options = SamplerOptions {
        threads: 1,
        max_batch: 100,
        ..Default::default()
    };
    let mut sampler = Sampler::new(&model, &options).expect("a sampler");
    let loading = start.elapsed();
    let floor = reading_matrices();
    println!(
        "{:.2} MB of matrices, read by a core in {:.1} us, {:.0} GB/s",
        4e-6 * MATRICES as f64,
        1e6 * floor,
        4e-9 * MATRICES as f64 / floor
    );
    let solver = Solver::fixed(Method::Rk4, STEPS, Grid::Uniform);
    for rows in [1, 100] {
        let mut weights = vec![0f32; rows * LATENT];
        let seconds = best(|| {
            let options = SampleOptions {
                count: rows,
                solver: Some(solver),
                ..Default::default()
            };
            sampler.sample(options, &mut weights[..]).expect("networks");
        });
        report("evaluation", rows, seconds, loading.as_secs_f64());
        graph(&environment, &model, folder.path(), "step", rows, 1);
        graph(
            &environment,
            &model,
            folder.path(),
            "trajectory",
            rows,
            STEPS,
        );
    }
}

/// Runs a graph of `steps` steps until it has made [`STEPS`].
fn graph(
    environment: &Environment,
    model: &Model,
    folder: &Path,
    name: &str,
    rows: usize,
    steps: usize,
) {
    let solver = Solver::fixed(Method::Rk4, steps, Grid::Uniform);
    let graph = compose(model, &solver, Precision::Single, "net.safetensors").expect("a graph");
    let path = folder.join("graph.onnx");
    std::fs::write(&path, graph.encode_to_vec()).expect("a file");
    let start = Instant::now();
    let builder = Session::builder(environment).expect("a session's options");
    let builder = builder.with_intra_threads(1).expect("one thread");
    let mut session = { builder }.commit_from_file(&path).expect("a session");
    let loading = start.elapsed().as_secs_f64();
    let noise = Tensor::from_array(([rows, LATENT], vec![0.5f32; rows * LATENT])).expect("noise");
    let seconds = best(|| {
        for _ in 0..STEPS / steps {
            session
                .run(ort::inputs!["noise" => &noise])
                .expect("weights");
        }
    });
    report(name, rows, seconds, loading);
}

fn report(name: &str, rows: usize, seconds: f64, loading: f64) {
    println!(
        "batch {rows:3}, a graph a {name:10}: {:7.1} us an evaluation, {:6.0} ms to load",
        1e6 * seconds / (4 * STEPS) as f64,
        1e3 * loading
    );
}

/// Seconds in which this core reads as many words as an evaluation, from as near as they fit.
fn reading_matrices() -> f64 {
    const TIMES: usize = 100;
    let words = vec![1u32; MATRICES];
    let seconds = best(|| {
        for _ in 0..TIMES {
            black_box(read(black_box(&words)));
        }
    });
    seconds / TIMES as f64
}

/// Seconds of the fastest of some runs.
fn best(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..50).map(time).fold(f64::INFINITY, f64::min)
}
