//! Opening, the first sample, and batches of 1 and 100 on the reference network of the paper's
//! size: latent 99, h 512. `rk4_99` is the reference code's 396 evaluations, `default` the
//! artifact's RK4 with 8 steps.

#[path = "../tests/common/mod.rs"]
mod common;

use std::{hint::black_box, time::Duration};

use common::{Fixture, stretched::write_stretched};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dwf::{
    Model, ModelOptions, SampleOptions, Sampler, SamplerOptions,
    ode::{Grid, Method, Solver},
};

fn open(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = Fixture::reference().write(folder.path());
    c.bench_function("open", |b| {
        b.iter(|| Model::open(black_box(&path), &ModelOptions::default()).unwrap());
    });
    // 4 GB of basis as a hole in the file.
    let large = write_stretched(&Fixture::default(), folder.path(), 170_000_000);
    c.bench_function("open_4_gb", |b| {
        b.iter(|| Model::open(black_box(&large), &ModelOptions::default()).unwrap());
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
    let path = Fixture::reference().write(folder.path());
    let model = Model::open(path, &ModelOptions::default()).unwrap();
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
