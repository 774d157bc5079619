//! Gram matrices: the inner products of networks, summed over their weights chunk by chunk in f64.

use faer::{
    Accum, Mat, MatRef, Par,
    linalg::matmul::{triangular, triangular::BlockStructure},
};

use crate::rows::{Rows, sweep};

/// More rows than this, and few sums go side by side: they are large.
const MANY: usize = 2000;
const LANES: usize = 16;
const LANES_OF_MANY: usize = 4;

/// Sums side by side for this many rows.
pub fn lanes(rows: usize) -> usize {
    if rows > MANY { LANES_OF_MANY } else { LANES }
}

/// The inner products of the rows `centre` and then `others`, about the mean of `centre`, or about
/// zero without any. `done` is called a chunk.
pub fn gram(
    rows: &dyn Rows,
    centre: &[usize],
    others: &[usize],
    done: impl Fn() + Sync,
) -> Mat<f64> {
    let count = centre.len() + others.len();
    let zeros = || Mat::zeros(count, count);
    let parts = sweep(
        rows,
        centre,
        others,
        lanes(count),
        zeros,
        |sum, chunk| add(sum, chunk.centred),
        done,
    );
    total(parts)
}

/// Adds the inner products of the rows of a chunk to the lower half of `sum`.
pub fn add(sum: &mut Mat<f64>, chunk: &[f64]) {
    let x = MatRef::from_row_major_slice(chunk, sum.nrows(), chunk.len() / sum.nrows());
    triangular::matmul(
        sum.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Add,
        x,
        BlockStructure::Rectangular,
        x.transpose(),
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
}

/// Both halves of the sum of such parts.
pub fn total(parts: Vec<Mat<f64>>) -> Mat<f64> {
    let mut parts = parts.into_iter();
    let first = parts.next().expect("there are lanes");
    let lower = parts.fold(first, |sum, part| sum + part);
    Mat::from_fn(lower.nrows(), lower.ncols(), |i, j| {
        lower[(i.max(j), i.min(j))]
    })
}
