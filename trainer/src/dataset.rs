//! Labelled rows, to measure classifiers on.

use std::{fmt::Write, fs, path::Path};

use crate::{
    error::{Error, Result, invalid, io},
    mlp::Mlp,
};

/// Rows of features, each with its class.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Features in a row.
    pub features: usize,
    /// [rows, features] row-major.
    pub x: Vec<f32>,
    /// The class of every row.
    pub classes: Vec<usize>,
}

impl Dataset {
    /// Reads a CSV file: a header line, then a row a line, features first and the class, a whole
    /// number from 0, last.
    ///
    /// Errors: IO, INVALID_ARGUMENT naming the line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(io("read", path))?;
        Self::parse(&text).map_err(|e| e.at(format!("'{}'", path.display())))
    }

    /// The same from text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate();
        let columns = lines
            .next()
            .map_or(0, |(_, header)| header.split(',').count());
        if columns < 2 {
            return Err(invalid("line 1 is no header with features and a class"));
        }
        let mut data = Self {
            features: columns - 1,
            x: Vec::new(),
            classes: Vec::new(),
        };
        for (i, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            data.push(line).ok_or_else(|| {
                invalid(format!(
                    "line {} is not {} finite numbers and a class (a whole number from 0)",
                    i + 1,
                    data.features
                ))
            })?;
        }
        if data.classes.is_empty() {
            return Err(invalid("there are no rows after the header"));
        }
        Ok(data)
    }

    fn push(&mut self, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let (class, features) = fields.split_last()?;
        let features: Vec<f32> = features
            .iter()
            .filter_map(|field| field.parse().ok())
            .collect();
        if fields.len() != self.features + 1
            || features.len() != self.features
            || !features.iter().all(|x| x.is_finite())
        {
            return None;
        }
        self.classes.push(class.parse().ok()?);
        self.x.extend(features);
        Some(())
    }

    /// The dataset as CSV, under a header of these column names and `class`.
    pub fn to_csv(&self, names: &[&str]) -> String {
        let mut text = format!("{},class\n", names.join(","));
        for (row, class) in self.rows() {
            for x in row {
                write!(text, "{x},").expect("strings grow");
            }
            writeln!(text, "{class}").expect("strings grow");
        }
        text
    }

    /// Features and class, row by row.
    pub fn rows(&self) -> impl Iterator<Item = (&[f32], usize)> {
        self.x
            .chunks_exact(self.features)
            .zip(self.classes.iter().copied())
    }

    /// Whether networks `mlp` can be measured on these rows.
    ///
    /// Errors: INVALID_ARGUMENT if the features or classes do not fit its inputs and outputs.
    pub fn check(&self, mlp: &Mlp) -> Result<()> {
        let fail = |what: String| -> Result<(), Error> { Err(invalid(what)) };
        if self.features != mlp.inputs() {
            return fail(format!(
                "the rows have {} features and the networks {} inputs",
                self.features,
                mlp.inputs()
            ));
        }
        match self.classes.iter().find(|class| **class >= mlp.outputs()) {
            Some(class) => fail(format!(
                "class {class} is beyond the networks' {} outputs",
                mlp.outputs()
            )),
            None => Ok(()),
        }
    }

    /// Fraction of the rows whose class has the largest output of the network `weights`.
    pub fn accuracy(&self, mlp: &Mlp, weights: &[f32]) -> f64 {
        let right = self
            .rows()
            .filter(|(x, class)| argmax(&mlp.forward(weights, x)) == *class);
        right.count() as f64 / self.classes.len() as f64
    }
}

fn argmax(values: &[f32]) -> usize {
    (0..values.len())
        .max_by(|a, b| values[*a].total_cmp(&values[*b]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_round_trips_exactly() {
        let data = Dataset {
            features: 2,
            x: vec![0.1, -3.5e-7, 1.0 / 3.0, 7.0],
            classes: vec![0, 2],
        };
        assert_eq!(Dataset::parse(&data.to_csv(&["a", "b"])).unwrap(), data);
    }

    #[test]
    fn bad_lines_are_named() {
        let message = |text| Dataset::parse(text).unwrap_err().to_string();
        assert!(message("a,b,class\n1,2,0\n1,x,0\n").contains("line 3"));
        assert!(message("a,b,class\n1,0\n").contains("line 2"));
        assert!(message("a,b,class\n1,nan,0\n").contains("line 2"));
        assert!(message("a,b,class\n1,2,-1\n").contains("line 2"));
        assert!(message("a,b,class\n").contains("no rows"));
        assert!(message("").contains("line 1"));
    }
}
