//! A zoo of controllers: small MLPs that balance a pole on a cart, found by an evolution strategy.
//!
//! The plant is CartPole-v1: the equations of Barto, Sutton and Anderson, "Neuronlike adaptive
//! elements that can solve difficult learning control problems" (1983), without friction. The
//! policies take what Gymnasium's environment of that name observes, and work there unchanged.

use dwf::layout::DType;
use rayon::prelude::*;

use crate::{
    mlp::Mlp,
    network::{Network, Signature},
    random::Random,
    zoo::Zoo,
};

/// Steps after which an episode ends, and so the greatest return.
pub const STEPS: usize = 500;
/// Mean return from which a policy counts as one that solves the task.
pub const SOLVED: f64 = 475.0;

const GRAVITY: f64 = 9.8;
const POLE_MASS: f64 = 0.1;
const TOTAL_MASS: f64 = 1.1;
const HALF_LENGTH: f64 = 0.5;
/// Newtons, to the left or to the right.
const FORCE: f64 = 10.0;
/// Seconds a step.
const STEP: f64 = 0.02;
/// Metres and radians that end an episode.
const POSITION_LIMIT: f64 = 2.4;
const ANGLE_LIMIT: f64 = 12.0 * std::f64::consts::PI / 180.0;
/// Episodes start uniformly within this of the upright rest, in all four numbers.
const START: f32 = 0.05;

const INPUTS: usize = 4;
const HIDDEN: usize = 16;
const ACTIONS: usize = 2;
/// Where the tensors lie in a network's flat vector.
const BIAS1: usize = HIDDEN * INPUTS;
const WEIGHT2: usize = BIAS1 + HIDDEN;
const BIAS2: usize = WEIGHT2 + ACTIONS * HIDDEN;
const WEIGHTS: usize = BIAS2 + ACTIONS;

const GENERATIONS: usize = 100;
/// Perturbations of a generation, each tried in both directions.
const PAIRS: usize = 16;
/// Starts that all candidates of a generation are tried on.
const TRIALS: usize = 4;
/// Standard deviation of the perturbations. Wide: what survives is a policy that its neighbours
/// share, and a generated network is a neighbour.
const SIGMA: f32 = 0.3;
const LEARNING_RATE: f32 = 0.2;
const WEIGHT_DECAY: f32 = 0.02;
/// Training starts three times as far from rest, so that policies recover from more than they meet.
const TRAINING_START: f32 = 3.0 * START;
/// Starts that decide whether a policy is done.
const CHECKS: usize = 50;
/// Random streams beyond those of the networks, which count from 0 through all attempts.
const HELD_OUT_STREAM: u64 = u64::MAX;

/// The plant's state in Gymnasium's order: position, velocity, angle, angular velocity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State(pub [f64; INPUTS]);

impl State {
    fn start(random: &mut Random, bound: f32) -> Self {
        Self(std::array::from_fn(|_| f64::from(random.symmetric(bound))))
    }

    /// The state one step later (Euler), the cart being pushed to the right or to the left.
    #[must_use]
    pub fn step(self, right: bool) -> Self {
        let Self([position, velocity, angle, spin]) = self;
        let force = if right { FORCE } else { -FORCE };
        let (sin, cos) = angle.sin_cos();
        let moment = POLE_MASS * HALF_LENGTH;
        let push = (force + moment * spin * spin * sin) / TOTAL_MASS;
        let inertia = HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cos * cos / TOTAL_MASS);
        let angular = (GRAVITY * sin - cos * push) / inertia;
        let linear = push - moment * angular * cos / TOTAL_MASS;
        Self([
            position + STEP * velocity,
            velocity + STEP * linear,
            angle + STEP * spin,
            spin + STEP * angular,
        ])
    }

    /// Whether the cart has left the track or the pole has fallen.
    pub fn is_over(self) -> bool {
        self.0[0].abs() > POSITION_LIMIT || self.0[2].abs() > ANGLE_LIMIT
    }
}

/// Policies 4-16-2, tensors `fc1.weight`, `fc1.bias`, `fc2.weight`, `fc2.bias`: 114 weights. Each
/// is trained from its own initialisation until it solves the task; `seed` decides all of them,
/// and `done` is called after each, from any thread.
pub fn zoo(count: usize, seed: u64, done: impl Fn() + Sync) -> Zoo {
    let tensor = |name: &str, shape: &[usize]| Signature {
        name: name.into(),
        shape: shape.into(),
        dtype: DType::F32,
    };
    let network = Network::mlp(&[
        tensor("fc1.weight", &[HIDDEN, INPUTS]),
        tensor("fc1.bias", &[HIDDEN]),
        tensor("fc2.weight", &[ACTIONS, HIDDEN]),
        tensor("fc2.bias", &[ACTIONS]),
    ])
    .expect("a chain of two layers");
    let mlp = network.as_mlp().expect("made as one");
    let solve = |network: u64| {
        let attempts = (0..).map(|attempt| train(mlp, Random::new(seed, network | attempt << 32)));
        let solved = attempts.flatten().next().expect("attempts do not end");
        done();
        solved
    };
    let weights = (0..count as u64)
        .into_par_iter()
        .flat_map_iter(solve)
        .collect();
    Zoo::made(network, weights)
}

/// Starts that no training has seen, as Gymnasium draws them.
pub fn held_out_starts(count: usize, seed: u64) -> Vec<State> {
    starts(&mut Random::new(seed, HELD_OUT_STREAM), count, START)
}

/// Mean over the starts of the steps that the policy keeps the pole up, [`STEPS`] at most.
pub fn mean_return(weights: &[f32], starts: &[State]) -> f64 {
    let total: usize = starts.iter().map(|start| episode(weights, *start)).sum();
    total as f64 / starts.len() as f64
}

fn starts(random: &mut Random, count: usize, bound: f32) -> Vec<State> {
    (0..count).map(|_| State::start(random, bound)).collect()
}

fn episode(weights: &[f32], mut state: State) -> usize {
    for step in 1..=STEPS {
        state = state.step(pushes_right(weights, state));
        if state.is_over() {
            return step;
        }
    }
    STEPS
}

/// The policy's choice. What [`Mlp::forward`] computes, of a fixed size and so many times faster:
/// training runs it a billion times.
fn pushes_right(weights: &[f32], state: State) -> bool {
    let weights: &[f32; WEIGHTS] = weights.try_into().expect("a 4-16-2 network");
    let x = state.0.map(|x| x as f32);
    let mut logits = [weights[BIAS2], weights[BIAS2 + 1]];
    for i in 0..HIDDEN {
        let row = &weights[i * INPUTS..][..INPUTS];
        let sum: f32 = row.iter().zip(x).map(|(weight, x)| weight * x).sum();
        let hidden = (sum + weights[BIAS1 + i]).max(0.0);
        for (action, logit) in logits.iter_mut().enumerate() {
            *logit += weights[WEIGHT2 + action * HIDDEN + i] * hidden;
        }
    }
    logits[1] > logits[0]
}

/// An evolution strategy (Salimans et al., arXiv 1703.03864) from PyTorch's default
/// initialisation; `None` if the policy does not solve the task.
fn train(mlp: &Mlp, mut random: Random) -> Option<Vec<f32>> {
    let mut weights = vec![0.0; WEIGHTS];
    for layer in mlp.layers() {
        let bound = 1.0 / (layer.inputs as f32).sqrt();
        for range in [layer.weight.clone(), layer.bias.clone()] {
            weights[range]
                .iter_mut()
                .for_each(|weight| *weight = random.symmetric(bound));
        }
    }
    for _ in 0..GENERATIONS {
        evolve(&mut weights, &mut random);
    }
    let checks = starts(&mut random, CHECKS, START);
    (mean_return(&weights, &checks) >= SOLVED).then_some(weights)
}

/// One generation: a step along the perturbations, weighted by how well they did.
fn evolve(weights: &mut [f32], random: &mut Random) {
    let starts = starts(random, TRIALS, TRAINING_START);
    let mut noise = vec![0.0; PAIRS * WEIGHTS];
    random.fill_normal(&mut noise);
    let score = |noise: &[f32], scale: f32| {
        let pairs = weights.iter().zip(noise);
        let candidate: Vec<f32> = pairs.map(|(weight, n)| weight + scale * n).collect();
        mean_return(&candidate, &starts)
    };
    let scores: Vec<[f64; 2]> = noise
        .chunks_exact(WEIGHTS)
        .map(|noise| [score(noise, SIGMA), score(noise, -SIGMA)])
        .collect();
    let deviation = deviation(scores.as_flattened());
    weights
        .iter_mut()
        .for_each(|weight| *weight *= 1.0 - LEARNING_RATE * WEIGHT_DECAY);
    if deviation == 0.0 {
        return;
    }
    for (noise, [plus, minus]) in noise.chunks_exact(WEIGHTS).zip(&scores) {
        let gain = ((plus - minus) / deviation) as f32 / (2 * PAIRS) as f32;
        let pairs = weights.iter_mut().zip(noise);
        pairs.for_each(|(weight, n)| *weight += LEARNING_RATE * gain * n);
    }
}

fn deviation(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_cart_moves_as_the_equations_say() {
        // From rest, by hand: push 10 / 1.1, inertia 0.5 (4/3 - 0.1/1.1), angular -push / inertia.
        let rest = State([0.0; 4]);
        let push = 10.0 / 1.1;
        let angular = -push / (0.5 * (4.0 / 3.0 - 0.1 / 1.1));
        let linear = push - 0.05 * angular / 1.1;
        assert_eq!(
            rest.step(true),
            State([0.0, 0.02 * linear, 0.0, 0.02 * angular])
        );
        let State(left) = rest.step(false);
        assert_eq!(State(left.map(|x| -x)), rest.step(true));
    }

    #[test]
    fn the_work_of_the_push_becomes_energy() {
        let energy = |State([_, velocity, angle, spin]): State| {
            let (sin, cos) = angle.sin_cos();
            let centre = [
                velocity + HALF_LENGTH * spin * cos,
                -HALF_LENGTH * spin * sin,
            ];
            let pole = 0.5 * POLE_MASS * (centre[0] * centre[0] + centre[1] * centre[1]);
            let turning = 0.5 * POLE_MASS * HALF_LENGTH * HALF_LENGTH / 3.0 * spin * spin;
            let cart = 0.5 * (TOTAL_MASS - POLE_MASS) * velocity * velocity;
            cart + pole + turning + POLE_MASS * GRAVITY * HALF_LENGTH * cos
        };
        let state = State([0.3, 0.7, 0.15, -0.4]);
        let next = state.step(true);
        let work = FORCE * STEP * (state.0[1] + next.0[1]) / 2.0;
        let change = energy(next) - energy(state);
        // Euler's own error over one step.
        assert!((change - work).abs() < 0.02 * work, "{change} and {work}");
    }

    #[test]
    fn the_fast_policy_is_the_network() {
        let network = zoo(0, 0, || ()).network;
        let mlp = network.as_mlp().unwrap();
        assert_eq!(network.layout().len(), WEIGHTS);
        let mut random = Random::new(3, 0);
        let mut right = 0;
        for _ in 0..1000 {
            let mut weights = [0.0; WEIGHTS];
            random.fill_normal(&mut weights);
            let state = State::start(&mut random, 2.0);
            let logits = mlp.forward(&weights, &state.0.map(|x| x as f32));
            // Sums in another order: f32 rounding of values of size ten.
            if (logits[1] - logits[0]).abs() > 1e-4 {
                assert_eq!(pushes_right(&weights, state), logits[1] > logits[0]);
                right += usize::from(logits[1] > logits[0]);
            }
        }
        assert!((300..700).contains(&right), "{right} of 1000 push right");
    }
}
