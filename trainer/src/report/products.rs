//! Inner products of networks, from which all their distances follow.

use std::ops::Range;

use faer::Mat;

use crate::{
    gram::{self, gram},
    rows::{Chunk, Rows, join, sweep},
};

use super::spread;

/// Inner products of all pairs of some networks, about the mean of a part of them.
pub struct Products(Mat<f64>);

impl Products {
    /// Of these rows, about the mean of the rows `centre`, which come first.
    pub fn new(rows: &dyn Rows, centre: Range<usize>) -> Self {
        let (centre, others) = split(rows, &centre);
        Self(gram(rows, &centre, &others, || ()))
    }

    /// The same, and for every weight that varies among the networks `centre` the ratio of the
    /// standard deviation that the networks `generated` have to theirs. `done` is called a chunk.
    pub fn with_ratios(
        rows: &dyn Rows,
        centre: Range<usize>,
        generated: Range<usize>,
        done: impl Fn() + Sync,
    ) -> (Self, Vec<f32>) {
        let count = rows.count();
        let start = || (Mat::zeros(count, count), Vec::new());
        let add = |(sum, ratios): &mut (Mat<f64>, Vec<f32>), chunk: Chunk<'_>| {
            gram::add(sum, chunk.centred);
            ratios.extend(spread::ratios(&chunk, centre.clone(), generated.clone()));
        };
        let (first, others) = split(rows, &centre);
        let parts = sweep(rows, &first, &others, gram::lanes(count), start, add, done);
        let (sums, ratios): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        (Self(gram::total(sums)), join(ratios))
    }

    /// Of networks `i` and `j`.
    pub fn of(&self, i: usize, j: usize) -> f64 {
        self.0[(i, j)]
    }

    /// Euclidean.
    pub fn distance(&self, i: usize, j: usize) -> f64 {
        // Rounding may make a zero negative.
        (self.of(i, i) + self.of(j, j) - 2.0 * self.of(i, j))
            .max(0.0)
            .sqrt()
    }
}

/// The rows to centre on, and the others.
fn split(rows: &dyn Rows, centre: &Range<usize>) -> (Vec<usize>, Vec<usize>) {
    debug_assert_eq!(centre.start, 0);
    (
        centre.clone().collect(),
        (centre.end..rows.count()).collect(),
    )
}
