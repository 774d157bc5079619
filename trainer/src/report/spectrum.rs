//! How far networks spread, direction by direction.

use std::ops::Range;

use faer::{Mat, Side};

use super::products::Products;

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
    /// From inner products about the training networks' mean; `None` if these are all alike.
    ///
    /// There are fewer training networks than weights, and everything follows from the products
    /// with them.
    pub fn new(
        products: &Products,
        training: Range<usize>,
        held_out: Range<usize>,
        generated: Range<usize>,
    ) -> Option<Self> {
        let with_training = |networks: &Range<usize>| {
            Mat::from_fn(networks.len(), training.len(), |i, j| {
                products.of(networks.start + i, training.start + j)
            })
        };
        let gram = with_training(&training);
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
        let along = |networks: &Range<usize>| along(&(with_training(networks) * &axes));
        let outside = |networks: Range<usize>, places: &[f64]| {
            let all: f64 = networks.map(|i| products.of(i, i)).sum();
            let inside: f64 = places.iter().sum();
            if all > 0.0 {
                (1.0 - inside / all).max(0.0)
            } else {
                0.0
            }
        };
        let (spread, places) = along(&generated);
        let (_, held_out_places) = along(&held_out);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Matrix;

    #[test]
    fn spreads_are_those_of_a_small_case() {
        // Along the first weight only; generated ones half as wide, and off by one beside it.
        let rows = [-2.0, 0.0, 2.0, 0.0, 0.5, 0.0, -1.0, 1.0, 1.0, -1.0];
        let products = Products::new(&Matrix::new(&rows, 2), 0..2);
        let spectrum = Spectrum::new(&products, 0..2, 2..3, 3..5).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} and {b}");
        close(spectrum.training[0], 2.0);
        close(spectrum.generated[0], 1.0);
        close(spectrum.ratio(), 0.5);
        close(spectrum.generated_outside, 0.5);
        close(spectrum.held_out_outside, 0.0);
        let alike = Products::new(&Matrix::new(&[1.0, 1.0, 0.0, 2.0], 1), 0..2);
        assert!(Spectrum::new(&alike, 0..2, 2..3, 3..4).is_none());
    }
}
