//! A zoo of controllers: small MLPs that swing a pendulum up and hold it, found by an evolution
//! strategy.
//!
//! The plant is Pendulum-v1 with the constants of Gymnasium's environment of that name, in which
//! the policies work unchanged: a rod of length l and mass m turns about its end, and
//! theta'' = 3 g / (2 l) sin(theta) + 3 / (m l^2) torque.

use std::f64::consts::PI;

use dwf::layout::Layout;

use super::evolution::{Plant, Policy, Strategy};
use crate::random::Random;

/// Steps of an episode.
pub const STEPS: usize = 200;

const GRAVITY: f64 = 10.0;
const MASS: f64 = 1.0;
const LENGTH: f64 = 1.0;
/// Radians a second.
const MAX_SPEED: f64 = 8.0;
/// Newton metres, in either direction.
const MAX_TORQUE: f64 = 2.0;
/// Seconds a step.
const STEP: f64 = 0.05;

/// A policy observes cosine and sine of the angle and the speed; its output is the torque.
pub type Network = Policy<3, 16, 1>;

/// Kinds of torque that [`Plant::action`] tells apart.
const ACTIONS: usize = 5;

/// The plant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pendulum;

/// The angle from upright in radians and its change a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    angle: f64,
    speed: f64,
}

impl State {
    /// Any angle, speeds up to 1.
    fn start(random: &mut Random) -> Self {
        Self {
            angle: f64::from(random.symmetric(PI as f32)),
            speed: f64::from(random.symmetric(1.0)),
        }
    }

    fn observation(self) -> [f32; 3] {
        [self.angle.cos(), self.angle.sin(), self.speed].map(|x| x as f32)
    }

    /// The state one step later and the step's reward, the torque being limited.
    #[must_use]
    fn step(self, torque: f64) -> (Self, f64) {
        let Self { angle, speed } = self;
        let torque = torque.clamp(-MAX_TORQUE, MAX_TORQUE);
        let off = (angle + PI).rem_euclid(2.0 * PI) - PI;
        let cost = off * off + 0.1 * speed * speed + 0.001 * torque * torque;
        let acceleration =
            3.0 * GRAVITY / (2.0 * LENGTH) * angle.sin() + 3.0 / (MASS * LENGTH * LENGTH) * torque;
        let speed = (speed + STEP * acceleration).clamp(-MAX_SPEED, MAX_SPEED);
        let angle = angle + STEP * speed;
        (Self { angle, speed }, -cost)
    }
}

impl Plant for Pendulum {
    type State = State;

    const NAME: &'static str = "pendulum";
    /// Most of the cost is that of swinging up.
    const SOLVED: f64 = -250.0;
    const STRATEGY: Strategy = Strategy {
        generations: 300,
        pairs: 16,
        sigma: 0.2,
        learning_rate: 0.4,
        weight_decay: 0.005,
    };
    const TRIALS: usize = 8;
    const CHECKS: usize = 100;

    fn layout() -> Layout {
        Network::layout()
    }

    fn initialise(random: &mut Random) -> Vec<f32> {
        Network::initialise(random)
    }

    fn start(random: &mut Random) -> State {
        State::start(random)
    }

    /// 0 would be to stand upright from the beginning.
    fn episode(&self, weights: &[f32], mut state: State) -> f64 {
        let mut total = 0.0;
        for _ in 0..STEPS {
            let (next, reward) = state.step(torque(weights, state));
            total += reward;
            state = next;
        }
        total
    }

    fn action(weights: &[f32], state: State) -> usize {
        let torque = torque(weights, state).clamp(-MAX_TORQUE, MAX_TORQUE);
        let share = (torque / MAX_TORQUE + 1.0) / 2.0;
        ((share * ACTIONS as f64) as usize).min(ACTIONS - 1)
    }

    fn wander(&self, start: State, random: &mut Random) -> Vec<State> {
        let next = |state: &State| {
            let torque = f64::from(random.symmetric(MAX_TORQUE as f32));
            Some(state.step(torque).0)
        };
        std::iter::successors(Some(start), next)
            .take(STEPS)
            .collect()
    }
}

fn torque(weights: &[f32], state: State) -> f64 {
    let [torque] = Network::act(weights, state.observation());
    f64::from(torque)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_that_of_the_equations() {
        let hanging = State {
            angle: PI,
            speed: 0.0,
        };
        // By hand: no gravity about the lowest point, torque 2 (of the 5 asked for) turns at 6.
        let (next, reward) = hanging.step(5.0);
        assert!((next.speed - 0.05 * 6.0).abs() < 1e-12);
        assert!((next.angle - PI - 0.05 * 0.3).abs() < 1e-12);
        assert!((reward + PI * PI + 0.001 * 4.0).abs() < 1e-12);
        let upright = State {
            angle: 2.0 * PI,
            speed: 0.0,
        };
        assert!(upright.step(0.0).1.abs() < 1e-12);
    }
}
