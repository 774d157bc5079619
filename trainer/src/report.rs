//! The report: how good an artifact is, on what nobody chose by.

pub mod baseline;
pub mod behaviour;
pub mod comparison;
pub mod metric;
pub mod novelty;
pub mod page;
pub mod plot;
pub mod products;
pub mod spectrum;
pub mod spread;
pub mod transfer;

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
};

use dwf::{
    Model, SampleOptions, Sampler,
    layout::{Layout, Transform},
    metadata::{BasisKind, Metadata},
};
use serde::Serialize;

use crate::{
    condition::{CONDITIONS, Conditions},
    coordinates::{Coordinates, Decoded},
    error::{Result, invalid},
    export::{self, WHOLE},
    files::{self, Staging},
    flow::HeldOutLoss,
    mixer, mixing,
    obedience::Obedience,
    rows::Rows,
    train::{self, Parts},
    zoo::Zoo,
};
use comparison::{Comparison, Kind, Subject};
use metric::{Metric, Purpose};
use transfer::Transfer;

/// Names of the figures in `dwf.quality`.
pub mod key {
    /// Mean accuracy of the zoo's training networks on the data.
    pub const ZOO_ACCURACY: &str = "zoo.accuracy";
    /// Mean accuracy of the generated networks on the data.
    pub const GENERATED_ACCURACY: &str = "generated.accuracy";
    /// Mean return of the zoo's training policies.
    pub const ZOO_RETURN: &str = "zoo.return";
    /// Mean return of the generated policies.
    pub const GENERATED_RETURN: &str = "generated.return";
    /// Share of generated networks that are near copies.
    pub const NEAR_COPIES: &str = "near_copies";
    /// Of the copying test.
    pub const COPYING: &str = "copying.z_u";
    /// Area under the curve of novel and good generated networks.
    pub const NOVEL_AND_GOOD: &str = "novel_and_good.generated";
    /// The same of the best baseline.
    pub const NOVEL_AND_GOOD_BASELINE: &str = "novel_and_good.best_baseline";
    /// Median over the weights of generated / zoo standard deviation.
    pub const STD_RATIO: &str = "std_ratio.median";
    /// Median distance of a zoo network to its nearest neighbour in the zoo.
    pub const ZOO_DISTANCE: &str = "nn_distance.zoo.median";
    /// Least distance of a generated network to the zoo.
    pub const GENERATED_DISTANCE_MIN: &str = "nn_distance.generated.min";
    /// Median distance of a generated network to the zoo.
    pub const GENERATED_DISTANCE: &str = "nn_distance.generated.median";
    /// Flow matching loss on the zoo's held-out networks.
    pub const HELD_OUT_LOSS: &str = "flow.held_out_loss";
    /// The same of a flow that stands still.
    pub const HELD_OUT_LOSS_STILL: &str = "flow.held_out_loss.standing_still";
    /// The lowest during training, and the step at which it was seen.
    pub const HELD_OUT_LOSS_LOWEST: &str = "flow.held_out_loss.lowest";
    /// See [`HELD_OUT_LOSS_LOWEST`].
    pub const HELD_OUT_LOSS_LOWEST_STEP: &str = "flow.held_out_loss.lowest_step";
    /// Fraction of the zoo's variance that a linear basis holds.
    pub const EXPLAINED_VARIANCE: &str = "explained_variance";
    /// What storing a linear basis rounded adds to the weights, relative to their spread.
    pub const BASIS_ROUNDING: &str = "basis.rounding_error";
    /// The step of the training that was kept.
    pub const KEPT_STEP: &str = "flow.kept_step";
    /// Evaluations of the velocity that the default solver needs.
    pub const EVALUATIONS: &str = "solver.evaluations";
    /// Median over the weights of the standard deviations that the default solver and a fine
    /// one give.
    pub const SOLVER_STD_RATIO: &str = "solver.std_ratio";
    /// The same evaluations before the flow was straightened.
    pub const EVALUATIONS_BEFORE: &str = "reflow.evaluations_before";
}

/// The largest difference to the zoo's mean accuracy that is aimed at.
const ACCURACY_GOAL: f64 = 0.003;
/// The share of policies that should solve the task.
const SOLVED_GOAL: f64 = 0.95;
/// The share of near copies that should not be reached.
const COPIES_GOAL: f64 = 0.05;

/// Everything that is reported.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What is reported on.
    pub title: String,
    /// A sentence on what was measured.
    pub lead: String,
    /// What was aimed at.
    pub goals: Vec<Goal>,
    /// What a reader should know beside.
    pub notes: Vec<String>,
    /// The measurements.
    pub comparison: Comparison,
    /// Fine-tuning on another task.
    pub transfer: Option<Transfer>,
    /// How conditions are obeyed.
    pub obedience: Option<Obedience>,
}

/// An aim and whether it was reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// The aim and the figure.
    pub text: String,
    /// `None` where nothing was aimed at.
    pub met: Option<bool>,
}

impl Report {
    /// Writes the page as `path`, and beside it all figures as JSON: both, or neither.
    ///
    /// Errors: IO.
    pub fn write(&self, path: &Path, metric: Option<&Metric>) -> Result<()> {
        let json = path.with_extension("json");
        let figures = serde_json::to_vec_pretty(self).expect("plain data");
        let page = page::page(self, metric).into_bytes();
        let staging = Staging::beside(path)?;
        for (target, bytes) in [(&*json, figures), (path, page)] {
            staging.write(target.file_name().unwrap_or_default(), &bytes)?;
        }
        staging.publish(&[&json, path])
    }
}

/// What was aimed at, and what came of it.
fn goals(found: &Comparison, metric: Option<&Metric>) -> Vec<Goal> {
    let generated = found.of(Kind::Generated);
    let mut goals = Vec::new();
    if let (Some(metric), Some(mean), Some(zoo)) =
        (metric, generated.mean(), found.of(Kind::Zoo).mean())
    {
        goals.push(score_goal(found, metric, mean, zoo));
    }
    goals.push(Goal {
        text: format!(
            "Fewer than {:.0} % near copies of training networks: {:.1} %.",
            100.0 * COPIES_GOAL,
            100.0 * generated.near_copies
        ),
        met: Some(generated.near_copies < COPIES_GOAL),
    });
    goals.extend(found.best_baseline().map(|best| Goal {
        text: format!(
            "More novel and good networks than every baseline: area {:.3} under the curve, the best \
             baseline ({}) {:.3}.",
            generated.area, best.name, best.area
        ),
        met: Some(generated.area > best.area),
    }));
    goals
}

/// What measuring running statistics anew changed.
fn recalibration_note(found: &Comparison, metric: Option<&Metric>) -> Option<String> {
    let (generated, zoo) = (found.of(Kind::Generated), found.of(Kind::Zoo));
    let metric = metric?;
    let [came, zoo_came] = [generated.as_they_came?, zoo.as_they_came?];
    Some(format!(
        "Batch normalisation's running statistics were measured anew on training rows before any \
         network was scored, the zoo's and every baseline's too. With the statistics that networks \
         came with, the generated ones score {} and the zoo's {} ({}); anew {} and {}. `dwf \
         recalibrate` does the same for networks in use.",
        metric.show(came),
        metric.show(zoo_came),
        metric.show_difference(came - zoo_came),
        metric.show(generated.mean()?),
        metric.show(zoo.mean()?)
    ))
}

fn score_goal(found: &Comparison, metric: &Metric, mean: f64, zoo: f64) -> Goal {
    if metric.data().is_some() {
        return Goal {
            text: format!(
                "Mean accuracy within {:.1} points of the zoo's: {} against {} ({}).",
                100.0 * ACCURACY_GOAL,
                metric.show(mean),
                metric.show(zoo),
                metric.show_difference(mean - zoo)
            ),
            met: Some((mean - zoo).abs() <= ACCURACY_GOAL),
        };
    }
    let generated = found.of(Kind::Generated);
    let good = metric.good(zoo);
    let solved = generated.scores.iter().filter(|score| **score >= good);
    let share = solved.count() as f64 / generated.scores.len() as f64;
    Goal {
        text: format!(
            "A mean return of at least {} for {:.0} % of the policies: {:.1} % (mean {} against {} in \
             the zoo).",
            metric.show(good),
            100.0 * SOLVED_GOAL,
            100.0 * share,
            metric.show(mean),
            metric.show(zoo)
        ),
        met: Some(share >= SOLVED_GOAL),
    }
}

/// What the copying test says.
fn copying_note(found: &Comparison) -> String {
    let Some(z) = found.z_u else {
        return "Too few networks were held out for the copying test of Meehan et al. (2020)."
            .into();
    };
    let meaning = match z {
        z if z < -3.0 => {
            "generated networks lie nearer to the training networks than fresh networks do, as far as \
             such a difference would not come about by chance"
        }
        z if z > 3.0 => {
            "generated networks lie further from the training networks than fresh ones do"
        }
        _ => "generated networks lie about as near to the training networks as fresh networks do",
    };
    format!(
        "Copying test of Meehan, Chaudhuri and Dasgupta (2020) on distances in aligned weight space, \
         against the held-out networks: Z_U = {z:.1}: {meaning}."
    )
}

/// The main figures of a comparison, for `dwf.quality`.
pub fn figures(found: &Comparison, metric: Option<&Metric>) -> BTreeMap<String, f64> {
    let generated = found.of(Kind::Generated);
    let mut figures = vec![
        (key::ZOO_DISTANCE, found.unit),
        (
            key::GENERATED_DISTANCE_MIN,
            found.unit * generated.least_distance,
        ),
        (key::GENERATED_DISTANCE, found.unit * generated.distance),
        (key::STD_RATIO, found.std_ratio),
        (key::NEAR_COPIES, generated.near_copies),
    ];
    figures.extend(found.z_u.map(|z| (key::COPYING, z)));
    if let Some(best) = found.best_baseline() {
        figures.push((key::NOVEL_AND_GOOD, generated.area));
        figures.push((key::NOVEL_AND_GOOD_BASELINE, best.area));
    }
    if let (Some(metric), Some(zoo), Some(mean)) =
        (metric, found.of(Kind::Zoo).mean(), generated.mean())
    {
        let keys = match metric.data() {
            Some(_) => [key::ZOO_ACCURACY, key::GENERATED_ACCURACY],
            None => [key::ZOO_RETURN, key::GENERATED_RETURN],
        };
        figures.extend(keys.into_iter().zip([zoo, mean]));
    }
    let named = figures
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    named.collect()
}

/// What to report on.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportOptions {
    /// Rows to measure accuracies on; `None`: see [`Metric::find`].
    pub data: Option<PathBuf>,
    /// The conditions that it was trained with; `None`: [`CONDITIONS`] in the zoo's folder.
    pub conditions: Option<PathBuf>,
    /// Networks to generate, and of every baseline.
    pub count: usize,
    /// Seed of the generated networks.
    pub seed: u64,
}

/// Reports on an artifact and the zoo in a folder that it was trained on: writes the page `output`
/// and its figures as JSON, and the main ones into the artifact.
///
/// Errors: INVALID_ARGUMENT and RUNTIME_MISSING before any work; IO.
pub fn report(
    artifact: &Path,
    folder: &Path,
    output: &Path,
    options: &ReportOptions,
) -> Result<Report> {
    files::check_file(output)?;
    let model = Model::open(artifact, &WHOLE)?;
    let metadata = model.metadata();
    let mut zoo = Zoo::read(folder)?;
    check_zoo(zoo.layout(), &metadata.layout, folder)?;
    let data = options.data.as_deref();
    let metric = Metric::find(folder, &zoo.network, Purpose::Test, data)?;
    let task = transfer::Task::find(folder)?;
    let seed = seed(metadata)?;
    let parts = Parts::split(zoo.count(), seed);
    let conditions = Asked::find(folder, &zoo, &parts, metadata, options)?;
    let condition = conditions.as_ref().map(Asked::rows);
    train::align_again(&mut zoo, folder, &metadata.provenance)?;
    let latents = latents(&model, options, condition.as_deref())?;
    let coordinates = Coordinates::open(artifact)?;
    let generated = Decoded::new(&coordinates, &latents);
    let (training, held_out) = (parts.training(&zoo), parts.held_out(&zoo));
    let comparison = Comparison::new(&Subject {
        training: &training,
        held_out: &held_out,
        generated: &generated,
        metric: metric.as_ref(),
        thorough: true,
    })?;
    let transfer = task
        .map(|(classifier, task)| {
            let tune = |rows: &dyn Rows| transfer::starts(zoo.layout(), classifier.layout(), rows);
            let (training, generated) = (tune(&training)?, tune(&generated)?);
            Ok(Transfer::new(&classifier, &task, &training, &generated))
        })
        .transpose()?;
    let obedience = conditions
        .map(|Asked { known, asked }| Obedience::measure(&training, &known, &generated, &asked))
        .transpose()?;
    let report = Report {
        title: format!("Networks generated by {}", file_name(artifact)),
        lead: format!(
            "{} generated networks of {} weights (seed {}), beside the {} networks that the flow was \
             trained on and the {} of the same zoo that it was not.",
            options.count,
            zoo.layout().len(),
            options.seed,
            parts.training.len(),
            parts.held_out.len()
        ),
        goals: goals(&comparison, metric.as_ref()),
        notes: notes(&comparison, metric.as_ref(), &model, parts.training.len()),
        transfer,
        obedience,
        comparison,
    };
    report.write(output, metric.as_ref())?;
    let mut figures = figures(&report.comparison, metric.as_ref());
    figures.extend(report.obedience.iter().flat_map(Obedience::figures));
    export::update_quality(artifact, &figures)?;
    Ok(report)
}

/// What a reader should know beside the figures.
fn notes(
    found: &Comparison,
    metric: Option<&Metric>,
    model: &Model,
    training: usize,
) -> Vec<String> {
    let mut notes = vec![copying_note(found)];
    notes.extend(recalibration_note(found, metric));
    notes.extend(mixing_note(model));
    if model.metadata().basis == BasisKind::Linear && model.latent() + 1 >= training {
        notes.push(format!(
            "The basis has {} components, all that {training} training networks can have: every \
             generated network is a combination of training networks, and none leaves the affine span \
             of the zoo.",
            model.latent()
        ));
    }
    notes.push(
        "Distances are Euclidean, between weight vectors whose interchangeable units were put in one \
         order first. Every population but the zoo's own was made with fixed seeds, and every network \
         of it counts."
            .into(),
    );
    notes
}

/// What the flow learned.
fn mixing_note(model: &Model) -> Option<String> {
    let provenance = &model.metadata().provenance;
    let mixing = provenance.get(mixing::key::MIXING)?;
    let selected = match provenance.get(mixing::key::SELECTED).map(String::as_str) {
        None | Some(mixing::key::ANY) => String::new(),
        Some(count) => format!(
            ", {count} of them, of every {} at random the one that lacked the least on training \
             rows, or on validation data where there are none",
            mixer::DRAWS
        ),
    };
    Some(format!(
        "The flow learned mixtures of the zoo's networks: {mixing}{selected}. At 45 degrees one is \
         half way between two, near 20 its samples would be near copies."
    ))
}

fn check_zoo(found: &Layout, expected: &Layout, folder: &Path) -> Result<()> {
    // Transforms are the flow's own matter.
    let plain = |layout: &Layout| layout.clone().transformed(Transform::None, |_| true);
    if plain(found) == plain(expected) {
        return Ok(());
    }
    let differs = expected
        .tensors()
        .iter()
        .find(|tensor| found.get(&tensor.name).map(|other| &other.shape) != Some(&tensor.shape));
    let what = differs.map_or("in their order".into(), |t| {
        format!("by tensor '{}'", t.name)
    });
    Err(invalid(format!(
        "the networks in '{}' differ {what} from those of the artifact; name the zoo that it was \
         trained on",
        folder.display()
    )))
}

/// The seed that the artifact was trained with: it decides which networks were held out.
fn seed(metadata: &Metadata) -> Result<u64> {
    let seed = metadata
        .provenance
        .get("seed")
        .and_then(|seed| seed.parse().ok());
    seed.ok_or_else(|| {
        invalid(
            "the artifact does not say which seed it was trained with (provenance), so that the \
             networks that it was not trained on cannot be told; train it with dwf train",
        )
    })
}

/// What is asked of generated networks.
struct Asked {
    /// The training networks' conditions.
    known: Conditions,
    /// The same in turn, one a generated network.
    asked: Conditions,
}

impl Asked {
    fn find(
        folder: &Path,
        zoo: &Zoo,
        parts: &Parts,
        metadata: &Metadata,
        options: &ReportOptions,
    ) -> Result<Option<Self>> {
        if metadata.condition.is_none() {
            return Ok(None);
        }
        let default = folder.join(CONDITIONS);
        let path = options.conditions.as_ref().unwrap_or(&default);
        let known = Conditions::read(path, &zoo.files)?.take(&parts.training);
        let turns: Vec<usize> = (0..options.count)
            .map(|i| i % parts.training.len())
            .collect();
        let asked = known.take(&turns);
        Ok(Some(Self { known, asked }))
    }

    /// As callers give them.
    fn rows(&self) -> Vec<f32> {
        let rows = self.asked.rows.chunks_exact(self.asked.size());
        rows.flat_map(|row| self.asked.unscaled(row)).collect()
    }
}

/// Latents of the networks that are reported on, [count, latent].
fn latents(model: &Model, options: &ReportOptions, condition: Option<&[f32]>) -> Result<Vec<f32>> {
    let model = model.latents()?;
    let mut latents = vec![0f32; options.count * model.latent()];
    let options = SampleOptions {
        seed: options.seed,
        count: options.count,
        condition,
        ..Default::default()
    };
    Sampler::new(&model, &Default::default())?.sample(options, &mut latents[..])?;
    Ok(latents)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The figures as a table for people.
pub fn table(quality: &BTreeMap<String, f64>) -> String {
    let mut text = String::new();
    let mut line = |what: &str, values: [Option<&f64>; 2], note: &str| {
        if let Some(generated) = values[1] {
            let zoo = values[0].map_or(String::new(), |zoo| format!("{zoo:.4}"));
            let line = format!("{what:<36}{zoo:>10}{generated:>12.4}  {note}");
            writeln!(text, "{}", line.trim_end()).expect("strings grow");
        }
    };
    let get = |key: &str| quality.get(key);
    line(
        "accuracy on held-out data, mean",
        [get(key::ZOO_ACCURACY), get(key::GENERATED_ACCURACY)],
        "",
    );
    line(
        "return on held-out starts, mean",
        [get(key::ZOO_RETURN), get(key::GENERATED_RETURN)],
        "",
    );
    line(
        "standard deviation, median",
        [Some(&1.0), get(key::STD_RATIO)],
        "of the zoo's, a weight",
    );
    let zoo_distance = get(key::ZOO_DISTANCE);
    line(
        "nearest zoo network, median",
        [zoo_distance, get(key::GENERATED_DISTANCE)],
        "L2, aligned",
    );
    line(
        "nearest zoo network, least",
        [None, get(key::GENERATED_DISTANCE_MIN)],
        "0 would be a copy",
    );
    line(
        "near copies",
        [None, get(key::NEAR_COPIES)],
        "a third as far as the second nearest",
    );
    line(
        "flow loss on held-out networks",
        [None, get(key::HELD_OUT_LOSS)],
        &held_out_note(quality),
    );
    line(
        "variance in the basis",
        [None, get(key::EXPLAINED_VARIANCE)],
        "",
    );
    format!("{:<36}{:>10}{:>12}\n{text}", "", "zoo", "generated")
}

/// What the held-out loss compares with: alone it says little, and it may have been lower.
fn held_out_note(quality: &BTreeMap<String, f64>) -> String {
    let keys = [
        key::HELD_OUT_LOSS_STILL,
        key::HELD_OUT_LOSS_LOWEST,
        key::HELD_OUT_LOSS_LOWEST_STEP,
    ];
    match keys.map(|key| quality.get(key)) {
        [Some(still), Some(lowest), Some(step)] => {
            format!("({still:.4} standing still, lowest {lowest:.4} at step {step})")
        }
        _ => String::new(),
    }
}

/// The figures of a training's held-out loss.
pub fn held_out(loss: &HeldOutLoss) -> [(&'static str, f64); 4] {
    [
        (key::HELD_OUT_LOSS, loss.kept),
        (key::HELD_OUT_LOSS_STILL, loss.standing_still),
        (key::HELD_OUT_LOSS_LOWEST, loss.lowest),
        (key::HELD_OUT_LOSS_LOWEST_STEP, loss.lowest_step as f64),
    ]
}

/// The mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The middle value, or the mean of the middle two; 0 of nothing.
pub fn median<T: Copy + Into<f64>>(mut values: Vec<T>) -> f64 {
    let half = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    let order = |a: &T, b: &T| -> Ordering { (*a).into().total_cmp(&(*b).into()) };
    let even = values.len().is_multiple_of(2);
    let (below, middle, _) = values.select_nth_unstable_by(half, order);
    let middle = (*middle).into();
    match below.iter().copied().max_by(order) {
        Some(before) if even => (before.into() + middle) / 2.0,
        _ => middle,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median(Vec::<f64>::new()), 0.0);
        assert_eq!(median(vec![3.0f32, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
