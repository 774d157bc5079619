//! A trial: a symmetry that was inferred from the graph must hold for a network of random weights.

use crate::{
    error::Result, evaluator::Evaluator, network::Network, probe, random::Random, tensor::Tensor,
    verify,
};

/// Seed of the weights and of the input.
const SEED: u64 = 0;

/// A network of random weights, and what it computes of a random input.
pub struct Trial {
    evaluator: Evaluator,
    weights: Vec<f32>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

impl Trial {
    /// Draws weights by which values stay of one size from layer to layer, and variances are
    /// positive.
    ///
    /// Errors: those of running the network.
    pub fn new(network: &Network) -> Result<Self> {
        let mut random = Random::new(SEED, 0);
        let layout = network.layout();
        let mut weights = vec![0f32; layout.len()];
        for spec in layout.tensors() {
            let inputs: usize = spec.shape.iter().skip(1).product();
            let bound = (3.0 / inputs.max(1) as f32).sqrt().min(0.9);
            for weight in &mut weights[spec.range()] {
                *weight = match spec.shape.len() {
                    1 => 1.0 + random.symmetric(bound),
                    _ => random.symmetric(bound),
                };
            }
        }
        let mut evaluator = Evaluator::new(network)?;
        let inputs = probe::inputs(network, &mut evaluator, &weights, &mut random)?;
        let outputs = evaluator.run(&weights, &inputs)?;
        Ok(Self {
            evaluator,
            weights,
            inputs,
            outputs,
        })
    }

    /// The weights.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Whether the network computes anything that can be compared.
    pub fn is_finite(&self) -> bool {
        self.outputs.iter().all(Tensor::is_finite)
    }

    /// Whether a network of these weights computes the same.
    ///
    /// Errors: RUNTIME_FAILED.
    pub fn holds(&mut self, weights: &[f32]) -> Result<bool> {
        let outputs = self.evaluator.run(weights, &self.inputs)?;
        Ok(verify::difference(&self.outputs, &outputs) < verify::TOLERANCE)
    }
}
