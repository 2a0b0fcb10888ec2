//! A data disk that is full, by whatever: that is told with what to do, can be mended with Berth's own commands, and is
//! no business of the volumes on it.
//!
//! The disk is filled by a file that is allocated and never written, so that twenty gigabytes take a moment.

use berth_tests::channel::Running;
use berth_tests::machine::Machine;
use berth_tests::pace;
use berth_tests::saved::REGISTRY;

use super::{eventually, install, own, property, ready, refused, uninstall, unit};

const MIB: u64 = 1 << 20;
/// What images leave free at least.
const KEPT: u64 = 64;

/// A service whose volume is written to all the while.
struct Witness<'m> {
    machine: &'m Machine,
    writer: Running,
    unit: String,
    main: String,
}

impl<'m> Witness<'m> {
    fn new(machine: &'m Machine) -> Self {
        let image = format!("127.0.0.1:{REGISTRY}/testbox:latest");
        install(machine, "witness", &format!("{image} --volume data:/data:32Mi"));
        let unit = unit(machine, "witness");
        let main = property(machine, &unit, "MainPID");
        let write = "n=0; while n=$((n+1)); do echo $n >>/data/rows && sync -d /data/rows && echo $n; sleep 0.2; done";
        let writer = machine.start(&format!("berth exec witness -- sh -c '{write}'")).unwrap();
        Self { machine, writer, unit, main }
    }

    /// It writes on, the volume is in order, and nothing was started again.
    #[track_caller]
    fn is_well(&self) {
        let lines = self.machine.ok("berth exec witness -- sh -c 'wc -l </data/rows'").unwrap();
        let last: u64 = lines.trim().parse().unwrap();
        let number = |seen: &str| seen.lines().rev().find_map(|line| line.parse::<u64>().ok()).unwrap_or(0);
        self.writer.until(pace::boots(4.0), |seen| seen.ends_with('\n') && number(seen) > last).unwrap();
        assert_eq!(property(self.machine, &self.unit, "MainPID"), self.main, "the witness was started again");
        let states =
            "berth get volume witness-data -o json | jq -r .status.state; systemctl --failed --no-legend --plain";
        assert_eq!(self.machine.ok(states).unwrap(), "Ready");
    }
}

/// Mebibytes that are free on the data disk.
fn free(machine: &Machine) -> u64 {
    let bytes: u64 = machine.ok("echo $(($(stat -f -c '%a * %S' /var/lib/berth)))").unwrap().parse().unwrap();
    bytes / MIB
}

/// Allocates all but so many mebibytes of the data disk.
fn fill_up_to(machine: &Machine, left: u64) {
    let line = format!(
        "rm -f /var/lib/berth/filler; \
         fallocate --length $(($(stat -f -c '%a * %S' /var/lib/berth) - {left} * {MIB})) /var/lib/berth/filler"
    );
    machine.ok(&line).unwrap();
}

fn ballast(machine: &Machine) -> bool {
    machine.sh("test -e /var/lib/berth/ballast").unwrap().success()
}

fn images(machine: &Machine) -> String {
    machine.ok("find /var/lib/berth/images | sort; berth image list -o name").unwrap()
}

#[test]
#[ignore = "long tier"]
fn a_full_data_disk_is_told_and_mended_and_leaves_volumes_alone() {
    let (machine, _alone) = own("full");
    // As on the appliance, where the root disk is not written to.
    let journal = "mkdir -p /var/lib/berth/journal /run/systemd/journald.conf.d && \
        mount --bind /var/lib/berth/journal /var/log/journal && \
        printf '[Journal]\nSystemMaxUse=8G\nSystemKeepFree=1\nRateLimitIntervalSec=0\n' \
        >/run/systemd/journald.conf.d/full.conf && systemctl restart systemd-journald && journalctl --flush";
    machine.ok(journal).unwrap();
    // What Berth does before a disk is full is told elsewhere.
    let never = "kind: Settings, apiVersion: berth.dev/v1, metadata: {name: berth}, \
         spec: {cleanup: {disk: {warnPercent: 100, cleanPercent: 100, pausePercent: 100}}}";
    machine.ok(&format!("echo '{{{never}}}' | berth apply -f -")).unwrap();
    let witness = Witness::new(&machine);
    eventually(&true, || ballast(&machine));
    volumes(&machine, &witness);
    pictures(&machine, &witness);
    nothing_left(&machine, &witness);
    the_journal(&machine, &witness);
}

/// One that does not fit is refused with the size that does, and that one does.
fn volumes(machine: &Machine, witness: &Witness<'_>) {
    let reserve = 1024;
    fill_up_to(machine, reserve + 100);
    let testbox = format!("127.0.0.1:{REGISTRY}/testbox:latest");
    let error = refused(machine, &format!("install {testbox} --name large --volume data:/data:200Mi --timeout 5m"));
    assert!(error.contains("volume large-data does not fit: 200.0Mi more are wanted"), "{error}");
    assert!(error.contains("are kept back") && error.contains("berth image prune"), "{error}");
    let fits = error.split("ask for ").nth(1).and_then(|rest| rest.split("Mi at most").next()).unwrap();
    // The journal and the store lie on the same disk and go on growing.
    let fits = fits.parse::<u64>().unwrap() - 16;
    uninstall(machine, "large");
    install(machine, "large", &format!("{testbox} --volume data:/data:{fits}Mi"));
    let error = refused(machine, &format!("install {testbox} --name more --volume data:/data:64Mi --timeout 5m"));
    assert!(error.contains("volume more-data does not fit"), "{error}");
    let error = refused(machine, "volume grow large-data 1Gi --timeout 5m");
    assert!(error.contains("volume large-data does not fit") && error.contains("to stay with what it has"), "{error}");
    witness.is_well();
    machine.ok("berth uninstall large more --erase-volumes --timeout 10m").unwrap();
    assert!(free(machine) >= reserve + 70, "the room of an erased volume did not come back");
}

/// One that does not fit leaves nothing, whether that shows before it is fetched or while it is unpacked.
fn pictures(machine: &Machine, witness: &Witness<'_>) {
    let before = images(machine);
    let nginx = format!("127.0.0.1:{REGISTRY}/nginx:1");
    // 14 MiB packed.
    for left in [KEPT + 6, KEPT + 24] {
        fill_up_to(machine, left);
        let error = refused(machine, &format!("install {nginx} --name web --timeout 5m"));
        assert!(error.contains("does not fit: its new layers take 1") && error.contains("packed"), "{error}");
        assert!(error.contains("are free for images on the data disk"), "{error}");
        assert!(error.contains("NoRoom") && error.contains("Make room: `berth image prune`"), "{error}");
        assert_eq!(images(machine), before, "something is left of an image that did not fit");
        uninstall(machine, "web");
        witness.is_well();
    }
    assert!(ballast(machine), "an image has thrown the ballast");
    fill_up_to(machine, 2048);
    install(machine, "web", &nginx);
    uninstall(machine, "web");
}

/// A file of somebody else takes everything: the ballast goes, and with its room Berth's own commands do.
fn nothing_left(machine: &Machine, witness: &Witness<'_>) {
    let testbox = format!("127.0.0.1:{REGISTRY}/testbox:latest");
    install(machine, "other", &format!("{testbox} --volume data:/data:16Mi"));
    fill_up_to(machine, 2);
    machine.ok("berth get bundles && berth get volumes").unwrap();
    eventually(&false, || ballast(machine));
    let told =
        machine.ok("journalctl -u berthd --no-pager --output=cat | grep 'data disk is full' | tail -n 1").unwrap();
    assert!(told.contains("make room: `berth image prune`, `berth volume list`"), "{told}");
    witness.is_well();
    uninstall(machine, "other");
    machine.ok("berth volume erase other-data --yes --timeout 10m").unwrap();
    let before = free(machine);
    assert!(machine.ok("berth image prune").unwrap().contains("nginx"));
    assert!(free(machine) > before + 20, "pruning has freed nothing");
    machine.ok("berth secret create written --generate word && berth delete secret written").unwrap();
    witness.is_well();
    machine.ok("rm /var/lib/berth/filler").unwrap();
    eventually(&true, || ballast(machine));
}

/// The journal takes what there is.
fn the_journal(machine: &Machine, witness: &Witness<'_>) {
    fill_up_to(machine, 24);
    let flood = "head -c 24M /dev/urandom | base64 --wrap=30000 | systemd-cat --identifier=flood";
    machine.ok(flood).unwrap();
    eventually(&false, || ballast(machine));
    witness.is_well();
    machine.ok("berth stop witness --timeout 10m && berth start witness --timeout 10m").unwrap();
    eventually(&"True StartCompleted".to_owned(), || ready(machine, "witness"));
    machine.ok("rm /var/lib/berth/filler && journalctl --rotate --vacuum-size=8M").unwrap();
    eventually(&true, || ballast(machine));
    machine.ok("berth uninstall witness --erase-volumes --timeout 10m").unwrap();
}
