//! A zoo to try everything on: small MLPs trained on Fisher's Iris data.

use dwf::layout::DType;
use rayon::prelude::*;

use crate::{
    dataset::Dataset,
    mlp::{Layer, Mlp},
    network::{Network, Signature},
    random::Random,
    zoo::Zoo,
};

/// Column names of the held-out rows.
pub const FEATURES: [&str; 4] = ["sepal_length", "sepal_width", "petal_length", "petal_width"];

const HIDDEN: usize = 16;
const CLASSES: usize = 3;
/// Flowers of each class kept from training, of 50.
const HELD_OUT_PER_CLASS: usize = 17;
const EPOCHS: usize = 100;
const BATCH: usize = 16;
const LEARNING_RATE: f32 = 0.01;
/// Decoupled, as in AdamW. It wears off what initialisation left in weights that do nothing, so
/// that networks differ where training made them differ.
const WEIGHT_DECAY: f32 = 0.2;
/// Random streams beyond those of the networks.
const SPLIT_STREAM: u64 = u64::MAX;

/// Networks 4-16-3 trained on one part of the flowers, and the other part.
pub struct IrisZoo {
    /// Tensors `fc1.weight`, `fc1.bias`, `fc2.weight`, `fc2.bias`: 131 weights a network.
    pub zoo: Zoo,
    /// Flowers that no network saw, standardised like those it saw.
    pub held_out: Dataset,
}

/// Trains `count` networks, each from its own initialisation and order of flowers. `seed` decides
/// the split and every network; `done` is called after each, from any thread.
pub fn zoo(count: usize, seed: u64, done: impl Fn() + Sync) -> IrisZoo {
    let (training, held_out) = split(seed);
    let tensor = |name: &str, shape: &[usize]| Signature {
        name: name.into(),
        shape: shape.into(),
        dtype: DType::F32,
    };
    let network = Network::mlp(&[
        tensor("fc1.weight", &[HIDDEN, FEATURES.len()]),
        tensor("fc1.bias", &[HIDDEN]),
        tensor("fc2.weight", &[CLASSES, HIDDEN]),
        tensor("fc2.bias", &[CLASSES]),
    ])
    .expect("a chain of two layers");
    let mlp = network.as_mlp().expect("made as one");
    let size = network.layout().len();
    let train = |i| {
        let weights = train(mlp, size, &training, Random::new(seed, i));
        done();
        weights
    };
    let weights = (0..count as u64)
        .into_par_iter()
        .flat_map_iter(train)
        .collect();
    IrisZoo {
        zoo: Zoo::made(network, weights),
        held_out,
    }
}

/// Training and held-out flowers, stratified, standardised by the training part alone.
fn split(seed: u64) -> (Dataset, Dataset) {
    let all = Dataset::parse(include_str!("../data/iris.csv")).expect("the file is checked in");
    let mut random = Random::new(seed, SPLIT_STREAM);
    let (mut training, mut held_out) = (Vec::new(), Vec::new());
    for class in 0..CLASSES {
        let mut rows: Vec<usize> = (0..all.classes.len())
            .filter(|row| all.classes[*row] == class)
            .collect();
        random.shuffle(&mut rows);
        held_out.extend(rows.drain(..HELD_OUT_PER_CLASS));
        training.extend(rows);
    }
    let take = |rows: &[usize]| Dataset {
        features: all.features,
        x: rows
            .iter()
            .flat_map(|row| all.x[row * all.features..][..all.features].to_vec())
            .collect(),
        classes: rows.iter().map(|row| all.classes[*row]).collect(),
    };
    let (mut training, mut held_out) = (take(&training), take(&held_out));
    for feature in 0..all.features {
        let (mean, std) = moments(training.x.iter().skip(feature).step_by(all.features));
        for data in [&mut training, &mut held_out] {
            for x in data.x.iter_mut().skip(feature).step_by(all.features) {
                *x = (*x - mean) / std;
            }
        }
    }
    (training, held_out)
}

fn moments<'a>(values: impl Iterator<Item = &'a f32> + Clone) -> (f32, f32) {
    let count = values.clone().count() as f64;
    let mean = values.clone().map(|x| f64::from(*x)).sum::<f64>() / count;
    let variance = values.map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
    (mean as f32, variance.sqrt() as f32)
}

/// AdamW on the cross-entropy, from PyTorch's default initialisation.
fn train(mlp: &Mlp, size: usize, data: &Dataset, mut random: Random) -> Vec<f32> {
    let mut weights = vec![0.0; size];
    for layer in mlp.layers() {
        let bound = 1.0 / (layer.inputs as f32).sqrt();
        for range in [layer.weight.clone(), layer.bias.clone()] {
            weights[range]
                .iter_mut()
                .for_each(|weight| *weight = random.symmetric(bound));
        }
    }
    let mut adamw = AdamW {
        first: vec![0.0; size],
        second: vec![0.0; size],
        step: 0,
    };
    let mut order: Vec<usize> = (0..data.classes.len()).collect();
    for _ in 0..EPOCHS {
        random.shuffle(&mut order);
        for batch in order.chunks(BATCH) {
            let mut gradient = vec![0.0; size];
            for &row in batch {
                let x = &data.x[row * data.features..][..data.features];
                add_gradient(mlp, &weights, x, data.classes[row], &mut gradient);
            }
            gradient.iter_mut().for_each(|g| *g /= batch.len() as f32);
            adamw.update(&mut weights, &gradient);
        }
    }
    weights
}

/// Adds the gradient of the cross-entropy of one row.
fn add_gradient(mlp: &Mlp, weights: &[f32], x: &[f32], class: usize, gradient: &mut [f32]) {
    let [first, second] = mlp.layers() else {
        unreachable!("two layers")
    };
    let hidden: Vec<f32> = first
        .apply(weights, x)
        .into_iter()
        .map(|h| h.max(0.0))
        .collect();
    let mut slope = softmax(second.apply(weights, &hidden));
    slope[class] -= 1.0;
    let mut hidden_slope = vec![0.0; hidden.len()];
    for (row, slope) in weights[second.weight.clone()]
        .chunks_exact(second.inputs)
        .zip(&slope)
    {
        hidden_slope
            .iter_mut()
            .zip(row)
            .for_each(|(sum, weight)| *sum += slope * weight);
    }
    hidden_slope.iter_mut().zip(&hidden).for_each(|(slope, h)| {
        if *h == 0.0 {
            *slope = 0.0;
        }
    });
    add_outer(second, &slope, &hidden, gradient);
    add_outer(first, &hidden_slope, x, gradient);
}

fn add_outer(layer: &Layer, slope: &[f32], input: &[f32], gradient: &mut [f32]) {
    for (i, slope) in slope.iter().enumerate() {
        let row = &mut gradient[layer.weight.start + i * layer.inputs..][..layer.inputs];
        row.iter_mut().zip(input).for_each(|(g, x)| *g += slope * x);
        gradient[layer.bias.start + i] += slope;
    }
}

fn softmax(mut logits: Vec<f32>) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum: f32 = logits.iter().sum();
    logits.iter_mut().for_each(|x| *x /= sum);
    logits
}

struct AdamW {
    first: Vec<f32>,
    second: Vec<f32>,
    step: i32,
}

impl AdamW {
    /// Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), Algorithm 2,
    /// with Adam's default betas and epsilon.
    fn update(&mut self, weights: &mut [f32], gradient: &[f32]) {
        self.step += 1;
        let first_scale = 1.0 / (1.0 - 0.9f32.powi(self.step));
        let second_scale = 1.0 / (1.0 - 0.999f32.powi(self.step));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((weight, g), (first, second)) in weights.iter_mut().zip(gradient).zip(moments) {
            *first += 0.1 * (g - *first);
            *second += 0.001 * (g * g - *second);
            let root = (*second * second_scale).sqrt();
            let step = *first * first_scale / (root + 1e-8) + WEIGHT_DECAY * *weight;
            *weight -= LEARNING_RATE * step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_stratified_and_standardised() {
        let (training, held_out) = split(3);
        for class in 0..CLASSES {
            let count = |data: &Dataset| data.classes.iter().filter(|c| **c == class).count();
            assert_eq!((count(&training), count(&held_out)), (33, 17));
        }
        let (mean, std) = moments(training.x.iter().skip(2).step_by(4));
        // f32 rounding of a hundred values of size one.
        assert!(mean.abs() < 1e-6 && (std - 1.0).abs() < 1e-6);
    }

    #[test]
    fn gradients_match_differences() {
        let (training, _) = split(0);
        let Zoo {
            network,
            mut weights,
            ..
        } = zoo(1, 0, || ()).zoo;
        let mlp = network.as_mlp().unwrap();
        let mut random = Random::new(0, 0);
        weights.iter_mut().for_each(|w| *w = random.symmetric(0.5));
        let mut gradient = vec![0.0; weights.len()];
        add_gradient(mlp, &weights, &training.x[..4], 1, &mut gradient);
        let mut loss = |i: usize, by: f32| {
            let old = weights[i];
            weights[i] = old + by;
            let loss = -softmax(mlp.forward(&weights, &training.x[..4]))[1].ln();
            weights[i] = old;
            loss
        };
        for (i, gradient) in gradient.iter().enumerate() {
            let difference = (loss(i, 1e-2) - loss(i, -1e-2)) / 2e-2;
            // Central differences of an f32 loss: rounding 1e-7 / 1e-2 and curvature 1e-4.
            assert!(
                (difference - gradient).abs() < 1e-3,
                "{i}: {difference} and {gradient}"
            );
        }
    }
}
