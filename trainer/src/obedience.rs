//! How well generated networks obey the condition that was asked for.
//!
//! A ridge regression from the zoo's networks, every weight whitened, to their conditions reads the
//! condition off any network; the zoo's own networks, each read without itself, say what it can tell
//! at all.

use dwf::condition::ConditionSchema;
use faer::{Mat, Side, linalg::solvers::Solve};
use serde::Serialize;

use crate::{
    condition::{Conditions, scaling},
    error::{Error, Result, Status},
    gram,
    report::spread,
    rows::{Chunk, Rows, Stack, sweep},
};

/// Ridge relative to the mean squared length of a network.
const RIDGE: f64 = 0.1;

/// What is read off networks, over what was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Obedience {
    /// Of classes.
    Classes {
        /// Their names.
        names: Vec<String>,
        /// Of the zoo's networks: how many of each class (rows) are read as each (columns).
        zoo: Vec<Vec<usize>>,
        /// Of generated networks.
        generated: Vec<Vec<usize>>,
    },
    /// Of continuous conditions.
    Axes(Vec<Followed>),
}

/// How one continuous condition is followed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Followed {
    /// Its name.
    pub name: String,
    /// Of each of the zoo's networks: its condition, and what is read.
    pub zoo: Vec<(f64, f64)>,
    /// Of each generated network: what was asked, and what is read.
    pub generated: Vec<(f64, f64)>,
}

impl Obedience {
    /// Of `generated` networks, of which `asked` was asked, against a zoo whose conditions are
    /// `known`.
    ///
    /// Errors: INTERNAL if the regression has no solution.
    pub fn measure(
        zoo: &dyn Rows,
        known: &Conditions,
        generated: &dyn Rows,
        asked: &Conditions,
    ) -> Result<Self> {
        let products = whitened_products(zoo, generated);
        let reader = Reader::fit(&products, known)?;
        let own = reader.own(known);
        let new = reader.read(&products);
        let columns = known.size();
        Ok(match &known.schema {
            ConditionSchema::Classes(names) => Self::Classes {
                names: names.clone(),
                zoo: confusion(&known.rows, &own, columns),
                generated: confusion(&asked.rows, &new, columns),
            },
            ConditionSchema::Axes(axes) => {
                let followed = axes.iter().enumerate().map(|(j, axis)| {
                    let (scale, shift) = scaling(axis);
                    let value = |x: f64| (x - f64::from(shift)) / f64::from(scale);
                    let column = |asked: &[f32], read: &[f64]| -> Vec<(f64, f64)> {
                        let asked = asked.iter().skip(j).step_by(columns);
                        let read = read.iter().skip(j).step_by(columns);
                        let pairs = asked.zip(read);
                        pairs
                            .map(|(a, r)| (value((*a).into()), value(*r)))
                            .collect()
                    };
                    Followed {
                        name: axis.name.clone(),
                        zoo: column(&known.rows, &own),
                        generated: column(&asked.rows, &new),
                    }
                });
                Self::Axes(followed.collect())
            }
        })
    }

    /// Figures for `dwf.quality`: with classes the share that is read as the class asked for; with
    /// continuous conditions slope and correlation of what is read over what was asked.
    pub fn figures(&self) -> Vec<(String, f64)> {
        match self {
            Self::Classes { zoo, generated, .. } => vec![
                ("condition.class.obeyed.zoo".into(), obeyed(zoo)),
                ("condition.class.obeyed.generated".into(), obeyed(generated)),
            ],
            Self::Axes(axes) => axes
                .iter()
                .flat_map(|axis| {
                    [("zoo", &axis.zoo), ("generated", &axis.generated)].map(|(who, points)| {
                        let [slope, correlation] = line(points);
                        let key = |what: &str| format!("condition.{}.{what}.{who}", axis.name);
                        [(key("slope"), slope), (key("correlation"), correlation)]
                    })
                })
                .flatten()
                .collect(),
        }
    }
}

/// Inner products of the zoo's networks and then the others, every weight whitened by the zoo's;
/// where that does not vary, a weight does not count.
fn whitened_products(zoo: &dyn Rows, others: &dyn Rows) -> Mat<f64> {
    let rows = Stack(&[zoo, others]);
    let all = rows.all();
    let (zoo, others) = all.split_at(zoo.count());
    let add = |sum: &mut Mat<f64>, chunk: Chunk<'_>| {
        let width = chunk.columns.len();
        let own = &chunk.centred[..zoo.len() * width];
        let inverse = |std| if std > 0.0 { 1.0 / std } else { 0.0 };
        let inverses = spread::deviations(own, width).into_iter().map(inverse);
        let inverses: Vec<f64> = inverses.collect();
        let mut whitened = chunk.centred.to_vec();
        for row in whitened.chunks_exact_mut(width) {
            row.iter_mut()
                .zip(&inverses)
                .for_each(|(w, inverse)| *w *= inverse);
        }
        gram::add(sum, &whitened);
    };
    let zeros = || Mat::zeros(all.len(), all.len());
    let lanes = gram::lanes(all.len());
    gram::total(sweep(&rows, zoo, others, lanes, zeros, add, || ()))
}

/// How many of each class (rows) are read as each (columns).
fn confusion(asked: &[f32], read: &[f64], columns: usize) -> Vec<Vec<usize>> {
    let mut counts = vec![vec![0; columns]; columns];
    for (asked, read) in asked.chunks_exact(columns).zip(read.chunks_exact(columns)) {
        let asked = asked.iter().position(|x| *x == 1.0);
        let read = (0..columns).max_by(|a, b| read[*a].total_cmp(&read[*b]));
        if let (Some(asked), Some(read)) = (asked, read) {
            counts[asked][read] += 1;
        }
    }
    counts
}

/// The share of a confusion's diagonal.
pub fn obeyed(confusion: &[Vec<usize>]) -> f64 {
    let right: usize = (0..confusion.len()).map(|i| confusion[i][i]).sum();
    let all: usize = confusion.iter().flatten().sum();
    right as f64 / all.max(1) as f64
}

/// The regression, in its dual form: there are fewer networks than weights.
struct Reader {
    /// [networks, columns]
    weights: Mat<f64>,
    /// Diagonal of the inverse of the ridged Gram matrix.
    inverse: Vec<f64>,
    mean: Vec<f64>,
}

impl Reader {
    /// `products` begin with those of the zoo's networks.
    fn fit(products: &Mat<f64>, known: &Conditions) -> Result<Self> {
        let columns = known.size();
        let count = known.rows.len() / columns;
        let mut gram = products.submatrix(0, 0, count, count).to_owned();
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

    /// What is read off the networks behind the zoo's, [networks, columns].
    fn read(&self, products: &Mat<f64>) -> Vec<f64> {
        let count = self.inverse.len();
        let read = |row: usize| {
            let value = move |(j, mean): (usize, &f64)| {
                let parts = (0..count).map(|i| products[(row, i)] * self.weights[(i, j)]);
                mean + parts.sum::<f64>()
            };
            self.mean.iter().enumerate().map(value)
        };
        (count..products.nrows()).flat_map(read).collect()
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

/// Slope and correlation of y over x.
pub fn line(points: &[(f64, f64)]) -> [f64; 2] {
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
    use crate::{random::Random, rows::Matrix};

    const SIZE: usize = 6;

    /// Networks whose first weight follows the condition, and what is known of them.
    fn zoo(
        text: impl Fn(usize) -> String,
        header: &str,
        first: impl Fn(usize) -> f32,
    ) -> (Vec<f32>, Conditions) {
        let files: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let mut csv = format!("{header}\n");
        files.iter().enumerate().for_each(|(i, file)| {
            csv += &format!("{file},{}\n", text(i));
        });
        let mut values = Random::new(5, 0).normal(40 * SIZE, 0.3);
        values
            .chunks_exact_mut(SIZE)
            .enumerate()
            .for_each(|(i, row)| row[0] = first(i));
        (values, Conditions::parse(&csv, &files).unwrap())
    }

    fn measure_all(
        zoo: &[f32],
        known: &Conditions,
        generated: &[f32],
        asked: &Conditions,
    ) -> Result<Obedience> {
        let [zoo, generated] = [zoo, generated].map(|rows| Matrix::new(rows, SIZE));
        Obedience::measure(&zoo, known, &generated, asked)
    }

    fn figure(found: &Obedience, name: &str) -> f64 {
        let figures = found.figures();
        figures.iter().find(|(key, _)| key == name).unwrap().1
    }

    #[test]
    fn obeyed_classes_are_told_from_ignored_ones() {
        let (zoo, known) = zoo(
            |i| ["a", "b"][i % 2].into(),
            "file,class",
            |i| [1.5, -1.5][i % 2],
        );
        let asked = known.take(&[0; 10]);
        let measure = |first: f32| {
            let generated = [first, 0.1, -0.2, 0.0, 0.1, 0.3].repeat(10);
            measure_all(&zoo, &known, &generated, &asked).unwrap()
        };
        let obeyed = measure(1.4);
        assert_eq!(figure(&obeyed, "condition.class.obeyed.generated"), 1.0);
        assert!(figure(&obeyed, "condition.class.obeyed.zoo") > 0.95);
        let Obedience::Classes { generated, .. } = measure(-1.4) else {
            panic!("classes were asked for");
        };
        assert_eq!(generated, [[0, 10], [0, 0]]);
    }

    #[test]
    fn a_followed_axis_has_a_slope() {
        let value = |i: usize| i as f32 / 20.0 - 1.0;
        let (zoo, known) = zoo(|i| format!("{}", i * 10), "file,speed", value);
        let asked = known.take(&[0, 10, 20, 30, 39]);
        let slope = |gain: f32| {
            let row = |asked: &f32| [gain * asked, 0.1, 0.0, -0.1, 0.2, 0.0];
            let generated: Vec<f32> = asked.rows.iter().flat_map(row).collect();
            let found = measure_all(&zoo, &known, &generated, &asked).unwrap();
            figure(&found, "condition.speed.slope.generated")
        };
        // The regression's own slope is below 1 by its ridge.
        assert!((0.6..1.2).contains(&slope(1.0)), "{}", slope(1.0));
        assert!(slope(0.0).abs() < 1e-6);
        assert!(slope(-1.0) < -0.6);
    }
}
