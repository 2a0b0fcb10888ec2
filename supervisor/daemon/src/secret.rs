//! Secrets at rest: nothing of a value reaches the disk unsealed.
//!
//! ```text
//! $CREDENTIALS_DIRECTORY/master   32 bytes, unsealed by systemd for this service alone
//!   └─ HKDF + AES-256-GCM ─> keys/namespaces/<namespace>.key   random, one per namespace
//!        ├─ HKDF(salt of the record) + AES-256-GCM ─> each value, bound to namespace, name, uid, key
//!        └─ HKDF + HMAC-SHA256 ─> digest of each value, to see a change without seeing the value
//! ```
//!
//! [`Sealer`] is the handle. Key files are written before the first record that needs
//! them, inside the store's writing thread, so that a record never outlives its key. Removing a
//! namespace's file makes all its values unreadable at once, in backups of the database too.
//!
//! Without the right master key the sealer is *locked*: every call fails with what to do, and no
//! file is written. `object.rs` applies it to whole Secret objects.

mod envelope;
mod object;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_host::fs::{FsError, atomic_write, ensure_dir, read_optional, remove_file};
use berth_model::kinds::NAMESPACE;
use berth_model::meta;
use berth_model::resource::operation::Actor;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use crate::store::{Store, StoreError, Tx};

pub use envelope::Record;
pub use object::redact_object;

use envelope::{Envelope, Key};

/// Why a secret cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// systemd handed over no master key.
    #[error(
        "no master key was handed to berthd: run `systemctl restart berth-setup berthd`; if that does \
             not help, `journalctl -u berth-setup -u berthd` says why the key could not be unsealed"
    )]
    NoMaster,
    /// The credential is there but is no key.
    #[error("the master key has {length} bytes and should have 32: restore keys/master.cred from a backup")]
    MasterLength {
        /// What was found.
        length: usize,
    },
    /// The key is not the one that was used before.
    #[error(
        "the master key is not the one that the secrets here were sealed with: restore the \
             keys/master.cred that belongs to this data directory, then restart berthd"
    )]
    WrongMaster,
    /// Nothing can be sealed or opened until the master key is put right.
    #[error("secrets are locked")]
    Locked(#[source] Arc<SecretError>),
    /// A sealed value, or the key of its namespace, cannot be opened.
    #[error(
        "{what} cannot be opened: it was changed on disk or belongs to something else; restore the \
             data directory from a backup, or write the value again"
    )]
    Damaged {
        /// Which.
        what: String,
    },
    /// A client sent back the digest of a value that has changed since.
    #[error(
        "{field} is the digest of a value that is not the present one: leave the key out to keep \
             the present value, or send a value"
    )]
    StaleDigest {
        /// Path of the value.
        field: String,
    },
    /// A value is not base64.
    #[error("{field} is not base64; use stringData for plain text")]
    Malformed {
        /// Path of the value.
        field: String,
    },
    /// A key file could not be read or written.
    #[error("keeping the keys of the secrets")]
    File(#[from] FsError),
    /// The machine gives no randomness, or refuses a cipher.
    #[error("the cryptographic library failed")]
    Crypto,
}

impl From<ring::error::Unspecified> for SecretError {
    fn from(_: ring::error::Unspecified) -> Self {
        Self::Crypto
    }
}

/// Why keys of namespaces that are gone could not be destroyed.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The namespaces cannot be listed.
    #[error("listing the namespaces whose keys are kept")]
    Store(#[from] StoreError),
    /// A key file stays.
    #[error("destroying the keys of namespaces that are gone")]
    Secret(#[from] SecretError),
}

/// The key over all keys. Never printed, wiped when dropped.
pub struct MasterKey(Key);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

impl MasterKey {
    /// Takes the 32 bytes of the credential `master` in the directory that systemd made.
    ///
    /// # Errors
    /// There is none, or it is no key.
    pub fn from_credentials(directory: Option<&Path>) -> Result<Self, SecretError> {
        let path = directory.ok_or(SecretError::NoMaster)?.join("master");
        let bytes = Zeroizing::new(read_optional(&path)?.ok_or(SecretError::NoMaster)?);
        Self::from_bytes(&bytes)
    }

    /// Takes 32 bytes.
    ///
    /// # Errors
    /// There are more or fewer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecretError> {
        let key = <[u8; 32]>::try_from(bytes);
        let key = key.map_err(|_| SecretError::MasterLength { length: bytes.len() })?;
        Ok(Self(Key::new(key)))
    }
}

/// Seals and opens values; clones share the keys.
#[derive(Clone)]
pub struct Sealer {
    state: Result<Arc<Keyring>, Arc<SecretError>>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.state.is_ok() { "Sealer(open)" } else { "Sealer(locked)" })
    }
}

struct Keyring {
    master: MasterKey,
    directory: PathBuf,
    random: Arc<dyn SecureRandom + Send + Sync>,
    namespaces: Mutex<HashMap<String, Arc<Key>>>,
}

impl Sealer {
    /// Opens the keys below `keys` with this master key, or stays locked and says why.
    pub fn open(
        keys: &Path,
        master: Result<MasterKey, SecretError>,
        random: Arc<dyn SecureRandom + Send + Sync>,
    ) -> Self {
        let keyring = master.and_then(|master| Keyring::open(keys, master, random));
        if let Err(why) = &keyring {
            tracing::error!("secrets are locked: {}", crate::log::chain(why));
        }
        Self { state: keyring.map(Arc::new).map_err(Arc::new) }
    }

    /// Why nothing can be sealed or opened; `None` when all is well.
    pub fn locked(&self) -> Option<&SecretError> {
        self.state.as_ref().err().map(Arc::as_ref)
    }

    /// Seals one value. Called twice, it gives two different envelopes with the same digest.
    ///
    /// # Errors
    /// Locked; or the key of the namespace cannot be read or written.
    pub fn seal(&self, record: &Record<'_>, value: &[u8]) -> Result<Vec<u8>, SecretError> {
        let keyring = self.keyring()?;
        let key = keyring.namespace(record.namespace)?;
        Ok(Envelope::seal(&key, record, value, keyring.random.as_ref())?.into_bytes())
    }

    /// Opens one value.
    ///
    /// # Errors
    /// Locked; or the envelope was made for another record or changed.
    pub fn unseal(&self, record: &Record<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let keyring = self.keyring()?;
        let key = keyring.namespace(record.namespace)?;
        Envelope::parse(sealed)
            .and_then(|envelope| envelope.open(&key, record))
            .ok_or_else(|| SecretError::Damaged { what: record.to_string() })
    }

    /// Whether `sealed` holds `value`, told from the digest alone.
    fn holds(&self, record: &Record<'_>, sealed: &[u8], value: &[u8]) -> Result<bool, SecretError> {
        let key = self.keyring()?.namespace(record.namespace)?;
        let Some(envelope) = Envelope::parse(sealed) else { return Ok(false) };
        Ok(envelope.is_digest_of(&key, record, value)?)
    }

    /// Destroys the keys of namespaces that are gone, and with them every value there was.
    ///
    /// The list is read where all writes happen, one after the other, so that no namespace and no
    /// secret can appear meanwhile. To be called now and then; a locked sealer does nothing.
    ///
    /// # Errors
    /// The store cannot be read, or a file stays.
    pub async fn forget_gone(&self, store: &Store) -> Result<(), ForgetError> {
        if self.locked().is_some() {
            return Ok(());
        }
        let sealer = self.clone();
        let actor = Actor { identity: "berthd".into(), source: "schedule".into() };
        let work = move |tx: &mut Tx<'_>| -> Result<(), ForgetError> {
            let present = tx.list_values(&NAMESPACE, None)?;
            let names: Vec<String> = present.iter().map(|one| meta::name(one).to_owned()).collect();
            Ok(sealer.keep_only(&names)?)
        };
        store.write(&actor, work).await
    }

    /// Destroys the keys of all namespaces but these.
    fn keep_only(&self, namespaces: &[String]) -> Result<(), SecretError> {
        self.keyring()?.keep_only(namespaces)
    }

    fn keyring(&self) -> Result<&Keyring, SecretError> {
        self.state.as_deref().map_err(|why| SecretError::Locked(why.clone()))
    }
}

impl Keyring {
    fn open(keys: &Path, master: MasterKey, random: Arc<dyn SecureRandom + Send + Sync>) -> Result<Self, SecretError> {
        let directory = keys.join("namespaces");
        recognise(&keys.join("master.check"), &directory, &master)?;
        ensure_dir(&directory, 0o700)?;
        Ok(Self { master, directory, random, namespaces: Mutex::default() })
    }

    /// The key of a namespace, made and kept on disk if there is none yet.
    fn namespace(&self, namespace: &str) -> Result<Arc<Key>, SecretError> {
        let mut known = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known.get(namespace) {
            return Ok(key.clone());
        }
        let path = self.path(namespace);
        let record = Record { namespace, name: "", uid: "", key: "" };
        let key = match read_optional(&path)? {
            Some(wrapped) => self.unwrap(&record, &wrapped)?,
            None => self.make(&record, &path)?,
        };
        let key = Arc::new(key);
        known.insert(namespace.to_owned(), key.clone());
        Ok(key)
    }

    fn unwrap(&self, record: &Record<'_>, wrapped: &[u8]) -> Result<Key, SecretError> {
        let opened = Envelope::parse(wrapped).and_then(|envelope| envelope.open(&self.master.0, record));
        let key = opened.and_then(|key| <[u8; 32]>::try_from(key.as_slice()).ok());
        let what = || format!("the key of namespace {}", record.namespace);
        key.map(Key::new).ok_or_else(|| SecretError::Damaged { what: what() })
    }

    fn make(&self, record: &Record<'_>, path: &Path) -> Result<Key, SecretError> {
        let mut key = Zeroizing::new([0; 32]);
        self.random.fill(key.as_mut())?;
        let wrapped = Envelope::seal(&self.master.0, record, key.as_ref(), self.random.as_ref())?;
        atomic_write(path, &wrapped.into_bytes(), 0o600)?;
        Ok(Key::new(*key))
    }

    fn keep_only(&self, namespaces: &[String]) -> Result<(), SecretError> {
        let mut known = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        for namespace in key_files(&self.directory) {
            if !namespaces.contains(&namespace) {
                remove_file(&self.path(&namespace))?;
                known.remove(&namespace);
            }
        }
        Ok(())
    }

    fn path(&self, namespace: &str) -> PathBuf {
        self.directory.join(format!("{namespace}.key"))
    }
}

/// Tells a master key from a wrong one. What it is told by is written at the first use only: never
/// when a key is there that some other master has wrapped.
fn recognise(check: &Path, namespaces: &Path, master: &MasterKey) -> Result<(), SecretError> {
    let expected = master.0.check();
    match read_optional(check)? {
        Some(found) if found == expected => Ok(()),
        Some(_) => Err(SecretError::WrongMaster),
        None if key_files(namespaces).next().is_some() => Err(SecretError::WrongMaster),
        None => Ok(atomic_write(check, &expected, 0o600)?),
    }
}

/// The namespaces that have a key file.
fn key_files(directory: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".key").map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    const RECORD: Record<'_> = Record { namespace: "default", name: "db", uid: "11111111-2222", key: "password" };

    fn sealer(dir: &Path, master: u8) -> Sealer {
        let master = MasterKey::from_bytes(&[master; 32]);
        Sealer::open(dir, master, Arc::new(SystemRandom::new()))
    }

    fn why(sealer: &Sealer) -> String {
        sealer.locked().unwrap().to_string()
    }

    #[test]
    fn a_sealed_value_comes_back_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = sealer(dir.path(), 7).seal(&RECORD, b"canary").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_eq!(*sealer(dir.path(), 7).unseal(&RECORD, &sealed).unwrap(), b"canary");
    }

    #[test]
    fn a_value_is_bound_to_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = sealer(dir.path(), 7);
        let sealed = sealer.seal(&RECORD, b"canary").unwrap();
        for other in [
            Record { namespace: "other", ..RECORD },
            Record { name: "web", ..RECORD },
            Record { uid: "33333333-4444", ..RECORD },
            Record { key: "user", ..RECORD },
        ] {
            let error = sealer.unseal(&other, &sealed).unwrap_err();
            assert!(matches!(error, SecretError::Damaged { .. }), "{other} opened it");
        }
    }

    #[test]
    fn a_changed_byte_anywhere_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = sealer(dir.path(), 7);
        let sealed = sealer.seal(&RECORD, b"canary").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.unseal(&RECORD, &changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_wrong_master_key_locks_and_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = sealer(dir.path(), 7).seal(&RECORD, b"canary").unwrap();
        let files = || {
            let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
            (read("master.check"), read("namespaces/default.key"))
        };
        let before = files();
        let wrong = sealer(dir.path(), 8);
        assert!(why(&wrong).contains("restore the keys/master.cred"), "{}", why(&wrong));
        assert!(matches!(wrong.seal(&RECORD, b"x"), Err(SecretError::Locked(_))));
        assert!(matches!(wrong.unseal(&RECORD, &sealed), Err(SecretError::Locked(_))));
        assert!(wrong.keep_only(&[]).is_err());
        assert_eq!(files(), before);
    }

    #[test]
    fn a_lost_check_file_is_not_made_anew_for_keys_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        sealer(dir.path(), 7).seal(&RECORD, b"canary").unwrap();
        std::fs::remove_file(dir.path().join("master.check")).unwrap();
        assert!(sealer(dir.path(), 8).locked().is_some());
        assert!(!dir.path().join("master.check").exists());
    }

    #[test]
    fn a_missing_master_key_locks_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let open = |credentials| {
            let master = MasterKey::from_credentials(credentials);
            Sealer::open(dir.path(), master, Arc::new(SystemRandom::new()))
        };
        assert!(why(&open(None)).contains("systemctl restart berth-setup berthd"));
        assert!(why(&open(Some(dir.path()))).contains("systemctl restart berth-setup berthd"));
        std::fs::write(dir.path().join("master"), [1; 31]).unwrap();
        assert!(why(&open(Some(dir.path()))).contains("31 bytes"));
    }

    #[test]
    fn the_key_of_a_namespace_that_is_gone_is_destroyed_with_all_its_values() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = sealer(dir.path(), 7);
        let sealed = sealer.seal(&RECORD, b"canary").unwrap();
        sealer.keep_only(&["default".to_owned()]).unwrap();
        assert!(sealer.unseal(&RECORD, &sealed).is_ok());
        sealer.keep_only(&["other".to_owned()]).unwrap();
        assert!(sealer.unseal(&RECORD, &sealed).is_err());
    }

    #[test]
    fn keys_do_not_show_in_debug_output() {
        let dir = tempfile::tempdir().unwrap();
        let master = MasterKey::from_bytes(&[7; 32]).unwrap();
        assert_eq!(format!("{master:?} {:?}", sealer(dir.path(), 7)), "MasterKey(..) Sealer(open)");
    }
}
