//! Points on the paths that a flow learns: from noise to networks, at some time between.
//!
//! A zoo has fewer networks than a network has weights, and a flow trained on the bare points
//! learns to return them. So the end points are mixed: x_1 = r (cos(a) p + sin(a) q) for a latent p
//! of the zoo, a random angle a, and q another latent or a mixture of several whose weights have
//! unit norm. In whitened coordinates and at r = 1 such mixtures keep the zoo's mean and covariance,
//! and turn its N points into arcs between all of them. Only networks of one class are mixed;
//! continuous conditions, being the zoo's coordinates too, are mixed about their mean as the latents
//! are.

use dwf::metadata::Source;
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    assignment,
    condition::Conditions,
    mixing::{Mixing, Mixture},
    random::Random,
    velocity::Points,
};

/// Numbers in rows that are worth a thread.
const ROW_NUMBERS: usize = 1 << 15;

/// How the times of training are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeDistribution {
    /// Uniform.
    Uniform,
    /// The logistic function of a standard normal: more in the middle (Esser et al., ICML 2024,
    /// arXiv 2403.03206).
    LogitNormal,
    /// Beta(2, 5): more near the noise; an option of the reference code.
    Beta,
}

impl TimeDistribution {
    fn draw(self, random: &mut Random) -> f32 {
        match self {
            Self::Uniform => random.uniform(),
            Self::LogitNormal => {
                let mut normal = [0.0; 2];
                random.fill_normal(&mut normal);
                1.0 / (1.0 + (-normal[0]).exp())
            }
            Self::Beta => {
                // The second smallest of six uniform numbers has this distribution.
                let mut draws = [0.0; 6].map(|_: f32| random.uniform());
                draws.sort_by(f32::total_cmp);
                draws[1]
            }
        }
    }
}

/// Which noise goes to which network of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coupling {
    /// Any to any.
    Independent,
    /// The pairs of least total squared distance in the batch, so that paths cross less (Tong et
    /// al., TMLR 2024, arXiv 2302.00482).
    Ot,
}

/// The latents of a zoo's networks, and what is known of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Latents {
    /// Length of one.
    pub size: usize,
    /// [count, size] row-major.
    pub values: Vec<f32>,
    /// Of every network, if any.
    pub conditions: Option<Conditions>,
}

impl Latents {
    /// Number of networks.
    pub fn count(&self) -> usize {
        self.values.len() / self.size
    }

    /// One network's.
    pub fn row(&self, network: usize) -> &[f32] {
        &self.values[network * self.size..][..self.size]
    }

    /// Length of a condition; 0 without.
    pub fn condition_size(&self) -> usize {
        self.conditions.as_ref().map_or(0, Conditions::size)
    }

    /// Every network's class, if conditions are classes.
    fn classes(&self) -> Option<Vec<usize>> {
        self.conditions.as_ref().and_then(Conditions::classes)
    }
}

/// Both ends of trajectories, for a flow that is to follow them in straight lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Noise, [count, size] row-major.
    pub noise: Vec<f32>,
    /// Where it goes.
    pub ends: Vec<f32>,
    /// [count, condition]
    pub conditions: Vec<f32>,
}

/// What a flow is trained on.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Mixtures of a zoo's networks; at least two of them.
    Zoo(&'a Latents),
    /// Some mixtures of a zoo's networks.
    Selection(&'a Latents, &'a [Mixture]),
    /// Trajectories of another flow over as many latents.
    Pairs(&'a Pairs),
}

/// How batches are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PathOptions {
    /// Points at a time.
    pub batch: usize,
    /// The times.
    pub time: TimeDistribution,
    /// The pairs.
    pub coupling: Coupling,
    /// The noise.
    pub source: Source,
    /// The end points.
    pub mixing: Mixing,
    /// How often a condition is left out, so that the flow also learns to do without.
    pub condition_dropout: f32,
}

/// Points on paths and the velocities there.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Where and when.
    pub points: Points,
    /// [batch, size]
    pub velocity: Vec<f32>,
}

impl Batch {
    /// A random batch for training.
    pub fn draw(
        target: Target<'_>,
        size: usize,
        options: &PathOptions,
        random: &mut Random,
    ) -> Self {
        let Ends {
            mut noise,
            ends,
            conditions,
        } = match target {
            Target::Zoo(latents) => any(latents, options, random),
            Target::Selection(latents, selection) => {
                let draw = |_: Option<&[usize]>, random: &mut Random| {
                    selection[random.index(selection.len())].clone()
                };
                mixtures(latents, options, draw, random)
            }
            Target::Pairs(pairs) => pairs.draw(size, options.batch, random),
        };
        if options.coupling == Coupling::Ot && !matches!(target, Target::Pairs(_)) {
            noise = couple(&noise, &ends, size);
        }
        let t = (0..options.batch)
            .map(|_| options.time.draw(random))
            .collect();
        Self::between(noise, ends, t, conditions)
    }

    /// Every latent as it is, `draws` times, at uniform times.
    pub fn check(latents: &Latents, draws: usize, source: Source, random: &mut Random) -> Self {
        let ends = latents.values.repeat(draws);
        let conditions = match &latents.conditions {
            Some(conditions) => conditions.rows.repeat(draws),
            None => Vec::new(),
        };
        let t = (0..ends.len() / latents.size)
            .map(|_| random.uniform())
            .collect();
        let noise = random.noise(ends.len(), source);
        Self::between(noise, ends, t, conditions)
    }

    /// Straight lines from `noise` to `ends` at times `t`.
    fn between(noise: Vec<f32>, ends: Vec<f32>, t: Vec<f32>, condition: Vec<f32>) -> Self {
        let size = ends.len() / t.len();
        let (mut x, mut velocity) = (noise, ends);
        let rows = (x.par_chunks_exact_mut(size)).zip(velocity.par_chunks_exact_mut(size));
        let rows = rows.zip(&t).with_min_len(ROW_NUMBERS.div_ceil(size));
        rows.for_each(|((x, velocity), t)| {
            for (x, velocity) in x.iter_mut().zip(velocity) {
                *velocity -= *x;
                *x += t * *velocity;
            }
        });
        Self {
            points: Points { x, t, condition },
            velocity,
        }
    }
}

impl Latents {
    /// `count` mixtures.
    pub fn mixtures(&self, count: usize, mixing: Mixing, random: &mut Random) -> Vec<Mixture> {
        let classes = self.classes();
        let one = |_| mixing.draw(self.count(), classes.as_deref(), random);
        (0..count).map(one).collect()
    }

    /// The latents of mixtures, [count, size] row-major.
    pub fn mix(&self, sums: &[Mixture]) -> Vec<f32> {
        let mut values = vec![0.0; sums.len() * self.size];
        let rows = values.par_chunks_exact_mut(self.size).zip(sums);
        let rows = rows.with_min_len(ROW_NUMBERS.div_ceil(self.size));
        rows.for_each(|(sum, parts)| add_weighted(parts, |network| self.row(network), sum));
        values
    }
}

/// Adds up rows.
fn add_weighted<'a>(parts: &[(usize, f32)], row: impl Fn(usize) -> &'a [f32], sum: &mut [f32]) {
    for (network, weight) in parts {
        let pairs = sum.iter_mut().zip(row(*network));
        pairs.for_each(|(sum, value)| *sum += weight * value);
    }
}

/// Both ends of a batch's paths, and the conditions.
struct Ends {
    noise: Vec<f32>,
    ends: Vec<f32>,
    conditions: Vec<f32>,
}

/// A batch of any mixtures.
fn any(latents: &Latents, options: &PathOptions, random: &mut Random) -> Ends {
    let draw = |classes: Option<&[usize]>, random: &mut Random| {
        options.mixing.draw(latents.count(), classes, random)
    };
    mixtures(latents, options, draw, random)
}

/// A batch of mixtures as `draw` draws them, which is told the networks' classes.
fn mixtures(
    latents: &Latents,
    options: &PathOptions,
    draw: impl Fn(Option<&[usize]>, &mut Random) -> Mixture,
    random: &mut Random,
) -> Ends {
    let classes = latents.classes();
    let means = latents.conditions.as_ref().map(Conditions::mean);
    let mut sums = Vec::with_capacity(options.batch);
    let mut conditions = Vec::new();
    for _ in 0..options.batch {
        sums.push(draw(classes.as_deref(), random));
        let parts = &sums[sums.len() - 1];
        let Some((known, means)) = latents.conditions.as_ref().zip(means.as_ref()) else {
            continue;
        };
        if random.uniform() < options.condition_dropout {
            conditions.extend(known.none());
        } else if classes.is_some() {
            conditions.extend(known.row(parts[0].0));
        } else {
            let total: f32 = parts.iter().map(|(_, weight)| weight).sum();
            let mut mixed = vec![0.0; known.size()];
            add_weighted(parts, |network| known.row(network), &mut mixed);
            let about = |(value, mean): (f32, &f32)| value + (1.0 - total) * mean;
            conditions.extend(mixed.into_iter().zip(means).map(about));
        }
    }
    Ends {
        noise: random.noise(options.batch * latents.size, options.source),
        ends: latents.mix(&sums),
        conditions,
    }
}

impl Pairs {
    fn draw(&self, size: usize, batch: usize, random: &mut Random) -> Ends {
        let count = self.ends.len() / size;
        let columns = self.conditions.len() / count;
        let chosen: Vec<usize> = (0..batch).map(|_| random.index(count)).collect();
        let take = |values: &[f32], size: usize| {
            let rows = chosen.iter().flat_map(|i| &values[i * size..][..size]);
            rows.copied().collect()
        };
        Ends {
            noise: take(&self.noise, size),
            ends: take(&self.ends, size),
            conditions: take(&self.conditions, columns),
        }
    }
}

/// The rows of `noise` in the order that brings them nearest to the rows of `ends`.
fn couple(noise: &[f32], ends: &[f32], size: usize) -> Vec<f32> {
    let count = ends.len() / size;
    let costs: Vec<f32> = ends
        .par_chunks_exact(size)
        .with_min_len(ROW_NUMBERS.div_ceil(noise.len()))
        .flat_map_iter(|end| {
            // Squared distances, less what every permutation has in common.
            noise
                .chunks_exact(size)
                .map(move |noise| -crate::mlp::dot(end, noise))
        })
        .collect();
    let order = assignment::solve(&costs, count);
    order
        .into_iter()
        .flat_map(|i| noise[i * size..][..size].iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of the distribution, by definition or by numerical integration.
    #[test]
    fn times_have_their_distribution() {
        let expected = [
            (TimeDistribution::Uniform, 0.5, 1.0 / 12.0),
            (TimeDistribution::LogitNormal, 0.5, 0.0434),
            (TimeDistribution::Beta, 2.0 / 7.0, 10.0 / (49.0 * 8.0)),
        ];
        for (distribution, mean, variance) in expected {
            let mut random = Random::new(1, 0);
            let draws: Vec<f64> = (0..20_000)
                .map(|_| f64::from(distribution.draw(&mut random)))
                .collect();
            let found = draws.iter().sum::<f64>() / 20_000.0;
            let spread = draws.iter().map(|t| (t - found).powi(2)).sum::<f64>() / 20_000.0;
            // Five standard errors of 20,000 draws.
            assert!(
                (found - mean).abs() < 5.0 * (variance / 2e4f64).sqrt(),
                "{found}"
            );
            assert!(
                (spread - variance).abs() < 0.05 * variance,
                "{distribution:?} {spread}"
            );
            assert!(draws.iter().all(|t| (0.0..=1.0).contains(t)));
        }
    }

    #[test]
    fn coupling_shortens_the_paths_and_keeps_the_noise() {
        let mut random = Random::new(2, 0);
        let (noise, ends) = (random.normal(2 * 50, 1.0), random.normal(2 * 50, 1.0));
        let coupled = couple(&noise, &ends, 2);
        let length =
            |noise: &[f32]| -> f32 { noise.iter().zip(&ends).map(|(a, b)| (a - b).powi(2)).sum() };
        // Two dimensions leave a pair little to travel: a few per cent of the squared distance.
        assert!(length(&coupled) < 0.5 * length(&noise));
        let sorted = |mut values: Vec<f32>| {
            values.sort_by(f32::total_cmp);
            values
        };
        assert_eq!(sorted(coupled), sorted(noise));
    }

    #[test]
    fn conditions_are_mixed_as_the_latents_are() {
        // The only coordinate is the condition, less what makes its mean zero.
        let files: Vec<String> = (0..5).map(|i| format!("{i}")).collect();
        let values = [0.0f32, 1.0, 2.0, 3.0, 10.0];
        let mut text = String::from("file,speed\n");
        (0..5).for_each(|i| text += &format!("{i},{}\n", values[i]));
        let conditions = Conditions::parse(&text, &files).unwrap();
        let mean = conditions.mean()[0];
        let latents = Latents {
            size: 1,
            values: conditions.rows.iter().map(|row| row - mean).collect(),
            conditions: Some(conditions),
        };
        let options = PathOptions {
            batch: 50,
            time: TimeDistribution::Uniform,
            coupling: Coupling::Independent,
            source: Source::STANDARD,
            mixing: Mixing {
                networks: 4,
                radius: 0.8,
                ..Mixing::PAIRS
            },
            condition_dropout: 0.0,
        };
        let drawn = any(&latents, &options, &mut Random::new(4, 0));
        for (end, condition) in drawn.ends.iter().zip(&drawn.conditions) {
            // A few roundings of numbers of size one.
            assert!((end + mean - condition).abs() < 1e-5, "{end} {condition}");
        }
    }

    #[test]
    fn only_networks_of_a_class_are_mixed() {
        // Class 0 lives on the first axis, class 1 on the second.
        let files: Vec<String> = (0..4).map(|i| format!("{i}")).collect();
        let text = "file,class\n0,a\n1,b\n2,a\n3,b\n";
        let latents = Latents {
            size: 2,
            values: vec![1., 0., 0., 1., 2., 0., 0., 2.],
            conditions: Some(Conditions::parse(text, &files).unwrap()),
        };
        let options = PathOptions {
            batch: 200,
            time: TimeDistribution::Uniform,
            coupling: Coupling::Independent,
            source: Source::STANDARD,
            mixing: Mixing {
                networks: 3,
                ..Mixing::PAIRS
            },
            condition_dropout: 0.25,
        };
        let Ends {
            ends, conditions, ..
        } = any(&latents, &options, &mut Random::new(3, 0));
        let mut dropped = 0;
        for (end, condition) in ends.chunks_exact(2).zip(conditions.chunks_exact(2)) {
            assert!((end[0] == 0.0) != (end[1] == 0.0));
            match condition {
                [0.0, 0.0] => dropped += 1,
                condition => assert_eq!(condition[0] == 1.0, end[0] != 0.0),
            }
        }
        // A quarter of 200, give or take four standard deviations.
        assert!((26..=74).contains(&dropped), "{dropped}");
    }

    #[test]
    fn only_selected_mixtures_are_learned() {
        let latents = Latents {
            size: 2,
            values: vec![1., 0., 0., 1., 4., 4.],
            conditions: None,
        };
        let selection = [vec![(0, 0.5), (1, 0.5)], vec![(1, 2.0)]];
        let options = PathOptions {
            batch: 100,
            time: TimeDistribution::Uniform,
            coupling: Coupling::Independent,
            source: Source::STANDARD,
            mixing: Mixing::PAIRS,
            condition_dropout: 0.0,
        };
        let target = Target::Selection(&latents, &selection);
        let batch = Batch::draw(target, 2, &options, &mut Random::new(5, 0));
        let rows = batch.points.x.chunks_exact(2).zip(&batch.points.t);
        let rows = rows.zip(batch.velocity.chunks_exact(2));
        let mut first = 0;
        for ((x, t), velocity) in rows {
            let end = [0, 1].map(|i| x[i] + (1.0 - t) * velocity[i]);
            // f32 rounding of numbers of size four.
            let is = |place: [f32; 2]| (0..2).all(|i| (end[i] - place[i]).abs() < 1e-5);
            first += usize::from(is([0.5, 0.5]));
            assert!(is([0.5, 0.5]) || is([0.0, 2.0]), "{end:?}");
        }
        // Half of them, give or take four standard deviations.
        assert!((30..=70).contains(&first), "{first}");
    }
}
