//! Dormand-Prince 5(4) (1980) with error control a row: each row has its own time and step, so
//! its result does not depend on the others in the batch.

use std::ops::Range;

use super::{Tableau, Velocity, Workspace};
use crate::error::Result;

/// Most steps tried before a row is given up.
const MAX_TRIES: usize = 10_000;

/// A step below this no longer moves time in float32.
const MIN_STEP: f64 = 1e-7;

/// Where a row is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    t: f64,
    step: f64,
}

impl Row {
    fn done(&self) -> bool {
        self.t >= 1.0
    }
}

/// Rows that are done stay in the batch, standing still, until all are.
pub(super) fn integrate(
    velocity: &mut dyn Velocity,
    tolerance: f64,
    latent: usize,
    state: &mut [f32],
    workspace: &mut Workspace,
) -> Result<()> {
    let rows = state.len() / latent;
    let mut batch = Batch {
        latent,
        tolerance,
        x: &mut workspace.x[..state.len()],
        state,
        slopes: &mut workspace.slopes,
        rows: &mut workspace.rows[..rows],
        times: &mut workspace.times[..rows],
    };
    batch.start(velocity)?;
    for _ in 0..MAX_TRIES {
        if batch.rows.iter().all(Row::done) {
            return Ok(());
        }
        batch.evaluate_stages(velocity)?;
        (0..rows).for_each(|i| batch.control(i));
    }
    batch.give_up();
    Ok(())
}

/// The rows under way, and the memory to move them.
struct Batch<'a> {
    latent: usize,
    tolerance: f64,
    state: &'a mut [f32],
    /// The argument of a stage; after the last, the fifth-order candidate.
    x: &'a mut [f32],
    slopes: &'a mut [Vec<f32>],
    rows: &'a mut [Row],
    times: &'a mut [f32],
}

impl Batch<'_> {
    fn range(&self, i: usize) -> Range<usize> {
        i * self.latent..(i + 1) * self.latent
    }

    /// The first slope, and a first step from it (Hairer, Norsett and Wanner, 1993, II.4).
    fn start(&mut self, velocity: &mut dyn Velocity) -> Result<()> {
        let len = self.state.len();
        self.times.fill(0.0);
        velocity.evaluate(self.times, self.state, &mut self.slopes[0][..len])?;
        for i in 0..self.rows.len() {
            let step = self.probing_step(i);
            self.rows[i] = Row { t: 0.0, step };
            self.times[i] = step as f32;
            for j in self.range(i) {
                self.x[j] = self.state[j] + step as f32 * self.slopes[0][j];
            }
        }
        velocity.evaluate(self.times, self.x, &mut self.slopes[1][..len])?;
        for i in 0..self.rows.len() {
            self.rows[i].step = self.first_step(i);
        }
        Ok(())
    }

    fn probing_step(&self, i: usize) -> f64 {
        let size = self.relative(i, |j| self.state[j]);
        let speed = self.relative(i, |j| self.slopes[0][j]);
        if size.min(speed) < 1e-5 {
            1e-6
        } else {
            0.01 * size / speed
        }
    }

    fn first_step(&self, i: usize) -> f64 {
        let probe = self.rows[i].step;
        let speed = self.relative(i, |j| self.slopes[0][j]);
        let bend = self.relative(i, |j| self.slopes[1][j] - self.slopes[0][j]) / probe;
        let steepest = speed.max(bend);
        let step = if steepest <= 1e-15 {
            1.0
        } else {
            (0.01 / steepest).powf(0.2)
        };
        step.min(100.0 * probe).min(1.0)
    }

    /// Root mean square of a row's values over the errors that its state allows.
    fn relative(&self, i: usize, value: impl Fn(usize) -> f32) -> f64 {
        norm(
            self.range(i)
                .map(|j| f64::from(value(j)) / self.allowed(self.state[j].abs())),
        )
    }

    /// The error that a coordinate of this magnitude may have.
    fn allowed(&self, magnitude: f32) -> f64 {
        self.tolerance * (1.0 + f64::from(magnitude))
    }

    /// Evaluates the stages after the first.
    fn evaluate_stages(&mut self, velocity: &mut dyn Velocity) -> Result<()> {
        let len = self.state.len();
        for stage in 1..DOPRI5.c.len() {
            self.x.copy_from_slice(self.state);
            for (i, row) in self.rows.iter().enumerate() {
                self.times[i] = (row.t + DOPRI5.c[stage] * row.step) as f32;
                let range = self.range(i);
                for (coefficient, slope) in DOPRI5.a[stage].iter().zip(&*self.slopes) {
                    let scale = (coefficient * row.step) as f32;
                    let x = self.x[range.clone()].iter_mut();
                    for (x, slope) in x.zip(&slope[range.clone()]) {
                        *x += scale * slope;
                    }
                }
            }
            velocity.evaluate(self.times, self.x, &mut self.slopes[stage][..len])?;
        }
        Ok(())
    }

    /// Accepts or refuses row `i`'s candidate and sets its next step.
    fn control(&mut self, i: usize) {
        let mut row = self.rows[i];
        if row.done() {
            return;
        }
        let error = self.error(i);
        if error <= 1.0 {
            row.t += row.step;
            self.accept(i);
        }
        row.step *= if error.is_finite() {
            (0.9 * error.powf(-0.2)).clamp(0.2, 5.0)
        } else {
            0.2
        };
        if row.step < MIN_STEP {
            let range = self.range(i);
            self.state[range].fill(f32::NAN);
            row.t = 1.0;
        }
        // The last step ends at 1 exactly, and a remainder too short to matter joins it.
        if 1.0 - row.t < 1.01 * row.step {
            row.step = 1.0 - row.t;
        }
        if 1.0 - row.t < MIN_STEP {
            row = Row { t: 1.0, step: 0.0 };
        }
        self.rows[i] = row;
    }

    /// Row `i`'s estimated error over what is allowed.
    fn error(&self, i: usize) -> f64 {
        norm(self.range(i).map(|j| {
            let slopes = self.slopes.iter().zip(ERROR);
            let difference: f64 = slopes.map(|(slope, e)| e * f64::from(slope[j])).sum();
            let magnitude = self.state[j].abs().max(self.x[j].abs());
            self.rows[i].step * difference / self.allowed(magnitude)
        }))
    }

    /// The candidate becomes the state, and its slope the next step's first.
    fn accept(&mut self, i: usize) {
        let range = self.range(i);
        self.state[range.clone()].copy_from_slice(&self.x[range.clone()]);
        let (first, rest) = self.slopes.split_at_mut(1);
        first[0][range.clone()].copy_from_slice(&rest[ERROR.len() - 2][range]);
    }

    /// Rows that are still under way become NaN.
    fn give_up(&mut self) {
        for i in 0..self.rows.len() {
            if !self.rows[i].done() {
                let range = self.range(i);
                self.state[range].fill(f32::NAN);
            }
        }
    }
}

/// Root mean square.
fn norm(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| {
        (sum + value * value, count + 1)
    });
    (sum / count as f64).sqrt()
}

/// The fifth-order solution's weights are the last row of `a`, so its slope opens the next step.
pub(super) static DOPRI5: Tableau = Tableau {
    a: &[
        &[],
        &[1.0 / 5.0],
        &[3.0 / 40.0, 9.0 / 40.0],
        &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
        &[
            19372.0 / 6561.0,
            -25360.0 / 2187.0,
            64448.0 / 6561.0,
            -212.0 / 729.0,
        ],
        &[
            9017.0 / 3168.0,
            -355.0 / 33.0,
            46732.0 / 5247.0,
            49.0 / 176.0,
            -5103.0 / 18656.0,
        ],
        LAST,
    ],
    b: LAST,
    c: &[0.0, 0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0],
};

const LAST: &[f64] = &[
    35.0 / 384.0,
    0.0,
    500.0 / 1113.0,
    125.0 / 192.0,
    -2187.0 / 6784.0,
    11.0 / 84.0,
];

/// Fifth-order weights less fourth-order ones.
static ERROR: [f64; 7] = [
    71.0 / 57600.0,
    0.0,
    -71.0 / 16695.0,
    71.0 / 1920.0,
    -17253.0 / 339200.0,
    22.0 / 525.0,
    -1.0 / 40.0,
];
