//! The tools disk: a tar file that the guest reads as a disk, so that nothing has to be mounted or copied in.
//!
//! It holds the agent, the package under test if there is one, and the network file of a private link.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, CacheError};
use crate::machine::Link;
use crate::qemu;
use crate::spawn::{self, SpawnError};
use crate::tree;

/// The tools disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ToolsError {
    /// Files.
    #[error("the tools disk's files")]
    Files(#[from] CacheError),
    /// A program.
    #[error("packing the tools disk")]
    Host(#[from] SpawnError),
}

/// Makes `<folder>/tools.tar`.
pub fn make(folder: &Path, package: Option<&Path>, link: Option<&Link>) -> Result<PathBuf, ToolsError> {
    let content = folder.join("tools");
    cache::remove(&content)?;
    cache::at(&content, fs::create_dir_all(content.join("network")))?;
    let agent = cache::at(&content, tree::programs())?.join("berth-agent");
    spawn::output(spawn::command("strip").arg("-o").arg(content.join("berth-agent")).arg(agent))?;
    if let Some(package) = package {
        cache::at(package, fs::copy(package, content.join("berth.deb")))?;
    }
    if let Some(link) = link {
        let path = content.join("network/20-link.network");
        let (card, number) = (qemu::link_card(link.number), link.number);
        let text = format!("[Match]\nMACAddress={card}\n\n[Network]\nAddress=10.99.0.{number}/24\nIPv6AcceptRA=no\n");
        cache::at(&path, fs::write(&path, text))?;
    }
    let out = folder.join("tools.tar");
    let mut tar = spawn::command("tar");
    tar.arg("-C").arg(&content).args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf"]);
    spawn::output(tar.arg(&out).arg("."))?;
    cache::remove(&content)?;
    Ok(out)
}
