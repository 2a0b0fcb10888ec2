//! The disks of bundles.

use clap::{Args, Subcommand};

use super::{RelationArgs, name};

#[derive(Debug, Args)]
pub(in crate::cli) struct VolumeArgs {
    #[command(subcommand)]
    pub command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum VolumeCommand {
    /// Show the volumes, those included whose service is gone.
    List {
        /// Of all namespaces.
        #[arg(short = 'A', long)]
        all_namespaces: bool,
    },
    /// Give a volume more room while its service runs. It never shrinks.
    Grow {
        /// As `berth volume list` shows it.
        #[arg(value_parser = name)]
        name: String,
        /// The room it is to have, e.g. 2Gi.
        size: String,
        #[command(flatten)]
        relations: RelationArgs,
    },
    /// Close the volume of a stopped service until it is unlocked.
    Lock {
        /// As `berth volume list` shows it.
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        relations: RelationArgs,
    },
    /// Let a locked volume be used again, if its key opens it.
    Unlock {
        /// As `berth volume list` shows it.
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        relations: RelationArgs,
    },
    /// Destroy a volume that no service uses, with its key: no copy of its disk can be read any more.
    Erase {
        /// As `berth volume list` shows it.
        #[arg(value_parser = name)]
        name: String,
        /// Do it.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        relations: RelationArgs,
    },
}
