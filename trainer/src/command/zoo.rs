//! `dwf zoo`

use std::path::{Path, PathBuf};

use dwf_trainer::{
    cartpole,
    error::Result,
    files, iris,
    progress::Progress,
    train::HELD_OUT,
    zoo::{MIN_NETWORKS, Writer},
};

use super::at_least;

/// Train a zoo to try everything on
#[derive(clap::Subcommand)]
pub enum Zoo {
    /// MLPs 4-16-3 on Fisher's Iris data, with the flowers they have not seen as held-out.csv
    Iris {
        /// Folder to write, new or empty
        #[arg(short, long, value_name = "DIR", default_value = "iris-zoo")]
        output: PathBuf,
        /// How many networks, at least 8
        #[arg(long, default_value_t = 100, value_parser = at_least(MIN_NETWORKS))]
        count: usize,
        /// Seed of the split, the initialisations and the order of the flowers
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// MLPs 4-16-2 that balance the pole of CartPole-v1
    Cartpole {
        /// Folder to write, new or empty
        #[arg(short, long, value_name = "DIR", default_value = "cartpole-zoo")]
        output: PathBuf,
        /// How many networks, at least 8
        #[arg(long, default_value_t = 100, value_parser = at_least(MIN_NETWORKS))]
        count: usize,
        /// Seed of the initialisations, the perturbations and the starts
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
}

impl Zoo {
    pub fn run(self) -> Result<()> {
        match self {
            Self::Iris {
                output,
                count,
                seed,
            } => iris(&output, count, seed),
            Self::Cartpole {
                output,
                count,
                seed,
            } => cartpole(&output, count, seed),
        }
    }
}

fn iris(folder: &Path, count: usize, seed: u64) -> Result<()> {
    files::check_empty(folder)?;
    let progress = Progress::new("zoo", count);
    let made = iris::zoo(count, seed, || progress.step(String::new));
    progress.finish();
    let mut writer = Writer::new(folder, made.zoo.layout(), 0..count)?;
    for network in made.zoo.networks() {
        writer.add(network)?;
    }
    writer.add_text(HELD_OUT, &made.held_out.to_csv(&iris::FEATURES))?;
    writer.finish()?;
    let mlp = made.zoo.network.as_mlp().expect("these are MLPs");
    let accuracies = made.zoo.networks().map(|n| made.held_out.accuracy(mlp, n));
    let mean = accuracies.sum::<f64>() / count as f64;
    println!(
        "wrote {count} networks to {}: mean accuracy {mean:.4} on held-out flowers",
        folder.display()
    );
    Ok(())
}

fn cartpole(folder: &Path, count: usize, seed: u64) -> Result<()> {
    files::check_empty(folder)?;
    let progress = Progress::new("zoo", count);
    let made = cartpole::zoo(count, seed, || progress.step(String::new));
    progress.finish();
    let mut writer = Writer::new(folder, made.layout(), 0..count)?;
    for network in made.networks() {
        writer.add(network)?;
    }
    writer.finish()?;
    let starts = cartpole::held_out_starts(100, seed);
    let returns = made.networks().map(|n| cartpole::mean_return(n, &starts));
    let (mean, worst) = returns.fold((0.0, f64::INFINITY), |(mean, worst), r| {
        (mean + r / count as f64, r.min(worst))
    });
    println!(
        "wrote {count} networks to {}: mean return {mean:.1} on held-out starts, worst {worst:.1}",
        folder.display()
    );
    Ok(())
}
