//! Flat weight vectors as the rows of a matrix that need not fit into memory.

use std::ops::Range;

use rayon::prelude::*;

/// Networks of one size, readable piece by piece.
pub trait Rows: Sync {
    /// Number of networks.
    fn count(&self) -> usize;

    /// Weights of one.
    fn size(&self) -> usize;

    /// Copies the weights from `from` on of network `row`, as many as `to` takes.
    fn read(&self, row: usize, from: usize, to: &mut [f32]);
}

/// Rows in memory, or mapped: [count, size] row-major.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    size: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `size` weights each.
    pub fn new(values: &'a [f32], size: usize) -> Self {
        Self { values, size }
    }
}

impl Rows for Matrix<'_> {
    fn count(&self) -> usize {
        self.values.len() / self.size
    }

    fn size(&self) -> usize {
        self.size
    }

    fn read(&self, row: usize, from: usize, to: &mut [f32]) {
        to.copy_from_slice(&self.values[row * self.size + from..][..to.len()]);
    }
}

/// The same columns of some rows, less the mean of those that `sweep` centres on.
pub struct Chunk<'a> {
    /// Where in the flat vectors it lies.
    pub columns: Range<usize>,
    /// [columns]
    pub mean: &'a [f64],
    /// [rows, columns] row-major: first the rows that make up the mean, then the others.
    pub centred: &'a [f64],
}

/// Elements of a chunk: 8 MB, so that a chunk a thread stays in the cache's reach.
const CHUNK_ELEMENTS: usize = 1 << 20;
/// Columns of a chunk: enough to read from a disk in one go.
const CHUNK_COLUMNS: Range<usize> = 1 << 10..1 << 16;

/// Columns that a chunk of `rows` rows has.
fn chunk_columns(rows: usize) -> usize {
    (CHUNK_ELEMENTS / rows).clamp(CHUNK_COLUMNS.start, CHUNK_COLUMNS.end)
}

/// Chunks that a sweep over `rows` rows of `size` weights has.
pub fn chunk_count(rows: usize, size: usize) -> usize {
    size.div_ceil(chunk_columns(rows))
}

/// Goes once over all columns of the rows `centre` and `others`, in `lanes` contiguous parts side
/// by side. Every part starts from `start` and folds its chunks in order, so that sums of the
/// results in order are the same bits with any number of threads. `done` is called a chunk.
pub fn sweep<T: Send>(
    rows: &dyn Rows,
    centre: &[usize],
    others: &[usize],
    lanes: usize,
    start: impl Fn() -> T + Sync,
    fold: impl Fn(&mut T, Chunk<'_>) + Sync,
    done: impl Fn() + Sync,
) -> Vec<T> {
    let count = centre.len() + others.len();
    let (width, chunks) = (chunk_columns(count), chunk_count(count, rows.size()));
    let lane = |lane: usize| {
        let mut sum = start();
        let mut buffer = Buffer::default();
        for chunk in chunks * lane / lanes..chunks * (lane + 1) / lanes {
            let columns = chunk * width..((chunk + 1) * width).min(rows.size());
            fold(&mut sum, buffer.fill(rows, centre, others, columns));
            done();
        }
        sum
    };
    (0..lanes).into_par_iter().map(lane).collect()
}

/// One lane's chunk, reused.
#[derive(Default)]
struct Buffer {
    raw: Vec<f32>,
    mean: Vec<f64>,
    centred: Vec<f64>,
}

impl Buffer {
    fn fill(
        &mut self,
        rows: &dyn Rows,
        centre: &[usize],
        others: &[usize],
        columns: Range<usize>,
    ) -> Chunk<'_> {
        let width = columns.len();
        self.raw.resize(width, 0.0);
        self.mean.resize(width, 0.0);
        self.centred.clear();
        for row in centre.iter().chain(others) {
            rows.read(*row, columns.start, &mut self.raw);
            self.centred.extend(self.raw.iter().map(|w| f64::from(*w)));
        }
        // The mean is taken about the first row, so that it is exact, and every deviation from it
        // zero, where the rows are equal.
        let (first, rest) = self.centred.split_at(width);
        self.mean.copy_from_slice(first);
        for row in rest.chunks_exact(width).take(centre.len() - 1) {
            for ((mean, w), first) in self.mean.iter_mut().zip(row).zip(first) {
                *mean += (w - first) / centre.len() as f64;
            }
        }
        for row in self.centred.chunks_exact_mut(width) {
            row.iter_mut()
                .zip(&self.mean)
                .for_each(|(w, mean)| *w -= mean);
        }
        Chunk {
            columns,
            mean: &self.mean,
            centred: &self.centred,
        }
    }
}
