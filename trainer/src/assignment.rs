//! The linear assignment problem, solved exactly.

/// The permutation with the least total cost: row i takes column `result[i]`.
///
/// `costs` is [n, n] row-major and finite. Shortest augmenting paths after R. Jonker and
/// A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
/// problems", Computing 38 (1987): O(n^3), with the dual variables in f64, so that rounding does
/// not build up along a path.
///
/// Panics unless `costs` has n * n elements, all finite: no path is shortest among NaNs, and the
/// search for one would not end.
pub fn solve(costs: &[f32], n: usize) -> Vec<usize> {
    assert_eq!(costs.len(), n * n, "the cost matrix is not square");
    assert!(
        costs.iter().all(|cost| cost.is_finite()),
        "the costs are not finite"
    );
    let mut search = Search::new(costs, n);
    for row in 0..n {
        search.assign(row);
    }
    search.columns
}

const FREE: usize = usize::MAX;

struct Search<'a> {
    costs: &'a [f32],
    n: usize,
    row_duals: Vec<f64>,
    column_duals: Vec<f64>,
    /// Row to column, or `FREE`.
    columns: Vec<usize>,
    /// Column to row, or `FREE`.
    rows: Vec<usize>,
    /// Length of the shortest known path to each column.
    distances: Vec<f64>,
    /// The row before each column on that path.
    parents: Vec<usize>,
    /// The columns: first those with a final distance, in the order they got it.
    order: Vec<usize>,
}

impl<'a> Search<'a> {
    fn new(costs: &'a [f32], n: usize) -> Self {
        Self {
            costs,
            n,
            row_duals: vec![0.0; n],
            column_duals: vec![0.0; n],
            columns: vec![FREE; n],
            rows: vec![FREE; n],
            distances: vec![0.0; n],
            parents: vec![0; n],
            order: (0..n).collect(),
        }
    }

    /// Assigns one more row along the shortest path to a free column.
    fn assign(&mut self, start: usize) {
        self.distances.fill(f64::INFINITY);
        let (mut row, mut reached, mut distance) = (start, 0, 0.0);
        let sink = loop {
            self.relax(row, distance, reached);
            let column = self.settle_nearest(reached);
            reached += 1;
            distance = self.distances[column];
            if self.rows[column] == FREE {
                break column;
            }
            row = self.rows[column];
        };
        self.update_duals(start, reached, distance);
        self.augment(start, sink);
    }

    /// Shortens the paths to the columns that are not settled, through `row` at `distance`.
    fn relax(&mut self, row: usize, distance: f64, settled: usize) {
        let costs = &self.costs[row * self.n..][..self.n];
        let base = distance - self.row_duals[row];
        for column in self.order[settled..].iter().copied() {
            let length = base + f64::from(costs[column]) - self.column_duals[column];
            if length < self.distances[column] {
                self.distances[column] = length;
                self.parents[column] = row;
            }
        }
    }

    /// Moves the nearest open column to place `settled` of the order.
    fn settle_nearest(&mut self, settled: usize) -> usize {
        let mut best = settled;
        for i in settled + 1..self.n {
            if self.distances[self.order[i]] < self.distances[self.order[best]] {
                best = i;
            }
        }
        self.order.swap(settled, best);
        self.order[settled]
    }

    /// Keeps reduced costs non-negative, and zero along the path.
    fn update_duals(&mut self, start: usize, reached: usize, distance: f64) {
        self.row_duals[start] += distance;
        // The last settled column is the free sink; its dual does not change.
        for column in self.order[..reached - 1].iter().copied() {
            let slack = distance - self.distances[column];
            self.column_duals[column] -= slack;
            self.row_duals[self.rows[column]] += slack;
        }
    }

    /// Flips the assignments along the path from `start` to `sink`.
    fn augment(&mut self, start: usize, sink: usize) {
        let mut column = sink;
        loop {
            let row = self.parents[column];
            self.rows[column] = row;
            std::mem::swap(&mut self.columns[row], &mut column);
            if row == start {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn total(costs: &[f32], n: usize, columns: &[usize]) -> f64 {
        columns
            .iter()
            .enumerate()
            .map(|(row, column)| f64::from(costs[row * n + column]))
            .sum()
    }

    fn assert_permutation(columns: &[usize]) {
        let mut sorted = columns.to_vec();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..columns.len()));
    }

    /// The least total over all permutations, by Heap's algorithm.
    fn brute_force(costs: &[f32], n: usize) -> f64 {
        fn visit(k: usize, order: &mut [usize], least: &mut f64, costs: &[f32]) {
            if k <= 1 {
                *least = least.min(total(costs, order.len(), order));
                return;
            }
            for i in 0..k {
                visit(k - 1, order, least, costs);
                order.swap(if k.is_multiple_of(2) { i } else { 0 }, k - 1);
            }
        }
        let mut least = f64::INFINITY;
        visit(n, &mut (0..n).collect::<Vec<_>>(), &mut least, costs);
        least
    }

    #[test]
    fn equals_brute_force() {
        let mut random = Random::new(1, 0);
        for round in 0..200 {
            let n = 1 + round % 7;
            let mut costs = vec![0.0; n * n];
            random.fill_normal(&mut costs);
            if round % 3 == 0 {
                // Small integers: many ties.
                costs
                    .iter_mut()
                    .for_each(|cost| *cost = (*cost * 2.0).round());
            }
            let columns = solve(&costs, n);
            assert_permutation(&columns);
            // Sums of at most 7 f32 values, in f64 but in another order.
            assert!((total(&costs, n, &columns) - brute_force(&costs, n)).abs() < 1e-9);
        }
    }

    #[test]
    fn finds_a_planted_permutation_and_beats_random_ones() {
        let mut random = Random::new(2, 0);
        let n = 200;
        let mut planted: Vec<usize> = (0..n).collect();
        random.shuffle(&mut planted);
        let mut costs: Vec<f32> = (0..n * n).map(|_| random.uniform()).collect();
        let columns = solve(&costs, n);
        let mut other: Vec<usize> = (0..n).collect();
        for _ in 0..100 {
            random.shuffle(&mut other);
            assert!(total(&costs, n, &columns) <= total(&costs, n, &other));
        }
        planted
            .iter()
            .enumerate()
            .for_each(|(row, column)| costs[row * n + column] -= 2.0);
        assert_eq!(solve(&costs, n), planted);
    }

    #[test]
    fn costs_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let costs = [0.0, bad, 1.0, 2.0];
            assert!(std::panic::catch_unwind(|| solve(&costs, 2)).is_err());
        }
    }

    #[test]
    fn an_empty_problem_is_solved() {
        assert!(solve(&[], 0).is_empty());
    }
}
