//! Updates of the appliance's own system: fetched from a web server, tried, and kept or left again. Whatever a version
//! does wrong, the machine ends in the one before by itself, says why, and has its data.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use berth_tests::image::publish;
use berth_tests::image::{self, Image, Recipe};
use berth_tests::machine::{Firmware, Machine, Plan, SERVER};
use serde_json::Value;
use tempfile::TempDir;

use super::image::{keeps, kept};
use crate::vm::{PARTS, Place, eventually, is_long, property};

/// How a version is bad.
struct Bad {
    what: &'static str,
    /// Tried when not everything is.
    in_ci: bool,
    /// What is changed of the version before it is sealed.
    spoil: fn(&Path),
    /// What is changed of the files after they were made, before they are signed.
    damage: fn(&Path),
    /// What is changed of the files after they were signed.
    tamper: fn(&Path),
    /// Done on the machine before.
    before: &'static str,
    /// It is seen before anything is started.
    refused: bool,
    /// What the operation ends with.
    told: &'static str,
}

const BAD: Bad = Bad {
    what: "",
    in_ci: false,
    spoil: |_| {},
    damage: |_| {},
    tamper: |_| {},
    before: "true",
    refused: false,
    told: "it did not come as far as to say why",
};

/// A program that does as little as that.
fn instead(folder: &Path, program: &str, script: &str) {
    let path = folder.join("tree/usr/lib/berth").join(program);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The only file there whose name ends so.
fn file(folder: &Path, ending: &str) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.find(|path| path.to_str().unwrap().ends_with(ending)).unwrap()
}

/// Part of it becomes something else; the file was a link to one that others use.
fn overwrite(path: &Path, from: usize) {
    let mut bytes = fs::read(path).unwrap();
    let end = bytes.len().min(from + (8 << 20));
    bytes[from..end].fill(0x5a);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// What a supervisor does that takes the store to a schema of its own and then fails: the schema's number is the last of
/// four bytes in the file's header.
const MIGRATES: &str = r#"[ "$1" = setup ] && exec true
store=/var/lib/berth/berth.db
schema=$(od -An -tu1 -j63 -N1 $store | tr -d ' ')
if [ ! -e $store.schema-$schema ] && [ ! -e /var/lib/berth/taken-further ]; then
    cp -p $store $store.schema-$schema && touch /var/lib/berth/taken-further
    printf "\\$(printf %o $((schema + 1)))" | dd of=$store bs=1 seek=63 conv=notrunc && sync
fi
exit 1"#;

const VERSIONS: [Bad; 12] = [
    Bad {
        what: "its kernel panics",
        spoil: |folder| fs::write(folder.join("cmdline"), "rdinit=/nosuch\n").unwrap(),
        ..BAD
    },
    Bad {
        what: "no service comes up with it",
        in_ci: true,
        spoil: |folder| instead(folder, "berth-run", "exit 1"),
        told: "default/welcome",
        ..BAD
    },
    Bad {
        what: "its list was signed by nobody",
        in_ci: true,
        tamper: |folder| {
            let list = folder.join("SHA256SUMS");
            let more = fs::read_to_string(&list).unwrap() + "\n";
            fs::write(list, more).unwrap();
        },
        refused: true,
        told: "BadSignature",
        ..BAD
    },
    Bad {
        what: "its network is dead",
        spoil: |folder| {
            let links = folder.join("tree/etc/systemd/network");
            fs::create_dir_all(&links).unwrap();
            fs::write(links.join("80-wired.network"), "[Match]\nName=nosuch\n").unwrap();
        },
        told: "network: the machine has no address",
        ..BAD
    },
    Bad {
        what: "its ramdisk hangs",
        spoil: |folder| {
            let units = folder.join("initrd/etc/systemd/system");
            fs::create_dir_all(units.join("initrd-root-fs.target.requires")).unwrap();
            let hang = "[Unit]\nDefaultDependencies=no\nBefore=initrd-root-fs.target\n[Service]\nType=oneshot\n\
                        TimeoutStartSec=infinity\nExecStart=/bin/sleep infinity\n";
            fs::write(units.join("hang.service"), hang).unwrap();
            let link = units.join("initrd-root-fs.target.requires/hang.service");
            std::os::unix::fs::symlink("../hang.service", link).unwrap();
        },
        ..BAD
    },
    Bad {
        what: "its supervisor ends at once",
        spoil: |folder| instead(folder, "berthd", "[ \"$1\" = setup ] || exit 3"),
        told: "supervisor:",
        ..BAD
    },
    Bad {
        what: "the store is taken to a new schema and its supervisor fails",
        spoil: |folder| instead(folder, "berthd", MIGRATES),
        told: "supervisor:",
        ..BAD
    },
    Bad {
        what: "its supervisor never answers",
        spoil: |folder| instead(folder, "berthd", "[ \"$1\" = setup ] || exec sleep infinity"),
        told: "supervisor:",
        ..BAD
    },
    Bad {
        what: "its /usr is not what its hashes say",
        damage: |folder| overwrite(&file(folder, ".usr.raw"), 0),
        ..BAD
    },
    Bad { what: "its kernel is no program", damage: |folder| overwrite(&file(folder, ".efi"), 0), ..BAD },
    Bad {
        what: "its download ends too early",
        in_ci: true,
        tamper: |folder| {
            let path = file(folder, ".usr.raw");
            let bytes = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        },
        refused: true,
        told: "BadSum",
        ..BAD
    },
    Bad {
        what: "there is no room for its kernel",
        before: "dd if=/dev/zero of=/boot/ballast bs=1M 2>/dev/null; sync -f /boot",
        refused: true,
        told: "beside the present one",
        ..BAD
    },
];

fn built(version: &str, changes: Option<&Path>) -> Image {
    image::build(Recipe { payload: &PARTS.payload, images: &PARTS.images, version, changes }).unwrap()
}

/// An appliance with a web server beside it, from which it fetches; the server's folder is given, too.
fn appliance() -> (Machine, Place, TempDir) {
    let (served, image) = (tempfile::tempdir().unwrap(), built("1.0.0", None));
    let place = Place::whole();
    let plan = Plan { cpus: 1, durable: true, serves: Some(served.path().to_owned()), ..Plan::new("updated") };
    let firmware = Firmware { tpm: true, gibibytes: 8 };
    (plan.boot_image(&PARTS.guest, &image.disk(), firmware).unwrap(), place, served)
}

fn running(machine: &Machine) -> String {
    machine.ok("berth system status -o name").unwrap()
}

/// The state of the newest update, with the code and message of its error.
fn newest(machine: &Machine) -> String {
    let list: Value = serde_json::from_str(&machine.ok("berth get operations -o json").unwrap()).unwrap();
    let updates = list["items"].as_array().unwrap().iter().filter(|one| one["spec"]["kind"] == "UpdateSystem");
    let newest = updates.max_by_key(|one| one["spec"]["sequence"].as_u64()).unwrap();
    let word = |at: &str| newest["status"].pointer(at).and_then(Value::as_str).unwrap_or_default();
    [word("/state"), word("/error/code"), word("/error/message")].join(" ").trim().to_owned()
}

/// Writes a version beside the present one, with one try instead of three, and has the machine start as often as it takes
/// until the version before runs again.
fn tried(machine: &mut Machine, version: &str) {
    machine.ok(&format!("berth system update --source {SERVER} --timeout 20m")).unwrap();
    machine.ok(&format!("mv /boot/EFI/Linux/berth_{version}+3-0.efi /boot/EFI/Linux/berth_{version}+1-0.efi")).unwrap();
    restarted(machine, "sync -f /boot; berth system reboot", 2);
}

/// Has it start anew by that, so many times, and waits until its supervisor answers.
fn restarted(machine: &mut Machine, line: &str, times: u32) {
    machine.restarts(line, times).unwrap();
    eventually(&true, || machine.sh("berth get bundles").unwrap().success());
}

#[test]
fn a_good_version_is_kept_and_from_a_bad_one_the_machine_goes_back_and_says_why() {
    let (mut machine, _alone, served) = appliance();
    let channel = served.path().join("stable");
    eventually(&"active".to_owned(), || property(&machine, "berth-health.service", "ActiveState"));
    keeps(&machine, "anchor");

    publish::update(&built("1.1.0", None), &channel, "stable").unwrap();
    restarted(&mut machine, &format!("berth system update --source {SERVER} --restart --timeout 20m"), 1);
    eventually(&"Succeeded".to_owned(), || newest(&machine));
    assert_eq!(running(&machine), "1.1.0");
    let status = machine.ok("berth system status").unwrap();
    assert!(status.contains("1.1.0 came up well"), "{status}");

    if is_long() {
        restarted(&mut machine, "berth system rollback", 1);
        assert_eq!((running(&machine), kept(&machine)), ("1.0.0".to_owned(), "anchor".to_owned()));
        restarted(&mut machine, &format!("berth system update --source {SERVER} --restart --timeout 20m"), 1);
        eventually(&"Succeeded".to_owned(), || newest(&machine));
        assert_eq!(running(&machine), "1.1.0");
    }
    let settings = "apiVersion: berth.dev/v1\nkind: Settings\nmetadata: {name: berth}\nspec: {updates: {healthTimeoutSeconds: 30}}\n";
    machine.put("/run/settings.yaml", settings.as_bytes(), 0o644).unwrap();
    machine.ok("berth apply -f /run/settings.yaml").unwrap();
    for (number, bad) in VERSIONS.iter().filter(|bad| bad.in_ci || is_long()).enumerate() {
        eprintln!("a version comes of which {}", bad.what);
        let version = format!("2.{number}.0");
        let changes = tempfile::tempdir().unwrap();
        (bad.spoil)(changes.path());
        publish::update(&built(&version, Some(changes.path())), &channel, "stable").unwrap();
        (bad.damage)(&channel);
        publish::seal(&channel, &version, "stable").unwrap();
        (bad.tamper)(&channel);
        machine.sh(bad.before).unwrap();
        match bad.refused {
            true => {
                let out = machine.sh(&format!("berth system update --source {SERVER} --timeout 20m")).unwrap();
                assert!(!out.success(), "it was taken: {}", out.text());
            }
            false => tried(&mut machine, &version),
        }
        eventually(&true, || newest(&machine).starts_with("Failed"));
        let told = newest(&machine);
        assert!(told.contains(bad.told), "{}: {told}", bad.what);
        assert_eq!(running(&machine), "1.1.0", "{}", bad.what);
        let left = machine.ok("rm -f /boot/ballast; ls /boot/EFI/Linux").unwrap();
        assert!(!left.contains(&version), "it would be tried again: {left}");
        assert_eq!(kept(&machine), "anchor", "{}", bad.what);
        eventually(&true, || machine.sh("berth system health").unwrap().success());
    }
}
