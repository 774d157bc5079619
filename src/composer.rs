//! A graph under construction: nodes and constants under names of their own.

use crate::{
    artifact::{Float, View},
    onnx::{
        AttributeProto, LOCATION_EXTERNAL, NodeProto, StringStringEntryProto, TensorProto,
        attribute_type, data_type,
    },
    velocity::cast,
};

/// Nodes and initialisers so far.
#[derive(Default)]
pub(crate) struct Composer {
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) initializers: Vec<TensorProto>,
    values: usize,
}

impl Composer {
    /// Applies an operator; the name of its output.
    pub(crate) fn node(&mut self, op: &str, inputs: &[&str]) -> String {
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

    /// Matrices side by side.
    pub(crate) fn concat_columns(&mut self, parts: &[String]) -> String {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let joined = self.node("Concat", &parts);
        let last = self.nodes.last_mut().expect("just made");
        last.attribute.push(AttributeProto {
            name: Some("axis".into()),
            i: Some(1),
            r#type: Some(attribute_type::INT),
            ..Default::default()
        });
        joined
    }

    /// A value in another type.
    pub(crate) fn cast(&mut self, from: &str, to: i32) -> String {
        let name = self.fresh();
        self.nodes.push(cast(from, &name, to));
        name
    }

    /// A float32 constant.
    pub(crate) fn constant(&mut self, dims: &[usize], values: &[f32]) -> String {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.raw(dims, data_type::FLOAT, bytes)
    }

    /// An int64 constant of one dimension.
    pub(crate) fn integers(&mut self, values: &[i64]) -> String {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.raw(&[values.len()], data_type::INT64, bytes)
    }

    fn raw(&mut self, dims: &[usize], data_type: i32, bytes: Vec<u8>) -> String {
        let name = self.fresh();
        self.initializers.push(TensorProto {
            name: Some(name.clone()),
            dims: dims.iter().map(|dim| *dim as i64).collect(),
            data_type: Some(data_type),
            raw_data: Some(bytes),
            ..Default::default()
        });
        name
    }

    /// A tensor of the basis, which lies in the file `sidecar_name`, as float32.
    pub(crate) fn basis(
        &mut self,
        name: &str,
        view: &View,
        shape: &[usize],
        sidecar_name: &str,
    ) -> String {
        let entry = StringStringEntryProto::new;
        self.initializers.push(TensorProto {
            name: Some(name.into()),
            dims: shape.iter().map(|dim| *dim as i64).collect(),
            data_type: Some(onnx_type(view.float)),
            data_location: Some(LOCATION_EXTERNAL),
            external_data: vec![
                entry("location", sidecar_name),
                entry("offset", &view.bytes.start.to_string()),
                entry("length", &view.bytes.len().to_string()),
            ],
            ..Default::default()
        });
        self.single(name, view.float)
    }

    /// A value of the basis's type as float32.
    pub(crate) fn single(&mut self, name: &str, float: Float) -> String {
        match float {
            Float::F32 => name.into(),
            Float::F16 => self.cast(name, data_type::FLOAT),
        }
    }

    /// Gives the output of the last node the name `name`.
    pub(crate) fn name_last(&mut self, value: &str, name: &str) {
        let last = self.nodes.last_mut().filter(|node| node.output == [value]);
        last.expect("the value is the last node's").output = vec![name.into()];
    }

    fn fresh(&mut self) -> String {
        self.values += 1;
        format!("dwf/{}", self.values)
    }
}

/// `TensorProto.DataType` of a stored float.
pub(crate) fn onnx_type(float: Float) -> i32 {
    match float {
        Float::F32 => data_type::FLOAT,
        Float::F16 => data_type::FLOAT16,
    }
}
