//! Matrix products of a few rows with a large matrix, all row-major.
//!
//! With few rows such a product is bound by the memory that the matrix comes from: it is read once,
//! in panels whose rows stay in the first-level cache. With many it is bound by arithmetic, and the
//! `gemm` crate packs and multiplies. Sums do not depend on the number of threads.

use gemm::Parallelism;
use pulp::Arch;
use rayon::prelude::*;

/// Rows up to which a product streams.
const FEW: usize = 16;
/// Columns of a panel: sixteen rows of it are 64 KB.
const PANEL: usize = 1024;
/// Elements of the large matrix that a task takes, so that a task is worth waking a thread for.
const TASK: usize = 1 << 18;
const LANES: usize = 32;
/// Multiplications up to which a product is one thread's: threads that meet cost tens of
/// microseconds.
const SMALL: usize = 1 << 25;

/// Sizes of y [rows, outputs] = x [rows, inputs] w [inputs, outputs].
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Size {
    /// Rows of w that a task takes.
    fn share(self) -> usize {
        (TASK / self.outputs).clamp(1, self.inputs)
    }

    /// y += x w.
    pub(super) fn forward(self, x: &[f32], w: &[f32], y: &mut [f32]) {
        let Self {
            rows,
            inputs,
            outputs,
        } = self;
        if rows > FEW {
            let (x, w) = (Matrix::new(x, inputs), Matrix::new(w, outputs));
            return multiply([rows, outputs, inputs], x, w, y, true);
        }
        let share = self.share();
        let part = |(task, w): (usize, &[f32])| {
            let mut sums = vec![0f32; rows * outputs];
            let first = task * share;
            Arch::new().dispatch(|| stream(x, inputs, first, w, outputs, &mut sums));
            sums
        };
        let parts: Vec<Vec<f32>> = w
            .par_chunks(share * outputs)
            .enumerate()
            .map(part)
            .collect();
        for part in parts {
            y.iter_mut().zip(part).for_each(|(y, part)| *y += part);
        }
    }

    /// x_gradient += y_gradient w^T.
    pub(super) fn backward(self, dy: &[f32], w: &[f32], dx: &mut [f32]) {
        let Self {
            rows,
            inputs,
            outputs,
        } = self;
        if rows > FEW {
            let (dy, w) = (Matrix::new(dy, outputs), Matrix::new(w, outputs));
            return multiply([rows, inputs, outputs], dy, w.transposed(), dx, true);
        }
        let share = self.share();
        let part = |w: &[f32]| {
            let mut sums = vec![0f32; rows * (w.len() / outputs)];
            Arch::new().dispatch(|| dots(dy, w, outputs, &mut sums));
            sums
        };
        let parts: Vec<Vec<f32>> = w.par_chunks(share * outputs).map(part).collect();
        for (task, part) in parts.iter().enumerate() {
            let width = part.len() / rows;
            for (dx, part) in dx.chunks_exact_mut(inputs).zip(part.chunks_exact(width)) {
                let dx = &mut dx[task * share..][..width];
                dx.iter_mut().zip(part).for_each(|(dx, part)| *dx += part);
            }
        }
    }

    /// w_gradient = x^T y_gradient.
    pub(super) fn weights(self, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let Self {
            rows,
            inputs,
            outputs,
        } = self;
        if rows > FEW {
            let (x, dy) = (Matrix::new(x, inputs), Matrix::new(dy, outputs));
            return multiply([inputs, outputs, rows], x.transposed(), dy, dw, false);
        }
        let share = self.share();
        dw.par_chunks_mut(share * outputs)
            .enumerate()
            .for_each(|(task, dw)| {
                let first = task * share;
                Arch::new().dispatch(|| outer(x, inputs, first, dy, outputs, dw));
            });
    }
}

/// A matrix as `gemm` takes it.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    values: &'a [f32],
    row: isize,
    column: isize,
}

impl<'a> Matrix<'a> {
    fn new(values: &'a [f32], columns: usize) -> Self {
        Self {
            values,
            row: columns as isize,
            column: 1,
        }
    }

    fn transposed(self) -> Self {
        Self {
            row: self.column,
            column: self.row,
            ..self
        }
    }
}

/// `to` [m, n] = a [m, k] b [k, n], or that added to what is there.
fn multiply([m, n, k]: [usize; 3], a: Matrix, b: Matrix, to: &mut [f32], add: bool) {
    assert_eq!(
        [a.values.len(), b.values.len(), to.len()],
        [m * k, k * n, m * n]
    );
    // SAFETY: the strides are those of whole row-major matrices, or of their transposes, whose
    // lengths were checked.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.values.as_ptr(),
            a.column,
            a.row,
            b.values.as_ptr(),
            b.column,
            b.row,
            f32::from(u8::from(add)),
            1.0,
            false,
            false,
            false,
            if m * n * k < SMALL {
                Parallelism::None
            } else {
                Parallelism::Rayon(0)
            },
        );
    }
}

/// sums [rows, outputs] += x w for the rows of w from `first` on, four at a time.
#[inline(always)]
fn stream(x: &[f32], inputs: usize, first: usize, w: &[f32], outputs: usize, sums: &mut [f32]) {
    for start in (0..outputs).step_by(PANEL) {
        let width = PANEL.min(outputs - start);
        for (group, w) in w.chunks(4 * outputs).enumerate() {
            let k = first + 4 * group;
            let count = w.len() / outputs;
            for (x, sums) in x.chunks_exact(inputs).zip(sums.chunks_exact_mut(outputs)) {
                // Behind the last row the factors are zero, and any row will do.
                let factor = |j: usize| if j < count { x[k + j] } else { 0.0 };
                let row = |j: usize| &w[j.min(count - 1) * outputs + start..][..width];
                let [a, b, c, d] = [0, 1, 2, 3].map(factor);
                let rows = row(0).iter().zip(row(1)).zip(row(2)).zip(row(3));
                for (sum, (((p, q), r), s)) in sums[start..start + width].iter_mut().zip(rows) {
                    *sum += (a * p + b * q) + (c * r + d * s);
                }
            }
        }
    }
}

/// sums [rows, rows of w] += dy w^T.
#[inline(always)]
fn dots(dy: &[f32], w: &[f32], outputs: usize, sums: &mut [f32]) {
    let count = w.len() / outputs;
    for start in (0..outputs).step_by(PANEL) {
        let width = PANEL.min(outputs - start);
        for (k, w) in w.chunks_exact(outputs).enumerate() {
            let w = &w[start..start + width];
            for (dy, sums) in dy.chunks_exact(outputs).zip(sums.chunks_exact_mut(count)) {
                sums[k] += dot(&dy[start..start + width], w);
            }
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// dw = x^T dy for the rows of dw from `first` on.
#[inline(always)]
fn outer(x: &[f32], inputs: usize, first: usize, dy: &[f32], outputs: usize, dw: &mut [f32]) {
    for start in (0..outputs).step_by(PANEL) {
        let width = PANEL.min(outputs - start);
        for (k, dw) in dw.chunks_exact_mut(outputs).enumerate() {
            let dw = &mut dw[start..start + width];
            dw.fill(0.0);
            for (x, dy) in x.chunks(4 * inputs).zip(dy.chunks(4 * outputs)) {
                let count = x.len() / inputs;
                let factor = |j: usize| {
                    if j < count {
                        x[j * inputs + first + k]
                    } else {
                        0.0
                    }
                };
                let row = |j: usize| &dy[j.min(count - 1) * outputs + start..][..width];
                let [a, b, c, d] = [0, 1, 2, 3].map(factor);
                let rows = row(0).iter().zip(row(1)).zip(row(2)).zip(row(3));
                for (dw, (((p, q), r), s)) in dw.iter_mut().zip(rows) {
                    *dw += (a * p + b * q) + (c * r + d * s);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Rows that stream and rows that do not, sizes that no panel, lane or task divides.
    #[test]
    fn products_are_those_of_the_definition() {
        for (rows, inputs, outputs) in [(1, 3, 5), (7, 130, 1100), (16, 40, 33), (17, 9, 50)] {
            let size = Size {
                rows,
                inputs,
                outputs,
            };
            let mut random = Random::new(1, rows as u64);
            let [x, w, dy] = [rows * inputs, inputs * outputs, rows * outputs]
                .map(|count| random.normal(count, 1.0));
            let at = |m: &[f32], columns: usize, i: usize, j: usize| f64::from(m[i * columns + j]);
            let check = |found: &[f32],
                         columns: usize,
                         terms: usize,
                         term: &dyn Fn(usize, usize, usize) -> f64| {
                for (i, found) in found.iter().enumerate() {
                    let (i, j) = (i / columns, i % columns);
                    let exact: f64 = (0..terms).map(|k| term(i, j, k)).sum();
                    // f32 rounding of sums of some normal products.
                    let error = (f64::from(*found) - 1.0 - exact).abs();
                    assert!(
                        error < 1e-5 * (terms as f64).max(10.0),
                        "{rows} {i} {j}: {error}"
                    );
                }
            };
            let mut y = vec![1.0; rows * outputs];
            size.forward(&x, &w, &mut y);
            check(&y, outputs, inputs, &|i, j, k| {
                at(&x, inputs, i, k) * at(&w, outputs, k, j)
            });
            let mut dx = vec![1.0; rows * inputs];
            size.backward(&dy, &w, &mut dx);
            check(&dx, inputs, outputs, &|i, j, k| {
                at(&dy, outputs, i, k) * at(&w, outputs, j, k)
            });
            let mut dw = vec![f32::NAN; inputs * outputs];
            size.weights(&x, &dy, &mut dw);
            dw.iter_mut().for_each(|dw| *dw += 1.0);
            check(&dw, outputs, rows, &|i, j, k| {
                at(&x, inputs, k, i) * at(&dy, outputs, k, j)
            });
        }
    }
}
