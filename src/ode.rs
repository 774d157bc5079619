//! Explicit Runge-Kutta integration of dx/dt = v(x, t) from t = 0 to t = 1.

mod adaptive;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    memory::{float_bytes, grow, out_of_memory},
};

/// Most steps a fixed grid may have; far beyond what any flow needs, it bounds hostile input.
pub const MAX_STEPS: usize = 100_000;

/// Most evaluations of a grid whose times are prepared ahead.
const MAX_TIMES: usize = 4096;

/// Tolerances that an adaptive method accepts; a float32 state cannot do better than the first.
pub const TOLERANCES: RangeInclusive<f64> = 1e-6..=0.1;

/// An adaptive method's tolerance where none is given.
pub const DEFAULT_TOLERANCE: f64 = 1e-4;

/// The integration method.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// First order, 1 evaluation a step.
    Euler = 1,
    /// Explicit midpoint: second order, 2 evaluations a step.
    Midpoint = 2,
    /// Heun's (explicit trapezoid): second order, 2 evaluations a step.
    Heun = 3,
    /// The classical Runge-Kutta method: fourth order, 4 evaluations a step.
    Rk4 = 4,
    /// Dormand-Prince 5(4) with a step of its own for every row, chosen from its error estimate;
    /// 6 evaluations a step.
    Dopri5 = 5,
}

impl Method {
    /// The method with this number in the C ABI.
    pub fn from_code(code: u32) -> Option<Self> {
        [
            Self::Euler,
            Self::Midpoint,
            Self::Heun,
            Self::Rk4,
            Self::Dopri5,
        ]
        .into_iter()
        .find(|method| *method as u32 == code)
    }

    /// Stages of one step.
    pub fn stages(self) -> usize {
        self.tableau().c.len()
    }

    pub(crate) fn tableau(self) -> &'static Tableau {
        match self {
            Self::Euler => &EULER,
            Self::Midpoint => &MIDPOINT,
            Self::Heun => &HEUN,
            Self::Rk4 => &RK4,
            Self::Dopri5 => &adaptive::DOPRI5,
        }
    }
}

/// How the steps divide [0, 1].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grid {
    /// Equal steps.
    Uniform = 1,
    /// t_i = s((1 + 1/s)^(i/n) - 1) with s the source's standard deviation: short steps near
    /// t = 0, where the trajectories of a narrow source branch.
    Stretched = 2,
}

impl Grid {
    /// The grid with this number in the C ABI.
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::Uniform, Self::Stretched]
            .into_iter()
            .find(|grid| *grid as u32 == code)
    }

    /// Grid point `i` of `steps`, in [0, 1]; `source_std` is s.
    fn point(self, i: usize, steps: usize, source_std: f64) -> f64 {
        let fraction = i as f64 / steps as f64;
        match self {
            Self::Uniform => fraction,
            Self::Stretched if i == steps => 1.0,
            Self::Stretched => source_std * ((fraction * (1.0 / source_std).ln_1p()).exp_m1()),
        }
    }
}

/// A method with its steps or its tolerance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solver {
    /// The method.
    pub method: Method,
    /// Number of steps on a fixed grid, 1 to [`MAX_STEPS`]; not used by an adaptive method.
    pub steps: usize,
    /// Where the steps lie; not used by an adaptive method.
    pub grid: Grid,
    /// Error a step that an adaptive method allows, relative and absolute, in [`TOLERANCES`];
    /// not used on a fixed grid.
    pub tolerance: f64,
}

impl Solver {
    /// A method with `steps` steps on `grid`.
    pub fn fixed(method: Method, steps: usize, grid: Grid) -> Self {
        Self {
            method,
            steps,
            grid,
            tolerance: DEFAULT_TOLERANCE,
        }
    }

    /// Dormand-Prince 5(4) with `tolerance`.
    pub fn adaptive(tolerance: f64) -> Self {
        Self {
            method: Method::Dopri5,
            steps: 1,
            grid: Grid::Uniform,
            tolerance,
        }
    }

    /// Errors: INVALID_ARGUMENT for a number of steps or a tolerance out of range.
    pub fn check(&self) -> Result<()> {
        if !(1..=MAX_STEPS).contains(&self.steps) {
            return Err(Error::argument(format!(
                "solver: {} steps; give 1 to {MAX_STEPS}",
                self.steps
            )));
        }
        if !TOLERANCES.contains(&self.tolerance) {
            return Err(Error::argument(format!(
                "solver: tolerance {}; give {} to {}",
                self.tolerance,
                TOLERANCES.start(),
                TOLERANCES.end()
            )));
        }
        Ok(())
    }

    /// Time of grid point `i` of the solver's steps, in [0, 1].
    pub(crate) fn time(&self, i: usize, source_std: f64) -> f64 {
        self.grid.point(i, self.steps, source_std)
    }

    /// The distinct times at which a fixed grid evaluates the velocity, ascending; `None` for an
    /// adaptive method, and for more times than are worth a table.
    pub(crate) fn times(&self, source_std: f64) -> Option<Vec<f32>> {
        let most = MAX_TIMES / self.method.stages();
        if self.method == Method::Dopri5 || self.steps > most {
            return None;
        }
        let mut times: Vec<f32> = (0..self.steps)
            .flat_map(|i| {
                let t = self.time(i, source_std);
                let step = self.time(i + 1, source_std) - t;
                let stages = self.method.tableau().c.iter();
                stages.map(move |c| stage_time(t, step, *c))
            })
            .collect();
        times.sort_unstable_by(f32::total_cmp);
        times.dedup();
        Some(times)
    }

    /// Evaluations of the velocity for one trajectory; `None` where the trajectory decides.
    pub fn evaluations(&self) -> Option<usize> {
        match self.method {
            Method::Dopri5 => None,
            method => Some(self.steps * method.stages()),
        }
    }
}

/// A velocity field over a batch of states.
pub trait Velocity {
    /// Writes v(x, t) for every row of `x` ([rows, latent], row-major). `t` is one time for all
    /// rows or a time a row, in [0, 1].
    fn evaluate(&mut self, t: &[f32], x: &[f32], v: &mut [f32]) -> Result<()>;
}

impl<F: FnMut(&[f32], &[f32], &mut [f32]) -> Result<()>> Velocity for F {
    fn evaluate(&mut self, t: &[f32], x: &[f32], v: &mut [f32]) -> Result<()> {
        self(t, x, v)
    }
}

/// Memory that integration needs beside the state; reused between calls.
#[derive(Debug, Default)]
pub struct Workspace {
    x: Vec<f32>,
    slopes: Vec<Vec<f32>>,
    rows: Vec<adaptive::Row>,
    times: Vec<f32>,
}

impl Workspace {
    /// Makes room for `rows` states of `latent` elements under `method`; afterwards
    /// [`integrate`] does not allocate for batches up to that size.
    ///
    /// Errors: OUT_OF_MEMORY.
    pub fn reserve(&mut self, method: Method, rows: usize, latent: usize) -> Result<()> {
        let len = rows
            .checked_mul(latent)
            .ok_or_else(|| out_of_memory(usize::MAX))?;
        if self.slopes.len() < method.stages() {
            self.slopes.resize_with(method.stages(), Vec::new);
        }
        for buffer in self.slopes.iter_mut().chain([&mut self.x]) {
            grow(buffer, len)?;
        }
        if method == Method::Dopri5 {
            grow(&mut self.rows, rows)?;
            grow(&mut self.times, rows)?;
        }
        Ok(())
    }

    /// Bytes that [`Workspace::reserve`] takes.
    pub(crate) fn needed(method: Method, rows: usize, latent: usize) -> u64 {
        let states = (method.stages() + 1).saturating_mul(rows);
        // A row's time and step, where it has its own.
        float_bytes(&[(states, latent)]).saturating_add(32 * rows as u64)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let elements: usize = self.slopes.iter().map(Vec::capacity).sum();
        (elements + self.x.capacity() + self.times.capacity()) * size_of::<f32>()
            + self.rows.capacity() * size_of::<adaptive::Row>()
    }
}

/// Carries `state` ([rows, latent]) along `velocity` from t = 0 to t = 1, in place.
///
/// `source_std` shapes a stretched grid. The state is kept in f32: half precision there
/// changes the generated networks, in the velocity network it does not. A row whose trajectory
/// an adaptive method cannot follow becomes NaN.
///
/// Errors: those of `solver` ([`Solver::check`]) and of `velocity`, OUT_OF_MEMORY.
pub fn integrate(
    velocity: &mut dyn Velocity,
    solver: &Solver,
    source_std: f64,
    latent: usize,
    state: &mut [f32],
    workspace: &mut Workspace,
) -> Result<()> {
    solver.check()?;
    workspace.reserve(solver.method, state.len() / latent, latent)?;
    if solver.method == Method::Dopri5 {
        return adaptive::integrate(velocity, solver.tolerance, latent, state, workspace);
    }
    let tableau = solver.method.tableau();
    let time = |i| solver.time(i, source_std);
    for i in 0..solver.steps {
        let step = time(i + 1) - time(i);
        advance(velocity, tableau, time(i), step, state, workspace)?;
    }
    Ok(())
}

/// One step of length `step` from time `t`.
fn advance(
    velocity: &mut dyn Velocity,
    tableau: &Tableau,
    t: f64,
    step: f64,
    state: &mut [f32],
    workspace: &mut Workspace,
) -> Result<()> {
    let len = state.len();
    let Workspace { x, slopes, .. } = workspace;
    for (stage, (row, c)) in tableau.a.iter().zip(tableau.c).enumerate() {
        let (known, rest) = slopes.split_at_mut(stage);
        let slope = &mut rest[0][..len];
        let time = [stage_time(t, step, *c)];
        if stage == 0 {
            velocity.evaluate(&time, state, slope)?;
        } else {
            let x = &mut x[..len];
            x.copy_from_slice(state);
            add_slopes(x, row, known, step);
            velocity.evaluate(&time, x, slope)?;
        }
    }
    add_slopes(state, tableau.b, slopes, step);
    Ok(())
}

/// The time of a stage, as the velocity network gets it.
pub(crate) fn stage_time(t: f64, step: f64, c: f64) -> f32 {
    (t + c * step) as f32
}

/// x += step * sum of coefficients[j] * slopes[j].
fn add_slopes(x: &mut [f32], coefficients: &[f64], slopes: &[Vec<f32>], step: f64) {
    for (coefficient, slope) in coefficients.iter().zip(slopes) {
        let scale = (coefficient * step) as f32;
        if scale != 0.0 {
            for (x, slope) in x.iter_mut().zip(slope) {
                *x += scale * slope;
            }
        }
    }
}

/// A Butcher tableau: stage j is evaluated at t + c_j h, from the slopes before it by row a_j.
pub(crate) struct Tableau {
    pub(crate) a: &'static [&'static [f64]],
    pub(crate) b: &'static [f64],
    pub(crate) c: &'static [f64],
}

static EULER: Tableau = Tableau {
    a: &[&[]],
    b: &[1.0],
    c: &[0.0],
};

static MIDPOINT: Tableau = Tableau {
    a: &[&[], &[0.5]],
    b: &[0.0, 1.0],
    c: &[0.0, 0.5],
};

static HEUN: Tableau = Tableau {
    a: &[&[], &[1.0]],
    b: &[0.5, 0.5],
    c: &[0.0, 1.0],
};

static RK4: Tableau = Tableau {
    a: &[&[], &[0.5], &[0.0, 0.5], &[0.0, 0.0, 1.0]],
    b: &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0],
    c: &[0.0, 0.5, 0.5, 1.0],
};
