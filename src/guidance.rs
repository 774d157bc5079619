//! The conditions of one call and classifier-free guidance (Ho and Salimans, 2022).

use crate::{
    error::{Error, Result},
    evaluator::{Evaluator, Features},
    model::Model,
    ode::Velocity,
    progress::{Callback, Meter},
};

/// The conditions of one call, checked.
pub(crate) struct Guide<'a> {
    /// One row or a row a network; empty for an artifact without conditions.
    rows: &'a [f32],
    size: usize,
    /// The row without condition and the guidance scale, where guidance is asked for.
    guidance: Option<(&'a [f32], f32)>,
}

impl<'a> Guide<'a> {
    /// Checks the conditions of `count` networks against the artifact's schema.
    ///
    /// Errors: INVALID_ARGUMENT naming the row and what is wrong.
    pub(crate) fn new(
        model: &'a Model,
        condition: Option<&'a [f32]>,
        guidance: f64,
        count: usize,
    ) -> Result<Self> {
        let unconditional = unconditional_row(model);
        let guidance = match guidance {
            1.0 => None,
            scale if !(scale as f32).is_finite() => {
                return Err(Error::argument(format!(
                    "guidance is {scale}; give a number that float32 can hold, 1 to 10 as a rule"
                )));
            }
            scale => Some((
                unconditional.ok_or_else(|| {
                    Error::argument(
                        "guidance needs an artifact trained with conditions dropped out, and this \
                         one has no unconditional row",
                    )
                })?,
                scale as f32,
            )),
        };
        let Some(schema) = &model.metadata().condition else {
            return match condition {
                None => Ok(Self {
                    rows: &[],
                    size: 0,
                    guidance: None,
                }),
                Some(_) => Err(Error::argument("this artifact takes no condition")),
            };
        };
        let size = schema.size();
        let Some(rows) = condition else {
            if guidance.is_some() {
                return Err(Error::argument(
                    "guidance strengthens a condition, and the call has none",
                ));
            }
            let rows = unconditional.ok_or_else(|| {
                Error::argument(format!("this artifact needs a condition of {size} values"))
            })?;
            return Ok(Self {
                rows,
                size,
                guidance: None,
            });
        };
        if rows.len() != size && Some(rows.len()) != size.checked_mul(count) {
            return Err(Error::argument(format!(
                "the condition has {} values; give {size}, or {size} for each of {} networks",
                rows.len(),
                count
            )));
        }
        for (i, row) in rows.chunks_exact(size).enumerate() {
            schema
                .check_row(row)
                .map_err(|e| e.at(format!("condition row {i}")))?;
        }
        Ok(Self {
            rows,
            size,
            guidance,
        })
    }

    /// Evaluations of the network for one of the velocity.
    pub(crate) fn evaluations(&self) -> usize {
        1 + usize::from(self.guidance.is_some())
    }

    /// The row that stands for no condition and the guidance scale, where guidance is at work.
    pub(crate) fn guidance(&self) -> Option<(&[f32], f32)> {
        self.guidance
    }

    /// Writes the conditions of networks `first..`, counted within the call.
    pub(crate) fn write(&self, first: usize, to: &mut [f32]) {
        if self.rows.len() == self.size {
            repeat(self.rows, to);
        } else {
            let start = first * self.size;
            to.copy_from_slice(&self.rows[start..start + to.len()]);
        }
    }
}

pub(crate) fn unconditional_row(model: &Model) -> Option<&[f32]> {
    model
        .metadata()
        .condition
        .as_ref()?
        .unconditional
        .as_deref()
}

pub(crate) fn repeat(row: &[f32], to: &mut [f32]) {
    if !row.is_empty() {
        to.chunks_exact_mut(row.len())
            .for_each(|to| to.copy_from_slice(row));
    }
}

/// The velocity of one batch: the network under its conditions, with guidance and progress.
pub(crate) struct Guided<'a, 'c> {
    pub(crate) evaluator: &'a mut Evaluator,
    pub(crate) features: &'a Features,
    pub(crate) guide: &'a Guide<'a>,
    pub(crate) first: usize,
    pub(crate) unconditional: &'a mut [f32],
    pub(crate) meter: &'a Meter,
    pub(crate) callback: Option<Callback<'c>>,
}

impl Velocity for Guided<'_, '_> {
    fn evaluate(&mut self, t: &[f32], x: &[f32], v: &mut [f32]) -> Result<()> {
        self.meter.tick(&mut self.callback)?;
        self.guide
            .write(self.first, self.evaluator.condition_mut(x.len()));
        self.evaluator.evaluate(self.features, t, x, v)?;
        let Some((row, scale)) = self.guide.guidance else {
            return Ok(());
        };
        self.meter.tick(&mut self.callback)?;
        repeat(row, self.evaluator.condition_mut(x.len()));
        let without = &mut self.unconditional[..x.len()];
        self.evaluator.evaluate(self.features, t, x, without)?;
        for (v, without) in v.iter_mut().zip(without) {
            *v = *without + scale * (*v - *without);
        }
        Ok(())
    }
}
