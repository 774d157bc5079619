//! Policies, and the evolution strategy that finds them.
//!
//! Salimans et al., "Evolution strategies as a scalable alternative to reinforcement learning"
//! (2017, arXiv 1703.03864): a step along random perturbations, weighted by how well they did.

use dwf::layout::{DType, Layout, TensorKind};

use super::{Keep, Made, Origin};
use crate::{error::Result, random::Random};

/// Random stream beyond those of the networks, which count from 0 through all attempts.
const HELD_OUT_STREAM: u64 = u64::MAX;

/// A network of one hidden layer with ReLU, tensors `fc1.weight`, `fc1.bias`, `fc2.weight`,
/// `fc2.bias`; its sizes are constants, which makes it many times faster: training runs it a
/// billion times.
pub struct Policy<const INPUTS: usize, const HIDDEN: usize, const OUTPUTS: usize>;

impl<const INPUTS: usize, const HIDDEN: usize, const OUTPUTS: usize>
    Policy<INPUTS, HIDDEN, OUTPUTS>
{
    const BIAS1: usize = HIDDEN * INPUTS;
    const WEIGHT2: usize = Self::BIAS1 + HIDDEN;
    const BIAS2: usize = Self::WEIGHT2 + OUTPUTS * HIDDEN;
    /// How many weights it has.
    pub const WEIGHTS: usize = Self::BIAS2 + OUTPUTS;

    /// Its tensors.
    pub fn layout() -> Layout {
        let tensor = |(name, shape): (&str, &[usize])| {
            (name.into(), shape.into(), DType::F32, TensorKind::Parameter)
        };
        let tensors: [(&str, &[usize]); 4] = [
            ("fc1.weight", &[HIDDEN, INPUTS]),
            ("fc1.bias", &[HIDDEN]),
            ("fc2.weight", &[OUTPUTS, HIDDEN]),
            ("fc2.bias", &[OUTPUTS]),
        ];
        Layout::pack(tensors.into_iter().map(tensor)).expect("four tensors")
    }

    /// PyTorch's default initialisation.
    pub fn initialise(random: &mut Random) -> Vec<f32> {
        let mut weights = vec![0.0; Self::WEIGHTS];
        let (first, second) = weights.split_at_mut(Self::WEIGHT2);
        for (layer, inputs) in [(first, INPUTS), (second, HIDDEN)] {
            random.fill_layer(layer, inputs);
        }
        weights
    }

    /// Its outputs.
    pub fn act(weights: &[f32], observation: [f32; INPUTS]) -> [f32; OUTPUTS] {
        let weights = &weights[..Self::WEIGHTS];
        let mut outputs = std::array::from_fn(|i| weights[Self::BIAS2 + i]);
        for i in 0..HIDDEN {
            let row = &weights[i * INPUTS..][..INPUTS];
            let sum: f32 = row.iter().zip(observation).map(|(w, x)| w * x).sum();
            let hidden = (sum + weights[Self::BIAS1 + i]).max(0.0);
            for (output, out) in outputs.iter_mut().enumerate() {
                *out += weights[Self::WEIGHT2 + output * HIDDEN + i] * hidden;
            }
        }
        outputs
    }
}

/// How policies are found.
#[derive(Clone, Copy, Debug)]
pub struct Strategy {
    /// Steps.
    pub generations: usize,
    /// Perturbations of a generation, each tried in both directions.
    pub pairs: usize,
    /// Standard deviation of the perturbations. Wide: what survives is a policy that its neighbours
    /// share, and a generated network is a neighbour.
    pub sigma: f32,
    /// Of a step.
    pub learning_rate: f32,
    /// Decoupled.
    pub weight_decay: f32,
}

impl Strategy {
    /// Improves `weights`. `trial` draws what all candidates of a generation are tried on, `score`
    /// tries one: more is better.
    fn evolve<T>(
        &self,
        weights: &mut [f32],
        random: &mut Random,
        trial: impl Fn(&mut Random) -> T,
        score: impl Fn(&[f32], &T) -> f64,
    ) {
        for _ in 0..self.generations {
            let trial = trial(random);
            self.generation(weights, random, |candidate| score(candidate, &trial));
        }
    }

    fn generation(&self, weights: &mut [f32], random: &mut Random, score: impl Fn(&[f32]) -> f64) {
        let size = weights.len();
        let mut noise = vec![0.0; self.pairs * size];
        random.fill_normal(&mut noise);
        let shifted = |noise: &[f32], scale: f32| {
            let pairs = weights.iter().zip(noise);
            let candidate: Vec<f32> = pairs.map(|(weight, n)| weight + scale * n).collect();
            score(&candidate)
        };
        let scores: Vec<[f64; 2]> = noise
            .chunks_exact(size)
            .map(|noise| [shifted(noise, self.sigma), shifted(noise, -self.sigma)])
            .collect();
        let deviation = deviation(scores.as_flattened());
        weights
            .iter_mut()
            .for_each(|weight| *weight *= 1.0 - self.learning_rate * self.weight_decay);
        if deviation == 0.0 {
            return;
        }
        for (noise, [plus, minus]) in noise.chunks_exact(size).zip(&scores) {
            let gain = ((plus - minus) / deviation) as f32 / (2 * self.pairs) as f32;
            let pairs = weights.iter_mut().zip(noise);
            pairs.for_each(|(weight, n)| *weight += self.learning_rate * gain * n);
        }
    }
}

/// A plant that policies are trained for, and how.
pub trait Plant: Sync {
    /// What it is at a moment.
    type State: Copy + Send + Sync;

    /// What the task is called.
    const NAME: &'static str;
    /// Mean return from which a policy counts as one that solves the task.
    const SOLVED: f64;
    /// How its policies are found.
    const STRATEGY: Strategy;
    /// Starts that all candidates of a generation are tried on.
    const TRIALS: usize;
    /// Starts that decide whether a policy is done.
    const CHECKS: usize;

    /// Tensors of a policy.
    fn layout() -> Layout;
    /// A policy before training.
    fn initialise(random: &mut Random) -> Vec<f32>;
    /// A start as Gymnasium draws it.
    fn start(random: &mut Random) -> Self::State;
    /// A start to train on.
    fn training_start(random: &mut Random) -> Self::State {
        Self::start(random)
    }
    /// The return of one episode.
    fn episode(&self, weights: &[f32], start: Self::State) -> f64;
    /// What a policy does in a state, as one of a few kinds of actions.
    fn action(weights: &[f32], state: Self::State) -> usize;
    /// The states that a random policy comes through from a start.
    fn wander(&self, start: Self::State, random: &mut Random) -> Vec<Self::State>;

    /// Starts that no training has seen.
    fn held_out_starts(count: usize, seed: u64) -> Vec<Self::State> {
        let mut random = Random::new(seed, HELD_OUT_STREAM);
        (0..count).map(|_| Self::start(&mut random)).collect()
    }

    /// Mean return over the starts.
    fn mean_return(&self, weights: &[f32], starts: &[Self::State]) -> f64 {
        let total: f64 = starts.iter().map(|s| self.episode(weights, *s)).sum();
        total / starts.len() as f64
    }

    /// `None` if the policy that is found does not solve the task.
    fn train(&self, mut weights: Vec<f32>, random: &mut Random) -> Option<Vec<f32>> {
        let starts = |random: &mut Random| -> Vec<_> {
            let trials = 0..Self::TRIALS;
            trials.map(|_| Self::training_start(random)).collect()
        };
        Self::STRATEGY.evolve(&mut weights, random, starts, |weights, starts| {
            self.mean_return(weights, starts)
        });
        let checks: Vec<_> = (0..Self::CHECKS).map(|_| Self::start(random)).collect();
        (self.mean_return(&weights, &checks) >= Self::SOLVED).then_some(weights)
    }
}

/// Makes a zoo of policies, each for its plant: trained from an initialisation, and again from
/// another while the policy that is found does not solve the task.
///
/// Errors: those of `keep`.
pub fn zoo<P: Plant>(
    plant: impl Fn(u64) -> P + Sync,
    origin: Origin,
    keep: &Keep<'_>,
) -> Result<Made> {
    let solve = |network: u64| {
        let plant = plant(network);
        let attempts = (0..).map(|number: u64| {
            let mut random = Random::new(origin.seed, network | number << 32);
            let weights = origin.start(&mut random, P::initialise);
            plant.train(weights, &mut random)
        });
        attempts.flatten().next().expect("attempts do not end")
    };
    Ok(Made {
        layout: P::layout(),
        weights: origin.networks(keep, solve)?,
        condition: None,
        files: Vec::new(),
    })
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
    fn a_policy_is_what_its_definition_says() {
        type Small = Policy<2, 1, 1>;
        assert_eq!(Small::layout().len(), Small::WEIGHTS);
        // relu(2 * 3 - 1 * 4 + 0.5) * -2 + 1
        let weights = [2.0, -1.0, 0.5, -2.0, 1.0];
        assert_eq!(Small::act(&weights, [3.0, 4.0]), [-4.0]);
        assert_eq!(Small::act(&weights, [-3.0, 4.0]), [1.0]);
    }

    #[test]
    fn evolution_climbs() {
        let strategy = Strategy {
            generations: 60,
            pairs: 8,
            sigma: 0.1,
            learning_rate: 0.1,
            weight_decay: 0.0,
        };
        let mut random = Random::new(1, 0);
        let mut weights = vec![0.0; 3];
        let goal = [1.0, -1.0, 0.5];
        let far = |weights: &[f32]| -> f32 {
            weights.iter().zip(goal).map(|(w, g)| (w - g).powi(2)).sum()
        };
        strategy.evolve(
            &mut weights,
            &mut random,
            |_| (),
            |w, ()| -f64::from(far(w)),
        );
        assert!(far(&weights) < 0.1, "{weights:?}");
    }
}
