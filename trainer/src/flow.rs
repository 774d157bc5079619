//! Training of the velocity network by conditional flow matching.
//!
//! Lipman et al., "Flow matching for generative modeling" (ICLR 2023, arXiv 2210.02747), with
//! straight paths: x_t = (1 - t) x_0 + t x_1 from noise x_0 to a network's latent x_1, and the
//! velocity x_1 - x_0 as the target.
//!
//! Which moment of a training is kept: the loss on held-out networks says how well *these* are
//! predicted, and on a small zoo it is lowest long before samples are good. So the samples
//! themselves are measured, [`CHECKS`] times in a training: by their spread and, where there is
//! validation data, by the task. Test data never takes part.

mod state;
mod training;

use std::{f32::consts::PI, sync::mpsc, thread};

use dwf::ode::{Grid, Method, Solver, Workspace, integrate};
use serde::Serialize;

pub use self::{state::State, training::Training};
use crate::{
    adamw::Step,
    error::{Result, invalid},
    path::{Batch, Latents, PathOptions, Target},
    random::Random,
    velocity::{Device, Points, Shape, Velocity},
};

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FlowOptions {
    /// Everything random follows from it.
    pub seed: u64,
    /// Which training of a run it is: 0, or the round of straightening.
    pub round: usize,
    /// Optimiser steps.
    pub steps: usize,
    /// How batches are drawn.
    pub path: PathOptions,
    /// The optimiser at its peak; the rate rises to it linearly and falls to zero as a cosine.
    pub step: Step,
    /// Which moment of the training is kept.
    pub keep: Keep,
    /// Where it runs.
    #[serde(skip)]
    pub device: Device,
}

/// Which moment of a training is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The check whose samples are best, see [`Quality::better`]; the last without a score.
    Quality,
    /// The check with the lowest loss on held-out networks; training stops when it has risen for
    /// a while.
    HeldOutLoss,
    /// The last.
    Last,
}

/// What a flow is trained on, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The paths to learn.
    pub target: Target<'a>,
    /// Networks that the loss is watched on; may be none.
    pub held_out: &'a Latents,
    /// The network before training.
    pub start: &'a Velocity,
}

/// How good samples of a flow are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quality {
    /// Median over the coordinates of generated / zoo standard deviation.
    pub std_ratio: f64,
    /// Fraction of the samples that are nearly one of the zoo's networks.
    pub near_copies: f64,
    /// By how much their mean score on validation data is below the zoo's, relative to it; 0 if
    /// it is not.
    pub shortfall: Option<f64>,
    /// Area under the report's curve of novel and good networks, on validation data.
    pub novel_and_good: f64,
    /// What they lack on validation data on average, finer than their score tells; 0 without any.
    pub loss: f64,
}

impl Quality {
    /// Shortfalls up to this are none, and those that differ by less are the same: 64 samples tell
    /// no more.
    const SHORTFALL_STEP: f64 = 0.001;
    /// Areas are rounded to this, as 64 samples tell no more of them either.
    const AREA_STEP: f64 = 0.02;
    /// The part of the zoo's spread that samples must keep and may reach. Mixtures at 0.8 of the
    /// zoo's distance from the mean have 0.8 of its spread, and what a flow draws of them has less.
    const STD_RATIO: std::ops::RangeInclusive<f64> = 0.5..=1.15;
    /// The near copies that they may contain: one of 64, so that a hundred others will hardly have
    /// five.
    const MOST_NEAR_COPIES: f64 = 0.02;

    /// As numbers, NaN for no shortfall.
    pub fn to_numbers(self) -> [f64; 5] {
        let shortfall = self.shortfall.unwrap_or(f64::NAN);
        [
            self.std_ratio,
            self.near_copies,
            shortfall,
            self.novel_and_good,
            self.loss,
        ]
    }

    /// What [`Quality::to_numbers`] gave.
    pub fn from_numbers(numbers: [f64; 5]) -> Self {
        let [std_ratio, near_copies, shortfall, novel_and_good, loss] = numbers;
        Self {
            std_ratio,
            near_copies,
            shortfall: (!shortfall.is_nan()).then_some(shortfall),
            novel_and_good,
            loss,
        }
    }

    /// Whether these samples are better: first by what they lack in spread or have too many near
    /// copies, then by what their shortfall exceeds 0.1 % by, in steps of as much, then by the share
    /// of novel and good ones, and where that is about the same, by the loss.
    pub fn better(&self, other: &Self) -> bool {
        self.rank() < other.rank()
    }

    fn rank(&self) -> (f64, i64, i64, f64) {
        let shortfall = self.shortfall.unwrap_or(0.0) / Self::SHORTFALL_STEP;
        let area = (self.novel_and_good / Self::AREA_STEP).round();
        (self.unsound(), shortfall as i64, -area as i64, self.loss)
    }

    /// How far the spread and the near copies are out of bounds.
    fn unsound(&self) -> f64 {
        let nearest = self
            .std_ratio
            .clamp(*Self::STD_RATIO.start(), *Self::STD_RATIO.end());
        let copies = (self.near_copies - Self::MOST_NEAR_COPIES).max(0.0);
        (self.std_ratio - nearest).abs() + copies
    }
}

/// One look at a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Steps done.
    pub step: usize,
    /// Mean square a coordinate on the held-out networks; `None` without any.
    pub held_out_loss: Option<f64>,
    /// Of the samples.
    pub quality: Quality,
}

/// A trained flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Its velocity network, with the moving average of the weights.
    pub velocity: Velocity,
    /// The step that it is from.
    pub step: usize,
    /// The loss on the held-out networks, if there are any.
    pub held_out: Option<HeldOutLoss>,
}

/// The loss on the held-out latents, mean square a coordinate, during a training: it falls while
/// the flow learns what all networks have in common, and rises again while it learns these
/// networks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldOutLoss {
    /// That of a flow that stands still, as the untrained one does.
    pub standing_still: f64,
    /// The lowest that was seen.
    pub lowest: f64,
    /// The step after which it was seen; 0 if the flow was never better than standing still.
    pub lowest_step: usize,
    /// That of the flow that was kept.
    pub kept: f64,
}

/// What training reports after every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Loss of this step's batch.
    pub loss: f32,
    /// The newest check.
    pub check: Option<Check>,
    /// Whether that check was made after this step.
    pub checked: bool,
}

/// Looks at a training.
pub const CHECKS: usize = 40;
/// The number of steps that is used by default.
pub const DEFAULT_STEPS: usize = 8_000;
/// Networks that are sampled for a check.
pub const CHECK_NETWORKS: usize = 64;

const WARM_UP: usize = 100;
/// Draws of noise and time for each held-out latent.
const HELD_OUT_DRAWS: usize = 32;
/// Checks without a new lowest held-out loss after which [`Keep::HeldOutLoss`] stops.
const PATIENCE: usize = 8;
/// Samples that keep less than this of the zoo's spread, twice in succession, have collapsed.
const COLLAPSED: f64 = 0.1;
/// Random streams beside that of the network's initialisation: a check's, and one a step.
const CHECK_STREAM: u64 = 1;
const STEP_STREAMS: u64 = 1 << 40;

/// Batches that are drawn while others are worked on: one waits, and one is being drawn.
const AHEAD: usize = 2;

/// For [`memory`]: the weights, their gradient in two halves, moments, average, the average that is
/// kept, and a state's bytes.
const WEIGHT_COPIES: usize = 12;

/// The width that is used by default: enough to pass a latent through twice over, in steps of 64.
pub fn default_width(latent: usize) -> usize {
    (2 * latent).next_multiple_of(64).clamp(128, 1024)
}

/// Bytes that training takes at its peak, roughly: what hangs on the weights, all that the layers
/// make of a batch with its gradients, and of all `held_out` networks' draws at once.
pub fn memory(shape: &Shape, batch: usize, held_out: usize) -> usize {
    let weights = WEIGHT_COPIES * shape.weight_count();
    let rows = HELD_OUT_DRAWS * held_out + 2 * batch;
    let ahead = AHEAD * batch * 2 * shape.latent;
    size_of::<f32>() * (weights + rows * (3 * shape.latent + shape.columns()) + ahead)
}

/// Trains, from `state` if there is one of the same task and options. The same arguments give
/// the same bits on the same machine, in one go or resumed. `judge` measures samples of the flow;
/// `progress` is told after every step and may stop the training by an error, with the state to
/// resume from.
///
/// Errors: those of `judge`, `progress` and the device; DIVERGED if the loss is not finite or the
/// samples collapse.
pub fn train(
    task: &Task<'_>,
    options: &FlowOptions,
    state: Option<State>,
    judge: &mut dyn FnMut(&Velocity) -> Result<Quality>,
    progress: &mut dyn FnMut(&mut Training, Progress) -> Result<()>,
) -> Result<Flow> {
    let held_out = HeldOut::new(task.held_out, options);
    let state = match state {
        Some(state) => state,
        None => State::new(task.start, held_out.loss(task.start)?),
    };
    let size = task.start.shape.latent;
    let every = options.steps.div_ceil(CHECKS).max(1);
    let draw = |step: usize| {
        let stream = STEP_STREAMS + ((options.round as u64) << 32) + step as u64;
        let mut random = Random::new(options.seed, stream);
        Batch::draw(task.target, size, &options.path, &mut random)
    };
    let mut steps = state.step() + 1..=options.steps;
    let mut training = Training::new(state, options.device)?;
    thread::scope(|scope| {
        let (send, batches) = mpsc::sync_channel(AHEAD - 1);
        // Until nobody takes them.
        scope.spawn(move || steps.all(|step| send.send(draw(step)).is_ok()));
        while training.steps() < options.steps && !training.exhausted(options.keep) {
            let batch = batches.recv().expect("there is one for every step");
            let loss = training.step(&batch, options)?;
            let step = training.steps();
            let checked = step.is_multiple_of(every) || step == options.steps;
            if checked {
                let average = &training.state()?.average;
                let check = Check {
                    step,
                    held_out_loss: held_out.loss(average)?,
                    quality: judge(average)?,
                };
                training.see(check, options.keep)?;
            }
            let at = Progress {
                step,
                loss,
                check: training.last_check(),
                checked,
            };
            progress(&mut training, at)?;
        }
        training.finish()
    })
}

/// Carries noise along a velocity: latents [count, size] from noise of the same shape, under
/// `conditions` [count, condition].
///
/// Errors: those of the integration and of the device.
pub fn carry(
    velocity: &Velocity,
    noise: Vec<f32>,
    conditions: &[f32],
    solver: &Solver,
    source_std: f64,
    device: Device,
) -> Result<Vec<f32>> {
    let size = velocity.shape.latent;
    let mut state = noise;
    let mut evaluator = velocity.evaluator(device)?;
    let mut evaluate = |t: &[f32], x: &[f32], v: &mut [f32]| {
        let points = Points {
            x: x.to_vec(),
            t: t.repeat(x.len() / size / t.len()),
            condition: conditions.to_vec(),
        };
        v.copy_from_slice(&evaluator.evaluate(&points)?);
        Ok(())
    };
    let workspace = &mut Workspace::default();
    integrate(
        &mut evaluate,
        solver,
        source_std,
        size,
        &mut state,
        workspace,
    )?;
    Ok(state)
}

/// Latents of [`CHECK_NETWORKS`] samples, always from the same noise, under the conditions of
/// the zoo's networks in turn.
///
/// Errors: those of the integration.
pub fn sample(velocity: &Velocity, zoo: &Latents, options: &FlowOptions) -> Result<Vec<f32>> {
    let noise = Random::new(options.seed, CHECK_STREAM)
        .noise(CHECK_NETWORKS * zoo.size, options.path.source);
    let conditions: Vec<f32> = match &zoo.conditions {
        Some(known) => (0..CHECK_NETWORKS)
            .flat_map(|i| known.row(i % zoo.count()))
            .copied()
            .collect(),
        None => Vec::new(),
    };
    let std = options.path.source.std;
    let solver = Solver::fixed(Method::Midpoint, 16, grid(std));
    carry(velocity, noise, &conditions, &solver, std, options.device)
}

/// Where the steps of a solver should lie for this source.
pub fn grid(source_std: f64) -> Grid {
    if source_std < 0.5 {
        Grid::Stretched
    } else {
        Grid::Uniform
    }
}

/// The held-out networks, with noise and times that stay the same.
struct HeldOut {
    batch: Option<Batch>,
    device: Device,
}

impl HeldOut {
    fn new(latents: &Latents, options: &FlowOptions) -> Self {
        let mut random = Random::new(options.seed, CHECK_STREAM);
        let source = options.path.source;
        let batch = (latents.count() > 0)
            .then(|| Batch::check(latents, HELD_OUT_DRAWS, source, &mut random));
        Self {
            batch,
            device: options.device,
        }
    }

    fn loss(&self, velocity: &Velocity) -> Result<Option<f64>> {
        let Some(batch) = &self.batch else {
            return Ok(None);
        };
        let v = velocity.evaluate(&batch.points, self.device)?;
        let squares = v.iter().zip(&batch.velocity);
        let squares = squares.map(|(v, target)| f64::from(v - target).powi(2));
        Ok(Some(squares.sum::<f64>() / batch.velocity.len() as f64))
    }
}

/// Linear warm-up, then a cosine to zero: the rate of `step`, relative to the peak.
fn rate(step: usize, steps: usize) -> f32 {
    let warm_up = WARM_UP.min(steps / 10 + 1);
    if step <= warm_up {
        return step as f32 / warm_up as f32;
    }
    let fraction = (step - warm_up) as f32 / (steps - warm_up) as f32;
    0.5 * (1.0 + (PI * fraction).cos())
}

/// Options that a training can be made with.
///
/// Errors: INVALID_ARGUMENT naming the option.
pub fn check(options: &FlowOptions) -> Result<()> {
    let positive = |value: f64| value > 0.0 && value.is_finite();
    let unit = |value: f32| (0.0..1.0).contains(&value);
    let checks = [
        (options.steps > 0, "steps: give at least one"),
        (options.path.batch > 1, "batch: give at least two"),
        (
            positive(options.path.source.std),
            "source std: give a positive number",
        ),
        (
            unit(options.path.condition_dropout),
            "condition dropout: give 0 up to, not with, 1",
        ),
        (
            positive(options.step.rate.into()),
            "rate: give a positive number",
        ),
        (
            options.step.weight_decay >= 0.0,
            "weight decay: give 0 or more",
        ),
        (
            unit(options.step.average),
            "average: give 0 up to, not with, 1",
        ),
        (options.step.clip > 0.0, "clip: give a positive number"),
    ];
    match checks.into_iter().find(|(fine, _)| !fine) {
        Some((_, what)) => Err(invalid(what)),
        None => Ok(()),
    }
}
