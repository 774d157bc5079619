//! The command `dwf`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "commands talk to people"
)]

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command::{align, export_sampler, generate, inspect, recalibrate, report, train, zoo};
use dwf_trainer::{
    error::{Error, Result, Status},
    files, interrupt, progress,
};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Learns the distribution of trained networks' weights, and samples new networks from it
/// (DeepWeightFlow, arXiv 2601.05052).
#[derive(Parser)]
#[command(name = "dwf", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Tell scripts instead of people: every line of stdout is a JSON object with the key
    /// 'event': progress, check, warning, message, done or error
    #[arg(long, global = true)]
    json: bool,
}

/// What shells report of a process that Ctrl-C ends.
const INTERRUPTED: u8 = 130;
/// Who asks to stop and waits longer than this is told why.
#[cfg(unix)]
const MOMENT: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(Subcommand)]
enum Command {
    #[command(subcommand)]
    Zoo(zoo::Zoo),
    Align(align::Args),
    Train(train::Args),
    Generate(generate::Args),
    ExportSampler(export_sampler::Args),
    Inspect(inspect::Args),
    Report(report::Args),
    Recalibrate(recalibrate::Args),
}

fn main() -> ExitCode {
    #[cfg(unix)]
    clean_up_when_told_to_stop();
    let cli = Cli::parse();
    if cli.json {
        progress::use_json();
    }
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    let name = error.status().name().to_string_lossy();
    let message = error.to_string();
    progress::event("error", json!({ "status": name, "message": message }));
    eprintln!("dwf: {error}");
    match error.status() {
        Status::Cancelled => INTERRUPTED.into(),
        _ => ExitCode::FAILURE,
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Zoo(zoo) => zoo.run(),
        Command::Align(args) => args.run(),
        Command::Train(args) => args.run(),
        Command::Generate(args) => args.run(),
        Command::ExportSampler(args) => args.run(),
        Command::Inspect(args) => args.run(),
        Command::Report(args) => args.run(),
        Command::Recalibrate(args) => args.run(),
    }
}

/// The default would end the process with its unfinished files left behind. Work that can be
/// resumed is asked to stop first.
#[cfg(unix)]
fn clean_up_when_told_to_stop() {
    use signal_hook::{
        consts::{SIGINT, SIGTERM},
        iterator::Signals,
    };
    let mut signals = Signals::new([SIGINT, SIGTERM]).expect("these can be handled");
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if interrupt::request() {
                std::thread::spawn(say_that_it_takes_a_while);
                continue;
            }
            let _nothing_is_written_from_here = files::abandon();
            // What shells report of a process that a signal ends: 130 for Ctrl-C.
            std::process::exit(128 + signal);
        }
    });
}

/// Most work stops within a moment; on large networks it may take minutes.
#[cfg(unix)]
fn say_that_it_takes_a_while() {
    std::thread::sleep(MOMENT);
    progress::warn(
        "stopping when what is being worked on can be kept; when asked again, at once and \
         without it",
    );
}
