//! The ONNX graph tracer: a PyTorch export whose graph is changed in ways that a random change of
//! bytes never finds, run once by ONNX Runtime and traced to its groups.

#![no_main]

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use dwf::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, attribute_type};
use dwf_fuzz::graph::{self, pick};
use dwf_trainer_readers::{groups::Groups, network::Network};
use prost::Message;

/// Small exports with linear layers, convolutions, normalisations, attention and recurrence.
static EXPORTS: LazyLock<[ModelProto; 5]> = LazyLock::new(|| {
    [
        &include_bytes!("../../trainer/tests/networks/mlp.onnx")[..],
        include_bytes!("../../trainer/tests/networks/groupnorm.onnx"),
        include_bytes!("../../trainer/tests/networks/gru.onnx"),
        include_bytes!("../../trainer/tests/networks/lstm.onnx"),
        include_bytes!("../../trainer/tests/networks/bert_slim.onnx"),
    ]
    .map(|bytes| ModelProto::decode(bytes).unwrap())
});

/// Operators that the tracer knows, with one that it does not (`Det`).
const OPERATORS: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "Attention",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "CumSum",
    "Det",
    "Div",
    "Dropout",
    "Einsum",
    "Elu",
    "Equal",
    "Expand",
    "Flatten",
    "GRU",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNormalization",
    "Identity",
    "InstanceNormalization",
    "LSTM",
    "LayerNormalization",
    "LpNormalization",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Mul",
    "PRelu",
    "Pad",
    "Pow",
    "RNN",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Shape",
    "Size",
    "Slice",
    "Softmax",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

const ATTRIBUTES: &[&str] = &[
    "axis",
    "axes",
    "perm",
    "group",
    "keepdims",
    "transA",
    "transB",
    "num_outputs",
    "hidden_size",
    "linear_before_reset",
    "num_groups",
    "q_num_heads",
    "kv_num_heads",
    "kernel_shape",
    "strides",
    "pads",
    "dilations",
    "to",
    "start",
    "end",
    "noop_with_empty_axes",
    "allowzero",
    "equation",
    "direction",
    "layout",
    "split",
];
const EQUATIONS: &[&str] = &[
    "ij,jk->ik",
    "bhid,bhjd->bhij",
    "ii->i",
    "ab->ba",
    "...i,i->...",
    "a,b->ab",
    ",",
];
const DIRECTIONS: &[&str] = &["forward", "reverse", "bidirectional"];

#[derive(Arbitrary, Debug)]
struct Plan {
    export: u8,
    changes: Vec<Change>,
}

#[derive(Arbitrary, Debug)]
enum Change {
    /// A new node before node `at`, which may read it.
    Node {
        at: u8,
        op: u8,
        inputs: [u8; 4],
        arity: u8,
        axis: i8,
        rewire: bool,
    },
    Input {
        node: u8,
        input: u8,
        value: u8,
    },
    Operator {
        node: u8,
        op: u8,
    },
    Attribute {
        node: u8,
        name: u8,
        values: [i8; 4],
        count: u8,
    },
    Forget {
        node: u8,
    },
    /// A list of integers that may become a shape, axes or indices.
    Integers(Vec<i8>),
    Floats {
        shape: Vec<u8>,
        value: f32,
    },
    Drop(u8),
    Dims {
        tensor: u8,
        dims: Vec<u8>,
    },
    /// A node's output becomes the graph's.
    Output {
        node: u8,
    },
    Duplicate {
        node: u8,
    },
}

/// Every name that a node might read, and one that is not there.
fn values(graph: &GraphProto) -> Vec<String> {
    let mut names = vec![String::new(), "nowhere".into()];
    names.extend(graph.input.iter().map(|input| input.name().into()));
    names.extend(graph.initializer.iter().map(|tensor| tensor.name().into()));
    names.extend(graph.node.iter().flat_map(|node| node.output.clone()));
    names
}

fn attribute(name: &str, values: &[i8]) -> AttributeProto {
    let first = values.first().copied().unwrap_or_default();
    let ints = || values.iter().map(|value| i64::from(*value)).collect();
    let text = |list: &[&str]| Some(pick(list, first as u8).as_bytes().to_vec());
    let mut new = AttributeProto {
        name: Some(name.into()),
        ..Default::default()
    };
    match name {
        "axes" | "perm" | "kernel_shape" | "strides" | "pads" | "dilations" | "split" => {
            (new.r#type, new.ints) = (Some(attribute_type::INTS), ints());
        }
        "equation" => (new.r#type, new.s) = (Some(attribute_type::STRING), text(EQUATIONS)),
        "direction" => (new.r#type, new.s) = (Some(attribute_type::STRING), text(DIRECTIONS)),
        _ => (new.r#type, new.i) = (Some(attribute_type::INT), Some(first.into())),
    }
    new
}

fn apply(graph: &mut GraphProto, change: Change, fresh: usize) {
    let values = values(graph);
    let nodes = graph.node.len();
    if nodes == 0 {
        return;
    }
    let at = |index: u8| usize::from(index) % nodes;
    match change {
        Change::Node {
            at: n,
            op,
            inputs,
            arity,
            axis,
            rewire,
        } => {
            let inputs = inputs[..usize::from(arity % 5)].iter();
            let new = NodeProto {
                input: inputs.map(|i| pick(&values, *i).clone()).collect(),
                output: vec![format!("fresh{fresh}")],
                op_type: Some((*pick(OPERATORS, op)).into()),
                attribute: if axis == 0 {
                    vec![]
                } else {
                    vec![attribute("axis", &[axis])]
                },
                ..Default::default()
            };
            graph::insert(graph, at(n), new, rewire);
        }
        Change::Input { node, input, value } => {
            let value = pick(&values, value).clone();
            graph::set_input(&mut graph.node[at(node)], input, value);
        }
        Change::Operator { node, op } => {
            graph.node[at(node)].op_type = Some((*pick(OPERATORS, op)).into());
        }
        Change::Attribute {
            node,
            name,
            values,
            count,
        } => {
            let name = *pick(ATTRIBUTES, name);
            let attributes = &mut graph.node[at(node)].attribute;
            attributes.retain(|attribute| attribute.name() != name);
            attributes.push(attribute(name, &values[..usize::from(count % 5)]));
        }
        Change::Forget { node } => drop(graph.node[at(node)].attribute.pop()),
        Change::Integers(integers) => {
            let new = graph::integers(format!("fresh{fresh}"), integers);
            graph.initializer.push(new);
        }
        Change::Floats { shape, value } => {
            let new = graph::floats(format!("fresh{fresh}"), &shape, value);
            graph.initializer.push(new);
        }
        Change::Drop(node) => drop(graph.node.remove(at(node))),
        Change::Dims { tensor, dims } => {
            let tensors = &mut graph.initializer;
            let place = usize::from(tensor) % tensors.len().max(1);
            if let Some(tensor) = tensors.get_mut(place) {
                tensor.dims = dims.iter().take(4).map(|dim| i64::from(dim % 33)).collect();
            }
        }
        Change::Output { node } => {
            let name = graph.node[at(node)].output.first().cloned();
            if let Some(output) = graph.output.first_mut() {
                output.name = name;
            }
        }
        Change::Duplicate { node } => {
            let mut copy = graph.node[at(node)].clone();
            for (i, output) in copy.output.iter_mut().enumerate() {
                *output = format!("fresh{fresh}.{i}");
            }
            graph.node.insert(at(node) + 1, copy);
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(bytes)) else {
        return;
    };
    let mut model = pick(&*EXPORTS, plan.export).clone();
    let graph = model.graph.get_or_insert_default();
    for (i, change) in plan.changes.into_iter().take(8).enumerate() {
        apply(graph, change, i);
    }
    let path = dwf_fuzz::file("network.onnx", &model.encode_to_vec());
    let Ok(network) = Network::read_alone(&path) else {
        return;
    };
    let Ok(groups) = Groups::find(&network) else {
        return;
    };
    groups.table(network.layout());
    let weights: Vec<f32> = (0..network.layout().len()).map(|i| i as f32).collect();
    let mut same = vec![0.0; weights.len()];
    groups.permute(network.layout(), &weights, &groups.identity(), &mut same);
    assert_eq!(same, weights);
});
