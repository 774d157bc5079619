//! A zoo of controllers: small MLPs that balance a pole on a cart, found by an evolution strategy.
//!
//! The plant is CartPole-v1: the equations of Barto, Sutton and Anderson, "Neuronlike adaptive
//! elements that can solve difficult learning control problems" (1983), without friction. The
//! policies take what Gymnasium's environment of that name observes, and work there unchanged.

use dwf::layout::Layout;

use super::{
    Condition, Origin,
    evolution::{Plant, Policy, Strategy},
};
use crate::random::Random;

/// Steps after which an episode ends, and so the greatest return.
pub const STEPS: usize = 500;

const GRAVITY: f64 = 9.8;
const POLE_MASS: f64 = 0.1;
const TOTAL_MASS: f64 = 1.1;
/// Of the pole, in metres.
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

/// Training starts three times as far from rest, so that policies recover from more than they meet.
const TRAINING_START: f32 = 3.0 * START;
/// The plant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CartPole {
    /// Half the pole's length in metres; 0.5 in CartPole-v1.
    pub half_length: f64,
}

impl Default for CartPole {
    fn default() -> Self {
        Self {
            half_length: HALF_LENGTH,
        }
    }
}

/// The range of the whole pole's length, where policies differ by it.
const LENGTHS: [f64; 2] = [0.5, 2.0];

/// A pole for every network, from half to twice the length of CartPole-v1's, and what is known of
/// them.
pub fn poles(origin: Origin) -> (Vec<CartPole>, Condition) {
    let lengths = origin.spread(LENGTHS);
    let pole = |length: &f64| CartPole {
        half_length: length / 2.0,
    };
    let condition = Condition {
        name: "length",
        values: lengths
            .iter()
            .map(|length| format!("{length:.4}"))
            .collect(),
    };
    (lengths.iter().map(pole).collect(), condition)
}

/// The plant's state in Gymnasium's order: position, velocity, angle, angular velocity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State(pub [f64; INPUTS]);

impl State {
    fn start(random: &mut Random, bound: f32) -> Self {
        Self(std::array::from_fn(|_| f64::from(random.symmetric(bound))))
    }

    /// Whether the cart has left the track or the pole has fallen.
    pub fn is_over(self) -> bool {
        self.0[0].abs() > POSITION_LIMIT || self.0[2].abs() > ANGLE_LIMIT
    }
}

impl CartPole {
    /// The state one step later (Euler), the cart being pushed to the right or to the left.
    #[must_use]
    pub fn step(&self, state: State, right: bool) -> State {
        let State([position, velocity, angle, spin]) = state;
        let force = if right { FORCE } else { -FORCE };
        let (sin, cos) = angle.sin_cos();
        let moment = POLE_MASS * self.half_length;
        let push = (force + moment * spin * spin * sin) / TOTAL_MASS;
        let inertia = self.half_length * (4.0 / 3.0 - POLE_MASS * cos * cos / TOTAL_MASS);
        let angular = (GRAVITY * sin - cos * push) / inertia;
        let linear = push - moment * angular * cos / TOTAL_MASS;
        State([
            position + STEP * velocity,
            velocity + STEP * linear,
            angle + STEP * spin,
            spin + STEP * angular,
        ])
    }
}

impl Plant for CartPole {
    type State = State;

    const NAME: &'static str = "cartpole";
    const SOLVED: f64 = 475.0;
    const STRATEGY: Strategy = Strategy {
        generations: 100,
        pairs: 16,
        sigma: 0.3,
        learning_rate: 0.2,
        weight_decay: 0.02,
    };
    const TRIALS: usize = 4;
    const CHECKS: usize = 50;

    fn layout() -> Layout {
        Network::layout()
    }

    fn initialise(random: &mut Random) -> Vec<f32> {
        Network::initialise(random)
    }

    fn start(random: &mut Random) -> State {
        State::start(random, START)
    }

    fn training_start(random: &mut Random) -> State {
        State::start(random, TRAINING_START)
    }

    /// The steps that the policy keeps the pole up, [`STEPS`] at most.
    fn episode(&self, weights: &[f32], mut state: State) -> f64 {
        for step in 1..=STEPS {
            state = self.step(state, pushes_right(weights, state));
            if state.is_over() {
                return step as f64;
            }
        }
        STEPS as f64
    }

    fn action(weights: &[f32], state: State) -> usize {
        pushes_right(weights, state).into()
    }

    fn wander(&self, start: State, random: &mut Random) -> Vec<State> {
        let next = |state: &State| {
            let next = self.step(*state, random.index(2) == 1);
            (!next.is_over()).then_some(next)
        };
        std::iter::successors(Some(start), next).collect()
    }
}

/// The policy's choice.
fn pushes_right(weights: &[f32], state: State) -> bool {
    let [left, right] = Network::act(weights, state.0.map(|x| x as f32));
    right > left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_cart_moves_as_the_equations_say() {
        // From rest, by hand: push 10 / 1.1, inertia 0.5 (4/3 - 0.1/1.1), angular -push / inertia.
        let (plant, rest) = (CartPole::default(), State([0.0; 4]));
        let push = 10.0 / 1.1;
        let angular = -push / (0.5 * (4.0 / 3.0 - 0.1 / 1.1));
        let linear = push - 0.05 * angular / 1.1;
        assert_eq!(
            plant.step(rest, true),
            State([0.0, 0.02 * linear, 0.0, 0.02 * angular])
        );
        let State(left) = plant.step(rest, false);
        assert_eq!(State(left.map(|x| -x)), plant.step(rest, true));
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
        let next = CartPole::default().step(state, true);
        let work = FORCE * STEP * (state.0[1] + next.0[1]) / 2.0;
        let change = energy(next) - energy(state);
        // Euler's own error over one step.
        assert!((change - work).abs() < 0.02 * work, "{change} and {work}");
    }
}
