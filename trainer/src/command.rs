//! The subcommands: one file each, its command line and what it says to people.

pub(crate) mod align;
pub(crate) mod export_sampler;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod recalibrate;
pub(crate) mod report;
pub(crate) mod train;
pub(crate) mod zoo;

use clap::{CommandFactory, builder::RangedU64ValueParser, error::ErrorKind};

/// A count from `least` on.
fn at_least(least: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least as u64..)
}

/// Ends the program as clap does for a wrong command line.
fn usage(message: &str) -> ! {
    crate::Cli::command()
        .error(ErrorKind::ValueValidation, message)
        .exit()
}
