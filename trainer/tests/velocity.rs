//! The velocity network against a plain f64 computation of the same formulas.

mod common;

use dwf_trainer::velocity::{
    BLOCKS, Device, EMBEDDING, Gradient, Points, Shape, Variant, Velocity,
};

/// A matrix of f64, [rows, columns].
#[derive(Clone)]
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

    fn embedding(&self, values: &[f32], columns: usize, name: &str) -> Matrix {
        let hidden = self.linear(Matrix::new(values, columns), &format!("{name}1"));
        self.linear(gelu(hidden), &format!("{name}2"))
    }

    fn evaluate(&self, points: &Points) -> Vec<f64> {
        let shape = &self.0.shape;
        let mut context = self.embedding(&points.t, 1, "time");
        if shape.condition > 0 {
            let condition = self.embedding(&points.condition, shape.condition, "condition");
            add(&mut context, &condition);
        }
        let x = Matrix::new(&points.x, shape.latent);
        match shape.variant {
            Variant::Reference => self.chain(x, context, 3),
            Variant::Deep => self.chain(x, context, 4),
            Variant::Residual => self.residual(x, context),
        }
    }

    /// The formulas of the paper's networks, with the concatenation split in two.
    fn chain(&self, x: Matrix, context: Matrix, layers: usize) -> Vec<f64> {
        let mut h = self.product(x, "input");
        add(&mut h, &self.linear(context, "input_time"));
        for i in 1..=layers {
            let next = if i == layers {
                "output".into()
            } else {
                format!("hidden{}", i + 1)
            };
            h = self.linear(gelu(self.norm(h, &format!("norm{i}"))), &next);
        }
        h.values
    }

    fn residual(&self, x: Matrix, context: Matrix) -> Vec<f64> {
        let context = gelu(context);
        let mut h = self.linear(x, "input");
        for i in 1..=BLOCKS {
            let mut r = self.norm(h.clone(), &format!("norm{i}"));
            let scale = self.linear(context.clone(), &format!("scale{i}"));
            r.values
                .iter_mut()
                .zip(&scale.values)
                .for_each(|(r, s)| *r *= s);
            add(&mut r, &self.linear(context.clone(), &format!("shift{i}")));
            let r = gelu(self.linear(r, &format!("expand{i}")));
            add(&mut h, &self.linear(r, &format!("contract{i}")));
        }
        self.linear(self.norm(h, "norm"), "output").values
    }
}

fn add(to: &mut Matrix, other: &Matrix) {
    let values = to.values.iter_mut().zip(&other.values);
    values.for_each(|(to, other)| *to += other);
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
    for n in 1..90 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// Random weights everywhere, the normalisations' too.
fn velocity(shape: Shape) -> Velocity {
    let mut velocity = Velocity::random(shape, 3);
    let noise = common::normals(velocity.weights.len(), 4);
    velocity
        .weights
        .iter_mut()
        .zip(noise)
        .for_each(|(w, e)| *w += 0.05 * e);
    velocity
}

const TIMES: [f32; 6] = [0.0, 0.1, 0.35, 0.5, 0.9, 1.0];

/// Every variant, without and with conditions.
fn shapes(latent: usize, width: usize) -> Vec<Shape> {
    let variants = [Variant::Reference, Variant::Deep, Variant::Residual];
    let shape = |variant, condition| Shape {
        variant,
        latent,
        width,
        condition,
    };
    let both = variants.map(|variant| [shape(variant, 0), shape(variant, 2)]);
    both.concat()
}

fn points(shape: &Shape, rounds: usize) -> Points {
    let t = TIMES.repeat(rounds);
    Points {
        x: common::normals(shape.latent * t.len(), 5),
        condition: common::normals(shape.condition * t.len(), 7),
        t,
    }
}

#[test]
fn networks_compute_the_formulas() {
    for shape in shapes(7, 24) {
        let velocity = velocity(shape);
        let points = points(&shape, 1);
        let expected = Reference(&velocity).evaluate(&points);
        let found = velocity.evaluate(&points, Device::Cpu).unwrap();
        assert_eq!(found.len(), expected.len());
        for (v, expected) in found.iter().zip(expected) {
            // f32 rounding through up to ten layers of values of size one.
            let error = (f64::from(*v) - expected).abs();
            assert!(error < 2e-5, "{shape:?}: {v} and {expected}");
        }
    }
}

#[test]
fn gradients_are_those_of_the_formulas() {
    // 6 rows on one thread, 54 on two.
    let cases = shapes(3, 8)
        .into_iter()
        .flat_map(|shape| [(shape, 1), (shape, 9)]);
    for (shape, rounds) in cases {
        let mut velocity = velocity(shape);
        let points = points(&shape, rounds);
        let target = common::normals(3 * points.t.len(), 6);
        let loss = |velocity: &Velocity| {
            let v = Reference(velocity).evaluate(&points);
            let squares = v
                .iter()
                .zip(&target)
                .map(|(v, target)| (v - f64::from(*target)).powi(2));
            squares.sum::<f64>() / target.len() as f64
        };
        let mut gradient = Gradient::new(shape);
        // What a pass over fewer points leaves behind must not matter.
        let one = Points {
            x: points.x[..3].to_vec(),
            t: vec![0.5],
            condition: points.condition[..shape.condition].to_vec(),
        };
        gradient.loss(&velocity.weights, &one, &target[..3]);
        let value = gradient.loss(&velocity.weights, &points, &target);
        let gradient = gradient.values;
        assert_eq!(gradient.len(), velocity.weights.len());
        assert!((f64::from(value) - loss(&velocity)).abs() < 1e-5);
        for i in (0..gradient.len()).step_by(97) {
            let weight = velocity.weights[i];
            velocity.weights[i] = weight + 1e-3;
            let above = loss(&velocity);
            let high = velocity.weights[i];
            velocity.weights[i] = weight - 1e-3;
            let below = loss(&velocity);
            let difference = (above - below) / f64::from(high - velocity.weights[i]);
            velocity.weights[i] = weight;
            // Central differences in f64: their third-order term at a step of 1e-3, and f32
            // gradients.
            let error = (difference - f64::from(gradient[i])).abs();
            assert!(
                error < 1e-4,
                "{shape:?} {i}: {difference} and {}",
                gradient[i]
            );
        }
    }
}

#[test]
fn an_untrained_flow_stands_still_and_seeds_differ() {
    for shape in shapes(5, 16) {
        let untrained = Velocity::untrained(shape, 1);
        let v = untrained.evaluate(&points(&shape, 1), Device::Cpu).unwrap();
        assert!(v.iter().all(|v| *v == 0.0));
        assert_eq!(untrained, Velocity::untrained(shape, 1));
        assert_ne!(untrained, Velocity::untrained(shape, 2));
    }
}

#[test]
fn the_reference_has_the_papers_size() {
    let matrices: usize = [EMBEDDING, EMBEDDING * EMBEDDING, EMBEDDING * 16]
        .iter()
        .chain(&[5 * 16, 16 * 8, 8 * 16, 16 * 5])
        .sum();
    let vectors = 2 * EMBEDDING + 16 + 2 * 16 + 8 + 2 * 8 + 16 + 2 * 16 + 5;
    assert_eq!(common::shape(5, 16).weight_count(), matrices + vectors);
}
