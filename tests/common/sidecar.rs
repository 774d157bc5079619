//! A safetensors file written byte by byte, filled with reproducible random numbers.

use std::ops::Range;

use dwf::artifact::Float;
use half::f16;
use serde_json::{Map, Value, json};

/// One tensor of a sidecar: uniform random numbers of this mean and standard deviation.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub float: Float,
    pub shape: Vec<usize>,
    pub mean: f64,
    pub std: f64,
}

impl Tensor {
    pub fn new(name: &str, float: Float, shape: &[usize], mean: f64, std: f64) -> Self {
        Self {
            name: name.to_owned(),
            float,
            shape: shape.to_vec(),
            mean,
            std,
        }
    }

    fn size(&self) -> usize {
        self.shape.iter().product::<usize>() * self.float.size()
    }
}

/// The bytes of the file, and of each tensor within it.
pub struct Sidecar {
    pub bytes: Vec<u8>,
    pub ranges: Vec<Range<usize>>,
}

impl Sidecar {
    /// The tensors in the order given, without gaps, as the format demands; the data begin at a
    /// multiple of 64 bytes.
    pub fn new(tensors: &[Tensor], pair: &str, seed: u64) -> Self {
        let header = header(tensors, pair);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.into_bytes());
        let mut ranges = Vec::new();
        let mut random = Random(seed);
        for tensor in tensors {
            let start = bytes.len();
            write(tensor, &mut random, &mut bytes);
            ranges.push(start..bytes.len());
        }
        Self { bytes, ranges }
    }
}

fn header(tensors: &[Tensor], pair: &str) -> String {
    let mut map = Map::new();
    map.insert("__metadata__".into(), json!({ "dwf.pair": pair }));
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.size();
        let dtype = match tensor.float {
            Float::F32 => "F32",
            Float::F16 => "F16",
        };
        let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        map.insert(tensor.name.clone(), entry);
    }
    let mut text = Value::Object(map).to_string();
    let padded = (text.len() + size_of::<u64>()).next_multiple_of(64) - size_of::<u64>();
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    text
}

fn write(tensor: &Tensor, random: &mut Random, bytes: &mut Vec<u8>) {
    bytes.reserve(tensor.size());
    for _ in 0..tensor.shape.iter().product() {
        let value = tensor.mean + tensor.std * random.standard();
        match tensor.float {
            Float::F32 => bytes.extend((value as f32).to_le_bytes()),
            // By way of f32: from_f64 rounds once on Arm and twice on x86.
            Float::F16 => bytes.extend(f16::from_f32(value as f32).to_le_bytes()),
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): quick enough for gigabytes.
struct Random(u64);

impl Random {
    /// Uniform, of mean 0 and standard deviation 1.
    fn standard(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let unit = (z >> 11) as f64 / (1u64 << 53) as f64;
        (2.0 * unit - 1.0) * 3f64.sqrt()
    }
}
