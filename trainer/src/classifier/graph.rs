//! A classifier as an ONNX graph without its weights, as an export from PyTorch looks.

use dwf::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, attribute_type,
    data_type,
};

use crate::network;

use super::{
    Classifier, Positions, Shape, Tensor,
    operator::{EPSILON, Operator, Window},
};

/// Names of the graph's input and output.
const INPUT: &str = "input";
const OUTPUT: &str = "logits";

impl Classifier {
    /// The computation, opset 20: `input` [batch, features], or [batch, channels, height, width] of
    /// an image, to `logits` [batch, classes]. Every tensor of the layout is an initialiser of its
    /// name and shape without data.
    pub fn model(&self) -> ModelProto {
        let mut graph = Graph {
            classifier: self,
            nodes: Vec::new(),
            constants: Vec::new(),
        };
        let mut values = vec![INPUT.to_owned()];
        for (i, node) in self.nodes.iter().enumerate() {
            let inputs: Vec<&str> = node.inputs.iter().map(|&v| values[v].as_str()).collect();
            let shape = self.shapes[node.inputs[0]];
            let last = i + 1 == self.nodes.len();
            let name = if last {
                OUTPUT.into()
            } else {
                format!("v{}", i + 1)
            };
            graph.add(node.operator, &inputs, shape, &name);
            values.push(name);
        }
        let weights = self.layout.tensors().iter().map(|tensor| TensorProto {
            name: Some(tensor.name.clone()),
            dims: tensor.shape.iter().map(|dim| *dim as i64).collect(),
            data_type: Some(data_type::FLOAT),
            ..Default::default()
        });
        let graph = GraphProto {
            initializer: weights.chain(graph.constants).collect(),
            node: graph.nodes,
            name: Some("network".into()),
            input: vec![value(INPUT, self.shapes[0])],
            output: vec![value(OUTPUT, self.shapes[self.shapes.len() - 1])],
            value_info: Vec::new(),
        };
        network::model(graph)
    }
}

fn value(name: &str, shape: Shape) -> ValueInfoProto {
    let Shape {
        features,
        positions,
    } = shape;
    let dims = match positions {
        Positions::Single => vec![Err("batch"), Ok(features)],
        Positions::Grid(height, width) => vec![Err("batch"), Ok(features), Ok(height), Ok(width)],
        Positions::Sequence(length) => vec![Err("batch"), Ok(length), Ok(features)],
    };
    ValueInfoProto::tensor(name, data_type::FLOAT, &dims)
}

/// A graph being written.
struct Graph<'a> {
    classifier: &'a Classifier,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Graph<'_> {
    /// The nodes of one operator, from values `inputs` to the value `out`.
    fn add(&mut self, operator: Operator, inputs: &[&str], shape: Shape, out: &str) {
        let x = inputs[0];
        match operator {
            Operator::Linear { weight, bias } => {
                let (weight, bias) = (self.name(weight), self.name(bias));
                if shape.positions == Positions::Single {
                    let transposed = [int("transB", 1)];
                    return self.node("Gemm", &[x, &weight, &bias], out, &transposed);
                }
                let (transposed, product) = (format!("{out}.weight"), format!("{out}.product"));
                self.node(
                    "Transpose",
                    &[&weight],
                    &transposed,
                    &[ints("perm", &[1, 0])],
                );
                self.node("MatMul", &[x, &transposed], &product, &[]);
                self.node("Add", &[&product, &bias], out, &[]);
            }
            Operator::Convolution {
                weight,
                bias,
                window,
            } => {
                let Window {
                    kernel,
                    stride,
                    padding,
                } = window;
                let tensors: Vec<String> = [Some(weight), bias]
                    .into_iter()
                    .flatten()
                    .map(|t| self.name(t))
                    .collect();
                let inputs: Vec<&str> = [x]
                    .into_iter()
                    .chain(tensors.iter().map(String::as_str))
                    .collect();
                let attributes = [
                    ints("kernel_shape", &[kernel; 2]),
                    ints("strides", &[stride; 2]),
                    ints("pads", &[padding; 4]),
                ];
                self.node("Conv", &inputs, out, &attributes);
            }
            Operator::BatchNorm {
                scale,
                shift,
                mean,
                variance,
            } => {
                let tensors = [scale, shift, mean, variance].map(|tensor| self.name(tensor));
                let [scale, shift, mean, variance] = tensors.each_ref().map(String::as_str);
                let inputs = [x, scale, shift, mean, variance];
                self.node(
                    "BatchNormalization",
                    &inputs,
                    out,
                    &[float("epsilon", EPSILON)],
                );
            }
            Operator::LayerNorm { scale, shift } => {
                let (scale, shift) = (self.name(scale), self.name(shift));
                let attributes = [int("axis", -1), float("epsilon", EPSILON)];
                self.node("LayerNormalization", &[x, &scale, &shift], out, &attributes);
            }
            Operator::Relu => self.node("Relu", inputs, out, &[]),
            Operator::Gelu => self.node("Gelu", inputs, out, &[]),
            Operator::Add => self.node("Add", inputs, out, &[]),
            Operator::AddPositions { embedding } => {
                let embedding = self.name(embedding);
                self.node("Add", &[x, &embedding], out, &[]);
            }
            Operator::Attention { heads } => self.attention(heads, x, shape, out),
            Operator::Tokens => {
                let flat = format!("{out}.flat");
                let size = [0, shape.features as i64, -1];
                self.reshape(x, &size, &flat);
                self.node("Transpose", &[&flat], out, &[ints("perm", &[0, 2, 1])]);
            }
            Operator::Mean => match shape.positions {
                Positions::Grid(..) => {
                    let pooled = format!("{out}.pooled");
                    self.node("GlobalAveragePool", &[x], &pooled, &[]);
                    self.node("Flatten", &[&pooled], out, &[int("axis", 1)]);
                }
                Positions::Single | Positions::Sequence(_) => {
                    let axes = self.constant(format!("{out}.axes"), &[1]);
                    self.node("ReduceMean", &[x, &axes], out, &[int("keepdims", 0)]);
                }
            },
        }
    }

    /// Heads from the fused projection, as timm has it: [batch, tokens, 3, heads, width].
    fn attention(&mut self, heads: usize, x: &str, shape: Shape, out: &str) {
        let (tokens, features) = (shape.positions(), shape.features / 3);
        let width = features / heads;
        let name = |part: &str| format!("{out}.{part}");
        let size = [0, tokens, 3, heads, width].map(|dim| dim as i64);
        self.reshape(x, &size, &name("split"));
        let order = ints("perm", &[2, 0, 3, 1, 4]);
        self.node("Transpose", &[&name("split")], &name("qkv"), &[order]);
        for (i, part) in ["q", "k", "v"].into_iter().enumerate() {
            let index = self.scalar(name(&format!("{part}.index")), i as i64);
            self.node(
                "Gather",
                &[&name("qkv"), &index],
                &name(part),
                &[int("axis", 0)],
            );
        }
        let order = ints("perm", &[0, 1, 3, 2]);
        self.node("Transpose", &[&name("k")], &name("kt"), &[order]);
        self.node("MatMul", &[&name("q"), &name("kt")], &name("products"), &[]);
        let scale = TensorProto {
            name: Some(name("scale")),
            data_type: Some(data_type::FLOAT),
            float_data: vec![1.0 / (width as f32).sqrt()],
            ..Default::default()
        };
        self.constants.push(scale);
        self.node(
            "Mul",
            &[&name("products"), &name("scale")],
            &name("scores"),
            &[],
        );
        self.node(
            "Softmax",
            &[&name("scores")],
            &name("weights"),
            &[int("axis", -1)],
        );
        self.node(
            "MatMul",
            &[&name("weights"), &name("v")],
            &name("heads"),
            &[],
        );
        let order = ints("perm", &[0, 2, 1, 3]);
        self.node("Transpose", &[&name("heads")], &name("tokens"), &[order]);
        self.reshape(&name("tokens"), &[0, tokens as i64, features as i64], out);
    }

    fn name(&self, tensor: Tensor) -> String {
        self.classifier.layout.tensors()[tensor].name.clone()
    }

    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: &[AttributeProto]) {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output: vec![output.into()],
            name: Some(output.into()),
            op_type: Some(op.into()),
            attribute: attributes.into(),
            domain: None,
        });
    }

    fn reshape(&mut self, x: &str, size: &[i64], out: &str) {
        let size = self.constant(format!("{out}.shape"), size);
        self.node("Reshape", &[x, &size], out, &[]);
    }

    /// A vector of whole numbers.
    fn constant(&mut self, name: String, values: &[i64]) -> String {
        self.constants.push(TensorProto {
            name: Some(name.clone()),
            dims: vec![values.len() as i64],
            data_type: Some(data_type::INT64),
            int64_data: values.into(),
            ..Default::default()
        });
        name
    }

    fn scalar(&mut self, name: String, value: i64) -> String {
        self.constants.push(TensorProto {
            name: Some(name.clone()),
            data_type: Some(data_type::INT64),
            int64_data: vec![value],
            ..Default::default()
        });
        name
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(attribute_type::INT),
        i: Some(value),
        ..Default::default()
    }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(attribute_type::INTS),
        ints: values.iter().map(|value| *value as i64).collect(),
        ..Default::default()
    }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(attribute_type::FLOAT),
        f: Some(value),
        ..Default::default()
    }
}
