//! Bases: whitening there and back.

mod common;

use dwf::{layout::Transform, metadata::BasisKind};
use dwf_trainer::{
    components::Precision,
    coordinates::{self, Coordinates, Transformed},
    error::Result,
    isometry::Isometry,
    latent::{self, Basis, BasisChoice, Fit},
    pca::{Split, Wanted},
    rows::{Matrix, Rows},
};

/// A basis of all rows but the last `held_out`.
fn fit(rows: &dyn Rows, held_out: usize, choice: BasisChoice) -> Result<Fit> {
    let indices: Vec<usize> = (0..rows.count()).collect();
    let (training, held_out) = indices.split_at(rows.count() - held_out);
    let split = Split { training, held_out };
    latent::fit(rows, split, choice, &std::env::temp_dir(), &|| ())
}

fn linear(wanted: Wanted) -> BasisChoice {
    BasisChoice::Linear {
        wanted,
        precision: Precision::Half,
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

fn assert_whitened(fit: &Fit, tolerance: f64) {
    let rows = fit.training.chunks_exact(fit.basis.latent());
    let latents: Vec<Vec<f32>> = rows.map(<[f32]>::to_vec).collect();
    for (mean, variance) in moments(&latents) {
        assert!(mean.abs() < tolerance, "mean {mean}");
        assert!((variance - 1.0).abs() < tolerance, "variance {variance}");
    }
}

fn assert_round_trip(basis: &Basis, networks: &[f32], size: usize, tolerance: f32) {
    for weights in networks.chunks_exact(size) {
        for (decoded, weight) in basis.decode(&basis.encode(weights)).iter().zip(weights) {
            assert!(
                (decoded - weight).abs() < tolerance,
                "{decoded} and {weight}"
            );
        }
    }
}

/// Latents of training and held-out rows are what encoding gives.
fn assert_encoded(fit: &Fit, networks: &[f32], size: usize, tolerance: f32) {
    let latents = fit.training.iter().chain(&fit.held_out);
    let encoded = networks
        .chunks_exact(size)
        .flat_map(|w| fit.basis.encode(w));
    for (latent, encoded) in latents.zip(encoded) {
        assert!(
            (latent - encoded).abs() < tolerance,
            "{latent} and {encoded}"
        );
    }
}

#[test]
fn a_diagonal_basis_whitens_and_returns() {
    let networks = networks(40, 60, 5);
    let fit = fit(&Matrix::new(&networks, 60), 3, BasisChoice::Diagonal).unwrap();
    let basis = &fit.basis;
    assert_eq!(
        (basis.kind(), basis.latent(), basis.weights()),
        (BasisKind::Diagonal, 60, 60)
    );
    assert_eq!((fit.training.len(), fit.held_out.len()), (37 * 60, 3 * 60));
    // f32 rounding of weights of size ten.
    assert_whitened(&fit, 1e-5);
    assert_round_trip(basis, &networks, 60, 1e-5);
    assert_encoded(&fit, &networks, 60, 1e-6);
}

#[test]
fn what_does_not_vary_is_exactly_the_mean() {
    let mut networks = networks(12, 10, 3);
    networks
        .iter_mut()
        .skip(4)
        .step_by(10)
        .for_each(|w| *w = 0.1);
    let basis = fit(&Matrix::new(&networks, 10), 0, BasisChoice::Diagonal)
        .unwrap()
        .basis;
    let Basis::Diagonal { mean, scale } = &basis else {
        unreachable!()
    };
    assert_eq!((mean[4], scale[4]), (0.1, 0.0));
    let latent = basis.encode(&[9.0; 10]);
    assert_eq!(latent[4], 0.0);
    assert_eq!(basis.decode(&[5.0; 10])[4], 0.1);
}

#[test]
fn a_linear_basis_of_full_rank_whitens_and_returns() {
    let networks = networks(30, 80, 4);
    let fit = fit(&Matrix::new(&networks, 80), 2, linear(Wanted::All)).unwrap();
    let basis = &fit.basis;
    assert_eq!(
        (basis.kind(), basis.latent(), basis.weights()),
        (BasisKind::Linear, 4, 80)
    );
    let figures = fit.linear.unwrap();
    assert_eq!(figures.explained, 1.0);
    // Latents come from the exact components, in f64.
    assert_whitened(&fit, 1e-5);
    // Components are stored in f16 (relative 2^-11); errors of 80 of them average out.
    assert_round_trip(basis, &networks, 80, 1e-2);
    assert_encoded(&fit, &networks, 80, 2e-3);
    assert!((1e-5..1e-3).contains(&figures.rounding), "{figures:?}");
}

/// What f16 adds is what decoding with rounded components differs from decoding with exact ones.
#[test]
fn the_rounding_error_is_the_one_that_is_stated() {
    let networks = networks(30, 500, 12);
    let rows = Matrix::new(&networks, 500);
    let half = fit(&rows, 0, linear(Wanted::All)).unwrap();
    let single = BasisChoice::Linear {
        wanted: Wanted::All,
        precision: Precision::Single,
    };
    let single = fit(&rows, 0, single).unwrap();
    let (rounded, exact) = (
        half.basis.decode(&half.training),
        single.basis.decode(&single.training),
    );
    let square = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.map(|x| f64::from(x).powi(2)).sum()
    };
    let Basis::Linear { mean, .. } = &single.basis else {
        unreachable!()
    };
    let added = square(&mut rounded.iter().zip(&exact).map(|(a, b)| a - b));
    let spread = square(&mut networks.iter().zip(mean.iter().cycle()).map(|(a, b)| a - b));
    let measured = (added / spread).sqrt();
    let stated = half.linear.unwrap().rounding;
    // f32 sums of twelve components add rounding of their own, a thousandth of f16's.
    assert!(
        (measured / stated - 1.0).abs() < 0.01,
        "{measured} and {stated}"
    );
    assert!(single.linear.unwrap().rounding < 1e-7);
}

#[test]
fn fewer_components_explain_less_and_a_variance_is_met() {
    let networks = networks(30, 80, 8);
    let rows = Matrix::new(&networks, 80);
    let explained = |wanted| {
        let fit = fit(&rows, 3, linear(wanted)).unwrap();
        (fit.basis.latent(), fit.linear.unwrap().explained)
    };
    let (_, one) = explained(Wanted::Count(1));
    let (_, four) = explained(Wanted::Count(4));
    assert!(one > 1.0 / 8.0 && one < four && four < 1.0);
    let (latent, variance) = explained(Wanted::Variance(0.9));
    assert!(variance >= 0.9);
    assert!(explained(Wanted::Count(latent - 1)).1 < 0.9);
    assert_eq!(explained(Wanted::Variance(1.0)), (8, 1.0));
}

#[test]
fn more_components_than_the_zoo_has_are_refused() {
    let networks = networks(30, 80, 8);
    for latent in [0, 9] {
        let rows = Matrix::new(&networks, 80);
        let message = fit(&rows, 0, linear(Wanted::Count(latent)))
            .unwrap_err()
            .to_string();
        assert!(message.contains("give 1 to 8"), "{message}");
    }
    assert!(fit(&Matrix::new(&[1.0; 800], 80), 0, linear(Wanted::All)).is_err());
}

/// Rows that are made when they are read: `rank` orthogonal cosines of falling size, and noise.
struct Generated {
    count: usize,
    size: usize,
    factors: Vec<f32>,
    deviations: Vec<f32>,
    noise: f32,
}

impl Generated {
    fn new(count: usize, size: usize, deviations: &[f32], noise: f32) -> Self {
        Self {
            count,
            size,
            factors: common::normals(count * deviations.len(), 1),
            deviations: deviations.to_vec(),
            noise,
        }
    }
}

impl Rows for Generated {
    fn count(&self) -> usize {
        self.count
    }

    fn size(&self) -> usize {
        self.size
    }

    fn read(&self, row: usize, from: usize, to: &mut [f32]) {
        let rank = self.deviations.len();
        let factors = &self.factors[row * rank..][..rank];
        for (column, to) in (from..).zip(to) {
            let position = (column as f32 + 0.5) / self.size as f32;
            let waves = factors.iter().zip(&self.deviations).enumerate();
            let wave = |(k, (factor, deviation)): (usize, (&f32, &f32))| {
                factor * deviation * (std::f32::consts::PI * (k + 1) as f32 * position).cos()
            };
            // A hash of the place, uniform in -1 to 1.
            let hash = ((row * self.size + column) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let noise = (hash >> 40) as f32 / (1 << 23) as f32 - 1.0;
            *to = 3.0 + waves.map(wave).sum::<f32>() + self.noise * noise;
        }
    }
}

/// Of many networks the leading components come from subspace iteration: the waves again, with
/// their share of the total variance.
#[test]
fn many_networks_need_no_gram_matrix() {
    let made = Generated::new(2100, 300, &[3.0, 2.0, 1.5, 1.0], 0.3);
    let mut all = vec![0.0; 2100 * 300];
    let networks = all.chunks_exact_mut(300).enumerate();
    networks.for_each(|(row, network)| made.read(row, 0, network));
    let rows = Matrix::new(&all, 300);
    let few = fit(&rows, 40, linear(Wanted::Count(4))).unwrap();
    let figures = few.linear.unwrap();
    // Waves have half their squared size, the noise a third of 0.09 in each weight.
    let waves: f64 = [9.0, 4.0, 2.25, 1.0].iter().map(|v| v / 2.0).sum();
    let share = waves / (waves + 0.03);
    // Sampling errors of 2060 factors: 3 % of each variance.
    assert!(
        (figures.explained - share).abs() < 0.01,
        "{figures:?} and {share}"
    );
    assert_whitened(&few, 1e-4);
    assert_encoded(&few, &all, 300, 5e-3);
    let share = fit(&rows, 0, linear(Wanted::Variance(0.9))).unwrap();
    assert_eq!(share.basis.latent(), 3);
    assert!(share.linear.unwrap().explained > 0.9);
}

#[test]
fn chunks_do_not_show() {
    // More columns than a chunk of 20 rows has.
    let size = 70_000;
    let rows = Generated::new(20, size, &[1.0, 0.7, 0.5], 0.01);
    let fit = fit(&rows, 2, linear(Wanted::Count(3))).unwrap();
    assert_whitened(&fit, 1e-4);
    let mut weights = vec![0.0; size];
    for row in 18..20 {
        rows.read(row, 0, &mut weights);
        let latent = &fit.held_out[(row - 18) * 3..][..3];
        let decoded = fit.basis.decode(latent);
        for (decoded, weight) in decoded.iter().zip(&weights) {
            // The noise that three components do not hold, and f16.
            assert!((decoded - weight).abs() < 0.03, "{decoded} and {weight}");
        }
    }
}

/// Whatever latents a flow makes, running variances come out positive; the zoo's own come back, also
/// one of zero, from a channel that never fires.
#[test]
fn running_variances_go_by_their_logarithms() {
    let network = common::exported("resnet20");
    let layout = coordinates::layout(&network);
    let tensors = layout.tensors().iter();
    let variances: Vec<_> = tensors.filter(|t| t.transform == Transform::Log).collect();
    assert_eq!(variances.len(), 19);
    assert!(variances.iter().all(|t| t.name.ends_with(".running_var")));
    let mut zoo: Vec<f32> = (0..8)
        .flat_map(|seed| common::plausible_weights(&layout, seed))
        .collect();
    zoo[variances[0].offset] = 0.0;
    let size = layout.len();
    let rows = Transformed {
        rows: &Matrix::new(&zoo, size),
        layout: &layout,
    };
    for choice in [BasisChoice::Diagonal, linear(Wanted::Count(6))] {
        let Fit {
            basis, training, ..
        } = fit(&rows, 1, choice).unwrap();
        let coordinates = Coordinates {
            basis,
            layout: layout.clone(),
        };
        let latent = coordinates.encode(&zoo[..size]);
        for (z, expected) in latent.iter().zip(&training) {
            // The fit's sums are in f64, over all chunks; a latent is of size one.
            assert!((z - expected).abs() < 1e-3, "{z} and {expected}");
        }
        for (found, w) in coordinates.decode(&latent).iter().zip(&zoo) {
            // Half-precision components: 2^-11 of each of six, through the exponential.
            assert!(
                (found - w).abs() < 1e-2 * w.abs().max(1.0),
                "{found} and {w}"
            );
        }
        let wild = common::normals(5 * coordinates.latent(), 9);
        let wild: Vec<f32> = wild.iter().map(|z| 5.0 * z).collect();
        for network in coordinates.decode(&wild).chunks_exact(size) {
            for tensor in &variances {
                assert!(network[tensor.range()].iter().all(|v| *v > 0.0));
            }
        }
    }
}

/// Latents alone tell how far networks are from each other and from zero, also where the basis gives
/// logarithms.
#[test]
fn places_lie_as_the_networks_do() {
    let network = common::exported("resnet20");
    let layout = coordinates::layout(&network);
    let size = layout.len();
    let zoo: Vec<f32> = (0..8)
        .flat_map(|seed| common::plausible_weights(&layout, seed))
        .collect();
    let rows = Transformed {
        rows: &Matrix::new(&zoo, size),
        layout: &layout,
    };
    for choice in [BasisChoice::Diagonal, linear(Wanted::Count(6))] {
        let Fit {
            basis, training, ..
        } = fit(&rows, 1, choice).unwrap();
        let coordinates = Coordinates {
            basis,
            layout: layout.clone(),
        };
        let isometry = Isometry::new(&coordinates).unwrap();
        let lengths = |rows: &[f32]| -> Vec<f64> {
            let rows: Vec<&[f32]> = rows.chunks_exact(rows.len() / 7).collect();
            let zero = vec![0.0; rows[0].len()];
            let distance = |a: &[f32], b: &[f32]| {
                let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
                squares.sum::<f64>().sqrt()
            };
            let from = |i: usize| {
                let others = rows[..i].iter().copied().chain([&zero[..]]);
                others.map(|other| distance(rows[i], other)).collect()
            };
            (0..7).flat_map(|i| -> Vec<f64> { from(i) }).collect()
        };
        let (places, networks) = (isometry.place(&training), coordinates.decode(&training));
        for (found, expected) in lengths(&places).iter().zip(lengths(&networks)) {
            // f32 rounding of each weight, which averages out.
            assert!(
                (found / expected - 1.0).abs() < 1e-5,
                "{found} and {expected}"
            );
        }
    }
}
