//! Artifacts that are nearly right: a good pair whose graph, initialisers and metadata are changed
//! in ways that a random change of bytes never finds, and then opened, loaded and sampled.

#![no_main]

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use dwf::{
    Model, ModelOptions, SampleOptions, Sampler, SamplerOptions,
    metadata::BasisKind,
    onnx::{AttributeProto, NodeProto, attribute_type},
};
use dwf_fuzz::{
    artifact::Artifact,
    graph::{self, pick},
};
use prost::Message;

#[derive(Arbitrary, Debug)]
struct Plan {
    basis: u8,
    changes: Vec<Change>,
    count: u8,
}

#[derive(Arbitrary, Debug)]
enum Change {
    /// A new node after the node `after`, that the node behind it may read.
    Node {
        after: u8,
        op: u8,
        inputs: [u8; 3],
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
        value: i16,
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
        dims: Vec<i8>,
    },
    Opset(u8),
    Metadata {
        key: u8,
        at: u16,
        byte: u8,
    },
    Sidecar {
        at: u16,
        byte: u8,
    },
}

/// The documented list, and two that are not on it.
static OPERATORS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let text = include_str!("../../docs/artifact.md");
    let (_, text) = text.split_once("### Operators").unwrap();
    let (text, _) = text.split_once("\non float32").unwrap();
    let names = text.split('`').skip(1).step_by(2);
    let names = names.filter(|name| !name.contains('.'));
    names.chain(["Loop", "NonZero"]).collect()
});

const ATTRIBUTES: &[&str] = &[
    "axis",
    "to",
    "transA",
    "transB",
    "perm",
    "keepdims",
    "start",
    "end",
    "num_outputs",
    "alpha",
    "allowzero",
    "axes",
    "epsilon",
];

/// Every name that a node might read, and some that are not there.
fn values(artifact: &mut Artifact) -> Vec<String> {
    let graph = artifact.graph();
    let mut names: Vec<String> = ["x", "t", "condition", "", "nowhere"]
        .map(String::from)
        .into();
    names.extend(graph.initializer.iter().map(|tensor| tensor.name().into()));
    names.extend(graph.node.iter().flat_map(|node| node.output.clone()));
    names
}

fn attribute(name: &str, value: i16) -> AttributeProto {
    let ints = ["perm", "axes"].contains(&name);
    let float = ["alpha", "epsilon"].contains(&name);
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(match (ints, float) {
            (true, _) => attribute_type::INTS,
            (_, true) => attribute_type::FLOAT,
            _ => attribute_type::INT,
        }),
        ints: if ints { vec![value.into(), 0] } else { vec![] },
        f: float.then_some(f32::from(value)),
        i: (!ints && !float).then_some(value.into()),
        ..Default::default()
    }
}

fn apply(artifact: &mut Artifact, change: Change, fresh: usize) {
    let values = values(artifact);
    let nodes = artifact.graph().node.len();
    let node = |index: u8| usize::from(index) % nodes.max(1);
    if nodes == 0 {
        return;
    }
    match change {
        Change::Node {
            after,
            op,
            inputs,
            arity,
            axis,
            rewire,
        } => {
            let at = node(after);
            let inputs = inputs[..usize::from(arity % 4)].iter();
            let new = NodeProto {
                input: inputs.map(|i| pick(&values, *i).clone()).collect(),
                output: vec![format!("fresh{fresh}")],
                op_type: Some((*pick(&OPERATORS, op)).into()),
                attribute: if axis == 0 {
                    vec![]
                } else {
                    vec![attribute("axis", axis.into())]
                },
                ..Default::default()
            };
            graph::insert(artifact.graph(), at, new, rewire);
        }
        Change::Input {
            node: n,
            input,
            value,
        } => {
            let value = pick(&values, value).clone();
            graph::set_input(&mut artifact.graph().node[node(n)], input, value);
        }
        Change::Operator { node: n, op } => {
            artifact.graph().node[node(n)].op_type = Some((*pick(&OPERATORS, op)).into());
        }
        Change::Attribute {
            node: n,
            name,
            value,
        } => {
            let new = attribute(pick::<&str>(ATTRIBUTES, name), value);
            artifact.graph().node[node(n)].attribute.push(new);
        }
        Change::Integers(integers) => {
            let new = graph::integers(format!("fresh{fresh}"), integers);
            artifact.graph().initializer.push(new);
        }
        Change::Floats { shape, value } => {
            let new = graph::floats(format!("fresh{fresh}"), &shape, value);
            artifact.graph().initializer.push(new);
        }
        Change::Drop(n) => drop(artifact.graph().node.remove(node(n))),
        Change::Dims { tensor, dims } => {
            let tensors = &mut artifact.graph().initializer;
            let at = usize::from(tensor) % tensors.len();
            tensors[at].dims = dims.into_iter().map(i64::from).collect();
        }
        Change::Opset(version) => artifact.onnx.opset_import[0].version = Some(version.into()),
        Change::Metadata { key, at, byte } => {
            let props = &mut artifact.onnx.metadata_props;
            let prop = usize::from(key) % props.len();
            let mut value = props[prop].value().as_bytes().to_vec();
            if let Some(place) = value.get_mut(usize::from(at)) {
                *place = byte;
            }
            props[prop].value = String::from_utf8(value).ok();
        }
        Change::Sidecar { at, byte } => {
            if let Some(place) = artifact.sidecar.get_mut(usize::from(at)) {
                *place = byte;
            }
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(bytes)) else {
        return;
    };
    let bases = [BasisKind::Linear, BasisKind::Diagonal, BasisKind::Identity];
    let mut artifact = dwf_fuzz::small(*pick(&bases, plan.basis));
    for (i, change) in plan.changes.into_iter().take(12).enumerate() {
        apply(&mut artifact, change, i);
    }
    sample(&artifact, usize::from(plan.count % 5) + 1);
});

fn sample(artifact: &Artifact, count: usize) {
    let options = ModelOptions {
        copy: true,
        ..Default::default()
    };
    // The copy makes the sidecar's life irrelevant.
    let sidecar: &'static [u8] = Box::leak(artifact.sidecar.clone().into_boxed_slice());
    let onnx = artifact.onnx.encode_to_vec();
    let model = Model::from_static(&onnx, sidecar, &options);
    // SAFETY: leaked above, and no longer used.
    drop(unsafe { Box::from_raw(std::ptr::from_ref(sidecar).cast_mut()) });
    let Ok(model) = model else { return };
    let options = SamplerOptions {
        threads: 1,
        max_batch: 3,
        memory_limit: 64 << 20,
        ..Default::default()
    };
    let Ok(mut sampler) = Sampler::new(&model, &options) else {
        return;
    };
    let mut solver = model.metadata().solver.solver();
    solver.steps = 1;
    let mut weights = vec![0f32; count * model.metadata().layout.len()];
    let options = SampleOptions {
        count,
        solver: Some(solver),
        ..Default::default()
    };
    if sampler.sample(options, &mut weights[..]).is_ok() {
        assert!(weights.iter().all(|weight| weight.is_finite()));
    }
}
