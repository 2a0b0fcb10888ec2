//! `berth ca`: client certificates, and the server of a context that has one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use berth_model::enrolment::{Issued, NewCertificate};
use berth_model::resource::{Certificate, User};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::args::{CaArgs, CaCommand, IntoArgs};
use super::failure::Failure;
use super::login::{sessions, unusable};
use super::{Context, config, get};
use crate::client::berth;
use crate::identity::{Fresh, Identity, parts};
use crate::kubeconfig::{Entry, Proof};
use crate::request::{Body, Request};
use crate::resource::{ResourceType, Scope};
use crate::server::Server;
use crate::session::Sessions;
use crate::transport::Transport;

/// `berth ca`.
pub(super) async fn run(context: &Context, args: CaArgs) -> Result<(), Failure> {
    match args.command {
        None => issue(context, args).await,
        Some(CaCommand::List) => get::list(context, &ResourceType::of::<Certificate>(), &Scope::default()).await,
        Some(CaCommand::Revoke { names }) => revoke(context, &names).await,
    }
}

async fn revoke(context: &Context, names: &[String]) -> Result<(), Failure> {
    let kind = ResourceType::of::<Certificate>();
    for name in names {
        let patch = json!({ "spec": { "revoked": true } });
        context.client.merge_patch_dynamic(&kind, "", name, patch).await?;
        context.say(&format!("{} revoked", kind.shown(name)))?;
    }
    Ok(())
}

async fn issue(context: &Context, args: CaArgs) -> Result<(), Failure> {
    no_key_is_printed(context)?;
    let user = args.user.unwrap_or_default();
    let request = ResourceType::of::<User>().object(Method::POST, "", &user).below("certificates");
    let here = Here { transport: context.client.transport(), server: address(context), request };
    have_issued(context, here, args.into, args.description).await
}

/// Where a certificate is asked for, and how.
pub(super) struct Here<'a> {
    pub transport: &'a Transport,
    /// Where the machine is reached with the certificate.
    pub server: String,
    pub request: Request,
}

/// Has a certificate issued for a key that is made here, and keeps both where they are to be.
pub(super) async fn have_issued(
    context: &Context,
    here: Here<'_>,
    into: IntoArgs,
    description: Option<String>,
) -> Result<(), Failure> {
    // Before anything is signed: a file is made, or nothing is.
    let out = into.out.as_deref().map(|path| Ok::<_, Failure>((path, create(path)?))).transpose()?;
    let fresh = Fresh::draw().map_err(Failure::Key)?;
    let issued = signed(here.transport, here.request, &fresh, description).await;
    let Some((path, file)) = out else {
        let issued = issued?;
        let named = || format!("{}@{}", issued.subject.rsplit(':').next().unwrap_or_default(), host(&here.server));
        let name = into.name.clone().unwrap_or_else(named);
        return keep(context, &name, &here.server, &fresh, &issued, into.kubeconfig.as_deref());
    };
    match issued {
        Ok(issued) => fill(context, path, file, &fresh, &issued),
        Err(failure) => {
            // It was made for this.
            fs::remove_file(path).map_err(|source| Failure::Create { path: path.to_owned(), source })?;
            Err(failure)
        }
    }
}

fn fill(context: &Context, path: &Path, mut file: File, fresh: &Fresh, issued: &Issued) -> Result<(), Failure> {
    let write = |source| Failure::Create { path: path.to_owned(), source };
    file.write_all(fresh.with(issued).as_bytes()).and_then(|()| file.sync_all()).map_err(write)?;
    context.say(&format!("{} is good for {} until {}", path.display(), issued.subject, issued.expires_at))?;
    context.note(&format!("with it: berth --certificate {} ...", path.display()))
}

/// The machine's name in its address.
fn host(server: &str) -> String {
    let url = reqwest::Url::parse(server).ok();
    url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| "berth".to_owned())
}

/// Where the machine is reached over the network: certificates are for that.
pub(super) fn address(context: &Context) -> String {
    let transport = context.client.transport();
    if transport.is_socket() { config::HERE.to_owned() } else { transport.shown().to_owned() }
}

/// Has a certificate signed for a fresh key.
pub(super) async fn signed(
    transport: &Transport,
    request: Request,
    fresh: &Fresh,
    description: Option<String>,
) -> Result<Issued, Failure> {
    let body = NewCertificate { request: fresh.request.clone(), description };
    let body = serde_json::to_value(body).unwrap_or_default();
    Ok(transport.json(&request.body(Body::Json(body))).await?)
}

/// Keeps a certificate with its key under the name of a context, which kubectl is told of, too.
pub(super) fn keep(
    context: &Context,
    name: &str,
    server: &str,
    fresh: &Fresh,
    issued: &Issued,
    kubeconfig: Option<&Path>,
) -> Result<(), Failure> {
    let entry = Entry {
        name: name.to_owned(),
        server: server.to_owned(),
        authority: issued.authority.clone().into_bytes(),
        proof: Proof::Session,
        namespace: context.namespace.clone(),
    };
    let sessions = sessions()?;
    let _lock = sessions.lock(name).map_err(unusable(name))?;
    sessions.write_authority(name, Some(issued.authority.as_bytes())).map_err(unusable(name))?;
    let identity = Identity::of(server, issued);
    sessions.write_identity(name, &identity, &fresh.with(issued)).map_err(unusable(name))?;
    let written = config::write(&entry, kubeconfig)?;
    context.say(&format!("{} has a certificate: berth --context {name} whoami", issued.subject))?;
    context.note(&format!("{} knows the machine, too: kubectl --context {name} get bundles", written.display()))
}

/// The server of a context that has a certificate, which is renewed in time.
pub(super) async fn server(
    sessions: &Sessions,
    context: &str,
    mut identity: Identity,
    clock: fn() -> Timestamp,
) -> Result<Server, Failure> {
    if identity.is_due(clock()) {
        let _lock: File = sessions.lock(context).map_err(unusable(context))?;
        // Somebody else may just have done it.
        identity = sessions.read_identity(context).map_err(unusable(context))?.unwrap_or(identity);
        if identity.is_due(clock()) {
            identity = renewed(sessions, context, identity, clock()).await?;
        }
    }
    way(sessions, context, &identity)
}

fn way(sessions: &Sessions, context: &str, identity: &Identity) -> Result<Server, Failure> {
    let server = Server::choose(Some(&identity.server), None, sessions.authority_file(context))?;
    Ok(server.with_identity(Some(sessions.identity_file(context))))
}

/// A new certificate for the present one. Where that fails, the present one is used for as long as it lasts.
async fn renewed(sessions: &Sessions, context: &str, identity: Identity, now: Timestamp) -> Result<Identity, Failure> {
    if identity.is_over(now) {
        return Err(Failure::Expired { context: context.to_owned(), at: identity.expires_at });
    }
    let fresh = Fresh::draw().map_err(Failure::Key)?;
    let transport = Transport::new(way(sessions, context, &identity)?)?;
    match signed(&transport, berth(&["certificates"], Method::POST), &fresh, None).await {
        Ok(issued) => {
            let next = Identity::of(&identity.server, &issued);
            sessions.write_identity(context, &next, &fresh.with(&issued)).map_err(unusable(context))?;
            Ok(next)
        }
        Err(failure) => {
            let told =
                format!("the certificate of {context} ends {} and was not renewed: {failure}", identity.expires_at);
            writeln!(io::stderr(), "{told}").map_err(Failure::Output)?;
            Ok(identity)
        }
    }
}

/// What kubectl is given for a context that has a certificate.
pub(super) fn credential(identity: &Identity, pem: &str) -> Option<Value> {
    let (key, certificate) = parts(pem)?;
    Some(json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {
            "clientCertificateData": certificate, "clientKeyData": key,
            "expirationTimestamp": identity.expires_at.to_string(),
        },
    }))
}

/// A file that is new, for its owner alone.
fn create(path: &Path) -> Result<File, Failure> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|source| Failure::Create { path: path.to_owned(), source })
}

/// A key would be lost that is made for a request which is not sent.
pub(super) fn no_key_is_printed(context: &Context) -> Result<(), Failure> {
    match context.is_printing() {
        false => Ok(()),
        true => {
            Err(Failure::Usage("this makes a key, which no command line should hold: it is not printed".to_owned()))
        }
    }
}
