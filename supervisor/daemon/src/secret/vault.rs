//! Where the master key lies while nobody uses it: sealed by systemd-creds, as a file.

use std::future::Future;

use berth_host::cmd::{CmdError, Command};
use zeroize::Zeroizing;

/// Where systemd has its tool.
const SYSTEMD_CREDS: &str = "/usr/bin/systemd-creds";

/// A master key could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The tool failed.
    #[error("sealing a new master key with systemd-creds")]
    Seal(#[source] CmdError),
    /// It came back different.
    #[error(
        "systemd-creds sealed the new master key but gave something else back; nothing was kept, \
         run the command again"
    )]
    SealedWrong,
}

/// What keeps the master key from whoever has only the disk.
pub trait Vault {
    /// Binds a key to this machine.
    fn seal(&self, key: &[u8]) -> impl Future<Output = Result<Vec<u8>, CmdError>> + Send;
    /// Gives back what was sealed on this machine.
    fn unseal(&self, sealed: &[u8]) -> impl Future<Output = Result<Zeroizing<Vec<u8>>, CmdError>> + Send;
}

/// Seals a key and makes sure that it comes back.
///
/// # Errors
/// It cannot be sealed, or does not come back.
pub async fn seal_checked(vault: &impl Vault, key: &[u8]) -> Result<Vec<u8>, SealError> {
    let sealed = vault.seal(key).await.map_err(SealError::Seal)?;
    let back = vault.unseal(&sealed).await.map_err(SealError::Seal)?;
    if back.as_slice() == key { Ok(sealed) } else { Err(SealError::SealedWrong) }
}

/// The credentials of systemd, bound to TPM and host key, or to the host key where there is no
/// TPM. Keys go through pipes, never through arguments.
#[derive(Clone, Copy, Debug)]
pub struct SystemdCreds;

impl SystemdCreds {
    async fn encrypt(key: &[u8], with: &str) -> Result<Vec<u8>, CmdError> {
        let command = Command::new(SYSTEMD_CREDS).args(["encrypt", "--name=master", with, "-", "-"]);
        Ok(command.stdin(key).run().await?.stdout)
    }
}

impl Vault for SystemdCreds {
    async fn seal(&self, key: &[u8]) -> Result<Vec<u8>, CmdError> {
        match Self::encrypt(key, "--with-key=auto").await {
            // A TPM that is there and does not work.
            Err(CmdError::Failed { stderr, .. }) => {
                tracing::warn!(%stderr, "the TPM could not be used; the master key is bound to the host key alone");
                Self::encrypt(key, "--with-key=host").await
            }
            result => result,
        }
    }

    async fn unseal(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CmdError> {
        let command = Command::new(SYSTEMD_CREDS).args(["decrypt", "--name=master", "-", "-"]);
        Ok(Zeroizing::new(command.stdin(sealed).run().await?.stdout))
    }
}

/// Puts the machine's number before the key; another machine's key does not open.
#[cfg(test)]
pub struct FakeVault(pub u8);

#[cfg(test)]
impl Vault for FakeVault {
    async fn seal(&self, key: &[u8]) -> Result<Vec<u8>, CmdError> {
        Ok([&[self.0], key].concat())
    }

    async fn unseal(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CmdError> {
        match sealed.split_first() {
            Some((machine, key)) if *machine == self.0 => Ok(Zeroizing::new(key.to_vec())),
            _ => Err(CmdError::Failed {
                program: SYSTEMD_CREDS.into(),
                ended: berth_host::cmd::Ended::Code(1),
                stderr: "not for this machine".into(),
            }),
        }
    }
}
