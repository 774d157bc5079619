//! Decoding a linear basis of 99 components onto a network of ResNet-18's size (11.2 million
//! weights), beside what the machine allows: the time to read the basis once, and multiply-adds a
//! second. The velocity network is tiny here and takes one Euler step.
//!
//! usage: cargo bench --bench decode [-- WEIGHTS]

#![allow(clippy::print_stdout, reason = "its table")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "common/reading.rs"]
mod reading;

use std::{hint::black_box, time::Instant};

use common::Fixture;
use dwf::{
    Model, SampleOptions, Sampler, SamplerOptions,
    layout::{DType, Layout, TensorKind},
    ode::{Grid, Method, Solver},
};
use reading::read;

const LATENT: usize = 99;

fn main() {
    let mut arguments = std::env::args().filter_map(|argument| argument.parse().ok());
    let weights: usize = arguments.next_back().unwrap_or(11_200_000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fixture = Fixture {
        latent: LATENT,
        layout: Layout::pack([(
            "weight".into(),
            vec![weights],
            DType::F32,
            TensorKind::Parameter,
        )])
        .expect("one tensor"),
        ..Fixture::default()
    };
    let path = fixture.write(folder.path());
    let bytes = std::fs::read(path.with_extension("safetensors")).expect("the sidecar");
    let model = Model::open(&path, &Default::default()).expect("an artifact");
    let mut sampler = Sampler::new(&model, &SamplerOptions::default()).expect("a sampler");
    let threads = sampler.info().threads;
    println!("{weights} weights, {LATENT} components in f16, {threads} threads");

    let words: &[u32] = bytemuck::cast_slice(&bytes[..bytes.len() / 4 * 4]);
    let read = best(|| read_all(words, threads));
    println!(
        "reading the sidecar once: {:.1} ms, {:.1} GB/s",
        1e3 * read,
        bytes.len() as f64 / read * 1e-9
    );
    for count in [1, 4, 8, 32, 100] {
        let mut networks = vec![0f32; count * weights];
        let seconds = best(|| {
            let options = SampleOptions {
                count,
                solver: Some(Solver::fixed(Method::Euler, 1, Grid::Uniform)),
                ..SampleOptions::default()
            };
            sampler
                .sample(options, &mut networks[..])
                .expect("networks");
        });
        let operations = 2.0 * (count * LATENT * weights) as f64;
        println!(
            "batch {count:3}: {:7.1} ms, {:.2} of the reading speed, {:5.1} GFLOP a core-second",
            1e3 * seconds,
            read / seconds,
            operations / seconds / threads as f64 * 1e-9
        );
    }
}

/// Seconds of the fastest of a few runs.
fn best(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..5).map(time).fold(f64::INFINITY, f64::min)
}

fn read_all(words: &[u32], threads: usize) {
    std::thread::scope(|scope| {
        for part in words.chunks(words.len().div_ceil(threads)) {
            scope.spawn(|| black_box(read(part)));
        }
    });
}
