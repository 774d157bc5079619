//! Rows as comma-separated values.

use std::{fmt::Write, fs, path::Path};

use super::Dataset;
use crate::error::{Result, invalid, io};

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
        let header = lines.next().map_or("", |(_, header)| header);
        let mut names: Vec<String> = header.split(',').map(|name| name.trim().into()).collect();
        names.pop();
        if names.is_empty() {
            return Err(invalid("line 1 is no header with features and a class"));
        }
        let mut data = Self {
            features: names.len(),
            names,
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

    /// The dataset as CSV; numbers read back as the same bits.
    pub fn to_csv(&self) -> String {
        let mut text = format!("{},class\n", self.names.join(","));
        for (row, class) in self.rows() {
            for x in row {
                write!(text, "{x},").expect("strings grow");
            }
            writeln!(text, "{class}").expect("strings grow");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_round_trips_exactly() {
        let data = Dataset {
            names: vec!["a".into(), "b".into()],
            features: 2,
            x: vec![0.1, -3.5e-7, 1.0 / 3.0, 7.0],
            classes: vec![0, 2],
        };
        assert_eq!(Dataset::parse(&data.to_csv()).unwrap(), data);
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
