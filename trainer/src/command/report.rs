//! `dwf report`

use std::path::PathBuf;

use dwf_trainer::{error::Result, progress, report, report::ReportOptions};

use super::at_least;

/// Say how good an artifact is: one HTML page with plots, and all figures as JSON beside it
///
/// Generates networks and judges every one of them, beside the zoo's networks, those of them that
/// the flow was not trained on, and baselines (noise, averages, Gaussians) that are treated alike:
/// score, novelty, copying, errors of their own, ensembles, spread. The main figures also go into
/// the artifact, where `dwf inspect` shows them.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact, NAME.onnx
    artifact: PathBuf,
    /// Folder of the zoo that it was trained on
    #[arg(long, value_name = "DIR")]
    zoo: PathBuf,
    /// Rows to measure accuracies on: a CSV file with a header, features first, the class (from 0)
    /// last. Nothing should have been trained on them or chosen by them. Default: held-out.csv in
    /// the zoo's folder; for a zoo of policies that `dwf zoo` made, its episodes
    #[arg(long, value_name = "CSV")]
    data: Option<PathBuf>,
    /// The conditions that it was trained with, if it was. Default: conditions.csv in the zoo's
    /// folder
    #[arg(long, value_name = "CSV")]
    conditions: Option<PathBuf>,
    /// The page to write; the figures go to the same name with .json
    #[arg(short, long, value_name = "FILE.html", default_value = "report.html")]
    output: PathBuf,
    /// Networks to generate, and of every baseline. A hundred tell means to a tenth of the spread
    #[arg(short = 'n', long, default_value_t = 100, value_parser = at_least(2))]
    count: usize,
    /// Seed of the generated networks
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let options = ReportOptions {
            data: self.data,
            conditions: self.conditions,
            count: self.count,
            seed: self.seed,
        };
        let report = report::report(&self.artifact, &self.zoo, &self.output, &options)?;
        for goal in &report.goals {
            let verdict = match goal.met {
                Some(true) => "met    ",
                Some(false) => "missed ",
                None => "       ",
            };
            progress::say(&format!("{verdict}{}", goal.text));
        }
        progress::say(&format!("wrote {}", self.output.display()));
        Ok(())
    }
}
