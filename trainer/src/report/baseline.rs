//! Ways to make networks without a flow, to be judged like the flow's.

use super::spread;
use crate::{
    random::{Normals, Random},
    rows::{Chunk, Rows, join, sweep},
};

/// Standard deviations of the noise, in those of each weight in the zoo.
const NOISE: [f32; 3] = [0.1, 0.3, 1.0];

/// Parts of the weights side by side.
const LANES: usize = 16;

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

    /// `count` networks from a zoo.
    pub fn make<'a>(self, zoo: &'a Zoo<'a>, count: usize, random: &mut Random) -> Made<'a> {
        let zoo_count = zoo.training.count();
        let mut draw = || match self {
            Self::Noise(noise) => {
                let centre = Some(random.index(zoo_count));
                let normals = Box::new(random.take_normals(zoo.mean.len()));
                Recipe::Scattered {
                    centre,
                    noise,
                    normals,
                }
            }
            Self::Average => Recipe::Average,
            Self::Pair => Recipe::Midpoint(random.pair(zoo_count)),
            Self::Independent => Recipe::Scattered {
                centre: None,
                noise: 1.0,
                normals: Box::new(random.take_normals(zoo.mean.len())),
            },
            Self::Correlated => Recipe::Combination(random.normal(zoo_count, 1.0)),
        };
        Made {
            zoo,
            recipes: (0..count).map(|_| draw()).collect(),
        }
    }
}

/// The aligned training networks, and their moments.
pub struct Zoo<'a> {
    training: &'a dyn Rows,
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl<'a> Zoo<'a> {
    /// Of two networks at least.
    pub fn new(training: &'a dyn Rows) -> Self {
        let add = |(mean, std): &mut (Vec<f32>, Vec<f32>), chunk: Chunk<'_>| {
            mean.extend(chunk.mean.iter().map(|mean| *mean as f32));
            let deviations = spread::deviations(chunk.centred, chunk.columns.len());
            std.extend(deviations.into_iter().map(|std| std as f32));
        };
        let parts = sweep(
            training,
            &training.all(),
            &[],
            LANES,
            Default::default,
            add,
            || (),
        );
        let (mean, std): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Self {
            training,
            mean: join(mean),
            std: join(std),
        }
    }
}

/// Networks of a baseline, made where they are read.
pub struct Made<'a> {
    zoo: &'a Zoo<'a>,
    recipes: Vec<Recipe>,
}

/// How one network is made.
enum Recipe {
    /// Independent noise on every weight, about a training network or the mean.
    Scattered {
        centre: Option<usize>,
        noise: f32,
        normals: Box<Normals>,
    },
    /// The mean.
    Average,
    /// Of two training networks.
    Midpoint([usize; 2]),
    /// Normal with the zoo's mean and covariance: a random combination of its deviations.
    Combination(Vec<f32>),
}

impl Rows for Made<'_> {
    fn count(&self) -> usize {
        self.recipes.len()
    }

    fn size(&self) -> usize {
        self.zoo.mean.len()
    }

    fn read(&self, row: usize, from: usize, to: &mut [f32]) {
        let Zoo {
            training,
            mean,
            std,
        } = self.zoo;
        let columns = from..from + to.len();
        let (mean, std) = (&mean[columns.clone()], &std[columns]);
        let mut other = vec![0.0; to.len()];
        match &self.recipes[row] {
            Recipe::Scattered {
                centre,
                noise,
                normals,
            } => {
                match centre {
                    Some(network) => training.read(*network, from, to),
                    None => to.copy_from_slice(mean),
                }
                normals.read(from, &mut other);
                for ((weight, normal), std) in to.iter_mut().zip(other).zip(std) {
                    *weight += noise * std * normal;
                }
            }
            Recipe::Average => to.copy_from_slice(mean),
            Recipe::Midpoint([p, q]) => {
                training.read(*p, from, to);
                training.read(*q, from, &mut other);
                to.iter_mut()
                    .zip(other)
                    .for_each(|(p, q)| *p = 0.5 * (*p + q));
            }
            Recipe::Combination(normals) => {
                to.copy_from_slice(mean);
                let scale = 1.0 / (training.count() as f32).sqrt();
                for (network, normal) in normals.iter().enumerate() {
                    training.read(network, from, &mut other);
                    for ((weight, w), mean) in to.iter_mut().zip(&other).zip(mean) {
                        *weight += scale * normal * (w - mean);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Matrix;

    #[test]
    fn baselines_have_the_moments_that_they_promise() {
        // Two weights, perfectly correlated: means 1 and 2, standard deviations 1 and 2.
        let training = [0.0, 0.0, 2.0, 4.0];
        let count = 4000;
        let training = Matrix::new(&training, 2);
        let zoo = Zoo::new(&training);
        for baseline in ALL {
            let made = baseline.make(&zoo, count, &mut Random::new(1, 0));
            assert_eq!((made.count(), made.size()), (count, 2));
            let networks: Vec<f32> = (0..count).flat_map(|i| made.row(i)).collect();
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
