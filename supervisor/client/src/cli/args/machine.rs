//! The machine itself, and the programs.

use std::path::PathBuf;

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
    /// Say whether everything serves that should: services, and the parts of the supervisor. Exit codes: 0 yes, 1 no.
    Health(HealthArgs),
    /// Show which versions of the machine's system there are, which runs, and what the newest start came to.
    Status,
    /// Install a newer version of the machine's system beside the present one.
    ///
    /// It is tried at the next start. If then not everything serves that should, the machine goes back by itself.
    Update(SystemUpdateArgs),
    /// Start the machine anew with the version before, as long as that was found good and is still there.
    Rollback,
    /// Start the machine anew. Services are stopped in order first.
    Reboot,
    /// Switch the machine off. Services are stopped in order first.
    Poweroff,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SystemUpdateArgs {
    /// URL of a folder with a folder for each channel, or the path of a folder on the machine that holds one version; by
    /// default spec.updates.source of the Settings berth.
    #[arg(long, value_name = "URL|FOLDER")]
    pub source: Option<String>,
    /// Which channel; by default spec.updates.channel of the Settings berth.
    #[arg(long)]
    pub channel: Option<String>,
    /// Start the machine anew as soon as the version is there and nothing else is at work.
    #[arg(long)]
    pub restart: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HealthArgs {
    /// Wait until it does, for as long as spec.updates.healthTimeoutSeconds of the Settings berth says.
    #[arg(long)]
    pub wait: bool,
    /// Keep what came of it in this file, for the next start of the machine.
    #[arg(long, value_name = "FILE", requires = "wait")]
    pub record: Option<PathBuf>,
    /// The version of the machine's system, as it is recorded.
    #[arg(long, value_name = "VERSION", requires = "record", default_value = "")]
    pub image_version: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct VersionArgs {
    /// Only of this program.
    #[arg(long, action = ArgAction::SetTrue)]
    pub client: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigArgs {
    /// Write it into this file, by default the one that kubectl writes: the first of $KUBECONFIG, or ~/.kube/config.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub write: Option<Option<PathBuf>>,
    /// How the machine is called there.
    #[arg(long, default_value = "berth", value_parser = super::name)]
    pub name: String,
    /// The file that holds a token, - for standard input: the configuration is for another machine, and holds the token
    /// itself.
    #[arg(long, value_name = "FILE", conflicts_with = "write")]
    pub token: Option<PathBuf>,
    /// Show a script for another machine, which puts the configuration into its kubeconfig. It holds the token: it is to
    /// be kept as a secret, and goes through a pipe best: `berth config --token FILE --script | ssh HOST sh`.
    #[arg(long, requires = "token")]
    pub script: bool,
    /// Where the machine is reached from there, if not at the address that is used now: https://HOST:PORT.
    #[arg(long, value_name = "URL", requires = "token")]
    pub url: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DiagnosticsArgs {
    /// Make no service to be thrown away: only look.
    #[arg(long)]
    pub no_loopback: bool,
    /// Remove what belongs to nothing and start what should run and does not. Data are never touched.
    #[arg(long)]
    pub repair: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SetupArgs {
    /// Do every step again, and then remove what belongs to nothing and start what should run. Data are never touched.
    #[arg(long)]
    pub repair: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SupportArgs {
    /// The file to make, which must not be there yet; by default berth-support-TIME.tar.zst.
    pub file: Option<PathBuf>,
    /// With what services wrote, which may hold anything.
    #[arg(long)]
    pub with_service_logs: bool,
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
