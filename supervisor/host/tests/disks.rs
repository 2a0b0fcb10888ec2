//! Encrypted disks in files, for real: needs the device mapper, and root.
//!
//! Run in the booted guest, where this binary is copied to. Elsewhere every test says that it was
//! skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use berth_host::cmd::Command;
use berth_host::{disk_image, ext4, loopdev, luks};

const KEY: [u8; 64] = [7; 64];
const MIB: u64 = 1 << 20;

fn skipped() -> bool {
    // A node alone says nothing: libdevmapper makes one where the kernel has no device mapper, too.
    let there = |path: &str| File::open(path).is_ok();
    let skipped = !there("/dev/mapper/control") || !there("/dev/loop-control");
    if skipped {
        // Past the test harness, which keeps what a test that passes has printed.
        std::io::stderr().write_all(b"skipped: needs the device mapper and loop devices\n").unwrap();
    }
    skipped
}

/// A file, the loop device on it, and a name for the mapper; all given back in the end.
struct Disk {
    _folder: tempfile::TempDir,
    file: PathBuf,
    device: PathBuf,
    name: String,
}

impl Disk {
    fn new(name: &str) -> Disk {
        let folder = tempfile::tempdir_in("/var/lib").unwrap();
        let file = folder.path().join("image");
        disk_image::create(&file, 64 * MIB).unwrap();
        let device = loopdev::attach(&file).unwrap();
        Disk { _folder: folder, file, device, name: format!("test-{name}") }
    }

    fn formatted(name: &str) -> Disk {
        let disk = Disk::new(name);
        luks::format(&disk.device, &KEY).unwrap();
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        luks::close(&self.name).unwrap();
        loopdev::detach(&self.device).unwrap();
    }
}

async fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args.iter().copied()).run().await.unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn bytes_of(device: &Path) -> u64 {
    run("/usr/sbin/blockdev", &["--getsize64", &device.display().to_string()]).await.parse().unwrap()
}

#[tokio::test]
async fn a_file_becomes_a_device_with_large_sectors_that_goes_round_the_page_cache() {
    if skipped() {
        return;
    }
    let disk = Disk::new("plain");
    let device = disk.device.display().to_string();
    assert_eq!(
        run("/usr/sbin/losetup", &["--noheadings", "--raw", "--output", "DIO,LOG-SEC", &device]).await,
        "1 4096"
    );
    assert_eq!(loopdev::device_of(&disk.file).unwrap().as_ref(), Some(&disk.device));
    let folder = disk.file.parent().unwrap();
    assert_eq!(loopdev::attached_below(folder).unwrap(), [(disk.device.clone(), disk.file.clone())]);
    loopdev::detach(&disk.device).unwrap();
    loopdev::detach(&disk.device).unwrap();
    // The kernel waits for whoever has it open, and udev looks at devices that change.
    run("/usr/bin/udevadm", &["settle"]).await;
    assert_eq!(loopdev::device_of(&disk.file).unwrap(), None);
}

#[tokio::test]
async fn only_the_right_key_opens_and_opening_or_closing_twice_changes_nothing() {
    if skipped() {
        return;
    }
    let disk = Disk::formatted("keys");
    let error = luks::open(&disk.device, &disk.name, &[8; 64]).unwrap_err();
    assert!(error.is_wrong_key(), "{error:?}");
    assert!(luks::check_key(&disk.device, &[8; 64]).unwrap_err().is_wrong_key());
    luks::check_key(&disk.device, &KEY).unwrap();
    assert!(!luks::is_open(&disk.name));
    let mapper = luks::open(&disk.device, &disk.name, &KEY).unwrap();
    assert_eq!(luks::open(&disk.device, &disk.name, &KEY).unwrap(), mapper);
    assert_eq!(bytes_of(&mapper).await, 64 * MIB - luks::HEADER);
    luks::close(&disk.name).unwrap();
    luks::close(&disk.name).unwrap();
    assert!(!luks::is_open(&disk.name));
}

#[tokio::test]
async fn what_is_no_encrypted_disk_is_an_error_and_stays_as_it_is() {
    if skipped() {
        return;
    }
    let disk = Disk::new("foreign");
    let before = std::fs::read(&disk.file).unwrap();
    let error = luks::open(&disk.device, &disk.name, &KEY).unwrap_err();
    assert!(!error.is_wrong_key(), "{error:?}");
    assert!(ext4::check(&disk.device).await.is_err());
    assert!(matches!(ext4::length(&disk.device), Err(ext4::Ext4Error::Foreign(_))));
    assert!(std::fs::read(&disk.file).unwrap() == before, "the disk was written to");
}

#[tokio::test]
async fn a_mounted_disk_grows_and_keeps_its_files_and_refuses_to_be_closed() {
    if skipped() {
        return;
    }
    let disk = Disk::formatted("grows");
    let mapper = luks::open(&disk.device, &disk.name, &KEY).unwrap();
    ext4::make(&mapper).await.unwrap();
    let mount = tempfile::tempdir().unwrap();
    let place = mount.path().display().to_string();
    run("/usr/bin/mount", &[&mapper.display().to_string(), &place]).await;
    std::fs::write(mount.path().join("kept"), "here").unwrap();
    assert!(luks::close(&disk.name).unwrap_err().is_busy());

    disk_image::grow(&disk.file, 128 * MIB).unwrap();
    loopdev::take_new_size(&disk.device).unwrap();
    luks::take_new_size(&disk.device, &disk.name, &KEY).unwrap();
    assert!(ext4::is_in_use(&mapper).unwrap());
    assert_eq!(ext4::length(&mapper).unwrap(), 64 * MIB - luks::HEADER);
    ext4::grow(&mapper).unwrap();
    ext4::grow(&mapper).unwrap();
    assert_eq!(ext4::length(&mapper).unwrap(), 128 * MIB - luks::HEADER);
    assert_eq!(bytes_of(&mapper).await, 128 * MIB - luks::HEADER);
    assert!(disk_image::room(mount.path()).unwrap().total > 100 * MIB);
    run("/usr/bin/umount", &[&place]).await;

    luks::close(&disk.name).unwrap();
    let mapper = luks::open(&disk.device, &disk.name, &KEY).unwrap();
    assert!(!ext4::is_in_use(&mapper).unwrap());
    ext4::check(&mapper).await.unwrap();
    run("/usr/bin/mount", &[&mapper.display().to_string(), &place]).await;
    assert_eq!(std::fs::read_to_string(mount.path().join("kept")).unwrap(), "here");
    run("/usr/bin/umount", &[&place]).await;
}
