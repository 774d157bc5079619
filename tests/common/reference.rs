//! What an artifact's networks must be: the velocity network, the solver and the basis computed in
//! f64 from the files, sharing nothing with the runtime but its noise and its metadata parser.

use std::{collections::HashMap, path::Path};

use dwf::{
    SampleOptions,
    layout::Transform,
    metadata::{BasisKind, Metadata},
    ode::{Grid, Method, Solver},
    onnx::ModelProto,
};
use prost::Message;
use safetensors::{Dtype, SafeTensors};

use super::graph::{Graph, Matrix, f16s, f32s};

/// An artifact to compute from.
pub struct Reference {
    metadata: Metadata,
    graph: Graph,
    latent: usize,
    basis: HashMap<String, Vec<f64>>,
}

impl Reference {
    pub fn open(path: &Path) -> Self {
        let model = ModelProto::decode(&std::fs::read(path).unwrap()[..]).unwrap();
        let graph = model.graph.unwrap();
        let x = graph
            .input
            .iter()
            .find(|input| input.name() == "x")
            .unwrap();
        let (_, dims) = x.tensor_type().unwrap();
        Self {
            metadata: Metadata::from_props(&model.metadata_props).unwrap(),
            graph: Graph::new(&graph, path.parent().unwrap()),
            latent: dims[1].unwrap() as usize,
            basis: basis(&path.with_extension("safetensors")),
        }
    }

    /// The weights of the networks that `options` ask for, row-major.
    pub fn sample(&self, options: &SampleOptions) -> Vec<f64> {
        let std = self.metadata.source.std;
        let mut noise = vec![0f32; options.count * self.latent];
        for (i, row) in noise.chunks_exact_mut(self.latent).enumerate() {
            let source = &self.metadata.source;
            source.fill(options.seed, options.first_index + i as u64, row);
        }
        let noise = noise.into_iter().map(f64::from).collect();
        let solver = options.solver.unwrap_or(self.metadata.solver.solver());
        let latents = integrate(&solver, std, noise, |t, x| self.velocity(options, t, x));
        latents
            .chunks_exact(self.latent)
            .flat_map(|latent| self.transform(self.decode(latent)))
            .collect()
    }

    fn transform(&self, mut weights: Vec<f64>) -> Vec<f64> {
        for tensor in self.metadata.layout.tensors() {
            if tensor.transform == Transform::Log {
                for weight in &mut weights[tensor.range()] {
                    *weight = weight.exp();
                }
            }
        }
        weights
    }

    /// The velocity under the options' conditions and guidance.
    fn velocity(&self, options: &SampleOptions, t: f64, x: &[f64]) -> Vec<f64> {
        let Some(schema) = &self.metadata.condition else {
            return self.evaluate(t, x, None);
        };
        let row = |row: &[f32]| -> Vec<f64> { row.iter().copied().map(f64::from).collect() };
        let without = schema.unconditional.as_deref().map(row);
        let with = options.condition.map(row);
        let v = self.evaluate(t, x, with.as_deref().or(without.as_deref()));
        if with.is_none() || options.guidance == 1.0 {
            return v;
        }
        let w = self.evaluate(t, x, without.as_deref());
        v.iter()
            .zip(w)
            .map(|(v, w)| (1.0 - options.guidance) * w + options.guidance * v)
            .collect()
    }

    fn evaluate(&self, t: f64, x: &[f64], condition: Option<&[f64]>) -> Vec<f64> {
        let rows = x.len() / self.latent;
        let mut inputs = vec![
            ("x", Matrix::new(rows, self.latent, x.to_vec())),
            ("t", Matrix::new(1, 1, vec![t])),
        ];
        if let Some(values) = condition {
            let size = self.metadata.condition.as_ref().unwrap().size();
            let matrix = if values.len() == size {
                Matrix::repeat(values, rows)
            } else {
                Matrix::new(rows, size, values.to_vec())
            };
            inputs.push(("condition", matrix));
        }
        self.graph.run(inputs, "v").data
    }

    fn decode(&self, latent: &[f64]) -> Vec<f64> {
        let tensor = |name: &str| &self.basis[name];
        match self.metadata.basis {
            BasisKind::Identity => latent.to_vec(),
            BasisKind::Diagonal => (0..latent.len())
                .map(|j| tensor("basis.mean")[j] + tensor("basis.scale")[j] * latent[j])
                .collect(),
            BasisKind::Linear => {
                let mut weights = tensor("basis.mean").clone();
                let rows = tensor("basis.components").chunks_exact(weights.len());
                for ((z, scale), row) in latent.iter().zip(tensor("basis.scale")).zip(rows) {
                    weights = plus(&weights, z * scale, row);
                }
                weights
            }
        }
    }
}

fn basis(sidecar: &Path) -> HashMap<String, Vec<f64>> {
    let bytes = std::fs::read(sidecar).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let in_basis = |(name, _): &(String, _)| name.starts_with("basis.");
    let tensors = file.tensors().into_iter().filter(in_basis);
    tensors
        .map(|(name, view)| match view.dtype() {
            Dtype::F32 => (name, f32s(view.data())),
            Dtype::F16 => (name, f16s(view.data())),
            other => panic!("{name} is {other:?}"),
        })
        .collect()
}

/// Carries `x` from t = 0 to t = 1.
fn integrate(
    solver: &Solver,
    source_std: f64,
    mut x: Vec<f64>,
    velocity: impl Fn(f64, &[f64]) -> Vec<f64>,
) -> Vec<f64> {
    for i in 0..solver.steps {
        let t = grid_point(solver, source_std, i);
        let h = grid_point(solver, source_std, i + 1) - t;
        x = step(solver.method, &velocity, t, h, &x);
    }
    x
}

fn grid_point(solver: &Solver, s: f64, i: usize) -> f64 {
    let fraction = i as f64 / solver.steps as f64;
    match solver.grid {
        Grid::Uniform => fraction,
        Grid::Stretched => s * ((1.0 + 1.0 / s).powf(fraction) - 1.0),
    }
}

fn step(
    method: Method,
    v: &impl Fn(f64, &[f64]) -> Vec<f64>,
    t: f64,
    h: f64,
    x: &[f64],
) -> Vec<f64> {
    let k1 = v(t, x);
    match method {
        Method::Euler => plus(x, h, &k1),
        Method::Midpoint => plus(x, h, &v(t + h / 2.0, &plus(x, h / 2.0, &k1))),
        Method::Heun => {
            let k2 = v(t + h, &plus(x, h, &k1));
            plus(&plus(x, h / 2.0, &k1), h / 2.0, &k2)
        }
        Method::Rk4 => {
            let k2 = v(t + h / 2.0, &plus(x, h / 2.0, &k1));
            let k3 = v(t + h / 2.0, &plus(x, h / 2.0, &k2));
            let k4 = v(t + h, &plus(x, h, &k3));
            let sum = plus(&plus(&plus(&k1, 2.0, &k2), 2.0, &k3), 1.0, &k4);
            plus(x, h / 6.0, &sum)
        }
        Method::Dopri5 => panic!("adaptive steps are checked against a fine grid instead"),
    }
}

/// x + a y.
fn plus(x: &[f64], a: f64, y: &[f64]) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| x + a * y).collect()
}
