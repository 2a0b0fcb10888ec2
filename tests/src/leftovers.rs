//! What machines leave in the cache folder when the process that booted them ends.
//!
//! A suite's machines end with its process, by the kernel's hand, and nobody is left to remove their folders. The next
//! process that makes a folder does it: of machines whose owner is gone the disks and the memory go at once, and the
//! last consoles stay, for whoever wants to know why a suite failed.

use std::fs;
use std::path::Path;

use crate::cache::{self, CacheError};

/// Folders with a console that are kept.
const KEPT: usize = 12;
const CONSOLE: &str = "console.log";

/// Clears up below the folder of all machines.
pub fn sweep(machines: &Path) -> Result<(), CacheError> {
    let _lock = cache::lock(&machines.join(".sweeping"))?;
    let mut consoles = Vec::new();
    for home in cache::children(machines)?.into_iter().filter(|home| is_ownerless(home)) {
        let all = cache::children(&home)?;
        all.iter().filter(|file| !file.ends_with(CONSOLE)).try_for_each(|file| cache::remove(file))?;
        let changed = cache::at(&home, fs::metadata(&home).and_then(|folder| folder.modified()))?;
        let written = fs::metadata(home.join(CONSOLE)).and_then(|console| console.modified());
        consoles.push((written.unwrap_or(changed), home));
    }
    consoles.sort();
    let old = consoles.len().saturating_sub(KEPT);
    consoles.iter().take(old).try_for_each(|(_, home)| cache::remove(home))
}

/// It carries the id of a process that is gone. One that was left running on purpose carries none.
fn is_ownerless(home: &Path) -> bool {
    let name = home.file_name().unwrap_or_default().to_string_lossy();
    let owner = name.rsplit_once('-').and_then(|(_, pid)| pid.parse::<u32>().ok());
    home.is_dir()
        && !home.join("machine.json").exists()
        && owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// More than any process id can be.
    const NOBODY: u32 = u32::MAX;

    fn machine(machines: &Path, name: &str) -> PathBuf {
        let home = machines.join(name);
        fs::create_dir(&home).unwrap();
        for file in [CONSOLE, "root.qcow2"] {
            fs::write(home.join(file), name).unwrap();
        }
        home
    }

    #[test]
    fn only_the_console_of_a_machine_stays_when_its_owner_is_gone() {
        let machines = tempfile::tempdir().unwrap();
        let gone = machine(machines.path(), &format!("shared-{NOBODY}"));
        let at_work = machine(machines.path(), &format!("shared-{}", std::process::id()));
        let by_hand = machine(machines.path(), "up");
        sweep(machines.path()).unwrap();
        assert_eq!(cache::children(&gone).unwrap(), [gone.join(CONSOLE)]);
        for home in [at_work, by_hand] {
            assert_eq!(cache::children(&home).unwrap().len(), 2, "{}", home.display());
        }
    }

    #[test]
    fn the_oldest_consoles_go() {
        let machines = tempfile::tempdir().unwrap();
        for number in 0..KEPT + 3 {
            machine(machines.path(), &format!("m{number:02}-{NOBODY}"));
        }
        sweep(machines.path()).unwrap();
        let left = cache::children(machines.path()).unwrap().into_iter().filter(|path| path.is_dir()).count();
        assert_eq!(left, KEPT);
        assert!(!machines.path().join(format!("m00-{NOBODY}")).exists());
    }
}
