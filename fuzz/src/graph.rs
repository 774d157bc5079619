//! Changes of a graph that several targets make.

use dwf::onnx::{GraphProto, NodeProto, TensorProto, data_type};

/// The element at an index that may be any.
pub fn pick<T>(list: &[T], index: u8) -> &T {
    &list[usize::from(index) % list.len()]
}

/// A list of integers that may become a shape, axes or indices.
pub fn integers(name: String, integers: Vec<i8>) -> TensorProto {
    TensorProto {
        name: Some(name),
        dims: vec![integers.len() as i64],
        data_type: Some(data_type::INT64),
        int64_data: integers.into_iter().map(i64::from).collect(),
        ..Default::default()
    }
}

/// A small tensor of one value.
pub fn floats(name: String, shape: &[u8], value: f32) -> TensorProto {
    let dims: Vec<i64> = shape.iter().take(4).map(|dim| i64::from(dim % 8)).collect();
    TensorProto {
        name: Some(name),
        data_type: Some(data_type::FLOAT),
        float_data: vec![value; dims.iter().product::<i64>() as usize],
        dims,
        ..Default::default()
    }
}

/// A new node before the node `at`, whose first input becomes its output with `rewire`.
pub fn insert(graph: &mut GraphProto, at: usize, new: NodeProto, rewire: bool) {
    let name = new.output[0].clone();
    graph.node.insert(at, new);
    if let (true, Some(input)) = (rewire, graph.node[at + 1].input.first_mut()) {
        *input = name;
    }
}

/// Another input of a node, or one more.
pub fn set_input(node: &mut NodeProto, input: u8, value: String) {
    let place = usize::from(input) % (node.input.len() + 1);
    match node.input.get_mut(place) {
        Some(input) => *input = value,
        None => node.input.push(value),
    }
}
