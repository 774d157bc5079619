//! Flow matching learns a distribution, reproducibly, and can be stopped and resumed.

mod common;

use dwf::ode::{Grid, Method, Solver};
use dwf_trainer::{
    error::{Result, Status},
    flow::{self, Flow, FlowOptions, Keep, Progress, Quality, State, Task, Training},
    interrupt,
    path::{Coupling, Latents, Target},
    reflow,
    train::TrainOptions,
    velocity::{Device, Velocity},
};

/// Of the second moment of samples and target, and three more figures below.
const SAMPLES: usize = 1000;

fn options() -> FlowOptions {
    let mut options = TrainOptions::default().flow;
    options.seed = 1;
    options.steps = 600;
    options.keep = Keep::Last;
    options
}

/// [count, 2]: unit variances, correlation 0.9.
fn gaussian(count: usize) -> Vec<f32> {
    let noise = common::normals(2 * count, 8);
    let correlated = |pair: &[f32]| [pair[0], 0.9 * pair[0] + 0.19f32.sqrt() * pair[1]];
    noise.chunks_exact(2).flat_map(correlated).collect()
}

fn latents(values: &[f32]) -> Latents {
    Latents {
        size: 2,
        values: values.to_vec(),
        conditions: None,
    }
}

const FINE: Quality = Quality {
    std_ratio: 1.0,
    near_copies: 0.0,
    shortfall: None,
    novel_and_good: 0.0,
    loss: 0.0,
};

/// A training that is told what its samples are worth at every step that is checked.
fn train(
    training: &[f32],
    held_out: &[f32],
    options: &FlowOptions,
    state: Option<State>,
    judge: impl Fn(usize) -> Quality,
    mut progress: impl FnMut(&State, Progress) -> Result<()>,
) -> Result<Flow> {
    let (training, held_out) = (latents(training), latents(held_out));
    let start = Velocity::untrained(common::shape(2, 32), options.seed);
    let task = Task {
        target: Target::Zoo(&training),
        held_out: &held_out,
        start: &start,
    };
    let mut check = 0;
    let mut judge = |_: &Velocity| {
        check += 1;
        Ok(judge(check))
    };
    let mut progress = |training: &mut Training, at: Progress| progress(training.state()?, at);
    flow::train(&task, options, state, &mut judge, &mut progress)
}

fn trained(training: &[f32], held_out: &[f32], options: &FlowOptions) -> Flow {
    train(training, held_out, options, None, |_| FINE, |_, _| Ok(())).unwrap()
}

#[test]
fn a_correlated_gaussian_is_learned() {
    let (training, held_out) = (gaussian(400), gaussian(450)[800..].to_vec());
    for coupling in [Coupling::Independent, Coupling::Ot] {
        let mut options = options();
        options.path.coupling = coupling;
        let flow = trained(&training, &held_out, &options);
        let solver = Solver::fixed(Method::Rk4, 16, Grid::Uniform);
        let noise = common::normals(2 * SAMPLES, 11);
        let state = flow::carry(&flow.velocity, noise, &[], &solver, 1.0, Device::Cpu).unwrap();
        let mean =
            |f: &dyn Fn(&[f32]) -> f32| state.chunks_exact(2).map(f).sum::<f32>() / SAMPLES as f32;
        // Sampling errors of 1000 draws are 0.03 to 0.05; a short training adds as much.
        for i in 0..2 {
            assert!(mean(&|x| x[i]).abs() < 0.15);
            let variance = mean(&|x| x[i] * x[i]);
            assert!((0.8..1.2).contains(&variance), "variance {variance}");
        }
        let covariance = mean(&|x| x[0] * x[1]);
        assert!((0.7..1.1).contains(&covariance), "covariance {covariance}");
        let held_out = flow.held_out.unwrap();
        // 50 latents of unit variance: three sampling errors of their mean square plus 1.
        assert!(
            (1.4..2.6).contains(&held_out.standing_still),
            "{held_out:?}"
        );
        assert!(held_out.lowest <= held_out.kept);
        if coupling == Coupling::Independent {
            // pi / 2 is the least for independent coordinates; 2 is a flow that stands still.
            assert!(held_out.kept < 1.5, "{held_out:?}");
        }
    }
}

/// Straightened on its own trajectories, a flow takes noise to where it took it before, and four
/// evaluations follow it several times better.
#[test]
fn reflow_straightens() {
    let training = gaussian(400);
    let mut options = options();
    let curved = trained(&training, &[], &options).velocity;
    let ends = |velocity: &Velocity, solver| {
        let noise = common::normals(2 * SAMPLES, 11);
        flow::carry(velocity, noise, &[], &solver, 1.0, Device::Cpu).unwrap()
    };
    let difference = |a: &[f32], b: &[f32]| {
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>();
        let apart = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
        (apart / norm(&mut b.iter().copied())).sqrt()
    };
    let fine = Solver::fixed(Method::Rk4, 32, Grid::Uniform);
    let cheap = Solver::fixed(Method::Midpoint, 2, Grid::Uniform);
    let error = |velocity: &Velocity| difference(&ends(velocity, cheap), &ends(velocity, fine));
    options.round = 1;
    let zoo = latents(&training);
    let pairs = reflow::pairs(&curved, &zoo, &fine, &options, &mut || Ok(())).unwrap();
    let task = Task {
        target: Target::Pairs(&pairs),
        held_out: &latents(&[]),
        start: &curved,
    };
    let straight = flow::train(&task, &options, None, &mut |_| Ok(FINE), &mut |_, _| Ok(()));
    let straight = straight.unwrap().velocity;
    let (before, after) = (error(&curved), error(&straight));
    assert!(after < before / 3.0, "{before} and {after}");
    let moved = difference(&ends(&straight, fine), &ends(&curved, fine));
    assert!(moved < 0.1, "{moved}");
}

/// Two training points far from the held-out one: the more is learned of them, the worse.
const FAR: [f32; 4] = [3.0, 3.0, 3.0, 3.1];
const ALONE: [f32; 2] = [-1.0, 0.5];

#[test]
fn keeping_the_lowest_held_out_loss_stops_early() {
    let mut options = options();
    let last = trained(&FAR, &ALONE, &options);
    let held_out = last.held_out.unwrap();
    assert_eq!(last.step, options.steps);
    assert!(held_out.kept > 2.0 * held_out.lowest, "{held_out:?}");
    options.keep = Keep::HeldOutLoss;
    let mut steps = 0;
    let count = |_: &State, at: Progress| {
        steps = at.step;
        Ok(())
    };
    let early = train(&FAR, &ALONE, &options, None, |_| FINE, count).unwrap();
    assert!(steps < options.steps / 2, "{steps}");
    assert!(early.held_out.unwrap().kept < held_out.kept);
}

#[test]
fn the_best_samples_are_kept() {
    let mut options = options();
    options.steps = 40;
    options.keep = Keep::Quality;
    let kept = |judge: fn(usize) -> Quality| {
        let flow = train(&FAR, &ALONE, &options, None, judge, |_, _| Ok(())).unwrap();
        flow.step
    };
    fn quality(std_ratio: f64, shortfall: f64, novel_and_good: f64, loss: f64) -> Quality {
        Quality {
            std_ratio,
            near_copies: 0.0,
            shortfall: Some(shortfall),
            novel_and_good,
            loss,
        }
    }
    // One check a step: 0.1 % is no difference, and then novel and good ones decide; of those 0.01
    // is none either, and then the loss does.
    assert_eq!(
        kept(|check| match check {
            7 => quality(0.9, 0.0101, 0.1, 0.0),
            9 => quality(0.8, 0.0109, 0.2, 0.3),
            11 => quality(0.8, 0.0103, 0.205, 0.4),
            13 => quality(0.8, 0.0109, 0.196, 0.2),
            15 => quality(0.8, 0.0103, 0.2, 0.5),
            30 => quality(0.4, 0.0, 0.3, 0.0),
            _ => quality(0.9, 0.02, 0.3, 0.1),
        }),
        13
    );
    // Without a score it is the last.
    assert_eq!(kept(|_| FINE), 40);
}

#[test]
fn a_collapse_is_reported() {
    let mut options = options();
    options.steps = 40;
    let collapsed = |check: usize| Quality {
        std_ratio: if check < 5 { 0.9 } else { 0.01 },
        ..FINE
    };
    let error = train(&FAR, &ALONE, &options, None, collapsed, |_, _| Ok(())).unwrap_err();
    assert_eq!(error.status(), Status::Diverged);
    assert!(
        error.to_string().contains("collapsed: at step 6"),
        "{error}"
    );
}

#[test]
fn the_same_seed_gives_the_same_bits_in_one_go_or_resumed() {
    let (training, held_out) = (gaussian(20), gaussian(25)[40..].to_vec());
    let mut options = options();
    options.steps = 60;
    let whole = trained(&training, &held_out, &options);
    // Not assert_eq: it would print all weights.
    assert!(whole == trained(&training, &held_out, &options));
    for stop in [1, 31, 60] {
        let mut saved = None;
        let keep = |state: &State, at: Progress| {
            if at.step == stop {
                saved = Some(state.to_bytes());
                return Err(interrupt::error("the state"));
            }
            Ok(())
        };
        let error = train(&training, &held_out, &options, None, |_| FINE, keep).unwrap_err();
        assert_eq!(error.status(), Status::Cancelled);
        let state = State::from_bytes(&saved.unwrap()).unwrap();
        assert_eq!(state.step(), stop);
        let go_on = |_: &State, _: Progress| Ok(());
        let resumed = train(&training, &held_out, &options, Some(state), |_| FINE, go_on);
        assert!(resumed.unwrap() == whole, "stopped at {stop}");
    }
    options.seed = 2;
    assert!(trained(&training, &held_out, &options) != whole);
}

#[test]
fn damaged_states_are_refused() {
    let (training, held_out) = (gaussian(20), gaussian(25)[40..].to_vec());
    let mut options = options();
    options.steps = 1;
    let mut bytes = Vec::new();
    let keep = |state: &State, _: Progress| {
        bytes = state.to_bytes();
        Ok(())
    };
    train(&training, &held_out, &options, None, |_| FINE, keep).unwrap();
    for cut in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        assert!(State::from_bytes(&bytes[..cut]).is_err());
    }
}
