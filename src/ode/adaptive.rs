//! Dormand-Prince 5(4) (1980) with error control a row: each row has its own time and step, so
//! its result does not depend on the others in the batch.

use super::{Tableau, Velocity, Workspace};
use crate::error::Result;

/// Most steps tried before a row is given up.
const MAX_TRIES: usize = 10_000;

/// A step below this no longer moves time in float32.
const MIN_STEP: f64 = 1e-7;

/// Where a row is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    t: f64,
    step: f64,
}

impl Row {
    fn done(&self) -> bool {
        self.t >= 1.0
    }

    fn slice(i: usize, latent: usize) -> std::ops::Range<usize> {
        i * latent..(i + 1) * latent
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
    start(velocity, tolerance, latent, state, workspace)?;
    for _ in 0..MAX_TRIES {
        if workspace.rows.iter().all(Row::done) {
            return Ok(());
        }
        stages(velocity, latent, state, workspace)?;
        control(tolerance, latent, state, workspace);
    }
    for (i, _) in unfinished(&workspace.rows) {
        state[Row::slice(i, latent)].fill(f32::NAN);
    }
    Ok(())
}

fn unfinished(rows: &[Row]) -> impl Iterator<Item = (usize, &Row)> {
    rows.iter().enumerate().filter(|(_, row)| !row.done())
}

/// The first slope, and a first step from it (Hairer, Norsett and Wanner, 1993, II.4).
fn start(
    velocity: &mut dyn Velocity,
    tolerance: f64,
    latent: usize,
    state: &[f32],
    workspace: &mut Workspace,
) -> Result<()> {
    let len = state.len();
    let Workspace {
        x,
        slopes,
        rows,
        times,
    } = workspace;
    let (first, rest) = slopes.split_at_mut(1);
    let (first, probe) = (&mut first[0][..len], &mut rest[0][..len]);
    times.clear();
    times.resize(len / latent, 0.0);
    velocity.evaluate(times, state, first)?;

    rows.clear();
    times.clear();
    let relative = |values: &mut dyn Iterator<Item = f32>, z: &[f32]| {
        norm(
            values
                .zip(z)
                .map(|(value, z)| f64::from(value) / allowed(z.abs(), tolerance)),
        )
    };
    for (z, slope) in state.chunks_exact(latent).zip(first.chunks_exact(latent)) {
        let size = relative(&mut z.iter().copied(), z);
        let speed = relative(&mut slope.iter().copied(), z);
        let step = if size.min(speed) < 1e-5 {
            1e-6
        } else {
            0.01 * size / speed
        };
        rows.push(Row { t: 0.0, step });
        times.push(step as f32);
    }
    let x = &mut x[..len];
    for (i, row) in rows.iter().enumerate() {
        let range = Row::slice(i, latent);
        let moved = state[range.clone()].iter().zip(&first[range.clone()]);
        for (x, (z, slope)) in x[range].iter_mut().zip(moved) {
            *x = z + row.step as f32 * slope;
        }
    }
    velocity.evaluate(times, x, probe)?;
    for (i, row) in rows.iter_mut().enumerate() {
        let range = Row::slice(i, latent);
        let (z, a, b) = (&state[range.clone()], &first[range.clone()], &probe[range]);
        let speed = relative(&mut a.iter().copied(), z);
        let bend = relative(&mut b.iter().zip(a).map(|(b, a)| b - a), z) / row.step;
        let steepest = speed.max(bend);
        let step = if steepest <= 1e-15 {
            1.0
        } else {
            (0.01 / steepest).powf(0.2)
        };
        row.step = step.min(100.0 * row.step).min(1.0);
    }
    Ok(())
}

/// Evaluates the stages after the first; `x` ends as the fifth-order candidate.
fn stages(
    velocity: &mut dyn Velocity,
    latent: usize,
    state: &[f32],
    workspace: &mut Workspace,
) -> Result<()> {
    let len = state.len();
    let Workspace {
        x,
        slopes,
        rows,
        times,
    } = workspace;
    let x = &mut x[..len];
    for stage in 1..DOPRI5.c.len() {
        let (known, rest) = slopes.split_at_mut(stage);
        x.copy_from_slice(state);
        times.clear();
        for (i, row) in rows.iter().enumerate() {
            times.push((row.t + DOPRI5.c[stage] * row.step) as f32);
            let range = Row::slice(i, latent);
            for (coefficient, slope) in DOPRI5.a[stage].iter().zip(&*known) {
                let scale = (coefficient * row.step) as f32;
                for (x, slope) in x[range.clone()].iter_mut().zip(&slope[range.clone()]) {
                    *x += scale * slope;
                }
            }
        }
        velocity.evaluate(times, x, &mut rest[0][..len])?;
    }
    Ok(())
}

/// Accepts or refuses each row's candidate and sets its next step.
fn control(tolerance: f64, latent: usize, state: &mut [f32], workspace: &mut Workspace) {
    let Workspace {
        x, slopes, rows, ..
    } = workspace;
    let (first, rest) = slopes.split_at_mut(1);
    let (first, last) = (&mut first[0], rest.len() - 1);
    for (i, row) in rows.iter_mut().enumerate().filter(|(_, row)| !row.done()) {
        let range = Row::slice(i, latent);
        let error = norm(range.clone().map(|j| {
            let later: f64 = rest
                .iter()
                .zip(&ERROR[1..])
                .map(|(slope, e)| e * f64::from(slope[j]))
                .sum();
            let difference = row.step * (later + ERROR[0] * f64::from(first[j]));
            difference / allowed(state[j].abs().max(x[j].abs()), tolerance)
        }));
        if error <= 1.0 {
            row.t += row.step;
            state[range.clone()].copy_from_slice(&x[range.clone()]);
            first[range.clone()].copy_from_slice(&rest[last][range.clone()]);
        }
        row.step *= if error.is_finite() {
            (0.9 * error.powf(-0.2)).clamp(0.2, 5.0)
        } else {
            0.2
        };
        if row.step < MIN_STEP {
            state[range].fill(f32::NAN);
            row.t = 1.0;
        }
        // The last step ends at 1 exactly, and a remainder too short to matter joins it.
        if 1.0 - row.t < 1.01 * row.step {
            row.step = 1.0 - row.t;
        }
        if 1.0 - row.t < MIN_STEP {
            row.t = 1.0;
            row.step = 0.0;
        }
    }
}

/// The error that a coordinate of this magnitude may have.
fn allowed(magnitude: f32, tolerance: f64) -> f64 {
    tolerance * (1.0 + f64::from(magnitude))
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
