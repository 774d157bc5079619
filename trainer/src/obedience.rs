//! How well generated networks obey the condition that was asked for.
//!
//! A ridge regression from the zoo's latents to its conditions reads the condition off any
//! network; the zoo's own networks, each read without itself, say what it can tell at all.

use dwf::condition::ConditionSchema;
use faer::{Mat, Side, linalg::solvers::Solve};

use crate::{
    condition::Conditions,
    error::{Error, Result, Status},
    path::Latents,
};

/// Ridge relative to the mean squared length of a latent.
const RIDGE: f64 = 0.1;

/// Figures for `dwf.quality`: of networks with these latents and the conditions asked of them
/// (scaled rows), against the zoo. With classes the share that is read as the class asked for;
/// with continuous conditions slope and correlation of what is read over what was asked.
///
/// Errors: INTERNAL if the regression has no solution.
pub fn measure(zoo: &Latents, generated: &[f32], asked: &[f32]) -> Result<Vec<(String, f64)>> {
    let Some(known) = &zoo.conditions else {
        return Ok(Vec::new());
    };
    let reader = Reader::fit(zoo, known)?;
    let own = compare(known, &reader.own(known), &known.rows);
    let new = compare(known, &reader.read(zoo, generated), asked);
    let named = |who: &'static str, figures: Vec<(String, f64)>| {
        let named = figures.into_iter();
        named.map(move |(name, value)| (format!("condition.{name}.{who}"), value))
    };
    Ok(named("zoo", own).chain(named("generated", new)).collect())
}

/// The regression, in its dual form: there are fewer networks than latents.
struct Reader {
    /// [networks, columns]
    weights: Mat<f64>,
    /// Diagonal of the inverse of the ridged Gram matrix.
    inverse: Vec<f64>,
    mean: Vec<f64>,
}

impl Reader {
    fn fit(zoo: &Latents, known: &Conditions) -> Result<Self> {
        let (count, columns) = (zoo.count(), known.size());
        let z = Mat::from_fn(count, zoo.size, |i, j| f64::from(zoo.row(i)[j]));
        let mut gram = &z * z.transpose();
        let ridge = RIDGE * (0..count).map(|i| gram[(i, i)]).sum::<f64>() / count as f64;
        (0..count).for_each(|i| gram[(i, i)] += ridge);
        let factor = gram.llt(Side::Lower).map_err(|e| {
            let what = format!("conditions cannot be read off the zoo ({e:?})");
            Error::new(Status::Internal, what)
        })?;
        let column = |j: usize| known.rows.iter().skip(j).step_by(columns);
        let mean: Vec<f64> = (0..columns)
            .map(|j| column(j).map(|x| f64::from(*x)).sum::<f64>() / count as f64)
            .collect();
        let targets = Mat::from_fn(count, columns, |i, j| f64::from(known.row(i)[j]) - mean[j]);
        let inverse = factor.solve(Mat::<f64>::identity(count, count));
        Ok(Self {
            weights: factor.solve(&targets),
            inverse: (0..count).map(|i| inverse[(i, i)]).collect(),
            mean,
        })
    }

    /// What is read off networks with these latents, [networks, columns].
    fn read(&self, zoo: &Latents, latents: &[f32]) -> Vec<f64> {
        let read = |row: &[f32]| {
            let mut condition = self.mean.clone();
            for i in 0..zoo.count() {
                let similarity = f64::from(crate::mlp::dot(row, zoo.row(i)));
                for (j, value) in condition.iter_mut().enumerate() {
                    *value += similarity * self.weights[(i, j)];
                }
            }
            condition
        };
        latents.chunks_exact(zoo.size).flat_map(read).collect()
    }

    /// What is read off each of the zoo's networks by a regression without it.
    fn own(&self, known: &Conditions) -> Vec<f64> {
        let columns = known.size();
        let read = |at: usize| {
            let (i, j) = (at / columns, at % columns);
            f64::from(known.rows[at]) - self.weights[(i, j)] / self.inverse[i]
        };
        (0..known.rows.len()).map(read).collect()
    }
}

fn compare(known: &Conditions, read: &[f64], asked: &[f32]) -> Vec<(String, f64)> {
    let columns = known.size();
    match &known.schema {
        ConditionSchema::Classes(_) => {
            let rows = read.chunks_exact(columns).zip(asked.chunks_exact(columns));
            let right = rows.filter(|(read, asked)| {
                let best = (0..columns).max_by(|a, b| read[*a].total_cmp(&read[*b]));
                best.is_some_and(|best| asked[best] == 1.0)
            });
            let share = right.count() as f64 / (read.len() / columns) as f64;
            vec![("class.obeyed".into(), share)]
        }
        ConditionSchema::Axes(axes) => axes
            .iter()
            .enumerate()
            .flat_map(|(j, axis)| {
                let column = asked.iter().skip(j).step_by(columns).map(|x| f64::from(*x));
                let values = column.zip(read.iter().skip(j).step_by(columns).copied());
                let [slope, correlation] = line(&values.collect::<Vec<_>>());
                [
                    (format!("{}.slope", axis.name), slope),
                    (format!("{}.correlation", axis.name), correlation),
                ]
            })
            .collect(),
    }
}

/// Slope and correlation of y over x.
fn line(points: &[(f64, f64)]) -> [f64; 2] {
    let count = points.len() as f64;
    let mean = |f: fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let moment = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        points.iter().map(|p| f(p.0 - x, p.1 - y)).sum::<f64>()
    };
    let (xx, xy, yy) = (
        moment(&|x, _| x * x),
        moment(&|x, y| x * y),
        moment(&|_, y| y * y),
    );
    let divide = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    [divide(xy, xx), divide(xy, (xx * yy).sqrt())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Latents whose first coordinate follows the condition, and the file that says so.
    fn zoo(text: impl Fn(usize) -> String, header: &str, first: impl Fn(usize) -> f32) -> Latents {
        let files: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let mut csv = format!("{header}\n");
        files.iter().enumerate().for_each(|(i, file)| {
            csv += &format!("{file},{}\n", text(i));
        });
        let mut values = Random::new(5, 0).normal(40 * 6, 0.3);
        values
            .chunks_exact_mut(6)
            .enumerate()
            .for_each(|(i, row)| row[0] = first(i));
        Latents {
            size: 6,
            values,
            conditions: Some(Conditions::parse(&csv, &files).unwrap()),
        }
    }

    fn figure(figures: &[(String, f64)], name: &str) -> f64 {
        figures.iter().find(|(key, _)| key == name).unwrap().1
    }

    #[test]
    fn obeyed_classes_are_told_from_ignored_ones() {
        let zoo = zoo(
            |i| ["a", "b"][i % 2].into(),
            "file,class",
            |i| [1.5, -1.5][i % 2],
        );
        let asked = [1.0, 0.0].repeat(10);
        let generated = |first: f32| [first, 0.1, -0.2, 0.0, 0.1, 0.3].repeat(10);
        let obeyed = measure(&zoo, &generated(1.4), &asked).unwrap();
        assert_eq!(figure(&obeyed, "condition.class.obeyed.generated"), 1.0);
        assert!(figure(&obeyed, "condition.class.obeyed.zoo") > 0.95);
        let ignored = measure(&zoo, &generated(-1.4), &asked).unwrap();
        assert_eq!(figure(&ignored, "condition.class.obeyed.generated"), 0.0);
    }

    #[test]
    fn a_followed_axis_has_a_slope() {
        let value = |i: usize| i as f32 / 20.0 - 1.0;
        let zoo = zoo(|i| format!("{}", i * 10), "file,speed", value);
        let asked = [-1.0f32, -0.5, 0.0, 0.5, 1.0];
        let generated = |gain: f32| -> Vec<f32> {
            let row = |asked: &f32| [gain * asked, 0.1, 0.0, -0.1, 0.2, 0.0];
            asked.iter().flat_map(row).collect()
        };
        let slope = |gain| {
            let figures = measure(&zoo, &generated(gain), &asked).unwrap();
            figure(&figures, "condition.speed.slope.generated")
        };
        // The regression's own slope is below 1 by its ridge.
        assert!((0.6..1.2).contains(&slope(1.0)), "{}", slope(1.0));
        assert!(slope(0.0).abs() < 1e-6);
        assert!(slope(-1.0) < -0.6);
    }
}
