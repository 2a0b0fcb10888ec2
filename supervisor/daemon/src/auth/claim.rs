//! Who owns a machine that nobody owns yet: whoever reads the code on its console.
//!
//! The code is drawn when the supervisor starts and no user is owner, and shown where people log in at the console
//! (`/run/issue.d`), and to root in `/run/berth/claim`. It is good once; who becomes owner otherwise ends it, too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_host::fs::{FsError, atomic_write, ensure_dir, read_optional, remove_file};
use berth_model::qr::QrError;
use zeroize::Zeroizing;

use super::{AuthError, accounts, code};
use crate::store::{Store, StoreError};

/// Characters of a code: 60 bits.
const LENGTH: usize = 12;

/// Why a code cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Looking for owners.
    #[error("looking whether somebody owns the machine")]
    Store(#[from] StoreError),
    /// The files.
    #[error("showing the code by which the machine is claimed")]
    File(#[from] FsError),
    /// Drawing it.
    #[error("drawing the code by which the machine is claimed")]
    Draw(#[from] AuthError),
    /// Drawing its picture.
    #[error("drawing a picture of the code by which the machine is claimed")]
    Picture(#[from] QrError),
}

/// The code, while there is one.
#[derive(Debug, Default)]
pub struct Claim {
    code: Mutex<Option<Zeroizing<String>>>,
    files: Vec<PathBuf>,
    /// What the programs that wait for a login at the consoles look at: touched, they show what there is to show anew.
    reload: Option<PathBuf>,
}

impl Claim {
    /// Shows a code if nobody owns the machine: below `runtime` for root, and in `console` for whoever stands before it,
    /// also as a picture that leads a phone to `host`. After a restart it is the same.
    ///
    /// # Errors
    /// The files cannot be written, or the store cannot be read.
    pub async fn open(store: &Store, runtime: &Path, console: &Path, host: &str) -> Result<Self, ClaimError> {
        let (file, issue) = (runtime.join("claim"), console.join("50-berth.issue"));
        let (files, reload) = (vec![file.clone(), issue.clone()], Some(console.with_file_name("agetty.reload")));
        let claim = Self { code: Mutex::default(), files, reload };
        if store.read(accounts::has_owner).await? {
            claim.close()?;
            return Ok(claim);
        }
        let kept = read_optional(&file)?.and_then(|bytes| String::from_utf8(bytes).ok());
        let code = match kept.map(|text| code::plain(&text)).filter(|kept| code::is_one(kept, LENGTH)) {
            Some(code) => code,
            None => code::draw(LENGTH)?,
        };
        ensure_dir(console, 0o755)?;
        let shown = code::grouped(&code);
        atomic_write(&file, format!("{}\n", shown.as_str()).as_bytes(), 0o600)?;
        atomic_write(&issue, told(&shown, host)?.as_bytes(), 0o600)?;
        claim.show_anew()?;
        *claim.held() = Some(code);
        Ok(claim)
    }

    /// What is shown at the consoles already is shown anew. They watch this very file, so that it is not replaced.
    fn show_anew(&self) -> Result<(), FsError> {
        let Some(reload) = &self.reload else { return Ok(()) };
        File::create(reload).map(drop).map_err(|source| FsError::new("touching", reload, source))
    }

    fn held(&self) -> MutexGuard<'_, Option<Zeroizing<String>>> {
        self.code.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is the code.
    pub fn is_right(&self, said: &str) -> bool {
        let said = code::plain(said);
        self.held().as_ref().is_some_and(|code| code::is_same(code, &said))
    }

    /// Ends it: somebody owns the machine.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn close(&self) -> Result<(), FsError> {
        self.held().take();
        self.files.iter().try_for_each(|file| remove_file(file))?;
        self.show_anew()
    }
}

/// What stands on the console. The code is behind the `#`, which no browser sends.
fn told(code: &str, host: &str) -> Result<Zeroizing<String>, ClaimError> {
    let local = if host.contains('.') { host.to_owned() } else { format!("{host}.local") };
    let picture = Zeroizing::new(berth_model::qr::drawn(&format!("https://{local}:6443/#claim={code}"))?);
    Ok(Zeroizing::new(format!(
        "Nobody owns this machine yet. Its code is {code}: berth claim --server https://\\4:6443\n\n{}\n",
        picture.as_str()
    )))
}

#[cfg(test)]
impl Claim {
    /// Takes this for the code.
    pub fn set(&self, code: &str) {
        *self.held() = Some(code::plain(code));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::*;
    use crate::store::Clock;

    fn store(dir: &Path) -> Store {
        let clock: Clock = Arc::new(|| "2026-03-01T12:00:00Z".parse().unwrap());
        Store::open(&dir.join("berth.db"), clock).unwrap()
    }

    #[tokio::test]
    async fn the_code_is_on_the_console_stays_over_a_restart_and_goes_when_somebody_owns_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let (store, console) = (store(dir.path()), dir.path().join("issue.d"));
        let claim = Claim::open(&store, dir.path(), &console, "berth").await.unwrap();
        let code = std::fs::read_to_string(dir.path().join("claim")).unwrap();
        assert_eq!((code.len(), code.matches('-').count()), (15, 2), "{code}");
        let issue = console.join("50-berth.issue");
        let shown = std::fs::read_to_string(&issue).unwrap();
        let link = format!("https://berth.local:6443/#claim={}", code.trim());
        assert!(shown.contains(code.trim()) && shown.contains(&berth_model::qr::drawn(&link).unwrap()), "{shown}");
        assert_eq!(std::fs::metadata(&issue).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Claim::open(&store, dir.path(), &console, "berth").await.unwrap();
        for claim in [&claim, &again] {
            assert!(claim.is_right(&code) && claim.is_right(&code.to_lowercase().replace('-', "")));
            assert!(!claim.is_right("") && !claim.is_right("AAAA-AAAA-AAAA"));
        }
        let told = dir.path().join("agetty.reload");
        assert!(told.exists(), "consoles go on showing what they have shown");
        std::fs::remove_file(&told).unwrap();
        again.close().unwrap();
        assert!(told.exists(), "consoles go on showing the code");
        assert!(!again.is_right(&code) && !again.is_right("") && !issue.exists());
    }
}
