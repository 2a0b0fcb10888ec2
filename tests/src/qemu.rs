//! QEMU's command line, rendered from a plan, and its disks.

use std::collections::BTreeMap;
use std::path::Path;

use crate::accel::Accel;
use crate::board;
use crate::machine::Plan;
use crate::spawn::{self, SpawnError};
use crate::wire;

/// The emulator.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// The address of the user network's card; the guest's own network file matches it.
const USER_CARD: &str = "52:54:00:be:00:01";

/// All options. Paths are relative to the machine's folder, which QEMU runs in, so that the folder can be moved and
/// its sockets' names stay short.
pub fn options(plan: &Plan, accel: Accel, forwards: &BTreeMap<u16, u16>, memory: Option<&Path>) -> Vec<String> {
    let mut options = machine(accel, plan.cpus, plan.mebibytes);
    options.extend(words(&format!("-name {}", plan.name)));
    let cache = if plan.durable { "writeback" } else { "unsafe" };
    if let Some(firmware) = plan.firmware {
        options.extend(board::options(firmware, cache, &plan.given));
    } else {
        options.extend(words("-kernel vmlinuz -initrd initrd -append"));
        options.push(kernel_command_line());
    }
    options.extend(words("-chardev file,id=console,path=console.log,append=on -serial chardev:console"));
    options.extend(words("-qmp unix:qmp.sock,server=on,wait=off -device virtio-rng-pci -device vmgenid,guid=auto"));
    options.extend(disks(plan, cache));
    options.extend(ports());
    options.extend(network(plan, forwards));
    if let Some(memory) = memory {
        options.extend(["-incoming".into(), format!("file:{}", memory.display())]);
    }
    options
}

/// What a test guest's kernel and systemd are told.
fn kernel_command_line() -> String {
    let unused = UNUSED.split_whitespace().map(|unit| format!(" systemd.mask={unit}"));
    let told = "console=ttyS0 root=/dev/vda rw quiet loglevel=4 panic=5 berth.agent systemd.show_status=0";
    format!("{told} {QUICK}{}", unused.collect::<String>())
}

/// Spares an emulated processor what no test is about: one serial port instead of 32, no tests of ciphers, no guards
/// against other guests' guesses, and no doubts about the only clock that is quick. With [`UNUSED`] and without the
/// devices that [`machine`] leaves out a boot takes three quarters of the processor's time.
const QUICK: &str = "8250.nr_uarts=1 cryptomgr.notests mitigations=off tsc=reliable";

/// Units of Debian's that nothing here needs.
const UNUSED: &str = "systemd-binfmt.service dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount modprobe@configfs.service modprobe@drm.service modprobe@fuse.service \
    systemd-networkd-persistent-storage.service getty@tty1.service";

/// The bare machine, without the disks, keyboard and sensors of a real one's board.
pub fn machine(accel: Accel, cpus: u32, mebibytes: u32) -> Vec<String> {
    let mut options = words(
        "-nodefaults -no-user-config -display none -M q35,usb=off,vmport=off,sata=off,smbus=off,i8042=off,smm=off -rtc base=utc",
    );
    options.extend(accel.options().map(str::to_owned));
    options.extend(words(&format!("-smp {cpus} -m {mebibytes}")));
    options
}

fn disks(plan: &Plan, cache: &str) -> Vec<String> {
    let mut options = Vec::new();
    let mut add = |file: &str, serial: &str, format: &str, more: &str| {
        let id = format!("disk-{serial}");
        options.extend([
            "-drive".into(),
            format!("if=none,id={id},file={file},format={format},cache={cache},discard=unmap{more}"),
        ]);
        options.extend(["-device".into(), format!("virtio-blk-pci,drive={id},serial={serial}")]);
    };
    if plan.firmware.is_none() {
        add("root.qcow2", "root", "qcow2", "");
        add("data.qcow2", "berth-data", "qcow2", "");
    }
    add("tools.tar", "berth-tools", "raw", ",read-only=on");
    for disk in &plan.disks {
        add(&format!("{}.qcow2", disk.name), &disk.name, "qcow2", "");
    }
    options
}

fn ports() -> Vec<String> {
    let mut options = words("-device virtio-serial-pci,max_ports=16");
    for n in 0..wire::PORTS {
        options.extend(words(&format!(
            "-chardev socket,id=agent{n},path=agent.{n}.sock,server=on,wait=off -device virtserialport,chardev=agent{n},name=berth.{n}"
        )));
    }
    options
}

fn network(plan: &Plan, forwards: &BTreeMap<u16, u16>) -> Vec<String> {
    let forwards: String =
        forwards.iter().map(|(guest, host)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}")).collect();
    // One process for each connection, as inetd does it.
    let server = plan
        .serves
        .as_ref()
        .map(|folder| format!(",guestfwd=tcp:10.0.2.100:80-cmd:busybox httpd -i -h {}", folder.display()));
    let mut options =
        vec!["-netdev".into(), format!("user,id=user,restrict=on,ipv6=off{forwards}{}", server.unwrap_or_default())];
    options.extend(words(&format!("-device virtio-net-pci,netdev=user,mac={USER_CARD},romfile=")));
    if let Some(link) = &plan.link {
        options.extend(words(&format!(
            "-netdev socket,id=link,mcast=230.0.0.1:{},localaddr=127.0.0.1 -device virtio-net-pci,netdev=link,mac={},romfile=",
            link.network,
            link_card(link.number)
        )));
    }
    options
}

/// The address of the card on a private network.
pub fn link_card(number: u8) -> String {
    format!("52:54:00:be:01:{number:02x}")
}

/// Makes a qcow2 disk, blank or on top of another.
pub fn new_disk(path: &Path, backing: Option<(&str, &str)>, gibibytes: Option<u32>) -> Result<(), SpawnError> {
    let mut command = spawn::command("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some((file, format)) = backing {
        command.args(["-b", file, "-F", format]);
    }
    command.arg(path).args(gibibytes.map(|size| format!("{size}G")));
    spawn::output(&mut command).map(drop)
}

/// Options that have no spaces in them.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
