//! How far networks spread, direction by direction.

use faer::{Mat, Side};
use rayon::prelude::*;

/// Standard deviations along the principal axes of the training networks, largest first.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Spectrum {
    /// Of the training networks.
    pub training: Vec<f64>,
    /// Of the generated networks.
    pub generated: Vec<f64>,
    /// Share of the generated networks' variance (about the training mean) that lies outside the
    /// affine span of the training networks.
    pub generated_outside: f64,
    /// The same of the held-out networks.
    pub held_out_outside: f64,
}

impl Spectrum {
    /// Of rows of `size` weights; `None` if the training networks are all alike.
    ///
    /// Everything follows from inner products with the training networks, of which there are fewer
    /// than there are weights.
    pub fn new(training: &[f32], held_out: &[f32], generated: &[f32], size: usize) -> Option<Self> {
        let mean = mean(training, size);
        let gram = products(training, training, &mean);
        let eigen = gram.self_adjoint_eigen(Side::Lower).ok()?;
        // faer sorts eigenvalues upwards.
        let values: Vec<f64> = eigen.S().column_vector().iter().rev().copied().collect();
        if values[0] <= 0.0 {
            return None;
        }
        let count = values.len();
        let rank = values.iter().filter(|v| **v > 1e-10 * values[0]).count();
        let axes = Mat::from_fn(count, rank, |i, k| {
            eigen.U()[(i, count - 1 - k)] / values[k].sqrt()
        });
        let along = |networks: &[f32]| along(&(products(networks, training, &mean) * &axes));
        let outside = |networks: &[f32], places: &[f64]| {
            let all: f64 = squares(networks, &mean).iter().sum();
            let inside: f64 = places.iter().sum();
            if all > 0.0 {
                (1.0 - inside / all).max(0.0)
            } else {
                0.0
            }
        };
        let (spread, places) = along(generated);
        let (_, held_out_places) = along(held_out);
        Some(Self {
            training: values[..rank]
                .iter()
                .map(|value| (value / count as f64).sqrt())
                .collect(),
            generated: spread,
            generated_outside: outside(generated, &places),
            held_out_outside: outside(held_out, &held_out_places),
        })
    }

    /// The middle ratio of generated to training standard deviation.
    pub fn ratio(&self) -> f64 {
        let pairs = self.generated.iter().zip(&self.training);
        super::median(
            pairs
                .map(|(generated, training)| generated / training)
                .collect(),
        )
    }
}

/// Standard deviation, and sum of squares, of each column.
fn along(places: &Mat<f64>) -> (Vec<f64>, Vec<f64>) {
    let count = places.nrows() as f64;
    let column = |k: usize| (0..places.nrows()).map(move |i| places[(i, k)]);
    let squares = |k: usize| column(k).map(|x| x * x).sum::<f64>();
    let std = |k: usize| {
        let mean = column(k).sum::<f64>() / count;
        (column(k).map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt()
    };
    let columns = 0..places.ncols();
    (
        columns.clone().map(std).collect(),
        columns.map(squares).collect(),
    )
}

fn mean(networks: &[f32], size: usize) -> Vec<f64> {
    let count = (networks.len() / size) as f64;
    let mut mean = vec![0.0; size];
    for network in networks.chunks_exact(size) {
        for (mean, weight) in mean.iter_mut().zip(network) {
            *mean += f64::from(*weight) / count;
        }
    }
    mean
}

/// Inner products of centred networks, [networks, others].
fn products(networks: &[f32], others: &[f32], mean: &[f64]) -> Mat<f64> {
    let size = mean.len();
    let row = |network: &[f32]| -> Vec<f64> {
        let others = others.chunks_exact(size);
        others.map(|other| product(network, other, mean)).collect()
    };
    let rows: Vec<Vec<f64>> = networks.par_chunks_exact(size).map(row).collect();
    Mat::from_fn(rows.len(), others.len() / size, |i, j| rows[i][j])
}

fn product(a: &[f32], b: &[f32], mean: &[f64]) -> f64 {
    let pairs = a.iter().zip(b).zip(mean);
    pairs
        .map(|((a, b), mean)| (f64::from(*a) - mean) * (f64::from(*b) - mean))
        .sum()
}

fn squares(networks: &[f32], mean: &[f64]) -> Vec<f64> {
    let networks = networks.par_chunks_exact(mean.len());
    networks
        .map(|network| product(network, network, mean))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_those_of_a_small_case() {
        // Along the first weight only; generated ones half as wide, and off by one beside it.
        let training = [-2.0, 0.0, 2.0, 0.0];
        let generated = [-1.0, 1.0, 1.0, -1.0];
        let spectrum = Spectrum::new(&training, &[0.5, 0.0], &generated, 2).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} and {b}");
        close(spectrum.training[0], 2.0);
        close(spectrum.generated[0], 1.0);
        close(spectrum.ratio(), 0.5);
        close(spectrum.generated_outside, 0.5);
        close(spectrum.held_out_outside, 0.0);
        assert!(Spectrum::new(&[1.0, 1.0], &[0.0], &generated, 1).is_none());
    }
}
