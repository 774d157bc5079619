//! Condition vectors: what their columns mean, and whether a caller's rows are within it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a condition vector means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// The columns of the vector.
    #[serde(flatten)]
    pub schema: ConditionSchema,
    /// The row that stands for "no condition", if the flow was trained with one dropped out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconditional: Option<Vec<f32>>,
}

/// The columns of a condition vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionSchema {
    /// One-hot over these class names.
    Classes(Vec<String>),
    /// One continuous value a column.
    Axes(Vec<Axis>),
}

/// A continuous condition and the range it was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// Its name.
    pub name: String,
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
}

impl Condition {
    /// Length of the condition vector.
    pub fn size(&self) -> usize {
        match &self.schema {
            ConditionSchema::Classes(names) => names.len(),
            ConditionSchema::Axes(axes) => axes.len(),
        }
    }
}

impl Condition {
    /// Checks the schema itself; `Err` says what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.size() == 0 {
            return Err("no classes and no axes".into());
        }
        if let ConditionSchema::Axes(axes) = &self.schema {
            let empty = |axis: &&Axis| {
                !(axis.min.is_finite() && axis.max.is_finite() && axis.min <= axis.max)
            };
            if let Some(axis) = axes.iter().find(empty) {
                return Err(format!("axis '{}' has no range", axis.name));
            }
        }
        match &self.unconditional {
            Some(row) if row.len() != self.size() => Err(format!(
                "the unconditional row has {} values instead of {}",
                row.len(),
                self.size()
            )),
            Some(row) if !row.iter().all(|value| value.is_finite()) => {
                Err("the unconditional row has a value that is not finite".into())
            }
            _ => Ok(()),
        }
    }

    /// A row that is within the schema.
    pub(crate) fn any_row(&self) -> Vec<f32> {
        match &self.schema {
            ConditionSchema::Classes(names) => (0..names.len())
                .map(|i| f32::from(u8::from(i == 0)))
                .collect(),
            ConditionSchema::Axes(axes) => axes.iter().map(|axis| axis.min).collect(),
        }
    }

    /// Checks a caller's row against the schema.
    ///
    /// Errors: INVALID_ARGUMENT naming the column and its range.
    pub(crate) fn check_row(&self, row: &[f32]) -> Result<()> {
        match &self.schema {
            ConditionSchema::Classes(names) => {
                let ones = row.iter().filter(|value| **value == 1.0).count();
                let zeros = row.iter().filter(|value| **value == 0.0).count();
                if ones == 1 && ones + zeros == row.len() {
                    return Ok(());
                }
                Err(Error::argument(format!(
                    "it is not one-hot over the classes {}: one value is 1, the others 0",
                    names.join(", ")
                )))
            }
            ConditionSchema::Axes(axes) => {
                let outside =
                    |(axis, value): &(&Axis, &f32)| !(axis.min..=axis.max).contains(*value);
                match axes.iter().zip(row).find(outside) {
                    None => Ok(()),
                    Some((axis, value)) => Err(Error::argument(format!(
                        "'{}' is {value}, outside {} to {}",
                        axis.name, axis.min, axis.max
                    ))),
                }
            }
        }
    }
}
