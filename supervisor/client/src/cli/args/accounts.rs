//! Who has an account, what he may do, and how he logs in.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{duration, name};

#[derive(Debug, Args)]
pub(in crate::cli) struct LoginArgs {
    /// Who logs in; asked for if it is not said.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub user: Option<String>,
    /// The file that holds the password, - for standard input; asked for on the terminal if it is not said.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// The file that holds the code of the authenticator app, or a recovery code; asked for if one is needed.
    #[arg(long, value_name = "FILE")]
    pub code_file: Option<PathBuf>,
    /// With no password: show a code, and wait until somebody who is logged in elsewhere lets this machine in, as himself
    /// (`berth device approve`).
    #[arg(long, conflicts_with_all = ["user", "password_file", "code_file"])]
    pub device: bool,
    /// What the machine is called from then on, in the kubeconfig and after --context; its host name if it is not said.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: Option<String>,
    /// Into which kubeconfig, if not the usual one.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CanArgs {
    /// What is to be done: get, list, watch, create, update, patch, delete, deletecollection, exec.
    pub verb: String,
    /// Of what: KIND, KIND/SUBRESOURCE, or a path that begins with /.
    pub resource: String,
    /// Of this one alone.
    #[arg(value_parser = name)]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UserArgs {
    #[command(subcommand)]
    pub command: UserCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum UserCommand {
    /// Show users.
    List,
    /// Make a user.
    Create {
        /// His name.
        #[arg(value_parser = name)]
        name: String,
        /// How he is called by others.
        #[arg(long)]
        display_name: Option<String>,
        /// A role that he is granted, on the whole machine or in the namespace of --in.
        #[arg(long, value_parser = name)]
        role: Option<String>,
        /// Where he is granted it.
        #[arg(long = "in", value_name = "NAMESPACE", value_parser = name, requires = "role")]
        inside: Option<String>,
        /// The file that holds his password, - for standard input; without one he cannot log in.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Set a user's password, which ends his sessions.
    Password {
        /// His name.
        #[arg(value_parser = name)]
        name: String,
        /// The file that holds it, - for standard input; asked for on the terminal if it is not said.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// The file that holds its hash instead, a PHC string of Argon2id; - for standard input.
        #[arg(long, value_name = "FILE", conflicts_with = "password_file")]
        password_hash_file: Option<PathBuf>,
    },
    /// Keep a user out, with all that he has.
    Disable {
        /// His name.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Let a user in again.
    Enable {
        /// His name.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Need codes of an authenticator app to log in, or no longer.
    Totp(TotpArgs),
    /// Passkeys, which browsers make and show in the place of codes.
    Passkey(PasskeyArgs),
    /// Remove a user, his keys and his sessions.
    Delete {
        /// His name.
        #[arg(value_parser = name)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TotpArgs {
    #[command(subcommand)]
    pub command: TotpCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TotpCommand {
    /// Show a secret for an authenticator app, and confirm it with a code. Asks for a login of the last 15 minutes.
    Enable,
    /// Confirm with a code that the app has the secret; shows recovery codes.
    Confirm {
        /// The file that holds the code, - for standard input; asked for on the terminal if it is not said.
        #[arg(long, value_name = "FILE")]
        code_file: Option<PathBuf>,
    },
    /// Take the second factor away: one's own with a code, or that of somebody who has lost his app.
    Disable {
        /// Whose; one's own if it is not said.
        #[arg(value_parser = name)]
        name: Option<String>,
        /// The file that holds the code, - for standard input; asked for on the terminal if it is not said.
        #[arg(long, value_name = "FILE")]
        code_file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct InviteArgs {
    /// How he will be called; he chooses, if it is not said.
    #[arg(value_parser = name)]
    pub name: Option<String>,
    /// The role that he is granted, on the whole machine or in the namespace of --in.
    #[arg(long, value_parser = name)]
    pub role: String,
    /// Where he is granted it.
    #[arg(long = "in", value_name = "NAMESPACE", value_parser = name)]
    pub inside: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AcceptArgs {
    /// The file that holds the link, - for standard input; asked for on the terminal if it is not said.
    #[arg(long, value_name = "FILE")]
    pub link_file: Option<PathBuf>,
    /// How one wants to be called, if the invitation leaves that open.
    #[arg(long, value_parser = name)]
    pub user: Option<String>,
    /// The file that holds the password that one wants, - for standard input; asked for on the terminal if it is not said.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct InvitationArgs {
    #[command(subcommand)]
    pub command: InvitationCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum InvitationCommand {
    /// Show who was invited and has not come yet.
    List,
    /// Take invitations back.
    Revoke {
        /// Who was invited.
        #[arg(required = true, value_parser = name)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PasskeyArgs {
    #[command(subcommand)]
    pub command: PasskeyCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PasskeyCommand {
    /// Show a user's passkeys.
    List {
        /// Whose; one's own if it is not said.
        #[arg(value_parser = name)]
        name: Option<String>,
    },
    /// Take a passkey away: one's own, after a login of the last 15 minutes, or that of somebody who has lost it.
    Remove {
        /// What its user calls it.
        passkey: String,
        /// Whose; one's own if it is not said.
        #[arg(long, value_name = "NAME", value_parser = name)]
        user: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RoleArgs {
    #[command(subcommand)]
    pub command: RoleCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RoleCommand {
    /// Show roles.
    List,
    /// Show who is granted what.
    Bindings,
    /// Grant a role.
    Grant(GrantArgs),
    /// Take a role back.
    Revoke(GrantArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct GrantArgs {
    /// The role.
    #[arg(value_parser = name)]
    pub role: String,
    /// A user, or a service account as NAMESPACE/NAME.
    pub subject: String,
    /// In this namespace; on the whole machine if it is not said.
    #[arg(long = "in", value_name = "NAMESPACE", value_parser = name)]
    pub inside: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ApiKeyArgs {
    #[command(subcommand)]
    pub command: ApiKeyCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ApiKeyCommand {
    /// Show keys, but for what they are.
    List,
    /// Make a key, which is shown this once.
    Create {
        /// On whose behalf it acts.
        #[arg(value_parser = name)]
        user: String,
        /// What it is called, after its user and a dot; drawn if it is not said.
        #[arg(long, value_parser = name)]
        name: Option<String>,
        /// It may do no more than this role.
        #[arg(long, value_parser = name)]
        role: Option<String>,
        /// It is good in this namespace alone.
        #[arg(long = "in", value_name = "NAMESPACE", value_parser = name)]
        inside: Option<String>,
        /// How long it is good, e.g. 720h; without end if it is not said.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires_in: Option<Duration>,
    },
    /// End keys.
    Delete {
        /// Their names.
        #[arg(required = true, value_parser = name)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SessionArgs {
    #[command(subcommand)]
    pub command: SessionCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SessionCommand {
    /// Show who is logged in, from where.
    List,
    /// Log somebody out.
    Revoke {
        /// Names of sessions.
        #[arg(required = true, value_parser = name)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TokenArgs {
    /// The service account in the namespace; without one, the token of the session that --context names.
    #[arg(value_parser = name)]
    pub service_account: Option<String>,
    /// How long it is good, 10m to 8760h.
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "service_account")]
    pub expires_in: Option<Duration>,
    /// In the form in which kubectl asks for it.
    #[arg(long, hide = true)]
    pub exec_credential: bool,
    /// A bootstrap token: with it somebody who has no certificate has one made (`berth enrol`), once, within five minutes.
    /// It is shown as text and as a QR code, with the machine's address and the fingerprint of its authority.
    #[arg(long, conflicts_with_all = ["service_account", "exec_credential"])]
    pub qr: bool,
    /// The user whom that certificate names; whoever asks, if nobody is named.
    #[arg(long, value_name = "NAME", value_parser = name, requires = "qr", conflicts_with = "device")]
    pub user: Option<String>,
    /// The device in the namespace that it names.
    #[arg(long, value_name = "NAME", value_parser = name, requires = "qr")]
    pub device: Option<String>,
    /// Where the machine is reached, if not at the address that is used now: https://HOST:PORT.
    #[arg(long, value_name = "URL", requires = "qr")]
    pub url: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditArgs {
    #[command(subcommand)]
    pub command: AuditCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// Show what was done and refused, the latest last.
    List(AuditListArgs),
    /// Examine every record and every signed checkpoint. Exit codes: 0 whole, 1 something was changed or is missing.
    Verify,
    /// Write all records to standard output, a line of JSON each, with the hashes that prove their order.
    Export,
    /// Look at what protects this machine: encryption, TLS, second factors, keys, updates, backups; each with what to do.
    /// Exit codes: 0 all is good, 1 something is to be done or is not known.
    Report,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditListArgs {
    /// Only what this one did, e.g. user:alice.
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
    /// Only this, e.g. delete.
    #[arg(long)]
    pub verb: Option<String>,
    /// Only about objects of this name.
    #[arg(long, value_name = "NAME")]
    pub about: Option<String>,
    /// Only what was refused.
    #[arg(long)]
    pub denied: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ClaimArgs {
    /// The code on the machine's console; asked for if it is not said.
    #[arg(long)]
    pub code: Option<String>,
    /// The name of the user who becomes owner; asked for if it is not said.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub user: Option<String>,
    /// The file that holds his password, - for standard input; asked for on the terminal if it is not said.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}
