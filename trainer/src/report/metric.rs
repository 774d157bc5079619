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
    random::Random,
    recalibrate::Recalibration,
    report::{behaviour::Behaviour, mean},
    rows::Rows,
    task::{
        self, About, cartpole::CartPole, classification::file, evolution::Plant, pendulum::Pendulum,
    },
};

/// Episodes that a policy is measured on.
const EPISODES: usize = 100;
/// States in which the actions of policies are compared, at most.
const STATES: usize = 2000;
/// Random stream of these states, beside that of the episodes' starts.
const STATES_STREAM: u64 = 7;
/// Training rows that running statistics are measured on anew, at most.
const RECALIBRATION_ROWS: usize = 256;
/// Fewer validation rows than this say too little alone: the training rows are added. Networks know
/// those, and what falls short of them there falls short.
const FEW_ROWS: usize = 200;
/// Training rows that mixtures are selected by, at most.
const SELECTION_ROWS: usize = 512;
/// An accuracy this much below the zoo's mean is still good.
const GOOD_ACCURACY: f64 = 0.01;

/// All that [`Metric::find`] looks at in a zoo's folder to select or to choose by.
pub const FILES: [&str; 3] = [file::TRAINING, file::VALIDATION, task::ABOUT];

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
    /// To select by what a zoo's networks are taught: their training rows.
    Selection,
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
    /// What it lacks, finer than the score tells: the mean cross-entropy of a classifier, less the
    /// return of a policy.
    pub loss: f64,
    /// The score with the running statistics that it came with, where they were measured anew.
    pub as_it_came: Option<f64>,
    /// What it does right and wrong.
    pub behaviour: Behaviour,
    /// Of a classifier: [rows, classes].
    pub logits: Option<Vec<f32>>,
}

impl Metric {
    /// The metric of a zoo's networks: accuracy on the rows of the CSV file `data`, or else on the
    /// file in the zoo's folder that holds this part; the mean return if the zoo is one of policies
    /// that was made here; for selection only rows count. `None` if there is nothing to measure on.
    /// Networks with batch normalisation have their running statistics measured anew first, every
    /// one alike, where the zoo has the rows that it was trained on.
    ///
    /// Errors: IO; RUNTIME_MISSING; INVALID_ARGUMENT if the data do not fit the network.
    pub fn find(
        zoo: &Path,
        network: &Network,
        purpose: Purpose,
        data: Option<&Path>,
    ) -> Result<Option<Self>> {
        let default = zoo.join(match purpose {
            Purpose::Selection => file::TRAINING,
            Purpose::Validation => file::VALIDATION,
            Purpose::Test => file::TEST,
        });
        let rows = data.or(Some(&default)
            .filter(|default| default.exists())
            .map(|d| &**d));
        if let Some(path) = rows {
            let mut rows = Dataset::read(path)?;
            if purpose == Purpose::Selection {
                rows = rows.thinned(SELECTION_ROWS);
            }
            let training = zoo.join(file::TRAINING);
            if purpose == Purpose::Validation && rows.count() < FEW_ROWS && training.exists() {
                let training = Dataset::read(&training)?;
                if training.features == rows.features {
                    rows = rows.and(&training);
                }
            }
            let mut classification = Classification::new(network, rows, path)?;
            classification.recalibrate(network, zoo, purpose)?;
            let kind = Kind::Accuracy(Box::new(classification));
            return Ok(Some(Self { kind }));
        }
        let Some(control) = about(zoo)?.and_then(|about| Control::find(&about, purpose)) else {
            return Ok(None);
        };
        control.check(network.layout())?;
        let kind = Kind::Return(control);
        Ok(Some(Self { kind }))
    }

    /// The accuracy on the rows of a CSV file, of networks as they are.
    ///
    /// Errors: IO; RUNTIME_MISSING; INVALID_ARGUMENT if the rows do not fit the network.
    pub fn accuracy(network: &Network, data: &Path) -> Result<Self> {
        let rows = Dataset::read(data)?;
        let kind = Kind::Accuracy(Box::new(Classification::new(network, rows, data)?));
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

    /// What networks do.
    ///
    /// Errors: RUNTIME_FAILED.
    pub fn judge(&self, networks: &dyn Rows) -> Result<Vec<Outcome>> {
        self.each(networks, |outcome| outcome)
    }

    /// The networks' losses.
    ///
    /// Errors: RUNTIME_FAILED.
    pub fn losses(&self, networks: &dyn Rows) -> Result<Vec<f64>> {
        self.each(networks, |outcome| outcome.loss)
    }

    /// The networks' scores.
    ///
    /// Errors: RUNTIME_FAILED.
    pub fn scores(&self, networks: &dyn Rows) -> Result<Vec<f64>> {
        self.each(networks, |outcome| outcome.score)
    }

    /// The networks' scores, and their losses.
    ///
    /// Errors: RUNTIME_FAILED.
    pub fn scores_and_losses(&self, networks: &dyn Rows) -> Result<(Vec<f64>, Vec<f64>)> {
        let both = self.each(networks, |outcome| (outcome.score, outcome.loss))?;
        Ok(both.into_iter().unzip())
    }

    /// A part of what each network does.
    fn each<T: Send>(
        &self,
        networks: &dyn Rows,
        part: impl Fn(Outcome) -> T + Sync,
    ) -> Result<Vec<T>> {
        let judge = |i| {
            let weights = networks.row(i);
            match &self.kind {
                Kind::Accuracy(classification) => classification.judge(&weights).map(&part),
                Kind::Return(control) => Ok(part((control.judge)(&weights))),
            }
        };
        let all = (0..networks.count()).into_par_iter();
        all.map(judge).collect()
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
    /// With whether the score before it is told too.
    recalibration: Option<(Recalibration, bool)>,
}

impl Classification {
    /// `path` is where the rows are from.
    fn new(network: &Network, rows: Dataset, path: &Path) -> Result<Self> {
        let at = |e: Error| e.at(format!("'{}'", path.display()));
        Ok(Self {
            batches: Batches::new(network, rows).map_err(at)?,
            pool: Pool::new(network)?,
            recalibration: None,
        })
    }

    /// From now on running statistics are measured anew first, if there are any and the rows that
    /// the zoo was trained on.
    fn recalibrate(&mut self, network: &Network, zoo: &Path, purpose: Purpose) -> Result<()> {
        let path = zoo.join(file::TRAINING);
        if path.exists() && !network.batch_norms().is_empty() {
            let rows = Dataset::read(&path)?.thinned(RECALIBRATION_ROWS);
            let recalibration = Recalibration::new(network, &rows)
                .map_err(|e| e.at(format!("'{}'", path.display())))?;
            self.recalibration = Some((recalibration, purpose == Purpose::Test));
        }
        Ok(())
    }

    fn judge(&self, weights: &[f32]) -> Result<Outcome> {
        let accuracy = |logits: &[f32]| self.batches.data().accuracy(logits);
        let mut as_it_came = None;
        let logits = match &self.recalibration {
            None => self.logits(weights)?,
            Some((recalibration, both)) => {
                if *both {
                    as_it_came = Some(accuracy(&self.logits(weights)?));
                }
                let mut weights = weights.to_vec();
                recalibration.apply(&mut weights)?;
                self.logits(&weights)?
            }
        };
        Ok(Outcome {
            score: accuracy(&logits),
            loss: self.batches.data().cross_entropy(&logits),
            as_it_came,
            behaviour: Behaviour::of_classifier(&logits, self.batches.data()),
            logits: Some(logits),
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

/// What a policy does in its episodes.
type Judge = Box<dyn Fn(&[f32]) -> Outcome + Send + Sync>;

/// Episodes of a plant.
struct Control {
    judge: Judge,
    solved: f64,
    layout: Layout,
}

impl Control {
    fn find(about: &About, purpose: Purpose) -> Option<Self> {
        let seed = match purpose {
            Purpose::Selection => return None,
            Purpose::Validation => !about.origin.seed,
            Purpose::Test => about.origin.seed,
        };
        match &about.task[..] {
            CartPole::NAME => Some(Self::of(CartPole::default(), seed)),
            Pendulum::NAME => Some(Self::of(Pendulum, seed)),
            _ => None,
        }
    }

    fn of<P: Plant<State: 'static> + Send + 'static>(plant: P, seed: u64) -> Self {
        let starts = P::held_out_starts(EPISODES, seed);
        let mut random = Random::new(seed, STATES_STREAM);
        let wander = |start: &P::State| plant.wander(*start, &mut random);
        let states: Vec<_> = starts.iter().flat_map(wander).collect();
        let step = states.len().div_ceil(STATES).max(1);
        let states: Vec<_> = states.into_iter().step_by(step).collect();
        let judge = move |weights: &[f32]| {
            let returns = starts.iter().map(|start| plant.episode(weights, *start));
            let returns: Vec<f64> = returns.collect();
            let score = mean(&returns);
            Outcome {
                score,
                loss: -score,
                as_it_came: None,
                behaviour: Behaviour {
                    predicted: states.iter().map(|s| P::action(weights, *s)).collect(),
                    wrong: returns.iter().map(|x| *x < P::SOLVED).collect(),
                },
                logits: None,
            }
        };
        Self {
            judge: Box::new(judge),
            solved: P::SOLVED,
            layout: P::layout(),
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
