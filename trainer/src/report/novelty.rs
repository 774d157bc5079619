//! How far networks are from those that the flow was trained on.
//!
//! Distances are Euclidean between aligned weight vectors.

use std::ops::Range;

use super::{median, products::Products};

/// A network's distances to its nearest and second nearest training network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearest {
    /// To the nearest.
    pub first: f64,
    /// To the second nearest.
    pub second: f64,
}

/// A network is a near copy if its nearest training network is nearer than this share of the
/// distance to the second nearest: the criterion of Yoon et al., "Diffusion probabilistic models
/// generalize when they fail to memorize" (2023).
pub const NEAR_COPY: f64 = 1.0 / 3.0;

impl Nearest {
    /// See [`NEAR_COPY`].
    pub fn is_near_copy(self) -> bool {
        self.first < NEAR_COPY * self.second
    }
}

/// Share of near copies; 0 of nothing.
pub fn near_copies(nearest: &[Nearest]) -> f64 {
    let copies = nearest.iter().filter(|nearest| nearest.is_near_copy());
    copies.count() as f64 / nearest.len().max(1) as f64
}

/// For each of `networks` its nearest among `others`, of which there are at least two. A network
/// is not its own neighbour.
pub fn nearest(products: &Products, networks: Range<usize>, others: Range<usize>) -> Vec<Nearest> {
    let find = |i: usize| {
        let mut nearest = Nearest {
            first: f64::INFINITY,
            second: f64::INFINITY,
        };
        for j in others.clone().filter(|j| *j != i) {
            let distance = products.distance(i, j);
            if distance < nearest.first {
                nearest.second = nearest.first;
                nearest.first = distance;
            } else {
                nearest.second = nearest.second.min(distance);
            }
        }
        nearest
    };
    networks.map(find).collect()
}

/// Median distance of a network to its nearest neighbour among the others.
pub fn unit(products: &Products, networks: Range<usize>) -> f64 {
    let nearest = nearest(products, networks.clone(), networks);
    median(nearest.iter().map(|nearest| nearest.first).collect())
}

/// For each network its distance to what is already known: to the nearest training network, or to
/// a network before it in the same population if that is nearer. One network made a hundred times
/// is new once.
pub fn novelty(products: &Products, networks: Range<usize>, nearest: &[Nearest]) -> Vec<f64> {
    let known = |(i, nearest): (usize, &Nearest)| {
        let before = (networks.start..i).map(|other| products.distance(i, other));
        before.fold(nearest.first, f64::min)
    };
    networks.clone().zip(nearest).map(known).collect()
}

/// The copying test Z_U of Meehan, Chaudhuri and Dasgupta, "A non-parametric test to detect
/// data-copying in generative models" (AISTATS 2020, arXiv 2004.05675), with all space as one cell:
/// the Mann-Whitney statistic of the distances to the training networks, of generated against
/// held-out networks, standardised. Far below 0: generated networks are nearer to the training
/// networks than fresh ones are. Far above: they have not come as near.
pub fn z_u(generated: &[f64], held_out: &[f64]) -> f64 {
    let (m, n) = (generated.len() as f64, held_out.len() as f64);
    let wins = |q: &f64| {
        let win = |p: &f64| match q.total_cmp(p) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        held_out.iter().map(win).sum::<f64>()
    };
    let u: f64 = generated.iter().map(wins).sum();
    (u - m * n / 2.0) / (m * n * (m + n + 1.0) / 12.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Matrix;

    #[test]
    fn neighbours_and_novelty_are_those_of_a_small_case() {
        // Three training networks, and four others.
        let rows = [0.0, 3.0, 10.0, 1.0, 0.5, 1.25, 1.0];
        let products = Products::new(&Matrix::new(&rows, 1), 0..3);
        let own = nearest(&products, 0..3, 0..3);
        let first: Vec<f64> = own.iter().map(|n| n.first).collect();
        assert_near(&first, &[3.0, 3.0, 7.0]);
        assert_near(&[unit(&products, 0..3)], &[3.0]);
        let found = nearest(&products, 3..7, 0..3);
        assert_near(&[found[0].first, found[0].second], &[1.0, 2.0]);
        // 0.5 from the first and 2.5 from the second is less than a third.
        let copies: Vec<bool> = found.iter().map(|n| n.is_near_copy()).collect();
        assert_eq!(copies, [false, true, false, false]);
        // The third is next to the first, and the fourth is the first.
        assert_near(&novelty(&products, 3..7, &found), &[1.0, 0.5, 0.25, 0.0]);
    }

    /// To the root of what f64 leaves of squares near 100.
    fn assert_near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} and {expected}");
        }
    }

    #[test]
    fn copying_shows_in_z_u() {
        let held_out = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(z_u(&held_out, &held_out), 0.0);
        // All 16 pairs lost: (0 - 8) / sqrt(16 * 9 / 12).
        assert!((z_u(&[0.1; 4], &held_out) + 8.0 / 12f64.sqrt()).abs() < 1e-12);
        assert!(z_u(&[5.0; 4], &held_out) > 2.0);
    }
}
