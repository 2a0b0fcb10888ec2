//! A board that boots an appliance's disk by its firmware, as a machine on a desk does.
//!
//! The image is the one that is shipped: nothing in it waits for tests. The agent comes in through what systemd offers to
//! whoever owns a virtual machine, credentials in its SMBIOS tables, and runs from the tools disk.

use std::fs;
use std::path::Path;

use crate::cache::{self, CacheError};
use crate::machine::{Disk, Firmware, Given};
use crate::spawn::{self, SpawnError};
use crate::{qemu, tree};

/// UEFI as Debian and Ubuntu package it: code, and the variables of a board that was never switched on.
const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// Waits for a port that has not come yet, as the agent's unit does in the test guest.
const AGENT: &str = "image/debian/guest/etc/systemd/system/berth-agent.service";

/// Its disk over the image, its variables and how the agent gets in.
pub fn prepare(home: &Path, firmware: Firmware, given: &Given) -> Result<(), PrepareError> {
    let variables = home.join("variables.fd");
    cache::at(&variables, fs::copy(VARIABLES, &variables))?;
    let path = tree::top().join(AGENT);
    let unit = cache::at(&path, fs::read_to_string(&path))?;
    let agent = home.join("agent.smbios");
    let text = format!("io.systemd.credential:systemd.extra-unit.berth-agent.service={unit}");
    cache::at(&agent, fs::write(&agent, text))?;
    for (name, value) in &given.credentials {
        let file = home.join(format!("{name}.smbios"));
        cache::at(&file, fs::write(&file, format!("io.systemd.credential:{name}={value}")))?;
    }
    if !given.boot_files.is_empty() {
        let base = home.join("base.raw");
        alone(&base)?;
        // Where systemd-repart puts the first partition.
        write_files(&format!("{}@@1M", base.display()), home, &given.boot_files)?;
    }
    qemu::new_disk(&home.join("disk.qcow2"), Some(("base.raw", "raw")), Some(firmware.gibibytes))?;
    Ok(())
}

/// A file of its own instead of another name of one that others use.
fn alone(file: &Path) -> Result<(), PrepareError> {
    let copy = file.with_extension("copy");
    spawn::run(spawn::command("cp").arg("--sparse=always").args([file, &copy]))?;
    Ok(cache::at(file, fs::rename(&copy, file))?)
}

/// A disk that is one FAT volume with files, labelled as the disk is called.
pub fn volume(home: &Path, disk: &Disk) -> Result<(), PrepareError> {
    let (raw, label) = (home.join(format!("{}.raw", disk.name)), disk.name.to_uppercase());
    let file = cache::at(&raw, fs::File::create(&raw))?;
    cache::at(&raw, file.set_len(u64::from(disk.gibibytes) << 30))?;
    spawn::output(spawn::command("mkfs.vfat").args(["-n", &label]).arg(&raw))?;
    write_files(&raw.display().to_string(), home, &disk.files)?;
    qemu::new_disk(&home.join(format!("{}.qcow2", disk.name)), Some((&format!("{}.raw", disk.name), "raw")), None)?;
    Ok(())
}

fn write_files(volume: &str, home: &Path, files: &[(String, String)]) -> Result<(), PrepareError> {
    for (name, text) in files {
        let file = home.join("file");
        cache::at(&file, fs::write(&file, text))?;
        spawn::output(spawn::command("mcopy").args(["-i", volume]).arg(&file).arg(format!("::{name}")))?;
    }
    Ok(())
}

/// A board could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Files.
    #[error("the board's files (is the package `ovmf` installed?)")]
    Files(#[from] CacheError),
    /// Its disk.
    #[error("the board's disk")]
    Disk(#[from] SpawnError),
}

/// The TPM of that folder, which keeps what it holds; it ends with the QEMU that it serves.
pub fn start_tpm(home: &Path) -> Result<(), SpawnError> {
    let mut tpm = spawn::command("swtpm");
    // Once it runs by itself it lives in /, and what it keeps is looked for from there.
    let state = format!("dir={},mode=0600", home.display());
    tpm.args(["socket", "--tpm2", "--tpmstate", &state, "--ctrl", "type=unixio,path=tpm.sock"]);
    tpm.args(["--terminate", "--daemon", "--log", "file=tpm.log"]).current_dir(home);
    spawn::output(&mut tpm).map(drop)
}

/// What QEMU is told of it, in place of a kernel and the test guest's disks.
pub fn options(firmware: Firmware, cache: &str, given: &Given) -> Vec<String> {
    let mut options = qemu::words(&format!(
        "-drive if=pflash,format=raw,readonly=on,file={CODE} -drive if=pflash,format=raw,file=variables.fd \
         -drive if=none,id=disk,file=disk.qcow2,format=qcow2,cache={cache},discard=unmap \
         -device virtio-blk-pci,drive=disk,serial=berth-disk \
         -device i6300esb -action watchdog=reset -smbios type=11,path=agent.smbios"
    ));
    options.push("-smbios".into());
    let told = "berth.agent systemd.wants=berth-agent.service systemd.show_status=0 loglevel=4";
    options.push(format!("type=11,value=io.systemd.stub.kernel-cmdline-extra={told} {}", given.words));
    for (name, _) in &given.credentials {
        options.extend(qemu::words(&format!("-smbios type=11,path={name}.smbios")));
    }
    if firmware.tpm {
        options.extend(qemu::words(
            "-chardev socket,id=tpm,path=tpm.sock -tpmdev emulator,id=tpm,chardev=tpm -device tpm-crb,tpmdev=tpm",
        ));
    }
    options
}
