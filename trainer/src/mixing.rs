//! How networks of a zoo are mixed to make what a flow learns.

use std::fmt;

use dwf::metadata::hex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::random::Random;

/// Networks, the first one's first, and their weights.
pub type Mixture = Vec<(usize, f32)>;

/// The mixtures r (cos(a) p + sin(a) q) that [`crate::path`] describes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mixing {
    /// Networks of a mixture, two or more; fewer where a class has fewer.
    pub networks: usize,
    /// Range of the angle a from the first network, in degrees. Of two networks 45 is half way; of
    /// m all weigh the same at the angle whose cosine is 1 / sqrt(m).
    pub angles: [f32; 2],
    /// The factor r: below 1 mixtures lie nearer to the zoo's mean than its networks do.
    pub radius: f32,
}

/// What the flow of an artifact learned, in its provenance: how networks were mixed, and how many
/// mixtures were selected.
pub mod key {
    /// A [`Mixing`](super::Mixing), in words.
    pub const MIXING: &str = "mixing";
    /// A number, or [`ANY`].
    pub const SELECTED: &str = "mixing.selected";
    /// All mixtures.
    pub const ANY: &str = "any";
}

impl Mixing {
    /// Two networks, from the least angle that makes no near copies to half way.
    pub const PAIRS: Self = Self::of(2, [20.0, 45.0], 1.0);

    pub(crate) const fn of(networks: usize, angles: [f32; 2], radius: f32) -> Self {
        Self {
            networks,
            angles,
            radius,
        }
    }

    /// A mixture. Its networks are of one class, if there are `classes`; one that is alone in its
    /// class stays as it is.
    pub fn draw(&self, count: usize, classes: Option<&[usize]>, random: &mut Random) -> Mixture {
        let first = random.index(count);
        let alike = |i: &usize| classes.is_none_or(|classes| classes[*i] == classes[first]);
        let mut others: Vec<usize> = (0..count).filter(|i| *i != first && alike(i)).collect();
        let chosen = (self.networks - 1).min(others.len());
        if chosen == 0 {
            return vec![(first, 1.0)];
        }
        random.choose(&mut others, chosen);
        let [least, most] = self.angles;
        let angle = least + (most - least) * random.uniform();
        let (sin, cos) = angle.to_radians().sin_cos();
        let mut weights = random.normal(chosen, 1.0);
        let norm = weights.iter().map(|w| w * w).sum::<f32>().sqrt();
        let scale = self.radius * sin / norm.max(f32::MIN_POSITIVE);
        weights.iter_mut().for_each(|w| *w = scale * w.abs());
        let rest = others.into_iter().zip(weights);
        std::iter::once((first, self.radius * cos))
            .chain(rest)
            .collect()
    }
}

impl fmt::Display for Mixing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [least, most] = self.angles;
        write!(f, "{} networks at {least} to {most} degrees", self.networks)?;
        match self.radius {
            1.0 => Ok(()),
            radius => write!(f, ", {radius} as far from the mean"),
        }
    }
}

/// What tells mixtures from others.
pub fn digest(mixtures: &[Mixture]) -> String {
    let mut digest = Sha256::new();
    for mixture in mixtures {
        digest.update(mixture.len().to_le_bytes());
        for (network, weight) in mixture {
            digest.update(network.to_le_bytes());
            digest.update(weight.to_le_bytes());
        }
    }
    hex(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixtures_have_their_angle_and_radius() {
        let mixing = Mixing::of(4, [30.0, 50.0], 0.8);
        let mut random = Random::new(1, 0);
        for _ in 0..100 {
            let parts = mixing.draw(9, None, &mut random);
            let mut networks: Vec<usize> = parts.iter().map(|(network, _)| *network).collect();
            networks.sort_unstable();
            networks.dedup();
            assert_eq!(networks.len(), 4);
            let norm = parts.iter().map(|(_, w)| w * w).sum::<f32>().sqrt();
            let angle = (parts[0].1 / norm).acos().to_degrees();
            // f32 rounding.
            assert!((norm - 0.8).abs() < 1e-5);
            assert!((29.99..50.01).contains(&angle), "{angle}");
            assert!(parts.iter().all(|(_, weight)| *weight > 0.0));
        }
    }

    #[test]
    fn the_only_network_of_a_class_stays_as_it_is() {
        let mut random = Random::new(2, 0);
        for _ in 0..20 {
            match &Mixing::PAIRS.draw(3, Some(&[0, 1, 1]), &mut random)[..] {
                [(0, weight)] => assert_eq!(*weight, 1.0),
                [(1, _), (2, _)] | [(2, _), (1, _)] => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
