//! A whole trajectory as one standard ONNX graph: the solver unrolled over copies of the velocity
//! network, times as constants, and the basis behind it. An inference server runs it unchanged; a
//! GPU replays the part before the basis as one CUDA graph.

use std::collections::{HashMap, HashSet};

use crate::{
    artifact::{Basis, value},
    composer::Composer,
    error::{Error, Result, Status},
    evaluator::Features,
    layout::{Layout, Transform},
    metadata::basis_tensor,
    model::Model,
    ode::{Method, Solver, stage_time},
    onnx::{GraphProto, ModelProto, ValueInfoProto, data_type},
    velocity::{Parts, prune, to_half},
};

/// The graph's input: source noise, [batch, latent], as [`crate::noise`] makes it.
pub const NOISE: &str = "noise";

/// The graph's output: one network a row, [batch, weights], in the layout's order.
pub const WEIGHTS: &str = "weights";

/// Output of the part before the basis: latents at t = 1, [batch, latent].
pub(crate) const LATENTS: &str = "latents";

/// Input of a guided trajectory: the rows that stand for no condition, [batch, condition].
pub(crate) const UNCONDITIONAL: &str = "unconditional";

/// Input of a guided trajectory: the guidance scale, [1].
pub(crate) const GUIDANCE: &str = "guidance";

/// Most evaluations that are unrolled; loading time and file size grow with them.
pub const MAX_EVALUATIONS: usize = 1024;

/// What the velocity network computes in; the state is float32 in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// float32.
    Single,
    /// float16, as GPUs like it.
    Half,
}

/// Composes the graph from noise to weights. Its large initialisers stay external, in the model's
/// sidecar or a copy of it called `sidecar_name`.
///
/// Errors: INVALID_ARGUMENT for a solver out of range, UNSUPPORTED for an adaptive one, whose
/// steps are not known ahead, or for more than [`MAX_EVALUATIONS`].
pub fn compose(
    model: &Model,
    solver: &Solver,
    precision: Precision,
    sidecar_name: &str,
) -> Result<ModelProto> {
    check_unrollable(solver)?;
    let description = model.description();
    let mut trajectory = Trajectory::new(model, precision, None, false);
    let state = trajectory.integrate(solver, description.metadata.source.std);
    decode(&mut trajectory.composer, model, &state, sidecar_name);
    let mut graph = trajectory.finish(WEIGHTS, description.metadata.layout.len());
    for tensor in &mut graph.initializer {
        for entry in &mut tensor.external_data {
            if entry.key() == "location" {
                entry.value = Some(sidecar_name.into());
            }
        }
    }
    Ok(ModelProto {
        producer_name: Some("libdwf".into()),
        graph: Some(graph),
        metadata_props: description.metadata.to_props(),
        ..description.graph.clone()
    })
}

/// The graph from noise to latents, with the time features of `solver`'s grid as constants;
/// `guided`: with classifier-free guidance, whose rows and scale are inputs.
///
/// Errors: as [`compose`].
pub(crate) fn compose_flow(
    model: &Model,
    solver: &Solver,
    precision: Precision,
    features: &Features,
    guided: bool,
) -> Result<GraphProto> {
    check_unrollable(solver)?;
    let mut trajectory = Trajectory::new(model, precision, Some(features), guided);
    let state = trajectory.integrate(solver, model.metadata().source.std);
    let last = trajectory.composer.node("Identity", &[&state]);
    trajectory.composer.name_last(&last, LATENTS);
    Ok(trajectory.finish(LATENTS, model.latent()))
}

/// Errors: as [`compose`].
pub(crate) fn check_unrollable(solver: &Solver) -> Result<()> {
    solver.check()?;
    match solver.evaluations() {
        Some(evaluations) if evaluations <= MAX_EVALUATIONS => Ok(()),
        Some(evaluations) => Err(Error::new(
            Status::Unsupported,
            format!("{evaluations} evaluations cannot be unrolled; at most {MAX_EVALUATIONS}"),
        )),
        None => Err(Error::new(
            Status::Unsupported,
            "an adaptive solver's steps are not known ahead; choose one on a fixed grid",
        )),
    }
}

/// A part of the velocity network that is copied into the larger graph.
struct Template {
    graph: GraphProto,
    /// Values of its own, which get a new name in every copy; not what depends on initialisers
    /// alone, of which one copy serves all.
    own: HashSet<String>,
}

impl Template {
    fn new(graph: GraphProto) -> Self {
        let mut own: HashSet<String> = graph.input.iter().map(|info| info.name().into()).collect();
        for node in &graph.node {
            if node.input.iter().any(|input| own.contains(input)) {
                own.extend(node.output.iter().cloned());
            }
        }
        Self { graph, own }
    }

    /// Puts what depends on initialisers alone into `composer`, under names that begin with
    /// `prefix`, since two templates may have the same.
    fn share(&mut self, composer: &mut Composer, prefix: &str) {
        let constants: HashSet<String> = (self.graph.node.iter())
            .flat_map(|node| &node.output)
            .filter(|output| !self.own.contains(*output))
            .cloned()
            .collect();
        for name in self
            .graph
            .node
            .iter_mut()
            .flat_map(|n| n.input.iter_mut().chain(&mut n.output))
        {
            if constants.contains(name) {
                *name = format!("{prefix}/{name}");
            }
        }
        let (own, shared) = std::mem::take(&mut self.graph.node)
            .into_iter()
            .partition(|node| node.output.iter().any(|output| self.own.contains(output)));
        self.graph.node = own;
        composer.nodes.extend::<Vec<_>>(shared);
        for tensor in std::mem::take(&mut self.graph.initializer) {
            let known = |other: &crate::onnx::TensorProto| other.name == tensor.name;
            if !composer.initializers.iter().any(known) {
                composer.initializers.push(tensor);
            }
        }
    }

    /// A copy with these inputs, its own values ending in `suffix`.
    fn copy(&self, composer: &mut Composer, inputs: &HashMap<&str, String>, suffix: &str) {
        let rename = |name: &String| match inputs.get(name.as_str()) {
            Some(input) => input.clone(),
            None if self.own.contains(name) => format!("{name}{suffix}"),
            None => name.clone(),
        };
        for node in &self.graph.node {
            composer.nodes.push(crate::onnx::NodeProto {
                input: node.input.iter().map(rename).collect(),
                output: node.output.iter().map(rename).collect(),
                name: node.name.as_ref().map(|name| format!("{name}{suffix}")),
                ..node.clone()
            });
        }
    }
}

/// The trajectory under construction.
struct Trajectory<'a> {
    model: &'a Model,
    composer: Composer,
    /// From `t` to the features; `None` if they are constants, or `t` itself.
    time: Option<Template>,
    velocity: Template,
    names: Vec<String>,
    /// The features of the grid, where they are known.
    features: Option<&'a Features>,
    /// The names of the features at a time, by its bits.
    known: HashMap<u32, Vec<String>>,
    guided: bool,
    evaluations: usize,
}

impl<'a> Trajectory<'a> {
    fn new(
        model: &'a Model,
        precision: Precision,
        features: Option<&'a Features>,
        guided: bool,
    ) -> Self {
        let mut composer = Composer::default();
        let graph = model.description().graph.graph.clone().unwrap_or_default();
        let parts = Parts::new(&graph);
        let features = features.filter(|features| features.are(&parts.features));
        let mut rest = parts.rest;
        if parts.time.is_some() {
            let features = parts.features.iter();
            rest.input.extend(features.map(|name| {
                ValueInfoProto::tensor(name, data_type::FLOAT, &[Err("times"), Err(name)])
            }));
        }
        if precision == Precision::Half {
            to_half(&mut rest);
            prune(&mut rest);
        }
        let mut velocity = Template::new(rest);
        velocity.share(&mut composer, "velocity");
        let mut time = parts.time.filter(|_| features.is_none()).map(Template::new);
        if let Some(time) = &mut time {
            time.share(&mut composer, "time");
        }
        Self {
            model,
            composer,
            time,
            velocity,
            names: parts.features,
            features,
            known: HashMap::new(),
            guided,
            evaluations: 0,
        }
    }

    /// The solver's steps from the noise on; the name of the final state.
    fn integrate(&mut self, solver: &Solver, source_std: f64) -> String {
        let mut state = NOISE.to_owned();
        for i in 0..solver.steps {
            let t = solver.time(i, source_std);
            let step = solver.time(i + 1, source_std) - t;
            state = self.step(solver.method, t, step, state);
        }
        state
    }

    fn step(&mut self, method: Method, t: f64, step: f64, state: String) -> String {
        let tableau = method.tableau();
        let mut slopes: Vec<String> = Vec::new();
        for (row, c) in tableau.a.iter().zip(tableau.c) {
            let x = self.advance(&state, row, &slopes, step);
            slopes.push(self.velocity(stage_time(t, step, *c), &x));
        }
        self.advance(&state, tableau.b, &slopes, step)
    }

    /// state + step * sum of coefficients * slopes.
    fn advance(
        &mut self,
        state: &str,
        coefficients: &[f64],
        slopes: &[String],
        step: f64,
    ) -> String {
        let mut sum = state.to_owned();
        for (coefficient, slope) in coefficients.iter().zip(slopes) {
            let scale = (coefficient * step) as f32;
            if scale != 0.0 {
                let scale = self.composer.constant(&[], &[scale]);
                let move_ = self.composer.node("Mul", &[slope, &scale]);
                sum = self.composer.node("Add", &[&sum, &move_]);
            }
        }
        sum
    }

    /// The velocity at time `t`, with guidance where it is asked for.
    fn velocity(&mut self, t: f32, x: &str) -> String {
        let with = self.evaluate(t, x, value::CONDITION);
        if !self.guided {
            return with;
        }
        let without = self.evaluate(t, x, UNCONDITIONAL);
        let difference = self.composer.node("Sub", &[&with, &without]);
        let scaled = self.composer.node("Mul", &[&difference, GUIDANCE]);
        self.composer.node("Add", &[&without, &scaled])
    }

    /// A copy of the velocity network; the name of its output.
    fn evaluate(&mut self, t: f32, x: &str, condition: &str) -> String {
        let features = self.features_at(t);
        let mut inputs = HashMap::from([
            (value::X, x.to_owned()),
            (value::CONDITION, condition.to_owned()),
        ]);
        inputs.extend(self.names.iter().map(String::as_str).zip(features));
        let suffix = format!("/{}", self.evaluations);
        self.evaluations += 1;
        self.velocity.copy(&mut self.composer, &inputs, &suffix);
        format!("{}{suffix}", value::V)
    }

    /// The names of the features at time `t`, which stages may share.
    fn features_at(&mut self, t: f32) -> Vec<String> {
        if let Some(known) = self.known.get(&t.to_bits()) {
            return known.clone();
        }
        let names = match (
            self.features.and_then(|features| features.at(t)),
            &self.time,
        ) {
            (Some(rows), _) => rows
                .map(|row| self.composer.constant(&[1, row.len()], row))
                .collect(),
            (None, None) => vec![self.composer.constant(&[1, 1], &[t])],
            (None, Some(time)) => {
                let input = self.composer.constant(&[1, 1], &[t]);
                let suffix = format!("/t{}", self.known.len());
                let inputs = HashMap::from([(value::T, input)]);
                time.copy(&mut self.composer, &inputs, &suffix);
                self.names
                    .iter()
                    .map(|name| format!("{name}{suffix}"))
                    .collect()
            }
        };
        self.known.insert(t.to_bits(), names.clone());
        names
    }

    fn finish(self, output: &str, columns: usize) -> GraphProto {
        let matrix = |name, columns| {
            ValueInfoProto::tensor(name, data_type::FLOAT, &[Err("batch"), Ok(columns)])
        };
        let mut input = vec![matrix(NOISE, self.model.latent())];
        if let Some(condition) = &self.model.metadata().condition {
            input.push(matrix(value::CONDITION, condition.size()));
            if self.guided {
                input.push(matrix(UNCONDITIONAL, condition.size()));
                input.push(ValueInfoProto::tensor(GUIDANCE, data_type::FLOAT, &[Ok(1)]));
            }
        }
        GraphProto {
            node: self.composer.nodes,
            name: Some("sampler".into()),
            initializer: self.composer.initializers,
            input,
            output: vec![matrix(output, columns)],
            value_info: Vec::new(),
        }
    }
}

/// The basis behind the final state.
fn decode(composer: &mut Composer, model: &Model, state: &str, sidecar_name: &str) {
    let weights = model.metadata().layout.len();
    let latent = model.latent();
    let tensor = |composer: &mut Composer, name, view, shape: &[usize]| {
        composer.basis(name, view, shape, sidecar_name)
    };
    let last = match model.basis() {
        Basis::Identity => composer.node("Identity", &[state]),
        Basis::Diagonal { mean, scale } => {
            let scale = tensor(composer, basis_tensor::SCALE, scale, &[weights]);
            let mean = tensor(composer, basis_tensor::MEAN, mean, &[weights]);
            let scaled = composer.node("Mul", &[state, &scale]);
            composer.node("Add", &[&scaled, &mean])
        }
        Basis::Linear {
            components,
            mean,
            scale,
        } => {
            let scale = tensor(composer, basis_tensor::SCALE, scale, &[latent]);
            let mean = tensor(composer, basis_tensor::MEAN, mean, &[weights]);
            let shape = [latent, weights];
            let components = tensor(composer, basis_tensor::COMPONENTS, components, &shape);
            let scaled = composer.node("Mul", &[state, &scale]);
            composer.node("Gemm", &[&scaled, &components, &mean])
        }
    };
    let layout = &model.metadata().layout;
    let last = match layout.is_transformed() {
        true => transform(composer, layout, &last),
        false => last,
    };
    composer.name_last(&last, WEIGHTS);
}

/// The exponentials of what are logarithms among `decoded` [batch, weights].
fn transform(composer: &mut Composer, layout: &Layout, decoded: &str) -> String {
    let axis = composer.integers(&[1]);
    let mut parts = Vec::new();
    for (columns, transform) in layout.stretches(0..layout.len()) {
        let bounds = [columns.start, columns.end].map(|column| composer.integers(&[column as i64]));
        let part = composer.node("Slice", &[decoded, &bounds[0], &bounds[1], &axis]);
        parts.push(match transform {
            Transform::None => part,
            Transform::Log => composer.node("Exp", &[&part]),
        });
    }
    composer.concat_columns(&parts)
}
