//! Inputs to run a network on, where any will do.

use std::collections::{HashMap, HashSet};

use dwf::onnx::data_type;

use crate::{
    error::{Result, invalid},
    evaluator::Evaluator,
    network::{Network, Value},
    random::Random,
    tensor::{Data, Tensor},
};

/// Sizes that are tried for dimensions that may have any, beside the first, which is a batch's.
const SIZES: [usize; 5] = [8, 1, 32, 64, 224];
/// Rows of a batch.
const BATCH: usize = 2;

/// Random inputs on which the network runs: normals, token numbers within their tables, masks
/// that hide nothing. The evaluator is one of this network, the weights any.
///
/// Errors: INVALID_ARGUMENT naming the network's file, with ONNX Runtime's words, if it runs on
/// none.
pub fn inputs(
    network: &Network,
    evaluator: &mut Evaluator,
    weights: &[f32],
    random: &mut Random,
) -> Result<Vec<Tensor>> {
    let tables = tables(network);
    let mut last = None;
    for size in SIZES {
        let inputs = network.inputs().iter();
        let inputs: Vec<Tensor> = inputs
            .map(|value| {
                input(
                    value,
                    size,
                    tables.get(value.name.as_str()).copied(),
                    random,
                )
            })
            .collect::<Result<_>>()?;
        match evaluator.run(weights, &inputs) {
            Ok(_) => return Ok(inputs),
            Err(e) => last = Some(e),
        }
    }
    let why = last.expect("sizes were tried");
    Err(network.blame(invalid(format!(
        "the network runs on no input that was tried, of free dimensions {SIZES:?} ({why}); export \
         it with the dimensions of its inputs fixed, but for the batch's"
    ))))
}

fn input(value: &Value, size: usize, table: Option<usize>, random: &mut Random) -> Result<Tensor> {
    let dims = value.shape.iter().enumerate();
    let shape: Vec<usize> = dims
        .map(|(i, dim)| dim.unwrap_or(if i == 0 { BATCH } else { size }))
        .collect();
    let count = shape.iter().product();
    let data = match value.elem_type {
        data_type::FLOAT => {
            let mut data = vec![0.0; count];
            random.fill_normal(&mut data);
            Data::F32(data)
        }
        data_type::INT64 | data_type::INT32 => {
            let draw = |_| table.map_or(1, |rows| random.index(rows) as i64);
            Data::I64((0..count).map(draw).collect())
        }
        data_type::BOOL => Data::Bool(vec![true; count]),
        other => {
            return Err(invalid(format!(
                "input '{}' of the network is of ONNX type {other}; floats, int32, int64 and bool \
                 are supported",
                value.name
            )));
        }
    };
    Ok(Tensor { shape, data })
}

/// For each input that numbers the rows of tables, the rows of the smallest.
fn tables(network: &Network) -> HashMap<&str, usize> {
    let mut names: HashMap<&str, HashSet<&str>> = HashMap::new();
    let mut tables: HashMap<&str, usize> = HashMap::new();
    for value in network.inputs() {
        names.insert(&value.name, HashSet::from([&*value.name]));
    }
    for node in &network.graph().node {
        let Some(first) = node.input.first() else {
            continue;
        };
        for (input, same) in &mut names {
            match node.op_type() {
                "Cast" | "CastLike" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze"
                    if same.contains(first.as_str()) =>
                {
                    same.extend(node.output.iter().map(String::as_str));
                }
                "Gather" if node.input.get(1).is_some_and(|i| same.contains(i.as_str())) => {
                    if let Some(table) = network.layout().get(first) {
                        let rows = tables.entry(*input).or_insert(usize::MAX);
                        *rows = table.shape[0].min(*rows);
                    }
                }
                _ => (),
            }
        }
    }
    tables
}
