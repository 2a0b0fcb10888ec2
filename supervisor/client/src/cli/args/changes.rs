//! Edits that wait to be made together.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::super::settings::{EnvFlag, SetFlag};
use super::name;

#[derive(Debug, Args)]
pub(in crate::cli) struct ChangeSetArgs {
    #[command(subcommand)]
    pub command: ChangeSetCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ChangeSetCommand {
    /// Make an empty change set.
    New {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Show the change sets.
    List {
        /// Of all namespaces.
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        /// Go on showing changes.
        #[arg(short, long)]
        watch: bool,
    },
    /// Stage an edit; nothing acts until the set is applied.
    Add(Box<AddArgs>),
    /// Show who has staged what.
    Show {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Show what applying it would do, and what it would restart.
    Plan {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Make all edits at once, or none.
    Apply {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Lead the edits on to what is there now.
    Rebase {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
        /// Whose value a field gets that the set and somebody else have changed.
        #[arg(long, value_enum)]
        prefer: Option<Preferred>,
    },
    /// Drop a change set with all that is staged in it.
    Discard {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AddArgs {
    /// The change set.
    #[arg(value_parser = name)]
    pub name: String,
    /// A bundle that is there or staged, or KIND/NAME.
    #[arg(required_unless_present = "file")]
    pub object: Option<String>,
    /// What this manifest says, as `berth apply` does; `-` reads standard input.
    #[arg(short, long, conflicts_with = "object")]
    pub file: Vec<PathBuf>,
    /// Any field of the spec, e.g. image=registry/web:2 or ports[0].hostPort=8080.
    #[arg(long, value_name = "PATH=VALUE", requires = "object")]
    pub set: Vec<SetFlag>,
    /// An environment variable, e.g. MODE=fast.
    #[arg(long, value_name = "NAME=VALUE", requires = "object")]
    pub env: Vec<EnvFlag>,
    /// Delete it.
    #[arg(long, requires = "object", conflicts_with_all = ["set", "env"])]
    pub delete: bool,
    /// Give the bundle this name; what refers to it follows.
    #[arg(long, value_name = "NAME", value_parser = name, requires = "object", conflicts_with_all = ["set", "env", "delete"])]
    pub rename: Option<String>,
}

/// Whose value wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Preferred {
    /// That of the change set.
    Ours,
    /// That which is there now.
    Theirs,
}
