//! How networks of a zoo are mixed to make what a flow learns, how far they may be, as far as
//! mixtures work as well as the zoo does, and which mixtures those are.

use std::fmt;

use serde::Serialize;

use crate::{
    error::Result, flow::Quality, judge::Judge, path::Latents, progress::Progress, random::Random,
};

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

/// Candidates. At less than some 21 degrees mixtures count as near copies: they are three times
/// nearer to their first network than to any other.
const CANDIDATES: [Mixing; 14] = [
    Mixing::of(2, [21.0, 24.0], 1.0),
    Mixing::of(2, [21.0, 30.0], 1.0),
    Mixing::of(2, [21.0, 37.0], 1.0),
    Mixing::PAIRS,
    Mixing::of(2, [30.0, 45.0], 1.0),
    Mixing::of(2, [30.0, 45.0], 0.9),
    Mixing::of(2, [30.0, 45.0], 0.8),
    Mixing::of(3, [25.0, 54.0], 1.0),
    Mixing::of(3, [35.0, 54.0], 0.8),
    Mixing::of(5, [30.0, 63.0], 1.0),
    Mixing::of(5, [45.0, 63.0], 0.9),
    Mixing::of(10, [45.0, 72.0], 0.8),
    Mixing::of(10, [45.0, 72.0], 0.9),
    Mixing::of(10, [45.0, 72.0], 1.0),
];
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

/// Mixtures that a candidate is measured by, and that are selected at a time.
const NETWORKS: usize = 64;
/// Of so many mixtures one is selected.
pub const DRAWS: usize = 3;
/// Selections that a flow learns from: a thousand mixtures, some ten times as many as it will be
/// asked for.
const SELECTIONS: usize = 16;
const STREAM: u64 = 6;
const SELECTION_STREAM: u64 = 8;

impl Mixing {
    /// Two networks, from the least angle that makes no near copies to half way.
    pub const PAIRS: Self = Self::of(2, [20.0, 45.0], 1.0);

    const fn of(networks: usize, angles: [f32; 2], radius: f32) -> Self {
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

/// The candidate whose selected mixtures are best on validation data, as [`Quality::better`] judges.
/// Pairs where nothing can be measured.
///
/// Errors: those of the judge.
pub fn choose(latents: &Latents, judge: &Judge<'_>, seed: u64) -> Result<Mixing> {
    if !judge.has_score() {
        return Ok(Mixing::PAIRS);
    }
    let mut best: Option<(Mixing, Quality)> = None;
    let progress = Progress::new("mixing", CANDIDATES.len());
    for mixing in CANDIDATES {
        let mut random = Random::new(seed, STREAM);
        let mixtures = working(latents, mixing, judge, &mut random)?;
        let quality = judge.measure(&latents.mix(&mixtures))?;
        if best.is_none_or(|(_, best)| quality.better(&best)) {
            best = Some((mixing, quality));
        }
        progress.step(|| mixing.to_string());
    }
    progress.finish();
    Ok(best.map_or(Mixing::PAIRS, |(mixing, _)| mixing))
}

/// The mixtures for a flow to learn: of every three the one that works best, if the judge
/// [selects](Judge::selects).
///
/// Errors: those of the judge.
pub fn select(
    latents: &Latents,
    mixing: Mixing,
    judge: &Judge<'_>,
    seed: u64,
) -> Result<Option<Vec<Mixture>>> {
    if !judge.selects() {
        return Ok(None);
    }
    let mut random = Random::new(seed, SELECTION_STREAM);
    let mut selected = Vec::with_capacity(SELECTIONS * NETWORKS);
    let progress = Progress::new("selection", SELECTIONS);
    for _ in 0..SELECTIONS {
        selected.extend(working(latents, mixing, judge, &mut random)?);
        progress.step(String::new);
    }
    progress.finish();
    Ok(Some(selected))
}

/// [`NETWORKS`] mixtures: those of [`DRAWS`] times as many that lack the least, or any where the
/// judge does not select.
fn working(
    latents: &Latents,
    mixing: Mixing,
    judge: &Judge<'_>,
    random: &mut Random,
) -> Result<Vec<Mixture>> {
    if !judge.selects() {
        return Ok(latents.mixtures(NETWORKS, mixing, random));
    }
    let mixtures = latents.mixtures(DRAWS * NETWORKS, mixing, random);
    let losses = judge.losses(&latents.mix(&mixtures))?;
    Ok(least(mixtures, &losses, NETWORKS))
}

/// The `count` of these with the least losses.
fn least<T>(all: Vec<T>, losses: &[f64], count: usize) -> Vec<T> {
    let mut ranked: Vec<(T, &f64)> = all.into_iter().zip(losses).collect();
    ranked.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    ranked.truncate(count);
    ranked.into_iter().map(|(one, _)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_losses_are_selected() {
        let losses = [0.3, f64::INFINITY, 0.1, 0.2];
        assert_eq!(least(vec!['a', 'b', 'c', 'd'], &losses, 2), ['c', 'd']);
    }

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
