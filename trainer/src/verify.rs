//! Verification: a network computes the same before and after its units were moved.

use std::sync::{Mutex, PoisonError};

use crate::{
    error::{Error, Result, Status, invalid},
    evaluator::Evaluator,
    network::{Network, title},
    probe,
    random::Random,
    tensor::Tensor,
};

/// Largest difference of outputs, relative to their largest value. Sums in another order differ
/// by some 1e-6 of it in single precision, and deep networks by ten times as much.
pub const TOLERANCE: f32 = 1e-4;

/// Runs networks of one architecture in ONNX Runtime, on the same random input.
pub struct Verifier<'a> {
    network: &'a Network,
    inputs: Vec<Tensor>,
    /// Evaluators that no thread is using.
    idle: Mutex<Vec<Evaluator>>,
}

impl<'a> Verifier<'a> {
    /// Draws an input on which `weights`, some network of the architecture, runs.
    ///
    /// Errors: RUNTIME_MISSING; INVALID_ARGUMENT if ONNX Runtime cannot run the graph.
    pub fn new(network: &'a Network, weights: &[f32], seed: u64) -> Result<Self> {
        let mut evaluator = Evaluator::new(network)?;
        let inputs = probe::inputs(network, &mut evaluator, weights, &mut Random::new(seed, 0))?;
        let idle = Mutex::new(vec![evaluator]);
        Ok(Self {
            network,
            inputs,
            idle,
        })
    }

    /// Whether the networks `before` and `after` compute the same.
    ///
    /// Errors: INVALID_ARGUMENT if `before` computes nothing finite; INTERNAL naming the first
    /// layer that differs by more than [`TOLERANCE`]; RUNTIME_FAILED.
    pub fn check(&self, before: &[f32], after: &[f32]) -> Result<()> {
        let difference = self.difference(before, after)?;
        if difference < TOLERANCE {
            return Ok(());
        }
        Err(Error::new(
            Status::Internal,
            format!(
                "after alignment the network's outputs differ by {difference:.1e} of their size, \
                 first behind {}; nothing was written. Please report this with the ONNX file",
                self.first_difference(before, after)?
            ),
        ))
    }

    /// The largest difference of the outputs of networks, relative to their size.
    ///
    /// Errors: INVALID_ARGUMENT if `before` computes nothing finite; RUNTIME_FAILED.
    pub fn difference(&self, before: &[f32], after: &[f32]) -> Result<f32> {
        let mut evaluator = self.evaluator()?;
        let first = evaluator.run(before, &self.inputs)?;
        let second = evaluator.run(after, &self.inputs)?;
        self.idle().push(evaluator);
        match first.iter().all(Tensor::is_finite) {
            true => Ok(difference(&first, &second)),
            false => Err(invalid(
                "the network's outputs on random input are not finite; leave it out of the zoo",
            )),
        }
    }

    fn evaluator(&self) -> Result<Evaluator> {
        let mut idle = self.idle();
        match idle.pop() {
            Some(evaluator) if idle.is_empty() => {
                // The last one stays, to be copied from.
                let another = evaluator.another();
                idle.push(evaluator);
                another
            }
            Some(evaluator) => Ok(evaluator),
            None => Evaluator::new(self.network),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Evaluator>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first node whose value is not the same but for its order.
    fn first_difference(&self, before: &[f32], after: &[f32]) -> Result<String> {
        let nodes = self.network.graph().node.iter();
        let named = nodes.filter(|node| node.output.first().is_some_and(|name| !name.is_empty()));
        let nodes: Vec<_> = named.collect();
        let names: Vec<&String> = nodes.iter().map(|node| &node.output[0]).collect();
        let mut evaluator = Evaluator::watching(self.network, &names)?;
        let outputs = self.network.outputs().len();
        let first = evaluator.run(before, &self.inputs)?.split_off(outputs);
        let second = evaluator.run(after, &self.inputs)?.split_off(outputs);
        // Sums of values and of squares do not depend on the order.
        let size = |tensor: &Tensor| -> Option<[f64; 2]> {
            let values = tensor.floats()?.iter().map(|x| f64::from(*x));
            let count = values.len().max(1) as f64;
            let [sum, squares] = values.fold([0.0; 2], |[s, q], x| [s + x, q + x * x]);
            Some([sum / count, (squares / count).sqrt()])
        };
        let differs = |(_, (a, b)): &(_, (&Tensor, &Tensor))| match (size(a), size(b)) {
            (Some(a), Some(b)) => {
                let tolerance = f64::from(TOLERANCE) * a[1];
                (0..2).any(|i| (a[i] - b[i]).abs() > tolerance)
            }
            _ => false,
        };
        let mut pairs = nodes.iter().zip(first.iter().zip(&second));
        let found = pairs.find(differs);
        Ok(found.map_or("its outputs".into(), |(node, _)| title(node)))
    }
}

/// The largest difference of an output, relative to its largest value.
pub fn difference(first: &[Tensor], second: &[Tensor]) -> f32 {
    let pairs = first.iter().zip(second);
    pairs.map(|(a, b)| of_tensor(a, b)).fold(0.0, f32::max)
}

fn of_tensor(a: &Tensor, b: &Tensor) -> f32 {
    let (Some(a), Some(b)) = (a.floats(), b.floats()) else {
        return if a == b { 0.0 } else { f32::INFINITY };
    };
    let largest = a.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
    let pairs = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    // What is no number is different even from itself.
    let number = |d: f32| if d.is_nan() { f32::INFINITY } else { d };
    let worst = pairs.map(number).fold(0f32, f32::max);
    match largest.is_finite() {
        true => worst / largest,
        false => f32::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Data;

    #[test]
    fn what_is_no_number_is_a_difference() {
        let tensor = |values: [f32; 3]| {
            [Tensor {
                shape: vec![3],
                data: Data::F32(values.into()),
            }]
        };
        let [numbers, none] = [[1.0, 2.0, 3.0], [1.0, f32::NAN, 3.0]].map(tensor);
        let endless = tensor([1.0, 2.0, f32::INFINITY]);
        assert_eq!(difference(&endless, &endless), f32::INFINITY);
        assert_eq!(difference(&endless, &numbers), f32::INFINITY);
        assert_eq!(difference(&numbers, &numbers), 0.0);
        assert_eq!(difference(&numbers, &none), f32::INFINITY);
        assert_eq!(difference(&none, &none), f32::INFINITY);
    }
}
