//! A zoo of controllers: small MLPs that balance a pole on a cart, found by an evolution strategy.
//!
//! The plant is CartPole-v1: the equations of Barto, Sutton and Anderson, "Neuronlike adaptive
//! elements that can solve difficult learning control problems" (1983), without friction. The
//! policies take what Gymnasium's environment of that name observes, and work there unchanged.

use super::{
    Made, Origin,
    evolution::{self, HELD_OUT_STREAM, Policy, Strategy},
};
use crate::random::Random;

/// What the task is called.
pub const NAME: &str = "cartpole";
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
/// A policy pushes to the right where its second output is the larger.
pub type Network = Policy<INPUTS, 16, 2>;

const STRATEGY: Strategy = Strategy {
    generations: 100,
    pairs: 16,
    sigma: 0.3,
    learning_rate: 0.2,
    weight_decay: 0.02,
};
/// Starts that all candidates of a generation are tried on.
const TRIALS: usize = 4;
/// Training starts three times as far from rest, so that policies recover from more than they meet.
const TRAINING_START: f32 = 3.0 * START;
/// Starts that decide whether a policy is done.
const CHECKS: usize = 50;

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

/// Policies 4-16-2: 114 weights. Each is trained until it solves the task; `done` is called after
/// each, from any thread.
pub fn zoo(origin: Origin, done: &(dyn Fn() + Sync)) -> Made {
    evolution::zoo(Network::layout(), origin, Network::initialise, train, done)
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

/// The policy's choice.
fn pushes_right(weights: &[f32], state: State) -> bool {
    let [left, right] = Network::act(weights, state.0.map(|x| x as f32));
    right > left
}

/// `None` if the policy that is found does not solve the task.
fn train(mut weights: Vec<f32>, random: &mut Random) -> Option<Vec<f32>> {
    STRATEGY.evolve(
        &mut weights,
        random,
        |random| starts(random, TRIALS, TRAINING_START),
        |weights, starts| mean_return(weights, starts),
    );
    let checks = starts(random, CHECKS, START);
    (mean_return(&weights, &checks) >= SOLVED).then_some(weights)
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
}
