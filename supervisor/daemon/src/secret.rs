//! Secrets at rest: nothing of a value reaches the disk unsealed.
//!
//! ```text
//! $CREDENTIALS_DIRECTORY/master   32 bytes, unsealed by systemd for this service alone
//!   └─ HKDF + AES-256-GCM ─> keys/namespaces/<namespace>.key   random, one per namespace
//!        ├─ HKDF(salt of the record) + AES-256-GCM ─> each value, bound to namespace, name, uid, key
//!        └─ HKDF + HMAC-SHA256 ─> digest of each value, to see a change without seeing the value
//!   └─ HKDF + AES-256-GCM ─> keys/volumes.keys             random, one per volume (`volumes.rs`)
//! ```
//!
//! [`Sealer`] is the handle. Key files are written before the first record that needs
//! them, inside the store's writing thread, so that a record never outlives its key. Removing a
//! namespace's file makes all its values unreadable at once, in backups of the database too.
//!
//! What is kept of accounts is sealed like a value, under a key of its own in the same place ([`ACCOUNTS`]).
//!
//! Without the right master key the sealer is *locked*: every call fails with what to do, and no
//! file is written. `object.rs` applies it to whole Secret objects.

mod draft;
mod envelope;
mod epoch;
mod object;

#[cfg(test)]
mod tests;
mod vault;
mod volumes;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_host::fs::{FsError, atomic_write, ensure_dir, read_optional, remove_file};
use berth_model::kinds::NAMESPACE;
use berth_model::meta;
use berth_model::resource::operation::Actor;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use crate::store::{Store, StoreError, Tx};

pub use draft::{Before, Drafts};
pub use envelope::Record;
pub use epoch::finish as finish_epoch;
pub use object::redact_object;
#[cfg(test)]
pub use vault::FakeVault;
pub use vault::{SealError, SystemdCreds, Vault, seal_checked};

use envelope::{Envelope, Key};
use epoch::{Gate, Piece};
use volumes::Ring;

/// The keys of volumes, below the keys.
const VOLUMES: &str = "volumes.keys";

/// Under which name the key is kept by which parts of accounts are sealed. No namespace can be called so.
pub const ACCOUNTS: &str = "_accounts";

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
    /// There is no key for a volume that has data.
    #[error(
        "there is no key for this volume in keys/volumes.keys: its line was lost or changed on disk, and without \
         it nobody can open the volume; restore keys/volumes.keys and keys/master.cred of one time from a backup"
    )]
    NoVolumeKey,
    /// The key of a volume was changed on disk.
    #[error(
        "the key of this volume in keys/volumes.keys was changed on disk and does not open; restore \
         keys/volumes.keys and keys/master.cred of one time from a backup"
    )]
    VolumeKey,
    /// A new master key would be the end of keys that do not open at present.
    #[error(
        "{what} cannot be opened, and under a new master key never could: restore it, with the keys/master.cred of \
         the same time, from a backup; or, if what it opens is worth nothing, take it out"
    )]
    WouldLose {
        /// Which.
        what: String,
    },
    /// A new master key could not be sealed.
    #[error("making a new master key")]
    Seal(#[from] SealError),
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
    keys: PathBuf,
    random: Arc<dyn SecureRandom + Send + Sync>,
    /// Whoever reads or writes a file that the master key seals holds this, so that a new master key
    /// finds them all.
    open: Mutex<Open>,
}

struct Open {
    master: MasterKey,
    namespaces: HashMap<String, Arc<Key>>,
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

    /// The key of a volume that has data.
    ///
    /// # Errors
    /// Locked; there is none ([`SecretError::NoVolumeKey`]), or it was changed on disk.
    pub fn volume_key(&self, uid: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        self.keyring()?.volume_key(uid)
    }

    /// The key of a volume that has no data yet: on disk before this comes back. Called again, it
    /// gives the same, unless that was damaged meanwhile.
    ///
    /// # Errors
    /// Locked; or the file cannot be written.
    pub fn make_volume_key(&self, uid: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        self.keyring()?.make_volume_key(uid)
    }

    /// Drops the key of a volume that never had data.
    ///
    /// # Errors
    /// Locked; or the file cannot be written.
    pub fn drop_volume_key(&self, uid: &str) -> Result<(), SecretError> {
        self.keyring()?.drop_volume_key(uid)
    }

    /// Destroys the key of a volume for good: no copy of its file, of the keys or of the sealed master
    /// key made before opens it with what is left on this machine. Can be called again.
    ///
    /// # Errors
    /// Locked; no new master key can be sealed, or a file cannot be written.
    pub async fn erase_volume_key(&self, uid: &str, vault: &impl Vault) -> Result<(), SecretError> {
        self.erase(uid, vault, || Ok(())).await
    }

    /// Whether [`Sealer::erase_volume_key`] would lose nothing else.
    ///
    /// # Errors
    /// Locked; or keys do not open that a new master key would be the end of ([`SecretError::WouldLose`]).
    pub fn check_erasure(&self, uid: &str) -> Result<(), SecretError> {
        let keyring = self.keyring()?;
        keyring.keys_if_none_is_lost(uid, &keyring.opened().master).map(drop)
    }

    async fn erase(
        &self,
        uid: &str,
        vault: &impl Vault,
        gate: impl Fn() -> Result<(), FsError>,
    ) -> Result<(), SecretError> {
        let keyring = self.keyring()?;
        let mut bytes = Zeroizing::new([0; 32]);
        keyring.random.fill(bytes.as_mut())?;
        let sealed = seal_checked(vault, bytes.as_ref()).await?;
        keyring.begin_epoch(MasterKey::from_bytes(bytes.as_ref())?, sealed, uid, &gate)
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
        recognise(keys, &master)?;
        ensure_dir(&keys.join("namespaces"), 0o700)?;
        let open = Mutex::new(Open { master, namespaces: HashMap::new() });
        Ok(Self { keys: keys.to_owned(), random, open })
    }

    fn opened(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of a namespace, made and kept on disk if there is none yet.
    fn namespace(&self, namespace: &str) -> Result<Arc<Key>, SecretError> {
        let mut open = self.opened();
        if let Some(key) = open.namespaces.get(namespace) {
            return Ok(key.clone());
        }
        let path = self.path(namespace);
        let key = match read_optional(&path)? {
            Some(wrapped) => unwrap(namespace, &wrapped, &open.master)
                .ok_or_else(|| SecretError::Damaged { what: format!("the key of namespace {namespace}") })?,
            None => self.make(namespace, &path, &open.master)?,
        };
        let key = Arc::new(key);
        open.namespaces.insert(namespace.to_owned(), key.clone());
        Ok(key)
    }

    fn make(&self, namespace: &str, path: &Path, master: &MasterKey) -> Result<Key, SecretError> {
        let mut key = Zeroizing::new([0; 32]);
        self.random.fill(key.as_mut())?;
        let wrapped = Envelope::seal(&master.0, &of_namespace(namespace), key.as_ref(), self.random.as_ref())?;
        atomic_write(path, &wrapped.into_bytes(), 0o600)?;
        Ok(Key::new(*key))
    }

    fn keep_only(&self, namespaces: &[String]) -> Result<(), SecretError> {
        let mut open = self.opened();
        for namespace in key_files(&self.keys) {
            if namespace != ACCOUNTS && !namespaces.contains(&namespace) {
                remove_file(&self.path(&namespace))?;
                open.namespaces.remove(&namespace);
            }
        }
        Ok(())
    }

    fn volume_key(&self, uid: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let open = self.opened();
        let found = self.ring()?.open(uid, &open.master.0).ok_or(SecretError::NoVolumeKey)?;
        found.map_err(|_| SecretError::VolumeKey)
    }

    fn make_volume_key(&self, uid: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let open = self.opened();
        let mut ring = self.ring()?;
        if let Some(Ok(key)) = ring.open(uid, &open.master.0) {
            return Ok(key);
        }
        let key = ring.draw(uid, &open.master.0, self.random.as_ref())?;
        atomic_write(&self.keys.join(VOLUMES), &ring.to_bytes(), 0o600)?;
        Ok(key)
    }

    fn drop_volume_key(&self, uid: &str) -> Result<(), SecretError> {
        let _held = self.opened();
        let mut ring = self.ring()?;
        ring.forget(uid);
        Ok(atomic_write(&self.keys.join(VOLUMES), &ring.to_bytes(), 0o600)?)
    }

    /// Seals everything but one volume's key by another master key, which is in use from then on.
    fn begin_epoch(
        &self,
        master: MasterKey,
        sealed: Vec<u8>,
        without: &str,
        gate: Gate<'_>,
    ) -> Result<(), SecretError> {
        let mut open = self.opened();
        let mut pieces: Vec<Piece> = Vec::new();
        for (namespace, key) in self.keys_if_none_is_lost(without, &open.master)? {
            let name = Path::new("namespaces").join(format!("{namespace}.key"));
            let record = of_namespace(&namespace);
            pieces.push((name, Envelope::seal(&master.0, &record, key.bytes(), self.random.as_ref())?.into_bytes()));
        }
        let ring = self.ring()?.next(without, &open.master.0, &master.0, self.random.as_ref())?;
        pieces.push((VOLUMES.into(), ring.to_bytes()));
        pieces.push(("master.check".into(), master.0.check()));
        pieces.push(("master.cred".into(), sealed));
        epoch::replace(&self.keys, &pieces, gate)?;
        open.master = master;
        Ok(())
    }

    /// The keys of all namespaces, if the master key opens all there is but one volume's key: what does not open now
    /// may be put right for as long as the master key of its time lives.
    fn keys_if_none_is_lost(&self, without: &str, master: &MasterKey) -> Result<Vec<(String, Key)>, SecretError> {
        let mut keys = Vec::new();
        for namespace in key_files(&self.keys) {
            let wrapped = read_optional(&self.path(&namespace))?.unwrap_or_default();
            let lost = || SecretError::WouldLose { what: format!("keys/namespaces/{namespace}.key") };
            let key = unwrap(&namespace, &wrapped, master).ok_or_else(lost)?;
            keys.push((namespace, key));
        }
        match self.ring()?.unopened(without, &master.0).as_slice() {
            [] => Ok(keys),
            lines => {
                let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
                Err(SecretError::WouldLose { what: format!("line {} of keys/{VOLUMES}", lines.join(", ")) })
            }
        }
    }

    fn ring(&self) -> Result<Ring, SecretError> {
        Ok(Ring::parse(&read_optional(&self.keys.join(VOLUMES))?.unwrap_or_default()))
    }

    fn path(&self, namespace: &str) -> PathBuf {
        self.keys.join("namespaces").join(format!("{namespace}.key"))
    }
}

fn of_namespace(namespace: &str) -> Record<'_> {
    Record { namespace, name: "", uid: "", key: "" }
}

fn unwrap(namespace: &str, wrapped: &[u8], master: &MasterKey) -> Option<Key> {
    let key = Envelope::parse(wrapped)?.open(&master.0, &of_namespace(namespace))?;
    <[u8; 32]>::try_from(key.as_slice()).ok().map(Key::new)
}

/// Tells a master key from a wrong one. What it is told by is written at the first use only: never
/// when a key is there that some other master has wrapped.
fn recognise(keys: &Path, master: &MasterKey) -> Result<(), SecretError> {
    let check = keys.join("master.check");
    let expected = master.0.check();
    match read_optional(&check)? {
        Some(found) if found == expected => Ok(()),
        Some(_) => Err(SecretError::WrongMaster),
        None if key_files(keys).next().is_some() || keys.join(VOLUMES).exists() => Err(SecretError::WrongMaster),
        None => Ok(atomic_write(&check, &expected, 0o600)?),
    }
}

/// The namespaces that have a key file.
fn key_files(keys: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(keys.join("namespaces")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".key").map(str::to_owned)
    })
}
