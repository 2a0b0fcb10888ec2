//! A booted machine with the package installed and the images in its registry, kept with its memory.
//!
//! ```text
//! boot ─> install the package ─> registry, images ─> ready ─> save: disks + memory, in the cache
//!                                                                └─> wake: overlays on the disks, memory read back
//! ```
//!
//! The key covers everything that went in, so a saved machine is never stale. Any number of machines may wake from one:
//! each gets overlays of its own, a fresh generation id (so that no two draw the same random numbers) and the right time.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::accel::{self, Accel};
use crate::cache::{self, CacheError, Key, at};
use crate::guest::{self, Flavor, Guest, GuestError};
use crate::images::{self, ImageError, Images};
use crate::machine::{self, Machine, MachineError, Plan};
use crate::payload::{self, Payload, PayloadError};
use crate::qemu;
use crate::spawn;
use crate::{pace, tree};

/// The port of the registry in the guest.
pub const REGISTRY: u16 = 5000;
/// The port of the API in the guest.
pub const API: u16 = 6443;

/// A ready machine could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// Files.
    #[error("keeping the saved machine")]
    Files(#[from] CacheError),
    /// The guest image.
    #[error("the guest image")]
    Guest(#[from] GuestError),
    /// The package.
    #[error("the package")]
    Payload(#[from] PayloadError),
    /// The service images.
    #[error("the service images")]
    Images(#[from] ImageError),
    /// The machine.
    #[error("the machine")]
    Machine(#[from] MachineError),
}

/// Everything a machine is made from, built.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The root disk.
    pub guest: Guest,
    /// The package under test.
    pub payload: Payload,
    /// The service images.
    pub images: Images,
}

impl Parts {
    /// Builds what has changed.
    pub fn build(flavor: Flavor) -> Result<Parts, SavedError> {
        Ok(Parts { guest: guest::build(flavor)?, payload: payload::build()?, images: images::build()? })
    }

    /// A machine of that plan, with the package installed and running and all images in its registry. The registry
    /// and the API are forwarded. It wakes from a saved one where there is one, else it saves one first.
    pub fn ready(&self, plan: &Plan) -> Result<Machine, SavedError> {
        let home = machine::new_home(&format!("{}-{}", plan.name, std::process::id()))?;
        self.ready_in(home, plan)
    }

    /// The same in that folder.
    pub fn ready_in(&self, home: PathBuf, plan: &Plan) -> Result<Machine, SavedError> {
        let accel = accel::choose(&self.guest)?;
        let key = self.key(plan, accel)?;
        let plan = with_forwards(plan);
        let saved = cache::entry("saved", &key, 3, |folder| self.save(&plan, folder))?;
        wake(&saved, home, &plan, accel)
    }

    /// A machine of that plan, booted and made ready just now.
    pub fn fresh(&self, plan: &Plan) -> Result<Machine, SavedError> {
        let mut machine = with_forwards(plan).boot(&self.guest, Some(&self.payload.path))?;
        self.make_ready(&mut machine)?;
        Ok(machine)
    }

    fn key(&self, plan: &Plan, accel: Accel) -> Result<String, SavedError> {
        let mut key = Key::new("saved 2");
        for part in [&self.guest.key, &self.payload.key, &self.images.key] {
            key.add(part.as_bytes());
        }
        let hardware = json!([plan.mebibytes, plan.cpus, plan.disks, plan.link, accel]);
        key.add(hardware.to_string().as_bytes());
        key.add_path(&at(Path::new("."), tree::programs())?.join("berth-agent"))?;
        let version = spawn::output(spawn::command(qemu::PROGRAM).arg("--version")).map_err(MachineError::from)?;
        key.add(&version);
        Ok(key.finish())
    }

    fn save(&self, plan: &Plan, folder: &Path) -> Result<(), SavedError> {
        eprintln!("booting a machine and saving it with the package installed");
        // How the disks are cached is no part of a saved machine: QEMU writes all out when it is saved.
        let plan = Plan { name: "saving".into(), stays: false, durable: false, ..plan.clone() };
        let mut machine = plan.boot(&self.guest, Some(&self.payload.path))?;
        self.make_ready(&mut machine)?;
        machine.save_memory(&folder.join("memory"))?;
        let home = machine.into_home();
        for file in cache::children(&home)? {
            let name = file.file_name().unwrap_or_default().to_owned();
            let ending = file.extension().unwrap_or_default();
            if ["qcow2", "img", "tar"].iter().any(|kept| ending == *kept) || name == "vmlinuz" || name == "initrd" {
                at(&file, fs::rename(&file, folder.join(&name)))?;
            }
        }
        Ok(cache::remove(&home)?)
    }

    fn make_ready(&self, machine: &mut Machine) -> Result<(), SavedError> {
        machine.ok("systemctl enable --quiet --now docker-registry.service")?;
        machine.ok("tar -C /run --seek -xf /dev/disk/by-id/virtio-berth-tools ./berth.deb")?;
        machine.install("/run/berth.deb")?;
        machine.ok("rm /run/berth.deb")?;
        machine
            .ok("systemctl is-active --quiet berthd || { journalctl --no-pager -u berth-setup -u berthd; exit 1; }")?;
        machine.ok("curl --silent --fail --retry 100 --retry-delay 1 --retry-all-errors http://127.0.0.1:5000/v2/")?;
        self.images.push(machine.forwarded(REGISTRY))?;
        machine.ok("systemctl is-system-running --wait; sync")?;
        Ok(())
    }
}

fn with_forwards(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.forwards.extend([REGISTRY, API]);
    plan.forwards.sort_unstable();
    plan.forwards.dedup();
    plan
}

fn wake(saved: &Path, home: PathBuf, plan: &Plan, accel: Accel) -> Result<Machine, SavedError> {
    for file in cache::children(saved)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Hard links, so that the cache may forget the saved machine while this one lives.
        let to = home.join(if name.ends_with(".qcow2") { format!("saved-{name}") } else { name.clone() });
        at(&to, fs::hard_link(&file, &to))?;
        if name.ends_with(".qcow2") {
            let backing = format!("saved-{name}");
            qemu::new_disk(&home.join(&name), Some((&backing, "qcow2")), None).map_err(MachineError::from)?;
        }
    }
    let mut machine = Machine::power(plan.clone(), home.clone(), accel, Some(Path::new("memory")))?;
    machine.connect(pace::boots(4.0))?;
    machine.set_clock()?;
    Ok(machine)
}
