//! The canonical form of a network: what may change in it, beside the order of its units, without a
//! change in what it computes.

use crate::{error::Result, gauge::Gauges, groups::Groups, network::Network, rotation::Rotations};

/// All that is known to be free in networks of one architecture.
pub struct Canonical<'a> {
    gauges: Gauges<'a>,
    rotations: Option<Rotations<'a>>,
}

impl<'a> Canonical<'a> {
    /// Looks for scales and signs, and with `turn` for rotations.
    ///
    /// Errors: those of running the network.
    pub fn find(network: &'a Network, groups: &'a Groups, turn: bool) -> Result<Self> {
        let rotations = turn.then(|| Rotations::find(network, groups)).transpose()?;
        Ok(Self {
            gauges: Gauges::find(network, groups)?,
            rotations: rotations.filter(|rotations| !rotations.is_empty()),
        })
    }

    /// Brings a network to its canonical form, up to rotations.
    pub fn canonicalise(&self, weights: &mut [f32]) {
        if let Some(rotations) = &self.rotations {
            rotations.canonicalise(weights);
        }
        self.gauges.canonicalise(weights);
    }

    /// Scales and signs.
    pub fn gauges(&self) -> &Gauges<'a> {
        &self.gauges
    }

    /// What may be turned, if anything.
    pub fn rotations(&self) -> Option<&Rotations<'a>> {
        self.rotations.as_ref()
    }

    /// What was found for people.
    pub fn table(&self) -> String {
        let rotations = self.rotations.as_ref().map(Rotations::table);
        self.gauges.table() + &rotations.unwrap_or_default()
    }
}
