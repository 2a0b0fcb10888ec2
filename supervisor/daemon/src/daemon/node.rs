//! What the machine is: the facts of its Node.

use std::io;
use std::path::{Path, PathBuf};

use berth_model::kinds::DEFAULT_NAMESPACE;
use berth_model::machine::{Facts, Machine};
use berth_model::resource::Namespace;
use jiff::Timestamp;

use super::usage::{LookError, Usage};
use crate::auth::machine_names;
use crate::store::{Clock, StoreError};

/// Between the two looks that make a rate.
const WINDOW: std::time::Duration = std::time::Duration::from_secs(1);

/// The machine could not be told of.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeError {
    /// What it is.
    #[error("reading {}", .path.display())]
    Fact {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its names and addresses.
    #[error("asking for the machine's names and addresses")]
    Names(#[source] io::Error),
    /// What is used.
    #[error(transparent)]
    Look(#[from] LookError),
    /// When it was set up.
    #[error("reading when Berth was set up")]
    Store(#[from] StoreError),
}

/// A look at the machine, or two that are [`WINDOW`] apart.
pub(super) async fn look(usage: &Usage, clock: &Clock, rates: bool) -> Result<Machine, NodeError> {
    let before = match rates {
        true => {
            let before = usage.look().await?;
            tokio::time::sleep(WINDOW).await;
            Some(before)
        }
        false => None,
    };
    let usage_now = usage.look().await?;
    let default = usage.store.read(|tx| tx.get::<Namespace>("", DEFAULT_NAMESPACE)).await?;
    let made =
        default.and_then(|default| default.metadata.creation_timestamp).map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    Ok(Machine { facts: facts(Path::new("/"))?, made, now: clock(), usage: usage_now, before })
}

fn facts(root: &Path) -> Result<Facts, NodeError> {
    let names = machine_names().map_err(NodeError::Names)?;
    let hostname = nix::unistd::gethostname().map_err(|errno| NodeError::Names(errno.into()))?;
    Ok(Facts {
        hostname: hostname.to_string_lossy().into_owned(),
        addresses: names.addresses.into_iter().filter(|address| !address.is_loopback()).collect(),
        machine_id: fact(root, "etc/machine-id")?,
        boot_id: fact(root, "proc/sys/kernel/random/boot_id")?,
        kernel: fact(root, "proc/sys/kernel/osrelease")?,
        system: pretty_name(&fact(root, "etc/os-release")?),
        architecture: architecture(std::env::consts::ARCH).to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn fact(root: &Path, name: &str) -> Result<String, NodeError> {
    let path = root.join(name);
    let text = std::fs::read_to_string(&path).map_err(|source| NodeError::Fact { path, source })?;
    Ok(text.trim().to_owned())
}

/// As os-release(5) has it.
fn pretty_name(release: &str) -> String {
    let named = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    named.unwrap_or("Linux").trim_matches(['"', '\'']).to_owned()
}

/// Go's names, which Kubernetes uses.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_called_by_its_pretty_name() {
        assert_eq!(
            pretty_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"),
            "Debian GNU/Linux 13 (trixie)"
        );
        assert_eq!(pretty_name("ID=unknown\n"), "Linux");
    }
}
