//! Between the weights of a network and its latent: the transforms of tensors, and the basis.

use std::{
    fs::{self, File},
    ops::Range,
    path::Path,
};

use dwf::{
    artifact::{self, Description, Float, View},
    layout::{DType, Layout, TensorSpec, Transform},
};
use memmap2::Mmap;

use crate::{
    checkpoint::decode,
    components::{Components, Precision},
    error::{Result, io},
    latent::Basis,
    network::Network,
    rows::Rows,
};

/// Variances below this count as this: batch normalisation adds 1e-5 or more to them, and a channel
/// that is always zero must not spread over logarithms without end.
const LEAST: f32 = 1e-12;

/// How weights become latents, and latents weights.
#[derive(Debug)]
pub struct Coordinates {
    /// Of the transformed weights.
    pub basis: Basis,
    /// With the transforms.
    pub layout: Layout,
}

/// A network's tensors, with the logarithm for the running variances of batch normalisations, so
/// that generated ones are positive.
pub fn layout(network: &Network) -> Layout {
    let norms = network.batch_norms();
    let is_variance = |tensor: &TensorSpec| {
        tensor.name.ends_with(".running_var")
            || norms.iter().any(|norm| norm.variance == tensor.range())
    };
    network
        .layout()
        .clone()
        .transformed(Transform::Log, is_variance)
}

impl Coordinates {
    /// Those of an artifact, in whose sidecar the components stay.
    ///
    /// Errors: IO; BAD_ARTIFACT.
    pub fn open(artifact: &Path) -> Result<Self> {
        let onnx = fs::read(artifact).map_err(io("read", artifact))?;
        let description = Description::parse(&onnx)?;
        let path = artifact.with_file_name(&description.sidecar_name);
        let file = File::open(&path).map_err(io("read", &path))?;
        // SAFETY: whoever truncates an artifact while it is read ends this process, as the README
        // says of mapped files.
        let map = unsafe { Mmap::map(&file) }.map_err(io("read", &path))?;
        let layout = description.metadata.layout.clone();
        let floats = |view: &View| {
            let dtype = dtype(view);
            let mut values = vec![0.0; view.bytes.len() / dtype.size()];
            decode(&map[view.bytes.clone()], dtype, &mut values);
            values
        };
        let basis = match description.basis(&map)? {
            artifact::Basis::Identity => Basis::Identity {
                weights: layout.len(),
            },
            artifact::Basis::Diagonal { mean, scale } => Basis::Diagonal {
                mean: floats(&mean),
                scale: floats(&scale),
            },
            artifact::Basis::Linear {
                components,
                mean,
                scale,
            } => {
                let precision = match components.float {
                    Float::F16 => Precision::Half,
                    Float::F32 => Precision::Single,
                };
                let (mean, scale) = (floats(&mean), floats(&scale));
                let components = Components::mapped(map, components.bytes, layout.len(), precision);
                Basis::Linear {
                    components,
                    mean,
                    scale,
                }
            }
        };
        Ok(Self { basis, layout })
    }

    /// Length of a latent.
    pub fn latent(&self) -> usize {
        self.basis.latent()
    }

    /// The latent of a weight vector.
    pub fn encode(&self, weights: &[f32]) -> Vec<f32> {
        let mut weights = weights.to_vec();
        transform(&self.layout, 0, &mut weights);
        self.basis.encode(&weights)
    }

    /// The weights of latents [count, latent], [count, weights] row-major.
    pub fn decode(&self, latents: &[f32]) -> Vec<f32> {
        let networks = Decoded::new(self, latents);
        let mut weights = vec![0.0; networks.count() * networks.size()];
        networks.read_rows(&networks.all(), 0, &mut weights);
        weights
    }
}

/// The stretches of these weights that a basis gives logarithms of.
pub fn logarithms(layout: &Layout, columns: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let stretches = layout.stretches(columns);
    stretches.filter_map(|(columns, transform)| (transform == Transform::Log).then_some(columns))
}

/// The networks of latents [count, latent], decoded where they are read.
pub struct Decoded<'a> {
    coordinates: &'a Coordinates,
    latents: &'a [f32],
}

impl<'a> Decoded<'a> {
    /// Of these latents.
    pub fn new(coordinates: &'a Coordinates, latents: &'a [f32]) -> Self {
        Self {
            coordinates,
            latents,
        }
    }
}

impl Rows for Decoded<'_> {
    fn count(&self) -> usize {
        self.latents.len() / self.coordinates.latent()
    }

    fn size(&self) -> usize {
        self.coordinates.layout.len()
    }

    fn read(&self, row: usize, from: usize, to: &mut [f32]) {
        self.read_rows(&[row], from, to);
    }

    fn read_rows(&self, rows: &[usize], from: usize, to: &mut [f32]) {
        let Coordinates { basis, layout } = self.coordinates;
        let latent = |row: &usize| &self.latents[row * basis.latent()..][..basis.latent()];
        let latents: Vec<f32> = rows.iter().flat_map(latent).copied().collect();
        let width = to.len() / rows.len().max(1);
        basis.decode_columns(&latents, from..from + width, to);
        for columns in logarithms(layout, from..from + width) {
            for row in to.chunks_exact_mut(width) {
                let logs = &mut row[columns.start - from..columns.end - from];
                logs.iter_mut().for_each(|w| *w = w.exp());
            }
        }
    }
}

fn dtype(view: &View) -> DType {
    match view.float {
        Float::F16 => DType::F16,
        Float::F32 => DType::F32,
    }
}

/// Weights from element `start` on as the basis gives them.
fn transform(layout: &Layout, start: usize, weights: &mut [f32]) {
    for columns in logarithms(layout, start..start + weights.len()) {
        let logs = &mut weights[columns.start - start..columns.end - start];
        logs.iter_mut().for_each(|w| *w = w.max(LEAST).ln());
    }
}

/// Networks as a basis is fitted to them.
pub struct Transformed<'a> {
    /// As they are.
    pub rows: &'a dyn Rows,
    /// With the transforms.
    pub layout: &'a Layout,
}

impl Rows for Transformed<'_> {
    fn count(&self) -> usize {
        self.rows.count()
    }

    fn size(&self) -> usize {
        self.rows.size()
    }

    fn read(&self, row: usize, from: usize, to: &mut [f32]) {
        self.rows.read(row, from, to);
        transform(self.layout, from, to);
    }
}
