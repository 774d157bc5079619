//! `dwf align`

use std::path::PathBuf;

use clap::ValueEnum;
use dwf_trainer::{align, error::Result, progress, realign};
use serde_json::json;

/// Put the units of every network in one order; what each computes stays the same
///
/// For averaging, merging and interpolation, which need networks whose units correspond, and for
/// looking at a zoo; `dwf train` does it by itself. Units are the channels and neurons that may be
/// permuted, attention heads and what is inside them. Every result is run through ONNX Runtime
/// beside its original. Ctrl-C stops it so that the same command goes on where it was; the order
/// of finished networks lies in ALIGNED.work until then. Networks that are turned begin again.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The zoo's folder: *.safetensors, *.pt or *.pth, one network each
    zoo: PathBuf,
    /// Folder to write, new or empty: the networks under their own names, as *.safetensors
    #[arg(short, long, value_name = "ALIGNED")]
    output: PathBuf,
    /// What the networks compute, as an ONNX file. Default: network.onnx in the zoo's folder, or
    /// without one a plain MLP
    #[arg(long, value_name = "NETWORK.onnx")]
    network: Option<PathBuf>,
    /// What the networks are matched to
    #[arg(long, value_enum, default_value_t = ReferenceName::First)]
    reference: ReferenceName,
    /// Also bring every network to one form of those that compute the same: units behind ReLU to the
    /// scale at which weights before and behind have one norm, units behind tanh to one sign; and
    /// turn residual streams that only layer normalisation reads, and what is inside heads
    #[arg(long)]
    canonical: bool,
    /// Rows to measure barriers of linear interpolation on, from the first network to others: a
    /// CSV file with a header, features first, the class (from 0) last
    #[arg(long, value_name = "CSV")]
    data: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ReferenceName {
    /// The first of the zoo
    First,
    /// The one in the middle of all, once they were matched to the first
    Medoid,
    /// The mean of all, in rounds
    Mean,
}

impl From<ReferenceName> for align::Reference {
    fn from(name: ReferenceName) -> Self {
        match name {
            ReferenceName::First => Self::First,
            ReferenceName::Medoid => Self::Medoid,
            ReferenceName::Mean => Self::Mean,
        }
    }
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let (report, barriers) = realign::realign(
            &self.zoo,
            self.network.as_deref(),
            &self.output,
            self.reference.into(),
            self.canonical,
            self.data.as_deref(),
        )?;
        progress::event(
            "done",
            json!({
                "networks": report.networks,
                "rounds": report.rounds,
                "spread_before": report.before,
                "spread_after": report.after,
                "barrier_loss": barriers.map(|b| b.map(|b| b.loss)),
                "barrier_accuracy": barriers.map(|b| b.map(|b| b.accuracy)),
            }),
        );
        if !progress::is_json() {
            print!("{}", report.table());
            if let Some([before, after]) = barriers {
                println!(
                    "barrier of interpolation: {:.2} points of accuracy before, {:.2} after; \
                     cross-entropy {:.4} before, {:.4} after",
                    100.0 * before.accuracy,
                    100.0 * after.accuracy,
                    before.loss,
                    after.loss
                );
            }
            println!("wrote {}", self.output.display());
        }
        Ok(())
    }
}
