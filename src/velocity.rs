//! The velocity network's graph taken apart: what depends on time alone is computed once for a
//! whole grid, the rest once an evaluation, in float32 or float16.

use std::collections::{HashMap, HashSet};

use crate::{
    artifact::value,
    onnx::{
        AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, attribute_type,
        data_type,
    },
};

/// Operators that compute every row from the same row of their time-dependent inputs.
const ELEMENTWISE: [&str; 16] = [
    "Add", "Sub", "Mul", "Div", "Pow", "Neg", "Exp", "Sqrt", "Sin", "Cos", "Erf", "Gelu", "Relu",
    "Sigmoid", "Tanh", "Identity",
];

/// The network in two graphs.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// From `t` [rows, 1] to the features, [rows, width] each. `None` where there is no such
    /// part: the one feature is then `t` itself.
    pub(crate) time: Option<GraphProto>,
    /// From `x`, the features (of 1 or batch rows) and `condition` to `v`.
    pub(crate) rest: GraphProto,
    /// Names of the features.
    pub(crate) features: Vec<String>,
}

impl Parts {
    /// Takes `graph` apart; the parts together compute the same function.
    pub(crate) fn new(graph: &GraphProto) -> Self {
        Self::split(graph).unwrap_or_else(|| Self::whole(graph))
    }

    /// All of `graph` as the rest.
    pub(crate) fn whole(graph: &GraphProto) -> Self {
        Self {
            time: None,
            rest: graph.clone(),
            features: vec![value::T.into()],
        }
    }

    fn split(graph: &GraphProto) -> Option<Self> {
        let subgraph = |node: &NodeProto| node.attribute.iter().any(|a| a.g.is_some());
        if graph.node.iter().any(subgraph) {
            return None;
        }
        let others = graph.input.iter().map(ValueInfoProto::name);
        let on_state = dependents(graph, others.filter(|name| *name != value::T));
        let on_time: HashSet<&str> = dependents(graph, [value::T])
            .difference(&on_state)
            .copied()
            .collect();
        let timely = |node: &&NodeProto| node.output.iter().any(|o| on_time.contains(o.as_str()));
        if !graph
            .node
            .iter()
            .filter(timely)
            .all(|node| is_row_wise(node, &on_time))
        {
            return None;
        }
        let mut features = Vec::new();
        for node in graph.node.iter().filter(|node| !timely(node)) {
            for input in &node.input {
                if on_time.contains(input.as_str()) && !features.contains(input) {
                    features.push(input.clone());
                }
            }
        }
        // A network that uses `t` beside its embedding, or that is nothing but time.
        if features.is_empty()
            || features.iter().any(|name| name == value::T)
            || on_time.contains(value::V)
        {
            return None;
        }
        let mut time = GraphProto {
            input: graph
                .input
                .iter()
                .filter(|input| input.name() == value::T)
                .cloned()
                .collect(),
            output: features.iter().map(|name| matrix(name, None)).collect(),
            ..graph.clone()
        };
        prune(&mut time);
        let mut rest = graph.clone();
        rest.node.retain(|node| !timely(&node));
        rest.input.retain(|input| input.name() != value::T);
        prune(&mut rest);
        Some(Self {
            time: Some(time),
            rest,
            features,
        })
    }

    /// The rest as a graph of its own, its features being `widths` wide.
    pub(crate) fn evaluation(&self, widths: &[usize]) -> GraphProto {
        let mut graph = self.rest.clone();
        if self.time.is_some() {
            let features = self.features.iter().zip(widths);
            graph
                .input
                .extend(features.map(|(name, width)| matrix(name, Some(*width))));
        }
        graph
    }
}

fn matrix(name: &str, width: Option<usize>) -> ValueInfoProto {
    ValueInfoProto::tensor(name, data_type::FLOAT, &[Err("times"), width.ok_or(name)])
}

/// The values that depend on `seeds`, and these.
fn dependents<'a>(
    graph: &'a GraphProto,
    seeds: impl IntoIterator<Item = &'a str>,
) -> HashSet<&'a str> {
    let mut found: HashSet<&str> = seeds.into_iter().collect();
    for node in &graph.node {
        if node
            .input
            .iter()
            .any(|input| found.contains(input.as_str()))
        {
            found.extend(node.output.iter().map(String::as_str));
        }
    }
    found
}

/// Whether row i of the outputs depends on row i of the inputs among `rows` alone.
fn is_row_wise(node: &NodeProto, rows: &HashSet<&str>) -> bool {
    let varies = |i: usize| {
        node.input
            .get(i)
            .is_some_and(|name| rows.contains(name.as_str()))
    };
    let attribute = |name: &str| {
        node.attribute
            .iter()
            .find(|a| a.name() == name)
            .map(|a| a.i())
    };
    match node.op_type() {
        "MatMul" => !varies(1),
        "Gemm" => !varies(1) && attribute("transA").unwrap_or(0) == 0,
        "LayerNormalization" => {
            !varies(1) && !varies(2) && matches!(attribute("axis").unwrap_or(-1), -1 | 1)
        }
        "Concat" => (0..node.input.len()).all(varies) && matches!(attribute("axis"), Some(-1 | 1)),
        op => ELEMENTWISE.contains(&op),
    }
}

/// Leaves what the outputs need.
pub(crate) fn prune(graph: &mut GraphProto) {
    let mut needed: HashSet<String> = graph.output.iter().map(|o| o.name().into()).collect();
    let mut nodes = Vec::new();
    for node in std::mem::take(&mut graph.node).into_iter().rev() {
        if node.output.iter().any(|output| needed.contains(output)) {
            needed.extend(node.input.iter().cloned());
            nodes.push(node);
        }
    }
    nodes.reverse();
    graph.node = nodes;
    graph
        .initializer
        .retain(|tensor| needed.contains(tensor.name()));
}

/// Turns a float32 graph into one that computes in float16 between float32 inputs and outputs:
/// matrices are stored in float16 already, and lose their cast; other floats, constants among the
/// nodes too, get one.
pub(crate) fn to_half(graph: &mut GraphProto) {
    let element: HashMap<String, i32> = graph
        .initializer
        .iter()
        .map(|tensor| (tensor.name().to_owned(), tensor.data_type()))
        .collect();
    let float = |tensor: &&TensorProto| tensor.data_type() == data_type::FLOAT;
    let initializers = graph
        .initializer
        .iter()
        .filter(float)
        .map(TensorProto::name);
    let inputs = graph.input.iter().map(ValueInfoProto::name);
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut nodes = Vec::new();
    for name in initializers.chain(inputs) {
        let half = format!("{name}/half");
        nodes.push(cast(name, &half, data_type::FLOAT16));
        renamed.insert(name.to_owned(), half);
    }
    let outputs: Vec<&str> = graph.output.iter().map(ValueInfoProto::name).collect();
    for mut node in std::mem::take(&mut graph.node) {
        let source = node.input.first().cloned().unwrap_or_default();
        if node.op_type() == "Cast" && element.get(&source) == Some(&data_type::FLOAT16) {
            renamed.insert(node.output[0].clone(), source);
            continue;
        }
        if is_float_constant(&node) {
            let name = node.output[0].clone();
            let half = format!("{name}/half");
            nodes.extend([node, cast(&name, &half, data_type::FLOAT16)]);
            renamed.insert(name, half);
            continue;
        }
        for input in &mut node.input {
            if let Some(half) = renamed.get(input) {
                input.clone_from(half);
            }
        }
        for output in &mut node.output {
            if outputs.contains(&output.as_str()) {
                let half = format!("{output}/half");
                renamed.insert(output.clone(), half.clone());
                *output = half;
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
    nodes.extend(
        outputs
            .iter()
            .map(|name| cast(&format!("{name}/half"), name, data_type::FLOAT)),
    );
    graph.node = nodes;
}

/// Whether `node` is a constant of float32.
fn is_float_constant(node: &NodeProto) -> bool {
    let is_float = |attribute: &AttributeProto| match attribute.name() {
        "value" => attribute
            .t
            .as_ref()
            .is_some_and(|tensor| tensor.data_type() == data_type::FLOAT),
        name => matches!(name, "value_float" | "value_floats"),
    };
    node.op_type() == "Constant" && node.attribute.iter().any(is_float)
}

pub(crate) fn cast(from: &str, to: &str, data_type: i32) -> NodeProto {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::ModelProto;
    use prost::Message;

    /// The committed artifact's velocity network.
    fn graph() -> GraphProto {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/iris/iris.onnx");
        let model = ModelProto::decode(&std::fs::read(path).unwrap()[..]).unwrap();
        model.graph.unwrap()
    }

    /// Tests elsewhere show that the parts compute the same; this one that they are two.
    #[test]
    fn the_time_embedding_is_apart() {
        let graph = graph();
        let parts = Parts::new(&graph);
        assert_eq!(parts.features, ["input_time.out"]);
        let time = parts.time.unwrap();
        let multiplies = |graph: &GraphProto| {
            let nodes = graph.node.iter();
            nodes.filter(|node| node.op_type() == "Gemm").count()
        };
        assert_eq!((multiplies(&time), multiplies(&parts.rest)), (3, 4));
        assert!(
            parts
                .rest
                .input
                .iter()
                .all(|input| input.name() != value::T)
        );
        let embeds = |tensor: &TensorProto| tensor.name().starts_with("time");
        assert!(time.initializer.iter().any(embeds));
        assert!(!parts.rest.initializer.iter().any(embeds));
    }

    #[test]
    fn what_is_not_computed_row_by_row_stays_with_the_rest() {
        let whole = |change: &dyn Fn(&mut GraphProto)| {
            let mut graph = graph();
            change(&mut graph);
            let parts = Parts::new(&graph);
            assert!(parts.time.is_none());
            assert_eq!(parts.features, [value::T]);
            assert_eq!(parts.rest, graph);
        };
        // An operator that mixes rows; time beside its embedding.
        whole(&|graph| {
            let gelu = graph.node.iter_mut().find(|node| node.op_type() == "Gelu");
            gelu.unwrap().op_type = Some("ReduceMean".into());
        });
        whole(&|graph| {
            let last = graph.node.last_mut().unwrap();
            last.input.push(value::T.into());
        });
    }
}
