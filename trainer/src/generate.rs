//! Generation of networks into a folder that looks like a zoo.

use std::{ops::Range, path::Path};

use dwf::{Model, SampleOptions, Sampler};

use crate::{
    condition,
    error::{Result, invalid},
    export::WHOLE,
    files,
    progress::Progress,
    zoo::Writer,
};

/// Networks sampled at a time, at most, and their weights, to bound memory.
const MOST: usize = 32;
const MOST_WEIGHTS: usize = 1 << 27;

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// The networks' numbers.
    pub range: Range<usize>,
    /// With the number it determines a network.
    pub seed: u64,
    /// What every network shall be like, as [`condition::row`] reads it.
    pub condition: Option<String>,
    /// See [`SampleOptions::guidance`].
    pub guidance: f64,
}

/// Writes networks from `artifact` into `folder`, named by their numbers.
///
/// Errors: those of opening and sampling; IO; INVALID_ARGUMENT for no networks, a folder that is not
/// empty, or a condition that is missing or not one of the artifact's.
pub fn generate(artifact: &Path, folder: &Path, options: GenerateOptions) -> Result<()> {
    let GenerateOptions {
        range,
        seed,
        condition,
        guidance,
    } = options;
    if range.is_empty() {
        return Err(invalid("0 networks: ask for at least one"));
    }
    files::check_empty(folder)?;
    let model = Model::open(artifact, &WHOLE)?;
    let condition = condition::asked_for(model.metadata().condition.as_ref(), condition.as_deref())
        .map_err(|e| e.at(format!("'{}'", artifact.display())))?;
    let mut sampler = Sampler::new(&model, &Default::default())?;
    let layout = &model.metadata().layout;
    let mut writer = Writer::new(folder, layout, range.start)?;
    // Blocks begin at multiples of their size, whatever range is asked for, so that every process
    // makes the same bits of a network.
    let count = (MOST_WEIGHTS / layout.len()).clamp(1, MOST);
    let mut block = vec![0f32; count * layout.len()];
    let progress = Progress::new("generate", range.len());
    for first in (range.start / count * count..range.end).step_by(count) {
        let options = SampleOptions {
            seed,
            first_index: first as u64,
            count,
            condition: condition.as_deref(),
            guidance,
            ..Default::default()
        };
        sampler.sample(options, &mut block[..])?;
        for (number, network) in (first..).zip(block.chunks_exact(layout.len())) {
            if range.contains(&number) {
                writer.add(network)?;
                progress.step(String::new);
            }
        }
    }
    progress.finish();
    writer.finish()
}
