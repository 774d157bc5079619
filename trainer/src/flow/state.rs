//! A training between two of its steps: everything that the rest of it depends on.

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::{COLLAPSED, Check, Flow, FlowOptions, HeldOutLoss, Keep, PATIENCE, Quality, rate};
use crate::{
    adamw::{AdamW, Step},
    error::{Error, Result, Status, invalid},
    velocity::{Shape, Velocity},
};

/// A training between two of its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(super) velocity: Velocity,
    pub(super) average: Velocity,
    pub(super) adamw: AdamW,
    log: Log,
    /// The average's weights at the check that is kept so far.
    kept: Option<Vec<f32>>,
}

/// What was seen so far.
#[derive(Clone, Debug, PartialEq)]
struct Log {
    step: usize,
    standing_still: Option<f64>,
    checks: Vec<Check>,
    kept: Option<Check>,
}

/// What the file's metadata say: the rest are tensors, whose numbers are exact.
#[derive(Serialize, Deserialize)]
struct Header {
    shape: Shape,
    step: usize,
    kept_step: Option<usize>,
}

const HEADER: &str = "training";
const WEIGHTS: &str = "weights";
const AVERAGE: &str = "average";
const FIRST: &str = "first_moment";
const SECOND: &str = "second_moment";
const KEPT: &str = "kept";
/// [1 + checks, 7]: step, held-out loss, NaN without one, and the quality's numbers. The first row
/// is the standing flow.
const CHECKS: &str = "checks";
const CHECK_COLUMNS: usize = 7;

impl State {
    pub(super) fn new(start: &Velocity, held_out_loss: Option<f64>) -> Self {
        Self {
            velocity: start.clone(),
            average: start.clone(),
            adamw: AdamW::new(start.weights.len()),
            log: Log {
                step: 0,
                standing_still: held_out_loss,
                checks: Vec::new(),
                kept: None,
            },
            kept: None,
        }
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.log.step
    }

    /// All checks so far.
    pub fn checks(&self) -> &[Check] {
        &self.log.checks
    }

    /// Counts a step of the optimiser, and says how it is made.
    pub(super) fn next_step(&mut self, options: &FlowOptions) -> Step {
        self.log.step += 1;
        let step = self.log.step as f32;
        Step {
            rate: options.step.rate * rate(self.log.step, options.steps),
            // An average of few steps must not remember the untrained network.
            average: options.step.average.min(step / (step + 10.0)),
            ..options.step
        }
    }

    /// Takes note of a check, and of the weights if it is the one to keep.
    ///
    /// Errors: DIVERGED if the samples have collapsed.
    pub(super) fn see(&mut self, check: Check, keep: Keep) -> Result<()> {
        let collapsed = |check: &Check| check.quality.std_ratio < COLLAPSED;
        if collapsed(&check) && self.log.checks.last().is_some_and(collapsed) {
            return Err(Error::new(
                Status::Diverged,
                format!(
                    "the flow collapsed: at step {} generated networks spread {:.3} as much as the \
                     zoo's; use fewer --steps, a lower --rate, or more networks",
                    check.step, check.quality.std_ratio
                ),
            ));
        }
        if !check.quality.std_ratio.is_finite() {
            return Err(Error::new(
                Status::Diverged,
                format!(
                    "training diverged: samples are not finite at step {}; lower --rate",
                    check.step
                ),
            ));
        }
        self.log.checks.push(check);
        let better = match (keep, &self.log.kept) {
            // The average is the last when the training is over.
            (Keep::Last, _) => false,
            (Keep::Quality, _) if check.quality.shortfall.is_none() => false,
            (_, None) => true,
            (Keep::HeldOutLoss, Some(kept)) => check.held_out_loss < kept.held_out_loss,
            (Keep::Quality, Some(kept)) => !kept.quality.better(&check.quality),
        };
        if better {
            self.log.kept = Some(check);
            self.kept = Some(self.average.weights.clone());
        }
        Ok(())
    }

    /// Whether further steps are not expected to help.
    pub(super) fn exhausted(&self, keep: Keep) -> bool {
        let since = |kept: Check| {
            let later = self
                .log
                .checks
                .iter()
                .filter(|check| check.step > kept.step);
            later.count()
        };
        keep == Keep::HeldOutLoss && self.log.kept.is_some_and(|kept| since(kept) >= PATIENCE)
    }

    pub(super) fn finish(self) -> Flow {
        let held_out = self.held_out();
        let (step, weights) = match (self.log.kept, self.kept) {
            (Some(check), Some(weights)) => (check.step, weights),
            _ => (self.log.step, self.average.weights),
        };
        Flow {
            velocity: Velocity {
                shape: self.velocity.shape,
                weights,
            },
            step,
            held_out,
        }
    }

    fn held_out(&self) -> Option<HeldOutLoss> {
        let standing_still = self.log.standing_still?;
        let mut held_out = HeldOutLoss {
            standing_still,
            lowest: standing_still,
            lowest_step: 0,
            kept: self
                .log
                .kept
                .or(self.log.checks.last().copied())?
                .held_out_loss?,
        };
        for check in &self.log.checks {
            let loss = check.held_out_loss?;
            if loss < held_out.lowest {
                (held_out.lowest, held_out.lowest_step) = (loss, check.step);
            }
        }
        Some(held_out)
    }

    /// The state as a safetensors file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut tensors = vec![
            (WEIGHTS, &self.velocity.weights),
            (AVERAGE, &self.average.weights),
            (FIRST, &self.adamw.first),
            (SECOND, &self.adamw.second),
        ];
        tensors.extend(self.kept.as_ref().map(|kept| (KEPT, kept)));
        let checks = self.log.rows();
        let view = |dtype, shape, bytes| TensorView::new(dtype, shape, bytes).expect("its bytes");
        let mut views: Vec<(&str, TensorView<'_>)> = tensors
            .iter()
            .map(|(name, values)| {
                let bytes = bytemuck::cast_slice(values);
                (*name, view(Dtype::F32, vec![values.len()], bytes))
            })
            .collect();
        let shape = vec![checks.len() / CHECK_COLUMNS, CHECK_COLUMNS];
        let bytes = bytemuck::cast_slice(&checks);
        views.push((CHECKS, view(Dtype::F64, shape, bytes)));
        let header = Header {
            shape: self.velocity.shape,
            step: self.log.step,
            kept_step: self.log.kept.map(|kept| kept.step),
        };
        let header = serde_json::to_string(&header).expect("string keys only");
        let metadata = HashMap::from([(HEADER.to_owned(), header)]);
        safetensors::serialize(views, Some(metadata)).expect("names are distinct")
    }

    /// Reads what [`State::to_bytes`] wrote.
    ///
    /// Errors: INVALID_ARGUMENT if it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = || invalid("it is not the state of a training");
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|_| damaged())?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get(HEADER));
        let header: Header = header
            .and_then(|header| serde_json::from_str(header).ok())
            .ok_or_else(damaged)?;
        let file = SafeTensors::deserialize(bytes).map_err(|_| damaged())?;
        let data = |name: &str| {
            file.tensor(name)
                .map(|view| view.data())
                .map_err(|_| damaged())
        };
        let count = header.shape.weight_count();
        let read = |name: &str| -> Result<Vec<f32>> {
            let values = data(name)?.chunks_exact(4);
            let values: Vec<f32> = values
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            if values.len() == count {
                Ok(values)
            } else {
                Err(damaged())
            }
        };
        let checks: Vec<f64> = data(CHECKS)?
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes")))
            .collect();
        let log = Log::from_rows(&header, &checks).ok_or_else(damaged)?;
        let velocity = |weights| Velocity {
            shape: header.shape,
            weights,
        };
        Ok(Self {
            velocity: velocity(read(WEIGHTS)?),
            average: velocity(read(AVERAGE)?),
            adamw: AdamW {
                first: read(FIRST)?,
                second: read(SECOND)?,
                step: header.step,
            },
            kept: log.kept.map(|_| read(KEPT)).transpose()?,
            log,
        })
    }
}

impl Log {
    fn rows(&self) -> Vec<f64> {
        let or_nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let mut rows = vec![0.0; CHECK_COLUMNS];
        rows[1] = or_nan(self.standing_still);
        for check in &self.checks {
            rows.extend([check.step as f64, or_nan(check.held_out_loss)]);
            rows.extend(check.quality.to_numbers());
        }
        rows
    }

    fn from_rows(header: &Header, rows: &[f64]) -> Option<Self> {
        let some = |value: f64| (!value.is_nan()).then_some(value);
        let (rows, _) = rows.as_chunks::<CHECK_COLUMNS>();
        let ([_, standing_still, ..], rows) = rows.split_first()?;
        let standing_still = some(*standing_still);
        let check = |[step, held_out_loss, quality @ ..]: &[f64; CHECK_COLUMNS]| Check {
            step: *step as usize,
            held_out_loss: some(*held_out_loss),
            quality: Quality::from_numbers(*quality),
        };
        let checks: Vec<Check> = rows.iter().map(check).collect();
        let kept = match header.kept_step {
            Some(step) => Some(*checks.iter().find(|check| check.step == step)?),
            None => None,
        };
        Some(Self {
            step: header.step,
            standing_still,
            checks,
            kept,
        })
    }
}
