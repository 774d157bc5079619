//! Zoos of classifiers.

use prost::Message;
use rayon::prelude::*;

use super::{Made, Origin};
use crate::{
    classifier::{Classifier, Recipe},
    dataset::{Dataset, Splits},
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

/// Random streams beyond those of the networks.
pub(super) const SPLIT_STREAM: u64 = u64::MAX;
const START_STREAM: u64 = u64::MAX - 1;

/// Trains `origin.count` classifiers on the training part, each from its own initialisation unless
/// it is shared, and with its own order of the rows; `done` is called after each, from any thread.
pub fn zoo(
    classifier: &Classifier,
    splits: &Splits,
    recipe: &Recipe,
    origin: Origin,
    done: &(dyn Fn() + Sync),
) -> Made {
    let train = |network: u64| {
        let mut random = Random::new(origin.seed, network);
        let mut weights = classifier.initialise(&mut random);
        if origin.shared_start {
            weights = classifier.initialise(&mut Random::new(origin.seed, START_STREAM));
        }
        classifier.train(&mut weights, &splits.training, recipe, &mut random);
        done();
        weights
    };
    let networks = (0..origin.count as u64).into_par_iter();
    let csv = |data: &Dataset| data.to_csv().into_bytes();
    let mut files = vec![
        (file::TRAINING, csv(&splits.training)),
        (file::VALIDATION, csv(&splits.validation)),
        (file::TEST, csv(&splits.test)),
    ];
    if !classifier.is_chain() {
        files.push((file::NETWORK, classifier.model().encode_to_vec()));
    }
    Made {
        layout: classifier.layout().clone(),
        weights: networks.flat_map_iter(train).collect(),
        files,
    }
}

/// The accuracies of a zoo's networks on `data`.
pub fn accuracies(classifier: &Classifier, made: &Made, data: &Dataset) -> Vec<f64> {
    let networks: Vec<&[f32]> = made.networks().collect();
    let accuracy = |weights: &&[f32]| data.accuracy(&classifier.predict(weights, &data.x));
    networks.par_iter().map(accuracy).collect()
}
