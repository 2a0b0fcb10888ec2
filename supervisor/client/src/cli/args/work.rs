//! What happened, and the long work that is under way.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::{duration, name};

#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArgs {
    /// Only about this, e.g. bundle/web or web.
    #[arg(long = "for", value_name = "[KIND/]NAME")]
    pub regarding: Option<String>,
    /// Only of this level, warning being the higher one.
    #[arg(long, value_enum)]
    pub level: Option<Level>,
    /// Only with this reason, e.g. StartFailed.
    #[arg(long)]
    pub reason: Option<String>,
    /// Only what was seen within this time, e.g. 10m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub since: Option<Duration>,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Go on showing new ones.
    #[arg(short, long)]
    pub watch: bool,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Level {
    /// What goes well.
    Normal,
    /// What somebody may have to look at.
    Warning,
}

/// How what is asked for stands to other operations.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Among other operations, by their names")]
pub(in crate::cli) struct RelationArgs {
    /// Only when this operation has succeeded; if it fails, this one does, too. May be given again.
    #[arg(long, value_name = "OPERATION", value_parser = name)]
    pub after: Vec<String>,
    /// Rather before this operation, if that has not begun.
    #[arg(long, value_name = "OPERATION", value_parser = name)]
    pub before: Vec<String>,
    /// Never at the same time as this operation.
    #[arg(long, value_name = "OPERATION", value_parser = name)]
    pub not_with: Vec<String>,
}

impl RelationArgs {
    /// As an action takes them; nothing if there are none.
    pub fn body(&self) -> Value {
        let lists = [("requires", &self.after), ("prefersBefore", &self.before), ("conflictsWith", &self.not_with)];
        let given = lists.into_iter().filter(|(_, names)| !names.is_empty());
        let relations: Map<String, Value> = given.map(|(list, names)| (list.to_owned(), json!(names))).collect();
        if relations.is_empty() { Value::Null } else { json!({ "relations": relations }) }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct OperationsArgs {
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Go on showing changes.
    #[arg(short, long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct OperationArgs {
    #[command(subcommand)]
    pub command: OperationCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum OperationCommand {
    /// Show an operation with its steps.
    Show {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
        /// Follow it to its end; the exit code is that of the operation.
        #[arg(short, long)]
        watch: bool,
    },
    /// End an operation that is not done; what it has done so far is undone.
    Cancel {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Let an operation go on that is held.
    Release {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
    /// End an operation that is held.
    Reject {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
        /// Why, for whoever asked for it.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Try once more what an operation was to do that failed or was cancelled.
    Retry {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
}
