//! What this machine is and can do, seen or tried out.
//!
//! Looking never fails as a whole: what cannot be seen is a fact too.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};

use berth_host::cmd::{CmdError, Command};
use berth_host::link::{LinkError, Links, Network};
use berth_host::nft::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use berth_host::nft::{self, Hook, Ruleset};
use berth_host::systemd::Systemd;
use nix::errno::Errno;
use nix::sys::statfs::{self, FsType};

/// The service that holds the port of the API when Berth is already here.
const OWN_SERVICE: &str = "berthd.service";
/// Links whose addresses are Berth's own: this and a number.
const OWN_LINK: &str = "berth";
/// Kernel modules that every service needs.
const MODULES: [&str; 3] = ["bridge", "overlay", "veth"];
/// What a data directory has in it once Berth has run.
const STORE: &str = "berth.db";
const LAYERS: &str = include_str!("layers.sh");
const REFLINK: &str = include_str!("reflink.sh");

/// How trying something out went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It works here.
    Works,
    /// It does not, and this is what the machine said.
    Fails(String),
    /// Only root may try.
    NeedsRoot,
}

/// Who has the port of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// Nobody.
    Free,
    /// Berth itself.
    Ours,
    /// Somebody else; what the kernel said.
    Taken(String),
}

/// All that [`crate::findings::judge`] needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether this runs as root.
    pub root: bool,
    /// Whether Berth has been here before.
    pub installed: bool,
    /// As `uname -m` has it.
    pub architecture: String,
    /// As `uname -r` has it.
    pub kernel: String,
    /// Whether systemd is PID 1.
    pub systemd_runs: bool,
    /// None if there is no systemd.
    pub systemd_version: Option<u32>,
    /// Controllers of the unified hierarchy; none without one.
    pub controllers: Option<Vec<String>>,
    /// How many there may be; none if the kernel does not say.
    pub max_user_namespaces: Option<u64>,
    /// An overlay of id-mapped layers, on the filesystem of the data.
    pub layers: Tried,
    /// A copy that shares its blocks, on the filesystem of the data.
    pub reflinks: Tried,
    /// A table with a map and address translation.
    pub packet_filter: Tried,
    /// Kernel modules that cannot be had, if that can be told.
    pub missing_modules: Option<Vec<String>>,
    /// None if the kernel does not say.
    pub memory_bytes: Option<u64>,
    /// The data directory, or what there is of the way to it.
    pub data_dir: PathBuf,
    /// That of the data directory.
    pub filesystem: String,
    /// Bytes that are free there.
    pub free_bytes: Option<u64>,
    /// Port of the API.
    pub port_number: u16,
    /// Who has it.
    pub port: Port,
    /// Addresses that Berth gives to services.
    pub range: Network,
    /// Addresses of the machine within the range, and their links; or why they are not known.
    pub clashes: Result<Vec<(String, Network)>, String>,
}

/// Looks at the machine.
pub async fn gather(data_dir: PathBuf, port_number: u16, range: Network) -> Facts {
    let root = nix::unistd::geteuid().is_root();
    let data_dir = existing(&data_dir);
    let system = nix::sys::utsname::uname();
    let word = |name: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        system.as_ref().map(|system| name(system).to_string_lossy().into_owned()).unwrap_or_default()
    };
    let kernel = word(|system| system.release());
    Facts {
        root,
        installed: data_dir.join(STORE).exists(),
        architecture: word(|system| system.machine()),
        systemd_runs: Path::new("/run/systemd/system").exists(),
        systemd_version: systemd_version().await,
        controllers: controllers(),
        max_user_namespaces: number_in("/proc/sys/user/max_user_namespaces"),
        layers: try_script(root, LAYERS, &data_dir).await,
        reflinks: try_script(root, REFLINK, &data_dir).await,
        packet_filter: try_packet_filter(root).await,
        missing_modules: missing_modules(&kernel).await,
        kernel,
        memory_bytes: fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_in(&text)),
        filesystem: filesystem(&data_dir),
        free_bytes: free_bytes(&data_dir),
        data_dir,
        port_number,
        port: port(port_number).await,
        clashes: clashes(&range).await.map_err(|error| chain(&error)),
        range,
    }
}

/// The nearest directory on the way to `path` that is there.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

async fn systemd_version() -> Option<u32> {
    let output = Command::new("/usr/bin/systemctl").arg("--version").run().await.ok()?;
    version_in(&String::from_utf8_lossy(&output.stdout))
}

/// `systemd 257 (257.13-1)` and more lines.
fn version_in(text: &str) -> Option<u32> {
    text.split_whitespace().nth(1)?.parse().ok()
}

fn controllers() -> Option<Vec<String>> {
    let text = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok()?;
    Some(text.split_whitespace().map(str::to_owned).collect())
}

fn number_in(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `MemTotal:        2014936 kB` among other lines.
fn memory_in(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

async fn try_script(root: bool, script: &str, directory: &Path) -> Tried {
    if !root {
        return Tried::NeedsRoot;
    }
    let directory = directory.display().to_string();
    let command = Command::new("/bin/sh").args(["-c", script, "check", &directory]);
    tried(command.run().await.map_err(|error| spoken(&error)))
}

fn tried<T>(result: Result<T, String>) -> Tried {
    result.map_or_else(Tried::Fails, |_| Tried::Works)
}

/// What the program said, without the program: nobody asked for `/bin/sh`.
fn spoken(error: &CmdError) -> String {
    match error {
        CmdError::Failed { stderr, .. } => stderr.lines().last().unwrap_or_default().to_owned(),
        other => chain(other),
    }
}

async fn try_packet_filter(root: bool) -> Tried {
    if !root {
        return Tried::NeedsRoot;
    }
    let hook = Hook { kind: NfChainType::NAT, hook: NfHook::Postrouting, priority: 100, policy: NfChainPolicy::Accept };
    let masquerade = nft::stmt::Statement::Masquerade(None);
    let ruleset = Ruleset::new(NfFamily::INet, "berth-check")
        .map("places", &[nft::schema::SetType::InetService], nft::schema::SetType::Ipv4Addr, Vec::new())
        .chain("out", Some(hook))
        .rule("out", "", vec![masquerade]);
    tried(nft::check(&ruleset).await.map_err(|error| chain(&error)))
}

/// Modules that are neither loaded nor could be; none when nothing tells what could be.
async fn missing_modules(release: &str) -> Option<Vec<String>> {
    let mut missing = Vec::new();
    for module in MODULES {
        let dry = Command::new("/usr/sbin/modprobe").args(["--dry-run", "--quiet", module]);
        let loaded = Path::new("/sys/module").join(module).exists();
        if !loaded && dry.run().await.is_err() {
            missing.push(module.to_owned());
        }
    }
    let listed = Path::new("/lib/modules").join(release).exists();
    (listed || missing.is_empty()).then_some(missing)
}

fn filesystem(path: &Path) -> String {
    const NAMES: [(FsType, &str); 6] = [
        (statfs::XFS_SUPER_MAGIC, "xfs"),
        (statfs::BTRFS_SUPER_MAGIC, "btrfs"),
        (statfs::EXT4_SUPER_MAGIC, "ext4"),
        (statfs::TMPFS_MAGIC, "tmpfs"),
        (statfs::OVERLAYFS_SUPER_MAGIC, "overlay"),
        (statfs::NFS_SUPER_MAGIC, "nfs"),
    ];
    match statfs::statfs(path).map(|found| found.filesystem_type()) {
        Ok(found) => NAMES
            .iter()
            .find(|(kind, _)| *kind == found)
            .map_or_else(|| format!("filesystem {:#x}", found.0), |(_, name)| (*name).to_owned()),
        Err(error) => format!("unknown filesystem ({error})"),
    }
}

fn free_bytes(path: &Path) -> Option<u64> {
    let found = nix::sys::statvfs::statvfs(path).ok()?;
    found.blocks_available().checked_mul(found.fragment_size())
}

async fn port(number: u16) -> Port {
    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, number));
    let tried = match &both {
        // A machine without IPv6.
        Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, number))
        }
        _ => both,
    };
    match tried {
        Ok(_listener) => Port::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && own_service_runs().await => Port::Ours,
        Err(error) => Port::Taken(error.to_string()),
    }
}

async fn own_service_runs() -> bool {
    let Ok(systemd) = Systemd::connect().await else { return false };
    let state = systemd.state(OWN_SERVICE).await.ok().flatten();
    state.is_some_and(|state| state.main_pid.is_some())
}

async fn clashes(range: &Network) -> Result<Vec<(String, Network)>, LinkError> {
    let addresses = Links::open()?.addresses().await?;
    let foreign = addresses.into_iter().filter(|address| !is_own(&address.link) && address.network.overlaps(range));
    Ok(foreign.map(|address| (address.link, address.network)).collect())
}

fn is_own(link: &str) -> bool {
    link.strip_prefix(OWN_LINK).is_some_and(|number| number.parse::<u32>().is_ok())
}

/// An error and what is behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_version_of_systemd_is_its_first_number() {
        assert_eq!(version_in("systemd 257 (257.13-1~deb13u1)\n+PAM +AUDIT"), Some(257));
        assert_eq!(version_in("no such thing"), None);
    }

    #[test]
    fn memory_is_counted_in_bytes() {
        assert_eq!(memory_in("MemTotal:    2014936 kB\nMemFree: 1 kB\n"), Some(2_063_294_464));
        assert_eq!(memory_in("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn a_data_directory_that_is_not_there_yet_is_judged_by_what_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b")), dir.path());
        assert_eq!(existing(dir.path()), dir.path());
    }

    #[test]
    fn only_numbered_bridges_are_our_own() {
        assert!(is_own("berth12"));
        assert!(!is_own("berth"));
        assert!(!is_own("berth-lan"));
        assert!(!is_own("eth0"));
    }

    #[tokio::test]
    async fn a_port_that_somebody_listens_on_is_taken() {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let number = listener.local_addr().unwrap().port();
        assert!(matches!(port(number).await, Port::Taken(_)));
        drop(listener);
        // A child that another test is starting has the listener, too, until it is executed.
        let freed = async {
            while port(number).await != Port::Free {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), freed).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_tried_out_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        for script in [LAYERS, REFLINK] {
            let _works_or_not = try_script(true, script, dir.path()).await;
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
