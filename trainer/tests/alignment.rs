//! Alignment keeps every function and finds planted permutations.

mod common;

use dwf_trainer::{
    align::{Permutations, align, match_weights, permute},
    checkpoint::LARGEST_WEIGHT,
    mlp::Mlp,
    random::Random,
};

const DEPTHS: [&[usize]; 4] = [
    &[5, 3],
    &[4, 16, 3],
    &[6, 24, 20, 4],
    &[8, 32, 24, 24, 16, 5],
];

/// The largest difference of two networks' outputs on random inputs.
fn difference(mlp: &Mlp, a: &[f32], b: &[f32]) -> f32 {
    let inputs = common::normals(20 * mlp.inputs(), 99);
    let outputs = |weights: &[f32]| -> Vec<f32> {
        inputs
            .chunks_exact(mlp.inputs())
            .flat_map(|x| mlp.forward(weights, x))
            .collect()
    };
    let pairs = outputs(a).into_iter().zip(outputs(b));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Normal weights, scaled so that outputs stay of size one.
fn network(mlp: &Mlp, size: usize, seed: u64) -> Vec<f32> {
    let mut weights = common::normals(size, seed);
    for layer in mlp.layers() {
        let scale = 1.0 / (layer.inputs as f32).sqrt();
        weights[layer.weight.clone()]
            .iter_mut()
            .for_each(|w| *w *= scale);
    }
    weights
}

fn random_permutations(mlp: &Mlp, seed: u64) -> Permutations {
    let mut random = Random::new(seed, 0);
    let hidden = &mlp.layers()[..mlp.layers().len() - 1];
    let shuffled = hidden.iter().map(|layer| {
        let mut order: Vec<usize> = (0..layer.outputs).collect();
        random.shuffle(&mut order);
        order
    });
    shuffled.collect()
}

#[test]
fn aligned_networks_compute_the_same_function() {
    for sizes in DEPTHS {
        let (mlp, layout) = common::mlp(sizes);
        let before: Vec<f32> = (0..6)
            .flat_map(|i| network(&mlp, layout.len(), i))
            .collect();
        let mut after = before.clone();
        align(&mut after, layout.len(), &mlp, 0, || ());
        let pairs = before
            .chunks_exact(layout.len())
            .zip(after.chunks_exact(layout.len()));
        for (i, (before, after)) in pairs.enumerate() {
            assert_eq!(
                i == 0 || mlp.layers().len() == 1,
                before == after,
                "network {i}"
            );
            // The same sums in another order: f32 rounding of outputs of size one.
            assert!(
                difference(&mlp, before, after) < 1e-5,
                "network {i} of {sizes:?}"
            );
        }
    }
}

#[test]
fn planted_permutations_are_found_exactly() {
    for sizes in DEPTHS {
        let (mlp, layout) = common::mlp(sizes);
        for seed in 0..10 {
            let reference = network(&mlp, layout.len(), seed);
            let planted = random_permutations(&mlp, seed);
            let scrambled = permute(&mlp, &reference, &planted);
            let found = match_weights(&mlp, &reference, &scrambled, Random::new(seed, 1));
            assert_eq!(
                permute(&mlp, &scrambled, &found),
                reference,
                "{sizes:?}, seed {seed}"
            );
        }
    }
}

#[test]
fn planted_permutations_are_found_under_noise() {
    for sizes in DEPTHS {
        let (mlp, layout) = common::mlp(sizes);
        let reference = network(&mlp, layout.len(), 1);
        let noise = network(&mlp, layout.len(), 2);
        let noisy: Vec<f32> = reference
            .iter()
            .zip(&noise)
            .map(|(w, e)| w + 0.2 * e)
            .collect();
        let planted = random_permutations(&mlp, 3);
        let scrambled = permute(&mlp, &noisy, &planted);
        let found = match_weights(&mlp, &reference, &scrambled, Random::new(0, 1));
        assert_eq!(permute(&mlp, &scrambled, &found), noisy, "{sizes:?}");
    }
}

#[test]
fn alignment_brings_networks_nearer_and_is_deterministic() {
    let (mlp, layout) = common::mlp(&[6, 24, 20, 4]);
    let size = layout.len();
    let before: Vec<f32> = (0..5).flat_map(|i| network(&mlp, size, i)).collect();
    let aligned = || {
        let mut networks = before.clone();
        align(&mut networks, size, &mlp, 7, || ());
        networks
    };
    let after = aligned();
    assert_eq!(after, aligned());
    let distance = |networks: &[f32], i: usize| -> f32 {
        let pairs = networks[..size].iter().zip(&networks[i * size..][..size]);
        pairs.map(|(a, b)| (a - b).powi(2)).sum()
    };
    for i in 1..5 {
        assert!(distance(&after, i) < distance(&before, i));
    }
}

#[test]
fn the_largest_weights_are_aligned() {
    let (mlp, layout) = common::mlp(&[64, 32, 32, 8]);
    let sign = |value: f32| LARGEST_WEIGHT.copysign(value);
    let original: Vec<f32> = common::normals(layout.len(), 3)
        .into_iter()
        .map(sign)
        .collect();
    let planted = permute(&mlp, &original, &random_permutations(&mlp, 7));
    let mut networks = [original.clone(), planted].concat();
    align(&mut networks, layout.len(), &mlp, 0, || ());
    assert_eq!(networks, original.repeat(2));
}
