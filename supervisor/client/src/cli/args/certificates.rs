//! Client certificates.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::name;

#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub(in crate::cli) struct CaArgs {
    #[command(subcommand)]
    pub command: Option<CaCommand>,
    /// The user whom the certificate names.
    #[arg(required = true, value_parser = name)]
    pub user: Option<String>,
    /// Into this new file, key and certificate in one, for its owner alone; without --out, into a context.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "kubeconfig"])]
    pub out: Option<PathBuf>,
    /// What the context is called, in the kubeconfig and after --context; the user's name and the machine's if it is not
    /// said.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: Option<String>,
    /// Into which kubeconfig, if not the usual one.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// What it is for, in words.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CaCommand {
    /// Show certificates.
    List,
    /// End certificates, and what they were renewed to, at once.
    Revoke {
        /// Names of certificates, as list shows them.
        #[arg(required = true, value_parser = name)]
        names: Vec<String>,
    },
}
