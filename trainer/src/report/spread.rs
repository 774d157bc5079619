//! How much networks vary, weight by weight.

use std::ops::Range;

use super::median;
use crate::rows::{Chunk, Rows, Stack, join, sweep};

/// Parts of the weights side by side.
const LANES: usize = 16;

/// Median over the weights that vary in the zoo of generated / zoo standard deviation.
pub fn std_ratio(zoo: &dyn Rows, generated: &dyn Rows) -> f64 {
    let rows = Stack(&[zoo, generated]);
    let (zoo, all) = (0..zoo.count(), rows.all());
    let add = |sum: &mut Vec<f32>, chunk: Chunk<'_>| {
        sum.extend(ratios(&chunk, zoo.clone(), zoo.end..all.len()));
    };
    let parts = sweep(&rows, &[], &all, LANES, Vec::new, add, || ());
    median(join(parts))
}

/// The ratios of a chunk's weights, of which `zoo` and `generated` are rows.
pub fn ratios(
    chunk: &Chunk<'_>,
    zoo: Range<usize>,
    generated: Range<usize>,
) -> impl Iterator<Item = f32> {
    let width = chunk.columns.len();
    let [zoo, generated] = [zoo, generated].map(|rows| {
        let rows = &chunk.centred[rows.start * width..rows.end * width];
        deviations(rows, width)
    });
    let pairs = zoo.into_iter().zip(generated);
    let varies = pairs.filter(|(zoo, _)| *zoo > 0.0);
    varies.map(|(zoo, generated)| (generated / zoo) as f32)
}

/// Standard deviations of columns.
pub fn deviations(rows: &[f64], width: usize) -> Vec<f64> {
    let count = (rows.len() / width) as f64;
    let mut mean = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    mean.iter_mut().for_each(|sum| *sum /= count);
    let mut squares = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        let centred = row.iter().zip(&mean).map(|(x, mean)| x - mean);
        squares
            .iter_mut()
            .zip(centred)
            .for_each(|(sum, x)| *sum += x * x);
    }
    squares
        .iter_mut()
        .for_each(|sum| *sum = (*sum / count).sqrt());
    squares
}
