//! Matching where units may be turned and not only permuted: the orthogonal Procrustes problem.
//!
//! The rotation R that brings rows B nearest to rows A is U V^T, where A B^T = U S V^T (Schönemann,
//! Psychometrika 1966), and what it gains is the sum of S. Streams, heads and the families that can
//! only be permuted are matched in turns until they settle: a pair of heads gains what its best
//! rotations gain. Streams come first, by the weights that nothing else moves.

use faer::{Mat, MatRef};

use crate::{
    assignment,
    matching::Matcher,
    mlp::inner,
    rotation::{Heads, Rotations, Stream},
    slot::add_products,
};

/// Rounds of matching everything in turns, which settle earlier.
const MOST_ROUNDS: usize = 30;
/// Rounds in which heads may change places; then they only turn.
const ORDER_ROUNDS: usize = 4;
/// A round that brings a network nearer by less than this part of its squared norm is the last.
const SETTLED: f64 = 1e-4;

/// A canonical network that others are brought to.
pub struct Procrustes<'a> {
    rotations: &'a Rotations<'a>,
    matcher: Matcher<'a>,
    reference: &'a [f32],
    /// The reference's units as rows, for each slot.
    rows: Vec<Vec<f32>>,
}

impl<'a> Procrustes<'a> {
    /// Prepares a reference.
    pub fn new(rotations: &'a Rotations<'a>, reference: &'a [f32]) -> Self {
        let places = &rotations.places;
        let slots = 0..places.slots.len();
        Self {
            matcher: Matcher::new(places.layout(), &rotations.rest, reference),
            rows: slots.map(|slot| places.rows(slot, reference)).collect(),
            rotations,
            reference,
        }
    }

    /// The form of a canonical network that is nearest to the reference, up to a local optimum.
    pub fn bring(&self, network: &[f32]) -> Vec<f32> {
        let Rotations {
            places,
            streams,
            heads,
            rest,
        } = self.rotations;
        let mut weights = network.to_vec();
        for stream in streams {
            self.turn_stream(stream, &stream.anchored, &mut weights);
        }
        // After a round of matching, a network begins nearer to the next reference as it is.
        if inner(self.reference, network) > inner(self.reference, &weights) {
            weights.copy_from_slice(network);
        }
        let enough = SETTLED * inner(network, network);
        let mut last = f64::NEG_INFINITY;
        for round in 0..MOST_ROUNDS {
            for heads in heads {
                self.turn_heads(heads, round < ORDER_ROUNDS, &mut weights);
            }
            let permutation = self.matcher.match_network(&weights);
            let before = weights.clone();
            rest.permute(places.layout(), &before, &permutation, &mut weights);
            for stream in streams {
                self.turn_stream(stream, &stream.slots, &mut weights);
            }
            let similarity = inner(self.reference, &weights);
            if 2.0 * (similarity - last) < enough {
                break;
            }
            last = similarity;
        }
        weights
    }

    /// Turns a stream as these of its slots like best, if there are any.
    fn turn_stream(&self, stream: &Stream, slots: &[usize], weights: &mut [f32]) {
        if slots.is_empty() {
            return;
        }
        let products = with_mean_kept(self.products(slots, weights));
        let rotation = rotation(products.as_ref());
        let places = &self.rotations.places;
        places.turn(&stream.slots, &[0], &[rotation], weights);
    }

    /// Turns what is inside heads, and with `order` gives them other places.
    fn turn_heads(&self, heads: &Heads, order: bool, weights: &mut [f32]) {
        let places = &self.rotations.places;
        let count = places.count(heads.family);
        let inside = heads.inside.iter();
        let products: Vec<Mat<f64>> = inside
            .map(|inside| self.products(&inside.slots, weights))
            .collect();
        let sources = match order {
            true => self.order(heads, &products, weights),
            false => (0..count).collect(),
        };
        let ones = vec![Mat::identity(1, 1); count];
        places.turn(&heads.slots, &sources, &ones, weights);
        for (inside, products) in heads.inside.iter().zip(&products) {
            let pairs = sources.iter().enumerate();
            let rotations: Vec<_> = pairs
                .map(|(row, column)| rotation(block(products, count, row, *column)))
                .collect();
            places.turn(&inside.slots, &sources, &rotations, weights);
        }
    }

    /// For every head of the reference the one that is nearest once turned, all together.
    fn order(&self, heads: &Heads, products: &[Mat<f64>], weights: &[f32]) -> Vec<usize> {
        let count = self.rotations.places.count(heads.family);
        let own = match heads.slots[..] {
            [] => Mat::zeros(count, count),
            _ => self.products(&heads.slots, weights),
        };
        let cost = |row: usize, column: usize| {
            let inside = products.iter();
            let inside = inside.map(|products| gain(block(products, count, row, column)));
            -(own[(row, column)] + inside.sum::<f64>()) as f32
        };
        let pairs = (0..count).flat_map(|row| (0..count).map(move |column| (row, column)));
        let costs: Vec<f32> = pairs.map(|(row, column)| cost(row, column)).collect();
        assignment::solve(&costs, count)
    }

    /// Inner products of the reference's units in these slots (row) with a network's (column).
    fn products(&self, slots: &[usize], weights: &[f32]) -> Mat<f64> {
        let places = &self.rotations.places;
        let count = slots
            .first()
            .map_or(0, |slot| places.slots[*slot].places.len());
        let mut products = vec![0f32; count * count];
        for slot in slots {
            let rows = places.rows(*slot, weights);
            add_products(&mut products, &self.rows[*slot], &rows);
        }
        Mat::from_fn(count, count, |i, j| f64::from(products[i * count + j]))
    }
}

/// What one of `count` heads, a row of blocks, has to do with another, a column.
fn block(products: &Mat<f64>, count: usize, row: usize, column: usize) -> MatRef<'_, f64> {
    let share = products.nrows() / count;
    products.submatrix(row * share, column * share, share, share)
}

/// The rotation (or reflection) with the largest inner product with a matrix; the identity where
/// the matrix is no number.
pub(crate) fn rotation(matrix: MatRef<'_, f64>) -> Mat<f32> {
    let size = matrix.nrows();
    match matrix.svd() {
        Ok(svd) => {
            let rotation = svd.U() * svd.V().transpose();
            Mat::from_fn(size, size, |i, j| rotation[(i, j)] as f32)
        }
        Err(_) => Mat::identity(size, size),
    }
}

/// That inner product; 0 where the matrix is no number.
fn gain(matrix: MatRef<'_, f64>) -> f64 {
    let values = matrix.singular_values().unwrap_or_default();
    values.iter().sum()
}

/// A matrix of which the nearest rotation keeps the vector 1, as it does what is orthogonal to it:
/// the matrix's products with 1 replaced.
pub(crate) fn with_mean_kept(matrix: Mat<f64>) -> Mat<f64> {
    let size = matrix.nrows();
    let count = size as f64;
    let mean = |sum: f64| sum / count;
    let of_row: Vec<f64> = (0..size)
        .map(|i| mean((0..size).map(|j| matrix[(i, j)]).sum()))
        .collect();
    let of_column: Vec<f64> = (0..size)
        .map(|j| mean((0..size).map(|i| matrix[(i, j)]).sum()))
        .collect();
    let all = mean(of_row.iter().sum());
    let centred = Mat::from_fn(size, size, |i, j| {
        matrix[(i, j)] - of_row[i] - of_column[j] + all
    });
    let norm = centred.norm_l2();
    Mat::from_fn(size, size, |i, j| centred[(i, j)] + norm / count)
}
