//! Straightening: a flow trained anew on its own trajectories' ends, so that fewer steps follow it.
//!
//! Liu, Gong and Liu, "Flow straight and fast" (ICLR 2023, arXiv 2209.03003): the ends of a
//! flow's trajectories are a coupling of noise and networks whose straight lines hardly cross.

use dwf::ode::Solver;

use crate::{
    error::Result,
    flow::{self, FlowOptions},
    path::{Latents, Pairs},
    random::Random,
    velocity::Velocity,
};

/// Trajectories: many, within the memory that they take.
const MOST_PAIRS: usize = 8192;
const MOST_ELEMENTS: usize = 1 << 27;
/// Trajectories integrated at a time.
const BATCH: usize = 256;
const STREAM: u64 = 5;

/// Trajectories of `velocity` from fresh noise, under the conditions of the zoo's networks in
/// turn, and under none where conditions are dropped out. `done` is called a batch of
/// [`batches`].
///
/// Errors: those of the integration and of `done`.
pub fn pairs(
    velocity: &Velocity,
    zoo: &Latents,
    solver: &Solver,
    options: &FlowOptions,
    done: &mut dyn FnMut() -> Result<()>,
) -> Result<Pairs> {
    let mut random = Random::new(options.seed, STREAM + ((options.round as u64) << 8));
    let mut pairs = Pairs::default();
    for batch in 0..batches(zoo.size) {
        let source = options.path.source;
        let noise = random.noise(BATCH * zoo.size, source);
        let mut conditions = Vec::new();
        if let Some(known) = &zoo.conditions {
            for i in batch * BATCH..(batch + 1) * BATCH {
                if random.uniform() < options.path.condition_dropout {
                    conditions.extend(known.none());
                } else {
                    conditions.extend(known.row(i % zoo.count()));
                }
            }
        }
        let ends = flow::carry(
            velocity,
            noise.clone(),
            &conditions,
            solver,
            source.std,
            options.device,
        )?;
        pairs.noise.extend(noise);
        pairs.ends.extend(ends);
        pairs.conditions.extend(conditions);
        done()?;
    }
    Ok(pairs)
}

/// Batches of trajectories over latents of this size.
pub fn batches(size: usize) -> usize {
    (MOST_ELEMENTS / size)
        .clamp(BATCH, MOST_PAIRS)
        .div_ceil(BATCH)
}
