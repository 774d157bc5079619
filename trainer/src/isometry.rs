//! Distances and norms of networks from their latents, without their weights.
//!
//! A linear basis of k components C and mean m gives weights (1, s z) [m; C], so that all inner
//! products of networks are those of k + 1 numbers under the Gram matrix of [m; C], which is
//! computed once; its root makes of them vectors with the same distances and norms. Weights of which
//! the basis gives logarithms are few, and stand beside these numbers as they are.

use faer::{Mat, Side};

use crate::{
    coordinates::{Coordinates, Decoded, logarithms},
    error::{Error, Result, Status},
    gram::gram,
    latent::Basis,
    rows::{Matrix, Rows, Stack},
};

/// Where networks lie.
pub struct Isometry<'a> {
    coordinates: &'a Coordinates,
    /// Of a linear basis.
    linear: Option<Linear<'a>>,
}

struct Linear<'a> {
    scale: &'a [f32],
    /// [latent + 1, latent + 1]; the last column is the mean's.
    root: Mat<f64>,
}

impl<'a> Isometry<'a> {
    /// For networks of these coordinates.
    ///
    /// Errors: INTERNAL if the Gram matrix has no root.
    pub fn new(coordinates: &'a Coordinates) -> Result<Self> {
        let linear = match &coordinates.basis {
            Basis::Identity { .. } | Basis::Diagonal { .. } => None,
            Basis::Linear {
                components,
                mean,
                scale,
            } => {
                let mean = Matrix::new(mean, mean.len());
                let rows = Stack(&[components, &mean]);
                let root = root(&Kept {
                    rows: &rows,
                    coordinates,
                })?;
                Some(Linear { scale, root })
            }
        };
        Ok(Self {
            coordinates,
            linear,
        })
    }

    /// Vectors [count, size] with the distances and norms of the networks of latents [count, latent];
    /// the size is the same for all.
    pub fn place(&self, latents: &[f32]) -> Vec<f32> {
        match &self.linear {
            None => self.coordinates.decode(latents),
            Some(linear) => {
                let networks = Decoded::new(self.coordinates, latents);
                let latents = latents.chunks_exact(self.coordinates.latent()).enumerate();
                let place = |(i, latent): (usize, &[f32])| {
                    let mut place = linear.place(latent);
                    for columns in
                        logarithms(&self.coordinates.layout, 0..self.coordinates.layout.len())
                    {
                        let mut weights = vec![0.0; columns.len()];
                        networks.read(i, columns.start, &mut weights);
                        place.extend(weights);
                    }
                    place
                };
                latents.flat_map(place).collect()
            }
        }
    }
}

impl Linear<'_> {
    fn place(&self, latent: &[f32]) -> Vec<f32> {
        let factors = self.scale.iter().zip(latent);
        let factors: Vec<f64> = factors
            .map(|(scale, z)| f64::from(*scale) * f64::from(*z))
            .chain([1.0])
            .collect();
        let row = |i: usize| {
            factors
                .iter()
                .enumerate()
                .map(move |(k, f)| self.root[(i, k)] * f)
        };
        (0..factors.len())
            .map(|i| row(i).sum::<f64>() as f32)
            .collect()
    }
}

/// A matrix R with R^T R the Gram matrix of some rows.
fn root(rows: &dyn Rows) -> Result<Mat<f64>> {
    let count = rows.count();
    let eigen = gram(rows, &[], &rows.all(), || ()).self_adjoint_eigen(Side::Lower);
    let eigen = eigen.map_err(|e| {
        let what = format!("the basis has no root ({e:?})");
        Error::new(Status::Internal, what)
    })?;
    let (values, vectors) = (eigen.S().column_vector(), eigen.U());
    Ok(Mat::from_fn(count, count, |i, k| {
        // Rounding may make a zero negative.
        values[i].max(0.0).sqrt() * vectors[(k, i)]
    }))
}

/// Rows with zeros where the basis gives logarithms.
struct Kept<'a> {
    rows: &'a dyn Rows,
    coordinates: &'a Coordinates,
}

impl Rows for Kept<'_> {
    fn count(&self) -> usize {
        self.rows.count()
    }

    fn size(&self) -> usize {
        self.rows.size()
    }

    fn read(&self, row: usize, from: usize, to: &mut [f32]) {
        self.rows.read(row, from, to);
        for columns in logarithms(&self.coordinates.layout, from..from + to.len()) {
            to[columns.start - from..columns.end - from].fill(0.0);
        }
    }
}
