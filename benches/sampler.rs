//! Opening, the first sample, and batches of 1 and 100 on the reference network of the paper's
//! size: latent 99, h 512. `rk4_99` is the reference code's 396 evaluations, `default` the
//! artifact's RK4 with 8 steps.

#[path = "../tests/common/mod.rs"]
mod common;

use std::{hint::black_box, path::PathBuf, time::Duration};

use common::Fixture;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dwf::{
    Model, ModelOptions, SampleOptions, Sampler, SamplerOptions,
    layout::{DType, Layout, TensorKind},
    ode::{Grid, Method, Solver},
};

/// The reference network over a target of 26506 weights (an MLP 784-32-32-10).
fn artifact(folder: &tempfile::TempDir) -> PathBuf {
    let tensor = |name: &str, shape: &[usize]| {
        (name.into(), shape.into(), DType::F32, TensorKind::Parameter)
    };
    let layout = Layout::pack([
        tensor("fc1.weight", &[32, 784]),
        tensor("fc1.bias", &[32]),
        tensor("fc2.weight", &[32, 32]),
        tensor("fc2.bias", &[32]),
        tensor("fc3.weight", &[10, 32]),
        tensor("fc3.bias", &[10]),
    ])
    .unwrap();
    Fixture {
        latent: 99,
        hidden: 512,
        layout,
        ..Fixture::default()
    }
    .write(folder.path())
}

fn open(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = artifact(&folder);
    c.bench_function("open", |b| {
        b.iter(|| Model::open(black_box(&path), &ModelOptions::default()).unwrap());
    });
    c.bench_function("open_to_first_network", |b| {
        b.iter(|| {
            let model = Model::open(&path, &ModelOptions::default()).unwrap();
            let mut sampler = Sampler::new(&model, &SamplerOptions::default()).unwrap();
            let mut weights = vec![0f32; model.metadata().layout.len()];
            sampler
                .sample(SampleOptions::default(), &mut weights[..])
                .unwrap();
            weights
        });
    });
}

fn sample(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::open(artifact(&folder), &ModelOptions::default()).unwrap();
    let mut sampler = Sampler::new(&model, &SamplerOptions::default()).unwrap();
    let reference = Solver::fixed(Method::Rk4, 99, Grid::Uniform);
    let mut group = c.benchmark_group("sample");
    group
        .measurement_time(Duration::from_secs(4))
        .sample_size(20);
    for (name, solver) in [("rk4_99", Some(reference)), ("default", None)] {
        for count in [1, 100] {
            let mut weights = vec![0f32; count * model.metadata().layout.len()];
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    let options = SampleOptions {
                        count,
                        solver,
                        ..Default::default()
                    };
                    sampler.sample(options, &mut weights[..]).unwrap();
                });
            });
        }
    }
}

criterion_group!(benches, open, sample);
criterion_main!(benches);
