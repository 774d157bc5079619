//! The flow's networks beside the zoo's, those held out, and those of the baselines: all of each,
//! none selected, treated alike.

use std::ops::Range;

use serde::Serialize;

use super::{
    baseline::{self, Zoo},
    behaviour::{self, Behaviour},
    mean, median,
    metric::{Metric, Outcome},
    novelty::{self, Nearest},
    products::Products,
    spectrum::Spectrum,
};
use crate::{
    error::Result,
    progress::Progress,
    random::Random,
    rows::{Rows, Stack, chunk_count},
};

/// Seed of the baselines.
const BASELINE_SEED: u64 = 1;
/// Thresholds of novelty that the curve is drawn at: up to twice as new as the zoo's networks are
/// to each other.
const THRESHOLDS: usize = 41;
const LARGEST_THRESHOLD: f64 = 2.0;
/// Sizes of ensembles.
const ENSEMBLES: [usize; 8] = [1, 2, 3, 5, 10, 20, 50, 100];

/// What is compared: aligned networks.
pub struct Subject<'a> {
    /// The zoo's networks that the flow was trained on; three at least.
    pub training: &'a dyn Rows,
    /// The zoo's networks that it was not trained on.
    pub held_out: &'a dyn Rows,
    /// The flow's.
    pub generated: &'a dyn Rows,
    /// Their score.
    pub metric: Option<&'a Metric>,
    /// Whether to compare with baselines too, and to measure the spread along every axis.
    pub thorough: bool,
}

/// Where networks come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Trained, and seen by the flow.
    Zoo,
    /// Trained, and not seen by the flow.
    HeldOut,
    /// Made by the flow.
    Generated,
    /// Made from the zoo without a flow.
    Baseline,
}

/// Networks of one origin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Population {
    /// What they are.
    pub name: String,
    /// Where they come from.
    pub kind: Kind,
    /// The score of each; empty without a metric.
    pub scores: Vec<f64>,
    /// Mean score with the running statistics that networks came with, where the scores are after
    /// these were measured anew.
    pub as_they_came: Option<f64>,
    /// How new each is: its distance to the nearest training network, or to an earlier network of
    /// its population if that is nearer, in median distances of a training network to its nearest.
    pub novelty: Vec<f64>,
    /// Median distance to the nearest training network, in the same unit.
    pub distance: f64,
    /// The least of these distances.
    pub least_distance: f64,
    /// Share that are near copies: [`novelty::NEAR_COPY`].
    pub near_copies: f64,
    /// Share that are good and at least as new as each of [`Comparison::thresholds`].
    pub curve: Vec<f64>,
    /// Mean of the curve.
    pub area: f64,
    /// For each network the largest overlap of its errors with those of a training network.
    pub overlaps: Vec<f64>,
    /// Mean share of rows or states in which two of its networks do different things.
    pub disagreement: Option<f64>,
}

/// Accuracies of ensembles.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ensembles {
    /// Numbers of networks.
    pub sizes: Vec<usize>,
    /// Of training networks.
    pub zoo: Vec<f64>,
    /// Of generated networks.
    pub generated: Vec<f64>,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The zoo first, then the held-out, the generated, and the baselines.
    pub populations: Vec<Population>,
    /// Median distance of a training network to its nearest, Euclidean.
    pub unit: f64,
    /// Median over the weights of generated / training standard deviation.
    pub std_ratio: f64,
    /// Novelties that the curves are drawn at.
    pub thresholds: Vec<f64>,
    /// The score from which a network is good.
    pub good: Option<f64>,
    /// Of [`novelty::z_u`]; `None` with fewer than five held-out networks.
    pub z_u: Option<f64>,
    /// How far the networks spread.
    pub spectrum: Option<Spectrum>,
    /// Of classifiers.
    pub ensembles: Option<Ensembles>,
}

impl Population {
    /// Mean score; `None` without a metric.
    pub fn mean(&self) -> Option<f64> {
        (!self.scores.is_empty()).then(|| mean(&self.scores))
    }

    /// Standard deviation of the scores.
    pub fn std(&self) -> f64 {
        let mean = mean(&self.scores);
        let squares = self.scores.iter().map(|score| (score - mean).powi(2));
        (squares.sum::<f64>() / self.scores.len() as f64).sqrt()
    }

    /// The lowest score.
    pub fn worst(&self) -> f64 {
        self.scores.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

impl Comparison {
    /// Compares.
    ///
    /// Errors: those of the metric.
    pub fn new(subject: &Subject<'_>) -> Result<Self> {
        let &Subject {
            training,
            held_out,
            generated,
            metric,
            thorough,
        } = subject;
        let judge = |networks: &dyn Rows| -> Result<Vec<Outcome>> {
            metric.map_or(Ok(Vec::new()), |metric| metric.judge(networks))
        };
        let own = judge(training)?;
        let made = judge(generated)?;
        let [own_part, held_out_part, made_part] = parts([training, held_out, generated]);
        let rows = Stack(&[training, held_out, generated]);
        let progress = Progress::new("distances", chunk_count(rows.count(), rows.size()));
        let (products, ratios) =
            Products::with_ratios(&rows, own_part.clone(), made_part.clone(), || {
                progress.step(String::new);
            });
        progress.finish();
        let zoo_mean = (!own.is_empty()).then(|| mean(&scores(&own)));
        let setting = Setting {
            training: own_part.clone(),
            yardstick: Yardstick {
                unit: novelty::unit(&products, own_part.clone()),
                good: metric.zip(zoo_mean).map(|(metric, mean)| metric.good(mean)),
            },
            behaviours: behaviours(&own),
        };
        let population = |name: &str, kind, networks: &Range<usize>, outcomes: &[Outcome]| {
            setting.population(name, kind, &products, networks.clone(), outcomes)
        };
        let mut populations = vec![
            population("zoo", Kind::Zoo, &own_part, &own),
            population(
                "zoo, held out",
                Kind::HeldOut,
                &held_out_part,
                &judge(held_out)?,
            ),
            population("generated", Kind::Generated, &made_part, &made),
        ];
        if thorough {
            let zoo = Zoo::new(training);
            for (stream, baseline) in baseline::ALL.into_iter().enumerate() {
                let mut random = Random::new(BASELINE_SEED, stream as u64);
                let networks = baseline.make(&zoo, generated.count(), &mut random);
                let (name, outcomes) = (baseline.name(), judge(&networks)?);
                let [own_part, part] = parts([training, &networks]);
                let products = Products::new(&Stack(&[training, &networks]), own_part);
                populations.push(setting.population(
                    &name,
                    Kind::Baseline,
                    &products,
                    part,
                    &outcomes,
                ));
            }
        }
        let first = |networks: &Range<usize>| -> Vec<f64> {
            let nearest = novelty::nearest(&products, networks.clone(), own_part.clone());
            nearest.iter().map(|nearest| nearest.first).collect()
        };
        let enough = held_out.count() >= 5;
        Ok(Self {
            unit: setting.yardstick.unit,
            std_ratio: median(ratios),
            thresholds: thresholds().collect(),
            good: setting.yardstick.good,
            z_u: enough.then(|| novelty::z_u(&first(&made_part), &first(&held_out_part))),
            spectrum: match thorough {
                true => Spectrum::new(
                    &products,
                    own_part.clone(),
                    held_out_part.clone(),
                    made_part.clone(),
                ),
                false => None,
            },
            ensembles: metric.and_then(|metric| ensembles(metric, &own, &made)),
            populations,
        })
    }

    /// The first population of a kind.
    pub fn of(&self, kind: Kind) -> &Population {
        let found = self.populations.iter().find(|p| p.kind == kind);
        found.expect("there is one of each kind")
    }

    /// The baselines.
    pub fn baselines(&self) -> impl Iterator<Item = &Population> {
        self.populations.iter().filter(|p| p.kind == Kind::Baseline)
    }

    /// The baseline whose curve encloses most.
    pub fn best_baseline(&self) -> Option<&Population> {
        self.baselines().max_by(|a, b| a.area.total_cmp(&b.area))
    }
}

/// Where each of these lies in a stack of them.
fn parts<const N: usize>(rows: [&dyn Rows; N]) -> [Range<usize>; N] {
    let mut end = 0;
    rows.map(|rows| {
        let start = end;
        end += rows.count();
        start..end
    })
}

/// What every population is held against.
struct Setting {
    /// Where the training networks are among all.
    training: Range<usize>,
    yardstick: Yardstick,
    behaviours: Vec<Behaviour>,
}

impl Setting {
    fn population(
        &self,
        name: &str,
        kind: Kind,
        products: &Products,
        networks: Range<usize>,
        outcomes: &[Outcome],
    ) -> Population {
        let nearest = novelty::nearest(products, networks.clone(), self.training.clone());
        let first: Vec<f64> = nearest.iter().map(|nearest| nearest.first).collect();
        let scores = scores(outcomes);
        let relative = |distance: f64| distance / self.yardstick.unit;
        let novelty = self.yardstick.novelty(products, networks, &nearest);
        let curve = self.yardstick.curve(&novelty, &scores);
        let behaviours = behaviours(outcomes);
        let as_they_came: Vec<f64> = outcomes.iter().filter_map(|o| o.as_it_came).collect();
        let same = kind == Kind::Zoo;
        Population {
            name: name.into(),
            kind,
            as_they_came: (!as_they_came.is_empty()).then(|| mean(&as_they_came)),
            near_copies: novelty::near_copies(&nearest),
            least_distance: relative(first.iter().copied().fold(f64::INFINITY, f64::min)),
            distance: relative(median(first)),
            area: mean(&curve),
            curve,
            overlaps: behaviour::largest_overlaps(&behaviours, &self.behaviours, same),
            disagreement: (behaviours.len() > 1).then(|| behaviour::mean_disagreement(&behaviours)),
            novelty,
            scores,
        }
    }
}

/// What novelty is measured in, and what is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yardstick {
    /// Median distance of a training network to its nearest.
    pub unit: f64,
    /// The score from which a network is good; without one all are.
    pub good: Option<f64>,
}

impl Yardstick {
    /// How new each network is, see [`Population::novelty`].
    pub fn novelty(
        &self,
        products: &Products,
        networks: Range<usize>,
        nearest: &[Nearest],
    ) -> Vec<f64> {
        let distances = novelty::novelty(products, networks, nearest);
        distances.into_iter().map(|d| d / self.unit).collect()
    }

    /// The share of networks that are good and at least so new, at each of the thresholds.
    pub fn curve(&self, novelty: &[f64], scores: &[f64]) -> Vec<f64> {
        thresholds()
            .map(|threshold| self.share(novelty, scores, threshold))
            .collect()
    }

    fn share(&self, novelty: &[f64], scores: &[f64], threshold: f64) -> f64 {
        let good = |i: usize| match (self.good, scores.get(i)) {
            (Some(good), Some(score)) => *score >= good,
            _ => true,
        };
        let counted = (0..novelty.len()).filter(|i| novelty[*i] >= threshold && good(*i));
        counted.count() as f64 / novelty.len().max(1) as f64
    }
}

fn thresholds() -> impl Iterator<Item = f64> {
    (0..THRESHOLDS).map(|i| LARGEST_THRESHOLD * i as f64 / (THRESHOLDS - 1) as f64)
}

fn scores(outcomes: &[Outcome]) -> Vec<f64> {
    outcomes.iter().map(|outcome| outcome.score).collect()
}

fn behaviours(outcomes: &[Outcome]) -> Vec<Behaviour> {
    outcomes.iter().map(|o| o.behaviour.clone()).collect()
}

fn ensembles(metric: &Metric, zoo: &[Outcome], generated: &[Outcome]) -> Option<Ensembles> {
    let data = metric.data()?;
    let most = zoo.len().min(generated.len());
    let sizes: Vec<usize> = ENSEMBLES.into_iter().filter(|size| *size <= most).collect();
    let accuracies = |outcomes: &[Outcome]| {
        let logits = outcomes.iter().filter_map(|outcome| outcome.logits.clone());
        behaviour::ensembles(&logits.collect::<Vec<_>>(), data, &sizes)
    };
    Some(Ensembles {
        zoo: accuracies(zoo),
        generated: accuracies(generated),
        sizes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Matrix;

    #[test]
    fn populations_are_compared_without_a_metric() {
        let [training, held_out, generated] = [
            &[0.0, 1.0, 2.0, 3.0, 10.0][..],
            &[4.0, 5.0, 6.0, -1.0, 2.5],
            &[0.5, 0.5, 12.0],
        ]
        .map(|rows| Matrix::new(rows, 1));
        let found = Comparison::new(&Subject {
            training: &training,
            held_out: &held_out,
            generated: &generated,
            metric: None,
            thorough: true,
        })
        .unwrap();
        assert_eq!(found.unit, 1.0);
        let made = found.of(Kind::Generated);
        assert_eq!(made.novelty, [0.5, 0.0, 2.0]);
        assert_eq!((made.distance, made.near_copies), (0.5, 1.0 / 3.0));
        // All three at 0, two up to a half, one beyond.
        assert_eq!(
            [0, 10, 11, 40].map(|i| made.curve[i] * 3.0),
            [3.0, 2.0, 1.0, 1.0]
        );
        let average = found.baselines().find(|p| p.name == "average of the zoo");
        assert_eq!(average.unwrap().novelty[1], 0.0);
        assert!(found.best_baseline().unwrap().area > 0.0);
        assert!(found.z_u.unwrap().abs() < 2.0);
        assert_eq!(made.mean(), None);
    }
}
