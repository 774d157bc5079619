//! Batch normalisation's running statistics, taken anew from data.
//!
//! Running means and variances describe what the layers before them compute. In a generated network
//! they were generated with the weights and fit them only about as well; here they are measured, in
//! one pass in which every layer normalises by the batch at hand, as in training (Izmailov et al.,
//! "Averaging weights leads to wider optima and better generalization", UAI 2018, arXiv 1803.05407).

use std::{
    ops::Range,
    path::Path,
    sync::{Mutex, PoisonError},
};

use crate::{
    dataset::{Batches, Dataset},
    error::{Result, invalid},
    evaluator::{Data, Tensor},
    files,
    network::{BatchNorm, Network},
    pool::Pool,
    progress::Progress,
    report::{mean, median, metric::Metric},
    store::Store,
    zoo::{Source, Writer},
};

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// How many networks were recalibrated.
    pub networks: usize,
    /// How many batch normalisations each has.
    pub norms: usize,
    /// Median ratio of new to old running variance, or its inverse where that is larger.
    pub factor: f64,
    /// Mean accuracies before and after, where there was data to measure them on.
    pub accuracy: Option<[f64; 2]>,
}

/// Measures the running statistics of networks.
pub struct Recalibration {
    norms: Vec<BatchNorm>,
    pool: Pool,
    batches: Batches,
}

/// Values that are watched for each normalisation.
const WATCHED: usize = 3;

impl Recalibration {
    /// On the rows of `data`.
    ///
    /// Errors: RUNTIME_MISSING; INVALID_ARGUMENT if the network has no batch normalisation, or the
    /// data do not fit it.
    pub fn new(network: &Network, data: &Dataset) -> Result<Self> {
        let norms = network.batch_norms();
        if norms.is_empty() {
            return Err(invalid(
                "the network has no batch normalisation with running statistics: there is nothing to \
                 recalibrate",
            ));
        }
        let (by_batch, statistics) = network.by_batch();
        let watched: Vec<&str> = statistics
            .iter()
            .flat_map(|s| [&s.mean[..], &s.variance[..], &s.shape[..]])
            .collect();
        Ok(Self {
            pool: Pool::watching(&by_batch, &watched)?,
            batches: Batches::new(network, data.scattered())?,
            norms,
        })
    }

    /// Replaces the running statistics in `weights`.
    ///
    /// Errors: RUNTIME_FAILED.
    pub fn apply(&self, weights: &mut [f32]) -> Result<()> {
        let channels = self.norms.iter().map(|norm| norm.mean.len());
        let mut found: Vec<Vec<Moments>> = channels
            .map(|channels| vec![Moments::default(); channels])
            .collect();
        for batch in self.batches.tensors() {
            let values = self
                .pool
                .with(|evaluator| evaluator.run(weights, &[batch]))?;
            // The network's outputs come first.
            let watched = &values[values.len() - WATCHED * self.norms.len()..];
            for (moments, watched) in found.iter_mut().zip(watched.chunks_exact(WATCHED)) {
                add(moments, watched)?;
            }
        }
        for (norm, moments) in self.norms.iter().zip(&found) {
            let means = moments.iter().map(|m| m.mean as f32);
            let variances = moments.iter().map(Moments::variance);
            for (place, mean) in norm.mean.clone().zip(means) {
                weights[place] = mean;
            }
            for (place, variance) in norm.variance.clone().zip(variances) {
                weights[place] = variance;
            }
        }
        Ok(())
    }
}

/// Adds what one batch has shown: mean, variance and shape.
fn add(moments: &mut [Moments], watched: &[Tensor]) -> Result<()> {
    let (Some(means), Some(variances), Data::I64(shape)) =
        (watched[0].floats(), watched[1].floats(), &watched[2].data)
    else {
        return Err(invalid("a batch normalisation's input is not of floats"));
    };
    let count = (shape[0] * shape[2]) as f64;
    for ((moments, mean), variance) in moments.iter_mut().zip(means).zip(variances) {
        let (mean, variance) = (f64::from(*mean), f64::from(*variance));
        moments.add(&Moments {
            count,
            mean,
            squares: count * variance,
        });
    }
    Ok(())
}

/// Mean and summed squared deviations, of which parts are added (Chan, Golub and LeVeque 1979).
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, part: &Self) {
        let total = self.count + part.count;
        let apart = part.mean - self.mean;
        self.squares += part.squares + apart * apart * self.count * part.count / total;
        self.mean += apart * part.count / total;
        self.count = total;
    }

    /// As PyTorch keeps it, unbiased.
    fn variance(&self) -> f32 {
        (self.squares / (self.count - 1.0).max(1.0)) as f32
    }
}

/// Recalibrates all networks in a folder on the rows of `data` and writes them to `output`;
/// measures them on `test` before and after.
///
/// Errors: IO; INVALID_ARGUMENT and RUNTIME_MISSING before any work.
pub fn recalibrate(
    networks: &Path,
    network: Option<&Path>,
    data: &Path,
    test: Option<&Path>,
    output: &Path,
) -> Result<Done> {
    files::check_empty(output)?;
    let source = Source::open(networks, network, 1)?;
    let mut zoo = source.read(None)?;
    let recalibration = Recalibration::new(&zoo.network, &Dataset::read(data)?)
        .map_err(|e| e.at(format!("'{}'", data.display())))?;
    let metric = test
        .map(|test| Metric::accuracy(&zoo.network, test))
        .transpose()?;
    let measure = |networks: &Store| -> Result<Option<f64>> {
        let scores = metric
            .as_ref()
            .map(|metric| metric.scores(networks))
            .transpose()?;
        Ok(scores.map(|scores| mean(&scores)))
    };
    let before = measure(&zoo.weights)?;
    let variances: Vec<Range<usize>> = recalibration
        .norms
        .iter()
        .map(|norm| norm.variance.clone())
        .collect();
    let progress = Progress::new("statistics", zoo.count());
    let all = Mutex::new(Vec::new());
    zoo.weights.change(|_, old| {
        let mut new = old.to_vec();
        recalibration.apply(&mut new)?;
        let found = factors(old, &new, &variances);
        all.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(found);
        progress.step(String::new);
        Ok(Some(new))
    })?;
    let factors = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    progress.finish();
    let after = measure(&zoo.weights)?;
    let mut writer = Writer::new(output, zoo.layout(), 0)?;
    for network in zoo.networks() {
        writer.add(&network)?;
    }
    writer.finish()?;
    Ok(Done {
        networks: zoo.count(),
        norms: recalibration.norms.len(),
        factor: median(factors),
        accuracy: before.zip(after).map(|(before, after)| [before, after]),
    })
}

/// By how much each variance has changed.
fn factors(old: &[f32], new: &[f32], variances: &[Range<usize>]) -> Vec<f64> {
    let ratio = |i: usize| {
        let [old, new] = [old[i], new[i]].map(|v| f64::from(v).max(1e-12));
        (old / new).max(new / old)
    };
    variances.iter().cloned().flatten().map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_parts_are_those_of_the_whole() {
        let values: Vec<f32> = (0..90).map(|i| (i * i % 17) as f32 + 1000.0).collect();
        let moments = |part: &[f32]| {
            let count = part.len() as f64;
            let mean = part.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
            let squares = part.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
            Moments {
                count,
                mean,
                squares,
            }
        };
        let mut parts = Moments::default();
        values.chunks(7).for_each(|part| parts.add(&moments(part)));
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / 90.0;
        let squares: f64 = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
        assert!((parts.mean - mean).abs() < 1e-9);
        assert!((f64::from(parts.variance()) - squares / 89.0).abs() < 1e-5);
    }
}
