//! Installing services, changing them, and looking at them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::super::ports::{PortFlag, PublishFlag};
use super::super::settings::{EnvFlag, MountFlag, ObjectFlag, SetFlag, VolumeFlag};
use super::{RelationArgs, duration, name};

#[derive(Debug, Args)]
pub(in crate::cli) struct InstallArgs {
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
pub(in crate::cli) struct NamesArgs {
    /// Names of services.
    #[arg(required = true, value_parser = name)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub relations: RelationArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UninstallArgs {
    /// Names of services.
    #[arg(required = true, value_parser = name)]
    pub names: Vec<String>,
    /// Keep the volumes with all data (the default): a service of the same name finds them again.
    #[arg(long, conflicts_with = "erase_volumes")]
    pub keep_volumes: bool,
    /// Destroy the volumes with all data, for good.
    #[arg(long, conflicts_with = "no_wait")]
    pub erase_volumes: bool,
    #[command(flatten)]
    pub relations: RelationArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UpdateArgs {
    /// Name of the service.
    #[arg(value_parser = name)]
    pub name: String,
    /// The image to change to; without it, whatever its tag means now.
    #[arg(long, conflicts_with_all = ["after", "before", "not_with"])]
    pub image: Option<String>,
    #[command(flatten)]
    pub relations: RelationArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RollbackArgs {
    /// Name of the service.
    #[arg(value_parser = name)]
    pub name: String,
    /// The number of the revision, as `berth revisions` shows it. Data in volumes stays as it is.
    #[arg(long, value_name = "NUMBER")]
    pub to: Option<u64>,
    #[command(flatten)]
    pub relations: RelationArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RevisionsArgs {
    /// Name of the service.
    #[arg(value_parser = name)]
    pub name: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Name of the service; without it, all of them.
    #[arg(value_parser = name)]
    pub name: Option<String>,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Go on showing changes.
    #[arg(short, long)]
    pub watch: bool,
    /// Where each of its variables comes from: the image, the namespace, a ConfigMap or Secret, or the bundle itself.
    #[arg(long, requires = "name", conflicts_with_all = ["watch", "all_namespaces"])]
    pub env: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
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
pub(in crate::cli) struct ExecArgs {
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
