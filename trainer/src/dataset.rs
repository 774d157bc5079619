//! Labelled rows, to train classifiers on and to measure them.

mod batches;
mod cifar;
mod csv;
mod idx;
mod split;

use std::path::Path;

pub use batches::Batches;
pub use split::Splits;

use crate::{
    classifier::Image,
    error::{Error, Result, invalid},
};

/// Rows of features, each with its class.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Names of the features, one a column.
    pub names: Vec<String>,
    /// Features in a row.
    pub features: usize,
    /// [rows, features] row-major.
    pub x: Vec<f32>,
    /// The class of every row.
    pub classes: Vec<usize>,
}

/// Images as people publish them: a training part and a test part.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// What they are.
    pub image: Image,
    /// Number of classes.
    pub classes: usize,
    /// Pixels from -1 to 1, channel by channel.
    pub training: Dataset,
    /// The same.
    pub test: Dataset,
}

impl Images {
    /// Reads a folder that holds MNIST, Fashion-MNIST or another set in their IDX format
    /// (`train-images-idx3-ubyte` and its three companions, compressed or not), or CIFAR-10 or
    /// CIFAR-100 in their binary version (`data_batch_1.bin` and on with `test_batch.bin`, or
    /// `train.bin` with `test.bin`).
    ///
    /// Errors: IO; INVALID_ARGUMENT naming the file if there is none of these, or it is damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        if let Some(files) = idx::find(folder)? {
            return idx::read(&files);
        }
        if let Some(files) = cifar::find(folder) {
            return cifar::read(&files);
        }
        Err(invalid(format!(
            "'{}' holds no images that can be read: neither train-images-idx3-ubyte (MNIST, \
             Fashion-MNIST; also .gz) nor data_batch_1.bin or train.bin (the binary versions of \
             CIFAR-10 and CIFAR-100)",
            folder.display()
        )))
    }

    fn new(image: Image, training: Dataset, test: Dataset) -> Self {
        Self {
            image,
            classes: training.class_count().max(test.class_count()),
            training,
            test,
        }
    }
}

impl Dataset {
    /// Names of this many pixels.
    pub fn pixel_names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("pixel{i}")).collect()
    }

    /// Images from the bytes of their pixels, scaled to -1 to 1.
    fn from_pixels(image: Image, pixels: &[u8], classes: Vec<usize>) -> Self {
        Self {
            names: Self::pixel_names(image.len()),
            features: image.len(),
            x: pixels.iter().map(|p| f32::from(*p) / 127.5 - 1.0).collect(),
            classes,
        }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.classes.len()
    }

    /// Number of classes: one more than the last that occurs.
    pub fn class_count(&self) -> usize {
        let last = self.classes.iter().max();
        last.map_or(0, |last| last + 1)
    }

    /// Features and class, row by row.
    pub fn rows(&self) -> impl Iterator<Item = (&[f32], usize)> {
        self.x
            .chunks_exact(self.features)
            .zip(self.classes.iter().copied())
    }

    /// Some of the rows, in the order given.
    #[must_use]
    pub fn take(&self, rows: &[usize]) -> Self {
        let row = |row: &usize| &self.x[row * self.features..][..self.features];
        Self {
            names: self.names.clone(),
            features: self.features,
            x: rows.iter().flat_map(row).copied().collect(),
            classes: rows.iter().map(|row| self.classes[*row]).collect(),
        }
    }

    /// These rows and then others of the same features.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        self.x.extend(&others.x);
        self.classes.extend(&others.classes);
        self
    }

    /// All rows in an order in which those that lay together lie far apart, so that every stretch
    /// has something of everything.
    #[must_use]
    pub fn scattered(&self) -> Self {
        let step = (self.count() as f64).sqrt().ceil().max(1.0) as usize;
        let rows: Vec<usize> = (0..step)
            .flat_map(|first| (first..self.count()).step_by(step))
            .collect();
        self.take(&rows)
    }

    /// At most so many of the rows, evenly chosen.
    #[must_use]
    pub fn thinned(&self, most: usize) -> Self {
        let step = self.count().div_ceil(most).max(1);
        self.take(&(0..self.count()).step_by(step).collect::<Vec<_>>())
    }

    /// The rows of these classes, the first of which becomes class 0.
    #[must_use]
    pub fn select(&self, classes: std::ops::RangeInclusive<usize>) -> Self {
        let rows: Vec<usize> = (0..self.count())
            .filter(|row| classes.contains(&self.classes[*row]))
            .collect();
        let mut kept = self.take(&rows);
        kept.classes
            .iter_mut()
            .for_each(|class| *class -= classes.start());
        kept
    }

    /// Whether networks of so many inputs and outputs can be measured on these rows.
    ///
    /// Errors: INVALID_ARGUMENT if the features or classes do not fit.
    pub fn check(&self, inputs: usize, outputs: usize) -> Result<()> {
        let fail = |what: String| -> Result<(), Error> { Err(invalid(what)) };
        if self.features != inputs {
            return fail(format!(
                "the rows have {} features and the networks {inputs} inputs",
                self.features
            ));
        }
        match self.class_count() {
            classes if classes > outputs => fail(format!(
                "the rows have classes 0 to {last}, and class {last} is beyond the networks' {outputs} \
                 outputs",
                last = classes - 1
            )),
            _ => Ok(()),
        }
    }

    /// Fraction of the rows whose class has the largest of their `logits` ([rows, classes]).
    pub fn accuracy(&self, logits: &[f32]) -> f64 {
        let right = predictions(logits, self.count())
            .zip(&self.classes)
            .filter(|(predicted, class)| predicted == *class);
        right.count() as f64 / self.count() as f64
    }

    /// Mean cross-entropy of the softmax of `logits` ([rows, classes]) with the classes, in nats;
    /// infinite where logits are not finite or have no such class.
    pub fn cross_entropy(&self, logits: &[f32]) -> f64 {
        let rows = logits.chunks_exact((logits.len() / self.count()).max(1));
        let losses = rows.zip(&self.classes).map(|(row, class)| {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = row.iter().map(|logit| (logit - largest).exp()).sum();
            let logit = row.get(*class).copied().unwrap_or(f32::NEG_INFINITY);
            f64::from(sum.ln() + largest - logit)
        });
        let mean = losses.sum::<f64>() / self.count() as f64;
        if mean.is_nan() { f64::INFINITY } else { mean }
    }
}

/// The class with the largest logit of every row.
pub fn predictions(logits: &[f32], rows: usize) -> impl Iterator<Item = usize> {
    logits
        .chunks_exact((logits.len() / rows.max(1)).max(1))
        .map(argmax)
}

fn argmax(values: &[f32]) -> usize {
    (0..values.len())
        .max_by(|a, b| values[*a].total_cmp(&values[*b]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cross_entropy_is_that_of_the_softmax() {
        let data = Dataset::parse("x,class\n0,0\n0,1\n").unwrap();
        // Shares of 1/4 and 3/4, and of 1/2 each, of logits too large for their exponentials.
        let three = 3f32.ln();
        let found = data.cross_entropy(&[0.0, three, 1000.0, 1000.0]);
        let expected = 0.5 * (4f64.ln() + 2f64.ln());
        // f32 rounding of logits of a thousand.
        assert!((found - expected).abs() < 1e-4, "{found} and {expected}");
        for broken in [f32::INFINITY, f32::NAN] {
            let found = data.cross_entropy(&[0.0, broken, 0.0, 0.0]);
            assert_eq!(found, f64::INFINITY);
        }
        assert_eq!(data.cross_entropy(&[0.0, 0.0]), f64::INFINITY);
    }
}
