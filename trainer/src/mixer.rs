//! Which mixtures a flow learns: how far networks may be mixed, as far as mixtures work as well as
//! the zoo does, and which of these do.
//!
//! Thousands of networks are run for that, of large ones for hours. So what is found of every batch
//! of mixtures is kept under a name that says which they are. Random numbers are drawn as in a run
//! in one go, whatever of it was kept.

use crate::{
    error::Result,
    flow::Quality,
    interrupt,
    judge::Judge,
    mixing::{Mixing, Mixture, digest},
    path::Latents,
    progress::Progress,
    random::Random,
    work::Part,
};

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
/// Mixtures of a batch: what a candidate is measured by, and what is selected at a time.
const BATCH: usize = 64;
/// Of so many mixtures one is selected.
pub const DRAWS: usize = 3;
/// Selections that a flow learns from: a thousand mixtures, some ten times as many as it will be
/// asked for.
const SELECTIONS: usize = 16;
const STREAM: u64 = 6;
const SELECTION_STREAM: u64 = 8;

/// Makes what a flow learns.
pub struct Mixer<'a> {
    /// The zoo's networks.
    pub latents: &'a Latents,
    /// Of mixtures.
    pub judge: &'a Judge<'a>,
    /// Everything random follows from it.
    pub seed: u64,
    /// Belongs to all that the judge goes by; what is found of mixtures is kept in it.
    pub part: &'a Part,
}

impl Mixer<'_> {
    /// The candidate whose selected mixtures are best on validation data, as [`Quality::better`]
    /// judges. Pairs where nothing can be measured.
    ///
    /// Errors: those of the judge; IO; CANCELLED when [interrupted](interrupt).
    pub fn choose(&self) -> Result<Mixing> {
        if !self.judge.has_score() {
            return Ok(Mixing::PAIRS);
        }
        let progress = Progress::new("mixing", CANDIDATES.len() * (self.draws() + 1));
        let mut best: Option<(Mixing, Quality)> = None;
        for mixing in CANDIDATES {
            let scheme = self.scheme(mixing, &progress);
            let mixtures = scheme.working(&mut Random::new(self.seed, STREAM))?;
            let quality = scheme.quality(&mixtures)?;
            if best.is_none_or(|(_, best)| quality.better(&best)) {
                best = Some((mixing, quality));
            }
        }
        progress.finish();
        Ok(best.map_or(Mixing::PAIRS, |(mixing, _)| mixing))
    }

    /// The mixtures for a flow to learn: of every three the one that works best, if the judge
    /// [selects](Judge::selects).
    ///
    /// Errors: as [`Mixer::choose`].
    pub fn select(&self, mixing: Mixing) -> Result<Option<Vec<Mixture>>> {
        if !self.judge.selects() {
            return Ok(None);
        }
        let progress = Progress::new("selection", SELECTIONS * self.draws());
        let scheme = self.scheme(mixing, &progress);
        let mut random = Random::new(self.seed, SELECTION_STREAM);
        let mut selected = Vec::with_capacity(SELECTIONS * BATCH);
        for _ in 0..SELECTIONS {
            selected.extend(scheme.working(&mut random)?);
        }
        progress.finish();
        Ok(Some(selected))
    }

    /// Batches of which one is selected by being run.
    fn draws(&self) -> usize {
        if self.judge.selects() { DRAWS } else { 0 }
    }

    fn scheme<'a>(&'a self, mixing: Mixing, progress: &'a Progress) -> Scheme<'a> {
        Scheme {
            mixer: self,
            mixing,
            progress,
        }
    }
}

/// One way of mixing, and what its mixtures are found to do.
struct Scheme<'a> {
    mixer: &'a Mixer<'a>,
    mixing: Mixing,
    progress: &'a Progress,
}

impl Scheme<'_> {
    /// A batch: of [`DRAWS`] times as many mixtures those that lack the least, or any where the
    /// judge does not select.
    fn working(&self, random: &mut Random) -> Result<Vec<Mixture>> {
        let Mixer { latents, judge, .. } = self.mixer;
        if !judge.selects() {
            return Ok(latents.mixtures(BATCH, self.mixing, random));
        }
        let mixtures = latents.mixtures(DRAWS * BATCH, self.mixing, random);
        let mut losses = Vec::with_capacity(mixtures.len());
        for batch in mixtures.chunks(BATCH) {
            losses.extend(self.losses(batch)?);
        }
        Ok(least(mixtures, &losses, BATCH))
    }

    fn losses(&self, batch: &[Mixture]) -> Result<[f64; BATCH]> {
        self.find("losses", batch, |latents| {
            let losses = self.mixer.judge.losses(latents)?;
            Ok(losses.try_into().expect("one a mixture"))
        })
    }

    fn quality(&self, batch: &[Mixture]) -> Result<Quality> {
        let numbers = self.find("quality", batch, |latents| {
            Ok(self.mixer.judge.measure(latents)?.to_numbers())
        });
        numbers.map(Quality::from_numbers)
    }

    /// What the latents of a batch are found to do, or were by an interrupted run.
    fn find<const N: usize>(
        &self,
        what: &str,
        batch: &[Mixture],
        run: impl FnOnce(&[f32]) -> Result<[f64; N]>,
    ) -> Result<[f64; N]> {
        let Mixer { latents, part, .. } = self.mixer;
        let file = format!("{what}-{}", digest(batch));
        let kept = part.read(&file)?;
        let kept = kept.map(|bytes| bytemuck::pod_collect_to_vec::<u8, f64>(&bytes));
        if let Some(numbers) = kept.and_then(|numbers| numbers.try_into().ok()) {
            self.progress.skip();
            return Ok(numbers);
        }
        let numbers = run(&latents.mix(batch))?;
        part.write(&file, bytemuck::cast_slice(&numbers))?;
        self.progress.step(|| self.mixing.to_string());
        match interrupt::requested() {
            true => Err(interrupt::error("every batch of mixtures judged so far")),
            false => Ok(numbers),
        }
    }
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
}
