//! An interpreter of ONNX graphs in f64, for the operators that velocity networks use.

use std::{collections::HashMap, path::Path};

use dwf::onnx::{GraphProto, NodeProto, TensorProto, data_type};
use half::f16;

/// A row-major matrix; a vector is one row.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub data: Vec<f64>,
}

impl Matrix {
    pub fn new(rows: usize, columns: usize, data: Vec<f64>) -> Self {
        assert_eq!(data.len(), rows * columns);
        Self {
            rows,
            columns,
            data,
        }
    }

    /// `rows` times the same row.
    pub fn repeat(row: &[f64], rows: usize) -> Self {
        Self::new(rows, row.len(), row.repeat(rows))
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.columns..(i + 1) * self.columns]
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        let data = self.data.iter().map(|value| f(*value)).collect();
        Self::new(self.rows, self.columns, data)
    }

    /// The sum, where a side of one row or column counts for all.
    fn plus(&self, other: &Self) -> Self {
        let rows = self.rows.max(other.rows);
        let columns = self.columns.max(other.columns);
        let at = |m: &Self, i: usize, j: usize| {
            assert!([1, rows].contains(&m.rows) && [1, columns].contains(&m.columns));
            m.data[(i % m.rows) * m.columns + j % m.columns]
        };
        let data = (0..rows * columns)
            .map(|k| (k / columns, k % columns))
            .map(|(i, j)| at(self, i, j) + at(other, i, j))
            .collect();
        Self::new(rows, columns, data)
    }

    fn times(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows);
        let mut data = vec![0.0; self.rows * other.columns];
        for (i, sums) in data.chunks_exact_mut(other.columns).enumerate() {
            for (k, a) in self.row(i).iter().enumerate() {
                for (sum, b) in sums.iter_mut().zip(other.row(k)) {
                    *sum += a * b;
                }
            }
        }
        Self::new(self.rows, other.columns, data)
    }

    /// Layer normalisation of every row.
    fn normalised(&self, epsilon: f64, scale: &Self, bias: &Self) -> Self {
        let n = self.columns as f64;
        let mut data = Vec::with_capacity(self.data.len());
        for i in 0..self.rows {
            let row = self.row(i);
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let deviation = (variance + epsilon).sqrt();
            let affine = scale.data.iter().zip(&bias.data);
            data.extend(
                row.iter()
                    .zip(affine)
                    .map(|(x, (scale, bias))| (x - mean) / deviation * scale + bias),
            );
        }
        Self::new(self.rows, self.columns, data)
    }
}

/// A graph with its initialisers.
pub struct Graph {
    nodes: Vec<NodeProto>,
    constants: HashMap<String, Matrix>,
}

impl Graph {
    /// Reads the initialisers from the files they name, in `folder`.
    pub fn new(graph: &GraphProto, folder: &Path) -> Self {
        let mut files = HashMap::new();
        let mut read = |tensor: &TensorProto| {
            let location = tensor.external("location").unwrap().to_owned();
            let bytes = files
                .entry(location.clone())
                .or_insert_with(|| std::fs::read(folder.join(location)).unwrap());
            (tensor.name().to_owned(), matrix(tensor, bytes))
        };
        Self {
            nodes: graph.node.clone(),
            constants: graph.initializer.iter().map(&mut read).collect(),
        }
    }

    /// The value named `output` for these inputs.
    pub fn run(&self, inputs: Vec<(&str, Matrix)>, output: &str) -> Matrix {
        let mut values: HashMap<&str, Matrix> = inputs.into_iter().collect();
        for node in &self.nodes {
            let input = |i: usize| {
                let name = node.input[i].as_str();
                values.get(name).unwrap_or_else(|| &self.constants[name])
            };
            let result = match node.op_type() {
                "Add" => input(0).plus(input(1)),
                "Cast" | "Identity" => input(0).clone(),
                "Gelu" => input(0).map(gelu),
                "Gemm" => input(0).times(input(1)).plus(input(2)),
                "MatMul" => input(0).times(input(1)),
                "LayerNormalization" => input(0).normalised(epsilon(node), input(1), input(2)),
                other => panic!("the reference has no operator {other}"),
            };
            check_attributes(node);
            values.insert(&node.output[0], result);
        }
        values.remove(output).unwrap()
    }
}

/// The reference computes the operators' default forms; other attributes must not go unseen.
fn check_attributes(node: &NodeProto) {
    for attribute in &node.attribute {
        let known = match (node.op_type(), attribute.name()) {
            ("LayerNormalization", "axis") => [-1, 1].contains(&attribute.i()),
            ("Cast", "to") => attribute.i() == i64::from(data_type::FLOAT),
            ("Gelu", "approximate") => attribute.s() == b"none",
            ("Gemm", "alpha" | "beta") => attribute.f() == 1.0,
            ("Gemm", "transA" | "transB") => attribute.i() == 0,
            ("LayerNormalization", "epsilon") => true,
            _ => false,
        };
        assert!(known, "{attribute:?} of {}", node.op_type());
    }
}

fn epsilon(node: &NodeProto) -> f64 {
    let mut attributes = node.attribute.iter();
    let epsilon = attributes.find(|attribute| attribute.name() == "epsilon");
    epsilon.map_or(1e-5, |attribute| attribute.f().into())
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt()))
}

fn matrix(tensor: &TensorProto, file: &[u8]) -> Matrix {
    let number = |key| tensor.external(key).unwrap().parse::<usize>().unwrap();
    let bytes = &file[number("offset")..][..number("length")];
    let data = match tensor.data_type() {
        data_type::FLOAT => f32s(bytes),
        data_type::FLOAT16 => f16s(bytes),
        other => panic!("initialiser '{}' has type {other}", tensor.name()),
    };
    let columns = *tensor.dims.last().unwrap() as usize;
    Matrix::new(data.len() / columns, columns, data)
}

/// Little-endian float32.
pub fn f32s(bytes: &[u8]) -> Vec<f64> {
    let values = bytes.chunks_exact(4);
    values
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()).into())
        .collect()
}

/// Little-endian float16.
pub fn f16s(bytes: &[u8]) -> Vec<f64> {
    let values = bytes.chunks_exact(2);
    values
        .map(|bytes| f16::from_le_bytes(bytes.try_into().unwrap()).to_f64())
        .collect()
}
