//! How good samples of a flow are while it is being trained: spread, newness, and the task. As the
//! report does, but on validation data.

use crate::{
    coordinates::Coordinates,
    error::Result,
    flow::Quality,
    path::Latents,
    report::{self, comparison::Yardstick, metric::Metric, novelty},
};

/// What samples are measured against.
pub struct Judge<'a> {
    zoo: &'a Latents,
    coordinates: &'a Coordinates,
    /// The zoo's networks, [count, weights].
    networks: Vec<f32>,
    yardstick: Yardstick,
    /// With the zoo's own mean.
    metric: Option<(&'a Metric, f64)>,
}

impl<'a> Judge<'a> {
    /// Samples are measured against the zoo and, if there is a metric, against what the zoo's
    /// networks score.
    ///
    /// Errors: those of the metric.
    pub fn new(
        zoo: &'a Latents,
        coordinates: &'a Coordinates,
        metric: Option<&'a Metric>,
    ) -> Result<Self> {
        let networks = coordinates.decode(&zoo.values);
        let size = networks.len() / zoo.count();
        let own = metric
            .map(|metric| Ok((metric, report::mean(&metric.scores(&networks, size)?))))
            .transpose()?;
        Ok(Self {
            yardstick: Yardstick {
                unit: report::unit(&networks, size),
                good: own.map(|(metric, own)| metric.good(own)),
            },
            networks,
            zoo,
            coordinates,
            metric: own,
        })
    }

    /// Whether there is a metric.
    pub fn has_score(&self) -> bool {
        self.metric.is_some()
    }

    /// Of latents, [count, size] row-major.
    ///
    /// Errors: those of the metric.
    pub fn measure(&self, latents: &[f32]) -> Result<Quality> {
        let samples = self.coordinates.decode(latents);
        let size = self.networks.len() / self.zoo.count();
        let nearest = novelty::nearest(&samples, &self.networks, size, false);
        let scores = match self.metric {
            Some((metric, _)) => metric.scores(&samples, size)?,
            None => Vec::new(),
        };
        let shortfall = self.metric.map(|(_, own)| {
            let below = own - report::mean(&scores);
            (below / own.abs().max(f64::MIN_POSITIVE)).max(0.0)
        });
        let novelty = self.yardstick.novelty(&samples, size, &nearest);
        Ok(Quality {
            std_ratio: report::std_ratio(&self.zoo.values, latents, self.zoo.size),
            near_copies: novelty::near_copies(&nearest),
            shortfall,
            novel_and_good: report::mean(&self.yardstick.curve(&novelty, &scores)),
        })
    }
}
