//! Words and flags of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::output::Output;
use super::ports::{PortFlag, PublishFlag};
use super::settings::{EnvFlag, MountFlag, ObjectFlag, SetFlag, VolumeFlag};
use super::values::{ConfigMapArgs, SecretArgs};

/// Runs services on a Berth machine.
#[derive(Debug, Parser)]
#[command(name = "berth", version, after_help = EXIT_CODES, propagate_version = false)]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_CODES: &str = "Without --server it speaks to this machine's own socket, as root and without a login.\n\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 denied, 5 conflict, 6 timed out.";

#[derive(Debug, Args)]
#[command(next_help_heading = "For every command")]
pub(super) struct Global {
    /// The server: https://HOST:PORT or unix:///PATH.
    #[arg(long, global = true, env = "BERTH_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// The file that holds the token.
    #[arg(long, global = true, env = "BERTH_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The certificate authority of the server, as PEM.
    #[arg(long, global = true, env = "BERTH_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The namespace.
    #[arg(short, long, global = true, env = "BERTH_NAMESPACE", default_value = "default", value_parser = name)]
    pub namespace: String,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Wait until it is done (the default for install, update, rollback, start, stop, restart, uninstall and delete).
    #[arg(long, global = true, overrides_with = "no_wait")]
    pub wait: bool,
    /// Do not wait; say how to follow it.
    #[arg(long, global = true, overrides_with = "wait")]
    pub no_wait: bool,
    /// Wait no longer than this, e.g. 90s or 5m (10m if not given).
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Print the request as a curl command instead of sending it.
    #[arg(long, global = true)]
    pub curl: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Install a service from an image, or from a Bundle in a file.
    Install(InstallArgs),
    /// Start a stopped service.
    Start(NamesArgs),
    /// Stop a service.
    Stop(NamesArgs),
    /// Stop a service and start it again.
    Restart(NamesArgs),
    /// Bring a service to a newer image: the one given, or a newer one behind its tag.
    Update(UpdateArgs),
    /// Bring a service back to what it was: the revision that served before, or the one given.
    Rollback(RollbackArgs),
    /// Show the revisions of a service, the latest last.
    Revisions(RevisionsArgs),
    /// Remove a service and all that belongs to it but its volumes, which are kept.
    Uninstall(UninstallArgs),
    /// Show how services fare.
    Status(StatusArgs),
    /// Show what a service writes.
    Logs(LogsArgs),
    /// Run a command in a service; the exit code is the command's.
    Exec(ExecArgs),
    /// Show resources of a kind.
    Get(GetArgs),
    /// Show a resource with its events.
    Describe(ResourceArgs),
    /// Change a resource in an editor: $VISUAL, $EDITOR, or vi.
    Edit(ResourceArgs),
    /// Create or change resources as manifests say. Fields left out stay; `null` removes one.
    Apply(ApplyArgs),
    /// Delete resources.
    Delete(DeleteArgs),
    /// Show what happened, the latest last.
    Events(EventsArgs),
    /// Show long work, the latest last.
    Operations(OperationsArgs),
    /// Show one piece of long work, end it, or try it again.
    Operation(OperationArgs),
    /// Make and change secrets. No command shows a value.
    Secret(SecretArgs),
    /// Make and change configuration.
    #[command(name = "configmap")]
    ConfigMap(ConfigMapArgs),
    /// Show and import images.
    Image(ImageArgs),
    /// Show the networks of bundles.
    Network(NetworkArgs),
    /// Ask who may reach whom.
    Policy(PolicyArgs),
    /// Ask what names bundles are told.
    Dns(DnsArgs),
    /// Show and change the volumes of bundles.
    Volume(VolumeArgs),
    /// Look after the machine itself.
    System(SystemArgs),
    /// Show the versions of this program and of the server.
    Version(VersionArgs),
    /// Print what makes a shell complete commands, e.g. `berth completions bash >/etc/bash_completion.d/berth`.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Write the manual pages.
    #[command(hide = true)]
    Manual {
        /// Into this directory.
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct SystemArgs {
    #[command(subcommand)]
    pub command: SystemCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum SystemCommand {
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
pub(super) struct InstallArgs {
    /// The image: registry/repository[:tag][@sha256:...].
    #[arg(required_unless_present = "file")]
    pub image: Option<String>,
    /// A Bundle, as YAML or JSON; `-` reads standard input.
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    /// The name; by default the image's repository.
    #[arg(long, value_parser = name)]
    pub name: Option<String>,
    /// A port: NAME:PORT[/udp][:HOSTPORT][=lan|none], e.g. http:80=lan. A host port means lan.
    #[arg(long, value_name = "PORT")]
    pub port: Vec<PortFlag>,
    /// A port of the machine that leads to one of the service, e.g. 8080:80 or 5353:53/udp.
    #[arg(long, value_name = "HOST:PORT")]
    pub publish: Vec<PublishFlag>,
    /// An environment variable, e.g. MODE=fast.
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<EnvFlag>,
    /// A disk of its own, encrypted, that outlives the service: NAME:PATH:SIZE, e.g. data:/data:10Gi.
    #[arg(long, value_name = "VOLUME")]
    pub volume: Vec<VolumeFlag>,
    /// Every key of an object as a variable: secret/NAME or configmap/NAME.
    #[arg(long, value_name = "KIND/NAME")]
    pub env_from: Vec<ObjectFlag>,
    /// Every key of an object as a file in that directory, e.g. secret/db:/run/secrets.
    #[arg(long, value_name = "KIND/NAME:PATH")]
    pub mount: Vec<MountFlag>,
    /// Most memory, e.g. 512Mi.
    #[arg(long)]
    pub memory: Option<String>,
    /// Most processor time in cores, e.g. 0.5.
    #[arg(long)]
    pub cpu: Option<String>,
    /// Most processes and threads.
    #[arg(long)]
    pub pids: Option<u64>,
    /// Any field of the spec, e.g. restart=always or ports[0].hostPort=8080.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<SetFlag>,
}

#[derive(Debug, Args)]
pub(super) struct NamesArgs {
    /// Names of services.
    #[arg(required = true, value_parser = name)]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct UninstallArgs {
    /// Names of services.
    #[arg(required = true, value_parser = name)]
    pub names: Vec<String>,
    /// Keep the volumes with all data (the default): a service of the same name finds them again.
    #[arg(long, conflicts_with = "erase_volumes")]
    pub keep_volumes: bool,
    /// Destroy the volumes with all data, for good.
    #[arg(long, conflicts_with = "no_wait")]
    pub erase_volumes: bool,
}

#[derive(Debug, Args)]
pub(super) struct VolumeArgs {
    #[command(subcommand)]
    pub command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum VolumeCommand {
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
    },
    /// Close the volume of a stopped service until it is unlocked.
    Lock {
        /// As `berth volume list` shows it.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Let a locked volume be used again, if its key opens it.
    Unlock {
        /// As `berth volume list` shows it.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Destroy a volume that no service uses, with its key: no copy of its disk can be read any more.
    Erase {
        /// As `berth volume list` shows it.
        #[arg(value_parser = name)]
        name: String,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// Name of the service.
    #[arg(value_parser = name)]
    pub name: String,
    /// The image to change to; without it, whatever its tag means now.
    #[arg(long)]
    pub image: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// Name of the service.
    #[arg(value_parser = name)]
    pub name: String,
    /// The number of the revision, as `berth revisions` shows it. Data in volumes stays as it is.
    #[arg(long, value_name = "NUMBER")]
    pub to: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct RevisionsArgs {
    /// Name of the service.
    #[arg(value_parser = name)]
    pub name: String,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Name of the service; without it, all of them.
    #[arg(value_parser = name)]
    pub name: Option<String>,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Go on showing changes.
    #[arg(short, long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Name of the service.
    #[arg(value_parser = name)]
    pub name: String,
    /// Go on showing what is written.
    #[arg(short, long)]
    pub follow: bool,
    /// Only so many lines from the end.
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// Only what is not older than this, e.g. 10m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub since: Option<Duration>,
    /// Of the run before the present one.
    #[arg(short, long)]
    pub previous: bool,
    /// With the time of each line.
    #[arg(long)]
    pub timestamps: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Pass standard input on.
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// As this user of the image, e.g. www-data or 33; by default the service's own.
    #[arg(short, long)]
    pub user: Option<String>,
    /// Name of the service.
    #[arg(value_parser = name)]
    pub name: String,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
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
pub(super) struct ResourceArgs {
    /// A kind, e.g. bundle, or KIND/NAME.
    pub kind: String,
    /// Its name.
    #[arg(value_parser = name)]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// A manifest or a directory of them; `-` reads standard input.
    #[arg(short, long = "filename", visible_alias = "file", required = true)]
    pub file: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
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

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
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
pub(super) enum Level {
    /// What goes well.
    Normal,
    /// What somebody may have to look at.
    Warning,
}

#[derive(Debug, Args)]
pub(super) struct OperationsArgs {
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Go on showing changes.
    #[arg(short, long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub(super) struct OperationArgs {
    #[command(subcommand)]
    pub command: OperationCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum OperationCommand {
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
    /// Try once more what an operation was to do that failed or was cancelled.
    Retry {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct ImageArgs {
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
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

#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// Only of this program.
    #[arg(long, action = ArgAction::SetTrue)]
    pub client: bool,
}

#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    #[command(subcommand)]
    pub command: NetworkCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// Show who is on which network, by which address, and who reaches them.
    Status,
}

#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    pub command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Say whether a connection is allowed or denied, and by which rule.
    Debug {
        /// Who begins: NAME, NAMESPACE/NAME or an IP address.
        #[arg(value_parser = party)]
        from: String,
        /// With whom, in the same way.
        #[arg(value_parser = party)]
        to: String,
        /// The port, e.g. 5432 or 53/udp; without it, every declared one.
        port: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct DnsArgs {
    #[command(subcommand)]
    pub command: DnsCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum DnsCommand {
    /// Say what a bundle is told when it asks for a name.
    Lookup {
        /// A name, e.g. db, db.default, _http._tcp.db or 3.128.213.10.in-addr.arpa.
        name: String,
        /// Who asks: NAME or NAMESPACE/NAME.
        #[arg(long, value_name = "BUNDLE", value_parser = party)]
        from: String,
    },
}

/// A name with or without its namespace, or an address.
fn party(text: &str) -> Result<String, String> {
    let (namespace, own) = text.split_once('/').unwrap_or(("default", text));
    name(namespace).and_then(|_| name(own)).map(|_| text.to_owned())
}

/// A name that cannot leave its place in a path. All other rules are the server's.
pub(super) fn name(text: &str) -> Result<String, String> {
    match text {
        "" | "." | ".." => Err("this cannot be a name".to_owned()),
        text if text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) => {
            Err("a name holds no slash and no space".to_owned())
        }
        text => Ok(text.to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let help = || "write a time like 90s, 5m or 1h30m".to_owned();
    let seconds = text.parse::<u64>().map(Duration::from_secs);
    let written = || text.parse::<jiff::SignedDuration>().map_err(|_| help());
    seconds.or_else(|_| Duration::try_from(written()?).map_err(|_| help()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let seconds = |text| duration(text).map(|time| time.as_secs());
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert_eq!(seconds("-5m"), Err("write a time like 90s, 5m or 1h30m".to_owned()));
        assert_eq!(seconds("soon"), Err("write a time like 90s, 5m or 1h30m".to_owned()));
    }

    #[test]
    fn a_name_cannot_lead_out_of_its_place() {
        for bad in ["", ".", "..", "a/b", "a b", "a\n"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(name("web-1.r2"), Ok("web-1.r2".to_owned()));
    }
}
