//! Who owns a machine that nobody owns yet: whoever reads the code on its console.
//!
//! The code is drawn when the supervisor starts and no user is owner, and shown where people log in at the console
//! (`/run/issue.d`), and to root in `/run/berth/claim`. It is good once; who becomes owner otherwise ends it, too.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_host::fs::{FsError, atomic_write, ensure_dir, read_optional, remove_file};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::{AuthError, accounts};
use crate::store::{Store, StoreError};

/// Letters and digits that nobody takes for one another.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Characters of a code: 60 bits.
const LENGTH: usize = 12;
/// Characters between two dashes.
const GROUP: usize = 4;

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
}

/// The code, while there is one.
#[derive(Debug, Default)]
pub struct Claim {
    code: Mutex<Option<Zeroizing<String>>>,
    files: Vec<PathBuf>,
}

impl Claim {
    /// Shows a code if nobody owns the machine: below `runtime` for root, and in `console` for whoever stands before it.
    /// After a restart it is the same.
    ///
    /// # Errors
    /// The files cannot be written, or the store cannot be read.
    pub async fn open(store: &Store, runtime: &Path, console: &Path) -> Result<Self, ClaimError> {
        let (file, issue) = (runtime.join("claim"), console.join("50-berth.issue"));
        let claim = Self { code: Mutex::default(), files: vec![file.clone(), issue.clone()] };
        if store.read(accounts::has_owner).await? {
            claim.close()?;
            return Ok(claim);
        }
        let kept = read_optional(&file)?.and_then(|bytes| String::from_utf8(bytes).ok());
        let code = match kept.map(|text| plain(&text)).filter(|code| is_code(code)) {
            Some(code) => code,
            None => draw()?,
        };
        ensure_dir(console, 0o755)?;
        let shown = Zeroizing::new(grouped(&code));
        atomic_write(&file, format!("{}\n", shown.as_str()).as_bytes(), 0o600)?;
        let text = format!(
            "Nobody owns this machine yet. Its code is {}: berth claim --server https://\\4:6443\n\n",
            shown.as_str()
        );
        atomic_write(&issue, text.as_bytes(), 0o600)?;
        *claim.held() = Some(code);
        Ok(claim)
    }

    fn held(&self) -> MutexGuard<'_, Option<Zeroizing<String>>> {
        self.code.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is the code. How long it takes tells nothing: hashes are compared.
    pub fn is_right(&self, said: &str) -> bool {
        let hash = |text: &str| digest(&SHA256, text.as_bytes());
        let said = plain(said);
        self.held().as_ref().is_some_and(|code| hash(code).as_ref() == hash(&said).as_ref())
    }

    /// Ends it: somebody owns the machine.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn close(&self) -> Result<(), FsError> {
        self.held().take();
        self.files.iter().try_for_each(|file| remove_file(file))
    }
}

#[cfg(test)]
impl Claim {
    /// Takes this for the code.
    pub fn set(&self, code: &str) {
        *self.held() = Some(plain(code));
    }
}

/// As people type it: in any case, with or without dashes.
fn plain(text: &str) -> Zeroizing<String> {
    let letters = text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_uppercase());
    Zeroizing::new(letters.collect())
}

fn is_code(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

fn grouped(code: &str) -> String {
    let groups: Vec<&str> =
        (0..code.len()).step_by(GROUP).filter_map(|at| code.get(at..(at + GROUP).min(code.len()))).collect();
    groups.join("-")
}

fn draw() -> Result<Zeroizing<String>, AuthError> {
    let mut random = Zeroizing::new([0; LENGTH]);
    SystemRandom::new().fill(random.as_mut()).map_err(|_| AuthError::Random)?;
    // A byte has a whole number of alphabets in it: each letter comes as often as another.
    let letters = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    Ok(Zeroizing::new(letters.collect()))
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
        let claim = Claim::open(&store, dir.path(), &console).await.unwrap();
        let code = std::fs::read_to_string(dir.path().join("claim")).unwrap();
        assert_eq!((code.len(), code.matches('-').count()), (15, 2), "{code}");
        let issue = console.join("50-berth.issue");
        assert!(std::fs::read_to_string(&issue).unwrap().contains(code.trim()));
        assert_eq!(std::fs::metadata(&issue).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Claim::open(&store, dir.path(), &console).await.unwrap();
        for claim in [&claim, &again] {
            assert!(claim.is_right(&code) && claim.is_right(&code.to_lowercase().replace('-', "")));
            assert!(!claim.is_right("") && !claim.is_right("AAAA-AAAA-AAAA"));
        }
        again.close().unwrap();
        assert!(!again.is_right(&code) && !again.is_right("") && !issue.exists());
    }
}
