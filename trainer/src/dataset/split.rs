//! Rows to train on, to choose by, and to report on.

use super::Dataset;
use crate::random::Random;

/// Three parts of a dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Splits {
    /// To train on.
    pub training: Dataset,
    /// To choose settings by.
    pub validation: Dataset,
    /// To report on: nothing is trained on it or chosen by it.
    pub test: Dataset,
}

impl Dataset {
    /// Splits at random into validation and test parts of these fractions, class by class, and the
    /// rest to train on.
    pub fn split(&self, [validation, test]: [f64; 2], random: &mut Random) -> Splits {
        let mut parts: [Vec<usize>; 3] = Default::default();
        for class in 0..=self.classes.iter().copied().max().unwrap_or(0) {
            let mut rows: Vec<usize> = (0..self.count())
                .filter(|row| self.classes[*row] == class)
                .collect();
            random.shuffle(&mut rows);
            let [test, validation] =
                [test, validation].map(|part| (part * rows.len() as f64).round() as usize);
            parts[2].extend(rows.drain(..test));
            parts[1].extend(rows.drain(..validation));
            parts[0].extend(rows);
        }
        let [training, validation, test] = parts.map(|rows| self.take(&rows));
        Splits {
            training,
            validation,
            test,
        }
    }
}

impl Splits {
    /// Scales every feature to mean 0 and standard deviation 1 in the training part.
    pub fn standardise(&mut self) {
        for feature in 0..self.training.features {
            let [mean, std] = moments(&self.training, feature);
            for data in [&mut self.training, &mut self.validation, &mut self.test] {
                for x in data.x.iter_mut().skip(feature).step_by(data.features) {
                    *x = (*x - mean) / std;
                }
            }
        }
    }
}

/// Mean and standard deviation; the latter is 1 where a feature does not vary.
fn moments(data: &Dataset, feature: usize) -> [f32; 2] {
    let values = || data.x.iter().skip(feature).step_by(data.features);
    let count = data.count() as f64;
    let mean = values().map(|x| f64::from(*x)).sum::<f64>() / count;
    let variance = values()
        .map(|x| (f64::from(*x) - mean).powi(2))
        .sum::<f64>()
        / count;
    let std = if variance > 0.0 { variance.sqrt() } else { 1.0 };
    [mean as f32, std as f32]
}
