//! A tensor: what goes into a network or comes out of it, and a graph's constants.

use dwf::onnx::{TensorProto, data_type};
use half::{bf16, f16};

use crate::error::{Result, invalid};

/// A value with its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Its elements.
    pub data: Data,
}

/// Elements of one type. Everything but the three is held as the nearest of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Floats.
    F32(Vec<f32>),
    /// Integers: token numbers, shapes.
    I64(Vec<i64>),
    /// Truth values: masks.
    Bool(Vec<bool>),
}

impl Tensor {
    /// A tensor of floats.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let (shape, data) = (shape.into(), Data::F32(data));
        Self { shape, data }
    }

    /// Its elements, if they are floats.
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(data) => Some(data),
            _ => None,
        }
    }

    /// Whether every element is a number.
    pub fn is_finite(&self) -> bool {
        self.floats()
            .is_none_or(|data| data.iter().all(|x| x.is_finite()))
    }

    /// A constant of a graph, its data inline.
    ///
    /// Errors: INVALID_ARGUMENT naming the constant if its data do not fit, or are neither floats,
    /// integers nor truth values.
    pub fn from_proto(proto: &TensorProto) -> Result<Self> {
        let refuse = |what: &str| Err(invalid(format!("constant '{}' {what}", proto.name())));
        let raw = proto.raw_data.as_deref();
        let data = match proto.data_type() {
            data_type::FLOAT => Data::F32(elements(raw, f32::from_le_bytes, &proto.float_data)),
            data_type::DOUBLE => {
                let values = elements(raw, f64::from_le_bytes, &proto.double_data);
                Data::F32(values.into_iter().map(|x| x as f32).collect())
            }
            data_type::FLOAT16 | data_type::BFLOAT16 => {
                let stored: Vec<u16> = proto.int32_data.iter().map(|x| *x as u16).collect();
                let values = elements(raw, u16::from_le_bytes, &stored).into_iter();
                Data::F32(if proto.data_type() == data_type::FLOAT16 {
                    values.map(|x| f16::from_bits(x).to_f32()).collect()
                } else {
                    values.map(|x| bf16::from_bits(x).to_f32()).collect()
                })
            }
            data_type::INT64 => Data::I64(elements(raw, i64::from_le_bytes, &proto.int64_data)),
            data_type::INT32 => {
                let values = elements(raw, i32::from_le_bytes, &proto.int32_data);
                Data::I64(values.into_iter().map(i64::from).collect())
            }
            data_type::BOOL => {
                let stored: Vec<u8> = proto.int32_data.iter().map(|x| *x as u8).collect();
                let values = elements(raw, u8::from_le_bytes, &stored);
                Data::Bool(values.into_iter().map(|x| x != 0).collect())
            }
            other => return refuse(&format!("is of ONNX type {other}, which is not supported")),
        };
        let shape: Vec<usize> = proto.dims.iter().map(|dim| *dim as usize).collect();
        let count = match &data {
            Data::F32(data) => data.len(),
            Data::I64(data) => data.len(),
            Data::Bool(data) => data.len(),
        };
        if shape.iter().product::<usize>() != count {
            return refuse(&format!("has {count} elements for shape {shape:?}"));
        }
        Ok(Self { shape, data })
    }
}

fn elements<T: Clone, const N: usize>(
    raw: Option<&[u8]>,
    convert: impl Fn([u8; N]) -> T,
    typed: &[T],
) -> Vec<T> {
    match raw {
        Some(bytes) => bytes
            .as_chunks::<N>()
            .0
            .iter()
            .map(|b| convert(*b))
            .collect(),
        None => typed.to_vec(),
    }
}
