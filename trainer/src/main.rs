//! The command `dwf`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "commands talk to people"
)]

use std::{
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{
    CommandFactory, Parser, Subcommand, ValueEnum, builder::RangedU64ValueParser, error::ErrorKind,
};
use dwf::{
    Model,
    ode::{Method, Solver},
};
use dwf_trainer::{
    cartpole,
    error::Result,
    export_sampler, files, flow, generate, inspect, iris,
    progress::Progress,
    report,
    train::{self, BasisChoice, HELD_OUT, TrainOptions},
    zoo::{MIN_NETWORKS, Writer},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Learns the distribution of trained networks' weights, and samples new networks from it
/// (DeepWeightFlow, arXiv 2601.05052).
#[derive(Parser)]
#[command(name = "dwf", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a zoo to try everything on
    #[command(subcommand)]
    Zoo(ZooCommand),
    /// Learn a zoo's distribution and write it as an artifact: NAME.onnx and NAME.safetensors
    ///
    /// A zoo is a folder with one *.safetensors file a network, at least 8, all with the same
    /// tensors (NAME.weight [out, in] and NAME.bias [out], as in PyTorch), a plain MLP with ReLU.
    Train {
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
    },
    /// Generate networks, one safetensors file each, named like a zoo
    Generate {
        /// The artifact, NAME.onnx
        artifact: PathBuf,
        /// How many networks, from number 0 on
        #[arg(short = 'n', long, default_value_t = 1, value_parser = at_least(1))]
        count: usize,
        /// Networks A to B-1 instead: the same ones whichever process makes them, so that many
        /// can share a job
        #[arg(long, value_name = "A..B", conflicts_with = "count", value_parser = range)]
        range: Option<Range<usize>>,
        /// Folder to write, new or empty
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        /// Seed of the networks; the same seed gives the same networks
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Write an artifact as one ONNX graph from noise to weights, for inference servers
    ///
    /// Input `noise` [batch, latent], standard normal times the source's std (and `condition`, if
    /// the artifact takes one); output `weights` [batch, weights] in the layout's order.
    ExportSampler {
        /// The artifact, NAME.onnx
        artifact: PathBuf,
        /// The graph to write, OTHER.onnx; its tensors go to OTHER.safetensors
        #[arg(short, long, value_name = "OTHER.onnx")]
        output: PathBuf,
        /// Solver. Default: the artifact's
        #[arg(long, value_enum)]
        solver: Option<SolverName>,
        /// Steps of the solver. Default: the artifact's
        #[arg(long, value_parser = at_least(1))]
        steps: Option<usize>,
    },
    /// Say what an artifact is: tensors, flow, quality, provenance
    Inspect {
        /// The artifact, NAME.onnx
        artifact: PathBuf,
    },
}

#[derive(Subcommand)]
enum ZooCommand {
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

#[derive(Clone, Copy, ValueEnum)]
enum BasisName {
    /// Every weight whitened for itself: nothing is lost
    Diagonal,
    /// Principal components, whitened: smaller, for networks of many weights
    Linear,
}

/// The solvers that can be unrolled.
#[derive(Clone, Copy, ValueEnum)]
enum SolverName {
    Euler,
    Midpoint,
    Heun,
    Rk4,
}

impl From<SolverName> for Method {
    fn from(name: SolverName) -> Self {
        match name {
            SolverName::Euler => Self::Euler,
            SolverName::Midpoint => Self::Midpoint,
            SolverName::Heun => Self::Heun,
            SolverName::Rk4 => Self::Rk4,
        }
    }
}

fn main() -> ExitCode {
    #[cfg(unix)]
    clean_up_when_told_to_stop();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dwf: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The default would end the process with its unfinished files left behind.
#[cfg(unix)]
fn clean_up_when_told_to_stop() {
    use signal_hook::{
        consts::{SIGINT, SIGTERM},
        iterator::Signals,
    };
    let mut signals = Signals::new([SIGINT, SIGTERM]).expect("these can be handled");
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let _nothing_is_written_from_here = files::abandon();
            // What shells report of a process that a signal ends: 130 for Ctrl-C.
            std::process::exit(128 + signal);
        }
    });
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Zoo(ZooCommand::Iris {
            output,
            count,
            seed,
        }) => zoo_iris(&output, count, seed),
        Command::Zoo(ZooCommand::Cartpole {
            output,
            count,
            seed,
        }) => zoo_cartpole(&output, count, seed),
        Command::Train {
            zoo,
            output,
            data,
            seed,
            steps,
            basis,
            latent,
            width,
            aligned_zoo,
        } => {
            let basis = basis_choice(basis, latent);
            let options = TrainOptions {
                seed,
                steps,
                basis,
                width,
                data,
                aligned_zoo,
            };
            let quality = train::train(&zoo, &output, &options)?;
            print!("{}", report::table(&quality));
            println!("wrote {} and its .safetensors", output.display());
            Ok(())
        }
        Command::Generate {
            artifact,
            count,
            range,
            output,
            seed,
        } => {
            let range = range.unwrap_or(0..count);
            generate::generate(&artifact, &output, range.clone(), seed)?;
            println!("wrote {} networks to {}", range.len(), output.display());
            Ok(())
        }
        Command::ExportSampler {
            artifact,
            output,
            solver,
            steps,
        } => {
            let default = Model::open(&artifact, &Default::default())?
                .metadata()
                .solver
                .solver();
            let solver = Solver {
                method: solver.map_or(default.method, Method::from),
                steps: steps.unwrap_or(default.steps),
                ..default
            };
            export_sampler::export_sampler(&artifact, &output, &solver)?;
            println!("wrote {} and its .safetensors", output.display());
            Ok(())
        }
        Command::Inspect { artifact } => {
            print!("{}", inspect::inspect(&artifact)?);
            Ok(())
        }
    }
}

fn at_least(least: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least as u64..)
}

fn range(text: &str) -> Result<Range<usize>, String> {
    let bounds = text.split_once("..");
    match bounds.map(|(a, b)| (a.parse(), b.parse())) {
        Some((Ok(a), Ok(b))) if a < b => Ok(a..b),
        _ => Err("give two numbers, the first below the second, as 100..200".into()),
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

fn zoo_iris(folder: &Path, count: usize, seed: u64) -> Result<()> {
    files::check_empty(folder)?;
    let progress = Progress::new("zoo", count);
    let made = iris::zoo(count, seed, || progress.step(String::new));
    progress.finish();
    let mut writer = Writer::new(folder, &made.zoo.layout, 0..count)?;
    for network in made.zoo.networks() {
        writer.add(network)?;
    }
    writer.add_text(HELD_OUT, &made.held_out.to_csv(&iris::FEATURES))?;
    writer.finish()?;
    let accuracies = made
        .zoo
        .networks()
        .map(|n| made.held_out.accuracy(&made.zoo.mlp, n));
    let mean = accuracies.sum::<f64>() / count as f64;
    println!(
        "wrote {count} networks to {}: mean accuracy {mean:.4} on held-out flowers",
        folder.display()
    );
    Ok(())
}

fn zoo_cartpole(folder: &Path, count: usize, seed: u64) -> Result<()> {
    files::check_empty(folder)?;
    let progress = Progress::new("zoo", count);
    let made = cartpole::zoo(count, seed, || progress.step(String::new));
    progress.finish();
    let mut writer = Writer::new(folder, &made.layout, 0..count)?;
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

/// Ends the program as clap does for a wrong command line.
fn usage(message: &str) -> ! {
    Cli::command()
        .error(ErrorKind::ValueValidation, message)
        .exit()
}
