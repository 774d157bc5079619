//! Generation of networks into a folder that looks like a zoo.

use std::path::Path;

use dwf::{Model, SampleOptions, Sampler};

use crate::{
    error::{Result, invalid},
    files,
    progress::Progress,
    zoo::Writer,
};

/// Networks sampled at a time, to bound memory.
const BATCH: usize = 32;

/// Writes networks 0 to `count` of `seed` from `artifact` into `folder`.
///
/// Errors: those of opening and sampling; IO; INVALID_ARGUMENT for no networks or a folder that
/// is not empty.
pub fn generate(artifact: &Path, folder: &Path, count: usize, seed: u64) -> Result<()> {
    if count == 0 {
        return Err(invalid("0 networks: ask for at least one"));
    }
    files::check_empty(folder)?;
    let model = Model::open(artifact, &Default::default())?;
    let mut sampler = Sampler::new(&model, &Default::default())?;
    let layout = &model.metadata().layout;
    let mut writer = Writer::new(folder, layout, count)?;
    let mut weights = vec![0f32; BATCH.min(count) * layout.len()];
    let progress = Progress::new("generate", count);
    for first in (0..count).step_by(BATCH) {
        let count = BATCH.min(count - first);
        let weights = &mut weights[..count * layout.len()];
        let options = SampleOptions {
            seed,
            first_index: first as u64,
            count,
            ..Default::default()
        };
        sampler.sample(options, &mut *weights)?;
        for network in weights.chunks_exact(layout.len()) {
            writer.add(network)?;
            progress.step(String::new);
        }
    }
    progress.finish();
    writer.finish()
}
