//! Things of ours that belong to nothing: what an end that went wrong has left on the machine.
//!
//! ```text
//! listed ─> owners read from the store ─> listed again ─> leaked: in both lists, and of nobody
//! ```
//!
//! What is being made has its record before it is there, and what is being removed is gone soon after it: so nothing is
//! taken for a leftover that somebody is at work on. Disks with data are only told of: a repair never removes one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use berth_host::link::Links;
use berth_host::{fs, loopdev, luks};
use berth_model::diagnostics::{Area, Finding, Outcome};
use berth_model::resource::Volume;
use berth_model::resource::revision::Revision;
use berth_model::resource::volume::device_name;

use super::{Examiner, timed, unseen};
use crate::bundle::seams::Cause;
use crate::bundle::view::{container_id, container_of};
use crate::network;

/// Where plans, what goes with them, and endings lie below the runtime directory.
const FOLDERS: [&str; 3] = ["plan", "provided", "last"];

/// One thing that was found on the machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    /// A service's unit.
    Unit(String),
    /// The machine's end of a container's link.
    Link(String),
    /// A namespace's bridge.
    Bridge(String),
    /// An open device of a volume.
    Mapper(String),
    /// A loop device, and the file it is on.
    Loop(PathBuf, PathBuf),
    /// A plan or what goes with it, and the container it is of.
    File(PathBuf, String),
    /// A mount that should be in a unit's own namespace.
    Mount(PathBuf),
    /// A volume's file.
    Disk(PathBuf),
}

/// What is on record.
#[derive(Debug, Default)]
struct Owners {
    containers: BTreeSet<String>,
    links: BTreeSet<String>,
    bridges: BTreeSet<String>,
    disks: BTreeSet<String>,
}

impl Owners {
    fn have(&self, thing: &Thing) -> bool {
        match thing {
            Thing::Unit(name) => container_of(name).is_some_and(|id| self.containers.contains(id)),
            Thing::Link(name) => self.links.contains(name),
            Thing::Bridge(name) => self.bridges.contains(name),
            Thing::Mapper(name) => self.disks.iter().any(|uid| device_name(uid) == *name),
            Thing::Loop(_, file) | Thing::Disk(file) => uid_of(file).is_some_and(|uid| self.disks.contains(uid)),
            Thing::File(_, id) => self.containers.contains(id),
            Thing::Mount(_) => false,
        }
    }
}

/// `<uid>.img`, or `<uid>.img.tmp` before it is finished.
fn uid_of(file: &Path) -> Option<&str> {
    let name = file.file_name()?.to_str()?;
    name.strip_suffix(".tmp").unwrap_or(name).strip_suffix(".img")
}

impl Thing {
    /// Which of the findings tells of it.
    fn sort(&self) -> &'static str {
        match self {
            Self::Unit(_) => "units",
            Self::Link(_) | Self::Bridge(_) => "links",
            Self::Mapper(_) => "mappers",
            Self::Loop(..) => "loop devices",
            Self::File(..) => "plans",
            Self::Mount(_) => "mounts",
            Self::Disk(_) => "disks",
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Unit(name) | Self::Link(name) | Self::Bridge(name) | Self::Mapper(name) => name.clone(),
            Self::Loop(device, file) => format!("{} on {}", device.display(), file.display()),
            Self::File(path, _) | Self::Mount(path) | Self::Disk(path) => path.display().to_string(),
        }
    }
}

/// Every sort, with what it means and what to do.
const SORTS: [(&str, &str, &str); 7] = [
    ("units", "They run, or are kept, for no bundle.", "`--repair` stops them."),
    ("links", "They lead to no container and take a place on a bridge.", "`--repair` removes them."),
    ("mappers", "A volume that is not on record is open.", "`--repair` closes it unless it is mounted."),
    ("loop devices", "They keep files of volumes that are not on record.", "`--repair` detaches them."),
    ("plans", "They are of containers that are not on record.", "`--repair` removes them."),
    (
        "mounts",
        "Volumes are mounted where only services should have them; they cannot be closed.",
        "Unmount them: `umount PATH`.",
    ),
    (
        "disks",
        "They take room and are of no volume on record. There may be data in them.",
        "Nothing removes them by itself; if nobody misses them, remove the files.",
    ),
];

impl Examiner {
    /// What belongs to nothing, a finding for each sort; with `repair` it is removed.
    pub(super) async fn leftovers(&self, repair: bool) -> Vec<Finding> {
        let leaked = match self.leaked().await {
            Ok(leaked) => leaked,
            Err(error) => return vec![unseen(Area::Leftovers, "leftovers", &*error)],
        };
        let mut findings = Vec::new();
        for (name, meaning, advice) in SORTS {
            let of_sort: Vec<&Thing> = leaked.iter().filter(|thing| thing.sort() == name).collect();
            let removing = repair && !of_sort.is_empty();
            let finding = timed(async {
                let mut finding = finding(name, &of_sort).means(meaning, advice);
                for thing in of_sort.iter().filter(|_| removing) {
                    finding.repaired.extend(self.remove(thing).await);
                }
                finding
            });
            findings.push(plain_if_well(finding.await));
        }
        findings
    }

    async fn leaked(&self) -> Result<Vec<Thing>, Cause> {
        let first = self.things().await?;
        let owners = self.owners().await?;
        let again = self.things().await?;
        Ok(first.intersection(&again).filter(|thing| !owners.have(thing)).cloned().collect())
    }

    async fn owners(&self) -> Result<Owners, Cause> {
        let plan = network::plan(&self.store).await?;
        let (revisions, volumes) =
            self.store.read(|tx| Ok((tx.list::<Revision>(None)?, tx.list::<Volume>(None)?))).await?;
        Ok(Owners {
            containers: revisions.iter().map(container_id).collect(),
            links: revisions.iter().map(|one| one.spec.allocation.host_link.clone()).collect(),
            bridges: network::segments(&plan).into_iter().map(|segment| segment.bridge).collect(),
            // The disk of a writable layer goes by the uid of its revision.
            disks: volumes
                .into_iter()
                .filter_map(|volume| volume.metadata.uid)
                .chain(revisions.iter().filter_map(|one| one.metadata.uid.clone()))
                .collect(),
        })
    }

    async fn things(&self) -> Result<BTreeSet<Thing>, Cause> {
        let mut things = BTreeSet::new();
        let units = self.systemd.list(&["berth.*.service"]).await?;
        things.extend(units.into_iter().map(|unit| Thing::Unit(unit.name)));
        let links = Links::open()?;
        things.extend(links.list("bv").await?.into_iter().filter_map(|link| {
            (link.kind == "veth" && network::is_ours(&link.name)).then_some(Thing::Link(link.name))
        }));
        things.extend(links.list("berth").await?.into_iter().filter_map(|link| {
            (link.kind == "bridge" && network::is_ours(&link.name)).then_some(Thing::Bridge(link.name))
        }));
        let (data, runtime) = (self.data.clone(), self.runtime.clone());
        let rest = tokio::task::spawn_blocking(move || on_disk(&data, &runtime)).await?;
        things.extend(rest?);
        Ok(things)
    }

    /// Removes one thing; answers what was done.
    async fn remove(&self, thing: &Thing) -> Option<String> {
        let shown = thing.shown();
        let done: Result<(), Cause> = match thing {
            Thing::Unit(name) => self.systemd.stop(name).await.map(drop).map_err(Cause::from),
            Thing::Link(name) | Thing::Bridge(name) => unlink(name).await,
            Thing::Mapper(name) => blocking(name.clone(), |name| luks::close(&name)).await,
            Thing::Loop(device, _) => blocking(device.clone(), |device| loopdev::detach(&device)).await,
            Thing::File(path, _) => fs::remove_file(path).map_err(Cause::from),
            Thing::Mount(_) | Thing::Disk(_) => return None,
        };
        Some(match done {
            Ok(()) => format!("removed {shown}"),
            Err(error) => format!("{shown} stays: {}", crate::log::chain(&*error)),
        })
    }
}

async fn unlink(name: &str) -> Result<(), Cause> {
    Links::open()?.delete(name).await?;
    Ok(())
}

async fn blocking<T, E>(what: T, work: fn(T) -> Result<(), E>) -> Result<(), Cause>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    tokio::task::spawn_blocking(move || work(what)).await?.map_err(Cause::from)
}

fn finding(name: &str, leaked: &[&Thing]) -> Finding {
    let shown: Vec<String> = leaked.iter().map(|thing| thing.shown()).collect();
    match leaked.first() {
        None => Finding::new(Area::Leftovers, name, Outcome::Ok, "none"),
        // Nothing that Berth does by itself would ever remove a file that may hold data.
        Some(Thing::Disk(_)) => Finding::new(Area::Leftovers, name, Outcome::Warning, shown.join(", ")),
        Some(_) => Finding::new(Area::Leftovers, name, Outcome::Problem, shown.join(", ")),
    }
}

fn plain_if_well(finding: Finding) -> Finding {
    match finding.result {
        Outcome::Ok => finding.means("", ""),
        _ => finding,
    }
}

/// What can be seen in files: of the kernel's and of ours.
fn on_disk(data: &Path, runtime: &Path) -> Result<Vec<Thing>, Cause> {
    let volumes = data.join("volumes");
    let mut things: Vec<Thing> = luks::names("berth-")?.into_iter().map(Thing::Mapper).collect();
    things.extend(loopdev::attached_below(&volumes)?.into_iter().map(|(device, file)| Thing::Loop(device, file)));
    for folder in FOLDERS {
        things.extend(entries(&runtime.join(folder))?.into_iter().filter_map(|path| of_container(folder, path)));
    }
    things.extend(entries(&volumes)?.into_iter().filter(|path| uid_of(path).is_some()).map(Thing::Disk));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    things.extend(mounted(&mounts, runtime).into_iter().map(Thing::Mount));
    Ok(things)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `<id>.json`; endings are `<id>.<invocation>.json`.
fn of_container(folder: &str, path: PathBuf) -> Option<Thing> {
    let id = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let id = if folder == "last" { id.rsplit_once('.')?.0 } else { id }.to_owned();
    Some(Thing::File(path, id))
}

/// Where devices of volumes, or anything of a container, are mounted in the machine's own namespace.
fn mounted(mounts: &str, runtime: &Path) -> Vec<PathBuf> {
    let containers = runtime.join("container");
    let ours = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let point = PathBuf::from(left.split(' ').nth(4)?);
        let source = right.split(' ').nth(1)?;
        (source.starts_with("/dev/mapper/berth-") || point.starts_with(&containers)).then_some(point)
    };
    mounts.lines().filter_map(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners() -> Owners {
        let set = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        Owners {
            containers: set(&["default.web.r1"]),
            links: set(&["bv0-2"]),
            bridges: set(&["berth0"]),
            disks: set(&["u-1"]),
        }
    }

    #[test]
    fn what_is_on_record_is_no_leftover_and_all_else_is() {
        let data = PathBuf::from("/var/lib/berth/volumes");
        let file = |name: &str| Thing::File(name.into(), "default.web.r1".into());
        for ours in [
            Thing::Unit("berth.default.web.r1.service".into()),
            Thing::Link("bv0-2".into()),
            Thing::Bridge("berth0".into()),
            Thing::Mapper("berth-u-1".into()),
            Thing::Loop("/dev/loop1".into(), data.join("u-1.img.tmp")),
            Thing::Disk(data.join("u-1.img")),
            file("plan/default.web.r1.json"),
        ] {
            assert!(owners().have(&ours), "{ours:?}");
        }
        for leaked in [
            Thing::Unit("berth.default.web.r2.service".into()),
            Thing::Link("bv0-3".into()),
            Thing::Mapper("berth-u-2".into()),
            Thing::Disk(data.join("u-2.img")),
            Thing::Mount("/mnt".into()),
        ] {
            assert!(!owners().have(&leaked), "{leaked:?}");
        }
    }

    #[test]
    fn files_tell_whose_container_they_are_of() {
        let of = |folder, name: &str| of_container(folder, name.into());
        let file = |name: &str, id: &str| Some(Thing::File(name.into(), id.into()));
        assert_eq!(of("plan", "default.web.r1.json"), file("default.web.r1.json", "default.web.r1"));
        assert_eq!(of("last", "default.web.r1.0a0b.json"), file("default.web.r1.0a0b.json", "default.web.r1"));
        assert_eq!(of("plan", "default.web.r1.json.tmp"), None);
    }

    #[test]
    fn volumes_that_are_mounted_on_the_machine_are_found() {
        let mounts = "1 0 0:1 / /run/berth rw - tmpfs tmpfs rw\n2 0 254:0 / /mnt rw - ext4 /dev/mapper/berth-u-1 rw\n\
                      3 0 0:3 / /run/berth/container/x/root rw - overlay overlay rw\n";
        let found = mounted(mounts, Path::new("/run/berth"));
        assert_eq!(found, [PathBuf::from("/mnt"), PathBuf::from("/run/berth/container/x/root")]);
    }

    #[test]
    fn data_that_nobody_knows_are_a_warning_and_everything_else_is_a_problem() {
        assert_eq!(finding("disks", &[&Thing::Disk("/v/u.img".into())]).result, Outcome::Warning);
        let found = finding("links", &[&Thing::Link("bv0-9".into()), &Thing::Bridge("berth9".into())]);
        assert_eq!((found.result, found.message.as_str()), (Outcome::Problem, "bv0-9, berth9"));
        assert_eq!(plain_if_well(finding("links", &[]).means("x", "y")).advice, "");
    }

    #[test]
    fn every_sort_of_thing_has_its_words() {
        let all = [
            Thing::Unit(String::new()),
            Thing::Link(String::new()),
            Thing::Bridge(String::new()),
            Thing::Mapper(String::new()),
            Thing::Loop(PathBuf::new(), PathBuf::new()),
            Thing::File(PathBuf::new(), String::new()),
            Thing::Mount(PathBuf::new()),
            Thing::Disk(PathBuf::new()),
        ];
        assert!(all.iter().all(|thing| SORTS.iter().any(|(name, ..)| *name == thing.sort())));
    }
}
