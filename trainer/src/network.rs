//! The target network: its tensors in the flat weight vector, and its computation as an ONNX
//! graph, read from a file or made for a plain MLP.

mod batch_norm;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use dwf::{
    layout::{Layout, TensorKind},
    metadata::hex,
    onnx::{
        AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
        attribute_type, data_type,
    },
};
use prost::Message;
use sha2::{Digest, Sha256};

pub use self::batch_norm::BatchNorm;
pub use crate::checkpoint::Signature;
use crate::{
    error::{Error, Result, Status, invalid, io},
    mlp::Mlp,
};

/// The file in a zoo's folder that describes its networks unless another is named.
pub const FILE: &str = "network.onnx";
/// How to export a graph whose initialisers are the checkpoint's tensors.
const EXPORT: &str = "export it with its weights as they are, in PyTorch: \
                      torch.onnx.export(model.eval(), args, 'network.onnx', optimize=False)";
/// Versions of the standard operators that are understood.
const OPSETS: std::ops::RangeInclusive<i64> = 11..=25;
/// Names that an error lists at most.
const LISTED: usize = 6;

/// A network's architecture. Cloning it is cheap beside its weights, which it does not hold.
#[derive(Clone, Debug)]
pub struct Network {
    model: ModelProto,
    layout: Layout,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    mlp: Option<Mlp>,
    /// What it was read from.
    file: Option<PathBuf>,
}

/// An input or output of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Name in the graph.
    pub name: String,
    /// ONNX's number of its element type.
    pub elem_type: i32,
    /// Dimensions; `None` where any size goes, as for a batch.
    pub shape: Vec<Option<usize>>,
    /// Names of the dimensions that are free; equal names are equal sizes.
    pub symbols: Vec<Option<String>>,
}

impl Network {
    /// The plain MLP with ReLU between its layers that a checkpoint's tensors make: see
    /// [`Mlp::find`]. Input `x` [batch, inputs], output `y` [batch, outputs].
    ///
    /// Errors: INVALID_ARGUMENT naming the tensor that is in the way.
    pub fn mlp(tensors: &[Signature]) -> Result<Self> {
        let (mlp, layout) = Mlp::find(tensors)?;
        let mut graph = GraphProto {
            name: Some("mlp".into()),
            initializer: layout
                .tensors()
                .iter()
                .map(|tensor| weight(&tensor.name, &tensor.shape))
                .collect(),
            ..Default::default()
        };
        let mut last = "x".to_owned();
        for (i, pair) in layout.tensors().chunks_exact(2).enumerate() {
            if i > 0 {
                let hidden = format!("hidden{i}");
                graph.node.push(node("Relu", &[&last], &hidden));
                last = hidden;
            }
            let end = i + 1 == mlp.layers().len();
            let result = if end { "y".into() } else { format!("sum{i}") };
            let mut gemm = node("Gemm", &[&last, &pair[0].name, &pair[1].name], &result);
            gemm.attribute.push(AttributeProto {
                name: Some("transB".into()),
                i: Some(1),
                r#type: Some(attribute_type::INT),
                ..Default::default()
            });
            graph.node.push(gemm);
            last = result;
        }
        let value =
            |name, size| ValueInfoProto::tensor(name, data_type::FLOAT, &[Err("batch"), Ok(size)]);
        graph.input = vec![value("x", mlp.inputs())];
        graph.output = vec![value("y", mlp.outputs())];
        let mut network = Self::of(model(graph), layout)?;
        network.mlp = Some(mlp);
        Ok(network)
    }

    /// The network of an ONNX file, over a checkpoint's `tensors`, which are its initialisers of
    /// the same names. Their data in the file are not read and may be missing. The flat vector
    /// has them in the order in which the computation needs them.
    ///
    /// Errors: IO; INVALID_ARGUMENT, naming the file, if it is not such a graph: names or shapes
    /// that do not agree (listed), training mode, control flow; UNSUPPORTED for another opset.
    pub fn read(path: &Path, tensors: &[Signature]) -> Result<Self> {
        let bytes = fs::read(path).map_err(io("read the network", path))?;
        let parsed = ModelProto::decode(&bytes[..]).ok();
        let model = parsed.filter(|model| model.graph.is_some());
        let model = model.ok_or_else(|| invalid("not an ONNX file, or truncated"));
        let network = model.and_then(|model| Self::match_tensors(model, tensors, path));
        let mut network = network.map_err(|e| e.at(format!("'{}'", path.display())))?;
        network.file = Some(path.to_owned());
        Ok(network)
    }

    /// The network of an ONNX file alone: its tensors are the initialisers of floats without data,
    /// or if all have some, those that have a module, as `fc1.weight` has.
    ///
    /// Errors: as [`Network::read`].
    pub fn read_alone(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(io("read the network", path))?;
        let graph = ModelProto::decode(&bytes[..])
            .ok()
            .and_then(|model| model.graph);
        let initializers = graph.unwrap_or_default().initializer;
        let is_float = |tensor: &&TensorProto| {
            matches!(
                tensor.data_type(),
                data_type::FLOAT | data_type::FLOAT16 | data_type::BFLOAT16
            )
        };
        let floats: Vec<&TensorProto> = initializers.iter().filter(is_float).collect();
        let stripped = floats.iter().any(|tensor| !has_data(tensor));
        let own = |tensor: &&&TensorProto| match stripped {
            true => !has_data(tensor),
            false => tensor.name().contains('.'),
        };
        let tensors: Vec<Signature> = floats
            .iter()
            .filter(own)
            .map(|tensor| Signature {
                name: tensor.name().to_owned(),
                shape: tensor.dims.iter().map(|dim| *dim as usize).collect(),
                dtype: dwf::layout::DType::F32,
            })
            .collect();
        Self::read(path, &tensors)
    }

    fn match_tensors(mut model: ModelProto, tensors: &[Signature], path: &Path) -> Result<Self> {
        check_version(&model)?;
        let graph = model.graph.get_or_insert_default();
        check_graph(graph)?;
        let named: HashMap<&str, &Signature> = tensors
            .iter()
            .map(|tensor| (&*tensor.name, tensor))
            .collect();
        check_names(graph, &named)?;
        for tensor in &mut graph.initializer {
            match named.get(tensor.name()) {
                Some(signature) => check_shape(tensor, signature)?,
                None => load_external(tensor, path)?,
            }
        }
        let is_weight = |name: &str| named.contains_key(name);
        cast_weights(graph, is_weight);
        graph.value_info.clear();
        let order = order_of_use(graph, is_weight);
        let buffers = statistics(graph);
        let layout = Layout::pack(order.iter().map(|name| {
            let Signature { name, shape, dtype } = named[&**name].clone();
            let buffer = buffers.contains(&*name)
                || name.ends_with(".running_mean")
                || name.ends_with(".running_var");
            let kind = if buffer {
                TensorKind::Buffer
            } else {
                TensorKind::Parameter
            };
            (name, shape, dtype, kind)
        }))?;
        Self::of(model, layout)
    }

    fn of(mut model: ModelProto, layout: Layout) -> Result<Self> {
        let graph = model.graph.get_or_insert_default();
        let initializers: HashSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
        // Old files list initialisers among the inputs.
        graph
            .input
            .retain(|input| !initializers.contains(input.name()));
        let inputs = graph.input.iter().map(value).collect::<Result<_>>()?;
        let outputs = graph.output.iter().map(value).collect::<Result<_>>()?;
        Ok(Self {
            model,
            layout,
            inputs,
            outputs,
            mlp: None,
            file: None,
        })
    }

    /// The tensors in the order of the flat vector.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The model: every weight is an initialiser of floats without data, named and shaped like
    /// its tensor in the layout.
    pub fn model(&self) -> &ModelProto {
        &self.model
    }

    /// The computation.
    pub fn graph(&self) -> &GraphProto {
        self.model.graph.as_ref().expect("made with a graph")
    }

    /// What goes in.
    pub fn inputs(&self) -> &[Value] {
        &self.inputs
    }

    /// What comes out.
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    /// An error about this network, which says what file it was read from.
    pub fn blame(&self, error: Error) -> Error {
        match &self.file {
            Some(file) => error.at(format!("'{}'", file.display())),
            None => error,
        }
    }

    /// What tells the architecture from others: a digest of the model.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(self.model.encode_to_vec()))
    }

    /// The network as a chain of layers, if it was found as one.
    pub fn as_mlp(&self) -> Option<&Mlp> {
        self.mlp.as_ref()
    }
}

/// The ONNX file of a graph that the trainer makes.
pub(crate) fn model(graph: GraphProto) -> ModelProto {
    ModelProto::opset20(graph, "dwf-trainer", env!("CARGO_PKG_VERSION"))
}

/// An attribute of a node.
pub fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name() == name)
}

/// A node for people, by its output where it has no name.
pub fn title(node: &NodeProto) -> String {
    let output = node.output.first().map_or("", String::as_str);
    let name = match node.name() {
        "" => output,
        name => name,
    };
    format!("'{name}' ({})", node.op_type())
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        name: Some(format!("{op}_{output}")),
        op_type: Some(op.to_owned()),
        ..Default::default()
    }
}

fn weight(name: &str, shape: &[usize]) -> TensorProto {
    TensorProto {
        dims: shape.iter().map(|dim| *dim as i64).collect(),
        data_type: Some(data_type::FLOAT),
        name: Some(name.to_owned()),
        ..Default::default()
    }
}

fn value(info: &ValueInfoProto) -> Result<Value> {
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
    let (Some(tensor), Some(shape)) = (tensor, shape) else {
        let what = format!(
            "input or output '{}' is no tensor of known rank",
            info.name()
        );
        return Err(invalid(what));
    };
    let size = |dim: Option<i64>| dim.and_then(|size| usize::try_from(size).ok());
    Ok(Value {
        name: info.name().to_owned(),
        elem_type: tensor.elem_type(),
        shape: shape.dim.iter().map(|dim| size(dim.dim_value)).collect(),
        symbols: shape.dim.iter().map(|dim| dim.dim_param.clone()).collect(),
    })
}

fn check_version(model: &ModelProto) -> Result<()> {
    for opset in &model.opset_import {
        let (domain, version) = (opset.domain(), opset.version());
        let why = match domain {
            "" | "ai.onnx" if !OPSETS.contains(&version) => format!(
                "its opset is {version}, and {} to {} are understood; export it again with \
                 opset_version=20",
                OPSETS.start(),
                OPSETS.end()
            ),
            "ai.onnx.preview.training" => {
                format!("it holds operators for training alone; {EXPORT}")
            }
            _ => continue,
        };
        return Err(Error::new(Status::Unsupported, why));
    }
    Ok(())
}

fn check_graph(graph: &GraphProto) -> Result<()> {
    for node in &graph.node {
        let refuse = |what: &str| Err(invalid(format!("node {} {what}; {EXPORT}", title(node))));
        if node.attribute.iter().any(|a| a.g.is_some()) {
            return refuse("is control flow, and only straight computations are understood");
        }
        let trains = attribute(node, "training_mode").is_some_and(|a| a.i() != 0);
        let old = node.op_type() == "BatchNormalization" && node.output.len() > 1;
        if trains || old {
            return refuse("is in training mode");
        }
    }
    Ok(())
}

/// Every tensor of the checkpoint must be an initialiser, and the other way round but for
/// constants: initialisers of modules of which the checkpoint has nothing.
fn check_names(graph: &GraphProto, named: &HashMap<&str, &Signature>) -> Result<()> {
    let initializers: HashSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    let modules: HashSet<&str> = named.keys().map(|name| module(name)).collect();
    let extra = named.keys().filter(|name| !initializers.contains(*name));
    let extra: BTreeSet<&str> = extra.copied().collect();
    let missing = graph.initializer.iter().filter(|tensor| {
        let name = tensor.name();
        let of_module = name.contains('.') && modules.contains(module(name));
        let float = tensor.data_type() == data_type::FLOAT;
        !named.contains_key(name) && (of_module && float || !has_data(tensor))
    });
    let missing: BTreeSet<&str> = missing.map(|tensor| tensor.name()).collect();
    if extra.is_empty() && missing.is_empty() {
        return Ok(());
    }
    let mut parts = Vec::new();
    if !extra.is_empty() {
        parts.push(format!(
            "the checkpoints' {} are not in the graph",
            list(&extra)
        ));
    }
    if !missing.is_empty() {
        parts.push(format!("its {} are not in the checkpoints", list(&missing)));
    }
    let parts = parts.join(", and ");
    Err(invalid(format!("{parts}; {EXPORT}")))
}

/// The module that a tensor belongs to: its name without the last part.
fn module(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(module, _)| module)
}

fn has_data(tensor: &TensorProto) -> bool {
    tensor.raw_data.is_some()
        || tensor.is_external()
        || !tensor.float_data.is_empty()
        || !tensor.int32_data.is_empty()
        || !tensor.int64_data.is_empty()
        || !tensor.double_data.is_empty()
        || tensor.dims.contains(&0)
}

fn list(names: &BTreeSet<&str>) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(LISTED)
        .map(|n| format!("'{n}'"))
        .collect();
    let more = match names.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("tensors {}{more}", shown.join(", "))
}

/// Whether an initialiser is the checkpoint's tensor; its data are dropped.
fn check_shape(tensor: &mut TensorProto, signature: &Signature) -> Result<()> {
    let shape: Vec<usize> = tensor.dims.iter().map(|dim| *dim as usize).collect();
    if shape != signature.shape {
        return Err(invalid(format!(
            "tensor '{}' is {shape:?} in the graph and {:?} in the checkpoints; {EXPORT}",
            signature.name, signature.shape
        )));
    }
    let mut bare = weight(&signature.name, &signature.shape);
    bare.data_type = tensor.data_type;
    *tensor = bare;
    Ok(())
}

/// Reads a constant that lies in a file beside the graph.
fn load_external(tensor: &mut TensorProto, path: &Path) -> Result<()> {
    if !tensor.is_external() {
        return Ok(());
    }
    let location = tensor.external("location").unwrap_or_default();
    let bare = Path::new(location).components().count() == 1 && !location.starts_with('.');
    let number = |key| {
        tensor
            .external(key)
            .and_then(|text| text.parse::<u64>().ok())
    };
    let (offset, length) = (number("offset").unwrap_or(0), number("length"));
    let (true, Some(length)) = (bare, length) else {
        let what = format!("initialiser '{}' lies in no file beside it", tensor.name());
        return Err(invalid(what));
    };
    let file = path.with_file_name(location);
    let mut bytes = Vec::new();
    let mut reader = fs::File::open(&file).map_err(io("read", &file))?;
    reader
        .seek(SeekFrom::Start(offset))
        .map_err(io("read", &file))?;
    reader
        .take(length)
        .read_to_end(&mut bytes)
        .map_err(io("read", &file))?;
    tensor.raw_data = Some(bytes);
    tensor.external_data.clear();
    tensor.data_location = None;
    Ok(())
}

/// Weights are single precision, whatever the export computes in: others get a cast.
fn cast_weights(graph: &mut GraphProto, is_weight: impl Fn(&str) -> bool) {
    let mut casts = Vec::new();
    let mut renamed = HashMap::new();
    for tensor in &mut graph.initializer {
        let stored = tensor.data_type();
        if is_weight(tensor.name()) && stored != data_type::FLOAT {
            tensor.data_type = Some(data_type::FLOAT);
            let cast = format!("{}/cast", tensor.name());
            let mut node = node("Cast", &[tensor.name()], &cast);
            node.attribute.push(AttributeProto {
                name: Some("to".into()),
                i: Some(stored.into()),
                r#type: Some(attribute_type::INT),
                ..Default::default()
            });
            casts.push(node);
            renamed.insert(tensor.name().to_owned(), cast);
        }
    }
    for input in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if let Some(cast) = renamed.get(input) {
            input.clone_from(cast);
        }
    }
    graph.node.splice(0..0, casts);
}

/// The weights as the nodes need them; those that none needs last.
fn order_of_use(graph: &GraphProto, is_weight: impl Fn(&str) -> bool) -> Vec<String> {
    let used = graph.node.iter().flat_map(|node| &node.input);
    let all = graph.initializer.iter().filter_map(|t| t.name.as_ref());
    let mut seen = HashSet::new();
    used.filter(|name| is_weight(name))
        .chain(all.filter(|name| is_weight(name)))
        .filter(|name| seen.insert(name.as_str()))
        .cloned()
        .collect()
}

/// Names of the running means and variances.
fn statistics(graph: &GraphProto) -> HashSet<String> {
    let norms = graph.node.iter();
    norms
        .filter(|node| node.op_type() == "BatchNormalization")
        .flat_map(|node| node.input.iter().skip(3).cloned())
        .collect()
}
