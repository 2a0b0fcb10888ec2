//! `berthd setup`: makes what the first start needs, and checks it at every later one.
//!
//! ```text
//! data directory ─> certificate authority ─> master key ─> owner token
//! ```
//!
//! Every step looks before it makes and replaces files as a whole, so a kill at any point is mended
//! by the next run. Nothing that exists is ever replaced: above all not a master key that cannot be
//! unsealed, since everything sealed under it would be lost with it.
//!
//! The master key exists in the clear only in this process and in the pipe to `systemd-creds`. A new
//! epoch of it that an erasure left half in use is taken into use in full first.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_host::cmd::CmdError;
use berth_host::fs::{FsError, Made, atomic_write, ensure_dir, read_optional};
use jiff::Timestamp;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use crate::auth::ca::{Authority, CaError};
use crate::auth::{TOKEN_PREFIX, parse_token};
use crate::secret::{self, SealError, SystemdCreds, Vault, seal_checked};

const MASTER_LENGTH: usize = 32;

/// Why the machine is not set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A directory or file could not be made.
    #[error("setting up files")]
    File(#[from] FsError),
    /// The certificate authority could not be made or opened.
    #[error("setting up the certificate authority")]
    Authority(#[from] CaError),
    /// A new master key could not be sealed.
    #[error("making a new master key")]
    Seal(#[from] SealError),
    /// A new master key was taken half into use.
    #[error("taking a new master key into use")]
    Epoch(#[source] FsError),
    /// The master key there is cannot be unsealed.
    #[error("the master key in {} cannot be unsealed on this machine. Nothing was changed. If the disk came \
             from another machine or its TPM was cleared, put the disk back or restore {} and \
             /var/lib/systemd/credential.secret from a backup. Only if no secret here is worth keeping: \
             move the file away and run `berthd setup` again", path.display(), path.display())]
    Unseal {
        /// The sealed key.
        path: PathBuf,
        /// What systemd-creds said.
        #[source]
        source: CmdError,
    },
    /// What was unsealed is no key.
    #[error("{} holds {length} bytes and should hold {MASTER_LENGTH}; restore it from a backup", path.display())]
    MasterLength {
        /// The sealed key.
        path: PathBuf,
        /// What was found.
        length: usize,
    },
    /// The token file holds something else.
    #[error("{} does not hold an owner token; move it away and run `berthd setup` again", path.display())]
    Token {
        /// The file.
        path: PathBuf,
    },
    /// The machine gives no randomness.
    #[error("the machine gives no randomness")]
    Random,
}

/// What a run of setup found and made, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The master key.
    pub master: Made,
    /// The owner's token.
    pub token: Made,
}

/// Sets up the data directory, or checks that it is set up.
///
/// # Errors
/// Something is missing and cannot be made, or is there and is not what it should be.
pub async fn run(data: &Path, now: Timestamp, random: &dyn SecureRandom) -> Result<Report, SetupError> {
    with_vault(data, now, random, &SystemdCreds).await
}

async fn with_vault(
    data: &Path,
    now: Timestamp,
    random: &dyn SecureRandom,
    vault: &impl Vault,
) -> Result<Report, SetupError> {
    ensure_dir(data, 0o711)?;
    Authority::open_or_create(data, now)?;
    secret::finish_epoch(&data.join("keys")).map_err(SetupError::Epoch)?;
    let master = master_key(&data.join("keys/master.cred"), random, vault).await?;
    let token = owner_token(&data.join("token"), random)?;
    Ok(Report { master, token })
}

async fn master_key(path: &Path, random: &dyn SecureRandom, vault: &impl Vault) -> Result<Made, SetupError> {
    if let Some(sealed) = read_optional(path)? {
        check_master(path, &sealed, vault).await?;
        return Ok(Made::Unchanged);
    }
    let mut key = Zeroizing::new([0; MASTER_LENGTH]);
    random.fill(key.as_mut()).map_err(|_| SetupError::Random)?;
    let sealed = seal_checked(vault, key.as_ref()).await?;
    atomic_write(path, &sealed, 0o600)?;
    Ok(Made::Created)
}

async fn check_master(path: &Path, sealed: &[u8], vault: &impl Vault) -> Result<(), SetupError> {
    let unsealed = vault.unseal(sealed).await;
    let key = unsealed.map_err(|source| SetupError::Unseal { path: path.to_owned(), source })?;
    match key.len() {
        MASTER_LENGTH => Ok(()),
        length => Err(SetupError::MasterLength { path: path.to_owned(), length }),
    }
}

fn owner_token(path: &Path, random: &dyn SecureRandom) -> Result<Made, SetupError> {
    if let Some(found) = read_optional(path)? {
        let unchanged = parse_token(&found).map(|_| Made::Unchanged);
        return unchanged.ok_or_else(|| SetupError::Token { path: path.to_owned() });
    }
    let mut secret = Zeroizing::new([0; 32]);
    random.fill(secret.as_mut()).map_err(|_| SetupError::Random)?;
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_ref()));
    let line = Zeroizing::new(format!("{TOKEN_PREFIX}{}\n", secret.as_str()));
    atomic_write(path, line.as_bytes(), 0o600)?;
    Ok(Made::Created)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ring::rand::SystemRandom;

    use super::*;
    use crate::secret::FakeVault;

    async fn set_up(data: &Path, machine: u8) -> Result<Report, SetupError> {
        let now = "2026-03-01T00:00:00Z".parse().unwrap();
        with_vault(data, now, &SystemRandom::new(), &FakeVault(machine)).await
    }

    fn files(data: &Path) -> Vec<Vec<u8>> {
        let names = ["keys/ca.key", "keys/ca.crt", "keys/master.cred", "token", "ca.crt"];
        names.iter().map(|name| std::fs::read(data.join(name)).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_first_run_makes_everything_and_a_second_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("berth");
        let first = set_up(&data, 1).await.unwrap();
        assert_eq!(first, Report { master: Made::Created, token: Made::Created });
        let made = files(&data);
        let second = set_up(&data, 1).await.unwrap();
        assert_eq!(second, Report { master: Made::Unchanged, token: Made::Unchanged });
        assert_eq!(files(&data), made);
    }

    #[tokio::test]
    async fn secrets_are_for_root_alone_and_the_token_is_one() {
        let dir = tempfile::tempdir().unwrap();
        set_up(dir.path(), 1).await.unwrap();
        for (name, mode) in [("keys", 0o700), ("keys/master.cred", 0o600), ("token", 0o600), ("ca.crt", 0o644)] {
            let found = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{name}");
        }
        assert!(parse_token(&std::fs::read(dir.path().join("token")).unwrap()).is_some());
    }

    #[tokio::test]
    async fn a_run_killed_after_any_file_is_completed_by_the_next() {
        let order = ["keys/ca.key", "keys/ca.crt", "ca.crt", "keys/master.cred", "token"];
        for killed_after in 0..order.len() {
            let dir = tempfile::tempdir().unwrap();
            set_up(dir.path(), 1).await.unwrap();
            for name in &order[killed_after..] {
                std::fs::remove_file(dir.path().join(name)).unwrap();
            }
            let kept: Vec<_> =
                order[..killed_after].iter().map(|name| std::fs::read(dir.path().join(name)).unwrap()).collect();
            set_up(dir.path(), 1).await.unwrap();
            files(dir.path());
            for (name, content) in order[..killed_after].iter().zip(kept) {
                assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), content, "{name} was replaced");
            }
        }
    }

    #[tokio::test]
    async fn a_run_that_fails_at_any_step_is_completed_by_the_next_and_replaces_nothing() {
        for (step, in_the_way) in
            ["keys/ca.key", "keys/ca.crt", "ca.crt", "keys/master.cred", "token"].iter().enumerate()
        {
            let dir = tempfile::tempdir().unwrap();
            // A directory where the file is to be: it can be neither read nor replaced.
            let obstacle = dir.path().join(in_the_way);
            std::fs::create_dir_all(&obstacle).unwrap();
            set_up(dir.path(), 1).await.expect_err(in_the_way);
            let made = |name: &&str| std::fs::read(dir.path().join(name)).ok();
            let names = ["keys/ca.key", "keys/ca.crt", "ca.crt", "keys/master.cred", "token"];
            let before: Vec<Option<Vec<u8>>> = names.iter().map(made).collect();
            assert_eq!(before.iter().filter(|file| file.is_some()).count(), step, "{in_the_way}");
            std::fs::remove_dir(&obstacle).unwrap();
            set_up(dir.path(), 1).await.unwrap();
            for (name, kept) in names.iter().zip(before) {
                assert!(kept.is_none() || kept == made(name), "{name} was replaced after {in_the_way} failed");
            }
            let whole = set_up(dir.path(), 1).await.unwrap();
            assert_eq!(whole, Report { master: Made::Unchanged, token: Made::Unchanged });
        }
    }

    #[tokio::test]
    async fn a_master_key_that_could_not_be_sealed_leaves_nothing_behind_and_is_made_by_the_next_run() {
        struct Forgetful;
        impl Vault for Forgetful {
            async fn seal(&self, _: &[u8]) -> Result<Vec<u8>, CmdError> {
                Ok(vec![1])
            }
            async fn unseal(&self, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, CmdError> {
                Ok(Zeroizing::default())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let now = "2026-03-01T00:00:00Z".parse().unwrap();
        let error = with_vault(dir.path(), now, &SystemRandom::new(), &Forgetful).await.unwrap_err();
        assert!(matches!(error, SetupError::Seal(_)), "{error}");
        assert!(!dir.path().join("keys/master.cred").exists() && !dir.path().join("token").exists());
        assert_eq!(set_up(dir.path(), 1).await.unwrap().master, Made::Created);
    }

    #[tokio::test]
    async fn a_master_key_of_another_machine_is_kept_and_the_error_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        set_up(dir.path(), 1).await.unwrap();
        let before = files(dir.path());
        let error = set_up(dir.path(), 2).await.unwrap_err();
        assert!(error.to_string().contains("Nothing was changed"), "{error}");
        assert!(error.to_string().contains("run `berthd setup` again"), "{error}");
        assert_eq!(files(dir.path()), before);
    }

    #[tokio::test]
    async fn a_token_file_with_something_else_in_it_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "mine").unwrap();
        let error = set_up(dir.path(), 1).await.unwrap_err();
        assert!(matches!(error, SetupError::Token { .. }), "{error}");
        assert_eq!(std::fs::read(dir.path().join("token")).unwrap(), b"mine");
    }
}
