//! A task to try everything on: Fisher's Iris data.

use super::classification::SPLIT_STREAM;
use crate::{
    classifier::{Architecture, Classifier, Image, Recipe},
    dataset::{Dataset, Splits},
    random::Random,
};

/// How its networks are trained.
pub const RECIPE: Recipe = Recipe {
    epochs: 200,
    batch: 16,
    learning_rate: 0.01,
    weight_decay: 0.2,
    input_noise: 0.2,
    weight_noise: 0.6,
    label_smoothing: 0.0,
};

const NAMES: [&str; 4] = ["sepal_length", "sepal_width", "petal_length", "petal_width"];
/// Parts of the flowers for validation and for test: 6 and 17 of the 50 of a class.
const VALIDATION: f64 = 0.12;
const TEST: f64 = 0.34;

/// MLPs 4-16-3: 131 weights.
pub fn classifier() -> Classifier {
    let flower = Image {
        channels: 1,
        height: 1,
        width: NAMES.len(),
    };
    Architecture::Mlp(&[16]).build(flower, 3)
}

/// The flowers, standardised by the training part alone.
pub fn splits(seed: u64) -> Splits {
    let mut all = Dataset::parse(include_str!("../../data/iris.csv")).expect("it is checked in");
    all.names = NAMES.map(str::to_owned).into();
    let mut random = Random::new(seed, SPLIT_STREAM);
    let mut splits = all.split([VALIDATION, TEST], &mut random);
    splits.standardise();
    splits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_stratified_and_standardised() {
        let Splits {
            training,
            validation,
            test,
        } = splits(3);
        for class in 0..3 {
            let count = |data: &Dataset| data.classes.iter().filter(|c| **c == class).count();
            assert_eq!([&training, &validation, &test].map(count), [27, 6, 17]);
        }
        let values = || training.x.iter().skip(2).step_by(4);
        let mean = values().sum::<f32>() / 81.0;
        let square = values().map(|x| x * x).sum::<f32>() / 81.0;
        // f32 rounding of a hundred values of size one.
        assert!(mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-5);
    }
}
