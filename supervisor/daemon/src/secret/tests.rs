//! Secrets and keys of volumes, as the rest of the daemon meets them.

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

#[test]
fn a_volumes_key_is_the_same_after_a_restart_and_is_not_made_by_reading() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(sealer(dir.path(), 7).volume_key("one"), Err(SecretError::NoVolumeKey)));
    let key = sealer(dir.path(), 7).make_volume_key("one").unwrap();
    assert_eq!(key.len(), 64);
    assert_eq!(sealer(dir.path(), 7).volume_key("one").unwrap(), key);
    assert_eq!(sealer(dir.path(), 7).make_volume_key("one").unwrap(), key);
    assert_ne!(sealer(dir.path(), 7).make_volume_key("two").unwrap(), key);
}

#[test]
fn one_damaged_key_of_a_volume_is_said_so_and_the_others_open() {
    let dir = tempfile::tempdir().unwrap();
    let sealer = sealer(dir.path(), 7);
    sealer.make_volume_key("one").unwrap();
    sealer.make_volume_key("two").unwrap();
    let path = dir.path().join("volumes.keys");
    let text = std::fs::read_to_string(&path).unwrap();
    let at = text.find("one 0 ").unwrap() + 40;
    let mut bytes = text.into_bytes();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    std::fs::write(&path, bytes).unwrap();
    let error = sealer.volume_key("one").unwrap_err();
    assert!(error.to_string().contains("was changed on disk and does not open; restore"), "{error}");
    assert!(sealer.volume_key("two").is_ok());
}

#[test]
fn keys_of_volumes_alone_tell_a_wrong_master_key() {
    let dir = tempfile::tempdir().unwrap();
    sealer(dir.path(), 7).make_volume_key("one").unwrap();
    std::fs::remove_file(dir.path().join("master.check")).unwrap();
    let before = std::fs::read(dir.path().join("volumes.keys")).unwrap();
    let wrong = sealer(dir.path(), 8);
    assert!(why(&wrong).contains("restore the keys/master.cred"), "{}", why(&wrong));
    assert!(wrong.make_volume_key("two").is_err());
    assert_eq!(std::fs::read(dir.path().join("volumes.keys")).unwrap(), before);
}

/// A machine with a secret and two volumes, whose master key lies in the fake vault.
async fn machine(keys: &Path) -> (Vec<u8>, Zeroizing<Vec<u8>>) {
    let sealed = FakeVault(1).seal(&[7; 32]).await.unwrap();
    std::fs::write(keys.join("master.cred"), sealed).unwrap();
    let sealer = restarted(keys).await;
    sealer.make_volume_key("gone").unwrap();
    (sealer.seal(&RECORD, b"canary").unwrap(), sealer.make_volume_key("kept").unwrap())
}

/// What the next start of the daemon has.
async fn restarted(keys: &Path) -> Sealer {
    finish_epoch(keys).unwrap();
    let sealed = std::fs::read(keys.join("master.cred")).unwrap();
    let master = MasterKey::from_bytes(&FakeVault(1).unseal(&sealed).await.unwrap());
    Sealer::open(keys, master, Arc::new(SystemRandom::new()))
}

#[tokio::test]
async fn an_erased_key_is_gone_with_its_master_key_and_all_else_opens() {
    let dir = tempfile::tempdir().unwrap();
    let (secret, kept) = machine(dir.path()).await;
    let before = std::fs::read(dir.path().join("master.cred")).unwrap();
    let sealer = restarted(dir.path()).await;
    sealer.erase_volume_key("gone", &FakeVault(1)).await.unwrap();
    for sealer in [sealer, restarted(dir.path()).await] {
        assert_eq!(*sealer.unseal(&RECORD, &secret).unwrap(), b"canary");
        assert_eq!(sealer.volume_key("kept").unwrap(), kept);
        assert!(matches!(sealer.volume_key("gone"), Err(SecretError::NoVolumeKey)));
    }
    assert_ne!(std::fs::read(dir.path().join("master.cred")).unwrap(), before);
    assert!(!dir.path().join("next").exists());
    let old = Sealer::open(dir.path(), MasterKey::from_bytes(&[7; 32]), Arc::new(SystemRandom::new()));
    assert!(old.locked().is_some(), "the old master key still opens something");
}

#[tokio::test]
async fn nothing_is_erased_while_that_would_be_the_end_of_a_damaged_key_that_may_be_mended() {
    let dir = tempfile::tempdir().unwrap();
    let (_, kept) = machine(dir.path()).await;
    let sealer = restarted(dir.path()).await;
    let (ring, wrapped) = (dir.path().join("volumes.keys"), dir.path().join("namespaces/default.key"));
    let changed = |path: &Path, at: usize| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let at = std::fs::read_to_string(&ring).unwrap().find("kept 0 ").unwrap() + 40;
    changed(&ring, at);
    let before = std::fs::read(dir.path().join("master.cred")).unwrap();
    let error = sealer.erase_volume_key("gone", &FakeVault(1)).await.unwrap_err();
    assert!(error.to_string().starts_with("line 4 of keys/volumes.keys cannot be opened"), "{error}");
    assert_eq!(sealer.check_erasure("gone").unwrap_err().to_string(), error.to_string());
    assert_eq!(std::fs::read(dir.path().join("master.cred")).unwrap(), before);
    sealer.check_erasure("kept").unwrap();

    changed(&ring, at);
    changed(&wrapped, 20);
    let error = sealer.check_erasure("gone").unwrap_err();
    assert!(error.to_string().starts_with("keys/namespaces/default.key cannot be opened"), "{error}");
    changed(&wrapped, 20);
    sealer.erase_volume_key("gone", &FakeVault(1)).await.unwrap();
    assert_eq!(restarted(dir.path()).await.volume_key("kept").unwrap(), kept);
}

#[tokio::test]
async fn an_erasure_cut_short_anywhere_loses_nothing_else_and_is_brought_to_its_end() {
    let mut effects = 0;
    loop {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let (secret, kept) = machine(dir.path()).await;
        let left: std::cell::Cell<u32> = std::cell::Cell::new(effects);
        let gate = || match left.get().checked_sub(1) {
            Some(less) => {
                left.set(less);
                Ok(())
            }
            None => Err(FsError::new("dying at", Path::new("here"), std::io::ErrorKind::Interrupted.into())),
        };
        let cut = restarted(dir.path()).await.erase("gone", &FakeVault(1), gate).await;
        let again = restarted(dir.path()).await;
        assert!(again.locked().is_none(), "after {effects} effects: {:?}", again.locked());
        assert_eq!(*again.unseal(&RECORD, &secret).unwrap(), b"canary", "after {effects} effects");
        assert_eq!(again.volume_key("kept").unwrap(), kept, "after {effects} effects");
        again.erase_volume_key("gone", &FakeVault(1)).await.unwrap();
        let last = restarted(dir.path()).await;
        assert!(matches!(last.volume_key("gone"), Err(SecretError::NoVolumeKey)));
        assert_eq!(last.volume_key("kept").unwrap(), kept);
        assert!(!dir.path().join("next").exists());
        if cut.is_ok() {
            break;
        }
        effects += 1;
    }
    assert!(effects > 10, "it was cut short only {effects} times");
}

#[tokio::test]
async fn a_machine_that_cannot_seal_a_new_master_key_erases_nothing() {
    struct Broken;
    impl Vault for Broken {
        async fn seal(&self, key: &[u8]) -> Result<Vec<u8>, berth_host::cmd::CmdError> {
            Ok(key.iter().map(|byte| byte ^ 1).collect())
        }
        async fn unseal(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, berth_host::cmd::CmdError> {
            Ok(Zeroizing::new(sealed.to_vec()))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path()).await;
    let sealer = restarted(dir.path()).await;
    assert!(matches!(sealer.erase_volume_key("gone", &Broken).await, Err(SecretError::Seal(SealError::SealedWrong))));
    assert!(restarted(dir.path()).await.volume_key("gone").is_ok());
}
