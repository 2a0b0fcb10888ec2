//! What the kernel, the disk and the clock give.

use std::io;
use std::path::{Path, PathBuf};

use berth_host::usage;
use berth_model::diagnostics::{Area, Finding, Outcome};
use berth_model::pressure::Level;
use berth_model::quantity::about_bytes;

use super::{Examiner, timed, unseen};

/// Controllers without which limits are not kept.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "io", "pids"];
/// systemd-timesyncd says here that the clock was set.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";
/// Percent of the memory that should be had without swapping.
const MEMORY: u64 = 5;

impl Examiner {
    /// All of it, in the order in which one thing needs another.
    pub(super) async fn ground(&self) -> Vec<Finding> {
        let here = Files(PathBuf::from("/"));
        vec![
            timed(async { here.control_groups() }).await,
            timed(async { here.kernel() }).await,
            timed(async { here.encryption() }).await,
            timed(async { self.filesystem() }).await,
            timed(async { self.room() }).await,
            timed(async { memory(Path::new("/proc")) }).await,
            timed(async { here.time() }).await,
        ]
    }

    /// Copies of layers and the reserve lean on blocks that are shared.
    fn filesystem(&self) -> Finding {
        let (name, data) = ("data filesystem", self.data.display());
        let mounts = match std::fs::read_to_string("/proc/self/mountinfo") {
            Ok(mounts) => mounts,
            Err(error) => return unseen(Area::Machine, name, &error),
        };
        match filesystem_of(&mounts, &self.data) {
            Some(kind) if matches!(kind.as_str(), "xfs" | "btrfs" | "bcachefs") => {
                Finding::new(Area::Machine, name, Outcome::Ok, format!("{data} lies on {kind}, which shares blocks"))
            }
            kind => {
                let kind = kind.unwrap_or_else(|| "an unknown filesystem".to_owned());
                Finding::new(Area::Machine, name, Outcome::Warning, format!("{data} lies on {kind}"))
                    .means("Copies take their full room.", "Move it to XFS made with reflink=1.")
            }
        }
    }

    fn room(&self) -> Finding {
        let name = "free space";
        let disk = match self.cleaner.disk() {
            Ok(disk) => disk,
            Err(error) => return unseen(Area::Machine, name, &error),
        };
        let seen = format!("{} % of {} are used on the data disk", disk.percent(), about_bytes(disk.total));
        let advice = "Make room: `berth system cleanup`, `berth image prune`, `berth volume list`.";
        match self.cleaner.level() {
            Level::Fine => Finding::new(Area::Machine, name, Outcome::Ok, seen),
            Level::Warning | Level::Cleaning => Finding::new(Area::Machine, name, Outcome::Warning, seen)
                .means("The disk fills up; unused images are removed when it goes on.", advice),
            Level::Paused => Finding::new(Area::Machine, name, Outcome::Problem, seen)
                .means("No image is pulled or imported until there is room.", advice),
        }
    }
}

/// The machine's files below a root, so that every finding can be tested.
struct Files(PathBuf);

impl Files {
    fn read(&self, path: &str) -> io::Result<String> {
        std::fs::read_to_string(self.0.join(path))
    }

    fn has(&self, path: &str) -> bool {
        self.0.join(path.trim_start_matches('/')).exists()
    }

    fn control_groups(&self) -> Finding {
        let name = "control groups";
        let have = match self.read("sys/fs/cgroup/cgroup.controllers") {
            Ok(have) => have,
            Err(_) => {
                return Finding::new(
                    Area::Machine,
                    name,
                    Outcome::Problem,
                    "there is no unified hierarchy (version 2)",
                )
                .means("No service can be started.", "Boot without systemd.unified_cgroup_hierarchy=0.");
            }
        };
        let have: Vec<&str> = have.split_whitespace().collect();
        let lacking: Vec<&str> = CONTROLLERS.into_iter().filter(|one| !have.contains(one)).collect();
        match lacking.as_slice() {
            [] => Finding::new(Area::Machine, name, Outcome::Ok, format!("version 2 with {}", CONTROLLERS.join(", "))),
            lacking => {
                let seen = format!("the kernel has no controller for {}", lacking.join(", "));
                Finding::new(Area::Machine, name, Outcome::Problem, seen)
                    .means("These limits are not kept.", "Remove cgroup_disable= from the kernel's command line.")
            }
        }
    }

    /// What the kernel says of itself; whether ids can be mapped on the data is tried by the loopback.
    fn kernel(&self) -> Finding {
        let name = "kernel";
        let mut lacking = Vec::new();
        let filesystems = self.read("proc/filesystems").unwrap_or_default();
        if !filesystems.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
            lacking.push("overlay mounts");
        }
        let namespaces = self.read("proc/sys/user/max_user_namespaces").unwrap_or_default();
        if namespaces.trim().parse::<u64>().unwrap_or_default() == 0 {
            lacking.push("user namespaces");
        }
        if !self.has("proc/sys/kernel/seccomp/actions_avail") {
            lacking.push("system call filters");
        }
        let release = self.read("proc/sys/kernel/osrelease").unwrap_or_default();
        match lacking.as_slice() {
            [] => {
                let seen = format!("{} has user namespaces, overlay mounts and system call filters", release.trim());
                Finding::new(Area::Machine, name, Outcome::Ok, seen)
            }
            lacking => {
                let seen = format!("{} lacks {}", release.trim(), lacking.join(" and "));
                Finding::new(Area::Machine, name, Outcome::Problem, seen)
                    .means("No service can be started.", "`berth-installer check` tries each and says how to have it.")
            }
        }
    }

    fn encryption(&self) -> Finding {
        let name = "encryption of volumes";
        let problem = |seen: &str, advice: &str| {
            Finding::new(Area::Machine, name, Outcome::Problem, seen).means("Volumes cannot be opened or made.", advice)
        };
        if !self.has("dev/mapper/control") {
            return problem("there is no device mapper", "Load the module dm_mod, and see `dmesg`.");
        }
        match self.has("sys/module/dm_crypt") {
            true => Finding::new(Area::Machine, name, Outcome::Ok, "the device mapper is there, with dm-crypt"),
            false => problem("dm-crypt is not loaded", "`systemctl restart systemd-modules-load`, and see `dmesg`."),
        }
    }

    fn time(&self) -> Finding {
        let name = "time";
        match self.has(SYNCHRONISED) {
            true => Finding::new(Area::Machine, name, Outcome::Ok, "the clock was set by systemd-timesyncd"),
            false => Finding::new(Area::Machine, name, Outcome::Warning, "systemd-timesyncd has not set the clock")
                .means(
                    "Where no other program sets it, certificates may seem to be out of date and schedules run late.",
                    "`timedatectl` tells whether another program does; else `timedatectl set-ntp true`.",
                ),
        }
    }
}

fn memory(proc: &Path) -> Finding {
    let name = "memory";
    let machine = match usage::of_machine(proc) {
        Ok(machine) => machine,
        Err(error) => return unseen(Area::Machine, name, &error),
    };
    let seen = format!("{} of {} can be had", about_bytes(machine.memory_available), about_bytes(machine.memory));
    match machine.memory_available.saturating_mul(100) < machine.memory.saturating_mul(MEMORY) {
        false => Finding::new(Area::Machine, name, Outcome::Ok, seen),
        true => Finding::new(Area::Machine, name, Outcome::Warning, seen)
            .means("Services may be killed for want of memory.", "`berth top -A --sort memory` tells who has it."),
    }
}

/// The type of the filesystem that a path lies on: that of the longest mount point above it, the latest of several.
fn filesystem_of(mounts: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let (left, right) = line.split_once(" - ")?;
        let point = Path::new(left.split(' ').nth(4)?);
        let depth = point.components().count();
        if path.starts_with(point) && best.as_ref().is_none_or(|(known, _)| *known <= depth) {
            best = Some((depth, right.split(' ').next()?.to_owned()));
        }
    }
    best.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in all {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let files = Files(root.path().to_owned());
        (root, files)
    }

    #[test]
    fn a_kernel_is_judged_by_what_it_says_of_itself() {
        let overlay = ("proc/filesystems", "nodev\ttmpfs\nnodev\toverlay\n");
        let seccomp = ("proc/sys/kernel/seccomp/actions_avail", "allow\n");
        let release = ("proc/sys/kernel/osrelease", "6.12.0\n");
        let (_root, all) = files(&[overlay, seccomp, release, ("proc/sys/user/max_user_namespaces", "1000\n")]);
        assert_eq!(all.kernel().result, Outcome::Ok);
        let (_root, none) = files(&[overlay, seccomp, release, ("proc/sys/user/max_user_namespaces", "0\n")]);
        let found = none.kernel();
        assert_eq!((found.result, found.message.as_str()), (Outcome::Problem, "6.12.0 lacks user namespaces"));
        assert!(found.advice.contains("berth-installer check"));
    }

    #[test]
    fn a_controller_that_is_switched_off_is_named() {
        let (_root, files) = files(&[("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n")]);
        let found = files.control_groups();
        assert_eq!(
            (found.result, found.message.as_str()),
            (Outcome::Problem, "the kernel has no controller for memory")
        );
        let (_root, none) = self::files(&[]);
        assert!(none.control_groups().message.contains("no unified hierarchy"));
    }

    #[test]
    fn volumes_need_the_device_mapper_and_dm_crypt() {
        let (_root, none) = files(&[]);
        assert_eq!(none.encryption().message, "there is no device mapper");
        let (_root, half) = files(&[("dev/mapper/control", "")]);
        assert_eq!(half.encryption().message, "dm-crypt is not loaded");
        let (_root, all) = files(&[("dev/mapper/control", ""), ("sys/module/dm_crypt/refcnt", "0")]);
        assert_eq!(all.encryption().result, Outcome::Ok);
    }

    #[test]
    fn a_clock_that_nobody_is_known_to_set_and_memory_that_runs_out_are_warnings() {
        let (_root, none) = files(&[]);
        assert_eq!(none.time().result, Outcome::Warning);
        let (root, _) = files(&[
            ("stat", "cpu  1 1 1 1\n"),
            ("meminfo", "MemTotal: 100 kB\nMemAvailable: 4 kB\n"),
            ("loadavg", "0.10 0.10 0.10 1/1 1\n"),
            ("uptime", "1.00 1.00\n"),
        ]);
        assert_eq!(memory(root.path()).result, Outcome::Warning);
        assert_eq!(memory(Path::new("/nowhere")).result, Outcome::Problem);
    }

    #[test]
    fn data_lie_on_the_filesystem_that_is_mounted_nearest() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /var/lib/berth rw shared:1 - xfs /dev/sda2 rw\n";
        assert_eq!(filesystem_of(mounts, Path::new("/var/lib/berth")).as_deref(), Some("xfs"));
        assert_eq!(filesystem_of(mounts, Path::new("/var/lib/other")).as_deref(), Some("ext4"));
    }
}
