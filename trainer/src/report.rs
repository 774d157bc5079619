//! The report: how generated networks compare with the zoo.

use std::{collections::BTreeMap, fmt::Write};

use rayon::prelude::*;

use crate::{dataset::Dataset, flow::HeldOutLoss, mlp::Mlp};

/// Names of the figures in `dwf.quality`.
pub mod key {
    /// Mean accuracy of the zoo's networks on the data.
    pub const ZOO_ACCURACY: &str = "zoo.accuracy";
    /// Mean accuracy of the generated networks on the data.
    pub const GENERATED_ACCURACY: &str = "generated.accuracy";
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

/// Figures of `generated` networks against an aligned `zoo`, both [count, size] row-major and at
/// least two; accuracies if there are `data` to measure them on.
pub fn measure(
    mlp: &Mlp,
    zoo: &[f32],
    generated: &[f32],
    size: usize,
    data: Option<&Dataset>,
) -> BTreeMap<String, f64> {
    let own = nearest(zoo, zoo, size, true);
    let new = nearest(generated, zoo, size, false);
    let mut figures = vec![
        (key::ZOO_DISTANCE, median(own)),
        (
            key::GENERATED_DISTANCE_MIN,
            new.iter().copied().fold(f64::INFINITY, f64::min),
        ),
        (key::GENERATED_DISTANCE, median(new)),
        (key::STD_RATIO, std_ratio(zoo, generated, size)),
    ];
    if let Some(data) = data {
        figures.push((key::ZOO_ACCURACY, accuracy(mlp, zoo, size, data)));
        figures.push((
            key::GENERATED_ACCURACY,
            accuracy(mlp, generated, size, data),
        ));
    }
    figures
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
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

/// Every network's distance to the nearest of `others`, not counting itself.
pub fn nearest(networks: &[f32], others: &[f32], size: usize, same: bool) -> Vec<f64> {
    let distance = |(i, network): (usize, &[f32])| {
        let others = others.chunks_exact(size).enumerate();
        others
            .filter(|(j, _)| !same || i != *j)
            .map(|(_, other)| distance(network, other))
            .fold(f64::INFINITY, f64::min)
    };
    networks
        .par_chunks_exact(size)
        .enumerate()
        .map(distance)
        .collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(a - b).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// Median over the weights that vary in the zoo.
pub fn std_ratio(zoo: &[f32], generated: &[f32], size: usize) -> f64 {
    let ratio = |i: usize| {
        let zoo = std(zoo, size, i);
        (zoo > 0.0).then(|| std(generated, size, i) / zoo)
    };
    median((0..size).into_par_iter().filter_map(ratio).collect())
}

fn std(networks: &[f32], size: usize, i: usize) -> f64 {
    let values = networks
        .chunks_exact(size)
        .map(|network| f64::from(network[i]));
    let count = values.len() as f64;
    let mean = values.clone().sum::<f64>() / count;
    (values.map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

pub fn accuracy(mlp: &Mlp, networks: &[f32], size: usize, data: &Dataset) -> f64 {
    let networks = networks.par_chunks_exact(size);
    let accuracies: Vec<f64> = networks
        .map(|network| {
            let logits: Vec<f32> = data
                .rows()
                .flat_map(|(x, _)| mlp.forward(network, x))
                .collect();
            data.accuracy(&logits)
        })
        .collect();
    accuracies.iter().sum::<f64>() / accuracies.len() as f64
}

/// The middle value, or the mean of the middle two; 0 of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => 0.0,
        (n, half) if n % 2 == 1 => values[half],
        (_, half) => (values[half - 1] + values[half]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Signature;
    use dwf::layout::DType;

    #[test]
    fn figures_are_those_of_a_small_case() {
        let tensor = |name: &str, shape: &[usize]| Signature {
            name: name.into(),
            shape: shape.into(),
            dtype: DType::F32,
        };
        let (mlp, _) = Mlp::find(&[tensor("a.weight", &[2, 1]), tensor("a.bias", &[2])]).unwrap();
        // Weights [w0, w1] and biases [0, 0]; class 1 wins for positive x if w1 > w0.
        let zoo = [0., 1., 0., 0., 0., 3., 0., 0., 0., 7., 0., 0.];
        let generated = [0., 2., 0., 0., 0., -2., 0., 0.];
        let data = Dataset {
            names: vec!["x".into()],
            features: 1,
            x: vec![1.0, 2.0],
            classes: vec![1, 1],
        };
        let figures = measure(&mlp, &zoo, &generated, 4, Some(&data));
        assert_eq!(figures[key::ZOO_ACCURACY], 1.0);
        assert_eq!(figures[key::GENERATED_ACCURACY], 0.5);
        // Neighbours in the zoo are 2, 2 and 4 away; generated ones 1 and 3.
        assert_eq!(figures[key::ZOO_DISTANCE], 2.0);
        assert_eq!(figures[key::GENERATED_DISTANCE_MIN], 1.0);
        assert_eq!(figures[key::GENERATED_DISTANCE], 2.0);
        // One weight varies: stds 2 and sqrt(56 / 9).
        assert!((figures[key::STD_RATIO] - 2.0 / (56f64 / 9.0).sqrt()).abs() < 1e-12);
    }
}
