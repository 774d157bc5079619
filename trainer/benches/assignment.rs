//! The assignment of 3072 units, the hidden layer of a transformer, on the cost matrices in the
//! files named (float32, square), as `benches/alignment.py` writes them beside SciPy's times.

#![allow(clippy::print_stdout, reason = "it prints times")]

use std::{fs, time::Instant};

use dwf_trainer::{assignment, checkpoint};

fn main() {
    for path in std::env::args().skip(1).filter(|a| !a.starts_with("--")) {
        let bytes = fs::read(&path).expect("a file of costs");
        let mut costs = vec![0.0; bytes.len() / 4];
        checkpoint::decode(&bytes, dwf::layout::DType::F32, &mut costs);
        let n = costs.len().isqrt();
        let start = Instant::now();
        let columns = assignment::solve(&costs, n);
        let seconds = start.elapsed().as_secs_f64();
        let total: f64 = (0..n).map(|i| f64::from(costs[i * n + columns[i]])).sum();
        println!("{n} units: {seconds:.3} s, total {total:.3}");
    }
}
