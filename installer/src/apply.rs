//! `berth-installer apply`, on the machine that was installed or flashed: what its configuration says of users, settings
//! and bundles, once the supervisor answers.
//!
//! Everything goes through the `berth` command, as an administrator would do it, and can be done again: a machine that
//! loses power in between goes on at its next start. Only when all of it was taken is the configuration removed, with
//! the secrets in it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_host::cmd::{CmdError, Command};
use berth_host::fs::{FsError, atomic_write, remove_file};
use serde_json::{Value, json};

use crate::config::{Bundle, Config, Fault, User};
use crate::mode::FILE;
use crate::{http, words};

/// Where a seed has laid it.
pub const FOLDER: &str = "/var/lib/berth/first";
const REPORT: &str = "report.json";
const BERTH: &str = "/usr/bin/berth";
/// Commands wait for the supervisor's answer, and that for the disk.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the report waits for services: an image may have to come from far away.
const SERVING: Duration = Duration::from_secs(600);

/// Why it is not done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Files.
    #[error("reading what is to be applied")]
    Files(#[from] FsError),
    /// It was checked before it was laid there, by the same program.
    #[error("{}", lines(.0))]
    Faults(Vec<Fault>),
    /// The supervisor did not take it.
    #[error("{doing}")]
    Refused {
        /// What was asked for.
        doing: String,
        /// What the command said.
        #[source]
        source: CmdError,
    },
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Applies what lies in [`FOLDER`], tells of it, and removes it.
///
/// # Errors
/// [`ApplyError`]; what was done stays, and the next try begins again.
pub async fn run() -> Result<(), ApplyError> {
    let folder = Path::new(FOLDER);
    let path = folder.join(FILE);
    let text = fs::read_to_string(&path).map_err(|source| FsError::new("reading", &path, source))?;
    let config = Config::parse(&text, FILE).map_err(ApplyError::Faults)?;
    all(&config, folder).await?;
    let bundles = serving(&config).await;
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let url = format!("https://{}.local:6443", hostname.trim());
    let report = json!({ "event": "ready", "url": url, "bundles": bundles }).to_string();
    println!("Berth: set up as configured; {url}");
    atomic_write(&folder.join(REPORT), report.as_bytes(), 0o600)?;
    if let Some(notify) = &config.notify
        && let Err(error) = http::report(notify, &report).await
    {
        words::warn(&error);
    }
    for name in named(&config) {
        remove_file(&folder.join(name))?;
    }
    Ok(remove_file(&path)?)
}

async fn all(config: &Config, folder: &Path) -> Result<(), ApplyError> {
    let spec = config.settings_patch();
    if spec.as_object().is_some_and(|spec| !spec.is_empty()) {
        let settings =
            json!({ "apiVersion": "berth.dev/v1", "kind": "Settings", "metadata": { "name": "berth" }, "spec": spec });
        apply("the settings", "default", settings.to_string()).await?;
    }
    for user in &config.users {
        set_up(user).await?;
    }
    for bundle in &config.bundles {
        let manifest = manifest(bundle, folder)?;
        apply(&format!("the bundle {}", told(bundle)), bundle.namespace.as_str(), manifest).await?;
    }
    Ok(())
}

async fn apply(what: &str, namespace: &str, manifest: String) -> Result<(), ApplyError> {
    let command = Command::new(BERTH).args(["apply", "--namespace", namespace, "--filename", "-"]).stdin(manifest);
    done(format!("applying {what}"), command).await
}

async fn done(doing: String, command: Command) -> Result<(), ApplyError> {
    match command.timeout(PATIENCE).run().await {
        Ok(_) => Ok(()),
        Err(source) => Err(ApplyError::Refused { doing, source }),
    }
}

/// An account, its role, and what proves who it is.
async fn set_up(user: &User) -> Result<(), ApplyError> {
    let name = user.name.as_str();
    let account = json!({ "apiVersion": "berth.dev/v1", "kind": "User", "metadata": { "name": name }, "spec": {} });
    apply(&format!("the user {name}"), "default", account.to_string()).await?;
    let role = Command::new(BERTH).args(["role", "grant", &user.role.word(), name]);
    done(format!("granting {name} his role"), role).await?;
    let (flag, secret) = match (&user.password_hash, &user.password) {
        (Some(hash), _) => ("--password-hash-file", hash.reveal()),
        (None, Some(password)) => ("--password-file", password.reveal()),
        (None, None) => return Ok(()),
    };
    let password = Command::new(BERTH).args(["user", "password", name, flag, "-"]).stdin(secret);
    done(format!("setting the password of {name}"), password).await
}

fn manifest(bundle: &Bundle, folder: &Path) -> Result<String, ApplyError> {
    match (&bundle.manifest, &bundle.file) {
        (Some(manifest), _) => Ok(manifest.clone()),
        (None, file) => {
            let path = folder.join(file.as_ref().map_or("", |file| file.as_str()));
            Ok(fs::read_to_string(&path).map_err(|source| FsError::new("reading", &path, source))?)
        }
    }
}

fn told(bundle: &Bundle) -> String {
    bundle.file.as_ref().map_or_else(|| "in the configuration".to_owned(), ToString::to_string)
}

/// How the bundles of the namespaces fare, once all serve or that has taken too long.
async fn serving(config: &Config) -> Vec<Value> {
    if config.bundles.is_empty() {
        return Vec::new();
    }
    let until = Instant::now() + SERVING;
    loop {
        let bundles = fare().await;
        let ready = !bundles.is_empty() && bundles.iter().all(|bundle| bundle["ready"] == true);
        if ready || Instant::now() > until {
            return bundles;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn fare() -> Vec<Value> {
    let command = Command::new(BERTH).args(["get", "bundles", "--all-namespaces", "--output", "json"]);
    let Ok(output) = command.timeout(PATIENCE).run().await else { return Vec::new() };
    let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let told = |bundle: &Value| {
        let conditions = bundle["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|one| one["type"] == "Ready").cloned().unwrap_or_default();
        json!({
            "namespace": bundle["metadata"]["namespace"], "name": bundle["metadata"]["name"],
            "ready": ready["status"] == "True", "reason": ready["reason"], "message": ready["message"],
        })
    };
    list["items"].as_array().map(|items| items.iter().map(told).collect()).unwrap_or_default()
}

/// Files that a configuration names, to lie beside it.
pub fn named(config: &Config) -> impl Iterator<Item = &str> {
    config.bundles.iter().filter_map(|bundle| bundle.file.as_ref()).map(|file| file.as_str())
}
