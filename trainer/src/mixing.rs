//! How far networks of a zoo may be mixed: as far as mixtures work as well as they do.

use crate::{error::Result, flow::Quality, judge::Judge, path::Latents, random::Random};

/// The widest range, and the one that is used where nothing can be measured: 45 degrees is half
/// way between two networks.
pub const WIDEST: [f32; 2] = [20.0, 45.0];

/// Candidates, wide to narrow. Mixtures at less than 20 degrees count as near copies: they are
/// three times nearer to their first network than to any other.
const RANGES: [[f32; 2]; 3] = [WIDEST, [20.0, 37.0], [20.0, 30.0]];
/// What mixtures may fall short of the zoo's score on validation data, relative to it.
const MOST_SHORTFALL: f64 = 0.002;
const NETWORKS: usize = 128;
const STREAM: u64 = 6;

/// The widest range of angles in degrees at whose wide end mixtures score as well as the zoo's
/// networks on validation data, to 0.2 %; the narrowest if none does.
///
/// Errors: those of the score.
pub fn choose(latents: &Latents, judge: &Judge<'_>, seed: u64) -> Result<[f32; 2]> {
    let mut chosen = WIDEST;
    for range in RANGES {
        chosen = range;
        let mut random = Random::new(seed, STREAM);
        let mixtures = latents.mixtures(NETWORKS, range[1], &mut random);
        let Quality { shortfall, .. } = judge.measure(&mixtures)?;
        if shortfall.is_none_or(|shortfall| shortfall <= MOST_SHORTFALL) {
            break;
        }
    }
    Ok(chosen)
}
