//! Principal components of networks that have more weights than fit into memory.
//!
//! The dual method: a zoo of N networks of D weights, N far below D, has its components in the
//! eigenvectors of the Gram matrix X X^T [N, N]; X, the centred zoo, streams through twice. Where
//! even N is large and few components are wanted, the eigenvectors come from subspace iteration
//! with the same products instead (Halko, Martinsson and Tropp, "Finding structure with
//! randomness", SIAM Review 2011, arXiv 0909.4061, Algorithms 4.4 and 5.3). All sums are in f64.

use std::path::Path;

use faer::{Accum, Mat, MatMut, MatRef, Par, Side, linalg::matmul::matmul};

use crate::{
    components::{Components, Precision, Writer},
    error::{Error, Result, Status, invalid},
    gram::{gram, lanes},
    random::Random,
    rows::{Chunk, Rows, join, sweep},
};

/// How many components to keep.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub enum Wanted {
    /// All that there are.
    All,
    /// This many.
    Count(usize),
    /// The fewest that hold this fraction of the variance, above 0 and up to 1.
    Variance(f64),
}

/// Which rows make up the components, and which are only expressed in them.
#[derive(Clone, Copy, Debug)]
pub struct Split<'a> {
    /// At least two.
    pub training: &'a [usize],
    /// Any number.
    pub held_out: &'a [usize],
}

/// Components and what the rows are in them.
#[derive(Debug)]
pub struct Pca {
    /// Mean of the training rows.
    pub mean: Vec<f32>,
    /// Orthonormal rows up to rounding.
    pub components: Components,
    /// Standard deviation of the training rows along each.
    pub scale: Vec<f32>,
    /// Whitened coordinates of the training rows, [training, latent].
    pub training: Vec<f32>,
    /// Those of the held-out rows, [held out, latent].
    pub held_out: Vec<f32>,
    /// Fraction of the training rows' total variance that the components hold.
    pub explained: f64,
    /// What storing the components rounded adds: root mean square over the training rows'
    /// weights, relative to their standard deviation.
    pub rounding: f64,
}

/// More networks than this, and the Gram matrix is avoided where few components are wanted.
const MANY: usize = 2000;
/// Subspace iteration: its passes over the networks, its extra directions, and how many it
/// starts with when a variance is asked for.
const PASSES: usize = 5;
const OVERSAMPLING: usize = 16;
const FIRST_GUESS: usize = 256;
/// Directions with less of the largest variance than this are rounding.
const RANK_TOLERANCE: f64 = 1e-10;
const RANDOM_STREAM: u64 = 4;

/// Finds the components of `rows`; the larger files go to `folder`. `done` is called a chunk of
/// columns, an unknown number of times.
///
/// Errors: IO; INVALID_ARGUMENT for more components than there are, or none.
pub fn fit(
    rows: &dyn Rows,
    split: Split<'_>,
    wanted: Wanted,
    precision: Precision,
    folder: &Path,
    done: &(dyn Fn() + Sync),
) -> Result<Pca> {
    let spectrum = spectrum(rows, split.training, wanted, done)?;
    let latent = spectrum.keep(wanted)?;
    project(rows, split, &spectrum, latent, precision, folder, done)
}

/// The leading eigenpairs of the Gram matrix, largest first.
struct Spectrum {
    /// Sums of squares along the components.
    values: Vec<f64>,
    /// [rows, values]
    vectors: Mat<f64>,
    /// Sum of all squares.
    total: f64,
    /// Whether no component is missing.
    complete: bool,
}

impl Spectrum {
    fn rank(&self) -> usize {
        let least = self.values.first().copied().unwrap_or(0.0) * RANK_TOLERANCE;
        self.values.iter().filter(|value| **value > least).count()
    }

    /// The fewest components that hold this fraction of the variance.
    fn holding(&self, fraction: f64) -> Option<usize> {
        let mut sum = 0.0;
        // Rounding must not ask for one more than there are.
        let needed = fraction * self.total * (1.0 - 1e-12);
        self.values.iter().position(|value| {
            sum += value;
            sum >= needed
        })
    }

    fn keep(&self, wanted: Wanted) -> Result<usize> {
        let rank = self.rank();
        match wanted {
            _ if rank == 0 => Err(invalid(
                "the zoo has no principal components: nothing varies",
            )),
            Wanted::Count(count) if !(1..=rank).contains(&count) => Err(invalid(format!(
                "--latent {count}: the zoo's training part of {} networks has {rank} principal \
                 components; give 1 to {rank}",
                self.vectors.nrows()
            ))),
            Wanted::All => Ok(rank),
            Wanted::Count(count) => Ok(count),
            Wanted::Variance(fraction) => Ok(self
                .holding(fraction)
                .map_or(rank, |last| (last + 1).min(rank))),
        }
    }
}

fn spectrum(
    rows: &dyn Rows,
    training: &[usize],
    wanted: Wanted,
    done: &(dyn Fn() + Sync),
) -> Result<Spectrum> {
    let count = training.len();
    let mut guess = match wanted {
        Wanted::Count(count) => count,
        Wanted::Variance(_) => FIRST_GUESS,
        Wanted::All => count,
    };
    while count > MANY && guess + OVERSAMPLING < count / 2 {
        let found = iterate(rows, training, guess, done)?;
        match wanted {
            Wanted::Variance(fraction) if found.holding(fraction).is_none() => guess *= 2,
            _ => return Ok(found),
        }
    }
    exact(rows, training, done)
}

/// From the whole Gram matrix.
fn exact(rows: &dyn Rows, training: &[usize], done: &(dyn Fn() + Sync)) -> Result<Spectrum> {
    let (values, vectors) = eigen(&gram(rows, training, &[], done))?;
    Ok(Spectrum {
        total: values.iter().sum(),
        values,
        vectors,
        complete: true,
    })
}

/// The `latent` leading eigenpairs by subspace iteration, where the Gram matrix is only ever
/// multiplied with.
fn iterate(
    rows: &dyn Rows,
    training: &[usize],
    latent: usize,
    done: &(dyn Fn() + Sync),
) -> Result<Spectrum> {
    let (count, width) = (training.len(), latent + OVERSAMPLING);
    let mut start = vec![0f32; count * width];
    Random::new(0, RANDOM_STREAM).fill_normal(&mut start);
    let mut q = Mat::from_fn(count, width, |i, j| f64::from(start[i * width + j]));
    let (mut values, mut total) = (Vec::new(), 0.0);
    for pass in 1..=PASSES {
        q = q.qr().compute_thin_Q();
        let add = |(product, total): &mut (Mat<f64>, f64), chunk: Chunk<'_>| {
            let x = matrix(chunk.centred, count);
            let coordinates = x.transpose() * &q;
            matmul(product.as_mut(), Accum::Add, x, &coordinates, 1.0, Par::Seq);
            *total += chunk.centred.iter().map(|x| x * x).sum::<f64>();
        };
        let zeros = || (Mat::zeros(count, width), 0.0);
        let (products, totals): (Vec<_>, Vec<_>) =
            sweep(rows, training, &[], lanes(count), zeros, add, done)
                .into_iter()
                .unzip();
        let product = sum(products);
        if pass < PASSES {
            q = product;
            continue;
        }
        total = totals.iter().sum();
        let (found, rotation) = eigen(&(q.transpose() * &product))?;
        values = found;
        q = &q * rotation;
    }
    values.truncate(latent);
    Ok(Spectrum {
        values,
        vectors: q.subcols(0, latent).to_owned(),
        total,
        complete: false,
    })
}

/// The second pass: components and coordinates from the eigenvectors.
fn project(
    rows: &dyn Rows,
    split: Split<'_>,
    spectrum: &Spectrum,
    latent: usize,
    precision: Precision,
    folder: &Path,
    done: &(dyn Fn() + Sync),
) -> Result<Pca> {
    let (count, held_out) = (split.training.len(), split.held_out.len());
    let writer = Writer::new(folder, latent, rows.size(), precision)?;
    let deviations: Vec<f64> = spectrum.values[..latent].iter().map(|v| v.sqrt()).collect();
    let weights = Mat::from_fn(latent, count, |k, i| {
        spectrum.vectors[(i, k)] / deviations[k]
    });
    let start = || Lane {
        mean: Vec::new(),
        held_out: Mat::zeros(held_out, latent),
        rounding: vec![0.0; latent],
        written: Ok(()),
    };
    let add = |lane: &mut Lane, chunk: Chunk<'_>| {
        let width = chunk.columns.len();
        let (training, others) = chunk.centred.split_at(count * width);
        let mut components = vec![0f64; latent * width];
        matmul(
            MatMut::from_row_major_slice_mut(&mut components, latent, width),
            Accum::Replace,
            &weights,
            matrix(training, count),
            1.0,
            Par::Seq,
        );
        if held_out > 0 {
            let transposed = MatRef::from_row_major_slice(&components, latent, width).transpose();
            let others = matrix(others, held_out);
            matmul(
                lane.held_out.as_mut(),
                Accum::Add,
                others,
                transposed,
                1.0,
                Par::Seq,
            );
        }
        lane.mean.extend(chunk.mean.iter().map(|mean| *mean as f32));
        for (k, row) in components.chunks_exact(width).enumerate() {
            match writer.write(k, chunk.columns.start, row) {
                Ok(added) => lane.rounding[k] += added,
                Err(e) => lane.written = Err(e),
            }
        }
    };
    let lanes = sweep(
        rows,
        split.training,
        split.held_out,
        lanes(count),
        start,
        add,
        done,
    );
    let mut whole = start();
    let mut means = Vec::new();
    for lane in lanes {
        lane.written?;
        means.push(lane.mean);
        whole.held_out += lane.held_out;
        whole
            .rounding
            .iter_mut()
            .zip(lane.rounding)
            .for_each(|(sum, r)| *sum += r);
    }
    // Whitened training coordinates are sqrt(count) times the eigenvectors: orthogonal, so that
    // the components' rounding errors add up without cross terms.
    let added: f64 = whole
        .rounding
        .iter()
        .zip(&spectrum.values)
        .map(|(r, v)| r * v)
        .sum();
    let root = (count as f64).sqrt();
    Ok(Pca {
        mean: join(means),
        components: writer.finish()?,
        scale: deviations.iter().map(|d| (d / root) as f32).collect(),
        training: row_major(count, latent, |i, k| spectrum.vectors[(i, k)] * root),
        held_out: row_major(held_out, latent, |i, k| {
            whole.held_out[(i, k)] / deviations[k] * root
        }),
        explained: explained(spectrum, latent),
        rounding: (added / spectrum.total).sqrt(),
    })
}

/// What one lane of [`project`] adds up.
struct Lane {
    mean: Vec<f32>,
    held_out: Mat<f64>,
    rounding: Vec<f64>,
    written: Result<()>,
}

fn explained(spectrum: &Spectrum, latent: usize) -> f64 {
    if spectrum.complete && latent == spectrum.rank() {
        return 1.0;
    }
    spectrum.values[..latent].iter().sum::<f64>() / spectrum.total
}

fn matrix(values: &[f64], rows: usize) -> MatRef<'_, f64> {
    MatRef::from_row_major_slice(values, rows, values.len() / rows)
}

fn sum(parts: Vec<Mat<f64>>) -> Mat<f64> {
    let mut parts = parts.into_iter();
    let first = parts.next().expect("there are lanes");
    parts.fold(first, |sum, part| sum + part)
}

/// Eigenvalues, largest first, and their vectors; the lower half of `matrix` is read.
fn eigen(matrix: &Mat<f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    let eigen = matrix.self_adjoint_eigen(Side::Lower).map_err(|e| {
        Error::new(
            Status::Internal,
            format!("the zoo's principal components were not found ({e:?})"),
        )
    })?;
    // faer sorts eigenvalues upwards.
    let count = matrix.nrows();
    let values = eigen.S().column_vector().iter().rev().map(|v| v.max(0.0));
    let vectors = Mat::from_fn(count, count, |i, k| eigen.U()[(i, count - 1 - k)]);
    Ok((values.collect(), vectors))
}

fn row_major(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f64) -> Vec<f32> {
    (0..rows * columns)
        .map(|i| value(i / columns, i % columns) as f32)
        .collect()
}
