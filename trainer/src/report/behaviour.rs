//! What networks do, rather than what their weights are: where they err, and what they know
//! together.

use rayon::prelude::*;

use crate::{
    classifier::softmax,
    dataset::{Dataset, predictions},
};

/// What a network does: a classifier on some rows, a policy in some states and episodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// The class of every row, or the kind of action in every state.
    pub predicted: Vec<usize>,
    /// Whether each row is wrong, or each episode a failure.
    pub wrong: Vec<bool>,
}

impl Behaviour {
    /// From logits [rows, classes].
    pub fn of_classifier(logits: &[f32], data: &Dataset) -> Self {
        let predicted: Vec<usize> = predictions(logits, data.count()).collect();
        let pairs = predicted.iter().zip(&data.classes);
        Self {
            wrong: pairs.map(|(predicted, class)| predicted != class).collect(),
            predicted,
        }
    }

    /// Intersection over union of the rows that both get wrong, or the episodes in which both fail; 1
    /// if neither errs.
    pub fn overlap(&self, other: &Self) -> f64 {
        let count = |both: fn(bool, bool) -> bool| {
            let pairs = self.wrong.iter().zip(&other.wrong);
            pairs.filter(|(a, b)| both(**a, **b)).count()
        };
        match count(|a, b| a | b) {
            0 => 1.0,
            union => count(|a, b| a & b) as f64 / union as f64,
        }
    }

    /// Share of the rows that they predict differently, or of the states in which they act
    /// differently.
    pub fn disagreement(&self, other: &Self) -> f64 {
        let pairs = self.predicted.iter().zip(&other.predicted);
        pairs.filter(|(a, b)| a != b).count() as f64 / self.predicted.len() as f64
    }
}

/// For each network the largest overlap of its errors with those of one of `others`; not with its
/// own where they are the same.
pub fn largest_overlaps(networks: &[Behaviour], others: &[Behaviour], same: bool) -> Vec<f64> {
    let largest = |(i, network): (usize, &Behaviour)| {
        let others = others.iter().enumerate().filter(|(j, _)| !same || i != *j);
        others
            .map(|(_, other)| network.overlap(other))
            .fold(0.0, f64::max)
    };
    networks.par_iter().enumerate().map(largest).collect()
}

/// Mean disagreement of two networks of a population.
pub fn mean_disagreement(networks: &[Behaviour]) -> f64 {
    let pairs = |i: usize| (i + 1..networks.len()).map(move |j| (i, j));
    let all: Vec<f64> = (0..networks.len())
        .flat_map(pairs)
        .map(|(i, j)| networks[i].disagreement(&networks[j]))
        .collect();
    all.iter().sum::<f64>() / all.len().max(1) as f64
}

/// Accuracies of ensembles of the first 1, 2, ... networks: the means of their class probabilities
/// decide. `logits` are those of each network.
pub fn ensembles(logits: &[Vec<f32>], data: &Dataset, sizes: &[usize]) -> Vec<f64> {
    let classes = logits[0].len() / data.count();
    let mut sum = vec![0.0; logits[0].len()];
    let mut accuracies = Vec::new();
    for (i, logits) in logits.iter().enumerate() {
        let mut shares = logits.clone();
        shares.chunks_exact_mut(classes).for_each(softmax);
        for (sum, share) in sum.iter_mut().zip(shares) {
            *sum += share;
        }
        if sizes.contains(&(i + 1)) {
            accuracies.push(data.accuracy(&sum));
        }
    }
    accuracies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_ensembles_of_a_small_case() {
        let data = Dataset {
            names: vec!["x".into()],
            features: 1,
            x: vec![0.0; 4],
            classes: vec![0, 0, 1, 1],
        };
        let logits = |predicted: [usize; 4], size: f32| -> Vec<f32> {
            let row = |class: usize| [size * (1.0 - class as f32), size * class as f32];
            predicted.into_iter().flat_map(row).collect()
        };
        let a = Behaviour::of_classifier(&logits([1, 1, 1, 1], 1.0), &data);
        let b = Behaviour::of_classifier(&logits([0, 1, 1, 0], 1.0), &data);
        assert!((a.overlap(&b) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(a.disagreement(&b), 0.5);
        assert_eq!(mean_disagreement(&[a.clone(), b.clone()]), 0.5);
        let own = largest_overlaps(&[a.clone(), b.clone()], &[a, b], true);
        assert!((own[0] - 1.0 / 3.0).abs() < 1e-12);
        // The surer network decides.
        let votes = [logits([1, 1, 1, 1], 1.0), logits([0, 0, 1, 0], 2.0)];
        assert_eq!(ensembles(&votes, &data, &[1, 2]), [0.5, 0.75]);
    }
}
