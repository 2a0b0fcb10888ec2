//! Resources of any kind.

use std::path::PathBuf;

use clap::Args;

use super::name;

#[derive(Debug, Args)]
pub(in crate::cli) struct GetArgs {
    /// A kind, e.g. bundles, or KIND/NAME.
    pub kind: String,
    /// Names.
    #[arg(value_parser = name)]
    pub names: Vec<String>,
    /// Only with these labels, e.g. app=web,tier!=test.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Only with these fields, e.g. status.phase=Failed.
    #[arg(long)]
    pub field_selector: Option<String>,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Go on showing changes.
    #[arg(short, long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ResourceArgs {
    /// A kind, e.g. bundle, or KIND/NAME.
    pub kind: String,
    /// Its name.
    #[arg(value_parser = name)]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ApplyArgs {
    /// A manifest or a directory of them; `-` reads standard input.
    #[arg(short, long = "filename", visible_alias = "file", required = true)]
    pub file: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DeleteArgs {
    /// A kind, e.g. bundle, or KIND/NAME.
    #[arg(required_unless_present = "file")]
    pub kind: Option<String>,
    /// Names.
    #[arg(value_parser = name)]
    pub names: Vec<String>,
    /// What this manifest names; `-` reads standard input.
    #[arg(short, long = "filename", visible_alias = "file", conflicts_with = "kind")]
    pub file: Vec<PathBuf>,
    /// It is no failure if it is not there.
    #[arg(long)]
    pub ignore_not_found: bool,
}
