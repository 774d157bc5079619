//! Networks as starts for a task that they were not made for.

use std::path::Path;

use dwf::layout::Layout;
use rayon::prelude::*;
use serde::Serialize;

use super::metric;
use crate::{
    classifier::{Architecture, Classifier, Recipe},
    dataset::Dataset,
    error::{Result, invalid},
    random::Random,
    rows::Rows,
    task::{About, classification::file, digits},
};

/// Networks of each kind that are fine-tuned.
const NETWORKS: usize = 20;
/// Passes over the data after which they are measured.
const EPOCHS: [usize; 3] = [0, 1, 5];
/// Seed of the random initialisations and of the order of the rows.
const SEED: u64 = 1;
/// Usual fine-tuning: no noise, little decay.
const RECIPE: Recipe = Recipe {
    epochs: 1,
    batch: 32,
    learning_rate: 1e-3,
    weight_decay: 0.01,
    input_noise: 0.0,
    weight_noise: 0.0,
    label_smoothing: 0.0,
};

/// Mean accuracies on the other task, one a number of epochs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transfer {
    /// What the other task is.
    pub task: String,
    /// Networks of each kind.
    pub networks: usize,
    /// Passes over its data.
    pub epochs: Vec<usize>,
    /// From PyTorch's default initialisation.
    pub random: Vec<f64>,
    /// From training networks.
    pub zoo: Vec<f64>,
    /// From generated networks.
    pub generated: Vec<f64>,
}

/// Another task: what to train and to measure on.
pub struct Task {
    /// What it is.
    pub name: String,
    /// Rows to fine-tune on.
    pub training: Dataset,
    /// Rows to measure on.
    pub test: Dataset,
}

impl Task {
    /// The other task of a zoo that was made here for some of the digits, with its classifier:
    /// the other digits. `None` for any other zoo.
    ///
    /// Errors: IO; INVALID_ARGUMENT if the files do not fit together.
    pub fn find(zoo: &Path) -> Result<Option<(Classifier, Self)>> {
        let [training, test] = [file::TRANSFER_TRAINING, file::TRANSFER_TEST].map(|f| zoo.join(f));
        let Some(About { network, .. }) = metric::about(zoo)? else {
            return Ok(None);
        };
        let architecture = network.as_deref().and_then(Architecture::named);
        let (Some(architecture), true) = (architecture, training.exists()) else {
            return Ok(None);
        };
        let task = Self {
            name: "the other digits".into(),
            training: Dataset::read(&training)?,
            test: Dataset::read(&test)?,
        };
        let classes = Dataset::read(&zoo.join(file::TRAINING))?.class_count();
        let classifier = architecture.build(digits::IMAGE, classes);
        for data in [&task.training, &task.test] {
            data.check(digits::IMAGE.len(), classes)
                .map_err(|e| e.at(format!("'{}'", training.display())))?;
        }
        Ok(Some((classifier, task)))
    }
}

/// The networks of a population that are fine-tuned, [count, weights], in the order of another
/// layout of the same tensors.
///
/// Errors: INVALID_ARGUMENT naming a tensor that is missing.
pub fn starts(from: &Layout, to: &Layout, networks: &dyn Rows) -> Result<Vec<f32>> {
    let find = |tensor: &dwf::layout::TensorSpec| {
        let found = from
            .get(&tensor.name)
            .filter(|found| found.shape == tensor.shape);
        found.map(|found| found.range()).ok_or_else(|| {
            invalid(format!(
                "the zoo's networks have no tensor '{}' {:?}, as zoo.json says they should",
                tensor.name, tensor.shape
            ))
        })
    };
    let ranges: Vec<_> = to.tensors().iter().map(find).collect::<Result<_>>()?;
    let reordered = |i: usize| -> Vec<f32> {
        let row = networks.row(i);
        ranges
            .iter()
            .flat_map(|range| row[range.clone()].iter().copied())
            .collect()
    };
    let count = NETWORKS.min(networks.count());
    Ok((0..count).flat_map(reordered).collect())
}

impl Transfer {
    /// Fine-tunes training networks, generated networks (rows in the order of the classifier's
    /// layout) and random ones.
    pub fn new(classifier: &Classifier, task: &Task, zoo: &[f32], generated: &[f32]) -> Self {
        let size = classifier.layout().len();
        let networks = NETWORKS.min(zoo.len() / size).min(generated.len() / size);
        let random: Vec<f32> = (0..networks as u64)
            .flat_map(|i| classifier.initialise(&mut Random::new(SEED, i)))
            .collect();
        let tune = |starts: &[f32]| {
            let starts = &starts[..networks * size];
            let curves: Vec<Vec<f64>> = starts
                .par_chunks_exact(size)
                .enumerate()
                .map(|(i, start)| fine_tune(classifier, task, start, i as u64))
                .collect();
            let mean =
                |e: usize| curves.iter().map(|curve| curve[e]).sum::<f64>() / networks as f64;
            (0..EPOCHS.len()).map(mean).collect()
        };
        Self {
            task: task.name.clone(),
            networks,
            epochs: EPOCHS.into(),
            random: tune(&random),
            zoo: tune(zoo),
            generated: tune(generated),
        }
    }
}

/// Accuracies of one network after each of [`EPOCHS`].
fn fine_tune(classifier: &Classifier, task: &Task, start: &[f32], stream: u64) -> Vec<f64> {
    let measure = |epochs: usize| {
        let mut weights = start.to_vec();
        let mut random = Random::new(SEED, 1 << 32 | stream);
        let recipe = Recipe { epochs, ..RECIPE };
        classifier.train(&mut weights, &task.training, &recipe, &mut random);
        task.test
            .accuracy(&classifier.predict(&weights, &task.test.x))
    };
    EPOCHS.into_iter().map(measure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{
        Origin,
        classification::{self, alike},
        iris, train_anew,
    };

    #[test]
    fn trained_networks_are_ahead_and_the_others_catch_up() {
        let splits = iris::splits(0);
        let classifier = iris::classifier();
        let origin = Origin {
            count: 8,
            seed: 0,
            shared_start: false,
        };
        let zoo = classification::zoo(
            &classifier,
            &splits,
            alike(&splits, iris::RECIPE),
            origin,
            &train_anew,
        )
        .unwrap();
        let task = Task {
            name: "the same".into(),
            training: splits.training,
            test: splits.test,
        };
        let transfer = Transfer::new(&classifier, &task, &zoo.weights, &zoo.weights);
        assert_eq!((transfer.networks, &transfer.zoo), (8, &transfer.generated));
        assert!(
            transfer.zoo[0] > 0.85 && transfer.random[0] < 0.7,
            "{transfer:?}"
        );
        assert!(transfer.random[2] > transfer.random[0], "{transfer:?}");
    }
}
