//! Whether the chain of audit records is whole: signs it now and then, and examines it.
//!
//! The key is this machine's alone. Whoever is root here has it, too: that nobody rewrites the chain with it is shown only by
//! copies that went elsewhere, as an export.

use std::path::{Path, PathBuf};

use berth_host::fs::{FsError, atomic_write, ensure_dir, read_optional};
use berth_model::resource::audit_record::Verification;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use ssh_key::public::{Ed25519PublicKey, KeyData, PublicKey};
use ssh_key::{Algorithm, HashAlg, LineEnding, Signature, SshSig};
use zeroize::Zeroizing;

use crate::store::{Checkpoint, Link, ReadTx, StoreError, Tx};

/// Records between two checkpoints.
pub const INTERVAL: u64 = 1000;
/// Records that are examined at once.
const PIECE: usize = 1000;
/// Problems that are told; a chain that was rewritten has no end of them.
const MOST_PROBLEMS: usize = 20;

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The key file cannot be read or written.
    #[error("keeping the key of the audit records")]
    File(#[from] FsError),
    /// The key file holds something else.
    #[error("{} does not hold a key; restore it from a backup, or move it away to have a new one made (checkpoints \
             that the old one signed are then told as foreign)", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The machine gives no randomness.
    #[error("the machine gives no randomness")]
    Random,
}

/// Signs the chain, and examines it.
pub struct Notary {
    key: Ed25519KeyPair,
}

impl std::fmt::Debug for Notary {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Notary")
    }
}

impl Notary {
    /// Reads the key below `data`, or makes one.
    ///
    /// # Errors
    /// The file cannot be read or written, or is no key.
    pub fn open(data: &Path) -> Result<Self, AuditError> {
        let path = data.join("keys/audit.key");
        ensure_dir(&data.join("keys"), 0o700)?;
        let bytes = match read_optional(&path)?.map(Zeroizing::new) {
            Some(bytes) => bytes,
            None => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| AuditError::Random)?;
                let bytes = Zeroizing::new(made.as_ref().to_vec());
                atomic_write(&path, &bytes, 0o600)?;
                bytes
            }
        };
        let key = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| AuditError::Damaged { path })?;
        Ok(Self { key })
    }

    /// The key by which others verify what is signed here, as OpenSSH writes it.
    ///
    /// # Errors
    /// It cannot be written so.
    pub fn public_key(&self) -> ssh_key::Result<String> {
        PublicKey::new(self.key_data()?, "").to_openssh()
    }

    /// A signature as git wants it on a commit (`gpg.format=ssh`), armoured.
    ///
    /// # Errors
    /// It cannot be written so.
    pub fn sign_commit(&self, draft: &str) -> ssh_key::Result<String> {
        let (namespace, hash) = ("git", HashAlg::Sha512);
        let signed = SshSig::signed_data(namespace, hash, draft.as_bytes())?;
        let signature = Signature::new(Algorithm::Ed25519, self.key.sign(&signed).as_ref())?;
        SshSig::new(self.key_data()?, namespace, hash, signature)?.to_pem(LineEnding::LF)
    }

    fn key_data(&self) -> ssh_key::Result<KeyData> {
        Ok(KeyData::Ed25519(Ed25519PublicKey::try_from(self.key.public_key().as_ref())?))
    }

    /// Signs the newest record, unless that is signed already.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn sign(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let Some(newest) = tx.newest_audit()? else { return Ok(()) };
        if tx.checkpoints()?.last().is_some_and(|last| last.sequence == newest.sequence) {
            return Ok(());
        }
        let signature = self.key.sign(&signed(newest.sequence, &newest.hash)).as_ref().to_vec();
        tx.keep_checkpoint(&Checkpoint { sequence: newest.sequence, hash: newest.hash, signature })
    }

    /// Examines every record and every checkpoint.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn verify(&self, tx: &ReadTx<'_>) -> Result<Verification, StoreError> {
        let checkpoints = tx.checkpoints()?;
        let key = self.public_key().unwrap_or_default();
        let mut found = Verification { checkpoints: checkpoints.len() as u64, key, ..Verification::default() };
        for checkpoint in &checkpoints {
            self.examine_checkpoint(checkpoint, &mut found);
        }
        let mut before: Option<Link> = None;
        loop {
            let links = tx.audit_after(before.as_ref().map_or(0, |last| last.sequence), PIECE)?;
            for link in &links {
                examine(link, before.as_ref(), &mut found);
                compare(link, &checkpoints, &mut found);
                before = Some(link.clone());
            }
            if links.is_empty() {
                break;
            }
        }
        found.last = before.map_or(0, |last| last.sequence);
        if let Some(signed) = checkpoints.last().filter(|signed| signed.sequence > found.last) {
            let (from, to) = (found.last + 1, signed.sequence);
            tell(&mut found, format!("records {from} to {to} are missing: {to} was signed"));
        }
        Ok(found)
    }

    fn examine_checkpoint(&self, checkpoint: &Checkpoint, found: &mut Verification) {
        let key = UnparsedPublicKey::new(&ED25519, self.key.public_key().as_ref());
        if key.verify(&signed(checkpoint.sequence, &checkpoint.hash), &checkpoint.signature).is_err() {
            tell(found, format!("the checkpoint at record {} is not signed by this machine", checkpoint.sequence));
        }
    }
}

fn signed(sequence: u64, hash: &[u8; 32]) -> Vec<u8> {
    [b"berth audit\0".as_slice(), &sequence.to_be_bytes(), hash].concat()
}

fn tell(found: &mut Verification, problem: String) {
    if found.problems.len() < MOST_PROBLEMS {
        found.problems.push(problem);
    }
}

fn examine(link: &Link, before: Option<&Link>, found: &mut Verification) {
    found.records += 1;
    let sequence = link.sequence;
    if Link::expected(&link.previous, sequence, &link.deed) != link.hash {
        tell(found, format!("record {sequence} was changed: its hash is another"));
    }
    match before {
        // Those before it went when they were old.
        None => found.first = sequence,
        Some(before) if before.sequence + 1 != sequence => {
            tell(found, format!("records {} to {} are missing", before.sequence + 1, sequence - 1));
        }
        Some(before) if before.hash != link.previous => {
            tell(found, format!("record {sequence} does not follow record {}", before.sequence));
        }
        Some(_) => {}
    }
}

fn compare(link: &Link, checkpoints: &[Checkpoint], found: &mut Verification) {
    let signed = checkpoints.binary_search_by_key(&link.sequence, |one| one.sequence);
    let differs = signed.ok().and_then(|at| checkpoints.get(at)).is_some_and(|one| one.hash != link.hash);
    if differs {
        tell(found, format!("record {} is not the one that was signed", link.sequence));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use berth_model::resource::audit_record::Deed;
    use rusqlite::Connection;

    use super::*;
    use crate::store::{Clock, Store, house_keeping};

    struct Chain {
        dir: tempfile::TempDir,
        notary: Notary,
    }

    impl Chain {
        /// Ten deeds, signed after the seventh.
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let chain = Self { notary: Notary::open(dir.path()).unwrap(), dir };
            let store = chain.store();
            let notary = Notary::open(chain.dir.path()).unwrap();
            let write = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
                for number in 1..=10 {
                    let deed =
                        Deed { identity: "user:alice".into(), name: format!("deed-{number}"), ..Deed::default() };
                    tx.audit(&deed)?;
                    if number == 7 {
                        notary.sign(tx)?;
                    }
                }
                Ok(())
            };
            store.write(&house_keeping(), write).await.unwrap();
            store.close().await;
            chain
        }

        fn store(&self) -> Store {
            let clock: Clock = Arc::new(|| "2026-03-01T12:00:00Z".parse().unwrap());
            Store::open(&self.dir.path().join("berth.db"), clock).unwrap()
        }

        fn tamper(&self, sql: &str) {
            let raw = Connection::open(self.dir.path().join("berth.db")).unwrap();
            assert!(raw.execute(sql, []).unwrap() > 0, "{sql}");
        }

        async fn verify(&self) -> Verification {
            let (store, notary) = (self.store(), Notary::open(self.dir.path()).unwrap());
            let found = store.read(move |tx| notary.verify(tx)).await.unwrap();
            store.close().await;
            found
        }
    }

    #[tokio::test]
    async fn a_chain_that_nobody_touched_is_whole() {
        let chain = Chain::new().await;
        let key = Notary::open(chain.dir.path()).unwrap().public_key().unwrap();
        let whole = Verification { records: 10, first: 1, last: 10, checkpoints: 1, key, problems: Vec::new() };
        assert_eq!(chain.verify().await, whole);
    }

    #[tokio::test]
    async fn whatever_was_changed_or_taken_out_is_seen() {
        let change = "UPDATE audit SET deed = replace(deed, 'alice', 'alicf') WHERE sequence = 4";
        for (sql, problem) in [
            (change, "record 4 was changed: its hash is another"),
            ("DELETE FROM audit WHERE sequence IN (4, 5)", "records 4 to 5 are missing"),
            ("DELETE FROM audit WHERE sequence > 5", "records 6 to 7 are missing: 7 was signed"),
            ("UPDATE audit SET hash = randomblob(32) WHERE sequence = 9", "record 9 was changed: its hash is another"),
            (
                "UPDATE checkpoint SET signature = randomblob(64)",
                "the checkpoint at record 7 is not signed by this machine",
            ),
            ("UPDATE checkpoint SET hash = randomblob(32)", "record 7 is not the one that was signed"),
        ] {
            let chain = Chain::new().await;
            chain.tamper(sql);
            let found = chain.verify().await;
            assert!(found.problems.iter().any(|told| told == problem), "{sql}: {:?}", found.problems);
        }
    }

    #[tokio::test]
    async fn a_chain_that_was_written_anew_differs_from_what_was_signed() {
        let chain = Chain::new().await;
        let raw = Connection::open(chain.dir.path().join("berth.db")).unwrap();
        let mut previous = [0; 32];
        for sequence in 1..=10_u64 {
            let old: String = raw
                .query_row("SELECT deed FROM audit WHERE sequence = ?1", [sequence.cast_signed()], |row| row.get(0))
                .unwrap();
            let deed = old.replace("alice", "mallory");
            let hash = Link::expected(&previous, sequence, &deed);
            let sql = "UPDATE audit SET previous = ?2, deed = ?3, hash = ?4 WHERE sequence = ?1";
            raw.execute(sql, rusqlite::params![sequence.cast_signed(), previous.as_slice(), deed, hash.as_slice()])
                .unwrap();
            previous = hash;
        }
        drop(raw);
        assert_eq!(chain.verify().await.problems, ["record 7 is not the one that was signed"]);
    }

    #[tokio::test]
    async fn what_is_old_goes_and_the_rest_is_whole() {
        let chain = Chain::new().await;
        let store = chain.store();
        let forget = |tx: &mut Tx<'_>| tx.forget_audit("2026-06-01T00:00:00Z".parse().unwrap());
        let forgotten: Result<usize, StoreError> = store.write(&house_keeping(), forget).await;
        assert_eq!(forgotten.unwrap(), 9);
        store.close().await;
        let found = chain.verify().await;
        assert_eq!((found.records, found.first, found.problems), (1, 10, Vec::new()));
        assert!(chain.notary.key.public_key().as_ref().len() == 32);
    }
}
