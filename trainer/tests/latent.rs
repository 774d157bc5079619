//! Bases: whitening there and back.

mod common;

use dwf::metadata::BasisKind;
use dwf_trainer::latent::Basis;

/// Weights from a latent, by the definition in `BasisKind`.
fn decode(basis: &Basis, latent: &[f32]) -> Vec<f32> {
    match basis {
        Basis::Identity { .. } => latent.to_vec(),
        Basis::Diagonal { mean, scale } => mean
            .iter()
            .zip(scale)
            .zip(latent)
            .map(|((m, s), z)| m + s * z)
            .collect(),
        Basis::Linear {
            components,
            mean,
            scale,
        } => {
            let mut weights = mean.clone();
            for ((row, s), z) in components.chunks_exact(mean.len()).zip(scale).zip(latent) {
                weights
                    .iter_mut()
                    .zip(row)
                    .for_each(|(w, c)| *w += s * z * c.to_f32());
            }
            weights
        }
    }
}

/// [count, size]: `rank` factors and a mean of 3.
fn networks(count: usize, size: usize, rank: usize) -> Vec<f32> {
    let factors = common::normals(count * rank, 1);
    let loadings = common::normals(rank * size, 2);
    let weight = |i: usize| -> f32 {
        let (n, j) = (i / size, i % size);
        3.0 + (0..rank)
            .map(|k| factors[n * rank + k] * loadings[k * size + j])
            .sum::<f32>()
    };
    (0..count * size).map(weight).collect()
}

/// Mean and variance of every column.
fn moments(rows: &[Vec<f32>]) -> Vec<(f64, f64)> {
    let count = rows.len() as f64;
    let column = |j: usize| {
        let mean = rows.iter().map(|row| f64::from(row[j])).sum::<f64>() / count;
        let square = rows
            .iter()
            .map(|row| (f64::from(row[j]) - mean).powi(2))
            .sum::<f64>();
        (mean, square / count)
    };
    (0..rows[0].len()).map(column).collect()
}

fn assert_whitened(basis: &Basis, networks: &[f32], size: usize, tolerance: f64) {
    let latents: Vec<Vec<f32>> = networks
        .chunks_exact(size)
        .map(|w| basis.encode(w))
        .collect();
    for (mean, variance) in moments(&latents) {
        assert!(mean.abs() < tolerance, "mean {mean}");
        assert!((variance - 1.0).abs() < tolerance, "variance {variance}");
    }
}

fn assert_round_trip(basis: &Basis, networks: &[f32], size: usize, tolerance: f32) {
    for weights in networks.chunks_exact(size) {
        for (decoded, weight) in decode(basis, &basis.encode(weights)).iter().zip(weights) {
            assert!(
                (decoded - weight).abs() < tolerance,
                "{decoded} and {weight}"
            );
        }
    }
}

#[test]
fn a_diagonal_basis_whitens_and_returns() {
    let networks = networks(40, 60, 5);
    let basis = Basis::diagonal(&networks, 60);
    assert_eq!(
        (basis.kind(), basis.latent(), basis.weights()),
        (BasisKind::Diagonal, 60, 60)
    );
    // f32 rounding of weights of size ten.
    assert_whitened(&basis, &networks, 60, 1e-5);
    assert_round_trip(&basis, &networks, 60, 1e-5);
}

#[test]
fn what_does_not_vary_is_exactly_the_mean() {
    let mut networks = networks(12, 10, 3);
    networks
        .iter_mut()
        .skip(4)
        .step_by(10)
        .for_each(|w| *w = 0.1);
    let basis = Basis::diagonal(&networks, 10);
    let Basis::Diagonal { mean, scale } = &basis else {
        unreachable!()
    };
    assert_eq!((mean[4], scale[4]), (0.1, 0.0));
    let latent = basis.encode(&[9.0; 10]);
    assert_eq!(latent[4], 0.0);
    assert_eq!(decode(&basis, &[5.0; 10])[4], 0.1);
}

#[test]
fn a_linear_basis_of_full_rank_whitens_and_returns() {
    let networks = networks(30, 80, 4);
    let (basis, explained) = Basis::linear(&networks, 80, None).unwrap();
    assert_eq!(
        (basis.kind(), basis.latent(), basis.weights()),
        (BasisKind::Linear, 4, 80)
    );
    assert!((explained - 1.0).abs() < 1e-9);
    // Components are stored in f16 (relative 2^-11); errors of 80 of them average out.
    assert_whitened(&basis, &networks, 80, 2e-3);
    assert_round_trip(&basis, &networks, 80, 1e-2);
}

#[test]
fn fewer_components_explain_less() {
    let networks = networks(30, 80, 8);
    let explained = |k| Basis::linear(&networks, 80, Some(k)).unwrap().1;
    assert!(explained(1) > 1.0 / 8.0 && explained(1) < explained(4) && explained(4) < 1.0);
}

#[test]
fn more_components_than_the_zoo_has_are_refused() {
    let networks = networks(30, 80, 8);
    for latent in [0, 9] {
        let message = Basis::linear(&networks, 80, Some(latent))
            .unwrap_err()
            .to_string();
        assert!(message.contains("give 1 to 8"), "{message}");
    }
    assert!(Basis::linear(&vec![1.0; 800], 80, None).is_err());
}
