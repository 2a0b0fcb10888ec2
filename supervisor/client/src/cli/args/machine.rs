//! The machine itself, and the programs.

use clap::{ArgAction, Args, Subcommand};

#[derive(Debug, Args)]
pub(in crate::cli) struct SystemArgs {
    #[command(subcommand)]
    pub command: SystemCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SystemCommand {
    /// Remove what nothing needs and is old enough: unused images, finished operations, events.
    ///
    /// How long each is kept is set in spec.cleanup of the Settings berth. It is done once a day in any case.
    Cleanup {
        /// Only say what.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct VersionArgs {
    /// Only of this program.
    #[arg(long, action = ArgAction::SetTrue)]
    pub client: bool,
}
