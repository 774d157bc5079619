//! How good latents are while a flow is being made: spread, newness, and the task. As the report
//! does, but on validation data, and of weights only what the task needs: distances come from the
//! latents.

use crate::{
    coordinates::{Coordinates, Decoded},
    error::Result,
    flow::Quality,
    isometry::Isometry,
    path::Latents,
    report::{self, comparison::Yardstick, metric::Metric, novelty, products::Products, spread},
    rows::{Matrix, Stack},
};

/// What samples are measured against.
pub struct Judge<'a> {
    zoo: &'a Latents,
    coordinates: &'a Coordinates,
    isometry: &'a Isometry<'a>,
    /// Where the zoo's networks lie, [count, size].
    places: Vec<f32>,
    yardstick: Yardstick,
    /// With the zoo's own mean.
    metric: Option<(&'a Metric, f64)>,
    /// What mixtures are selected by, if they are.
    selection: Option<&'a Metric>,
}

impl<'a> Judge<'a> {
    /// Samples are measured against the zoo and, if there is a metric, against what the zoo's
    /// networks score. Mixtures are selected by `selection`, if there is one.
    ///
    /// Errors: those of the metric.
    pub fn new(
        zoo: &'a Latents,
        coordinates: &'a Coordinates,
        isometry: &'a Isometry<'a>,
        metric: Option<&'a Metric>,
        selection: Option<&'a Metric>,
    ) -> Result<Self> {
        let networks = Decoded::new(coordinates, &zoo.values);
        let own = metric
            .map(|metric| Ok((metric, report::mean(&metric.scores(&networks)?))))
            .transpose()?;
        let places = isometry.place(&zoo.values);
        let rows = Matrix::new(&places, places.len() / zoo.count());
        let all = 0..zoo.count();
        Ok(Self {
            yardstick: Yardstick {
                unit: novelty::unit(&Products::new(&rows, all.clone()), all),
                good: own.map(|(metric, own)| metric.good(own)),
            },
            places,
            zoo,
            coordinates,
            isometry,
            metric: own,
            selection,
        })
    }

    /// Whether there is a metric.
    pub fn has_score(&self) -> bool {
        self.metric.is_some()
    }

    /// Whether mixtures are selected.
    pub fn selects(&self) -> bool {
        self.selection.is_some()
    }

    /// What each of latents, [count, size] row-major, lacks: the less, the better. All alike where
    /// nothing is selected.
    ///
    /// Errors: those of the metric.
    pub fn losses(&self, latents: &[f32]) -> Result<Vec<f64>> {
        let Some(metric) = self.selection else {
            return Ok(vec![0.0; latents.len() / self.zoo.size]);
        };
        metric.losses(&Decoded::new(self.coordinates, latents))
    }

    /// Of latents, [count, size] row-major.
    ///
    /// Errors: those of the metric.
    pub fn measure(&self, latents: &[f32]) -> Result<Quality> {
        let size = self.places.len() / self.zoo.count();
        let places = self.isometry.place(latents);
        let [zoo, samples] = [&self.places, &places].map(|places| Matrix::new(places, size));
        let training = 0..self.zoo.count();
        let generated = training.end..training.end + places.len() / size;
        let products = Products::new(&Stack(&[&zoo, &samples]), training.clone());
        let nearest = novelty::nearest(&products, generated.clone(), training);
        let (scores, losses): (Vec<f64>, Vec<f64>) = match self.metric {
            Some((metric, _)) => {
                metric.scores_and_losses(&Decoded::new(self.coordinates, latents))?
            }
            None => Default::default(),
        };
        let shortfall = self.metric.map(|(_, own)| {
            let below = own - report::mean(&scores);
            (below / own.abs().max(f64::MIN_POSITIVE)).max(0.0)
        });
        let novelty = self.yardstick.novelty(&products, generated, &nearest);
        let [zoo, samples] =
            [&self.zoo.values, latents].map(|latents| Matrix::new(latents, self.zoo.size));
        Ok(Quality {
            std_ratio: spread::std_ratio(&zoo, &samples),
            near_copies: novelty::near_copies(&nearest),
            shortfall,
            novel_and_good: report::mean(&self.yardstick.curve(&novelty, &scores)),
            loss: report::mean(&losses),
        })
    }
}
