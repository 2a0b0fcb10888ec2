//! Encrypted volumes: how long they take to make and to open, and what they let through beside plain dm-crypt.
//!
//! One disk with two partitions: XFS with the volumes' files, and the peer. fio writes and reads through ext4 in both,
//! in turns.

use serde_json::Value;

use super::lives::steps;
use super::ratio::{self, Unit};
use super::{BenchError, IMAGE, number};
use crate::machine::{Disk, Machine, MachineError};

/// Where the peer's filesystem is.
const PEER: &str = "/mnt";
/// Rounds of fio, each in both.
const ROUNDS: usize = 6;
/// Times that a volume is made and opened.
const VOLUMES: usize = 6;

/// The disk of both.
pub fn spare() -> Disk {
    Disk::blank("spare", 8)
}

/// All rows about volumes.
pub fn rows(machine: &Machine) -> Result<Vec<Value>, BenchError> {
    divide(machine)?;
    let (made, opened) = times(machine)?;
    let [volume, peer] = prepare(machine)?;
    let in_turns = |job: &str, figure: &str| -> Result<(Vec<u64>, Vec<u64>), BenchError> {
        let rounds = (0..ROUNDS).map(|round| {
            let mut sides = [&volume, &peer];
            sides.rotate_left(round % 2);
            let [first, second] = [fio(machine, sides[0], job, figure)?, fio(machine, sides[1], job, figure)?];
            Ok(if round % 2 == 0 { (first, second) } else { (second, first) })
        });
        let rounds: Vec<(u64, u64)> = rounds.collect::<Result<_, BenchError>>()?;
        Ok(rounds.into_iter().unzip())
    };
    let (ours, theirs) = in_turns("--rw=readwrite --bs=1M --iodepth=4", "bw_bytes")?;
    let sequential = ratio::row("luks_seq_over_dmcrypt", Unit::BytesPerSecond, &ours, &theirs);
    let (ours, theirs) = in_turns("--rw=randrw --bs=4k --iodepth=16", "iops")?;
    let random = ratio::row("luks_rand_over_dmcrypt", Unit::OperationsPerSecond, &ours, &theirs);
    machine.ok("berth uninstall disk --erase-volumes --timeout 10m")?;
    let made = ratio::time("volume_create_ms", &made);
    Ok(vec![made, ratio::time("volume_open_ms", &opened), sequential, random])
}

/// Two partitions; the first is where volumes lie from here on.
fn divide(machine: &Machine) -> Result<(), MachineError> {
    machine.ok(
        "printf 'size=4G\n,\n' | sfdisk --quiet --label gpt /dev/disk/by-id/virtio-spare && udevadm settle && \
         mkfs.xfs -q /dev/disk/by-id/virtio-spare-part1 && systemctl stop berthd && \
         cp -a --parents /var/lib/berth/volumes /run && \
         mount /dev/disk/by-id/virtio-spare-part1 /var/lib/berth/volumes && \
         chmod --reference /run/var/lib/berth/volumes /var/lib/berth/volumes && systemctl start berthd",
    )?;
    Ok(())
}

/// Microseconds of making a volume, file, encryption and filesystem, and of opening it: as the operations' own steps
/// have it, records included.
fn times(machine: &Machine) -> Result<(Vec<u64>, Vec<u64>), BenchError> {
    let (mut made, mut opened) = (Vec::new(), Vec::new());
    for _ in 0..VOLUMES {
        machine.ok(&format!("berth install {IMAGE} --name disk --volume data:/data:64Mi --timeout 10m"))?;
        made.push(steps(machine, "Install", "disk", "AllocateVolumes FormatVolumes")?);
        machine.ok("berth stop disk --timeout 10m && berth start disk --timeout 10m")?;
        opened.push(steps(machine, "Start", "disk", "OpenVolumes")?);
        machine.ok("berth uninstall disk --erase-volumes --timeout 10m")?;
    }
    Ok((made, opened))
}

/// Where fio works, and what has to stand before it.
struct Side {
    within: String,
    folder: String,
}

/// A service with a volume, and the peer. The first takes only owners that the service's user namespace knows.
fn prepare(machine: &Machine) -> Result<[Side; 2], MachineError> {
    let device = "/dev/disk/by-id/virtio-spare-part2";
    machine.ok(&format!(
        "head -c 64 /dev/urandom >/run/peer.key && \
         cryptsetup luksFormat --batch-mode --type luks2 --sector-size 4096 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
             --key-file /run/peer.key {device} && \
         cryptsetup open --key-file /run/peer.key {device} peer && \
         mkfs.ext4 -q -b 4096 -m 0 -E lazy_itable_init=1,nodiscard /dev/mapper/peer && mount /dev/mapper/peer {PEER}"
    ))?;
    machine.ok(&format!("berth install {IMAGE} --name disk --volume data:/data:1Gi --timeout 10m"))?;
    let main = machine.ok("systemctl show -P MainPID berth.default.disk.r1.service")?;
    let main = main.trim();
    let within = format!("nsenter --target {main} --user");
    let ours = Side { within, folder: format!("/proc/{main}/root/data") };
    Ok([ours, Side { within: String::new(), folder: PEER.to_owned() }])
}

/// What was read and written together, per second.
fn fio(machine: &Machine, Side { within, folder }: &Side, job: &str, figure: &str) -> Result<u64, BenchError> {
    number(&machine.ok(&format!(
        "{within} fio --name=bench --directory={folder} --size=128M --ioengine=libaio --direct=1 --runtime=5 \
             --time_based --output-format=json {job} >/run/fio.json && \
         jq '.jobs[0] | .read.{figure} + .write.{figure} | floor' /run/fio.json"
    ))?)
}
