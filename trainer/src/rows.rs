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

    /// The same of several networks, [rows, columns] row-major.
    fn read_rows(&self, rows: &[usize], from: usize, to: &mut [f32]) {
        let width = to.len() / rows.len().max(1);
        for (row, to) in rows.iter().zip(to.chunks_exact_mut(width.max(1))) {
            self.read(*row, from, to);
        }
    }

    /// The numbers of all networks.
    fn all(&self) -> Vec<usize> {
        (0..self.count()).collect()
    }

    /// All weights of network `row`.
    fn row(&self, row: usize) -> Vec<f32> {
        let mut weights = vec![0.0; self.size()];
        self.read(row, 0, &mut weights);
        weights
    }
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

/// Some rows of others.
pub struct Chosen<'a> {
    /// All of them.
    pub rows: &'a dyn Rows,
    /// Which.
    pub indices: &'a [usize],
}

impl Rows for Chosen<'_> {
    fn count(&self) -> usize {
        self.indices.len()
    }

    fn size(&self) -> usize {
        self.rows.size()
    }

    fn read(&self, row: usize, from: usize, to: &mut [f32]) {
        self.rows.read(self.indices[row], from, to);
    }

    fn read_rows(&self, rows: &[usize], from: usize, to: &mut [f32]) {
        let rows: Vec<usize> = rows.iter().map(|row| self.indices[*row]).collect();
        self.rows.read_rows(&rows, from, to);
    }
}

/// Rows of one size below each other; there is at least one part.
pub struct Stack<'a>(pub &'a [&'a dyn Rows]);

impl Rows for Stack<'_> {
    fn count(&self) -> usize {
        self.0.iter().map(|part| part.count()).sum()
    }

    fn size(&self) -> usize {
        self.0[0].size()
    }

    fn read(&self, row: usize, from: usize, to: &mut [f32]) {
        self.read_rows(&[row], from, to);
    }

    fn read_rows(&self, rows: &[usize], from: usize, to: &mut [f32]) {
        let width = to.len() / rows.len().max(1);
        let (mut rows, mut to) = (rows, to);
        while let Some(first) = rows.first() {
            let (part, own) = self.part(*first);
            let count = rows.iter().take_while(|row| own.contains(row)).count();
            let (these, others) = rows.split_at(count);
            let (here, rest) = std::mem::take(&mut to).split_at_mut(count * width);
            let these: Vec<usize> = these.iter().map(|row| row - own.start).collect();
            part.read_rows(&these, from, here);
            (rows, to) = (others, rest);
        }
    }
}

impl Stack<'_> {
    /// The part that a row is in, and the rows of that part.
    fn part(&self, row: usize) -> (&dyn Rows, Range<usize>) {
        let mut end = 0;
        for part in self.0 {
            let start = end;
            end += part.count();
            if row < end {
                return (*part, start..end);
            }
        }
        panic!("row {row} of {end}");
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
/// by side. Without rows to centre on, the mean is zero. Every part starts from `start` and folds its chunks in order, so that sums of the
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
    let all = [centre, others].concat();
    let (width, chunks) = (
        chunk_columns(all.len()),
        chunk_count(all.len(), rows.size()),
    );
    let lane = |lane: usize| {
        let mut sum = start();
        let mut buffer = Buffer::default();
        for chunk in chunks * lane / lanes..chunks * (lane + 1) / lanes {
            let columns = chunk * width..((chunk + 1) * width).min(rows.size());
            fold(&mut sum, buffer.fill(rows, &all, centre.len(), columns));
            done();
        }
        sum
    };
    (0..lanes).into_par_iter().map(lane).collect()
}

/// The parts of a sweep end to end, which are never held twice.
pub fn join<T>(parts: Vec<Vec<T>>) -> Vec<T> {
    let mut all = Vec::with_capacity(parts.iter().map(Vec::len).sum());
    parts.into_iter().for_each(|part| all.extend(part));
    all
}

/// One lane's chunk, reused.
#[derive(Default)]
struct Buffer {
    raw: Vec<f32>,
    mean: Vec<f64>,
    centred: Vec<f64>,
}

impl Buffer {
    /// These rows, less the mean of the first `centre`.
    fn fill(
        &mut self,
        rows: &dyn Rows,
        indices: &[usize],
        centre: usize,
        columns: Range<usize>,
    ) -> Chunk<'_> {
        let width = columns.len();
        self.raw.resize(indices.len() * width, 0.0);
        rows.read_rows(indices, columns.start, &mut self.raw);
        self.centred.clear();
        self.centred.extend(self.raw.iter().map(|w| f64::from(*w)));
        self.mean.clear();
        self.mean.resize(width, 0.0);
        if centre > 0 {
            self.centre(centre);
        }
        Chunk {
            columns,
            mean: &self.mean,
            centred: &self.centred,
        }
    }

    /// Subtracts the mean of the first `count` rows from all.
    fn centre(&mut self, count: usize) {
        let width = self.mean.len();
        // The mean is taken about the first row, so that it is exact, and every deviation from it
        // zero, where the rows are equal.
        let (first, rest) = self.centred.split_at(width);
        self.mean.copy_from_slice(first);
        for row in rest.chunks_exact(width).take(count - 1) {
            for ((mean, w), first) in self.mean.iter_mut().zip(row).zip(first) {
                *mean += (w - first) / count as f64;
            }
        }
        for row in self.centred.chunks_exact_mut(width) {
            row.iter_mut()
                .zip(&self.mean)
                .for_each(|(w, mean)| *w -= mean);
        }
    }
}
