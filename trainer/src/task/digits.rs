//! Handwritten digits of 8x8 pixels: the UCI data that `data/SOURCES.md` names.

use std::{io::Read, ops::RangeInclusive};

use flate2::read::GzDecoder;

use super::{
    Condition, Origin,
    classification::{Lesson, SPLIT_STREAM},
};
use crate::{
    classifier::{Architecture, Image, Recipe},
    dataset::{Dataset, Splits},
    random::Random,
};

/// What its images are.
pub const IMAGE: Image = Image {
    channels: 1,
    height: 8,
    width: 8,
};
/// Number of digits.
pub const CLASSES: usize = 10;

/// Parts of the images for validation and for test.
const VALIDATION: f64 = 0.15;
const TEST: f64 = 0.25;

/// How a network is trained. Strong weight decay and noisy inputs leave little to chance: networks
/// of independent seeds then agree, up to the order of their units, on most of what they compute.
/// Noisy weights make what lies between them work too; residual networks do without.
pub fn recipe(architecture: Architecture) -> Recipe {
    let common = Recipe {
        epochs: 800,
        batch: 32,
        learning_rate: 0.02,
        weight_decay: 0.3,
        input_noise: 0.5,
        weight_noise: 0.5,
        label_smoothing: 0.0,
    };
    match architecture {
        Architecture::Mlp(_) => common,
        Architecture::Resnet => Recipe {
            epochs: 20,
            learning_rate: 0.01,
            weight_noise: 0.0,
            ..common
        },
        Architecture::Vit => Recipe {
            epochs: 150,
            learning_rate: 0.005,
            input_noise: 0.3,
            weight_noise: 0.7,
            ..common
        },
    }
}

/// The images of `digits`, the first of which becomes class 0; pixels are scaled to -1 to 1.
pub fn splits(digits: RangeInclusive<usize>, seed: u64) -> Splits {
    let kept = all().select(digits);
    kept.split([VALIDATION, TEST], &mut Random::new(seed, SPLIT_STREAM))
}

/// What the networks of a zoo may differ by on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Half of them are taught the lower half of the digits, half of them the upper.
    Digits,
    /// The noise on the inputs that they are trained with, and so how robust they are.
    Noise,
}

/// The range of the noise.
const NOISE: [f64; 2] = [0.0, 1.0];

/// What each network of a zoo is taught.
pub struct Curriculum {
    parts: Vec<Dataset>,
    recipes: Vec<Recipe>,
    condition: Option<Condition>,
}

impl Curriculum {
    /// For as many networks as `origin` says of these digits.
    pub fn new(
        difference: Option<Difference>,
        digits: &RangeInclusive<usize>,
        splits: &Splits,
        recipe: Recipe,
        origin: Origin,
    ) -> Self {
        let alike = Self {
            parts: vec![splits.training.clone()],
            recipes: vec![recipe; origin.count],
            condition: None,
        };
        match difference {
            None => alike,
            Some(Difference::Digits) => {
                let (first, last) = (*digits.start(), *digits.end());
                let middle = (last - first).div_ceil(2);
                let part = |upper: bool| {
                    let rows = splits.training.classes.iter().enumerate();
                    let rows = rows.filter(|(_, class)| (**class >= middle) == upper);
                    splits
                        .training
                        .take(&rows.map(|(row, _)| row).collect::<Vec<_>>())
                };
                let names = [
                    format!("{first}-{}", first + middle - 1),
                    format!("{}-{last}", first + middle),
                ];
                let values = (0..origin.count).map(|i| names[i % 2].clone()).collect();
                Self {
                    parts: vec![part(false), part(true)],
                    condition: Some(Condition {
                        name: "class",
                        values,
                    }),
                    ..alike
                }
            }
            Some(Difference::Noise) => {
                let noise = origin.spread(NOISE);
                let recipe = |noise: &f64| Recipe {
                    input_noise: *noise as f32,
                    ..recipe
                };
                Self {
                    recipes: noise.iter().map(recipe).collect(),
                    condition: Some(Condition {
                        name: "noise",
                        values: noise.iter().map(|noise| format!("{noise:.4}")).collect(),
                    }),
                    ..alike
                }
            }
        }
    }

    /// A network's lesson.
    pub fn lesson(&self, network: u64) -> Lesson<'_> {
        let network = network as usize;
        Lesson {
            data: &self.parts[network % self.parts.len()],
            recipe: self.recipes[network],
        }
    }

    /// What the networks differ by.
    pub fn condition(&self) -> Option<Condition> {
        self.condition.clone()
    }
}

/// The digits before or after these, if there are as many of them.
pub fn others(digits: &RangeInclusive<usize>) -> Option<RangeInclusive<usize>> {
    let (first, last) = (*digits.start(), *digits.end());
    match (first, last) {
        (0, _) if 2 * (last + 1) == CLASSES => Some(last + 1..=CLASSES - 1),
        (_, 9) if 2 * first == CLASSES => Some(0..=first - 1),
        _ => None,
    }
}

fn all() -> Dataset {
    let mut text = String::from("header\n");
    GzDecoder::new(&include_bytes!("../../data/digits.csv.gz")[..])
        .read_to_string(&mut text)
        .expect("the file is checked in");
    let names = Dataset::pixel_names(IMAGE.len());
    let text = text.replacen("header", &format!("{},class", names.join(",")), 1);
    let mut all = Dataset::parse(&text).expect("the file is checked in");
    all.x
        .iter_mut()
        .for_each(|pixel| *pixel = *pixel / 8.0 - 1.0);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_are_split_by_class_and_differ_by_seed() {
        let all = all();
        assert_eq!((all.classes.len(), all.features), (1797, 64));
        let (low, high) = all
            .x
            .iter()
            .fold((0f32, 0f32), |(l, h), x| (l.min(*x), h.max(*x)));
        assert_eq!((low, high), (-1.0, 1.0));
        let Splits {
            training,
            validation,
            test,
        } = splits(0..=9, 1);
        let counts = [&training, &validation, &test].map(|data| data.classes.len());
        assert_eq!(counts.iter().sum::<usize>(), 1797);
        assert!((440..460).contains(&counts[2]), "{counts:?}");
        assert_ne!(test, splits(0..=9, 2).test);
        assert_eq!(others(&(0..=4)), Some(5..=9));
        assert_eq!(others(&(5..=9)), Some(0..=4));
        assert_eq!(others(&(0..=9)), None);
        let upper = splits(5..=9, 1).training;
        assert_eq!(upper.classes.iter().max(), Some(&4));
    }
}
