//! `dwf recalibrate`

use std::path::PathBuf;

use dwf_trainer::{error::Result, progress, recalibrate};

/// Take batch normalisation's running statistics anew, by running networks over training data
///
/// Generated networks have generated statistics, which fit their weights only about as well. Use
/// data that the zoo was trained on, never those that you report on.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of networks, as `dwf generate` writes them
    networks: PathBuf,
    /// The network's ONNX graph. Default: network.onnx in the folder
    #[arg(long, value_name = "ONNX")]
    network: Option<PathBuf>,
    /// Rows to run the networks on: a CSV file with a header, features first, the class last
    #[arg(long, value_name = "CSV")]
    data: PathBuf,
    /// Folder to write, new or empty
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Other rows, to measure accuracies on before and after
    #[arg(long, value_name = "CSV")]
    test: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let done = recalibrate::recalibrate(
            &self.networks,
            self.network.as_deref(),
            &self.data,
            self.test.as_deref(),
            &self.output,
        )?;
        if let Some([before, after]) = done.accuracy {
            progress::say(&format!(
                "mean accuracy {:.2} % before, {:.2} % after",
                100.0 * before,
                100.0 * after
            ));
        }
        progress::say(&format!(
            "wrote {} networks to {}: {} batch normalisations; variances changed by a factor of {:.2} \
             in the median",
            done.networks,
            self.output.display(),
            done.norms,
            done.factor
        ));
        Ok(())
    }
}
