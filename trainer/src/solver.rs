//! The choice of the default solver: the cheapest that is accurate enough.

use dwf::{
    SampleOptions, Sampler,
    metadata::DefaultSolver,
    ode::{Grid, Method, Solver},
};

use crate::{
    coordinates::{Coordinates, Decoded},
    error::Result,
    isometry::Isometry,
    report::spread,
};

/// Largest relative error that a default solver has, unless another is asked for.
pub const DEFAULT_ERROR: f64 = 1e-3;

/// A default solver keeps the standard deviations of the weights to this fraction.
const STD_TOLERANCE: f64 = 0.02;
/// Networks that errors are measured on, and their seed, which no report uses.
const NETWORKS: usize = 32;
const SEED: u64 = 0x736f_6c76_6572;
const STEPS: [usize; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 64];

/// A default solver and what it was measured to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// With its error.
    pub solver: DefaultSolver,
    /// Evaluations of the velocity for one network.
    pub evaluations: usize,
    /// Median over the weights of the standard deviation that it gives, over that of a fine
    /// solution.
    pub std_ratio: f64,
}

/// A solver to start with, before one is chosen.
pub fn unmeasured() -> DefaultSolver {
    described(Solver::fixed(Method::Rk4, 32, Grid::Uniform), None)
}

/// The fixed-grid solver with the fewest evaluations of the velocity whose networks differ from
/// those of RK4 with 128 steps by less than `error` (the norm of the difference over all weights,
/// over the norm of the weights) and whose standard deviations are theirs to 2 %; of several the
/// most accurate. RK4 with 64 steps if none does. `sampler` gives the latents of networks.
/// `conditions` are rows that the networks are made under in turn, as callers give them.
///
/// Errors: those of sampling.
pub fn choose(
    sampler: &mut Sampler,
    coordinates: &Coordinates,
    isometry: &Isometry<'_>,
    conditions: Option<&[f32]>,
    error: f64,
) -> Result<Choice> {
    let condition = conditions.map(|rows| turns(sampler, rows));
    let mut latents = |solver| generate(sampler, condition.as_deref(), solver);
    let fine = latents(Solver::fixed(Method::Rk4, 128, Grid::Uniform))?;
    let fine_places = isometry.place(&fine);
    let relative_error = |latents: &[f32]| distance(&isometry.place(latents), &fine_places);
    let std_ratio = |latents: &[f32]| {
        let [fine, latents] = [&fine, latents].map(|latents| Decoded::new(coordinates, latents));
        spread::std_ratio(&fine, &latents)
    };
    let mut best: Option<Choice> = None;
    for solver in candidates() {
        let evaluations = solver.evaluations().expect("the grids are fixed");
        if best.is_some_and(|best| best.evaluations < evaluations) {
            break;
        }
        let latents = latents(solver)?;
        let found = relative_error(&latents);
        let better = |best: &Choice| Some(found) < best.solver.relative_error;
        if found < error && best.as_ref().is_none_or(better) {
            // All weights have to be looked at: last.
            let std_ratio = std_ratio(&latents);
            if (std_ratio - 1.0).abs() < STD_TOLERANCE {
                best = Some(choice(solver, found, std_ratio));
            }
        }
    }
    match best {
        Some(best) => Ok(best),
        None => {
            let solver = Solver::fixed(Method::Rk4, 64, Grid::Uniform);
            let latents = latents(solver)?;
            Ok(choice(
                solver,
                relative_error(&latents),
                std_ratio(&latents),
            ))
        }
    }
}

/// Solvers from cheap to dear.
fn candidates() -> Vec<Solver> {
    let methods = [Method::Euler, Method::Midpoint, Method::Heun, Method::Rk4];
    let mut solvers = Vec::new();
    for method in methods {
        for steps in STEPS {
            let grids = [Grid::Uniform, Grid::Stretched];
            // With one step there is one grid.
            solvers.extend(
                grids
                    .into_iter()
                    .take(steps)
                    .map(|grid| Solver::fixed(method, steps, grid)),
            );
        }
    }
    solvers.sort_by_key(Solver::evaluations);
    solvers
}

fn choice(solver: Solver, relative_error: f64, std_ratio: f64) -> Choice {
    Choice {
        solver: described(solver, Some(relative_error)),
        evaluations: solver.evaluations().expect("the grids are fixed"),
        std_ratio,
    }
}

/// The norm of a difference, over that of the second.
fn distance(found: &[f32], fine: &[f32]) -> f64 {
    let differences = found.iter().zip(fine);
    let difference = norm(differences.map(|(w, fine)| f64::from(w - fine)));
    difference / norm(fine.iter().map(|w| f64::from(*w)))
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

/// Rows for [`NETWORKS`] networks, `rows` in turn.
fn turns(sampler: &Sampler, rows: &[f32]) -> Vec<f32> {
    let condition = &sampler.model().metadata().condition;
    let size = condition
        .as_ref()
        .map_or(1, dwf::condition::Condition::size);
    let turn = rows.chunks_exact(size).cycle().take(NETWORKS);
    turn.flatten().copied().collect()
}

fn generate(sampler: &mut Sampler, condition: Option<&[f32]>, solver: Solver) -> Result<Vec<f32>> {
    let mut latents = vec![0f32; NETWORKS * sampler.model().latent()];
    let options = SampleOptions {
        seed: SEED,
        count: NETWORKS,
        solver: Some(solver),
        condition,
        ..Default::default()
    };
    sampler.sample(options, &mut latents[..])?;
    Ok(latents)
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}
