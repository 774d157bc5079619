//! The choice of the default solver: the cheapest that is accurate enough.

use dwf::{
    SampleOptions, Sampler,
    metadata::DefaultSolver,
    ode::{Grid, Method, Solver},
};

use crate::error::Result;

/// Largest relative error that a default solver may have.
pub const TOLERANCE: f64 = 1e-3;

/// Networks that errors are measured on, and their seed.
const NETWORKS: usize = 32;
const SEED: u64 = 0x736f_6c76_6572;
const STEPS: [usize; 11] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64];

/// A solver to start with, before one is chosen.
pub fn unmeasured() -> DefaultSolver {
    described(Solver::fixed(Method::Rk4, 32, Grid::Uniform), None)
}

/// The fixed-grid solver with the fewest evaluations of the velocity whose networks differ from those of
/// RK4 with 128 steps by less than [`TOLERANCE`]: the norm of the difference over all weights,
/// over the norm of the weights. RK4 with 64 steps if none does.
///
/// Errors: those of sampling.
pub fn choose(sampler: &mut Sampler) -> Result<DefaultSolver> {
    let fine = generate(sampler, Solver::fixed(Method::Rk4, 128, Grid::Uniform))?;
    let norm = norm(fine.iter().map(|w| f64::from(*w)));
    let mut last = unmeasured();
    for solver in candidates() {
        let weights = generate(sampler, solver)?;
        let difference = weights
            .iter()
            .zip(&fine)
            .map(|(w, fine)| f64::from(w - fine));
        let error = self::norm(difference) / norm;
        last = described(solver, Some(error));
        if error < TOLERANCE {
            break;
        }
    }
    Ok(last)
}

/// Solvers from cheap to dear.
fn candidates() -> Vec<Solver> {
    let methods = [Method::Euler, Method::Midpoint, Method::Heun, Method::Rk4];
    let mut solvers: Vec<Solver> = methods
        .into_iter()
        .flat_map(|method| STEPS.map(|steps| Solver::fixed(method, steps, Grid::Uniform)))
        .collect();
    solvers.sort_by_key(Solver::evaluations);
    solvers
}

fn described(solver: Solver, relative_error: Option<f64>) -> DefaultSolver {
    DefaultSolver {
        method: solver.method,
        steps: solver.steps,
        grid: solver.grid,
        tolerance: solver.tolerance,
        relative_error,
    }
}

fn generate(sampler: &mut Sampler, solver: Solver) -> Result<Vec<f32>> {
    let mut weights = vec![0f32; NETWORKS * sampler.model().metadata().layout.len()];
    let options = SampleOptions {
        seed: SEED,
        count: NETWORKS,
        solver: Some(solver),
        ..Default::default()
    };
    sampler.sample(options, &mut weights[..])?;
    Ok(weights)
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}
