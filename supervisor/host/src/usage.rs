//! What control groups (version 2), links and the machine have used, as the kernel counts it.
//!
//! Both come and go while they are looked at: what is gone is `None`, and so is what its kernel does not count.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

const LINKS: &str = "/sys/class/net";

/// A counter could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the kernel's counters in {}", path.display())]
pub struct UsageError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Time that tasks of a group have waited for something, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one of them.
    pub some_us: u64,
    /// All that were not idle.
    pub full_us: u64,
}

/// What a group and all below it use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupUsage {
    /// Processor time since it was made, microseconds.
    pub cpu_us: Option<u64>,
    /// Bytes now, caches of files included.
    pub memory: Option<u64>,
    /// Tasks now.
    pub tasks: Option<u64>,
    /// Processes that were killed because the group had no memory left.
    pub oom_kills: Option<u64>,
    /// Bytes read from disks.
    pub read: Option<u64>,
    /// Bytes written to disks.
    pub written: Option<u64>,
    /// Waiting for the processor.
    pub cpu_pressure: Option<Pressure>,
    /// Waiting for memory.
    pub memory_pressure: Option<Pressure>,
    /// Waiting for disks.
    pub io_pressure: Option<Pressure>,
}

/// Bytes over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkUsage {
    /// That came in.
    pub received: u64,
    /// That went out.
    pub sent: u64,
}

/// What all of the machine uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineUsage {
    /// Processors that are there.
    pub cores: u64,
    /// Time that they were at work since the boot, all together, microseconds.
    pub cpu_us: u64,
    /// Tasks that run or want to, on average over a minute, in hundredths.
    pub load_hundredths: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of it that could be had without swapping.
    pub memory_available: u64,
    /// Time since the boot, microseconds.
    pub uptime_us: u64,
}

/// What all of the machine uses, from that directory, which is `/proc`.
///
/// # Errors
/// [`UsageError`]. What a line does not tell is nought.
pub fn of_machine(proc: &Path) -> Result<MachineUsage, UsageError> {
    let file = |name: &str| {
        let path = proc.join(name);
        std::fs::read_to_string(&path).map_err(|source| UsageError { path, source })
    };
    let (stat, memory) = (file("stat")?, file("meminfo")?);
    let kibibytes = |key: &str| {
        let rest = memory.lines().find_map(|line| line.strip_prefix(key));
        rest.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
    };
    Ok(MachineUsage {
        cores: stat.lines().filter(|line| is_processor(line)).count() as u64,
        cpu_us: at_work(&stat).unwrap_or_default(),
        load_hundredths: hundredths(&file("loadavg")?).unwrap_or_default(),
        memory: kibibytes("MemTotal:"),
        memory_available: kibibytes("MemAvailable:"),
        uptime_us: hundredths(&file("uptime")?).unwrap_or_default() * 10_000,
    })
}

/// `cpu0 ...`, but not `cpu  ...`, which is all of them.
fn is_processor(line: &str) -> bool {
    line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// User, nice, system, irq and softirq of the first line; idle and waiting are no work, and what was stolen is others'.
/// The kernel tells them to user space in hundredths of a second, whatever it counts in.
fn at_work(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).map_while(|one| one.parse().ok()).collect();
    Some([0, 1, 2, 5, 6].iter().filter_map(|at| fields.get(*at)).sum::<u64>() * 10_000)
}

/// The first word of a text, `12.34`.
fn hundredths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_whitespace().next()?.split_once('.')?;
    Some(whole.parse::<u64>().ok()? * 100 + part.get(..2)?.parse::<u64>().ok()?)
}

/// What the group at that directory uses; `None` if there is none.
///
/// # Errors
/// [`UsageError`].
pub fn of_group(directory: &Path) -> Result<Option<GroupUsage>, UsageError> {
    let file = |name: &str| read(&directory.join(name));
    let Some(cpu) = file("cpu.stat")? else { return Ok(None) };
    let disks = file("io.stat")?;
    let disks = |key: &str| disks.as_deref().map(|text| over_all_devices(text, key));
    let number = |text: Option<String>| text.and_then(|text| text.trim().parse().ok());
    Ok(Some(GroupUsage {
        cpu_us: keyed(&cpu, "usage_usec"),
        memory: number(file("memory.current")?),
        tasks: number(file("pids.current")?),
        oom_kills: file("memory.events")?.and_then(|text| keyed(&text, "oom_kill")),
        read: disks("rbytes"),
        written: disks("wbytes"),
        cpu_pressure: file("cpu.pressure")?.map(|text| pressure(&text)),
        memory_pressure: file("memory.pressure")?.map(|text| pressure(&text)),
        io_pressure: file("io.pressure")?.map(|text| pressure(&text)),
    }))
}

/// What went over that link of this network namespace; `None` if there is none.
///
/// # Errors
/// [`UsageError`].
pub fn of_link(link: &str) -> Result<Option<LinkUsage>, UsageError> {
    let count = |name: &str| -> Result<Option<u64>, UsageError> {
        let text = read(&Path::new(LINKS).join(link).join("statistics").join(name))?;
        Ok(text.and_then(|text| text.trim().parse().ok()))
    };
    Ok(count("rx_bytes")?.zip(count("tx_bytes")?).map(|(received, sent)| LinkUsage { received, sent }))
}

/// `None` for what is not there, for a group that is removed meanwhile, and for what this kernel was told not to count.
fn read(path: &Path) -> Result<Option<String>, UsageError> {
    let absent = [Errno::ENOENT, Errno::ENODEV, Errno::EOPNOTSUPP].map(|errno| errno as i32);
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.raw_os_error().is_some_and(|code| absent.contains(&code)) => Ok(None),
        Err(source) => Err(UsageError { path: path.to_owned(), source }),
    }
}

/// Of lines like `usage_usec 12`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Of lines like `254:0 rbytes=1 wbytes=2`.
fn over_all_devices(text: &str, key: &str) -> u64 {
    let fields = text.split_whitespace().filter_map(|field| field.split_once('='));
    fields.filter(|(name, _)| *name == key).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

/// Of the two lines `some avg10=0.00 avg60=0.00 avg300=0.00 total=12` and `full ...`.
fn pressure(text: &str) -> Pressure {
    let total = |line: &str| line.rsplit_once("total=")?.1.trim().parse().ok();
    let by_kind: HashMap<&str, u64> =
        text.lines().filter_map(|line| Some((line.split(' ').next()?, total(line)?))).collect();
    let of = |kind| by_kind.get(kind).copied().unwrap_or_default();
    Pressure { some_us: of("some"), full_us: of("full") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_as_the_kernel_writes_it() {
        let group = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"),
            ("memory.current", "4096\n"),
            ("pids.current", "3\n"),
            ("memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n"),
            ("io.stat", "254:0 rbytes=10 wbytes=20 rios=1\n7:1 rbytes=5 wbytes=0 rios=1\n8:0 \n"),
            ("io.pressure", "some avg10=0.00 avg60=0.10 total=70\nfull avg10=0.00 avg60=0.00 total=7\n"),
        ] {
            std::fs::write(group.path().join(name), text).unwrap();
        }
        let expected = GroupUsage {
            cpu_us: Some(1500),
            memory: Some(4096),
            tasks: Some(3),
            oom_kills: Some(1),
            read: Some(15),
            written: Some(20),
            io_pressure: Some(Pressure { some_us: 70, full_us: 7 }),
            ..GroupUsage::default()
        };
        assert_eq!(of_group(group.path()).unwrap(), Some(expected));
    }

    #[test]
    fn the_machine_is_read_as_the_kernel_writes_it() {
        let proc = tempfile::tempdir().unwrap();
        for (name, text) in [
            (
                "stat",
                "cpu  10 1 20 500 7 2 1 9 0 0\ncpu0 5 0 10 250 7 1 1 9 0 0\ncpu1 5 1 10 250 0 1 0 0 0 0\nintr 9\n",
            ),
            ("meminfo", "MemTotal:        2048 kB\nMemFree:          100 kB\nMemAvailable:    1024 kB\n"),
            ("loadavg", "0.52 0.40 0.30 1/100 4242\n"),
            ("uptime", "61.23 100.00\n"),
        ] {
            std::fs::write(proc.path().join(name), text).unwrap();
        }
        let expected = MachineUsage {
            cores: 2,
            cpu_us: 340_000,
            load_hundredths: 52,
            memory: 2 << 20,
            memory_available: 1 << 20,
            uptime_us: 61_230_000,
        };
        assert_eq!(of_machine(proc.path()).unwrap(), expected);
        assert!(of_machine(Path::new("/proc")).unwrap().cores > 0);
    }

    #[test]
    fn what_is_not_there_uses_nothing() {
        assert_eq!(of_group(Path::new("/sys/fs/cgroup/no.such.group")).unwrap(), None);
        assert_eq!(of_link("no-such-link").unwrap(), None);
        assert!(of_link("lo").unwrap().is_some());
    }
}
