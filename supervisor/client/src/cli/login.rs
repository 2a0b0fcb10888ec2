//! `berth login` and `logout`, and the server of a context where somebody is logged in.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use berth_model::login::{Claim, Login, Refresh, Tokens};
use berth_model::resource::Certificate;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use reqwest::Method;
use serde_json::{Value, json};

use super::account::trimmed;
use super::args::{ClaimArgs, LoginArgs};
use super::failure::Failure;
use super::{Context, bounded, certificate, config, device_login};
use crate::error::ClientError;
use crate::identity::Identity;
use crate::kubeconfig::{Entry, Proof};
use crate::request::{Body, Request};
use crate::resource::ResourceType;
use crate::server::Server;
use crate::session::{Session, Sessions};
use crate::transport::Transport;

pub(super) fn sessions() -> Result<Sessions, Failure> {
    let found = Sessions::usual(|name| std::env::var_os(name).map(PathBuf::from));
    found.ok_or_else(|| Failure::Usage("there is neither $XDG_CONFIG_HOME nor $HOME to keep sessions in".to_owned()))
}

pub(super) fn unusable(context: &str) -> impl Fn(io::Error) -> Failure {
    move |source| Failure::Session { context: context.to_owned(), source }
}

/// `berth login`.
pub(super) async fn run(context: &Context, args: &LoginArgs) -> Result<(), Failure> {
    nothing_is_printed(context)?;
    let server = context.client.transport().server().clone();
    let host = server.base.host_str().filter(|_| server.socket.is_none());
    let host = host.ok_or_else(|| {
        Failure::Usage("say where: --server https://HOST:6443; on the machine itself root needs no login".to_owned())
    })?;
    let name = args.name.clone().unwrap_or_else(|| host.to_owned());
    let authority = server.ca_file.as_deref().map(bounded::read).transpose()?;
    let tokens = match args.device {
        true => device_login::log_in(context).await?,
        false => with_password(context, args).await?,
    };
    keep(context, &name, &server, &tokens, authority.as_deref())?;
    let entry = Entry {
        name: name.clone(),
        server: server.shown(),
        authority: authority.unwrap_or_default(),
        proof: Proof::Session,
        namespace: context.namespace.clone(),
    };
    let written = config::write(&entry, args.kubeconfig.as_deref())?;
    context.say(&format!("{} is logged in: berth --context {name} status", tokens.user))?;
    context.note(&format!("{} knows the machine, too: kubectl --context {name} get bundles", written.display()))
}

async fn with_password(context: &Context, args: &LoginArgs) -> Result<Tokens, Failure> {
    let user = match &args.user {
        Some(user) => user.clone(),
        None => asked("user: ")?,
    };
    let password = match &args.password_file {
        Some(file) => password_of(context, file)?,
        None => hidden(&format!("password of {user}: "))?,
    };
    let code = args.code_file.as_deref().map(|file| code(context, Some(file))).transpose()?;
    log_in(context, Login { user, password, code, passkey: None }).await
}

/// `berth claim`.
pub(super) async fn claim(context: &Context, args: ClaimArgs) -> Result<(), Failure> {
    nothing_is_printed(context)?;
    let code = args.code.map_or_else(|| asked("code on the console: "), Ok)?;
    let user = args.user.map_or_else(|| asked("name of its owner: "), Ok)?;
    let password = new_password(context, args.password_file.as_deref())?;
    let body = serde_json::to_value(Claim { code, user: user.clone(), password }).unwrap_or_default();
    let request = Request::new(Method::POST, &["auth", "claim"]).body(Body::Json(body));
    context.client.transport().json::<Value>(&request).await?;
    context.say(&format!("{user} owns the machine"))?;
    context.note("log in with: berth login")
}

/// Logs in; a code is asked for when the server says that one is needed.
async fn log_in(context: &Context, mut login: Login) -> Result<Tokens, Failure> {
    let request = |login: &Login| {
        let body = serde_json::to_value(login).unwrap_or_default();
        Request::new(Method::POST, &["auth", "login"]).body(Body::Json(body))
    };
    match context.client.transport().json(&request(&login)).await {
        Err(ClientError::Refused(status)) if login.code.is_none() && needs_code(&status) => {
            login.code = Some(code(context, None)?);
            Ok(context.client.transport().json(&request(&login)).await?)
        }
        tokens => Ok(tokens?),
    }
}

/// Whether it is only the second factor that is missing.
fn needs_code(status: &Status) -> bool {
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    causes
        .into_iter()
        .flatten()
        .any(|cause| (cause.field.as_deref(), cause.reason.as_deref()) == (Some("code"), Some("FieldValueRequired")))
}

/// The code of an authenticator app, in a file or on standard input, or asked for.
pub(super) fn code(context: &Context, file: Option<&Path>) -> Result<String, Failure> {
    match file {
        Some(file) => password_of(context, file),
        None => match io::stdin().is_terminal() {
            true => asked("code of the authenticator app, or a recovery code: "),
            false => Err(Failure::Usage(
                "a code of the authenticator app is needed, and nobody can be asked here: give --code-file (- is \
                 standard input)"
                    .to_owned(),
            )),
        },
    }
}

fn keep(context: &Context, name: &str, server: &Server, tokens: &Tokens, ca: Option<&[u8]>) -> Result<(), Failure> {
    let sessions = sessions()?;
    let _lock = sessions.lock(name).map_err(unusable(name))?;
    let session = Session::of(&server.shown(), tokens, context.now());
    sessions.write_authority(name, ca).map_err(unusable(name))?;
    sessions.write(name, &session, &tokens.access_token).map_err(unusable(name))
}

/// `berth logout`: the session is forgotten here in any case.
pub(super) async fn logout(context: &Context) -> Result<(), Failure> {
    let name = context.name.as_deref();
    let name =
        name.ok_or_else(|| Failure::Usage("say where: --context NAME, as `berth login` called it".to_owned()))?;
    let ended = match sessions()?.read_identity(name).map_err(unusable(name))? {
        None => context.client.transport().json::<Value>(&Request::new(Method::POST, &["auth", "logout"])).await,
        Some(identity) => {
            let kind = ResourceType::of::<Certificate>();
            context.client.delete_dynamic(&kind, "", &identity.name).await
        }
    };
    sessions()?.remove(name).map_err(unusable(name))?;
    match ended {
        Ok(_) => context.say(&format!("logged out of {name}")),
        Err(ClientError::Refused(status)) if status.code == Some(401) => {
            context.say(&format!("logged out of {name}; the session had ended before"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The server of a context, with a token that is good for as long as a request takes.
pub(super) async fn server(context: &str, clock: fn() -> Timestamp) -> Result<Server, Failure> {
    let sessions = sessions()?;
    if let Some(identity) = sessions.read_identity(context).map_err(unusable(context))? {
        return certificate::server(&sessions, context, identity, clock).await;
    }
    let found = |found: io::Result<Option<Session>>| {
        found.map_err(unusable(context))?.ok_or_else(|| Failure::NoSession(context.to_owned()))
    };
    let mut session = found(sessions.read(context))?;
    if !session.is_fresh(clock()) {
        let _lock: File = sessions.lock(context).map_err(unusable(context))?;
        // Somebody else may just have done it.
        session = found(sessions.read(context))?;
        if !session.is_fresh(clock()) {
            session = refreshed(&sessions, context, session, clock).await?;
        }
    }
    let token = sessions.token_file(context);
    Ok(Server::choose(Some(&session.server), Some(token), sessions.authority_file(context))?)
}

async fn refreshed(
    sessions: &Sessions,
    context: &str,
    session: Session,
    clock: fn() -> Timestamp,
) -> Result<Session, Failure> {
    let way = Server::choose(Some(&session.server), None, sessions.authority_file(context))?;
    let body = serde_json::to_value(Refresh { refresh_token: session.refresh_token }).unwrap_or_default();
    let request = Request::new(Method::POST, &["auth", "refresh"]).body(Body::Json(body));
    let tokens: Tokens = Transport::new(way)?.json(&request).await?;
    let session = Session::of(&session.server, &tokens, clock());
    sessions.write(context, &session, &tokens.access_token).map_err(unusable(context))?;
    Ok(session)
}

/// `berth token --context NAME`: what a request there has to show.
pub(super) fn token(context: &Context, exec_credential: bool) -> Result<(), Failure> {
    let name = context.name.as_deref();
    let name = name.ok_or_else(|| Failure::Usage("name a service account, or a machine with --context".to_owned()))?;
    if let Some(identity) = sessions()?.read_identity(name).map_err(unusable(name))? {
        return certificate(context, name, &identity, exec_credential);
    }
    let file = sessions()?.token_file(name);
    let token = bounded::text(&file)?;
    if !exec_credential {
        return context.say(&token);
    }
    let session = sessions()?.read(name).map_err(unusable(name))?;
    let expires = session.map(|session| session.expires_at.to_string());
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": { "token": token, "expirationTimestamp": expires },
    });
    context.say(&credential.to_string())
}

fn certificate(context: &Context, name: &str, identity: &Identity, exec_credential: bool) -> Result<(), Failure> {
    let file = sessions()?.identity_file(name);
    let credential = certificate::credential(identity, &bounded::text(&file)?).filter(|_| exec_credential);
    let credential = credential.ok_or_else(|| {
        let message = format!("{name} has no token, but a certificate, with its key in {}", file.display());
        Failure::Usage(message)
    })?;
    context.say(&credential.to_string())
}

/// The password in a file, or on standard input.
pub(super) fn password_of(context: &Context, file: &Path) -> Result<String, Failure> {
    nothing_is_printed(context)?;
    Ok(trimmed(&bounded::text(file)?))
}

/// A password that is new, so that it is asked for twice.
pub(super) fn new_password(context: &Context, file: Option<&Path>) -> Result<String, Failure> {
    nothing_is_printed(context)?;
    let Some(file) = file else {
        let first = hidden("new password: ")?;
        return match hidden("once more: ")? == first {
            true => Ok(first),
            false => Err(Failure::Usage("the two are not the same; nothing was changed".to_owned())),
        };
    };
    password_of(context, file)
}

/// Passwords are in no argument list, and so in no command that is printed.
pub(super) fn nothing_is_printed(context: &Context) -> Result<(), Failure> {
    match context.is_printing() {
        false => Ok(()),
        true => {
            Err(Failure::Usage("this has a password in it, which no command line should: it is not printed".to_owned()))
        }
    }
}

pub(super) fn asked(what: &str) -> Result<String, Failure> {
    terminal()?;
    write!(io::stderr(), "{what}").map_err(Failure::Output)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(Failure::Input)?;
    Ok(trimmed(&line))
}

pub(super) fn hidden(what: &str) -> Result<String, Failure> {
    terminal()?;
    rpassword::prompt_password(what).map_err(Failure::Input)
}

fn terminal() -> Result<(), Failure> {
    match io::stdin().is_terminal() {
        true => Ok(()),
        false => Err(Failure::Usage(
            "nobody can be asked here: give --user and --password-file (- is standard input)".to_owned(),
        )),
    }
}
