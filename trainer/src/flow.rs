//! Training of the velocity network by conditional flow matching.
//!
//! Lipman et al., "Flow matching for generative modeling" (ICLR 2023, arXiv 2210.02747), with
//! straight paths: x_t = (1 - t) x_0 + t x_1 from noise x_0 to a network's latent x_1, and the
//! velocity x_1 - x_0 as the target.
//!
//! A zoo has fewer networks than a network has weights, and a flow trained on the bare points
//! learns to return them. So the end points are mixed: x_1 = cos(a) p + sin(a) q for two latents
//! p, q of the zoo and a random angle a. In whitened coordinates such arcs keep the zoo's mean
//! and covariance, and turn its N points into N (N - 1) arcs.

use std::f32::consts::PI;

use crate::{adamw::AdamW, random::Random, velocity::Velocity};

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowOptions {
    /// Everything random follows from it.
    pub seed: u64,
    /// Optimiser steps.
    pub steps: usize,
    /// h of the velocity network, even.
    pub width: usize,
}

/// A trained flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Its velocity network, with the moving average of the weights.
    pub velocity: Velocity,
    /// Its loss on the held-out latents.
    pub held_out: HeldOutLoss,
}

/// The loss on the held-out latents, mean square a coordinate, during a training: it falls while
/// the flow learns what all networks have in common, and rises again while it learns these
/// networks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldOutLoss {
    /// That of a flow that stands still, as the untrained one does.
    pub standing_still: f64,
    /// The lowest that was seen.
    pub lowest: f64,
    /// The step after which it was seen; 0 if the flow was never better than standing still.
    pub lowest_step: usize,
    /// That of the trained flow.
    pub last: f64,
}

impl HeldOutLoss {
    fn untrained(loss: f64) -> Self {
        Self {
            standing_still: loss,
            lowest: loss,
            lowest_step: 0,
            last: loss,
        }
    }

    fn see(&mut self, loss: f64, step: usize) {
        self.last = loss;
        if loss < self.lowest {
            (self.lowest, self.lowest_step) = (loss, step);
        }
    }
}

/// What training reports after every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Loss of this step's batch.
    pub loss: f32,
    /// Newest loss on the held-out latents.
    pub held_out_loss: f64,
}

/// Standard deviation of the noise that trajectories start from: that of the whitened latents.
pub const SOURCE_STD: f64 = 1.0;

const BATCH: usize = 64;
const PEAK_RATE: f32 = 3e-3;
const WARM_UP: usize = 100;
const WEIGHT_DECAY: f32 = 0.01;
/// The average's weight on its past: it spans about the last thousand steps.
const AVERAGE_DECAY: f32 = 0.999;
/// Range of the mixing angle in radians, 20 to 45 degrees: from clearly off the first network to
/// half way to the second.
const ANGLES: [f32; 2] = [PI / 9.0, PI / 4.0];
/// Checks of the held-out loss in a training.
const CHECKS: usize = 50;
/// Draws of noise and time for each held-out latent.
const HELD_OUT_DRAWS: usize = 32;

/// For [`memory`]: copies of the weights, and layers of a batch kept for its gradient.
const WEIGHT_COPIES: usize = 8;
const KEPT_LAYERS: usize = 4;

/// The number of steps that is used by default.
pub const DEFAULT_STEPS: usize = 8_000;

/// The width that is used by default: enough to pass a latent through twice over, in steps of 64.
pub fn default_width(latent: usize) -> usize {
    (2 * latent).next_multiple_of(64).clamp(128, 1024)
}

/// Bytes that training takes at its peak, roughly: the weights with their gradients, moments,
/// average and copies, and what the layers make of all `held_out` networks' draws at once.
pub fn memory(latent: usize, width: usize, held_out: usize) -> usize {
    let weights = WEIGHT_COPIES * Velocity::weight_count(latent, width);
    let rows = HELD_OUT_DRAWS * held_out + KEPT_LAYERS * BATCH;
    size_of::<f32>() * (weights + rows * (4 * latent + 4 * width))
}

/// Trains on the latents `training` and measures on the latents `held_out` (both [count, latent]
/// row-major, of at least two and one). The same arguments give the same bits on the same machine.
pub fn train(
    training: &[f32],
    held_out: &[f32],
    latent: usize,
    options: &FlowOptions,
    mut progress: impl FnMut(Progress),
) -> Flow {
    let mut velocity = Velocity::untrained(latent, options.width, options.seed);
    let check = Batch::check(held_out, latent, &mut Random::new(options.seed, 1));
    let mut random = Random::new(options.seed, 2);
    let mut average = velocity.clone();
    let mut adamw = AdamW::new(velocity.weights.len(), WEIGHT_DECAY);
    let mut gradient = vec![0.0; velocity.weights.len()];
    let mut loss_held_out = HeldOutLoss::untrained(check.loss(&average));
    let every = options.steps.div_ceil(CHECKS).max(1);
    for step in 1..=options.steps {
        let Batch { x, t, target } = Batch::draw(training, latent, &mut random);
        let loss = velocity.loss_gradient(x, t, target, &mut gradient);
        // An average of few steps must not remember the untrained network.
        let decay = AVERAGE_DECAY.min(step as f32 / (step as f32 + 10.0));
        let rate = rate(step, options.steps);
        adamw.step(
            &mut velocity.weights,
            &gradient,
            &mut average.weights,
            rate,
            decay,
        );
        if step % every == 0 || step == options.steps {
            loss_held_out.see(check.loss(&average), step);
        }
        progress(Progress {
            step,
            loss,
            held_out_loss: loss_held_out.last,
        });
    }
    Flow {
        velocity: average,
        held_out: loss_held_out,
    }
}

/// Linear warm-up, then a cosine to zero.
fn rate(step: usize, steps: usize) -> f32 {
    let warm_up = WARM_UP.min(steps / 10 + 1);
    if step <= warm_up {
        return PEAK_RATE * step as f32 / warm_up as f32;
    }
    let fraction = (step - warm_up) as f32 / (steps - warm_up) as f32;
    PEAK_RATE * 0.5 * (1.0 + (PI * fraction).cos())
}

/// Points on paths: x_t [count, latent], t [count], and the velocities there [count, latent].
struct Batch {
    x: Vec<f32>,
    t: Vec<f32>,
    target: Vec<f32>,
}

impl Batch {
    /// Mixed pairs of latents (at least two), fresh noise, uniform times.
    fn draw(latents: &[f32], latent: usize, random: &mut Random) -> Self {
        let mut ends = Vec::with_capacity(BATCH * latent);
        for _ in 0..BATCH {
            let [p, q] = random
                .pair(latents.len() / latent)
                .map(|i| &latents[i * latent..][..latent]);
            let angle = ANGLES[0] + (ANGLES[1] - ANGLES[0]) * random.uniform();
            let (sin, cos) = angle.sin_cos();
            ends.extend(p.iter().zip(q).map(|(p, q)| cos * p + sin * q));
        }
        Self::towards(ends, latent, random)
    }

    /// Every latent as it is, several times.
    fn check(latents: &[f32], latent: usize, random: &mut Random) -> Self {
        Self::towards(latents.repeat(HELD_OUT_DRAWS), latent, random)
    }

    /// From noise to `ends`, each path at a uniform time.
    fn towards(ends: Vec<f32>, latent: usize, random: &mut Random) -> Self {
        let t: Vec<f32> = (0..ends.len() / latent).map(|_| random.uniform()).collect();
        let mut x = vec![0.0; ends.len()];
        random.fill_normal(&mut x);
        let mut target = ends;
        let rows = x
            .chunks_exact_mut(latent)
            .zip(target.chunks_exact_mut(latent));
        for ((x, target), t) in rows.zip(&t) {
            for (x, target) in x.iter_mut().zip(target) {
                *target -= *x;
                *x += t * *target;
            }
        }
        Self { x, t, target }
    }

    /// Mean squared error of a velocity network.
    fn loss(&self, velocity: &Velocity) -> f64 {
        let v = velocity.evaluate(&self.x, &self.t);
        let squares = v
            .iter()
            .zip(&self.target)
            .map(|(v, target)| f64::from(v - target).powi(2));
        squares.sum::<f64>() / self.target.len() as f64
    }
}
