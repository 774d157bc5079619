//! The linear assignment problem, solved exactly.

use std::array::from_fn;

/// The permutation with the least total cost: row i takes column `result[i]`.
///
/// `costs` is [n, n] row-major and finite. After R. Jonker and A. Volgenant, "A shortest
/// augmenting path algorithm for dense and sparse linear assignment problems", Computing 38
/// (1987): most rows are assigned by reducing columns and rows, the others along shortest paths.
/// O(n^3), with the dual variables in f64, so that rounding does not build up along a path.
///
/// Panics unless `costs` has n * n elements, all finite: no path is shortest among NaNs, and the
/// search for one would not end.
pub fn solve(costs: &[f32], n: usize) -> Vec<usize> {
    assert_eq!(costs.len(), n * n, "the cost matrix is not square");
    assert!(
        costs.iter().all(|cost| cost.is_finite()),
        "the costs are not finite"
    );
    let columns = assign(costs, n).columns;
    columns.iter().map(|column| *column as usize).collect()
}

/// The search when it is done, in the widest instructions of this processor.
fn assign(costs: &[f32], n: usize) -> Search<'_> {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: this processor has it.
            return unsafe { assign_avx512(costs, n) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { assign_avx2(costs, n) };
        }
    }
    assign_here(costs, n)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn assign_avx512(costs: &[f32], n: usize) -> Search<'_> {
    assign_here(costs, n)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn assign_avx2(costs: &[f32], n: usize) -> Search<'_> {
    assign_here(costs, n)
}

/// Compiled into each of its callers, for their instructions. All give the same bits: no product
/// and sum becomes one operation.
#[inline(always)]
fn assign_here(costs: &[f32], n: usize) -> Search<'_> {
    let mut search = Search::new(costs, n);
    let mut free = search.reduce_columns();
    for _ in 0..ROW_REDUCTIONS {
        free = search.reduce_rows(free);
    }
    for row in free {
        search.augment(row);
    }
    search
}

/// Columns that are looked at together.
const LANES: usize = 16;
const FREE: u32 = u32::MAX;
/// Rounds of row reduction; the original has two, and a third no longer pays.
const ROW_REDUCTIONS: usize = 2;
/// Steps of a round for each row. Where many rows want the same columns, prices creep up for
/// hundreds of steps a row, while a shortest path would end it: measured on inner products of
/// normal vectors, 3072 of them, 4 takes a quarter of the time that no bound does.
const ROW_STEPS: usize = 4;

struct Search<'a> {
    costs: &'a [f32],
    n: usize,
    /// What each column has been reduced by. A row's reduced costs are its costs less these.
    duals: Vec<f64>,
    /// Row to column, or `FREE`.
    columns: Vec<u32>,
    /// Column to row, or `FREE`.
    rows: Vec<u32>,
    /// Length of the shortest known path to each column; infinite once it is final.
    distances: Vec<f64>,
    /// The duals, or minus infinity for columns whose distance is final: no path leads there again.
    prices: Vec<f64>,
    /// The row before each column on that path.
    parents: Vec<u32>,
}

impl<'a> Search<'a> {
    fn new(costs: &'a [f32], n: usize) -> Self {
        Self {
            costs,
            n,
            duals: vec![0.0; n],
            columns: vec![FREE; n],
            rows: vec![FREE; n],
            distances: vec![0.0; n],
            prices: vec![0.0; n],
            parents: vec![0; n],
        }
    }

    fn row(&self, row: u32) -> &'a [f32] {
        &self.costs[row as usize * self.n..][..self.n]
    }

    /// Gives columns to the rows where they are cheapest, and returns the rows without one.
    #[inline(always)]
    fn reduce_columns(&mut self) -> Vec<u32> {
        let n = self.n;
        let mut cheapest = vec![f32::INFINITY; n];
        let mut by = vec![0u32; n];
        for row in 0..n as u32 {
            let costs = self.row(row);
            for ((cost, least), by) in costs.iter().zip(&mut cheapest).zip(&mut by) {
                let better = cost < least;
                *least = if better { *cost } else { *least };
                *by = if better { row } else { *by };
            }
        }
        let mut wishes = vec![0u32; n];
        for column in (0..n).rev() {
            self.duals[column] = f64::from(cheapest[column]);
            let row = by[column] as usize;
            wishes[row] += 1;
            if wishes[row] == 1 {
                self.columns[row] = column as u32;
                self.rows[column] = row as u32;
            }
        }
        // A row with one column alone can give up as much as its second best costs more.
        for row in (0..n as u32).filter(|row| wishes[*row as usize] == 1) {
            let column = self.columns[row as usize] as usize;
            let (_, second, _, _) = self.two_cheapest(row);
            let own = f64::from(self.row(row)[column]) - self.duals[column];
            self.duals[column] -= (second - own).max(0.0);
        }
        (0..n as u32)
            .filter(|row| wishes[*row as usize] == 0)
            .collect()
    }

    /// Least and second least reduced cost of a row, with their columns.
    #[inline(always)]
    fn two_cheapest(&self, row: u32) -> (f64, f64, usize, usize) {
        let (costs, duals) = (self.row(row), &self.duals[..]);
        let (mut first, mut second) = ([f64::INFINITY; LANES], [f64::INFINITY; LANES]);
        let (mut place, mut next) = ([0u32; LANES], [0u32; LANES]);
        let mut base = 0;
        for (costs, duals) in costs.chunks(LANES).zip(duals.chunks(LANES)) {
            for i in 0..costs.len() {
                let value = f64::from(costs[i]) - duals[i];
                let column = base + i as u32;
                let (best, good) = (value < first[i], value < second[i]);
                next[i] = if best {
                    place[i]
                } else if good {
                    column
                } else {
                    next[i]
                };
                second[i] = if best {
                    first[i]
                } else if good {
                    value
                } else {
                    second[i]
                };
                place[i] = if best { column } else { place[i] };
                first[i] = if best { value } else { first[i] };
            }
            base += LANES as u32;
        }
        let mut result = (f64::INFINITY, f64::INFINITY, 0, 0);
        let values = first.iter().zip(&place).chain(second.iter().zip(&next));
        for (value, column) in values {
            let (least, second, at, _) = result;
            if *value < least {
                result = (*value, least, *column as usize, at);
            } else if *value < second {
                (result.1, result.3) = (*value, *column as usize);
            }
        }
        result
    }

    /// Gives each free row its cheapest column and raises that column's price until the row is
    /// indifferent to its second; whoever had it looks for another at once, or, where there was
    /// nothing to raise, in the next round.
    #[inline(always)]
    fn reduce_rows(&mut self, free: Vec<u32>) -> Vec<u32> {
        let mut later = Vec::new();
        let mut pending: Vec<u32> = free.into_iter().rev().collect();
        for _ in 0..ROW_STEPS * self.n {
            let Some(row) = pending.pop() else {
                break;
            };
            let (least, second, mut column, other) = self.two_cheapest(row);
            let lowered = self.duals[column] - (second - least);
            // A difference lost in rounding must not count, or two rows could take turns forever.
            let lowers = second.is_finite() && lowered < self.duals[column];
            if lowers {
                self.duals[column] = lowered;
            } else if self.rows[column] != FREE && second.is_finite() {
                column = other;
            }
            let before = std::mem::replace(&mut self.rows[column], row);
            self.columns[row as usize] = column as u32;
            if before != FREE {
                self.columns[before as usize] = FREE;
                if lowers {
                    pending.push(before);
                } else {
                    later.push(before);
                }
            }
        }
        later.extend(pending);
        later
    }

    /// Assigns one more row along the shortest path to a free column.
    #[inline(always)]
    fn augment(&mut self, start: u32) {
        self.distances.fill(f64::INFINITY);
        self.prices.copy_from_slice(&self.duals);
        let mut reached = Vec::new();
        let (mut row, mut base) = (start, 0.0);
        let (sink, length) = loop {
            let distance = self.relax(row, base);
            let column = self.nearest(distance);
            if self.rows[column] == FREE {
                break (column, distance);
            }
            reached.push((column, distance));
            self.distances[column] = f64::INFINITY;
            self.prices[column] = f64::NEG_INFINITY;
            row = self.rows[column];
            base = distance - (f64::from(self.row(row)[column]) - self.duals[column]);
        };
        for (column, distance) in reached {
            self.duals[column] += distance - length;
        }
        self.flip(start, sink as u32);
    }

    /// Shortens the paths to all columns through `row`, and returns the length of the shortest to
    /// one that is not final. `base` is what the path costs up to the row.
    #[inline(always)]
    fn relax(&mut self, row: u32, base: f64) -> f64 {
        let (costs, last_costs) = self.row(row).as_chunks::<LANES>();
        let (prices, last_prices) = self.prices.as_chunks::<LANES>();
        let (distances, last_distances) = self.distances.as_chunks_mut::<LANES>();
        let (parents, last_parents) = self.parents.as_chunks_mut::<LANES>();
        let mut least = [f64::INFINITY; LANES];
        let columns = costs.iter().zip(prices).zip(distances).zip(parents);
        // One thing after the other for all lanes, or the compiler takes them one by one.
        for (((costs, prices), distances), parents) in columns {
            let lengths: [f64; LANES] = from_fn(|i| base + f64::from(costs[i]) - prices[i]);
            let shorter: [u32; LANES] = from_fn(|i| mask(lengths[i] < distances[i]));
            *parents = from_fn(|i| row & shorter[i] | parents[i] & !shorter[i]);
            *distances = from_fn(|i| lesser(lengths[i], distances[i]));
            least = from_fn(|i| lesser(distances[i], least[i]));
        }
        let mut least = least.into_iter().fold(f64::INFINITY, lesser);
        let columns = last_costs.iter().zip(last_prices);
        let columns = columns.zip(last_distances).zip(last_parents);
        for (((cost, price), distance), parent) in columns {
            let length = base + f64::from(*cost) - price;
            if length < *distance {
                (*distance, *parent) = (length, row);
            }
            least = lesser(*distance, least);
        }
        least
    }

    /// A column at this distance, which is the least: of several a free one, which ends the path.
    /// Ties would else be followed to the last.
    #[inline(always)]
    fn nearest(&self, distance: f64) -> usize {
        const BLOCK: usize = 64;
        let mut found = None;
        for (block, distances) in self.distances.chunks(BLOCK).enumerate() {
            // Without a branch for each, as few blocks have any.
            let hit = distances
                .iter()
                .fold(false, |hit, d| hit | (*d <= distance));
            if !hit {
                continue;
            }
            for (i, own) in distances.iter().enumerate() {
                let column = block * BLOCK + i;
                if *own <= distance {
                    if self.rows[column] == FREE {
                        return column;
                    }
                    found.get_or_insert(column);
                }
            }
        }
        found.expect("a column is open")
    }

    /// Flips the assignments along the path from `start` to `sink`.
    fn flip(&mut self, start: u32, sink: u32) {
        let mut column = sink;
        loop {
            let row = self.parents[column as usize];
            self.rows[column as usize] = row;
            std::mem::swap(&mut self.columns[row as usize], &mut column);
            if row == start {
                return;
            }
        }
    }
}

/// All bits or none.
#[inline(always)]
fn mask(condition: bool) -> u32 {
    u32::from(condition).wrapping_neg()
}

/// The minimum of numbers, which f64::min finds for NaN too, and slower.
#[inline(always)]
fn lesser(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
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

    /// Optimal by the duals: no column would be cheaper for any row than its own.
    #[test]
    fn duals_prove_what_is_found_whatever_the_instructions() {
        let mut random = Random::new(3, 0);
        for n in [1, 15, 16, 17, 33, 150, 257] {
            for values in [0, 1, 2, 10] {
                let mut costs = vec![0.0; n * n];
                random.fill_normal(&mut costs);
                if values > 0 {
                    // Few values: many ties.
                    let integer =
                        |cost: &mut f32| *cost = (*cost * 100.0).abs().round() % values as f32;
                    costs.iter_mut().for_each(integer);
                }
                let search = assign(&costs, n);
                let columns: Vec<usize> = search.columns.iter().map(|c| *c as usize).collect();
                assert_permutation(&columns);
                for (row, own) in costs.chunks_exact(n).zip(&columns) {
                    let reduced = |column: usize| f64::from(row[column]) - search.duals[column];
                    let cheaper = (0..n).find(|column| reduced(*column) < reduced(*own) - 1e-9);
                    assert_eq!(cheaper, None, "{n} units, {values} values");
                }
                assert_eq!(assign_here(&costs, n).columns, search.columns);
            }
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
