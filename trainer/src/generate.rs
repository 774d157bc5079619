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

/// Networks sampled at a time, to bound memory. Blocks begin at multiples of it, whatever range is
/// asked for, so that every process makes the same bits of a network.
const BLOCK: usize = 32;

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
    let mut block = vec![0f32; BLOCK * layout.len()];
    let progress = Progress::new("generate", range.len());
    for first in (range.start / BLOCK * BLOCK..range.end).step_by(BLOCK) {
        let options = SampleOptions {
            seed,
            first_index: first as u64,
            count: BLOCK,
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
