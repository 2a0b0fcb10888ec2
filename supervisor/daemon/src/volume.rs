//! Volumes: encrypted disks that outlive the bundles they were made for.
//!
//! A volume is a file, allocated in full, below a loop device, below LUKS2, below ext4. All three go
//! by the uid of its record in the store; its key lies in the keyring under the same uid. This domain
//! knows the records and what may be done in which order; files and devices are behind [`seams::Disks`],
//! keys behind [`seams::Keys`].
//!
//! ```text
//! AllocateVolumes   record (Creating) ─> key on disk ─> room checked, <uid>.img.tmp allocated
//! FormatVolumes     LUKS2, ext4 ─> <uid>.img ─> record (Ready)
//! OpenVolumes       key, length, header, filesystem looked at ─> /dev/mapper/berth-<uid>
//! GrowImages        record (Growing) ─> file and devices longer     GrowFilesystems ─> record (Ready)
//! Erase             record (Erasing), closed ─> key and master key of its time destroyed ─> file ─> record
//! ```
//!
//! The same disks, without a name and under keys that nobody keeps, hold the writable layers of revisions that asked for
//! more than memory has; these go by the revision's uid and end with its unit.
//!
//! Whatever is found that should not be there is an error and noted as `Damaged`; nothing is ever
//! formatted but a file of ours that never had a name. Every step can be run again.

pub mod admission;
mod failure;
mod records;
pub mod seams;
pub mod steps;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use berth_model::quantity::show_bytes;
use berth_model::resource::Volume;
use berth_model::resource::bundle::VolumeWish;
use berth_model::resource::operation::Actor;
use berth_model::resource::volume::{VolumeState, volume_name};
use tracing::{info, warn};

use crate::operation::StepError;
use crate::store::{Store, StoreError};
use failure::{Failed, damaged_key, disk_failed, not_usable, scratch_failed, too_small};
use records::{Wanted, name_of, uid_of};
use seams::{Disks, Key, Keys, Known};

/// Volumes of this machine.
#[derive(Clone)]
pub struct Volumes {
    store: Store,
    disks: Arc<dyn Disks>,
    keys: Arc<dyn Keys>,
}

impl Volumes {
    /// What is written down of them in `store`, on these disks.
    pub fn new(store: Store, disks: Arc<dyn Disks>, keys: Arc<dyn Keys>) -> Self {
        Self { store, disks, keys }
    }

    /// Makes records, keys and allocated files for those that are not there yet.
    ///
    /// # Errors
    /// One does not fit, has the name of another, or is there and larger.
    pub async fn allocate(&self, namespace: &str, bundle: &str, wishes: &[VolumeWish]) -> Result<u32, StepError> {
        let mut made = 0;
        for wish in wishes {
            let wanted = Wanted::of(namespace, bundle, wish);
            let volume = self.note_wanted(&wanted).await?;
            let (name, uid) = (name_of(&volume), uid_of(&volume));
            let status = volume.status.clone().unwrap_or_default();
            match status.state {
                VolumeState::Creating => {
                    self.make_key(&name, &uid)?;
                    let allocated = self.disks.allocate(&uid, wanted.size).await;
                    allocated.map_err(|error| disk_failed(&name, "making the volume's file", error))?;
                    self.note_step(&volume, "Format").await?;
                    made += 1;
                }
                _ if wanted.size < status.size => return Err(too_small(&name, status.size, &wish.size)),
                _ => {}
            }
        }
        Ok(made)
    }

    /// Encrypts and formats those that were allocated.
    ///
    /// # Errors
    /// A device or a tool fails.
    pub async fn format(&self, namespace: &str, bundle: &str) -> Result<u32, StepError> {
        let mut made = 0;
        for volume in self.of_bundle(namespace, bundle).await? {
            let status = volume.status.clone().unwrap_or_default();
            if status.state != VolumeState::Creating {
                continue;
            }
            let (name, uid) = (name_of(&volume), uid_of(&volume));
            let key = self.make_key(&name, &uid)?;
            let formatted = self.disks.format(&uid, status.size, key).await;
            formatted.map_err(|error| disk_failed(&name, "formatting the volume", error))?;
            self.note_ready(&volume, status.size).await?;
            made += 1;
        }
        Ok(made)
    }

    /// Removes what [`Volumes::allocate`] has begun and nobody has finished: it never had data.
    ///
    /// # Errors
    /// A file, a key or a record stays.
    pub async fn discard_unfinished(&self, namespace: &str, bundle: &str) -> Result<(), StepError> {
        for volume in self.of_bundle(namespace, bundle).await? {
            if volume.status.as_ref().is_some_and(|status| status.state != VolumeState::Creating) {
                continue;
            }
            let (name, uid) = (name_of(&volume), uid_of(&volume));
            let removed = self.disks.remove(&uid).await;
            removed.map_err(|error| disk_failed(&name, "removing an unfinished volume", error))?;
            self.keys.drop_unused(&uid).map_err(|failure| failure.locked(&name))?;
            self.forget(&volume).await?;
        }
        Ok(())
    }

    /// Opens the volumes that a bundle asks for: their devices are there when this comes back.
    ///
    /// # Errors
    /// One is locked, or not what it should be, which is then noted on it.
    pub async fn open(&self, namespace: &str, bundle: &str, wishes: &[VolumeWish]) -> Result<(), StepError> {
        for wish in wishes {
            let name = volume_name(bundle, &wish.name);
            let volume = self.find(namespace, &name).await?.ok_or_else(|| not_usable(&name, None))?;
            self.open_one(&name, &volume).await?;
        }
        Ok(())
    }

    async fn open_one(&self, name: &str, volume: &Volume) -> Result<(), StepError> {
        let status = volume.status.clone().unwrap_or_default();
        if !matches!(status.state, VolumeState::Ready | VolumeState::Growing | VolumeState::Damaged) {
            return Err(not_usable(name, Some(status.state)));
        }
        let key = match self.keys.get(&uid_of(volume)) {
            Ok(key) => key,
            Err(failure) if failure.damaged => return self.damaged(volume, damaged_key(name, failure)).await,
            Err(failure) => return Err(failure.locked(name)),
        };
        match self.disks.open(&uid_of(volume), status.size, key).await {
            Ok(_) if status.state == VolumeState::Growing => Ok(()),
            Ok(size) => self.note_ready(volume, size).await,
            Err(error) if error.is_damage() => {
                self.damaged(volume, Failed::new(disk_failed(name, "opening the volume", error))).await
            }
            Err(error) => Err(disk_failed(name, "opening the volume", error)),
        }
    }

    /// Closes all volumes that were made for a bundle, but for these.
    ///
    /// # Errors
    /// One is in use.
    pub async fn close(&self, namespace: &str, bundle: &str, but: &[VolumeWish]) -> Result<(), StepError> {
        for volume in self.of_bundle(namespace, bundle).await? {
            if but.iter().any(|wish| wish.name == volume.spec.volume) {
                continue;
            }
            let closed = self.disks.close(&uid_of(&volume)).await;
            closed.map_err(|error| disk_failed(&name_of(&volume), "closing the volume", error))?;
        }
        Ok(())
    }

    /// Makes the files longer of the volumes that are to have more room, and the devices on them.
    ///
    /// # Errors
    /// There is no room.
    pub async fn grow_images(&self, namespace: &str, bundle: &str, wishes: &[VolumeWish]) -> Result<u32, StepError> {
        let mut grown = 0;
        for wish in wishes {
            let wanted = Wanted::of(namespace, bundle, wish);
            let Some(volume) = self.note_growing(&wanted).await? else { continue };
            let name = name_of(&volume);
            let key = self.keys.get(&uid_of(&volume)).map_err(|failure| failure.locked(&name))?;
            let grew = self.disks.grow_image(&uid_of(&volume), wanted.size, key).await;
            grew.map_err(|error| {
                let present = show_bytes(volume.status.as_ref().map(|status| status.size).unwrap_or_default());
                let failed = disk_failed(&name, "growing the volume", error);
                failed.suggest(format!("to stay with what it has: berth volume grow {name} {present}"))
            })?;
            self.note_step(&volume, "GrowFilesystem").await?;
            grown += 1;
        }
        Ok(grown)
    }

    /// Lets the filesystems take their new room. One that is closed takes it when it is opened.
    ///
    /// # Errors
    /// The filesystem refuses.
    pub async fn grow_filesystems(&self, namespace: &str, bundle: &str) -> Result<(), StepError> {
        for volume in self.growing(namespace, bundle).await? {
            let name = name_of(&volume);
            let size = self.disks.grow_filesystem(&uid_of(&volume)).await;
            let size = size.map_err(|error| disk_failed(&name, "growing the filesystem", error))?;
            self.note_ready(&volume, size).await?;
        }
        Ok(())
    }

    /// Notes of volumes that could not grow how much room they have.
    ///
    /// # Errors
    /// The file cannot be looked at, or the record not be written.
    pub async fn stop_growing(&self, namespace: &str, bundle: &str) -> Result<(), StepError> {
        for volume in self.growing(namespace, bundle).await? {
            let status = volume.status.clone().unwrap_or_default();
            self.note_ready(&volume, status.size).await?;
        }
        Ok(())
    }

    /// Makes the disk of a revision's writable layer, under a key that is gone with its device. One that is open is left:
    /// the revision's unit has it, or will start again.
    ///
    /// # Errors
    /// There is no room.
    pub async fn make_scratch(&self, bundle: &str, revision: &str, size: u64) -> Result<(), StepError> {
        let made = self.disks.scratch(revision, size).await;
        made.map_err(|error| scratch_failed(bundle, "making it", error))
    }

    /// Removes it, with all that was written to it.
    ///
    /// # Errors
    /// It is in use.
    pub async fn remove_scratch(&self, bundle: &str, revision: &str) -> Result<(), StepError> {
        let removed = self.disks.remove(revision).await;
        removed.map_err(|error| scratch_failed(bundle, "removing it", error))
    }

    /// Puts right what an earlier life has left: unfinished files that nobody goes on with, devices
    /// that nobody uses. To be called before any operation goes on.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn tidy(&self) -> Result<(), StoreError> {
        let known: Vec<Known> = self.store.read(records::known).await?;
        match self.disks.tidy(known).await {
            Ok(notes) => notes.iter().for_each(|note| info!("{note}")),
            Err(error) => warn!("tidying the volumes failed: {}", crate::log::chain(&error)),
        }
        Ok(())
    }

    fn make_key(&self, name: &str, uid: &str) -> Result<Key, StepError> {
        self.keys.make(uid).map_err(|failure| failure.locked(name))
    }
}

/// Who writes here.
fn berthd() -> Actor {
    Actor { identity: "berthd".into(), source: "reconciler".into() }
}
