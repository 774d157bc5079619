//! A small artifact of the reference form, made without the trainer.

use std::path::{Path, PathBuf};

use dwf::{
    artifact::Float,
    condition::Condition,
    layout::{DType, Layout, TensorKind, Transform},
    metadata::{BasisKind, DefaultSolver, Distribution, Metadata, Source},
    ode::{Grid, Method},
    onnx::{
        AttributeProto, GraphProto, LOCATION_EXTERNAL, ModelProto, NodeProto, OperatorSetIdProto,
        StringStringEntryProto, TensorProto, ValueInfoProto, attribute_type, data_type,
    },
};

use super::{
    artifact::{Artifact, sha256},
    sidecar::{Sidecar, Tensor},
};

/// Width of the time embedding.
const TIME: usize = 64;

/// What to make: a velocity network with random weights and a basis with random entries.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// File name without extension.
    pub name: &'static str,
    pub seed: u64,
    /// Length of a latent vector of a linear basis; the other bases have one entry a weight.
    pub latent: usize,
    /// Width h of the velocity network, whose layers are h, h/2, h.
    pub hidden: usize,
    /// The network that is generated.
    pub layout: Layout,
    pub basis: BasisKind,
    /// How the basis is stored.
    pub basis_float: Float,
    /// How the velocity network's matrices are stored; it computes in float32.
    pub weight_float: Float,
    /// Multiplies the basis's scale: how far the weights of networks spread about their mean.
    pub spread: f64,
    /// Multiplies the velocity.
    pub gain: f64,
    pub condition: Option<Condition>,
    pub source_std: f64,
    pub distribution: Distribution,
    pub solver: DefaultSolver,
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            name: "net",
            seed: 1,
            latent: 12,
            hidden: 32,
            layout: small_layout(),
            basis: BasisKind::Linear,
            basis_float: Float::F16,
            weight_float: Float::F16,
            spread: 1.0,
            gain: 1.0,
            condition: None,
            source_std: 1.0,
            distribution: Distribution::Normal,
            solver: DefaultSolver {
                method: Method::Rk4,
                steps: 8,
                grid: Grid::Uniform,
                tolerance: 1e-4,
                relative_error: Some(1e-3),
            },
        }
    }
}

/// 148 weights, which no panel or vector width divides: a matrix, vectors, a buffer, a scalar.
pub fn small_layout() -> Layout {
    let tensor = |name: &str, shape: &[usize], kind| (name.into(), shape.into(), DType::F32, kind);
    Layout::pack([
        tensor("fc1.weight", &[16, 4], TensorKind::Parameter),
        tensor("fc1.bias", &[16], TensorKind::Parameter),
        tensor("norm.running_mean", &[16], TensorKind::Buffer),
        tensor("fc2.weight", &[3, 16], TensorKind::Parameter),
        tensor("fc2.bias", &[3], TensorKind::Parameter),
        tensor("temperature", &[], TensorKind::Parameter),
    ])
    .unwrap()
}

impl Fixture {
    /// The reference network's size, latent 99 and h 512, over a target of 26506 weights (an MLP
    /// 784-32-32-10).
    pub fn reference() -> Self {
        let tensor = |name: &str, shape: &[usize]| {
            (name.into(), shape.into(), DType::F32, TensorKind::Parameter)
        };
        let layout = Layout::pack([
            tensor("fc1.weight", &[32, 784]),
            tensor("fc1.bias", &[32]),
            tensor("fc2.weight", &[32, 32]),
            tensor("fc2.bias", &[32]),
            tensor("fc3.weight", &[10, 32]),
            tensor("fc3.bias", &[10]),
        ]);
        Self {
            name: "reference",
            latent: 99,
            hidden: 512,
            layout: layout.unwrap(),
            ..Self::default()
        }
    }

    /// The default with another basis.
    pub fn with_basis(basis: BasisKind) -> Self {
        Self {
            basis,
            ..Self::default()
        }
    }

    /// With what came with format version 2: a tensor of logarithms, another that touches it, one
    /// that is a scalar, and a uniform source.
    pub fn with_logs(self) -> Self {
        let logs = ["fc1.bias", "norm.running_mean", "temperature"];
        Self {
            layout: (self.layout.clone())
                .transformed(Transform::Log, |tensor| logs.contains(&&*tensor.name)),
            distribution: Distribution::Uniform,
            ..self
        }
    }

    /// Writes both files into `folder`; the path of the `.onnx`.
    pub fn write(&self, folder: &Path) -> PathBuf {
        self.build().write(folder)
    }

    /// Both files in memory, to be damaged or written.
    pub fn build(&self) -> Artifact {
        let mut network = Network::new(self.weight_float);
        network.velocity(self);
        // float32 first: float16 tensors may have an odd length.
        let mut tensors = network.tensors;
        tensors.extend(self.basis_tensors());
        tensors.sort_by_key(|tensor| tensor.float == Float::F16);
        let pair = format!("pair-{}-{}", self.name, self.seed);
        let sidecar = Sidecar::new(&tensors, &pair, self.seed);
        let location = format!("{}.safetensors", self.name);
        let in_graph = |tensor: &&Tensor| !tensor.name.starts_with("basis.");
        let initializer = tensors
            .iter()
            .zip(&sidecar.ranges)
            .filter(|(tensor, _)| in_graph(tensor))
            .map(|(tensor, range)| external(tensor, range.start, range.len(), &location))
            .collect();
        let graph = GraphProto {
            node: network.nodes,
            name: Some("velocity".into()),
            initializer,
            input: self.inputs(),
            output: vec![value("v", Err("batch"), self.latent_size())],
            value_info: Vec::new(),
        };
        let metadata = self.metadata(pair, sha256(&sidecar.bytes));
        Artifact {
            name: self.name.to_owned(),
            onnx: ModelProto {
                ir_version: Some(9),
                producer_name: Some("libdwf tests".into()),
                graph: Some(graph),
                opset_import: vec![OperatorSetIdProto {
                    domain: None,
                    version: Some(20),
                }],
                metadata_props: metadata.to_props(),
                ..Default::default()
            },
            sidecar: sidecar.bytes,
        }
    }

    /// Length of a latent vector.
    pub fn latent_size(&self) -> usize {
        match self.basis {
            BasisKind::Linear => self.latent,
            BasisKind::Identity | BasisKind::Diagonal => self.layout.len(),
        }
    }

    fn basis_tensors(&self) -> Vec<Tensor> {
        let weights = self.layout.len();
        let tensor = |name, shape: &[usize], mean, std| {
            Tensor::new(name, self.basis_float, shape, mean, std)
        };
        let mean = tensor("basis.mean", &[weights], 0.0, 0.5);
        let scale = |len| tensor("basis.scale", &[len], self.spread, 0.2 * self.spread);
        let std = 1.0 / (self.latent as f64).sqrt();
        match self.basis {
            BasisKind::Identity => Vec::new(),
            BasisKind::Diagonal => vec![mean, scale(weights)],
            BasisKind::Linear => vec![
                mean,
                scale(self.latent),
                tensor("basis.components", &[self.latent, weights], 0.0, std),
            ],
        }
    }

    fn inputs(&self) -> Vec<ValueInfoProto> {
        let mut inputs = vec![
            value("x", Err("batch"), self.latent_size()),
            value("t", Err("time"), 1),
        ];
        inputs.extend(
            self.condition
                .as_ref()
                .map(|condition| value("condition", Err("batch"), condition.size())),
        );
        inputs
    }

    fn metadata(&self, pair: String, sidecar_sha256: String) -> Metadata {
        Metadata {
            layout: self.layout.clone(),
            basis: self.basis,
            source: Source {
                distribution: self.distribution,
                std: self.source_std,
            },
            condition: self.condition.clone(),
            solver: self.solver,
            sidecar_sha256,
            pair,
            provenance: [("made by".into(), "libdwf tests".into())].into(),
            quality: [("std_ratio".into(), 0.9)].into(),
        }
    }
}

/// The velocity network while it is being written down.
struct Network {
    float: Float,
    nodes: Vec<NodeProto>,
    tensors: Vec<Tensor>,
}

impl Network {
    fn new(float: Float) -> Self {
        Self {
            float,
            nodes: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// The reference network, its tensors named as the trainer's: x Wx + (embedding(t) Wt + b),
    /// then h, h/2, h with LayerNorm and GELU, then v. A condition joins the first layer.
    fn velocity(&mut self, fixture: &Fixture) {
        let (latent, h) = (fixture.latent_size(), fixture.hidden);
        let time = self.linear("t", "time1", [1, TIME], 2.0);
        let time = self.gelu(&time);
        let time = self.linear(&time, "time2", [TIME, TIME], 1.0);
        let mut joined = self.linear(&time, "input_time", [TIME, h], 1.0);
        if let Some(condition) = &fixture.condition {
            let part = self.matmul("condition", "input_condition", [condition.size(), h], 1.0);
            joined = self.node("Add", &[&joined, &part], Vec::new());
        }
        let state = self.matmul("x", "input", [latent, h], 1.0);
        let mut hidden = self.node("Add", &[&state, &joined], Vec::new());
        for (i, (from, to)) in [(1, (h, h / 2)), (2, (h / 2, h))] {
            hidden = self.norm(&hidden, &format!("norm{i}"), from);
            hidden = self.gelu(&hidden);
            hidden = self.linear(&hidden, &format!("hidden{}", i + 1), [from, to], 1.0);
        }
        hidden = self.norm(&hidden, "norm3", h);
        hidden = self.gelu(&hidden);
        let matrix = self.matrix("output", [h, latent], fixture.gain);
        let bias = self.vector("output.bias", latent, 0.0, 0.1 * fixture.gain);
        self.node("Gemm", &[&hidden, &matrix, &bias], Vec::new());
        self.nodes.last_mut().unwrap().output = vec!["v".into()];
    }

    fn linear(&mut self, x: &str, layer: &str, shape: [usize; 2], gain: f64) -> String {
        let product = self.matmul(x, layer, shape, gain);
        let bias = self.vector(&format!("{layer}.bias"), shape[1], 0.0, 0.1);
        self.node("Add", &[&product, &bias], Vec::new())
    }

    fn matmul(&mut self, x: &str, layer: &str, shape: [usize; 2], gain: f64) -> String {
        let matrix = self.matrix(layer, shape, gain);
        self.node("MatMul", &[x, &matrix], Vec::new())
    }

    fn norm(&mut self, x: &str, layer: &str, size: usize) -> String {
        let scale = self.vector(&format!("{layer}.weight"), size, 1.0, 0.1);
        let bias = self.vector(&format!("{layer}.bias"), size, 0.0, 0.1);
        let attributes = vec![
            AttributeProto {
                name: Some("axis".into()),
                i: Some(-1),
                r#type: Some(attribute_type::INT),
                ..Default::default()
            },
            AttributeProto {
                name: Some("epsilon".into()),
                f: Some(1e-5),
                r#type: Some(attribute_type::FLOAT),
                ..Default::default()
            },
        ];
        self.node("LayerNormalization", &[x, &scale, &bias], attributes)
    }

    fn gelu(&mut self, x: &str) -> String {
        self.node("Gelu", &[x], Vec::new())
    }

    /// A matrix in float32, cast where it is stored in float16.
    fn matrix(&mut self, layer: &str, shape: [usize; 2], gain: f64) -> String {
        let name = format!("{layer}.weight");
        let std = gain / (shape[0] as f64).sqrt();
        self.tensors
            .push(Tensor::new(&name, self.float, &shape, 0.0, std));
        if self.float == Float::F32 {
            return name;
        }
        let to = AttributeProto {
            name: Some("to".into()),
            i: Some(data_type::FLOAT.into()),
            r#type: Some(attribute_type::INT),
            ..Default::default()
        };
        self.node("Cast", &[&name], vec![to])
    }

    fn vector(&mut self, name: &str, len: usize, mean: f64, std: f64) -> String {
        self.tensors
            .push(Tensor::new(name, Float::F32, &[len], mean, std));
        name.to_owned()
    }

    /// Appends a node; the name of its output.
    fn node(&mut self, op: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let output = format!("value{}", self.nodes.len());
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.clone()],
            name: Some(format!("node{}", self.nodes.len())),
            op_type: Some(op.to_owned()),
            attribute,
            domain: None,
        });
        output
    }
}

fn value(name: &str, rows: Result<usize, &str>, columns: usize) -> ValueInfoProto {
    ValueInfoProto::tensor(name, data_type::FLOAT, &[rows, Ok(columns)])
}

/// An initialiser that lies in the sidecar.
fn external(tensor: &Tensor, offset: usize, length: usize, location: &str) -> TensorProto {
    TensorProto {
        dims: tensor.shape.iter().map(|dim| *dim as i64).collect(),
        data_type: Some(match tensor.float {
            Float::F32 => data_type::FLOAT,
            Float::F16 => data_type::FLOAT16,
        }),
        name: Some(tensor.name.clone()),
        external_data: vec![
            StringStringEntryProto::new("location", location),
            StringStringEntryProto::new("offset", offset.to_string()),
            StringStringEntryProto::new("length", length.to_string()),
        ],
        data_location: Some(LOCATION_EXTERNAL),
        ..Default::default()
    }
}
