//! Policies, and the evolution strategy that finds them.
//!
//! Salimans et al., "Evolution strategies as a scalable alternative to reinforcement learning"
//! (2017, arXiv 1703.03864): a step along random perturbations, weighted by how well they did.

use dwf::layout::{DType, Layout, TensorKind};
use rayon::prelude::*;

use super::{Made, Origin};
use crate::random::Random;

/// Random streams beyond those of the networks, which count from 0 through all attempts.
pub(super) const HELD_OUT_STREAM: u64 = u64::MAX;
const START_STREAM: u64 = u64::MAX - 1;

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
            let bound = 1.0 / (inputs as f32).sqrt();
            layer
                .iter_mut()
                .for_each(|weight| *weight = random.symmetric(bound));
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
pub(super) struct Strategy {
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
    pub(super) fn evolve<T>(
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

/// Makes a zoo of policies: `attempt` trains one from its initialisation, and is asked again, with
/// another initialisation, while the policy that it finds does not solve the task.
pub(super) fn zoo(
    layout: Layout,
    origin: Origin,
    initialise: impl Fn(&mut Random) -> Vec<f32> + Sync,
    attempt: impl Fn(Vec<f32>, &mut Random) -> Option<Vec<f32>> + Sync,
    done: &(dyn Fn() + Sync),
) -> Made {
    let solve = |network: u64| {
        let attempts = (0..).map(|number: u64| {
            let mut random = Random::new(origin.seed, network | number << 32);
            let mut weights = initialise(&mut random);
            if origin.shared_start {
                weights = initialise(&mut Random::new(origin.seed, START_STREAM));
            }
            attempt(weights, &mut random)
        });
        let solved = attempts.flatten().next().expect("attempts do not end");
        done();
        solved
    };
    let networks = (0..origin.count as u64).into_par_iter();
    Made {
        layout,
        weights: networks.flat_map_iter(solve).collect(),
        files: Vec::new(),
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
