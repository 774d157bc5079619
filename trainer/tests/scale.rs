//! Zoos of networks of which memory holds few: a training's memory grows with one network, not with
//! their number, nor with that of the networks it generates to report on.

#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "what it took")]

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use dwf::layout::{DType, Layout, TensorKind};
use dwf_trainer::{random::Random, zoo::Writer};

/// Networks differ along this many directions, and by noise.
const RANK: usize = 8;
/// Directions repeat after as many weights.
const PERIOD: usize = 1 << 12;

/// An MLP of about `weights` weights in half precision.
fn layout(weights: usize) -> Layout {
    let width = (weights / 2).isqrt();
    let shapes = [[width, width], [width, width], [10, width]];
    let tensors = shapes.into_iter().enumerate().flat_map(|(i, shape)| {
        let tensor = |what: &str, shape: &[usize]| {
            let name = format!("fc{}.{what}", i + 1);
            (name, shape.to_vec(), DType::F16, TensorKind::Parameter)
        };
        [tensor("bias", &shape[..1]), tensor("weight", &shape)]
    });
    Layout::pack(tensors).unwrap()
}

fn write_zoo(folder: &Path, layout: &Layout, count: usize) {
    let directions = common::normals(RANK * PERIOD, 1);
    let mut writer = Writer::new(folder, layout, 0).unwrap();
    let mut network = vec![0f32; layout.len()];
    for i in 0..count as u64 {
        let factors = Random::new(2, i).normal(RANK, 0.02);
        let column = |j: usize| -> f32 {
            let parts = factors.iter().enumerate();
            parts.map(|(k, f)| f * directions[k * PERIOD + j]).sum()
        };
        let shared: Vec<f32> = (0..PERIOD).map(column).collect();
        for (block, weights) in network.chunks_mut(PERIOD).enumerate() {
            // xorshift: uniform, and quicker than it is written.
            let mut state = ((i << 40) | (block as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for (weight, shared) in weights.iter_mut().zip(&shared) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let noise = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
                *weight = shared + 0.05 * noise;
            }
        }
        writer.add(&network).unwrap();
    }
    writer.finish().unwrap();
}

/// A zoo of 24 networks of 4,000,000 weights, 193 MB, learned and reported on with 100 generated
/// networks, which are 1.6 GB as float32.
#[test]
fn a_training_takes_the_memory_of_some_networks() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_zoo(&at.join("zoo"), &layout(4_000_000), 24);
    let train = "train zoo -o out/flow.onnx --aligned --basis linear --latent 8 --steps 60";
    let taken = watched(at, &format!("{train} --json"));
    assert!(taken < 200 << 20, "{taken} bytes");
    // Eight populations of 20 networks, 320 MB each as float32.
    let taken = watched(at, "report out/flow.onnx --zoo zoo -n 20 --json");
    assert!(taken < 250 << 20, "{taken} bytes");
    // A gigabyte of networks, half of it at a time.
    let taken = watched(at, "generate out/flow.onnx -n 64 -o new --json");
    assert!(taken < 720 << 20, "{taken} bytes");
    assert_eq!(common::names(&at.join("new")).len(), 64);
}

/// The same with `DWF_SCALE_WEIGHTS` weights and `DWF_SCALE_NETWORKS` networks in
/// `DWF_SCALE_FOLDER`, and what it takes: `cargo test --release -p dwf-trainer --test scale --
/// --ignored --nocapture`.
#[test]
#[ignore = "half an hour and 27 GB of disk"]
fn a_hundred_million_weights() {
    let number =
        |name, default| std::env::var(name).map_or(default, |n: String| n.parse().unwrap());
    let weights: usize = number("DWF_SCALE_WEIGHTS", 100_000_000);
    let count = number("DWF_SCALE_NETWORKS", 100);
    let parent = std::env::var("DWF_SCALE_FOLDER").unwrap_or_else(|_| "/tmp".into());
    let folder = tempfile::tempdir_in(parent).unwrap();
    let at = folder.path();
    let layout = layout(weights);
    let start = Instant::now();
    write_zoo(&at.join("zoo"), &layout, count);
    println!(
        "{count} networks of {} weights, written in {:.0?}",
        layout.len(),
        start.elapsed()
    );
    let train = "train zoo -o out/flow.onnx --aligned --basis linear --latent 16";
    watched(at, &format!("{train} --json"));
    fs::remove_dir_all(at.join("zoo")).unwrap();
    watched(at, "generate out/flow.onnx -n 8 -o new --json");
}

/// Runs the command, and prints its time and memory, and when each stage began. Returns the most
/// bytes that it had of its own, other than those of mapped files, whenever that was looked at.
fn watched(folder: &Path, arguments: &str) -> usize {
    let start = Instant::now();
    let mut process = Command::new(env!("CARGO_BIN_EXE_dwf"))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        // Every thread takes some megabytes more.
        .env("RAYON_NUM_THREADS", "2")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", process.id());
    let lines = std::io::BufReader::new(process.stdout.take().unwrap());
    let stages = std::thread::spawn(move || {
        let mut last = String::new();
        for line in std::io::BufRead::lines(lines).map_while(Result::ok) {
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            let stage = event["stage"].as_str().unwrap_or_default().to_owned();
            if stage != last || event["event"] == "done" {
                println!("{:6.0} s {line}", start.elapsed().as_secs_f64());
                last = stage;
            }
        }
    });
    let (mut own, mut all) = (0, 0);
    while process.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let kilobytes = |field: &str| -> usize {
            let line = text.lines().find_map(|line| line.strip_prefix(field));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.map_or(0, |number| number.parse().unwrap())
        };
        own = own.max(kilobytes("RssAnon:"));
        all = all.max(kilobytes("VmHWM:"));
        std::thread::sleep(Duration::from_millis(5));
    }
    stages.join().unwrap();
    println!(
        "dwf {arguments}: {:.0?}, {} MB of its own at most, {} MB with mapped files",
        start.elapsed(),
        own >> 10,
        all >> 10
    );
    assert!(process.wait().unwrap().success());
    own << 10
}
