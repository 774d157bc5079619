//! Batch normalisations in a network's graph: where their running statistics lie, and the same
//! network by the statistics of the batch at hand.

use std::ops::Range;

use dwf::onnx::{AttributeProto, NodeProto, TensorProto, attribute_type, data_type};

use super::{Network, attribute, node};

/// A batch normalisation, with its statistics' places in the flat vector.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    /// Running mean, [channels].
    pub mean: Range<usize>,
    /// Running variance, [channels].
    pub variance: Range<usize>,
    /// What is added to the variance.
    pub epsilon: f32,
}

/// Names of what a batch normalisation measures in [`Network::by_batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Mean, [channels].
    pub mean: String,
    /// Biased variance, [channels].
    pub variance: String,
    /// Three integers: samples, channels, positions.
    pub shape: String,
}

/// Integers that the graph needs: the shape of samples, channels and positions, a flat shape, and
/// the axes of all but channels.
const SPLIT: (&str, &[i64]) = ("dwf.batch.split", &[0, 0, -1]);
const FLAT: (&str, &[i64]) = ("dwf.batch.flat", &[-1]);
const AXES: (&str, &[i64]) = ("dwf.batch.axes", &[0, 2]);
/// From this version on ReduceMean takes its axes as an input.
const AXES_ARE_INPUTS: i64 = 18;

impl Network {
    /// Its batch normalisations, from input to output.
    pub fn batch_norms(&self) -> Vec<BatchNorm> {
        let nodes = self.graph().node.iter();
        nodes.filter_map(|node| self.batch_norm(node)).collect()
    }

    fn batch_norm(&self, node: &NodeProto) -> Option<BatchNorm> {
        if node.op_type() != "BatchNormalization" {
            return None;
        }
        let place = |name: &String| self.layout.get(name).map(|tensor| tensor.range());
        Some(BatchNorm {
            mean: place(node.input.get(3)?)?,
            variance: place(node.input.get(4)?)?,
            epsilon: attribute(node, "epsilon").map_or(1e-5, |a| a.f()),
        })
    }

    /// The same network, but that its batch normalisations normalise by the batch at hand, as in
    /// training, and what each of [`Network::batch_norms`] measures there.
    pub fn by_batch(&self) -> (Self, Vec<Statistics>) {
        let mut network = self.clone();
        let opset = self.model.opset_import.iter();
        let opset = opset
            .filter(|set| matches!(set.domain(), "" | "ai.onnx"))
            .map(|set| set.version());
        let axes_are_inputs = opset.max().unwrap_or(0) >= AXES_ARE_INPUTS;
        let mut all = Vec::new();
        let mut nodes = Vec::new();
        for node in &self.graph().node {
            let mut node = node.clone();
            if self.batch_norm(&node).is_some() {
                let prefix = format!("dwf.batch.{}", all.len());
                let named = |what: &str| format!("{prefix}.{what}");
                let statistics = Statistics {
                    mean: named("mean"),
                    variance: named("variance"),
                    shape: named("shape"),
                };
                nodes.extend(measure(
                    &node.input[0],
                    &statistics,
                    &named,
                    axes_are_inputs,
                ));
                node.input[3] = statistics.mean.clone();
                node.input[4] = statistics.variance.clone();
                all.push(statistics);
            }
            nodes.push(node);
        }
        let graph = network.model.graph.get_or_insert_default();
        graph.node = nodes;
        graph.initializer.extend([SPLIT, FLAT, AXES].map(integers));
        (network, all)
    }
}

/// The nodes that measure `x`.
fn measure(
    x: &str,
    statistics: &Statistics,
    named: &dyn Fn(&str) -> String,
    axes_are_inputs: bool,
) -> Vec<NodeProto> {
    let [split, centre, apart, square, spread] =
        ["split", "centre", "apart", "square", "spread"].map(named);
    let mean = |input: &str, output: &str| {
        let mut reduce = node("ReduceMean", &[input], output);
        if axes_are_inputs {
            reduce.input.push(AXES.0.to_owned());
        } else {
            reduce.attribute.push(AttributeProto {
                name: Some("axes".into()),
                ints: AXES.1.to_vec(),
                r#type: Some(attribute_type::INTS),
                ..Default::default()
            });
        }
        reduce
    };
    vec![
        node("Reshape", &[x, SPLIT.0], &split),
        node("Shape", &[&split], &statistics.shape),
        mean(&split, &centre),
        node("Sub", &[&split, &centre], &apart),
        node("Mul", &[&apart, &apart], &square),
        mean(&square, &spread),
        node("Reshape", &[&centre, FLAT.0], &statistics.mean),
        node("Reshape", &[&spread, FLAT.0], &statistics.variance),
    ]
}

fn integers((name, values): (&str, &[i64])) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: vec![values.len() as i64],
        data_type: Some(data_type::INT64),
        int64_data: values.to_vec(),
        ..Default::default()
    }
}
