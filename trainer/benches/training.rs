//! Steps a second of training the reference velocity network:
//! `training LATENT WIDTH BATCH SECONDS [cuda]`.
//!
//! Everything that a step of `dwf train` does: drawing the batch, loss and gradient, clipping,
//! AdamW, the moving average. `benches/training.py` compares it with PyTorch.

#![allow(clippy::print_stdout, reason = "a benchmark talks to people")]

use std::time::Instant;

use dwf_trainer::{
    flow::{self, FlowOptions, Keep, Quality, Task, Training},
    interrupt,
    path::{Latents, Target},
    random::Random,
    train::TrainOptions,
    velocity::{Device, Shape, Variant, Velocity},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NETWORKS: usize = 100;
const WARM_UP: usize = 3;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let [latent, width, batch, seconds] = numbers[..] else {
        println!("usage: training LATENT WIDTH BATCH SECONDS [cuda]");
        return;
    };
    let shape = Shape {
        variant: Variant::Reference,
        latent,
        width,
        condition: 0,
    };
    let latents = |count| Latents {
        size: latent,
        values: Random::new(1, 0).normal(count * latent, 1.0),
        conditions: None,
    };
    let (training, held_out) = (latents(NETWORKS), latents(0));
    let start = Velocity::untrained(shape, 1);
    let task = Task {
        target: Target::Zoo(&training),
        held_out: &held_out,
        start: &start,
    };
    let defaults = TrainOptions::default().flow;
    let mut options = FlowOptions {
        steps: 1 << 20,
        keep: Keep::Last,
        device: match std::env::args().any(|a| a == "cuda") {
            true => Device::Cuda,
            false => Device::Cpu,
        },
        ..defaults
    };
    options.path.batch = batch;
    let fine = Quality {
        std_ratio: 1.0,
        near_copies: 0.0,
        shortfall: None,
        novel_and_good: 0.0,
        loss: 0.0,
    };
    let mut clock = Instant::now();
    let mut done = 0;
    let mut tell = |_: &mut Training, at: flow::Progress| {
        if at.step == WARM_UP {
            clock = Instant::now();
        }
        done = at.step.saturating_sub(WARM_UP);
        match clock.elapsed().as_secs() >= seconds as u64 && done > 0 {
            true => Err(interrupt::error("nothing")),
            false => Ok(()),
        }
    };
    match flow::train(&task, &options, None, &mut |_| Ok(fine), &mut tell) {
        Err(e) if done == 0 => println!("{e}"),
        _ => println!("{}", done as f64 / clock.elapsed().as_secs_f64()),
    }
}
