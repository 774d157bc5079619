//! The solvers on fields whose solutions are known.

use dwf::{
    Error, Result, Status,
    ode::{Grid, MAX_STEPS, Method, Solver, Workspace, integrate},
};

const METHODS: [Method; 4] = [Method::Euler, Method::Midpoint, Method::Heun, Method::Rk4];

fn run(
    solver: Solver,
    source_std: f64,
    state: &mut [f32],
    mut velocity: impl FnMut(f32, &[f32], &mut [f32]) -> Result<()>,
) -> Result<()> {
    let latent = state.len();
    integrate(
        &mut |t: &[f32], x: &[f32], v: &mut [f32]| velocity(t[0], x, v),
        &solver,
        source_std,
        latent,
        state,
        &mut Workspace::default(),
    )
}

fn solver(method: Method, steps: usize, grid: Grid) -> Solver {
    Solver::fixed(method, steps, grid)
}

/// Largest error on x' = -x^2 (1 + 4t), nonlinear and not autonomous, whose solution is
/// x(t) = 1 / (1 / x(0) + t + 2t^2).
fn error(solver: Solver) -> f64 {
    let start = [0.5f32, 1.0, 2.0];
    let mut state = start;
    run(solver, 0.2, &mut state, |t, x, v| {
        for (v, x) in v.iter_mut().zip(x) {
            *v = -x * x * (1.0 + 4.0 * t);
        }
        Ok(())
    })
    .unwrap();
    let solution = |x: f32| 1.0 / (1.0 / f64::from(x) + 3.0);
    start
        .iter()
        .zip(state)
        .map(|(start, end)| (f64::from(end) - solution(*start)).abs())
        .fold(0.0, f64::max)
}

/// Halving the step divides the error by 2^order. The step counts are large enough for the leading
/// term to rule, and small enough for the error to stay far above the rounding to f32 (3e-8).
#[test]
fn orders_of_convergence() {
    for grid in [Grid::Uniform, Grid::Stretched] {
        for (method, order, steps) in [
            (Method::Euler, 1.0, 256),
            (Method::Midpoint, 2.0, 64),
            (Method::Heun, 2.0, 64),
            (Method::Rk4, 4.0, 8),
        ] {
            let coarse = error(solver(method, steps, grid));
            let fine = error(solver(method, 2 * steps, grid));
            let measured = (coarse / fine).log2();
            assert!(
                (measured - order).abs() < 0.2,
                "{method:?} on {grid:?}: order {measured:.2}, errors {coarse:.1e} and {fine:.1e}"
            );
        }
    }
}

/// Where one step of each method looks: its stages, in order.
#[test]
fn stages() {
    for (method, stages) in [
        (Method::Euler, &[0.0][..]),
        (Method::Midpoint, &[0.0, 0.5]),
        (Method::Heun, &[0.0, 1.0]),
        (Method::Rk4, &[0.0, 0.5, 0.5, 1.0]),
    ] {
        let one = solver(method, 1, Grid::Uniform);
        assert_eq!(times(one, 1.0), stages);
        assert_eq!(method.stages(), stages.len());
        let many = solver(method, 7, Grid::Uniform);
        assert_eq!(times(many, 1.0).len(), 7 * stages.len());
        assert_eq!(many.evaluations(), Some(7 * stages.len()));
    }
}

/// The times at which the velocity is evaluated.
fn times(solver: Solver, source_std: f64) -> Vec<f32> {
    let mut times = Vec::new();
    run(solver, source_std, &mut [0.0], |t, _, v| {
        times.push(t);
        v[0] = 0.0;
        Ok(())
    })
    .unwrap();
    times
}

#[test]
fn the_stretched_grid() {
    for s in [0.001f64, 0.01, 0.2, 1.0, 10.0] {
        let found = times(solver(Method::Euler, 16, Grid::Stretched), s);
        assert_eq!(found[0], 0.0);
        for (i, t) in found.iter().enumerate() {
            let expected = s * ((1.0 + 1.0 / s).powf(i as f64 / 16.0) - 1.0);
            // One rounding to f32, and what (1 + 1/s)^x loses in f64.
            assert!(
                (f64::from(*t) - expected).abs() <= 1e-7 * expected,
                "s {s}: {t}"
            );
        }
    }
}

/// Whatever the source, grids run from 0 to 1 without stopping: a velocity of 1 moves by 1.
#[test]
fn grids_end_at_one() {
    for s in [1e-300, 1e-9, 1.0, 1e9, 1e300] {
        for grid in [Grid::Uniform, Grid::Stretched] {
            for method in METHODS {
                let mut state = [0.0];
                run(solver(method, 10, grid), s, &mut state, |t, _, v| {
                    assert!((0.0..=1.0).contains(&t), "t is {t}");
                    v[0] = 1.0;
                    Ok(())
                })
                .unwrap();
                assert!(
                    (state[0] - 1.0).abs() < 1e-6,
                    "{grid:?}, s {s}: {}",
                    state[0]
                );
            }
        }
    }
}

#[test]
fn step_counts_out_of_range() {
    for steps in [0, MAX_STEPS + 1, usize::MAX] {
        let solver = solver(Method::Rk4, steps, Grid::Uniform);
        let mut state = [1.0];
        let error = run(solver, 1.0, &mut state, |_, _, _| panic!("evaluated")).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
        assert_eq!(state, [1.0]);
    }
}

#[test]
fn an_error_of_the_velocity_ends_the_integration() {
    let mut calls = 0;
    let result = run(
        solver(Method::Rk4, 5, Grid::Uniform),
        1.0,
        &mut [1.0],
        |_, _, _| {
            calls += 1;
            match calls {
                6 => Err(Error::new(Status::Cancelled, "enough")),
                _ => Ok(()),
            }
        },
    );
    assert_eq!(result.unwrap_err().message(), "enough");
    assert_eq!(calls, 6);
}

/// A workspace that has served a larger state gives the same result for a smaller one.
#[test]
fn a_workspace_is_reused() {
    let mut workspace = Workspace::default();
    workspace.reserve(Method::Rk4, 1, 100).unwrap();
    let bytes = workspace.bytes();
    for (method, len) in METHODS.into_iter().zip([100, 7, 100, 50]) {
        let velocity = |t: f32, x: &[f32], v: &mut [f32]| -> Result<()> {
            v.iter_mut().zip(x).for_each(|(v, x)| *v = x * t);
            Ok(())
        };
        let mut same = |t: &[f32], x: &[f32], v: &mut [f32]| velocity(t[0], x, v);
        let solver = solver(method, 5, Grid::Uniform);
        let (mut found, mut fresh) = (vec![1f32; len], vec![1f32; len]);
        integrate(&mut same, &solver, 1.0, len, &mut found, &mut workspace).unwrap();
        run(solver, 1.0, &mut fresh, velocity).unwrap();
        assert_eq!(found, fresh);
        assert_eq!(workspace.bytes(), bytes);
    }
}

/// x' = -rate (x - cos(5t)), a row a rate: stiffer rows need shorter steps.
fn relax(rates: &[f32]) -> impl FnMut(&[f32], &[f32], &mut [f32]) -> Result<()> {
    move |t, x, v| {
        for (i, rate) in rates.iter().enumerate() {
            v[i] = -rate * (x[i] - (5.0 * t[i % t.len()]).cos());
        }
        Ok(())
    }
}

fn adaptive(tolerance: f64, rates: &[f32]) -> Vec<f32> {
    let mut state = vec![2.0; rates.len()];
    let solver = Solver::adaptive(tolerance);
    let mut workspace = Workspace::default();
    integrate(
        &mut relax(rates),
        &solver,
        1.0,
        1,
        &mut state,
        &mut workspace,
    )
    .unwrap();
    state
}

/// The exact solution is a cosine, a sine and an exponential. A controlled step errs by at most
/// the tolerance (times 1 + |x|, at most 3), and these fields contract, so errors do not add up
/// over more than the tens of steps taken.
#[test]
fn adaptive_steps_keep_their_tolerance() {
    let rates = [0.1f32, 1.0, 10.0, 100.0];
    let mut errors = Vec::new();
    for tolerance in [1e-2, 1e-4, 1e-6] {
        for (rate, found) in rates.iter().zip(adaptive(tolerance, &rates)) {
            let rate = f64::from(*rate);
            let forced = |t: f64| {
                rate * (rate * (5.0 * t).cos() + 5.0 * (5.0 * t).sin()) / (rate * rate + 25.0)
            };
            let exact = forced(1.0) + (2.0 - forced(0.0)) * (-rate).exp();
            let error = (f64::from(found) - exact).abs();
            assert!(error < 30.0 * tolerance, "{rate} {tolerance}: {error:.1e}");
            errors.push(error);
        }
    }
    // And a looser tolerance does less work: its errors are larger.
    assert!(errors[..4].iter().sum::<f64>() > 10.0 * errors[8..].iter().sum::<f64>());
}

#[test]
fn adaptive_rows_do_not_depend_on_each_other() {
    let together = adaptive(1e-4, &[0.1, 100.0, 3.0]);
    for (rate, found) in [0.1f32, 100.0, 3.0].iter().zip(together) {
        assert_eq!(adaptive(1e-4, &[*rate]), [found]);
    }
}

#[test]
fn an_adaptive_row_that_cannot_be_followed_is_nan() {
    let mut state = [1.0f32, 1.0];
    let mut explode = |_: &[f32], x: &[f32], v: &mut [f32]| -> Result<()> {
        // x' = x^2 from 1 reaches infinity at t = 1; twice as fast at t = 1/2.
        v[0] = 2.0 * x[0] * x[0];
        v[1] = -x[1];
        Ok(())
    };
    let solver = Solver::adaptive(1e-4);
    let mut workspace = Workspace::default();
    integrate(&mut explode, &solver, 1.0, 1, &mut state, &mut workspace).unwrap();
    assert!(!state[0].is_finite());
    assert!((state[1] - (-1f32).exp()).abs() < 1e-3);
}

#[test]
fn tolerances_out_of_range_are_refused() {
    for tolerance in [0.0, 1e-7, 0.2, -1.0, f64::NAN, f64::INFINITY] {
        let error = Solver::adaptive(tolerance).check().unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument, "{tolerance}");
    }
}
