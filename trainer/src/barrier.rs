//! The barrier between two networks: how much worse the networks on the straight line between
//! them are (Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML
//! 2020, arXiv 1912.05671).

use dwf::onnx::data_type;

use crate::{
    dataset::Dataset,
    error::{Result, invalid},
    evaluator::Evaluator,
    network::Network,
    tensor::Tensor,
    zoo::Zoo,
};

/// Networks whose line from the first is looked at.
const LINES: usize = 5;
/// Places on each line.
const PLACES: [f32; 3] = [0.25, 0.5, 0.75];
/// Rows that are run at once.
const BATCH: usize = 256;

/// Barriers on data: the worst place's shortfall against the ends, the mean over the lines.
/// Running statistics are interpolated like parameters, not taken anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Barrier {
    /// In cross-entropy, nats.
    pub loss: f64,
    /// In accuracy, as a fraction.
    pub accuracy: f64,
}

/// Whether data fit a network: one input of floats [batch, ..] with as many features as the rows
/// have, and logits [batch, classes] of every class.
///
/// Errors: INVALID_ARGUMENT saying what does not.
pub fn check(network: &Network, data: &Dataset) -> Result<()> {
    let refuse = |what: String| {
        Err(invalid(format!(
            "the data do not fit the networks: {what}; barriers need rows of the networks' inputs, \
             and the class of each"
        )))
    };
    let ([input], [output]) = (network.inputs(), network.outputs()) else {
        return refuse("they have several inputs or outputs".into());
    };
    let shape = &input.shape;
    let features: Option<usize> = shape.iter().skip(1).copied().product();
    if shape.is_empty() || features != Some(data.features) || input.elem_type != data_type::FLOAT {
        return refuse(format!(
            "the rows have {} features, and the input is {shape:?}",
            data.features
        ));
    }
    let classes = data.class_count();
    match output.shape[..] {
        [_, None] => Ok(()),
        [_, Some(outputs)] if classes <= outputs => Ok(()),
        _ => refuse(format!(
            "the rows have classes 0 to {}, and the output is {:?}",
            classes.saturating_sub(1),
            output.shape
        )),
    }
}

/// Measures the barriers between the first network of a zoo and some others, on data that
/// [fit](check).
///
/// Errors: as [`check`]; RUNTIME_FAILED.
pub fn measure(zoo: &Zoo, data: &Dataset) -> Result<Barrier> {
    check(&zoo.network, data)?;
    let mut evaluator = Evaluator::new(&zoo.network)?;
    let mut score = |weights: &[f32]| score(&mut evaluator, &zoo.network, weights, data);
    let first = zoo.weights.row(0);
    let start = score(first)?;
    let lines = LINES.min(zoo.count() - 1);
    let mut sum = [0.0; 2];
    for line in 1..=lines {
        let other = zoo.weights.row(line);
        let end = score(other)?;
        let mut worst = [0f64; 2];
        for t in PLACES {
            let pairs = first.iter().zip(other);
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
fn score(
    evaluator: &mut Evaluator,
    network: &Network,
    weights: &[f32],
    data: &Dataset,
) -> Result<[f64; 2]> {
    let input = &network.inputs()[0];
    // An export of a fixed batch is run on that many rows, the last ones filled up.
    let batch = input.shape[0].unwrap_or(BATCH);
    let [mut loss, mut right] = [0f64; 2];
    let rows = data.x.chunks(batch * data.features);
    for (x, classes) in rows.zip(data.classes.chunks(batch)) {
        let mut x = x.to_vec();
        let count = input.shape[0].unwrap_or(classes.len());
        let mut shape: Vec<usize> = input.shape.iter().map(|dim| dim.unwrap_or(0)).collect();
        shape[0] = count;
        x.resize(count * data.features, 0.0);
        let logits = evaluator.run(weights, &[Tensor::f32(shape, x)])?;
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
    let all = data.classes.len() as f64;
    Ok([loss / all, right / all])
}
