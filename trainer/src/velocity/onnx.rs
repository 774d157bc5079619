//! Velocity networks written down as ONNX nodes.

use dwf::{
    artifact::value,
    onnx::{AttributeProto, GraphProto, NodeProto, ValueInfoProto, attribute_type, data_type},
};

use super::{NORM_EPSILON, Ops, Start, Velocity};

impl Velocity {
    /// The computation as an ONNX graph (opset 20) without its initialisers: `x`
    /// [batch, latent], `t` [time_batch, 1] and, where the network takes one, `condition`
    /// [batch, condition] to `v` [batch, latent], float32. The matrices are stored in half
    /// precision and cast first, so that a runtime can fold the cast.
    pub fn graph(&self) -> GraphProto {
        let shape = &self.shape;
        let tensor = |name, rows, columns| {
            ValueInfoProto::tensor(name, data_type::FLOAT, &[Err(rows), Ok(columns)])
        };
        let mut input = vec![
            tensor(value::X, "batch", shape.latent),
            tensor(value::T, "time_batch", 1),
        ];
        let mut condition = None;
        if shape.condition > 0 {
            input.push(tensor(value::CONDITION, "batch", shape.condition));
            condition = Some(value::CONDITION.to_owned());
        }
        let mut onnx = Onnx::default();
        let v = onnx.velocity(shape, value::X.into(), value::T.into(), condition);
        let last = onnx.nodes.last_mut().expect("the output layer");
        debug_assert_eq!(last.output, [v]);
        last.output = vec![value::V.into()];
        GraphProto {
            node: onnx.nodes,
            name: Some("velocity".into()),
            initializer: Vec::new(),
            input,
            output: vec![tensor(value::V, "batch", shape.latent)],
            value_info: Vec::new(),
        }
    }
}

/// The nodes so far; a value is its name.
#[derive(Default)]
struct Onnx {
    nodes: Vec<NodeProto>,
}

impl Onnx {
    fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: String,
        attribute: Option<AttributeProto>,
    ) -> String {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output: vec![output.clone()],
            name: Some(output.clone()),
            op_type: Some(op.into()),
            attribute: attribute.into_iter().collect(),
            domain: None,
        });
        output
    }

    fn gemm(&mut self, x: &str, layer: &str, c: &str) -> String {
        let to_float = AttributeProto {
            name: Some("to".into()),
            r#type: Some(attribute_type::INT),
            i: Some(data_type::FLOAT.into()),
            ..Default::default()
        };
        let stored = format!("{layer}.weight");
        let weight = self.node("Cast", &[&stored], format!("{stored}.f32"), Some(to_float));
        self.node("Gemm", &[x, &weight, c], format!("{layer}.out"), None)
    }
}

impl Ops for Onnx {
    type Value = String;

    fn linear(&mut self, x: String, layer: &str, _: usize, _: Start) -> String {
        self.gemm(&x, layer, &format!("{layer}.bias"))
    }

    fn linear_plus(&mut self, x: String, layer: &str, c: String, _: Start) -> String {
        self.gemm(&x, layer, &c)
    }

    fn norm(&mut self, x: String, layer: &str) -> String {
        let epsilon = AttributeProto {
            name: Some("epsilon".into()),
            r#type: Some(attribute_type::FLOAT),
            f: Some(NORM_EPSILON),
            ..Default::default()
        };
        let inputs = [x, format!("{layer}.weight"), format!("{layer}.bias")];
        let inputs = inputs.each_ref().map(String::as_str);
        let output = format!("{layer}.out");
        self.node("LayerNormalization", &inputs, output, Some(epsilon))
    }

    fn gelu(&mut self, x: String) -> String {
        self.node("Gelu", &[&x], format!("{x}.gelu"), None)
    }

    fn add(&mut self, a: String, b: String) -> String {
        self.node("Add", &[&a, &b], format!("{a}+{b}"), None)
    }

    fn multiply(&mut self, a: String, b: String) -> String {
        self.node("Mul", &[&a, &b], format!("{a}*{b}"), None)
    }
}
