//! Seconds to solve the assignment of the costs in a file (float32, square), the best of a few, and
//! the total: what `benches/alignment.py assign` puts beside SciPy's.

#![allow(clippy::print_stdout, reason = "it prints times")]

use std::{fs, time::Instant};

use dwf_trainer::{assignment, checkpoint};

const ROUNDS: usize = 3;

fn main() {
    for path in std::env::args().skip(1).filter(|a| !a.starts_with("--")) {
        let bytes = fs::read(&path).expect("a file of costs");
        let mut costs = vec![0.0; bytes.len() / 4];
        checkpoint::decode(&bytes, dwf::layout::DType::F32, &mut costs);
        let n = costs.len().isqrt();
        let mut best = f64::INFINITY;
        let mut columns = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            columns = assignment::solve(&costs, n);
            best = best.min(start.elapsed().as_secs_f64());
        }
        let total: f64 = (0..n).map(|i| f64::from(costs[i * n + columns[i]])).sum();
        println!("{best} {total}");
    }
}
