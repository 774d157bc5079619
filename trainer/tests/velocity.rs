//! The velocity network against a plain f64 computation of the same formulas.

mod common;

use dwf_trainer::velocity::{TIME_FEATURES, Velocity};

/// A matrix of f64, [rows, columns].
struct Matrix {
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn new(values: &[f32], columns: usize) -> Self {
        Self {
            columns,
            values: values.iter().map(|x| f64::from(*x)).collect(),
        }
    }

    fn map_rows(self, columns: usize, f: impl Fn(&[f64]) -> Vec<f64>) -> Self {
        Self {
            columns,
            values: self.values.chunks_exact(self.columns).flat_map(f).collect(),
        }
    }
}

struct Reference<'a>(&'a Velocity);

impl Reference<'_> {
    fn tensor(&self, name: &str) -> Vec<f64> {
        let tensors = self.0.tensors();
        let tensor = tensors.iter().find(|tensor| tensor.name == name).unwrap();
        self.0.weights[tensor.range.clone()]
            .iter()
            .map(|w| f64::from(*w))
            .collect()
    }

    fn product(&self, x: Matrix, layer: &str) -> Matrix {
        let weight = self.tensor(&format!("{layer}.weight"));
        let outputs = weight.len() / x.columns;
        x.map_rows(outputs, |row| {
            let column = |j| {
                row.iter()
                    .enumerate()
                    .map(|(i, x)| x * weight[i * outputs + j])
                    .sum()
            };
            (0..outputs).map(column).collect()
        })
    }

    fn linear(&self, x: Matrix, layer: &str) -> Matrix {
        let bias = self.tensor(&format!("{layer}.bias"));
        let product = self.product(x, layer);
        product.map_rows(bias.len(), |row| {
            row.iter().zip(&bias).map(|(x, b)| x + b).collect()
        })
    }

    fn norm(&self, x: Matrix, layer: &str) -> Matrix {
        let scale = self.tensor(&format!("{layer}.weight"));
        let shift = self.tensor(&format!("{layer}.bias"));
        x.map_rows(scale.len(), |row| {
            let count = row.len() as f64;
            let mean = row.iter().sum::<f64>() / count;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            let normal = |x: &f64| (x - mean) / (variance + 1e-5).sqrt();
            row.iter()
                .zip(&scale)
                .zip(&shift)
                .map(|((x, a), b)| normal(x) * a + b)
                .collect()
        })
    }

    /// The formulas of the paper's network, with the concatenation split in two.
    fn evaluate(&self, x: &[f32], t: &[f32]) -> Vec<f64> {
        let time = self.linear(Matrix::new(t, 1), "time1");
        let time = self.linear(gelu(time), "time2");
        let time = self.linear(time, "input_time");
        let mut h = self.product(Matrix::new(x, self.0.latent), "input");
        h.values
            .iter_mut()
            .zip(&time.values)
            .for_each(|(h, t)| *h += t);
        for (norm, next) in [
            ("norm1", "hidden2"),
            ("norm2", "hidden3"),
            ("norm3", "output"),
        ] {
            h = self.linear(gelu(self.norm(h, norm)), next);
        }
        h.values
    }
}

fn gelu(x: Matrix) -> Matrix {
    let columns = x.columns;
    x.map_rows(columns, |row| {
        row.iter()
            .map(|x| x * 0.5 * (1.0 + erf(x / 2f64.sqrt())))
            .collect()
    })
}

/// By its Taylor series: exact to 1e-12 for the |x| < 4 that occur here.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// Random weights everywhere, the normalisations' too.
fn velocity(latent: usize, width: usize) -> Velocity {
    let mut velocity = Velocity::random(latent, width, 3);
    let noise = common::normals(velocity.weights.len(), 4);
    velocity
        .weights
        .iter_mut()
        .zip(noise)
        .for_each(|(w, e)| *w += 0.05 * e);
    velocity
}

const TIMES: [f32; 6] = [0.0, 0.1, 0.35, 0.5, 0.9, 1.0];

#[test]
fn burn_computes_the_papers_formulas() {
    let velocity = velocity(7, 24);
    let x = common::normals(7 * TIMES.len(), 5);
    let expected = Reference(&velocity).evaluate(&x, &TIMES);
    for (v, expected) in velocity.evaluate(&x, &TIMES).iter().zip(expected) {
        // f32 rounding through six layers of values of size one.
        assert!(
            (f64::from(*v) - expected).abs() < 1e-5,
            "{v} and {expected}"
        );
    }
}

#[test]
fn gradients_are_those_of_the_formulas() {
    let mut velocity = velocity(3, 8);
    let x = common::normals(3 * TIMES.len(), 5);
    let target = common::normals(3 * TIMES.len(), 6);
    let loss = |velocity: &Velocity| {
        let v = Reference(velocity).evaluate(&x, &TIMES);
        let squares = v
            .iter()
            .zip(&target)
            .map(|(v, target)| (v - f64::from(*target)).powi(2));
        squares.sum::<f64>() / target.len() as f64
    };
    let mut gradient = vec![0.0; velocity.weights.len()];
    let value = velocity.loss_gradient(x.clone(), TIMES.to_vec(), target.clone(), &mut gradient);
    assert!((f64::from(value) - loss(&velocity)).abs() < 1e-5);
    for i in (0..gradient.len()).step_by(7) {
        let weight = velocity.weights[i];
        velocity.weights[i] = weight + 1e-3;
        let above = loss(&velocity);
        let high = velocity.weights[i];
        velocity.weights[i] = weight - 1e-3;
        let below = loss(&velocity);
        let difference = (above - below) / f64::from(high - velocity.weights[i]);
        velocity.weights[i] = weight;
        // Central differences in f64: their third-order term at a step of 1e-3, and f32 gradients.
        let error = (difference - f64::from(gradient[i])).abs();
        assert!(error < 1e-4, "weight {i}: {difference} and {}", gradient[i]);
    }
}

#[test]
fn an_untrained_flow_stands_still_and_seeds_differ() {
    let untrained = Velocity::untrained(5, 16, 1);
    let x = common::normals(5 * TIMES.len(), 5);
    assert!(untrained.evaluate(&x, &TIMES).iter().all(|v| *v == 0.0));
    assert_eq!(untrained, Velocity::untrained(5, 16, 1));
    assert_ne!(untrained, Velocity::untrained(5, 16, 2));
    let matrices: usize = [
        TIME_FEATURES,
        TIME_FEATURES * TIME_FEATURES,
        TIME_FEATURES * 16,
    ]
    .iter()
    .chain(&[5 * 16, 16 * 8, 8 * 16, 16 * 5])
    .sum();
    let vectors = 2 * TIME_FEATURES + 16 + 2 * 16 + 8 + 2 * 8 + 16 + 2 * 16 + 5;
    assert_eq!(untrained.weights.len(), matrices + vectors);
}
