//! The basis: how weights become whitened latents, and latents weights.

use std::{ops::Range, path::Path};

use dwf::metadata::BasisKind;

use crate::{
    components::{Components, Precision},
    error::Result,
    pca::{self, Pca, Split, Wanted},
    rows::{Chunk, Rows, join, sweep},
};

/// A map between flat weight vectors and latents.
#[derive(Debug)]
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
        /// [latent, weights]
        components: Components,
        /// [weights]
        mean: Vec<f32>,
        /// [latent]
        scale: Vec<f32>,
    },
}

/// The basis to fit.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub enum BasisChoice {
    /// Every weight whitened for itself.
    Diagonal,
    /// Principal components.
    Linear {
        /// How many.
        wanted: Wanted,
        /// How they are stored.
        precision: Precision,
    },
}

/// A basis and the latents of the networks that it was fitted to.
#[derive(Debug)]
pub struct Fit {
    /// The basis.
    pub basis: Basis,
    /// Latents of the training networks, [count, latent]: mean 0, variance 1 a coordinate.
    pub training: Vec<f32>,
    /// Latents of the held-out networks, [count, latent].
    pub held_out: Vec<f32>,
    /// Of a linear basis.
    pub linear: Option<LinearFigures>,
}

/// What a linear basis loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearFigures {
    /// Fraction of the training networks' total variance that it holds.
    pub explained: f64,
    /// What rounding its components adds to the weights, relative to their standard deviation.
    pub rounding: f64,
}

/// Parts of a diagonal sweep side by side.
const LANES: usize = 16;
/// Weights of each network that are decoded at a time, so that those of a hundred stay in a cache.
const BLOCK: usize = 1024;

/// Fits a basis to the networks `split.training`. Files that may not fit into memory go to
/// `folder`, without a name. `done` is called now and then.
///
/// Errors: IO; INVALID_ARGUMENT for more components than there are.
pub fn fit(
    rows: &dyn Rows,
    split: Split<'_>,
    choice: BasisChoice,
    folder: &Path,
    done: &(dyn Fn() + Sync),
) -> Result<Fit> {
    match choice {
        BasisChoice::Diagonal => {
            let basis = diagonal(rows, split.training, done);
            let encode = |indices: &[usize]| basis.encode_rows(rows, indices);
            Ok(Fit {
                training: encode(split.training),
                held_out: encode(split.held_out),
                basis,
                linear: None,
            })
        }
        BasisChoice::Linear { wanted, precision } => {
            let Pca {
                mean,
                components,
                scale,
                training,
                held_out,
                explained,
                rounding,
            } = pca::fit(rows, split, wanted, precision, folder, done)?;
            Ok(Fit {
                basis: Basis::Linear {
                    components,
                    mean,
                    scale,
                },
                training,
                held_out,
                linear: Some(LinearFigures {
                    explained,
                    rounding,
                }),
            })
        }
    }
}

/// Whitening by the mean and standard deviation of every coordinate.
fn diagonal(rows: &dyn Rows, training: &[usize], done: &(dyn Fn() + Sync)) -> Basis {
    let add = |(mean, scale): &mut (Vec<f32>, Vec<f32>), chunk: Chunk<'_>| {
        mean.extend(chunk.mean.iter().map(|mean| *mean as f32));
        let mut squares = vec![0f64; chunk.columns.len()];
        for row in chunk.centred.chunks_exact(squares.len()) {
            for (sum, w) in squares.iter_mut().zip(row) {
                *sum += w * w / training.len() as f64;
            }
        }
        scale.extend(squares.iter().map(|square| square.sqrt() as f32));
    };
    let parts = sweep(rows, training, &[], LANES, Default::default, add, done);
    let (mean, scale): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    Basis::Diagonal {
        mean: join(mean),
        scale: join(scale),
    }
}

impl Basis {
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

    /// The latents of some rows, [indices, latent].
    fn encode_rows(&self, rows: &dyn Rows, indices: &[usize]) -> Vec<f32> {
        let latents = indices.iter().map(|row| self.encode(&rows.row(*row)));
        latents.flatten().collect()
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
                let dot = |row: &[f32]| {
                    let products = row.iter().zip(&centred).map(|(c, w)| f64::from(*c) * w);
                    products.sum()
                };
                scale
                    .iter()
                    .enumerate()
                    .map(|(k, scale)| whiten(dot(&components.row(k)), *scale))
                    .collect()
            }
        }
    }

    /// The weights of latents [count, latent], [count, weights] row-major.
    pub fn decode(&self, latents: &[f32]) -> Vec<f32> {
        let mut weights = vec![0.0; latents.len() / self.latent() * self.weights()];
        self.decode_columns(latents, 0..self.weights(), &mut weights);
        weights
    }

    /// The weights `columns` of latents [count, latent], [count, columns] row-major.
    pub fn decode_columns(&self, latents: &[f32], columns: Range<usize>, to: &mut [f32]) {
        let latents = latents.chunks_exact(self.latent());
        match self {
            Self::Identity { .. } => {
                for (to, latent) in to.chunks_exact_mut(columns.len()).zip(latents) {
                    to.copy_from_slice(&latent[columns.clone()]);
                }
            }
            Self::Diagonal { mean, scale } => {
                let (mean, scale) = (&mean[columns.clone()], &scale[columns.clone()]);
                for (to, latent) in to.chunks_exact_mut(columns.len()).zip(latents) {
                    to.copy_from_slice(mean);
                    let whitened = scale.iter().zip(&latent[columns.clone()]);
                    for (w, (scale, z)) in to.iter_mut().zip(whitened) {
                        *w += scale * z;
                    }
                }
            }
            Self::Linear {
                components,
                mean,
                scale,
            } => {
                let width = columns.len();
                for row in to.chunks_exact_mut(width) {
                    row.copy_from_slice(&mean[columns.clone()]);
                }
                let mut component = [0f32; BLOCK];
                for start in (0..width).step_by(BLOCK) {
                    let block = start..width.min(start + BLOCK);
                    let component = &mut component[..block.len()];
                    for (k, scale) in scale.iter().enumerate() {
                        components.read(k, columns.start + start, component);
                        for (row, latent) in to.chunks_exact_mut(width).zip(latents.clone()) {
                            let factor = scale * latent[k];
                            for (w, c) in row[block.clone()].iter_mut().zip(&*component) {
                                *w += factor * c;
                            }
                        }
                    }
                }
            }
        }
    }
}
