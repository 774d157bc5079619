//! `dwf inspect`

use std::path::PathBuf;

use dwf_trainer::{error::Result, inspect};

/// Say what an artifact is: tensors, flow, quality, provenance
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact, NAME.onnx
    artifact: PathBuf,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        print!("{}", inspect::inspect(&self.artifact)?);
        Ok(())
    }
}
