//! A whole trajectory as one standard ONNX graph: the solver unrolled over copies of the velocity
//! network, times as constants, and the basis behind it. An inference server runs it unchanged.

use std::collections::{HashMap, HashSet};

use crate::{
    artifact::{Basis, Description, Float, View, value},
    error::{Error, Result, Status},
    metadata::basis_tensor,
    model::Model,
    ode::{Method, Solver},
    onnx::{
        AttributeProto, GraphProto, LOCATION_EXTERNAL, ModelProto, NodeProto,
        StringStringEntryProto, TensorProto, ValueInfoProto, attribute_type, data_type,
    },
};

/// The graph's input: source noise, [batch, latent], as [`crate::noise`] makes it.
pub const NOISE: &str = "noise";

/// The graph's output: one network a row, [batch, weights], in the layout's order.
pub const WEIGHTS: &str = "weights";

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
    solver.check()?;
    check_unrollable(solver)?;
    let description = model.description();
    let velocity = Velocity::new(description, precision);
    let mut composer = Composer::new(&velocity, sidecar_name);
    let state = composer.integrate(solver, description.metadata.source.std);
    composer.decode(model.basis(), description, &state);
    Ok(ModelProto {
        producer_name: Some("libdwf".into()),
        graph: Some(composer.finish(description)),
        metadata_props: description.metadata.to_props(),
        ..description.graph.clone()
    })
}

fn check_unrollable(solver: &Solver) -> Result<()> {
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

/// The velocity network, ready to be copied into a larger graph.
struct Velocity {
    initializers: Vec<TensorProto>,
    /// Nodes that depend on initialisers only: one copy serves all.
    constant: Vec<NodeProto>,
    /// Nodes that depend on x, t or the condition: one copy an evaluation.
    varying: Vec<NodeProto>,
    precision: Precision,
}

impl Velocity {
    fn new(description: &Description, precision: Precision) -> Self {
        let mut graph = description.graph.graph.clone().unwrap_or_default();
        if precision == Precision::Half {
            to_half(&mut graph);
        }
        let mut changing: HashSet<String> =
            graph.input.iter().map(|info| info.name().into()).collect();
        let (varying, constant) = graph.node.into_iter().partition(|node: &NodeProto| {
            let varies = node.input.iter().any(|input| changing.contains(input));
            if varies {
                changing.extend(node.output.iter().cloned());
            }
            varies
        });
        Self {
            initializers: graph.initializer,
            constant,
            varying,
            precision,
        }
    }
}

/// Turns a float32 network into a float16 one: matrices are stored so already, and lose their
/// cast; other floats get one.
fn to_half(graph: &mut GraphProto) {
    let element: HashMap<String, i32> = graph
        .initializer
        .iter()
        .map(|tensor| (tensor.name().to_owned(), tensor.data_type()))
        .collect();
    let mut renamed = HashMap::new();
    let mut nodes = Vec::new();
    for tensor in &graph.initializer {
        if tensor.data_type() == data_type::FLOAT {
            let half = format!("{}/half", tensor.name());
            nodes.push(cast(tensor.name(), &half, data_type::FLOAT16));
            renamed.insert(tensor.name().to_owned(), half);
        }
    }
    for mut node in std::mem::take(&mut graph.node) {
        let source = node.input.first().cloned().unwrap_or_default();
        if node.op_type() == "Cast" && element.get(&source) == Some(&data_type::FLOAT16) {
            renamed.insert(node.output[0].clone(), source);
            continue;
        }
        for input in &mut node.input {
            if let Some(half) = renamed.get(input) {
                input.clone_from(half);
            }
        }
        for attribute in &mut node.attribute {
            let to_float = attribute.name() == "to" && attribute.i() == i64::from(data_type::FLOAT);
            if node.op_type.as_deref() == Some("Cast") && to_float {
                attribute.i = Some(data_type::FLOAT16.into());
            }
        }
        nodes.push(node);
    }
    graph.node = nodes;
}

/// The graph under construction.
struct Composer<'a> {
    velocity: &'a Velocity,
    sidecar_name: &'a str,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    evaluations: usize,
    values: usize,
}

impl<'a> Composer<'a> {
    fn new(velocity: &'a Velocity, sidecar_name: &'a str) -> Self {
        let mut composer = Self {
            velocity,
            sidecar_name,
            nodes: velocity.constant.clone(),
            initializers: velocity.initializers.clone(),
            evaluations: 0,
            values: 0,
        };
        for tensor in &mut composer.initializers {
            for entry in &mut tensor.external_data {
                if entry.key() == "location" {
                    entry.value = Some(sidecar_name.into());
                }
            }
        }
        composer
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
            slopes.push(self.evaluate((t + c * step) as f32, &x));
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
                let scale = self.constant(&[], &[scale]);
                let move_ = self.node("Mul", &[slope, &scale]);
                sum = self.node("Add", &[&sum, &move_]);
            }
        }
        sum
    }

    /// A copy of the velocity network at time `t`; the name of its output.
    fn evaluate(&mut self, t: f32, x: &str) -> String {
        let index = self.evaluations;
        self.evaluations += 1;
        let t = self.constant(&[1, 1], &[t]);
        let half = self.velocity.precision == Precision::Half;
        let mut inputs: HashMap<&str, String> = HashMap::from([
            (value::X, x.to_owned()),
            (value::T, t),
            (value::CONDITION, value::CONDITION.to_owned()),
        ]);
        if half {
            for name in [value::X, value::T, value::CONDITION] {
                let used = |node: &NodeProto| node.input.iter().any(|input| input == name);
                if self.velocity.varying.iter().any(used) {
                    let cast = self.cast(&inputs[name], data_type::FLOAT16);
                    inputs.insert(name, cast);
                }
            }
        }
        let own: HashSet<&String> = self
            .velocity
            .varying
            .iter()
            .flat_map(|node| &node.output)
            .collect();
        let rename = |name: &String| match inputs.get(name.as_str()) {
            Some(input) => input.clone(),
            None if own.contains(name) => format!("{name}/{index}"),
            None => name.clone(),
        };
        for node in &self.velocity.varying {
            self.nodes.push(NodeProto {
                input: node.input.iter().map(rename).collect(),
                output: node.output.iter().map(rename).collect(),
                name: node.name.as_ref().map(|name| format!("{name}/{index}")),
                ..node.clone()
            });
        }
        let v = format!("{}/{index}", value::V);
        if half {
            self.cast(&v, data_type::FLOAT)
        } else {
            v
        }
    }

    /// The basis behind the final state.
    fn decode(&mut self, basis: &Basis, description: &Description, state: &str) {
        let weights = description.metadata.layout.len();
        let latent = description.latent;
        let last = match basis {
            Basis::Identity => self.node("Identity", &[state]),
            Basis::Diagonal { mean, scale } => {
                let scale = self.sidecar(basis_tensor::SCALE, scale, &[weights]);
                let mean = self.sidecar(basis_tensor::MEAN, mean, &[weights]);
                let scaled = self.node("Mul", &[state, &scale]);
                self.node("Add", &[&scaled, &mean])
            }
            Basis::Linear {
                components,
                mean,
                scale,
            } => {
                let scale = self.sidecar(basis_tensor::SCALE, scale, &[latent]);
                let mean = self.sidecar(basis_tensor::MEAN, mean, &[weights]);
                let components =
                    self.sidecar(basis_tensor::COMPONENTS, components, &[latent, weights]);
                let scaled = self.node("Mul", &[state, &scale]);
                self.node("Gemm", &[&scaled, &components, &mean])
            }
        };
        let producer = self.nodes.last_mut().filter(|node| node.output == [last]);
        producer.expect("the basis ends in a node").output = vec![WEIGHTS.into()];
    }

    fn finish(self, description: &Description) -> GraphProto {
        let matrix = |name, columns| {
            ValueInfoProto::tensor(name, data_type::FLOAT, &[Err("batch"), Ok(columns)])
        };
        let mut input = vec![matrix(NOISE, description.latent)];
        if let Some(condition) = &description.metadata.condition {
            input.push(matrix(value::CONDITION, condition.size()));
        }
        GraphProto {
            node: self.nodes,
            name: Some("sampler".into()),
            initializer: self.initializers,
            input,
            output: vec![matrix(WEIGHTS, description.metadata.layout.len())],
            value_info: Vec::new(),
        }
    }

    /// A tensor of the basis as float32.
    fn sidecar(&mut self, name: &str, view: &View, shape: &[usize]) -> String {
        let entry = StringStringEntryProto::new;
        self.initializers.push(TensorProto {
            name: Some(name.into()),
            dims: shape.iter().map(|dim| *dim as i64).collect(),
            data_type: Some(match view.float {
                Float::F32 => data_type::FLOAT,
                Float::F16 => data_type::FLOAT16,
            }),
            data_location: Some(LOCATION_EXTERNAL),
            external_data: vec![
                entry("location", self.sidecar_name),
                entry("offset", &view.bytes.start.to_string()),
                entry("length", &view.bytes.len().to_string()),
            ],
            ..Default::default()
        });
        match view.float {
            Float::F32 => name.into(),
            Float::F16 => self.cast(name, data_type::FLOAT),
        }
    }

    fn constant(&mut self, dims: &[i64], values: &[f32]) -> String {
        let name = self.fresh();
        self.initializers.push(TensorProto {
            name: Some(name.clone()),
            dims: dims.to_vec(),
            data_type: Some(data_type::FLOAT),
            raw_data: Some(
                values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            ),
            ..Default::default()
        });
        name
    }

    fn cast(&mut self, from: &str, to: i32) -> String {
        let name = self.fresh();
        self.nodes.push(cast(from, &name, to));
        name
    }

    fn node(&mut self, op: &str, inputs: &[&str]) -> String {
        let name = self.fresh();
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| (*input).into()).collect(),
            output: vec![name.clone()],
            name: Some(name.clone()),
            op_type: Some(op.into()),
            ..Default::default()
        });
        name
    }

    fn fresh(&mut self) -> String {
        self.values += 1;
        format!("dwf/{}", self.values)
    }
}

fn cast(from: &str, to: &str, data_type: i32) -> NodeProto {
    NodeProto {
        input: vec![from.into()],
        output: vec![to.into()],
        name: Some(to.into()),
        op_type: Some("Cast".into()),
        attribute: vec![AttributeProto {
            name: Some("to".into()),
            r#type: Some(attribute_type::INT),
            i: Some(data_type.into()),
            ..Default::default()
        }],
        domain: None,
    }
}
