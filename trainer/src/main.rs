//! The command `dwf`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "commands talk to people"
)]

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command::{export_sampler, generate, inspect, train, zoo};
use dwf_trainer::{error::Result, files};

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
    #[command(subcommand)]
    Zoo(zoo::Zoo),
    Train(train::Args),
    Generate(generate::Args),
    ExportSampler(export_sampler::Args),
    Inspect(inspect::Args),
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

fn run(command: Command) -> Result<()> {
    match command {
        Command::Zoo(zoo) => zoo.run(),
        Command::Train(args) => args.run(),
        Command::Generate(args) => args.run(),
        Command::ExportSampler(args) => args.run(),
        Command::Inspect(args) => args.run(),
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
