//! One guest: a QEMU process and the folder with its disks, sockets and console.
//!
//! A [`Plan`] says what a machine has; [`Plan::boot`] makes its folder, starts QEMU and waits for the agent. The
//! [`Machine`] owns both: dropping it kills QEMU through the handle that started it and removes the folder, unless the
//! thread is panicking: then the console stays and its path is printed. [`Machine::leave_running`] gives the ownership
//! to the folder instead, from which [`Machine::find`] takes it up again (`./dev up`, `sh`, `down`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::accel::{self, Accel};
use crate::board;
use crate::cache::{self, CacheError};
use crate::channel::{Channel, ChannelError, Output, Running};
use crate::guest::Guest;
use crate::leftovers;
use crate::pace;
use crate::qemu;
use crate::qmp::{Qmp, QmpError};
use crate::spawn::{self, SpawnError};
use crate::tools::{self, ToolsError};

/// A machine could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Files.
    #[error("the machine's files")]
    Files(#[from] CacheError),
    /// A program.
    #[error("a program of the host")]
    Host(#[from] SpawnError),
    /// The tools disk.
    #[error("making the tools disk")]
    Tools(#[from] ToolsError),
    /// The command channel.
    #[error("the command channel")]
    Channel(#[from] ChannelError),
    /// QEMU's control socket.
    #[error("the control socket")]
    Qmp(#[from] QmpError),
    /// A board.
    #[error("making a board")]
    Board(#[from] board::PrepareError),
    /// QEMU ended by itself.
    #[error("QEMU ended: {0}")]
    Ended(String),
    /// No such machine is running.
    #[error("no machine is running in {0}: start one with `./dev up`")]
    NotRunning(PathBuf),
}

/// A disk beside the root, data and tools disks; found in the guest as `/dev/disk/by-id/virtio-<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its serial number.
    pub name: String,
    /// Its size; it takes no room until written to.
    pub gibibytes: u32,
    /// Files of the FAT volume that it is, labelled as it is called, in capital letters; none: it is blank.
    pub files: Vec<(String, String)>,
}

impl Disk {
    /// One that nothing was ever written to.
    pub fn blank(name: &str, gibibytes: u32) -> Disk {
        Disk { name: name.to_owned(), gibibytes, files: Vec::new() }
    }
}

/// What whoever owns a board gives it before it is switched on for the first time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Credentials of the system: name and value.
    pub credentials: Vec<(String, String)>,
    /// Files on the boot partition of the disk that is booted.
    pub boot_files: Vec<(String, String)>,
    /// Words that the kernel is told as well.
    pub words: String,
}

/// A place on a private network between machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The network: a UDP port of the loopback multicast group, see [`Link::network`].
    pub network: u16,
    /// The machine's number on it: its address is 10.99.0.`number`.
    pub number: u8,
}

impl Link {
    /// A new private network.
    pub fn network() -> Result<u16, MachineError> {
        free_port()
    }
}

/// What a machine has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Names its folder.
    pub name: String,
    /// Memory.
    pub mebibytes: u32,
    /// Processors.
    pub cpus: u32,
    /// TCP ports of the guest that get a port on 127.0.0.1.
    pub forwards: Vec<u16>,
    /// More disks.
    pub disks: Vec<Disk>,
    /// A private network with other machines.
    pub link: Option<Link>,
    /// It runs on when the process that booted it ends; otherwise the kernel sees to its end.
    pub stays: bool,
    /// Disks survive a `kill -9` of QEMU with all that the guest has flushed; slower.
    pub durable: bool,
    /// It boots an appliance's disk as a board does, instead of the test guest's kernel.
    pub firmware: Option<Firmware>,
    /// A folder that a web server at [`SERVER`] shows it; it reaches nothing else.
    pub serves: Option<PathBuf>,
    /// What it was given beside its disk, if it boots as a board does.
    pub given: Given,
}

/// Where a machine finds the folder that is served to it.
pub const SERVER: &str = "http://10.0.2.100";

/// A board: UEFI and one disk, which is larger than the image that lies on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// A TPM 2.0, emulated in a process of its own.
    pub tpm: bool,
    /// The size of the disk.
    pub gibibytes: u32,
}

impl Plan {
    /// Two processors, 2 GiB, no forwards.
    pub fn new(name: &str) -> Plan {
        Plan {
            name: name.to_owned(),
            mebibytes: 2048,
            cpus: 2,
            forwards: Vec::new(),
            disks: Vec::new(),
            link: None,
            stays: false,
            durable: false,
            firmware: None,
            serves: None,
            given: Given::default(),
        }
    }

    /// Boots it in a folder of this process's own; `package` lies on its tools disk, see [`crate::tools`].
    pub fn boot(&self, guest: &Guest, package: Option<&Path>) -> Result<Machine, MachineError> {
        let home = new_home(&format!("{}-{}", self.name, std::process::id()))?;
        self.boot_in(home, guest, package)
    }

    /// Boots it in that folder, which must be empty.
    pub fn boot_in(&self, home: PathBuf, guest: &Guest, package: Option<&Path>) -> Result<Machine, MachineError> {
        // Hard links, so that the disks stay whole when the cache lets go of the originals.
        for (from, name) in [(guest.root(), "base.img"), (guest.kernel(), "vmlinuz"), (guest.initrd(), "initrd")] {
            let to = home.join(name);
            cache::at(&to, fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)))?;
        }
        tools::make(&home, package, self.link.as_ref())?;
        qemu::new_disk(&home.join("root.qcow2"), Some(("base.img", "raw")), None)?;
        qemu::new_disk(&home.join("data.qcow2"), None, Some(20))?;
        for disk in &self.disks {
            qemu::new_disk(&home.join(format!("{}.qcow2", disk.name)), None, Some(disk.gibibytes))?;
        }
        let began = Instant::now();
        let mut machine = Machine::power(self.clone(), home, accel::choose(guest)?, None)?;
        machine.connect(pace::boots(4.0))?;
        pace::remember_boot(began.elapsed())?;
        Ok(machine)
    }
}

impl Plan {
    /// Boots an appliance's image, which stays as it is, in a folder of this process's own. How is tried with `guest`.
    pub fn boot_image(&self, guest: &Guest, image: &Path, firmware: Firmware) -> Result<Machine, MachineError> {
        let plan = Plan { firmware: Some(firmware), ..self.clone() };
        let home = new_home(&format!("{}-{}", plan.name, std::process::id()))?;
        let base = home.join("base.raw");
        cache::at(&base, fs::hard_link(image, &base).or_else(|_| fs::copy(image, &base).map(drop)))?;
        tools::make(&home, None, self.link.as_ref())?;
        board::prepare(&home, firmware, &plan.given)?;
        for disk in &self.disks {
            match disk.files.is_empty() {
                true => qemu::new_disk(&home.join(format!("{}.qcow2", disk.name)), None, Some(disk.gibibytes))?,
                false => board::volume(&home, disk)?,
            }
        }
        let mut machine = Machine::power(plan, home, accel::choose(guest)?, None)?;
        machine.connect(pace::boots(10.0))?;
        Ok(machine)
    }
}

/// What of a machine is written down in its folder.
#[derive(Serialize, Deserialize)]
struct Record {
    plan: Plan,
    accel: Accel,
    forwards: BTreeMap<u16, u16>,
    pid: i32,
    /// The process's start time: a pid alone may be somebody else's by now.
    started: String,
}

/// A running guest.
pub struct Machine {
    plan: Plan,
    home: PathBuf,
    accel: Accel,
    qemu: Option<Child>,
    pid: Option<Pid>,
    forwards: BTreeMap<u16, u16>,
    channel: Option<Channel>,
    owned: bool,
}

impl Machine {
    /// Starts QEMU; the disks are there. `memory` is a saved state to wake up from.
    pub(crate) fn power(
        plan: Plan,
        home: PathBuf,
        accel: Accel,
        memory: Option<&Path>,
    ) -> Result<Machine, MachineError> {
        let mut forwards = BTreeMap::new();
        for port in &plan.forwards {
            forwards.insert(*port, free_port()?);
        }
        let mut machine = Machine { plan, home, accel, qemu: None, pid: None, forwards, channel: None, owned: true };
        machine.run(memory)?;
        Ok(machine)
    }

    /// The plug goes in.
    fn run(&mut self, memory: Option<&Path>) -> Result<(), MachineError> {
        let (plan, home) = (&self.plan, &self.home);
        if plan.firmware.is_some_and(|firmware| firmware.tpm) {
            board::start_tpm(home)?;
        }
        let log = home.join("qemu.log");
        let mut command = if plan.stays { spawn::command(qemu::PROGRAM) } else { spawn::tied(qemu::PROGRAM) };
        command.args(qemu::options(plan, self.accel, &self.forwards, memory)).current_dir(home);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(cache::at(&log, File::create(&log))?);
        command.process_group(0);
        let child = if plan.stays { spawn::start(&mut command)? } else { spawn::start_tied(command)? };
        self.pid = Some(Pid::from_raw(child.id().cast_signed()));
        self.qemu = Some(child);
        self.await_control_socket()
    }

    fn await_control_socket(&mut self) -> Result<(), MachineError> {
        let until = Instant::now() + Duration::from_secs(30);
        while Qmp::connect(&self.home.join("qmp.sock")).is_err() {
            if self.ended()? || Instant::now() > until {
                return Err(MachineError::Ended(fs::read_to_string(self.home.join("qemu.log")).unwrap_or_default()));
            }
            pause();
        }
        Ok(())
    }

    fn ended(&mut self) -> Result<bool, MachineError> {
        match (&mut self.qemu, self.pid) {
            (Some(child), _) => Ok(cache::at(&self.home, child.try_wait())?.is_some()),
            (None, Some(pid)) => Ok(kill(pid, None).is_err()),
            (None, None) => Ok(true),
        }
    }

    /// Takes a command port and waits for the agent.
    pub fn connect(&mut self, patience: Duration) -> Result<(), MachineError> {
        self.channel = None;
        self.channel = Some(Channel::open(&self.home, patience)?);
        Ok(())
    }

    /// The machine of that folder, if it runs; not ended when dropped.
    pub fn find(home: &Path) -> Result<Machine, MachineError> {
        let gone = || MachineError::NotRunning(home.to_owned());
        let text = fs::read_to_string(home.join("machine.json")).map_err(|_| gone())?;
        let record: Record = serde_json::from_str(&text).map_err(|_| gone())?;
        if start_time(record.pid).is_none_or(|started| started != record.started) {
            return Err(gone());
        }
        let pid = Some(Pid::from_raw(record.pid));
        let Record { plan, accel, forwards, .. } = record;
        Ok(Machine { plan, home: home.to_owned(), accel, qemu: None, pid, forwards, channel: None, owned: false })
    }

    /// The folder.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// What it was made from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The port on 127.0.0.1 that leads to that port of the guest.
    ///
    /// # Panics
    /// If the plan does not forward it.
    pub fn forwarded(&self, port: u16) -> u16 {
        self.forwards[&port]
    }

    /// The command channel.
    ///
    /// # Panics
    /// If the machine is not connected.
    #[allow(clippy::expect_used, reason = "a machine in a test's hands is connected")]
    pub fn channel(&self) -> &Channel {
        self.channel.as_ref().expect("the machine is connected")
    }

    /// Runs a shell line to its end, whatever its exit code.
    pub fn sh(&self, line: &str) -> Result<Output, MachineError> {
        Ok(self.channel().run(&["/bin/sh", "-c", line], b"", pace::boots(6.0))?)
    }

    /// Runs a shell line that must succeed; its standard output without the last newline.
    pub fn ok(&self, line: &str) -> Result<String, MachineError> {
        let out = self.sh(line)?;
        if out.success() {
            return Ok(out.text().trim_end_matches('\n').to_owned());
        }
        let said = out.text() + &out.errors();
        Err(ChannelError::Failed { command: line.to_owned(), ended: out.ended, said }.into())
    }

    /// Starts a shell line and returns while it runs.
    pub fn start(&self, line: &str) -> Result<Running, MachineError> {
        Ok(self.channel().start(&["/bin/sh", "-c", line], &[])?)
    }

    /// Writes a file in the guest.
    pub fn put(&self, path: &str, bytes: &[u8], mode: u32) -> Result<(), MachineError> {
        let line = format!("cat >'{path}.part' && chmod {mode:o} '{path}.part' && mv '{path}.part' '{path}'");
        let out = self.channel().run(&["/bin/sh", "-c", &line], bytes, pace::boots(10.0))?;
        if out.success() {
            return Ok(());
        }
        Err(ChannelError::Failed { command: line, said: out.errors(), ended: out.ended }.into())
    }

    /// Reads a file of the guest.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, MachineError> {
        let out = self.channel().run(&["cat", path], b"", pace::boots(10.0))?;
        if out.success() {
            return Ok(out.stdout);
        }
        Err(ChannelError::Failed { command: format!("cat {path}"), said: out.errors(), ended: out.ended }.into())
    }

    /// A new connection to QEMU's control socket.
    pub fn qmp(&self) -> Result<Qmp, MachineError> {
        Ok(Qmp::connect(&self.home.join("qmp.sock"))?)
    }

    /// Pulls the plug: `kill -9` of QEMU. The disks stay for [`Machine::power_on`].
    pub fn pull_the_plug(&mut self) -> Result<(), MachineError> {
        self.channel = None;
        match (self.qemu.take(), self.pid.take()) {
            (Some(mut child), _) => {
                cache::at(&self.home, child.kill())?;
                cache::at(&self.home, child.wait())?;
            }
            (None, Some(pid)) => end_by_id(pid),
            (None, None) => {}
        }
        Ok(())
    }

    /// Boots again from its own disks, with the same forwards.
    pub fn power_on(&mut self) -> Result<(), MachineError> {
        let Err(error) = self.run(None).and_then(|()| self.connect(pace::boots(4.0))) else { return Ok(()) };
        // QEMU's translating threads now and then trip over each other while a guest sets up its devices. That is no
        // fault of what is tested; the disks are as after one more cut of the power.
        self.pull_the_plug()?;
        let log = fs::read_to_string(self.home.join("qemu.log")).unwrap_or_default();
        if !log.contains("iotlb_to_section") {
            return Err(error);
        }
        eprintln!("QEMU ended by itself and is started again: {}", log.trim());
        self.run(None)?;
        self.connect(pace::boots(4.0))
    }

    /// Reboots the guest from inside and waits until it answers again.
    pub fn reboot(&mut self) -> Result<(), MachineError> {
        self.restarts("systemctl reboot", 1)
    }

    /// Runs what makes the guest start anew so many times by itself, and waits until it answers after the last.
    pub fn restarts(&mut self, line: &str, times: u32) -> Result<(), MachineError> {
        let mut qmp = self.qmp()?;
        // The answer may be cut off by the very thing it asked for.
        let _cut_off = self.sh(line);
        for _ in 0..times {
            qmp.wait_for("RESET", pace::boots(8.0))?;
        }
        self.connect(pace::boots(8.0))
    }

    /// Waits until the guest has started anew by itself, and answers.
    pub fn comes_again(&mut self, patience: Duration) -> Result<(), MachineError> {
        self.qmp()?.wait_for("RESET", patience)?;
        self.connect(pace::boots(8.0))
    }

    /// Shuts the guest down from inside and waits for QEMU's end.
    pub fn power_off(&mut self) -> Result<(), MachineError> {
        let _cut_off = self.sh("systemctl poweroff");
        self.channel = None;
        let until = Instant::now() + pace::boots(4.0);
        while !self.ended()? {
            if Instant::now() > until {
                return self.pull_the_plug();
            }
            pause();
        }
        (self.qemu, self.pid) = (None, None);
        Ok(())
    }

    /// Installs a package file of the guest.
    pub fn install(&self, package: &str) -> Result<(), MachineError> {
        let line = format!("DEBIAN_FRONTEND=noninteractive dpkg --install {package}");
        let out = self.channel().run(&["/bin/sh", "-c", &line], b"", pace::boots(10.0))?;
        if out.success() {
            return Ok(());
        }
        let said = out.text() + &out.errors();
        Err(ChannelError::Failed { command: line, said, ended: out.ended }.into())
    }

    /// Gives the guest this machine's time: it stood still while the guest was saved.
    pub fn set_clock(&self) -> Result<(), MachineError> {
        let now = spawn::output(spawn::command("date").arg("+%s.%N"))?;
        self.ok(&format!("date --set=@{}", String::from_utf8_lossy(&now).trim())).map(drop)
    }

    /// Writes the memory to a file and ends QEMU; the disks then belong to that memory.
    pub(crate) fn save_memory(&mut self, file: &Path) -> Result<(), MachineError> {
        self.channel = None;
        let mut qmp = self.qmp()?;
        qmp.execute("migrate-set-capabilities", json!({"capabilities": [{"capability": "events", "state": true}]}))?;
        qmp.execute("migrate-set-parameters", json!({"max-bandwidth": 1u64 << 40}))?;
        qmp.execute("migrate", json!({"uri": format!("file:{}", file.display())}))?;
        loop {
            let event = qmp.wait_for("MIGRATION", pace::boots(10.0))?;
            match event["data"]["status"].as_str().unwrap_or_default() {
                "completed" => break,
                "failed" | "cancelled" => return Err(MachineError::Ended(format!("saving its memory: {event}"))),
                _ => {}
            }
        }
        self.pull_the_plug()
    }

    /// Lets it run after this process; [`Machine::find`] takes it up again.
    pub fn leave_running(mut self) -> Result<(), MachineError> {
        let gone = || MachineError::NotRunning(self.home.clone());
        let pid = self.pid.ok_or_else(gone)?.as_raw();
        let started = start_time(pid).ok_or_else(gone)?;
        let record =
            Record { plan: self.plan.clone(), accel: self.accel, forwards: self.forwards.clone(), pid, started };
        let path = self.home.join("machine.json");
        let text = serde_json::to_string_pretty(&record)
            .map_err(|err| CacheError { path: path.clone(), source: err.into() })?;
        cache::at(&path, fs::write(&path, text))?;
        self.owned = false;
        Ok(())
    }

    /// Ends it and removes its folder.
    pub fn remove(mut self) -> Result<(), MachineError> {
        self.owned = true;
        Ok(())
    }

    /// Gives up the folder to the caller, QEMU having ended.
    pub(crate) fn into_home(mut self) -> PathBuf {
        self.owned = false;
        self.home.clone()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        if let Err(err) = self.pull_the_plug() {
            eprintln!("ending {}: {err}", self.home.display());
        }
        if std::thread::panicking() || std::env::var_os("BERTH_KEEP").is_some() {
            eprintln!("the console of {} is kept: {}", self.plan.name, self.home.join("console.log").display());
        } else if let Err(err) = cache::remove(&self.home) {
            eprintln!("removing {}: {err}", self.home.display());
        }
    }
}

/// A new, empty folder for a machine of that name.
pub fn new_home(name: &str) -> Result<PathBuf, MachineError> {
    let home = home(name)?;
    cache::remove(&home)?;
    cache::at(&home, fs::create_dir_all(&home))?;
    home.parent().map_or(Ok(()), leftovers::sweep)?;
    Ok(home)
}

/// The folder of the machine of that name.
pub fn home(name: &str) -> Result<PathBuf, MachineError> {
    Ok(cache::folder()?.join("machines").join(name))
}

/// A port that nobody listens on and that this process has not given to another machine: QEMU binds it later, and
/// until then the kernel may offer it again.
fn free_port() -> Result<u16, MachineError> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = cache::at(Path::new("127.0.0.1"), address)?.port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
}

/// Field 22 of its stat line: ticks since boot.
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Ends a process that is no child of ours and waits until it is gone.
fn end_by_id(pid: Pid) {
    let until = Instant::now() + Duration::from_secs(30);
    while kill(pid, Signal::SIGKILL).is_ok() && Instant::now() < until {
        pause();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "another process's end, or a socket's birth, is no event std can wait for"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}
