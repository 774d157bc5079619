//! How far networks are from those that the flow was trained on.
//!
//! Distances are Euclidean between aligned weight vectors.

use rayon::prelude::*;

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

/// For each of `networks` (rows of `size`) its nearest among `others`, of which there are at least
/// two. Where `networks` are `others`, a network does not count as its own neighbour.
pub fn nearest(networks: &[f32], others: &[f32], size: usize, same: bool) -> Vec<Nearest> {
    let find = |(i, network): (usize, &[f32])| {
        let mut nearest = Nearest {
            first: f64::INFINITY,
            second: f64::INFINITY,
        };
        for (j, other) in others.chunks_exact(size).enumerate() {
            if same && i == j {
                continue;
            }
            let distance = distance(network, other);
            if distance < nearest.first {
                nearest.second = nearest.first;
                nearest.first = distance;
            } else {
                nearest.second = nearest.second.min(distance);
            }
        }
        nearest
    };
    let networks = networks.par_chunks_exact(size).enumerate();
    networks.map(find).collect()
}

/// For each network its distance to what is already known: to the nearest training network, or to
/// a network before it in the same population if that is nearer. One network made a hundred times
/// is new once.
pub fn novelty(networks: &[f32], size: usize, nearest: &[Nearest]) -> Vec<f64> {
    let rows: Vec<&[f32]> = networks.chunks_exact(size).collect();
    let known = |(i, nearest): (usize, &Nearest)| {
        let before = rows[..i].iter().map(|other| distance(rows[i], other));
        before.fold(nearest.first, f64::min)
    };
    nearest.par_iter().enumerate().map(known).collect()
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

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    a.iter().zip(b).map(square).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_and_novelty_are_those_of_a_small_case() {
        let training = [0.0, 3.0, 10.0];
        let own = nearest(&training, &training, 1, true);
        assert_eq!(
            own.iter().map(|n| n.first).collect::<Vec<_>>(),
            [3.0, 3.0, 7.0]
        );
        let networks = [1.0, 0.5, 1.25, 1.0];
        let found = nearest(&networks, &training, 1, false);
        assert_eq!((found[0].first, found[0].second), (1.0, 2.0));
        // 0.5 from the first and 2.5 from the second is less than a third.
        let copies: Vec<bool> = found.iter().map(|n| n.is_near_copy()).collect();
        assert_eq!(copies, [false, true, false, false]);
        // The third is next to the first, and the fourth is the first.
        assert_eq!(novelty(&networks, 1, &found), [1.0, 0.5, 0.25, 0.0]);
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
