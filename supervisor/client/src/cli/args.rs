//! Words and flags of the command line. Here is what every command takes and the list of them; the
//! flags of each are in the file of their area.

mod accounts;
mod certificates;
mod changes;
mod images;
mod machine;
mod network;
mod objects;
mod services;
mod volumes;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(super) use accounts::{
    AcceptArgs, ApiKeyArgs, ApiKeyCommand, AuditArgs, AuditCommand, AuditListArgs, CanArgs, ClaimArgs, GrantArgs,
    InvitationArgs, InvitationCommand, InviteArgs, LoginArgs, PasskeyCommand, RoleArgs, RoleCommand, SessionArgs,
    SessionCommand, TokenArgs, TotpCommand, UserArgs, UserCommand,
};
pub(super) use certificates::{CaArgs, CaCommand, DeviceArgs, DeviceCommand, EnrolArgs, IntoArgs};
pub(super) use changes::{AddArgs, ChangeSetArgs, ChangeSetCommand, Preferred};
pub(super) use images::{ImageArgs, ImageCommand};
pub(super) use machine::{
    ConfigArgs, DiagnosticsArgs, HealthArgs, SetupArgs, SupportArgs, SystemArgs, SystemCommand, SystemUpdateArgs,
    TopArgs, TopOrder, VersionArgs,
};
pub(super) use network::{DnsArgs, DnsCommand, NetworkArgs, NetworkCommand, PolicyArgs, PolicyCommand};
pub(super) use objects::{ApplyArgs, DeleteArgs, GetArgs, ResourceArgs};
pub(super) use services::{
    ExecArgs, InstallArgs, LogsArgs, NamesArgs, RevisionsArgs, RollbackArgs, StatusArgs, UninstallArgs, UpdateArgs,
};
pub(super) use volumes::{VolumeArgs, VolumeCommand};
pub(super) use work::{EventsArgs, OperationArgs, OperationCommand, OperationsArgs, RelationArgs};

use super::output::Output;
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

const EXIT_CODES: &str = "Without --server or --context it speaks to this machine's own socket, as root and without a login.\n\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 denied, 5 conflict, 6 timed out.\n\
Of diagnostics: 0 healthy, 1 problems, 7 the probe could not run.";

#[derive(Debug, Args)]
#[command(next_help_heading = "For every command")]
pub(super) struct Global {
    /// The server: https://HOST:PORT or unix:///PATH.
    #[arg(long, global = true, env = "BERTH_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// The machine where somebody is logged in, as `berth login` called it; goes before --server.
    #[arg(long, global = true, env = "BERTH_CONTEXT", value_name = "NAME", value_parser = name)]
    pub context: Option<String>,
    /// The file that holds the token.
    #[arg(long, global = true, env = "BERTH_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The file that holds a client certificate and its key, as `berth ca NAME --out FILE` makes it.
    #[arg(long, global = true, env = "BERTH_CERTIFICATE", value_name = "FILE")]
    pub certificate: Option<PathBuf>,
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
    /// Print the request as a curl command instead of sending it (what an edit is made from is read).
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
    /// Show what services and the machine use: processor, memory, disks, processes.
    Top(TopArgs),
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
    /// Stage edits of several resources, see what they come to, and make them all at once.
    #[command(name = "changeset", visible_alias = "cs")]
    ChangeSet(ChangeSetArgs),
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
    /// Become the owner of a machine that nobody owns, by the code on its console; --server says where, --ca its authority.
    Claim(ClaimArgs),
    /// Log in to a machine over the network, and tell kubectl how to find it: --server says where, --ca its authority.
    Login(LoginArgs),
    /// End the session of --context, here and on the machine.
    Logout,
    /// Show who asks, and what he is granted.
    Whoami,
    /// Ask whether something is allowed, e.g. `berth can-i create bundles`. Exit codes: 0 yes, 4 no.
    #[command(name = "can-i")]
    CanI(CanArgs),
    /// Show, make and change users.
    User(UserArgs),
    /// Invite somebody, who sets his password himself; shows a link that is good once, for 7 days.
    Invite(InviteArgs),
    /// Take an invitation, and set a password: --server says where, --ca its authority.
    Accept(AcceptArgs),
    /// Show invitations, and take them back.
    Invitation(InvitationArgs),
    /// Show roles, grant them, take them back.
    Role(RoleArgs),
    /// Show, make and end keys for programs.
    #[command(name = "apikey")]
    ApiKey(ApiKeyArgs),
    /// Show who is logged in, and log somebody out.
    Session(SessionArgs),
    /// Make a client certificate for a user, show them, and end them.
    ///
    /// The key is made here and stays here. The certificate is good for seven days; that of a context is renewed whenever
    /// it is used and a third of that is left.
    Ca(CaArgs),
    /// Show, make and end devices, which ask by themselves.
    Device(DeviceArgs),
    /// Have a client certificate from a machine by what `berth token --qr` showed there: the machine is examined by its
    /// fingerprint before the token is sent, and the key is made here and stays here.
    Enrol(EnrolArgs),
    /// Make a token for a service account, or show the one of --context; with --qr, one to enrol with.
    Token(TokenArgs),
    /// Show who did what, and examine whether the record of it is whole.
    Audit(AuditArgs),
    /// Look after the machine itself.
    System(SystemArgs),
    /// Bring Berth up on this very machine; after a failure at any step the same command goes on.
    Setup(SetupArgs),
    /// Examine the machine: everything Berth needs of it, its own parts, what was left behind, and a service made to be
    /// thrown away. Exit codes: 0 healthy, 1 problems, 7 that service could not be tried.
    Diagnostics(DiagnosticsArgs),
    /// Make one archive for whoever helps, without secrets: objects, journals, units, disks, rules, an examination.
    SupportBundle(SupportArgs),
    /// Show how kubectl finds this machine, or write it into a kubeconfig.
    ///
    /// The token stays in its own file, which the kubeconfig names. What else a file holds stays as it is, but for
    /// comments.
    Config(ConfigArgs),
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
