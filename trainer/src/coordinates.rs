//! Between the weights of a network and its latent: the transforms of tensors, and the basis.

use dwf::layout::{Layout, TensorSpec, Transform};

use crate::{latent::Basis, network::Network, rows::Rows};

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
        let mut weights = self.basis.decode(latents);
        for network in weights.chunks_exact_mut(self.layout.len()) {
            for (columns, transform) in self.layout.stretches(0..network.len()) {
                if transform == Transform::Log {
                    network[columns].iter_mut().for_each(|w| *w = w.exp());
                }
            }
        }
        weights
    }
}

/// Weights from element `start` on as the basis gives them.
fn transform(layout: &Layout, start: usize, weights: &mut [f32]) {
    for (columns, transform) in layout.stretches(start..start + weights.len()) {
        if transform == Transform::Log {
            let logs = &mut weights[columns.start - start..columns.end - start];
            logs.iter_mut().for_each(|w| *w = w.max(LEAST).ln());
        }
    }
}

/// Networks as a basis is fitted to them.
pub struct Transformed<'a, R> {
    /// As they are.
    pub rows: R,
    /// With the transforms.
    pub layout: &'a Layout,
}

impl<R: Rows> Rows for Transformed<'_, R> {
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
