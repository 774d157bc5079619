//! Alignment: hidden units of every network put in the order of the first network's.
//!
//! Permuting the units of a hidden layer does not change what a network computes, but scatters
//! equal networks over weight space. Weight matching after Ainsworth, Hayase and Srinivasa, "Git
//! Re-Basin" (ICLR 2023, arXiv 2209.04836), Algorithm 1: coordinate descent over the layers, each
//! step an exact linear assignment.

use rayon::prelude::*;

use crate::{
    assignment,
    mlp::{Layer, Mlp, dot},
    random::Random,
};

/// Random streams of the networks begin here, clear of the other stages'.
const STREAMS: u64 = 1 << 32;

/// For each hidden layer the old unit that stands at each new place.
pub type Permutations = Vec<Vec<usize>>;

/// Aligns networks ([count, mlp's weights] row-major, none beyond [`LARGEST_WEIGHT`](crate::checkpoint::LARGEST_WEIGHT)) to the first
/// of them, in place. Every network computes the same function as before, and `seed` decides the
/// order of the descent.
pub fn align(networks: &mut [f32], size: usize, mlp: &Mlp, seed: u64, done: impl Fn() + Sync) {
    let (reference, others) = networks.split_at_mut(size);
    others
        .par_chunks_exact_mut(size)
        .enumerate()
        .for_each(|(i, weights)| {
            let permutations = match_weights(
                mlp,
                reference,
                weights,
                Random::new(seed, STREAMS + i as u64),
            );
            weights.copy_from_slice(&permute(mlp, weights, &permutations));
            done();
        });
}

/// The permutations of `weights` that bring it nearest to `reference` (both flat vectors), up to
/// a local optimum: no single layer can be improved.
pub fn match_weights(
    mlp: &Mlp,
    reference: &[f32],
    weights: &[f32],
    mut random: Random,
) -> Permutations {
    let hidden = mlp.layers().len() - 1;
    let mut permutations: Permutations = mlp.layers()[..hidden]
        .iter()
        .map(|layer| (0..layer.outputs).collect())
        .collect();
    let mut order: Vec<usize> = (0..hidden).collect();
    loop {
        let mut changed = false;
        random.shuffle(&mut order);
        for &layer in &order {
            let costs = costs(mlp, reference, weights, &permutations, layer);
            let best = assignment::solve(&costs, mlp.layers()[layer].outputs);
            // Ties must not count as progress, or the descent could go round in circles.
            if total(&costs, &best) < total(&costs, &permutations[layer]) - tie(best.len()) {
                permutations[layer] = best;
                changed = true;
            }
        }
        if !changed {
            return permutations;
        }
    }
}

/// Gains below this are rounding of the `units` f32 costs, which are scaled to at most 1.
fn tie(units: usize) -> f64 {
    1e-6 * units as f64
}

/// The same function with its hidden units reordered.
pub fn permute(mlp: &Mlp, weights: &[f32], permutations: &[Vec<usize>]) -> Vec<f32> {
    let mut permuted = weights.to_vec();
    for (i, layer) in mlp.layers().iter().enumerate() {
        let rows = permutations.get(i);
        let columns = i.checked_sub(1).map(|before| &permutations[before]);
        for output in 0..layer.outputs {
            let from = rows.map_or(output, |rows| rows[output]);
            permuted[layer.bias.start + output] = weights[layer.bias.start + from];
            let old = row(weights, layer, from);
            let new = &mut permuted[layer.weight.start + output * layer.inputs..][..layer.inputs];
            match columns {
                Some(columns) => gather(old, columns, new),
                None => new.copy_from_slice(old),
            }
        }
    }
    permuted
}

fn row<'a>(weights: &'a [f32], layer: &Layer, i: usize) -> &'a [f32] {
    &weights[layer.weight.start + i * layer.inputs..][..layer.inputs]
}

fn gather(values: &[f32], indices: &[usize], out: &mut [f32]) {
    for (out, index) in out.iter_mut().zip(indices) {
        *out = values[*index];
    }
}

/// Minus the similarity of every reference unit (row) with every unit (column) of hidden layer
/// `layer`, given the permutations of its neighbours: incoming weights, bias, outgoing weights.
fn costs(
    mlp: &Mlp,
    reference: &[f32],
    weights: &[f32],
    permutations: &[Vec<usize>],
    layer: usize,
) -> Vec<f32> {
    let before = layer.checked_sub(1).map(|before| &permutations[before][..]);
    let after = permutations.get(layer + 1).map(|after| &after[..]);
    let (this, next) = (&mlp.layers()[layer], &mlp.layers()[layer + 1]);
    let units = units(reference, this, next, None, None);
    let others = self::units(weights, this, next, before, after);
    let length = units.len() / this.outputs;
    let mut costs: Vec<f32> = units
        .chunks_exact(length)
        .flat_map(|unit| {
            others
                .chunks_exact(length)
                .map(move |other| -dot(unit, other))
        })
        .collect();
    let largest = costs
        .iter()
        .fold(f32::MIN_POSITIVE, |largest, cost| largest.max(cost.abs()));
    costs.iter_mut().for_each(|cost| *cost /= largest);
    costs
}

/// Every unit of a hidden layer as one vector, [units, inputs + 1 + next outputs]: what comes in,
/// its bias, and what goes out, with the neighbouring layers' units reordered.
fn units(
    weights: &[f32],
    this: &Layer,
    next: &Layer,
    before: Option<&[usize]>,
    after: Option<&[usize]>,
) -> Vec<f32> {
    let at = |order: Option<&[usize]>, i: usize| order.map_or(i, |order| order[i]);
    let mut units = Vec::with_capacity(this.outputs * (this.inputs + 1 + next.outputs));
    for unit in 0..this.outputs {
        let incoming = row(weights, this, unit);
        units.extend((0..this.inputs).map(|i| incoming[at(before, i)]));
        units.push(weights[this.bias.start + unit]);
        units.extend((0..next.outputs).map(|i| row(weights, next, at(after, i))[unit]));
    }
    units
}

fn total(costs: &[f32], columns: &[usize]) -> f64 {
    let n = columns.len();
    columns
        .iter()
        .enumerate()
        .map(|(row, column)| f64::from(costs[row * n + column]))
        .sum()
}
