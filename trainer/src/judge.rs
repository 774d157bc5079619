//! How good samples of a flow are while it is being trained: spread, newness, and the task.

use crate::{
    error::Result,
    flow::Quality,
    latent::Basis,
    path::Latents,
    report::{self, novelty},
};

/// The mean score of networks, [count, weights] row-major, on validation data; more is better.
pub type Score<'a> = dyn Fn(&[f32]) -> Result<f64> + 'a;

/// What samples are measured against.
pub struct Judge<'a> {
    zoo: &'a Latents,
    basis: &'a Basis,
    /// With the zoo's own.
    score: Option<(&'a Score<'a>, f64)>,
}

impl<'a> Judge<'a> {
    /// Samples are measured against the zoo's latents and, if there is a `score`, against what
    /// the zoo's networks score.
    ///
    /// Errors: those of the score.
    pub fn new(zoo: &'a Latents, basis: &'a Basis, score: Option<&'a Score<'a>>) -> Result<Self> {
        let score = score
            .map(|score| score(&basis.decode(&zoo.values)).map(|own| (score, own)))
            .transpose()?;
        Ok(Self { zoo, basis, score })
    }

    /// Of latents, [count, size] row-major.
    ///
    /// Errors: those of the score.
    pub fn measure(&self, latents: &[f32]) -> Result<Quality> {
        let size = self.zoo.size;
        let nearest = novelty::nearest(latents, &self.zoo.values, size, false);
        let near = nearest.iter().filter(|nearest| nearest.is_near_copy());
        let shortfall = |(score, own): (&Score<'_>, f64)| {
            let below = own - score(&self.basis.decode(latents))?;
            Ok((below / own.abs().max(f64::MIN_POSITIVE)).max(0.0))
        };
        Ok(Quality {
            std_ratio: report::std_ratio(&self.zoo.values, latents, size),
            near_copies: near.count() as f64 / nearest.len() as f64,
            shortfall: self.score.map(shortfall).transpose()?,
        })
    }
}
