//! Images on the machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(in crate::cli) struct ImageArgs {
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ImageCommand {
    /// Show the images that lie on the machine.
    List,
    /// Remove an image, or one of its names. What a service uses stays.
    Remove {
        /// As `berth image list` shows it.
        reference: String,
    },
    /// Remove the images that no service uses, nor would go back to.
    Prune {
        /// Only say which.
        #[arg(long)]
        dry_run: bool,
    },
    /// Bring an image to the machine without a registry.
    Import {
        /// An OCI layout: a tar file, a directory, or `-` for standard input.
        source: PathBuf,
        /// What the image is to be called, e.g. localhost/web:1.
        #[arg(long = "name", value_name = "REFERENCE")]
        reference: String,
    },
}
