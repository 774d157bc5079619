//! `dwf train`

use std::path::PathBuf;

use clap::ValueEnum;
use dwf_trainer::{
    error::Result,
    flow, report,
    train::{self, BasisChoice, TrainOptions},
};

use super::{at_least, usage};

/// Learn a zoo's distribution and write it as an artifact: NAME.onnx and NAME.safetensors
///
/// A zoo is a folder with one *.safetensors file a network, at least 8, all with the same
/// tensors (NAME.weight [out, in] and NAME.bias [out], as in PyTorch), a plain MLP with ReLU.
#[derive(clap::Args)]
pub struct Args {
    /// The zoo's folder
    zoo: PathBuf,
    /// The artifact to write, NAME.onnx
    #[arg(short, long, value_name = "NAME.onnx")]
    output: PathBuf,
    /// Rows to measure accuracies on: a CSV file with a header, features first, the class
    /// (from 0) last. Default: held-out.csv in the zoo's folder, if there is one
    #[arg(long, value_name = "CSV")]
    data: Option<PathBuf>,
    /// Seed of everything random; the same seed gives the same artifact on the same machine
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Optimiser steps of the flow; the default takes half a minute for small networks
    #[arg(long, default_value_t = flow::DEFAULT_STEPS, value_parser = at_least(1))]
    steps: usize,
    /// How weights become latents
    #[arg(long, value_enum, default_value_t = BasisName::Diagonal)]
    basis: BasisName,
    /// Number of principal components of --basis linear. Default: all that the training
    /// networks have
    #[arg(long, value_name = "K", value_parser = at_least(1))]
    latent: Option<usize>,
    /// Width of the velocity network, even. Default: twice the latent size, rounded up to a
    /// multiple of 64, from 128 to 1024
    #[arg(long, value_name = "H", value_parser = even)]
    width: Option<usize>,
    /// Also write the aligned zoo to this file: float32, networks x weights, no header
    #[arg(long, value_name = "FILE")]
    aligned_zoo: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum BasisName {
    /// Every weight whitened for itself: nothing is lost
    Diagonal,
    /// Principal components, whitened: smaller, for networks of many weights
    Linear,
}

impl Args {
    pub fn run(self) -> Result<()> {
        let options = TrainOptions {
            seed: self.seed,
            steps: self.steps,
            basis: basis_choice(self.basis, self.latent),
            width: self.width,
            data: self.data,
            aligned_zoo: self.aligned_zoo,
        };
        let quality = train::train(&self.zoo, &self.output, &options)?;
        print!("{}", report::table(&quality));
        println!("wrote {} and its .safetensors", self.output.display());
        Ok(())
    }
}

fn even(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(width) if train::is_width(width) => Ok(width),
        _ => Err("give an even number from 2 to 65536".into()),
    }
}

fn basis_choice(basis: BasisName, latent: Option<usize>) -> BasisChoice {
    match (basis, latent) {
        (BasisName::Linear, latent) => BasisChoice::Linear(latent),
        (BasisName::Diagonal, None) => BasisChoice::Diagonal,
        (BasisName::Diagonal, Some(_)) => {
            usage("--latent goes with --basis linear: a diagonal basis keeps every weight")
        }
    }
}
