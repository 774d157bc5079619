//! Zoos of classifiers.

use prost::Message;
use rayon::prelude::*;

use super::{Keep, Made, Origin};
use crate::{
    classifier::{Classifier, Recipe},
    dataset::{Dataset, Splits},
    error::Result,
    random::Random,
};

/// Files of a classifiers' zoo beside its networks.
pub mod file {
    /// Rows that its networks were trained on.
    pub const TRAINING: &str = "train.csv";
    /// Rows to choose by: no network was trained on them.
    pub const VALIDATION: &str = "validation.csv";
    /// Rows to report on: nothing was trained on them or chosen by them.
    pub const TEST: &str = "held-out.csv";
    /// Rows of another task, to fine-tune on.
    pub const TRANSFER_TRAINING: &str = "transfer-train.csv";
    /// Rows of another task, to measure on.
    pub const TRANSFER_TEST: &str = "transfer-test.csv";
    /// The network as an ONNX graph without weights; a plain MLP needs none.
    pub const NETWORK: &str = "network.onnx";
}

/// Random stream of the split, beyond those of the networks.
pub(super) const SPLIT_STREAM: u64 = u64::MAX;

/// What a network is taught.
#[derive(Clone, Copy, Debug)]
pub struct Lesson<'a> {
    /// Its rows.
    pub data: &'a Dataset,
    /// How.
    pub recipe: Recipe,
}

/// The same lesson for every network.
pub fn alike<'a>(splits: &'a Splits, recipe: Recipe) -> impl Fn(u64) -> Lesson<'a> + Sync {
    move |_| Lesson {
        data: &splits.training,
        recipe,
    }
}

/// Trains `origin.count` classifiers, each by its lesson, from its own initialisation unless it is
/// shared, and with its own order of the rows. `splits` lie beside them.
///
/// Errors: those of `keep`.
pub fn zoo<'a>(
    classifier: &Classifier,
    splits: &Splits,
    lesson: impl Fn(u64) -> Lesson<'a> + Sync,
    origin: Origin,
    keep: &Keep<'_>,
) -> Result<Made> {
    let train = |network: u64| {
        let mut random = Random::new(origin.seed, network);
        let mut weights = origin.start(&mut random, |random| classifier.initialise(random));
        let Lesson { data, recipe } = lesson(network);
        classifier.train(&mut weights, data, &recipe, &mut random);
        weights
    };
    let csv = |data: &Dataset| data.to_csv().into_bytes();
    let mut files = vec![
        (file::TRAINING, csv(&splits.training)),
        (file::VALIDATION, csv(&splits.validation)),
        (file::TEST, csv(&splits.test)),
    ];
    if !classifier.is_chain() {
        files.push((file::NETWORK, classifier.model().encode_to_vec()));
    }
    Ok(Made {
        layout: classifier.layout().clone(),
        weights: origin.networks(keep, train)?,
        condition: None,
        files,
    })
}

/// The accuracies of a zoo's networks on `data`.
pub fn accuracies(classifier: &Classifier, made: &Made, data: &Dataset) -> Vec<f64> {
    let networks: Vec<&[f32]> = made.networks().collect();
    let accuracy = |weights: &&[f32]| data.accuracy(&classifier.predict(weights, &data.x));
    networks.par_iter().map(accuracy).collect()
}
