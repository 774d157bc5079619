//! How good samples of a flow are while it is being trained: spread, newness, and the task.

use crate::{error::Result, flow::Quality, latent::Basis, path::Latents, report};

/// The mean score of networks, [count, weights] row-major, on validation data; more is better.
pub type Score<'a> = dyn Fn(&[f32]) -> Result<f64> + 'a;

/// What samples are measured against.
pub struct Judge<'a> {
    zoo: &'a Latents,
    basis: &'a Basis,
    /// Nearer to one of the zoo than this is nearly a copy.
    near: f64,
    /// With the zoo's own.
    score: Option<(&'a Score<'a>, f64)>,
}

/// A sample is nearly a copy of a zoo network at less than this part of the distance at which the
/// zoo's networks have their nearest neighbours, in the median.
pub const NEAR_COPY: f64 = 0.25;

impl<'a> Judge<'a> {
    /// Samples are measured against the zoo's latents and, if there is a `score`, against what
    /// the zoo's networks score.
    ///
    /// Errors: those of the score.
    pub fn new(zoo: &'a Latents, basis: &'a Basis, score: Option<&'a Score<'a>>) -> Result<Self> {
        let own = report::nearest(&zoo.values, &zoo.values, zoo.size, true);
        let score = score
            .map(|score| score(&basis.decode(&zoo.values)).map(|own| (score, own)))
            .transpose()?;
        Ok(Self {
            zoo,
            basis,
            near: NEAR_COPY * report::median(own),
            score,
        })
    }

    /// Of latents, [count, size] row-major.
    ///
    /// Errors: those of the score.
    pub fn measure(&self, latents: &[f32]) -> Result<Quality> {
        let size = self.zoo.size;
        let distances = report::nearest(latents, &self.zoo.values, size, false);
        let near = distances.iter().filter(|distance| **distance < self.near);
        let shortfall = |(score, own): (&Score<'_>, f64)| {
            let below = own - score(&self.basis.decode(latents))?;
            Ok((below / own.abs().max(f64::MIN_POSITIVE)).max(0.0))
        };
        Ok(Quality {
            std_ratio: report::std_ratio(&self.zoo.values, latents, size),
            near_copies: near.count() as f64 / distances.len() as f64,
            shortfall: self.score.map(shortfall).transpose()?,
        })
    }
}
