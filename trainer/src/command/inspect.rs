//! `dwf inspect`

use std::path::PathBuf;

use dwf_trainer::{error::Result, inspect};

/// Say what an artifact is: tensors, flow, quality, provenance
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact, NAME.onnx
    #[arg(required_unless_present = "groups")]
    artifact: Option<PathBuf>,
    /// Instead, what may be permuted in a network: its groups of units, and the tensors and axes
    /// that each moves in
    #[arg(long, value_name = "NETWORK.onnx", conflicts_with = "artifact")]
    groups: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        match (&self.artifact, &self.groups) {
            (Some(artifact), _) => print!("{}", inspect::inspect(artifact)?),
            (None, Some(network)) => print!("{}", inspect::groups(network)?),
            (None, None) => unreachable!("clap asks for one"),
        }
        Ok(())
    }
}
