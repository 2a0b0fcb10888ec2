//! Client certificates, and those who come with them.

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
    #[command(flatten)]
    pub into: IntoArgs,
    /// What it is for, in words.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
}

/// Where key and certificate go.
#[derive(Debug, Args)]
pub(in crate::cli) struct IntoArgs {
    /// Into this new file, key and certificate in one, for its owner alone; without --out, into a context.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "kubeconfig"])]
    pub out: Option<PathBuf>,
    /// What the context is called, in the kubeconfig and after --context; after whom it names and the machine if it is
    /// not said.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: Option<String>,
    /// Into which kubeconfig, if not the usual one.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EnrolArgs {
    /// The file that holds what `berth token --qr` shows, - for standard input; asked for on the terminal if it is not
    /// said.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// What it is for, in words.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    #[command(flatten)]
    pub into: IntoArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DeviceArgs {
    #[command(subcommand)]
    pub command: DeviceCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DeviceCommand {
    /// Show the devices of the namespace.
    List,
    /// Show devices.
    Get {
        /// Their names.
        #[arg(required = true, value_parser = name)]
        names: Vec<String>,
    },
    /// Make a device; it comes in by `berth token --qr --device NAME`, or with a certificate that is issued here.
    Create {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
        /// The role that it has in the namespace; without one it reads its own record, and nothing else.
        #[arg(long, value_parser = name)]
        role: Option<String>,
        /// What it is, in words.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Remove devices, whose certificates end at once.
    Delete {
        /// Their names.
        #[arg(required = true, value_parser = name)]
        names: Vec<String>,
    },
    /// End the certificates of devices at once, and keep the record.
    Revoke {
        /// Their names.
        #[arg(required = true, value_parser = name)]
        names: Vec<String>,
    },
    /// Make a certificate for a device, good for 90 days; the device renews it.
    IssueCertificate {
        /// Its name.
        #[arg(value_name = "NAME", value_parser = name)]
        device: String,
        #[command(flatten)]
        into: IntoArgs,
    },
    /// Let a machine in that shows a code (`berth login --device`), as oneself. Asks for a login of the last 15 minutes.
    Approve {
        /// The code, with or without its dash.
        code: String,
        /// It is the machine that is meant; without it that is asked.
        #[arg(long)]
        yes: bool,
    },
    /// Refuse a machine that shows a code.
    Deny {
        /// The code, with or without its dash.
        code: String,
    },
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
