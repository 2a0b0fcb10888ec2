//! The machine itself, and the programs.

use clap::{ArgAction, Args, Subcommand, ValueEnum};

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

#[derive(Debug, Args)]
pub(in crate::cli) struct TopArgs {
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Go on showing it.
    #[arg(short, long)]
    pub watch: bool,
    /// What comes first.
    #[arg(long, value_enum, default_value_t = TopOrder::Cpu)]
    pub sort: TopOrder,
}

/// By what bundles are ordered; the most comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum TopOrder {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// What is read from disks and written to them.
    Io,
    /// Processes and threads.
    Pids,
    /// Restarts.
    Restarts,
    /// Namespace and name.
    Name,
}
