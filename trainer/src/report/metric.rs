//! What networks are for: the score by which they are compared.

use std::{fs, path::Path};

use dwf::layout::Layout;
use rayon::prelude::*;

use crate::{
    dataset::{Batches, Dataset},
    error::{Error, Result, invalid, io},
    evaluator::Tensor,
    network::Network,
    pool::Pool,
    task::{self, About, cartpole, classification::file, pendulum},
};

/// Episodes that a policy is measured on.
const EPISODES: usize = 100;
/// An accuracy this much below the zoo's mean is still good.
const GOOD_ACCURACY: f64 = 0.01;

/// A score of networks; more is better.
pub struct Metric {
    kind: Kind,
}

enum Kind {
    /// The share of rows that a classifier gets right.
    Accuracy(Box<Classification>),
    /// The mean return of a policy.
    Return(Control),
}

/// What is measured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To choose settings by.
    Validation,
    /// To report on.
    Test,
}

/// What a network does.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Its score.
    pub score: f64,
    /// Of a classifier: [rows, classes].
    pub logits: Option<Vec<f32>>,
}

impl Metric {
    /// The metric of a zoo's networks: accuracy on the rows of the CSV file `data`, or else on the
    /// file in the zoo's folder that holds this part; the mean return if the zoo is one of policies
    /// that was made here. `None` if there is nothing to measure on.
    ///
    /// Errors: IO; RUNTIME_MISSING; INVALID_ARGUMENT if the data do not fit the network.
    pub fn find(
        zoo: &Path,
        network: &Network,
        purpose: Purpose,
        data: Option<&Path>,
    ) -> Result<Option<Self>> {
        let default = zoo.join(match purpose {
            Purpose::Validation => file::VALIDATION,
            Purpose::Test => file::TEST,
        });
        if let Some(data) = data {
            return Self::accuracy(network, data).map(Some);
        }
        if default.exists() {
            return Self::accuracy(network, &default).map(Some);
        }
        let Some(control) = about(zoo)?.and_then(|about| Control::find(&about, purpose)) else {
            return Ok(None);
        };
        control.check(network.layout())?;
        let kind = Kind::Return(control);
        Ok(Some(Self { kind }))
    }

    /// The accuracy on the rows of a CSV file.
    ///
    /// Errors: IO; RUNTIME_MISSING; INVALID_ARGUMENT if the rows do not fit the network.
    pub fn accuracy(network: &Network, data: &Path) -> Result<Self> {
        let kind = Kind::Accuracy(Box::new(Classification::new(network, data)?));
        Ok(Self { kind })
    }

    /// `accuracy` or `return`.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Accuracy(_) => "accuracy",
            Kind::Return(_) => "return",
        }
    }

    /// The rows, of classifiers.
    pub fn data(&self) -> Option<&Dataset> {
        match &self.kind {
            Kind::Accuracy(classification) => Some(classification.batches.data()),
            Kind::Return(_) => None,
        }
    }

    /// The score from which a network is good enough to be used, where the zoo's mean is this.
    pub fn good(&self, zoo: f64) -> f64 {
        match &self.kind {
            Kind::Accuracy(_) => zoo - GOOD_ACCURACY,
            Kind::Return(control) => control.solved,
        }
    }

    /// A score for people.
    pub fn show(&self, score: f64) -> String {
        match self.kind {
            Kind::Accuracy(_) => format!("{:.2} %", 100.0 * score),
            Kind::Return(_) => format!("{score:.1}"),
        }
    }

    /// A difference of scores for people.
    pub fn show_difference(&self, difference: f64) -> String {
        match self.kind {
            Kind::Accuracy(_) => format!("{:+.2} points", 100.0 * difference),
            Kind::Return(_) => format!("{difference:+.1}"),
        }
    }

    /// What networks, [count, weights] row-major, do.
    ///
    /// Errors: RUNTIME_FAILED.
    pub fn judge(&self, networks: &[f32], size: usize) -> Result<Vec<Outcome>> {
        let judge = |weights: &[f32]| match &self.kind {
            Kind::Accuracy(classification) => {
                let logits = classification.logits(weights)?;
                Ok(Outcome {
                    score: classification.batches.data().accuracy(&logits),
                    logits: Some(logits),
                })
            }
            Kind::Return(control) => Ok(Outcome {
                score: (control.mean_return)(weights),
                logits: None,
            }),
        };
        networks.par_chunks_exact(size).map(judge).collect()
    }

    /// The networks' scores.
    ///
    /// Errors: RUNTIME_FAILED.
    pub fn scores(&self, networks: &[f32], size: usize) -> Result<Vec<f64>> {
        let outcomes = self.judge(networks, size)?;
        Ok(outcomes.into_iter().map(|outcome| outcome.score).collect())
    }
}

/// How the zoo in this folder was made, if it was made here.
///
/// Errors: IO; INVALID_ARGUMENT if the file cannot be read.
pub fn about(zoo: &Path) -> Result<Option<About>> {
    let path = zoo.join(task::ABOUT);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(&path).map_err(io("read", &path))?;
    let parsed = serde_json::from_slice(&text);
    parsed
        .map(Some)
        .map_err(|e| invalid(format!("'{}': {e}", path.display())))
}

/// A classifier and the rows that it is run on.
struct Classification {
    pool: Pool,
    batches: Batches,
}

impl Classification {
    fn new(network: &Network, path: &Path) -> Result<Self> {
        let at = |e: Error| e.at(format!("'{}'", path.display()));
        Ok(Self {
            batches: Batches::new(network, Dataset::read(path)?).map_err(at)?,
            pool: Pool::new(network)?,
        })
    }

    fn logits(&self, weights: &[f32]) -> Result<Vec<f32>> {
        let run = |batch| {
            let outputs = self
                .pool
                .with(|evaluator| evaluator.run(weights, &[batch]))?;
            let floats = outputs.first().and_then(Tensor::floats);
            let floats = floats.ok_or_else(|| invalid("the network's output is not of floats"))?;
            Ok(floats.to_vec())
        };
        let batches: Result<Vec<Vec<f32>>> = self.batches.tensors().map(run).collect();
        Ok(batches?.concat())
    }
}

/// A policy's mean return over its episodes.
type MeanReturn = Box<dyn Fn(&[f32]) -> f64 + Send + Sync>;

/// Episodes of a plant.
struct Control {
    mean_return: MeanReturn,
    solved: f64,
    layout: Layout,
}

impl Control {
    fn find(about: &About, purpose: Purpose) -> Option<Self> {
        let seed = match purpose {
            Purpose::Test => about.origin.seed,
            Purpose::Validation => !about.origin.seed,
        };
        match &about.task[..] {
            cartpole::NAME => {
                let starts = cartpole::held_out_starts(EPISODES, seed);
                Some(Self {
                    mean_return: Box::new(move |w| cartpole::mean_return(w, &starts)),
                    solved: cartpole::SOLVED,
                    layout: cartpole::Network::layout(),
                })
            }
            pendulum::NAME => {
                let starts = pendulum::held_out_starts(EPISODES, seed);
                Some(Self {
                    mean_return: Box::new(move |w| pendulum::mean_return(w, &starts)),
                    solved: pendulum::SOLVED,
                    layout: pendulum::Network::layout(),
                })
            }
            _ => None,
        }
    }

    fn check(&self, layout: &Layout) -> Result<()> {
        if *layout == self.layout {
            return Ok(());
        }
        Err(invalid(format!(
            "{} says that these are policies of a task of ours, but their tensors are others; \
             delete the file",
            task::ABOUT
        )))
    }
}
