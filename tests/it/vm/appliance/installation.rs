//! An installation as its owner sees it: a medium, a blank disk, a berth.toml, and nobody at hand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use berth_tests::machine::{Disk, Firmware, Given, Machine, Plan, SERVER};
use berth_tests::pace;
use berth_tests::saved::API;
use ring::digest::{SHA256, digest};
use ring::hmac;
use serde_json::Value;

use super::image::{LAYOUT, flashed, layout};
use crate::vm::{PARTS, Place, eventually, page, property};

/// Where the configured bundle answers.
const WEB: u16 = 8085;
/// `a good long password`, as `argon2` makes it of it.
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQxMjM0NTY3OA$VllxRbglGupw+P3fe1P3krFqWwHmctSe1x5TimNoKdA";

/// What reports are signed with.
const SECRET: &str = "a secret between the two of us";

const CONFIGURATION: &str = r#"version = 1
hostname = "attic"
[disk]
serial = "target"
[ssh]
keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFXP9L/uDJWtqDHvmUEJBUuZxCsnjwPHUAaRJAxuQ+9l somebody"]
[[users]]
name = "alex"
role = "owner"
password-hash = "HASH"
[settings.cleanup]
unusedImageDays = 21
[[bundles]]
manifest = """
apiVersion: berth.dev/v1
kind: Bundle
metadata: {name: page}
spec:
  image: localhost/welcome:1
  ports: [{name: http, containerPort: 80, hostPort: 8085, expose: lan}]
"""
"#;

fn configuration() -> String {
    CONFIGURATION.replace("HASH", HASH)
}

/// A board with the medium and a blank disk beside it; what it fetches and tells goes to a folder.
fn board(name: &str, given: Given, more: Vec<Disk>, served: Option<&Path>) -> (Machine, Place) {
    let disk = flashed().disk();
    let place = Place::whole();
    let disks = [vec![Disk::blank("target", 8)], more].concat();
    let serves = served.map(Path::to_owned);
    let plan = Plan { forwards: vec![API, WEB], cpus: 1, durable: true, disks, given, serves, ..Plan::new(name) };
    (plan.boot_image(&PARTS.guest, &disk, Firmware { tpm: true, gibibytes: 4 }).unwrap(), place)
}

fn file() -> Vec<(String, String)> {
    vec![("berth.toml".to_owned(), configuration())]
}

fn words(words: &str) -> Given {
    Given { words: words.to_owned(), ..Given::default() }
}

/// That the machine, started from its own disk, is as it was configured; the medium is still there.
fn is_as_configured(machine: &Machine) {
    eventually(&true, || page(machine, WEB).contains("This machine runs services"));
    eventually(&false, || machine.sh("[ -e /var/lib/berth/first/berth.toml ]").unwrap().success());
    assert_eq!(machine.ok("hostname; cat /etc/hostname; stat --format %a /etc/hostname").unwrap(), "attic\nattic\n644");
    assert_eq!(machine.ok("findmnt --noheadings --output SOURCE /var").unwrap(), "/dev/mapper/data");
    let settings: Value = serde_json::from_str(&machine.ok("berth get settings berth -o json").unwrap()).unwrap();
    assert_eq!(settings["spec"]["cleanup"]["unusedImageDays"], 21);
}

/// That the owner gets in by what hash he was given, and by SSH nobody without one of the keys.
fn lets_its_owner_in(machine: &Machine) {
    let log_in = "printf 'a good long password' >/run/word; \
                  HOME=/run berth login --user alex --password-file /run/word --server https://localhost:6443 \
                  --ca /var/lib/berth/keys/ca.crt --name configured && HOME=/run berth whoami --context configured -o json";
    let who = machine.ok(log_in).unwrap();
    assert!(who.contains("alex") && who.contains("owner"), "{who}");
    let come_in =
        "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@localhost true";
    let stranger = machine.sh(come_in).unwrap().errors();
    assert!(stranger.contains("Permission denied (publickey)"), "{stranger}");
}

/// What a configuration is refused for, the phase's exit code, and what is said.
const REFUSED: [(&str, &str, i32, &str); 6] = [
    ("serial = \"target\"", "serial = \"third\"", 10, "no disk is as [disk] says"),
    ("serial = \"target\"", "bus = \"virtio\"\nmin-size = \"6Gi\"", 10, "several disks are as [disk] says"),
    ("serial = \"target\"", "serial = \"small\"", 10, "is too small"),
    ("serial = \"target\"", "serial = \"berth-disk\"\nerase = true", 10, "is what this system runs from"),
    ("serial = \"target\"", "serial = \"full\"", 10, "is not blank: vfat"),
    ("hostname", "hostnam", 2, "berth.toml:2:1: hostnam: is not known; did you mean `hostname`?"),
];

fn refuses(machine: &Machine) {
    for (right, wrong, code, said) in REFUSED {
        machine.put("/run/wrong.toml", configuration().replace(right, wrong).as_bytes(), 0o600).unwrap();
        let out = machine.sh("/usr/lib/berth/berth-installer install --config /run/wrong.toml").unwrap();
        let told = out.text() + &out.errors();
        assert!(
            out.code() == code && told.contains(said) && told.contains("nothing was written"),
            "{code} {said}: {told}"
        );
    }
    let written = "for one in target other small full; do \
                   cut -d' ' -f1-99 /sys/class/block/$(basename $(readlink /dev/disk/by-id/virtio-$one))/stat | awk '{print $7}'; done";
    assert_eq!(machine.ok(written).unwrap(), "0\n0\n0\n0");
}

/// Keeps what is sent to it, with the signature that came along.
fn mailbox(folder: &Path) {
    let script = folder.join("cgi-bin/report");
    fs::create_dir_all(script.parent().unwrap()).unwrap();
    let text = format!(
        "#!/bin/sh\nfile=$(mktemp {0}/sent.XXXXXX)\n{{ echo \"$HTTP_X_BERTH_SIGNATURE\"; cat; }} >$file\n\
         mv $file {0}/report.$(sed -n 's/.*\"event\":\"\\([a-z]*\\)\".*/\\1/p' $file)\nprintf 'Content-Type: text/plain\\r\\n\\r\\nthank you'\n",
        folder.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What was sent of that event, if whoever sent it knew the secret.
fn sent(folder: &Path, event: &str) -> Option<Value> {
    let text = fs::read_to_string(folder.join(format!("report.{event}"))).ok()?;
    let (signature, body) = text.split_once('\n')?;
    let hex = signature.strip_prefix("sha256=")?;
    let tag: Vec<u8> = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), body.as_bytes(), &tag).unwrap();
    Some(serde_json::from_str(body).unwrap())
}

#[test]
fn what_is_wrong_is_told_and_writes_nothing_and_a_blank_disk_becomes_a_machine_that_serves_and_reports() {
    let served = tempfile::tempdir().unwrap();
    mailbox(served.path());
    let full = Disk { files: vec![("notes.txt".into(), "dear diary".into())], ..Disk::blank("full", 6) };
    let more = vec![Disk::blank("other", 8), Disk::blank("small", 2), full];
    let (mut machine, _alone) = board("installed", words("berth.install"), more, Some(served.path()));
    eventually(&"active".to_owned(), || property(&machine, "berth-live.target", "ActiveState"));
    assert_eq!(property(&machine, "berthd.service", "ActiveState"), "inactive");
    refuses(&machine);

    let notify = format!("[notify]\nurl = \"{SERVER}/cgi-bin/report\"\nsecret = \"{SECRET}\"\n");
    machine.put("/run/berth.toml", (configuration() + &notify).as_bytes(), 0o600).unwrap();
    let plan = machine.ok("/usr/lib/berth/berth-installer install --config /run/berth.toml --dry-run").unwrap();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!((&plan["disk"]["serial"], &plan["tpm"]), (&"target".into(), &true.into()));
    machine.restarts("/usr/lib/berth/berth-installer install --config /run/berth.toml", 1).unwrap();
    is_as_configured(&machine);
    lets_its_owner_in(&machine);
    assert_eq!(layout(&machine, "target"), LAYOUT);
    eventually(&true, || sent(served.path(), "ready").is_some());
    let reports = ["installed", "ready"].map(|event| sent(served.path(), event).unwrap());
    assert_eq!(reports[0]["url"], "https://attic.local:6443");
    assert_eq!(reports[1]["bundles"][0]["ready"], true);
    let code = machine.ok("cat /var/lib/berth/recovery-code").unwrap();
    assert!(!code.is_empty() && !reports.iter().any(|report| report.to_string().contains(&code)));
    machine.reboot().unwrap();
    is_as_configured(&machine);
}

/// Ways by which a configuration comes, and what of it is left on a volume.
#[test]
#[ignore = "long tier"]
fn a_configuration_is_found_wherever_it_lies_and_taken_away_from_there() {
    let served = tempfile::tempdir().unwrap();
    fs::write(served.path().join("berth.toml"), configuration()).unwrap();
    let sum: String =
        digest(&SHA256, configuration().as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let url = format!("berth.install berth.config={SERVER}/berth.toml berth.config-sha256={sum}");
    let volume = vec![Disk { files: file(), ..Disk::blank("cidata", 1) }];
    let ways = [
        ("volume", Given::default(), volume),
        ("boot", Given { boot_files: file(), ..Given::default() }, Vec::new()),
        ("url", words(&url), Vec::new()),
        ("credential", Given { credentials: file(), ..Given::default() }, Vec::new()),
    ];
    for (way, given, more) in ways {
        eprintln!("a configuration comes by {way}");
        let (mut machine, _alone) = board(&format!("by-{way}"), given, more, Some(served.path()));
        machine.comes_again(pace::boots(20.0)).unwrap();
        is_as_configured(&machine);
        assert_eq!(layout(&machine, "target"), LAYOUT);
        let medium = "set -e; mkdir -p /run/looked; for one in /dev/disk/by-id/virtio-berth-disk-part1 /dev/disk/by-label/CIDATA; do \
                      [ -e $one ] || continue; mount -o ro $one /run/looked; ls /run/looked; umount /run/looked; done";
        let left = machine.ok(medium).unwrap();
        assert!(left.contains("berth-installed.json") && left.contains("berth-report.json"), "{left}");
        assert!(!left.contains("berth.toml"), "{way}: {left}");
        let parts = machine.ok("lsblk --noheadings --output PARTLABEL /dev/disk/by-id/virtio-berth-disk").unwrap();
        assert!(!parts.contains("berth-data"), "the medium made a machine of itself: {parts}");
    }
}

#[test]
#[ignore = "long tier"]
fn a_file_that_is_not_the_one_that_was_meant_installs_nothing() {
    let served = tempfile::tempdir().unwrap();
    fs::write(served.path().join("berth.toml"), configuration()).unwrap();
    let url = format!("berth.install berth.config={SERVER}/berth.toml berth.config-sha256={}", "0".repeat(64));
    let (machine, _alone) = board("meant", words(&url), Vec::new(), Some(served.path()));
    eventually(&"failed".to_owned(), || property(&machine, "berth-install.service", "ActiveState"));
    assert_eq!(property(&machine, "berth-install.service", "ExecMainStatus"), "2");
    let told = machine.ok("journalctl -b -u berth-install --no-pager").unwrap();
    assert!(told.contains("has the SHA-256"), "{told}");
    assert_eq!(machine.ok("lsblk --noheadings --output PTTYPE /dev/disk/by-id/virtio-target").unwrap().trim(), "");
}

#[test]
#[ignore = "long tier"]
fn an_installation_that_loses_power_is_begun_again_and_comes_to_its_end() {
    let given = Given { credentials: file(), ..Given::default() };
    let (mut machine, _alone) = board("cut", given, Vec::new(), None);
    let label = "blkid -s LABEL -o value /dev/disk/by-id/virtio-target-part6";
    eventually(&true, || machine.sh(label).unwrap().text().contains("berth-data-unfinished"));
    machine.pull_the_plug().unwrap();
    machine.power_on().unwrap();
    machine.comes_again(pace::boots(20.0)).unwrap();
    is_as_configured(&machine);
}
