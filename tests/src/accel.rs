//! KVM or TCG.
//!
//! A `/dev/kvm` that can be opened, and that runs a sector of code, may still hang or refuse a whole machine. So the
//! guest's own kernel decides, on the machine that the tests use: it has ten seconds to reach its ramdisk, which then
//! writes a byte to QEMU's exit port. The verdict holds until the next boot of this machine.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::guest::Guest;
use crate::{cache, qemu, spawn};

/// The ramdisk writes 0x2a; QEMU then exits with 0x2a * 2 + 1.
const EXIT: i32 = 0x2a * 2 + 1;
const LIMIT: Duration = Duration::from_secs(10);

/// How QEMU runs the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Accel {
    /// The hardware does.
    Kvm,
    /// QEMU translates.
    Tcg,
}

impl Accel {
    /// The options that choose it.
    pub fn options(self) -> [&'static str; 4] {
        match self {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accel::Tcg => ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"],
        }
    }
}

/// KVM if it works here.
pub fn choose(guest: &Guest) -> Result<Accel, cache::CacheError> {
    let kept = cache::folder()?.join("accel");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match fs::read_to_string(&kept).unwrap_or_default().split_once(' ') {
        Some(("kvm", of)) if of == boot => return Ok(Accel::Kvm),
        Some(("tcg", of)) if of == boot => return Ok(Accel::Tcg),
        _ => {}
    }
    let works = probe(guest);
    let word = if works { "kvm" } else { "tcg" };
    cache::at(&kept, fs::write(&kept, format!("{word} {boot}")))?;
    Ok(if works { Accel::Kvm } else { Accel::Tcg })
}

fn probe(guest: &Guest) -> bool {
    if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let mut command = spawn::tied(qemu::PROGRAM);
    command.args(qemu::machine(Accel::Kvm, 2, 512)).args([
        "-no-reboot",
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=1",
    ]);
    command
        .arg("-kernel")
        .arg(guest.kernel())
        .arg("-initrd")
        .arg(guest.initrd())
        .args(["-append", "quiet berth.probe"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    spawn::start_tied(command).is_ok_and(says_yes)
}

fn says_yes(mut qemu: Child) -> bool {
    let until = Instant::now() + LIMIT;
    while Instant::now() < until {
        match qemu.try_wait() {
            Ok(Some(status)) => return status.code() == Some(EXIT),
            Ok(None) => pause(),
            Err(_) => return false,
        }
    }
    // A process stuck inside the kernel cannot be waited for; it is told to go and left.
    let _told = qemu.kill();
    false
}

#[allow(clippy::disallowed_methods, reason = "waiting for a child with a limit has no event in std")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}
