//! The basis: how weights become whitened latents, and latents weights.

use dwf::metadata::BasisKind;
use faer::{Mat, Side};
use half::f16;

use crate::error::{Result, invalid};

/// A map between flat weight vectors and latents.
#[derive(Clone, Debug, PartialEq)]
pub enum Basis {
    /// weights = latent.
    Identity {
        /// Length of both.
        weights: usize,
    },
    /// weights = mean + scale * latent, coordinate by coordinate.
    Diagonal {
        /// [weights]
        mean: Vec<f32>,
        /// [weights]; 0 where the zoo does not vary: the mean is exact there.
        scale: Vec<f32>,
    },
    /// weights = mean + (scale * latent) components.
    Linear {
        /// [latent, weights] row-major, orthonormal rows up to their rounding to f16.
        components: Vec<f16>,
        /// [weights]
        mean: Vec<f32>,
        /// [latent]
        scale: Vec<f32>,
    },
}

impl Basis {
    /// Whitening by the mean and standard deviation of every coordinate of `networks`
    /// ([count, size] row-major).
    pub fn diagonal(networks: &[f32], size: usize) -> Self {
        let mean = mean(networks, size);
        let count = (networks.len() / size) as f64;
        let mut variance = vec![0f64; size];
        for network in networks.chunks_exact(size) {
            for ((sum, w), mean) in variance.iter_mut().zip(network).zip(&mean) {
                *sum += (f64::from(*w) - mean).powi(2) / count;
            }
        }
        Self::Diagonal {
            mean: narrow(&mean),
            scale: variance
                .iter()
                .map(|variance| variance.sqrt() as f32)
                .collect(),
        }
    }

    /// The `latent` principal components of `networks` ([count, size] row-major), or all of them,
    /// with whitened latents. Also the fraction of the networks' variance that they explain.
    ///
    /// The eigenvectors are those of the Gram matrix [count, count], in f64: networks have more
    /// weights than a zoo has networks.
    ///
    /// Errors: INVALID_ARGUMENT unless `latent` is 1 to the rank of the centred networks, which
    /// is below their count.
    pub fn linear(networks: &[f32], size: usize, latent: Option<usize>) -> Result<(Self, f64)> {
        let count = networks.len() / size;
        let mean = mean(networks, size);
        let centred = Mat::from_fn(count, size, |i, j| {
            f64::from(networks[i * size + j]) - mean[j]
        });
        let gram = &centred * centred.transpose();
        let eigen = gram
            .self_adjoint_eigen(Side::Lower)
            .map_err(|e| invalid(format!("the zoo has no principal components ({e:?})")))?;
        // faer sorts eigenvalues upwards.
        let values: Vec<f64> = eigen.S().column_vector().iter().rev().copied().collect();
        let rank = values
            .iter()
            .filter(|value| **value > values[0] * 1e-10)
            .count();
        let latent = latent.unwrap_or(rank);
        if !(1..=rank).contains(&latent) {
            return Err(invalid(format!(
                "--latent {latent}: the zoo's training part of {count} networks has {rank} \
                 principal components; give 1 to {rank}"
            )));
        }
        let vectors = Mat::from_fn(latent, count, |k, i| eigen.U()[(i, count - 1 - k)]);
        let components = vectors * &centred;
        let rounded = |k: usize, j: usize| f16::from_f64(components[(k, j)] / values[k].sqrt());
        let basis = Self::Linear {
            components: (0..latent * size)
                .map(|i| rounded(i / size, i % size))
                .collect(),
            mean: narrow(&mean),
            scale: values[..latent]
                .iter()
                .map(|v| (v / count as f64).sqrt() as f32)
                .collect(),
        };
        let total: f64 = values.iter().sum();
        Ok((basis, values[..latent].iter().sum::<f64>() / total))
    }

    /// What the artifact calls it.
    pub fn kind(&self) -> BasisKind {
        match self {
            Self::Identity { .. } => BasisKind::Identity,
            Self::Diagonal { .. } => BasisKind::Diagonal,
            Self::Linear { .. } => BasisKind::Linear,
        }
    }

    /// Length of a weight vector.
    pub fn weights(&self) -> usize {
        match self {
            Self::Identity { weights } => *weights,
            Self::Diagonal { mean, .. } | Self::Linear { mean, .. } => mean.len(),
        }
    }

    /// Length of a latent.
    pub fn latent(&self) -> usize {
        match self {
            Self::Identity { weights } => *weights,
            Self::Diagonal { scale, .. } | Self::Linear { scale, .. } => scale.len(),
        }
    }

    /// The latent of a weight vector; 0 where the zoo does not vary.
    pub fn encode(&self, weights: &[f32]) -> Vec<f32> {
        let whiten = |centred: f64, scale: f32| match scale {
            0.0 => 0.0,
            scale => (centred / f64::from(scale)) as f32,
        };
        let centred = |(w, mean): (&f32, &f32)| f64::from(*w) - f64::from(*mean);
        match self {
            Self::Identity { .. } => weights.to_vec(),
            Self::Diagonal { mean, scale } => {
                let centred = weights.iter().zip(mean).map(centred);
                centred
                    .zip(scale)
                    .map(|(w, scale)| whiten(w, *scale))
                    .collect()
            }
            Self::Linear {
                components,
                mean,
                scale,
            } => {
                let centred: Vec<f64> = weights.iter().zip(mean).map(centred).collect();
                let rows = components.chunks_exact(mean.len()).zip(scale);
                let dot = |row: &[f16]| row.iter().zip(&centred).map(|(c, w)| c.to_f64() * w).sum();
                rows.map(|(row, scale)| whiten(dot(row), *scale)).collect()
            }
        }
    }
}

/// The mean of every coordinate. Taken about the first network, so that it is exact, and every
/// deviation from it zero, where the networks are equal.
fn mean(networks: &[f32], size: usize) -> Vec<f64> {
    let count = (networks.len() / size) as f64;
    let first: Vec<f64> = networks[..size].iter().map(|w| f64::from(*w)).collect();
    let mut mean = first.clone();
    for network in networks.chunks_exact(size) {
        for ((mean, w), first) in mean.iter_mut().zip(network).zip(&first) {
            *mean += (f64::from(*w) - first) / count;
        }
    }
    mean
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}
