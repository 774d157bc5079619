//! The barrier between two networks: how much worse the networks on the straight line between
//! them are (Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML
//! 2020, arXiv 1912.05671).

use crate::{
    dataset::{Batches, Dataset},
    error::{Result, invalid},
    evaluator::Evaluator,
    network::Network,
    rows::Rows,
    zoo::Zoo,
};

/// Networks whose line from the first is looked at.
const LINES: usize = 5;
/// Places on each line.
const PLACES: [f32; 3] = [0.25, 0.5, 0.75];

/// Barriers on data: the worst place's shortfall against the ends, the mean over the lines.
/// Running statistics are interpolated like parameters, not taken anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Barrier {
    /// In cross-entropy, nats.
    pub loss: f64,
    /// In accuracy, as a fraction.
    pub accuracy: f64,
}

/// The data as the network takes them: one input of floats [batch, ..] with as many features as the
/// rows have, and logits [batch, classes] of every class.
///
/// Errors: INVALID_ARGUMENT saying what does not fit.
pub fn batches(network: &Network, data: Dataset) -> Result<Batches> {
    let classes = data.class_count();
    let logits = match network.outputs() {
        [output] => match output.shape[..] {
            [_, outputs] => outputs.is_none_or(|outputs| classes <= outputs),
            _ => false,
        },
        _ => false,
    };
    let found = Batches::new(network, data).and_then(|batches| match logits {
        true => Ok(batches),
        false => Err(invalid(
            "the networks' outputs are not logits [batch, classes]",
        )),
    });
    found.map_err(|e| e.at("the data do not fit the networks"))
}

/// Measures the barriers between the first network of a zoo and some others, on these
/// [`batches`].
///
/// Errors: INVALID_ARGUMENT if a class has no logit; RUNTIME_FAILED.
pub fn measure(zoo: &Zoo, batches: &Batches) -> Result<Barrier> {
    let mut evaluator = Evaluator::new(&zoo.network)?;
    let mut score = |weights: &[f32]| score(&mut evaluator, weights, batches);
    let first = zoo.weights.row(0);
    let start = score(&first)?;
    let lines = LINES.min(zoo.count() - 1);
    let mut sum = [0.0; 2];
    for line in 1..=lines {
        let other = zoo.weights.row(line);
        let end = score(&other)?;
        let mut worst = [0f64; 2];
        for t in PLACES {
            let pairs = first.iter().zip(&other);
            let between: Vec<f32> = pairs.map(|(a, b)| (1.0 - t) * a + t * b).collect();
            let found = score(&between)?;
            let t = f64::from(t);
            for i in 0..2 {
                let expected = (1.0 - t) * start[i] + t * end[i];
                // Loss rises where accuracy falls.
                let sign = [1.0, -1.0][i];
                worst[i] = worst[i].max(sign * (found[i] - expected));
            }
        }
        sum = [sum[0] + worst[0], sum[1] + worst[1]];
    }
    let [loss, accuracy] = sum.map(|sum| sum / lines as f64);
    Ok(Barrier { loss, accuracy })
}

/// Cross-entropy and accuracy.
fn score(evaluator: &mut Evaluator, weights: &[f32], batches: &Batches) -> Result<[f64; 2]> {
    let [mut loss, mut right] = [0f64; 2];
    for (batch, classes) in batches.filled() {
        let count = batch.shape[0];
        let logits = evaluator.run(weights, &[batch])?;
        let logits = logits[0].floats().unwrap_or_default();
        let width = logits.len() / count;
        for (logits, class) in logits.chunks_exact(width.max(1)).zip(classes) {
            let Some(own) = logits.get(*class) else {
                return Err(invalid(format!(
                    "class {class} is beyond the networks' {width} outputs"
                )));
            };
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|y| f64::from(y - largest).exp()).sum();
            loss += sum.ln() - f64::from(own - largest);
            right += f64::from(u8::from(*own == largest));
        }
    }
    let all = batches.data().count() as f64;
    Ok([loss / all, right / all])
}
