//! Ways to make networks without a flow, to be judged like the flow's.

use crate::random::Random;

/// Standard deviations of the noise, in those of each weight in the zoo.
const NOISE: [f32; 3] = [0.1, 0.3, 1.0];

/// A way to make networks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Baseline {
    /// Training networks with independent noise.
    Noise(f32),
    /// The mean of all training networks, over and over.
    Average,
    /// The midpoint of two training networks.
    Pair,
    /// Independent normals with the mean and spread of each weight.
    Independent,
    /// A normal with the mean and covariance of the training networks.
    Correlated,
}

/// All of them.
pub const ALL: [Baseline; 7] = [
    Baseline::Noise(NOISE[0]),
    Baseline::Noise(NOISE[1]),
    Baseline::Noise(NOISE[2]),
    Baseline::Average,
    Baseline::Pair,
    Baseline::Independent,
    Baseline::Correlated,
];

impl Baseline {
    /// What it is, for people.
    pub fn name(self) -> String {
        match self {
            Self::Noise(noise) => format!("zoo + {noise} std of noise"),
            Self::Average => "average of the zoo".into(),
            Self::Pair => "average of two".into(),
            Self::Independent => "Gaussian, each weight".into(),
            Self::Correlated => "Gaussian in PCA space".into(),
        }
    }

    /// `count` networks (rows) from a zoo.
    pub fn make(self, zoo: &Zoo<'_>, count: usize, random: &mut Random) -> Vec<f32> {
        match self {
            Self::Noise(noise) => zoo.scattered(noise, count, random, |random| zoo.any(random)),
            Self::Average => zoo.mean.repeat(count),
            Self::Pair => zoo.pairs(count, random),
            Self::Independent => zoo.scattered(1.0, count, random, |_| zoo.mean.clone()),
            Self::Correlated => zoo.gaussian(count, random),
        }
    }
}

/// The aligned training networks, and their moments.
pub struct Zoo<'a> {
    networks: Vec<&'a [f32]>,
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl<'a> Zoo<'a> {
    /// Rows of `size` weights, two at least.
    pub fn new(training: &'a [f32], size: usize) -> Self {
        let networks: Vec<&[f32]> = training.chunks_exact(size).collect();
        let count = networks.len() as f64;
        let mean = |i| networks.iter().map(|n| f64::from(n[i])).sum::<f64>() / count;
        let means: Vec<f64> = (0..size).map(mean).collect();
        let variance = |i: usize| {
            let squares = networks
                .iter()
                .map(|n| (f64::from(n[i]) - means[i]).powi(2));
            squares.sum::<f64>() / count
        };
        Self {
            std: (0..size).map(|i| variance(i).sqrt() as f32).collect(),
            mean: means.iter().map(|mean| *mean as f32).collect(),
            networks,
        }
    }

    fn any(&self, random: &mut Random) -> Vec<f32> {
        self.networks[random.index(self.networks.len())].to_vec()
    }

    /// Independent noise on every weight about `centre`.
    fn scattered(
        &self,
        noise: f32,
        count: usize,
        random: &mut Random,
        centre: impl Fn(&mut Random) -> Vec<f32>,
    ) -> Vec<f32> {
        let one = |_| {
            let mut network = centre(random);
            let mut normals = vec![0.0; network.len()];
            random.fill_normal(&mut normals);
            for ((weight, normal), std) in network.iter_mut().zip(normals).zip(&self.std) {
                *weight += noise * std * normal;
            }
            network
        };
        (0..count).flat_map(one).collect()
    }

    fn pairs(&self, count: usize, random: &mut Random) -> Vec<f32> {
        let one = |_| {
            let [p, q] = random.pair(self.networks.len());
            let pairs = self.networks[p].iter().zip(self.networks[q]);
            pairs.map(|(p, q)| 0.5 * (p + q)).collect::<Vec<f32>>()
        };
        (0..count).flat_map(one).collect()
    }

    /// Normal with the zoo's mean and covariance: a random combination of its deviations.
    fn gaussian(&self, count: usize, random: &mut Random) -> Vec<f32> {
        let scale = 1.0 / (self.networks.len() as f32).sqrt();
        let one = |_| {
            let mut normals = vec![0.0; self.networks.len()];
            random.fill_normal(&mut normals);
            let mut network = self.mean.clone();
            for (other, normal) in self.networks.iter().zip(normals) {
                for ((weight, w), mean) in network.iter_mut().zip(*other).zip(&self.mean) {
                    *weight += scale * normal * (w - mean);
                }
            }
            network
        };
        (0..count).flat_map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baselines_have_the_moments_that_they_promise() {
        // Two weights, perfectly correlated: means 1 and 2, standard deviations 1 and 2.
        let training = [0.0, 0.0, 2.0, 4.0];
        let count = 4000;
        let zoo = Zoo::new(&training, 2);
        for baseline in ALL {
            let networks = baseline.make(&zoo, count, &mut Random::new(1, 0));
            assert_eq!(networks.len(), 2 * count);
            let moment = |f: &dyn Fn(&[f32]) -> f32| {
                networks
                    .chunks_exact(2)
                    .map(|n| f64::from(f(n)))
                    .sum::<f64>()
                    / count as f64
            };
            let variance = moment(&|n| (n[0] - 1.0).powi(2));
            let covariance = moment(&|n| (n[0] - 1.0) * (n[1] - 2.0));
            let expected = match baseline {
                Baseline::Noise(0.1) => [1.01, 2.0],
                Baseline::Noise(0.3) => [1.09, 2.0],
                Baseline::Noise(_) => [2.0, 2.0],
                // The midpoint of two of two networks is always the same.
                Baseline::Average | Baseline::Pair => [0.0, 0.0],
                Baseline::Independent => [1.0, 0.0],
                Baseline::Correlated => [1.0, 2.0],
            };
            // Five standard errors of moments of size 2 over 4000 networks.
            assert!((moment(&|n| n[0]) - 1.0).abs() < 0.12, "{baseline:?}");
            assert!(
                (variance - expected[0]).abs() < 0.25,
                "{baseline:?}: {variance}"
            );
            assert!(
                (covariance - expected[1]).abs() < 0.4,
                "{baseline:?}: {covariance}"
            );
        }
    }
}
