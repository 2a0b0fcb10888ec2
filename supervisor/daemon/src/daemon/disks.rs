//! The volume domain's disks, for real: files on the data disk, loop devices, LUKS2, ext4.
//!
//! Every volume has one owner at a time: a task that holds its lock and brings what it began to its
//! end, whoever stopped waiting for it. So a step that is given up and its undoing never meet on one
//! device. What blocks is done on threads for that; libcryptsetup has a lock of its own.
//!
//! ```text
//! volumes/<uid>.img.tmp   allocated, perhaps formatted; nobody's data
//! volumes/<uid>.img       a volume
//! /dev/loop<n>            on it, with direct I/O and sectors of 4096 bytes
//! /dev/mapper/berth-<uid> what the unit mounts
//! ```
//!
//! The disk of a writable layer keeps its temporary name for as long as it lives: nobody has its key, so that with its
//! device all that was ever written to it is gone, whoever finds the file.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_host::luks::HEADER;
use berth_host::{disk_image, ext4, fs, loopdev, luks};
use berth_model::resource::volume::device_name;
use futures_util::future::BoxFuture;
use ring::rand::{SecureRandom, SystemRandom};

use crate::volume::admission::{Room, admit};
use crate::volume::seams::{Cause, DiskError, Disks, Key, Known, Purpose};

/// What the names of our devices begin with.
const PREFIX: &str = "berth-";
/// How often, and how long apart, a device is asked to go that is still in use: the mounts of a unit
/// that has ended go a moment later.
const CLOSE: (u32, Duration) = (20, Duration::from_millis(250));

/// Volumes in one directory of this machine.
pub struct LinuxDisks {
    directory: PathBuf,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Held from the look at the free room until it is taken.
    room: Arc<tokio::sync::Mutex<()>>,
}

type Done<T> = Result<T, DiskError>;

impl LinuxDisks {
    /// Volumes lie in `<data>/volumes`, which is made.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(data: &Path) -> Result<Self, fs::FsError> {
        let directory = data.join("volumes");
        fs::ensure_dir(&directory, 0o700)?;
        Ok(Self { directory, locks: Mutex::default(), room: Arc::default() })
    }

    fn place(&self, uid: &str) -> Place {
        Place { image: self.directory.join(format!("{uid}.img")), name: device_name(uid) }
    }

    /// Does something to one volume, to its end.
    async fn own<T: Send + 'static>(&self, uid: &str, work: impl Future<Output = Done<T>> + Send + 'static) -> Done<T> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.entry(uid.to_owned()).or_default().clone()
        };
        let task = tokio::spawn(async move {
            let _held = lock.lock_owned().await;
            work.await
        });
        task.await.map_err(|error| DiskError::Other(error.into()))?
    }
}

impl Disks for LinuxDisks {
    fn allocate<'a>(&'a self, uid: &'a str, size: u64) -> BoxFuture<'a, Done<()>> {
        let (place, room) = (self.place(uid), self.room.clone());
        Box::pin(self.own(uid, async move {
            let _held = room.lock_owned().await;
            blocking(move || place.allocate(size)).await
        }))
    }

    fn format<'a>(&'a self, uid: &'a str, size: u64, key: Key) -> BoxFuture<'a, Done<()>> {
        let (place, room) = (self.place(uid), self.room.clone());
        Box::pin(self.own(uid, async move {
            if place.image.exists() {
                return Ok(());
            }
            let _held = room.lock_owned().await;
            let encrypt = place.clone();
            let mapper = blocking(move || encrypt.encrypt(size, &key)).await?;
            let made = ext4::make(&mapper).await;
            place.close(place.unfinished()).await?;
            made.map_err(other)?;
            blocking(move || disk_image::publish(&place.unfinished(), &place.image).map_err(other)).await
        }))
    }

    fn open<'a>(&'a self, uid: &'a str, size: u64, key: Key) -> BoxFuture<'a, Done<u64>> {
        let place = self.place(uid);
        Box::pin(self.own(uid, async move {
            let unlock = place.clone();
            let (mapper, room) = blocking(move || unlock.unlock(size, &key)).await?;
            match look_over(&mapper).await {
                Ok(()) => Ok(room),
                Err(error) => {
                    place.close(place.image.clone()).await?;
                    Err(error)
                }
            }
        }))
    }

    fn close<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Done<()>> {
        let place = self.place(uid);
        Box::pin(self.own(uid, async move { place.close(place.image.clone()).await }))
    }

    fn try_key<'a>(&'a self, uid: &'a str, key: Key) -> BoxFuture<'a, Done<()>> {
        let place = self.place(uid);
        Box::pin(self.own(uid, blocking(move || place.try_key(&key))))
    }

    fn grow_image<'a>(&'a self, uid: &'a str, size: u64, key: Key) -> BoxFuture<'a, Done<()>> {
        let (place, room) = (self.place(uid), self.room.clone());
        Box::pin(self.own(uid, async move {
            let _held = room.lock_owned().await;
            blocking(move || place.grow(size, &key)).await
        }))
    }

    fn grow_filesystem<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Done<u64>> {
        let place = self.place(uid);
        Box::pin(self.own(
            uid,
            blocking(move || {
                if luks::is_open(&place.name) {
                    ext4::grow(&luks::mapper(&place.name)).map_err(other)?;
                }
                place.room()
            }),
        ))
    }

    fn scratch<'a>(&'a self, uid: &'a str, size: u64) -> BoxFuture<'a, Done<()>> {
        let (place, room) = (self.place(uid), self.room.clone());
        Box::pin(self.own(uid, async move {
            let mapper = luks::mapper(&place.name);
            // One that was cut short has a device and no filesystem.
            if luks::is_open(&place.name) && ext4::length(&mapper).is_ok() {
                return Ok(());
            }
            place.close(place.unfinished()).await?;
            let _held = room.lock_owned().await;
            let encrypt = place.clone();
            let mapper = blocking(move || encrypt.encrypt(size, &key_of_nobody()?)).await?;
            ext4::make(&mapper).await.map_err(other)
        }))
    }

    fn remove<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Done<()>> {
        let place = self.place(uid);
        Box::pin(self.own(uid, async move {
            for file in [place.unfinished(), place.image.clone()] {
                place.close(file.clone()).await?;
                blocking(move || fs::remove_file(&file).map_err(other)).await?;
            }
            Ok(())
        }))
    }

    fn tidy(&self, known: Vec<Known>) -> BoxFuture<'_, Done<Vec<String>>> {
        let directory = self.directory.clone();
        Box::pin(blocking(move || tidy(&directory, &known)))
    }
}

/// One volume's file, and the name of its device.
#[derive(Clone)]
struct Place {
    image: PathBuf,
    name: String,
}

impl Place {
    fn unfinished(&self) -> PathBuf {
        let mut name = self.image.clone().into_os_string();
        name.push(".tmp");
        name.into()
    }

    /// Bytes of a finished volume.
    fn room(&self) -> Done<u64> {
        if !self.image.exists() {
            return Err(DiskError::Missing);
        }
        Ok(disk_image::length(&self.image).map_err(other)?.saturating_sub(HEADER))
    }

    fn allocate(&self, size: u64) -> Done<()> {
        let unfinished = self.unfinished();
        if self.image.exists() {
            return Ok(());
        }
        if unfinished.exists() {
            self.shut(&unfinished)?;
            fs::remove_file(&unfinished).map_err(other)?;
        }
        self.admit(size, HEADER)?;
        match disk_image::create(&unfinished, size + HEADER) {
            Err(error) => {
                fs::remove_file(&unfinished).map_err(other)?;
                Err(self.full(error, size, HEADER))
            }
            Ok(()) => fs::sync_parent(&unfinished).map_err(other),
        }
    }

    fn admit(&self, more: u64, beside: u64) -> Done<()> {
        admit(self.free(beside)?, more).map_err(DiskError::DoesNotFit)
    }

    /// The room for data, so many bytes being taken by what is not.
    fn free(&self, beside: u64) -> Done<Room> {
        let room = disk_image::room(self.image.parent().unwrap_or(Path::new("/"))).map_err(other)?;
        Ok(Room { total: room.total, free: room.free.saturating_sub(beside) })
    }

    /// Somebody else took the room between the look and the taking.
    fn full(&self, error: disk_image::ImageError, more: u64, beside: u64) -> DiskError {
        let look = || self.free(beside).ok().and_then(|room| admit(room, more).err());
        let shortage = error.is_full().then(look).flatten();
        shortage.map_or_else(|| other(error), DiskError::DoesNotFit)
    }

    /// The device of a new volume, without a filesystem. What an earlier try has left is written over.
    fn encrypt(&self, size: u64, key: &Key) -> Done<PathBuf> {
        let unfinished = self.unfinished();
        let whole = unfinished.exists() && disk_image::length(&unfinished).map_err(other)? == size + HEADER;
        if !whole {
            self.allocate(size)?;
        }
        self.shut(&unfinished)?;
        let device = loopdev::attach(&unfinished).map_err(other)?;
        let opened = luks::format(&device, key).and_then(|()| luks::open(&device, &self.name, key));
        opened.or_else(|error| {
            loopdev::detach(&device).map_err(other)?;
            Err(other(error))
        })
    }

    /// The device of a volume, and its bytes.
    fn unlock(&self, size: u64, key: &Key) -> Done<(PathBuf, u64)> {
        let room = self.room()?;
        if room < size {
            return Err(DiskError::Truncated { found: room, expected: size });
        }
        let device = self.attached()?;
        match luks::open(&device, &self.name, key) {
            Ok(mapper) => Ok((mapper, room)),
            Err(error) => {
                if !luks::is_open(&self.name) {
                    loopdev::detach(&device).map_err(other)?;
                }
                Err(luks_failed(error))
            }
        }
    }

    fn attached(&self) -> Done<PathBuf> {
        match loopdev::device_of(&self.image).map_err(other)? {
            Some(device) => Ok(device),
            None => loopdev::attach(&self.image).map_err(other),
        }
    }

    fn try_key(&self, key: &Key) -> Done<()> {
        self.room()?;
        let device = self.attached()?;
        let tried = luks::check_key(&device, key).map_err(luks_failed);
        if !luks::is_open(&self.name) {
            loopdev::detach(&device).map_err(other)?;
        }
        tried
    }

    fn grow(&self, size: u64, key: &Key) -> Done<()> {
        let present = self.room()?;
        if present < size {
            self.admit(size - present, 0)?;
            let grown = disk_image::grow(&self.image, size + HEADER);
            grown.map_err(|error| self.full(error, size - present, 0))?;
        }
        if let Some(device) = loopdev::device_of(&self.image).map_err(other)? {
            loopdev::take_new_size(&device).map_err(other)?;
            if luks::is_open(&self.name) {
                luks::take_new_size(&device, &self.name, key).map_err(luks_failed)?;
            }
        }
        Ok(())
    }

    /// Removes the devices on a file, as soon as nobody uses them any more.
    async fn close(&self, file: PathBuf) -> Done<()> {
        let (mut tries, pause) = CLOSE;
        loop {
            let (place, file) = (self.clone(), file.clone());
            tries -= 1;
            match blocking(move || place.shut(&file)).await {
                Err(DiskError::Busy(_)) if tries > 0 => tokio::time::sleep(pause).await,
                outcome => return outcome,
            }
        }
    }

    /// Removes the devices on a file.
    fn shut(&self, file: &Path) -> Done<()> {
        luks::close(&self.name).map_err(luks_failed)?;
        if !file.exists() {
            return Ok(());
        }
        match loopdev::device_of(file).map_err(other)? {
            Some(device) => loopdev::detach(&device).map_err(other),
            None => Ok(()),
        }
    }
}

/// Drawn, used once and forgotten.
fn key_of_nobody() -> Done<Key> {
    let mut key = Key::new(vec![0; 64]);
    SystemRandom::new().fill(&mut key).map_err(|_| DiskError::Other("the machine gives no random numbers".into()))?;
    Ok(key)
}

/// Sees to a filesystem that nobody has mounted: what can be mended without a question is mended, and
/// room that it has not taken yet is taken.
async fn look_over(mapper: &Path) -> Done<()> {
    let damaged = |error: ext4::Ext4Error| DiskError::Filesystem(error.into());
    if ext4::is_in_use(mapper).map_err(other)? {
        return Ok(());
    }
    ext4::length(mapper).map_err(damaged)?;
    ext4::check(mapper).await.map_err(damaged)?;
    let mapper = mapper.to_owned();
    blocking(move || ext4::grow(&mapper).map_err(other)).await
}

fn luks_failed(error: luks::LuksError) -> DiskError {
    if error.is_busy() {
        DiskError::Busy(error.into())
    } else if error.is_wrong_key() {
        DiskError::WrongKey(error.into())
    } else if error.is_foreign_header() {
        DiskError::ForeignHeader(error.into())
    } else if error.is_no_header() {
        DiskError::NotEncrypted(error.into())
    } else {
        other(error)
    }
}

fn other(error: impl Into<Cause>) -> DiskError {
    DiskError::Other(error.into())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Done<T> + Send + 'static) -> Done<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| DiskError::Other(error.into()))?
}

/// At the start: devices of volumes that nobody runs on, and files of volumes that were never finished
/// and that no operation goes on with. A finished file without a record is somebody's data and stays.
fn tidy(directory: &Path, known: &[Known]) -> Done<Vec<String>> {
    let mut notes = Vec::new();
    let of = |uid: &str| known.iter().find(|one| one.uid == uid);
    for name in luks::names(PREFIX).map_err(other)? {
        let uid = name.strip_prefix(PREFIX).unwrap_or_default();
        // One that is mounted stays, whatever the records say.
        let stays = [Purpose::Wanted, Purpose::Scratch];
        if !of(uid).is_some_and(|one| stays.contains(&one.purpose)) && luks::close(&name).is_ok() {
            notes.push(format!("closed {name}, which nobody uses"));
        }
    }
    for (device, file) in loopdev::attached_below(directory).map_err(other)? {
        if !loopdev::is_held(&device) {
            loopdev::detach(&device).map_err(other)?;
            notes.push(format!("detached {} from {}", device.display(), file.display()));
        }
    }
    for entry in std::fs::read_dir(directory).map_err(other)? {
        let file = entry.map_err(other)?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(uid) = name.strip_suffix(".img.tmp") {
            let goes_on = [Purpose::Unfinished, Purpose::Scratch];
            let is_used = luks::is_open(&device_name(uid));
            if !is_used && !of(uid).is_some_and(|one| goes_on.contains(&one.purpose)) {
                fs::remove_file(&file).map_err(other)?;
                notes.push(format!("removed {}, which was never finished", file.display()));
            }
        } else if name.strip_suffix(".img").is_none_or(|uid| of(uid).is_none()) {
            notes.push(format!("{} belongs to no volume on record; it is left alone", file.display()));
        }
    }
    Ok(notes)
}
