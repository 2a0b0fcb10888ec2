//! Disks and keys that remember what was asked of them, for the tests of this domain and of bundles.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::future::BoxFuture;

use super::admission::{Room, admit};
use super::seams::{Cause, DiskError, Disks, Key, KeyFailure, Keys, Known, Purpose};

/// One volume's file and devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub size: u64,
    pub finished: bool,
    pub key: Vec<u8>,
    pub open: bool,
    pub filesystem: u64,
    /// What the next opening finds wrong.
    pub foreign: bool,
}

/// All disks and keys of a machine; they survive the daemon.
#[derive(Default)]
pub struct FakeDisks {
    pub disks: Mutex<BTreeMap<String, Disk>>,
    pub keys: Mutex<BTreeMap<String, Vec<u8>>>,
    pub free: Mutex<Option<u64>>,
    pub busy: Mutex<bool>,
    pub locked: Mutex<bool>,
}

impl FakeDisks {
    fn change<T>(&self, uid: &str, change: impl FnOnce(&mut Disk) -> Result<T, DiskError>) -> Result<T, DiskError> {
        let mut disks = self.disks.lock().unwrap();
        change(disks.get_mut(uid).ok_or(DiskError::Missing)?)
    }

    fn admit(&self, more: u64) -> Result<(), DiskError> {
        let free = self.free.lock().unwrap().unwrap_or(1 << 50);
        admit(Room { total: 0, free }, more).map_err(DiskError::DoesNotFit)
    }

    /// The only disk there is.
    pub fn only(&self) -> Disk {
        let disks = self.disks.lock().unwrap();
        assert_eq!(disks.len(), 1);
        disks.values().next().unwrap().clone()
    }
}

fn wrong() -> Cause {
    "as the test wants it".into()
}

impl Disks for FakeDisks {
    fn allocate<'a>(&'a self, uid: &'a str, size: u64) -> BoxFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            if self.disks.lock().unwrap().get(uid).is_some_and(|disk| disk.finished) {
                return Ok(());
            }
            self.admit(size)?;
            self.disks.lock().unwrap().insert(uid.into(), Disk { size, ..Disk::default() });
            Ok(())
        })
    }
    fn format<'a>(&'a self, uid: &'a str, size: u64, key: Key) -> BoxFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let mut disks = self.disks.lock().unwrap();
            let disk = disks.entry(uid.into()).or_default();
            if !disk.finished {
                *disk = Disk { size, finished: true, key: key.to_vec(), filesystem: size, ..Disk::default() };
            }
            Ok(())
        })
    }
    fn open<'a>(&'a self, uid: &'a str, size: u64, key: Key) -> BoxFuture<'a, Result<u64, DiskError>> {
        Box::pin(async move {
            self.change(uid, |disk| {
                if disk.size < size {
                    return Err(DiskError::Truncated { found: disk.size, expected: size });
                }
                if disk.key != *key {
                    return Err(DiskError::WrongKey(wrong()));
                }
                if disk.foreign {
                    return Err(DiskError::Filesystem(wrong()));
                }
                disk.open = true;
                disk.filesystem = disk.size;
                Ok(disk.size)
            })
        })
    }
    fn close<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            if *self.busy.lock().unwrap() {
                return Err(DiskError::Busy(wrong()));
            }
            if let Some(disk) = self.disks.lock().unwrap().get_mut(uid) {
                disk.open = false;
            }
            Ok(())
        })
    }
    fn try_key<'a>(&'a self, uid: &'a str, key: Key) -> BoxFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let fits = |disk: &mut Disk| if disk.key == *key { Ok(()) } else { Err(DiskError::WrongKey(wrong())) };
            self.change(uid, fits)
        })
    }
    fn grow_image<'a>(&'a self, uid: &'a str, size: u64, _: Key) -> BoxFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let present = self.change(uid, |disk| Ok(disk.size))?;
            self.admit(size.saturating_sub(present))?;
            self.change(uid, |disk| {
                disk.size = disk.size.max(size);
                Ok(())
            })
        })
    }
    fn grow_filesystem<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<u64, DiskError>> {
        Box::pin(async move {
            self.change(uid, |disk| {
                disk.filesystem = if disk.open { disk.size } else { disk.filesystem };
                Ok(disk.size)
            })
        })
    }
    fn scratch<'a>(&'a self, uid: &'a str, size: u64) -> BoxFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            self.admit(size)?;
            let made = Disk { size, open: true, filesystem: size, ..Disk::default() };
            self.disks.lock().unwrap().entry(uid.into()).or_insert(made);
            Ok(())
        })
    }
    fn remove<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            self.disks.lock().unwrap().remove(uid);
            Ok(())
        })
    }
    fn tidy(&self, known: Vec<Known>) -> BoxFuture<'_, Result<Vec<String>, DiskError>> {
        Box::pin(async move {
            let unnamed = [Purpose::Unfinished, Purpose::Scratch];
            let goes_on = |uid: &str| known.iter().any(|one| one.uid == uid && unnamed.contains(&one.purpose));
            self.disks.lock().unwrap().retain(|uid, disk| disk.finished || goes_on(uid));
            Ok(Vec::new())
        })
    }
}

impl Keys for FakeDisks {
    fn get(&self, uid: &str) -> Result<Key, KeyFailure> {
        if *self.locked.lock().unwrap() {
            return Err(KeyFailure { damaged: false, source: "secrets are locked".into() });
        }
        let found = self.keys.lock().unwrap().get(uid).cloned();
        found.map(Key::new).ok_or_else(|| KeyFailure { damaged: true, source: "there is no key".into() })
    }
    fn make(&self, uid: &str) -> Result<Key, KeyFailure> {
        let drawn = uid.as_bytes().to_vec();
        Ok(Key::new(self.keys.lock().unwrap().entry(uid.into()).or_insert(drawn).clone()))
    }
    fn drop_unused(&self, uid: &str) -> Result<(), KeyFailure> {
        self.keys.lock().unwrap().remove(uid);
        Ok(())
    }
    fn may_erase(&self, _: &str) -> Result<(), KeyFailure> {
        Ok(())
    }
    fn erase<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), KeyFailure>> {
        Box::pin(async move { self.drop_unused(uid) })
    }
}
