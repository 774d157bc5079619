//! `dwf generate`

use std::{ops::Range, path::PathBuf};

use dwf_trainer::{
    error::Result,
    generate::{self, GenerateOptions},
    progress,
};

use super::at_least;

/// Generate networks, one safetensors file each, named like a zoo
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact, NAME.onnx
    artifact: PathBuf,
    /// How many networks, from number 0 on
    #[arg(short = 'n', long, default_value_t = 1, value_parser = at_least(1))]
    count: usize,
    /// Networks A to B-1 instead: the same ones under the same names whichever process makes them, so
    /// that many can share a job. They are the same bits on machines of one kind (processor, cores,
    /// ONNX Runtime), and within 1e-5 or so on others
    #[arg(long, value_name = "A..B", conflicts_with = "count", value_parser = range)]
    range: Option<Range<usize>>,
    /// Folder to write, new or empty
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Seed of the networks; the same seed gives the same networks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What they shall be like, for an artifact that can be asked: a class's name, or a value for
    /// every axis. `dwf inspect` lists them
    #[arg(long, value_name = "CLASS|NAME=VALUE,...")]
    condition: Option<String>,
    /// How far the condition is followed beyond what the flow learned (classifier-free guidance);
    /// 1: not beyond
    #[arg(
        long,
        value_name = "SCALE",
        default_value_t = 1.0,
        requires = "condition"
    )]
    guidance: f64,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let range = self.range.unwrap_or(0..self.count);
        let count = range.len();
        let options = GenerateOptions {
            range,
            seed: self.seed,
            condition: self.condition,
            guidance: self.guidance,
        };
        generate::generate(&self.artifact, &self.output, options)?;
        progress::say(&format!(
            "wrote {count} networks to {}",
            self.output.display()
        ));
        Ok(())
    }
}

fn range(text: &str) -> Result<Range<usize>, String> {
    let bounds = text.split_once("..");
    match bounds.map(|(a, b)| (a.parse(), b.parse())) {
        Some((Ok(a), Ok(b))) if a < b => Ok(a..b),
        _ => Err("give two numbers, the first below the second, as 100..200".into()),
    }
}
