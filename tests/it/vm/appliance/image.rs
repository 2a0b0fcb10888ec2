//! The appliance's image, flashed and booted by firmware as on a desk. Nothing in it waits for tests.

use std::fs;

use berth_tests::image::{self, Basis, Image, Recipe, publish};
use berth_tests::machine::{Firmware, Machine, Plan};
use berth_tests::saved::API;
use berth_tests::spawn;

use serde_json::Value;

use crate::vm::{PARTS, Place, eventually, page};

/// Where the starter service answers.
const WEB: u16 = 80;
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn recipe() -> Recipe<'static> {
    Recipe { payload: &PARTS.payload, images: &PARTS.images, version: VERSION, changes: None }
}

pub(super) fn flashed() -> Image {
    image::build(recipe()).unwrap()
}

/// Boots it for the first time, alone with a processor of the host.
fn booted(name: &str, firmware: Firmware) -> (Machine, Place) {
    let disk = flashed().disk();
    let place = Place::whole();
    let plan = Plan { forwards: vec![API, WEB], cpus: 1, durable: true, ..Plan::new(name) };
    (plan.boot_image(&PARTS.guest, &disk, firmware).unwrap(), place)
}

/// That every unit has started; else which have not, and what they said.
fn state(machine: &Machine) -> String {
    let look = "systemctl is-system-running --wait; \
                for unit in $(systemctl --failed --no-legend --plain | cut -d' ' -f1); do journalctl --no-pager -b -u $unit; done";
    machine.sh(look).unwrap().text().trim().to_owned()
}

fn console(machine: &Machine) -> String {
    String::from_utf8_lossy(&fs::read(machine.home().join("console.log")).unwrap()).into_owned()
}

/// The partitions of every machine, whichever way it came about: name and what is in it.
pub(super) const LAYOUT: &str = "esp:512M:vfat VERSION:512M:erofs VERSION_verity:16M:DM_verity_hash _empty:512M: _empty:16M: berth-data:crypto_LUKS";

/// Those of the disk with that serial number; the last has what is left.
pub(super) fn layout(machine: &Machine, serial: &str) -> String {
    let listed =
        format!("lsblk --noheadings --raw --output PARTLABEL,SIZE,FSTYPE,TYPE /dev/disk/by-id/virtio-{serial}");
    let lines = machine.ok(&format!("{listed} | grep ' part$'")).unwrap();
    let parts = lines.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "berth-data" => format!("{}:{}", words[0], words[2]),
            _ => format!("{}:{}:{}", words[0], words[1], words[2]),
        }
    });
    parts.collect::<Vec<_>>().join(" ").replace(&format!("berth_{VERSION}"), "VERSION")
}

/// Has it keep a word among its data.
pub(super) fn keeps(machine: &Machine, word: &str) {
    let object = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: kept}}\ndata: {{word: {word}}}\n");
    machine.put("/run/kept.yaml", object.as_bytes(), 0o644).unwrap();
    machine.ok("berth apply -f /run/kept.yaml").unwrap();
}

/// The word that it was to keep.
pub(super) fn kept(machine: &Machine) -> String {
    let object: Value = serde_json::from_str(&machine.ok("berth get configmap kept -o json").unwrap()).unwrap();
    object["data"]["word"].as_str().unwrap_or_default().to_owned()
}

fn refuses(machine: &Machine, line: &str) -> String {
    let out = machine.sh(line).unwrap();
    assert!(!out.success(), "`{line}` should have failed");
    out.errors()
}

#[test]
fn a_flashed_image_boots_to_an_answering_api_and_a_code_on_its_console_and_keeps_what_is_written() {
    let (mut machine, _alone) = booted("flashed", Firmware { tpm: true, gibibytes: 8 });
    assert_eq!(state(&machine), "running");
    let answers = "berth get settings berth -o name --server https://localhost:6443 --ca /var/lib/berth/keys/ca.crt --token-file /var/lib/berth/token";
    assert_eq!(machine.ok(answers).unwrap(), "settings/berth");
    eventually(&true, || console(&machine).contains("Nobody owns this machine yet. Its code is"));
    assert!(
        console(&machine)
            .contains("\u{2588}\u{2588}\u{2588}\u{2588} \u{2584}\u{2584}\u{2584}\u{2584}\u{2584} \u{2588}"),
        "no picture of it"
    );
    assert!(page(&machine, WEB).contains("This machine runs services"));
    assert_eq!(layout(&machine, "berth-disk"), LAYOUT);
    nothing_of_the_version_can_be_changed(&machine);
    data_is_encrypted_under_the_tpm_and_a_recovery_code(&machine);

    machine.ok("berth delete bundle welcome --wait").unwrap();
    keeps(&machine, "anchor");
    let same = "cat /etc/machine-id /var/lib/berth/recovery-code";
    let before = machine.ok(same).unwrap();
    machine.reboot().unwrap();
    assert_eq!(state(&machine), "running");
    assert_eq!(machine.ok(same).unwrap(), before);
    assert_eq!(kept(&machine), "anchor");
    assert_eq!(machine.ok("berth get bundles -o name").unwrap(), "", "what was removed came again");
}

fn nothing_of_the_version_can_be_changed(machine: &Machine) {
    assert!(refuses(machine, "touch /usr/bin/berth").contains("Read-only"));
    assert!(refuses(machine, "touch /etc/fstab").contains("Read-only"));
    assert_eq!(machine.ok("findmnt --noheadings --output FSTYPE /usr").unwrap(), "erofs");
    let verified = machine.ok("veritysetup status usr").unwrap();
    assert!(verified.contains("status:      verified"), "{verified}");
}

fn data_is_encrypted_under_the_tpm_and_a_recovery_code(machine: &Machine) {
    let disk = "/dev/disk/by-partlabel/berth-data";
    let header = machine.ok(&format!("cryptsetup luksDump {disk}")).unwrap();
    let ways = ["systemd-tpm2", "systemd-recovery"].map(|way| header.contains(way));
    assert_eq!(ways, [true, true], "{header}");
    let slots = header.lines().filter(|line| line.trim_end().ends_with(": luks2")).count();
    assert_eq!(slots, 2, "the key that it began with opens it still, or a way in is missing: {header}");
    // What is left of a disk of 8 GiB beside two versions.
    let room = machine.ok("df --block-size=1M --output=size /var | tail -n 1").unwrap();
    assert!(room.trim().parse::<u32>().unwrap() > 5_500, "{room}");
    assert_eq!(machine.ok("stat --format %a /var/lib/berth/recovery-code").unwrap(), "600");
}

/// The sums of all files that an image is published as.
fn published(image: &Image) -> String {
    let folder = tempfile::tempdir().unwrap();
    publish::publish(image, folder.path()).unwrap();
    fs::read_to_string(folder.path().join("SHA256SUMS")).unwrap()
}

#[test]
fn the_same_parts_give_the_same_image_byte_for_byte() {
    let (first, folder) = (flashed(), tempfile::tempdir().unwrap());
    let again = image::build_anew(recipe(), Basis::Appliance, folder.path()).unwrap();
    let files = |image: &Image| {
        let mut files = image.parts().unwrap().to_vec();
        files.push(image.disk());
        files
    };
    for (one, other) in files(&first).iter().zip(files(&again)) {
        assert_eq!(one.file_name(), other.file_name());
        let same = spawn::output(spawn::command("cmp").args([one, &other]));
        assert!(same.is_ok(), "{}: {same:?}", other.display());
    }
}

#[test]
#[ignore = "long tier"]
fn the_same_packages_give_the_same_downloads_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let again = image::build_anew(recipe(), Basis::Packages, folder.path()).unwrap();
    assert_eq!(published(&again), published(&flashed()));
}
