//! What is known of every network of a zoo, and shall be asked of generated ones: a class, or
//! continuous values.

use std::{collections::HashMap, fs, path::Path};

use dwf::condition::{Axis, Condition, ConditionSchema};

use crate::error::{Result, invalid, io};

/// The file in a zoo's folder that conditions are read from.
pub const CONDITIONS: &str = "conditions.csv";
/// The headers of the column of files and of one of class names.
const FILE: &str = "file";
const CLASS: &str = "class";
/// What "no condition" is on the scale of continuous ones, where the zoo spans -1 to 1.
const NONE: f32 = -3.0;

/// The conditions of some networks.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// What the columns are.
    pub schema: ConditionSchema,
    /// [networks, columns] row-major: one-hot classes, or values scaled so that the zoo spans -1
    /// to 1 in each.
    pub rows: Vec<f32>,
}

/// Scale and shift that bring an axis's values to -1 to 1.
pub fn scaling(axis: &Axis) -> (f32, f32) {
    let scale = 2.0 / (axis.max - axis.min);
    (scale, -1.0 - scale * axis.min)
}

/// What can be asked for, as people write it.
pub fn choices(schema: &ConditionSchema) -> String {
    match schema {
        ConditionSchema::Classes(names) => format!("a class of {}", names.join(", ")),
        ConditionSchema::Axes(axes) => {
            let axis = |Axis { name, min, max }: &Axis| format!("{name}={min} to {max}");
            axes.iter().map(axis).collect::<Vec<_>>().join(", ")
        }
    }
}

/// The row that `text` asks an artifact for, if there is one; `None` where neither is.
///
/// Errors: INVALID_ARGUMENT with what can be asked for.
pub fn asked_for(condition: Option<&Condition>, text: Option<&str>) -> Result<Option<Vec<f32>>> {
    match (condition, text) {
        (None, Some(_)) => Err(invalid("this artifact takes no condition")),
        (Some(condition), None) if condition.unconditional.is_none() => Err(invalid(format!(
            "this artifact needs a condition: {}",
            choices(&condition.schema)
        ))),
        (Some(condition), Some(text)) => row(&condition.schema, text).map(Some),
        (_, None) => Ok(None),
    }
}

/// The row of a class's name, or of `NAME=VALUE` for every axis with commas between.
///
/// Errors: INVALID_ARGUMENT with what can be asked for.
fn row(schema: &ConditionSchema, text: &str) -> Result<Vec<f32>> {
    let wrong = |what: String| invalid(format!("condition {what}; give {}", choices(schema)));
    match schema {
        ConditionSchema::Classes(names) => {
            if !names.iter().any(|name| name == text) {
                return Err(wrong(format!("'{text}'")));
            }
            let is = |name: &String| f32::from(u8::from(name == text));
            Ok(names.iter().map(is).collect())
        }
        ConditionSchema::Axes(axes) => {
            let mut row = vec![None; axes.len()];
            for part in text.split(',') {
                let pair = part.rsplit_once('=');
                let (name, value) = pair.ok_or_else(|| wrong(format!("'{part}'")))?;
                let axis = axes.iter().position(|axis| axis.name == name.trim());
                let axis = axis.ok_or_else(|| wrong(format!("'{name}'")))?;
                let range = axes[axis].min..=axes[axis].max;
                let value = value.trim().parse().ok().filter(|v| range.contains(v));
                let value = value.ok_or_else(|| wrong(format!("'{part}'")))?;
                if row[axis].replace(value).is_some() {
                    return Err(wrong(format!("'{text}' names '{}' twice", name.trim())));
                }
            }
            let missing = axes.iter().zip(&row).find(|(_, value)| value.is_none());
            match missing {
                Some((axis, _)) => Err(wrong(format!("'{text}' lacks '{}'", axis.name))),
                None => Ok(row.into_iter().flatten().collect()),
            }
        }
    }
}

impl Conditions {
    /// Reads a CSV file with a header and a line a network: its file's name, then either a class
    /// name under the heading `class`, or one number a column. `files` are the networks' file
    /// names in order.
    ///
    /// Errors: IO; INVALID_ARGUMENT naming the line, unless every network has one line and
    /// every class two networks, and every axis varies.
    pub fn read(path: &Path, files: &[String]) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(io("read", path))?;
        Self::parse(&text, files).map_err(|e| e.at(format!("'{}'", path.display())))
    }

    /// The same from text.
    pub fn parse(text: &str, files: &[String]) -> Result<Self> {
        let mut lines = text.lines();
        let header: Vec<&str> = lines
            .next()
            .unwrap_or("")
            .split(',')
            .map(str::trim)
            .collect();
        let names = &header[1..];
        if header[0] != FILE || names.is_empty() || names.iter().any(|name| name.is_empty()) {
            return Err(invalid(
                "line 1 is no header; begin with 'file,class' or 'file' and a name a column",
            ));
        }
        let cells = cells(lines, header.len(), files)?;
        if names == [CLASS] {
            classes(&cells)
        } else {
            axes(names, &cells, files)
        }
    }

    /// Length of a row.
    pub fn size(&self) -> usize {
        match &self.schema {
            ConditionSchema::Classes(names) => names.len(),
            ConditionSchema::Axes(axes) => axes.len(),
        }
    }

    /// One network's row.
    pub fn row(&self, network: usize) -> &[f32] {
        &self.rows[network * self.size()..][..self.size()]
    }

    /// The mean row.
    pub fn mean(&self) -> Vec<f32> {
        let (size, count) = (self.size(), self.rows.len() / self.size());
        let column = |j: usize| self.rows.iter().skip(j).step_by(size);
        let mean = |j| column(j).map(|x| f64::from(*x)).sum::<f64>() / count as f64;
        (0..size).map(|j| mean(j) as f32).collect()
    }

    /// The networks' classes, if they have any.
    pub fn classes(&self) -> Option<Vec<usize>> {
        let ConditionSchema::Classes(names) = &self.schema else {
            return None;
        };
        let rows = self.rows.chunks_exact(names.len());
        Some(
            rows.filter_map(|row| row.iter().position(|x| *x == 1.0))
                .collect(),
        )
    }

    /// Those of some networks.
    pub fn take(&self, networks: &[usize]) -> Self {
        Self {
            schema: self.schema.clone(),
            rows: networks
                .iter()
                .flat_map(|i| self.row(*i).to_vec())
                .collect(),
        }
    }

    /// The row that stands for "no condition", scaled.
    pub fn none(&self) -> Vec<f32> {
        match &self.schema {
            ConditionSchema::Classes(names) => vec![0.0; names.len()],
            ConditionSchema::Axes(axes) => vec![NONE; axes.len()],
        }
    }

    /// A scaled row as the artifact's callers give it.
    pub fn unscaled(&self, row: &[f32]) -> Vec<f32> {
        match &self.schema {
            ConditionSchema::Classes(_) => row.to_vec(),
            ConditionSchema::Axes(axes) => axes
                .iter()
                .zip(row)
                .map(|(axis, value)| {
                    let (scale, shift) = scaling(axis);
                    // Rounding must not leave the range, which callers are held to.
                    let inside = (-1.0..=1.0).contains(value);
                    let value = (value - shift) / scale;
                    if inside {
                        value.clamp(axis.min, axis.max)
                    } else {
                        value
                    }
                })
                .collect(),
        }
    }

    /// What the artifact says of its conditions.
    pub fn describe(&self) -> Condition {
        Condition {
            schema: self.schema.clone(),
            unconditional: Some(self.unscaled(&self.none())),
        }
    }
}

/// The cells after the file name, a row a network in the order of `files`.
fn cells<'a>(
    lines: impl Iterator<Item = &'a str>,
    columns: usize,
    files: &[String],
) -> Result<Vec<Vec<&'a str>>> {
    let mut found: HashMap<&str, Vec<&str>> = HashMap::new();
    for (number, line) in (2..).zip(lines).filter(|(_, line)| !line.trim().is_empty()) {
        let mut cells: Vec<&str> = line.split(',').map(str::trim).collect();
        if cells.len() != columns || cells.iter().any(|cell| cell.is_empty()) {
            return Err(invalid(format!(
                "line {number} has not the {columns} values that the header names"
            )));
        }
        let file = cells.remove(0);
        if !files.iter().any(|name| name == file) {
            return Err(invalid(format!(
                "line {number}: the zoo has no network '{file}'"
            )));
        }
        if found.insert(file, cells).is_some() {
            return Err(invalid(format!("line {number}: '{file}' comes twice")));
        }
    }
    let cells = |file: &String| {
        found.remove(file.as_str()).ok_or_else(|| {
            invalid(format!(
                "network '{file}' is missing; every network of the zoo needs a line"
            ))
        })
    };
    files.iter().map(cells).collect()
}

fn classes(cells: &[Vec<&str>]) -> Result<Conditions> {
    let mut names: Vec<&str> = cells.iter().map(|cells| cells[0]).collect();
    names.sort_unstable();
    names.dedup();
    let count = |name: &str| cells.iter().filter(|cells| cells[0] == name).count();
    if let Some(name) = names.iter().find(|name| count(name) < 2) {
        return Err(invalid(format!(
            "class '{name}' has a single network; a class needs at least two"
        )));
    }
    if names.len() < 2 {
        return Err(invalid("there is a single class; nothing can be asked for"));
    }
    let one_hot = |cells: &Vec<&str>| {
        let class = cells[0];
        names
            .iter()
            .map(|name| f32::from(u8::from(*name == class)))
            .collect::<Vec<_>>()
    };
    Ok(Conditions {
        rows: cells.iter().flat_map(one_hot).collect(),
        schema: ConditionSchema::Classes(names.iter().map(|name| name.to_string()).collect()),
    })
}

fn axes(names: &[&str], cells: &[Vec<&str>], files: &[String]) -> Result<Conditions> {
    let mut values: Vec<Vec<f32>> = Vec::new();
    for (cells, file) in cells.iter().zip(files) {
        let parsed: Vec<f32> = cells.iter().filter_map(|cell| cell.parse().ok()).collect();
        if parsed.len() != cells.len() || !parsed.iter().all(|value| value.is_finite()) {
            return Err(invalid(format!(
                "network '{file}' has a value that is no finite number; class names go under the \
                 heading '{CLASS}'"
            )));
        }
        values.push(parsed);
    }
    let axis = |(i, name): (usize, &&str)| {
        let column = values.iter().map(|row| row[i]);
        let axis = Axis {
            name: name.to_string(),
            min: column.clone().fold(f32::INFINITY, f32::min),
            max: column.fold(f32::NEG_INFINITY, f32::max),
        };
        if axis.min == axis.max {
            return Err(invalid(format!(
                "column '{name}' is {} for every network; leave it out",
                axis.min
            )));
        }
        Ok(axis)
    };
    let axes: Vec<Axis> = names.iter().enumerate().map(axis).collect::<Result<_>>()?;
    let scaled = |row: &Vec<f32>| {
        let values = axes.iter().zip(row);
        values
            .map(|(axis, value)| {
                let (scale, shift) = scaling(axis);
                value * scale + shift
            })
            .collect::<Vec<f32>>()
    };
    Ok(Conditions {
        rows: values.iter().flat_map(scaled).collect(),
        schema: ConditionSchema::Axes(axes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("net-{i}")).collect()
    }

    #[test]
    fn classes_are_one_hot_in_the_networks_order() {
        let text = "file,class\nnet-2,b\nnet-0,a\nnet-1,b\nnet-3,a\n";
        let conditions = Conditions::parse(text, &files(4)).unwrap();
        assert_eq!(conditions.rows, [1., 0., 0., 1., 0., 1., 1., 0.]);
        assert_eq!(conditions.classes().unwrap(), [0, 1, 1, 0]);
        assert_eq!(conditions.describe().unconditional.unwrap(), [0.0, 0.0]);
        assert_eq!(conditions.take(&[3, 1]).classes().unwrap(), [0, 1]);
    }

    #[test]
    fn numbers_are_scaled_and_back() {
        let text = "file,speed,mass\nnet-0,10,0.5\nnet-1,20,-0.5\nnet-2,12.5,0.25\n";
        let conditions = Conditions::parse(text, &files(3)).unwrap();
        assert_eq!(conditions.rows, [-1., 1., 1., -1., -0.5, 0.5]);
        assert_eq!(conditions.unscaled(conditions.row(2)), [12.5, 0.25]);
        assert_eq!(conditions.describe().unconditional.unwrap(), [0.0, -1.5]);
    }

    #[test]
    fn what_people_ask_for() {
        let ask = |schema: &ConditionSchema, text| {
            let condition = Condition {
                schema: schema.clone(),
                unconditional: None,
            };
            asked_for(Some(&condition), text).map(Option::unwrap)
        };
        let classes = ConditionSchema::Classes(["odd", "even, or 0"].map(Into::into).into());
        assert_eq!(ask(&classes, Some("even, or 0")).unwrap(), [0.0, 1.0]);
        for text in [Some("prime"), Some(""), None] {
            let error = ask(&classes, text).unwrap_err().to_string();
            assert!(error.contains("a class of odd, even, or 0"), "{error}");
        }
        let axis = |name: &str, min, max| Axis {
            name: name.into(),
            min,
            max,
        };
        let axes = ConditionSchema::Axes(vec![axis("a=b", -1.0, 2.5), axis("größe", 0.0, 1.0)]);
        let row = ask(&axes, Some("größe=0.5, a=b=-1")).unwrap();
        assert_eq!(row, [-1.0, 0.5]);
        for (text, what) in [
            (None, "needs a condition"),
            (Some("a=b=1"), "lacks 'größe'"),
            (Some("a=b=1,größe=2"), "'größe=2'"),
            (Some("a=b=1,größe=nan"), "'größe=nan'"),
            (Some("a=b=1,größe=x"), "'größe=x'"),
            (Some("a=b=1,b=1"), "'b'"),
            (Some("a=b=1,größe"), "'größe'"),
            (Some("a=b=1,größe=1,a=b=1"), "'a=b' twice"),
        ] {
            let error = ask(&axes, text).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            assert!(error.contains("a=b=-1 to 2.5, größe=0 to 1"), "{error}");
        }
        assert_eq!(asked_for(None, None).unwrap(), None);
        assert!(asked_for(None, Some("odd")).is_err());
    }

    #[test]
    fn bad_files_are_explained() {
        let message = |text| Conditions::parse(text, &files(2)).unwrap_err().to_string();
        assert!(message("").contains("line 1"));
        assert!(message("name,class\nnet-0,a\nnet-1,b\n").contains("begin with 'file,class'"));
        assert!(message("file,class\nnet-0,a\nnet-9,a\n").contains("line 3: the zoo has no"));
        assert!(message("file,class\nnet-0,a\nnet-0,a\n").contains("line 3: 'net-0' comes twice"));
        assert!(message("file,class\nnet-0,a\n").contains("'net-1' is missing"));
        assert!(message("file,class\nnet-0,a\nnet-1,b\n").contains("class 'a' has a single"));
        assert!(message("file,class\nnet-0,a\nnet-1,a\n").contains("single class"));
        assert!(message("file,x\nnet-0,1\nnet-1,nan\n").contains("'net-1' has a value"));
        assert!(message("file,x\nnet-0,1\nnet-1,1\n").contains("column 'x' is 1"));
        assert!(message("file,x\nnet-0,1,2\nnet-1,1\n").contains("line 2"));
    }
}
