//! Volumes: data outlives everything but its erasure, and nothing that is not Berth's is ever formatted.

use berth_model::resource::operation::OperationKind::{self, Erase, Grow, Install};
use berth_tests::machine::Machine;
use berth_tests::saved::REGISTRY;

use super::{bundle, disturbed, eventually, holdings, install, own, property, ready, refused, shared, uninstall, unit};

const FIRST: &str = "127.0.0.1:5000/nginx:1";

/// What a script says in the service's container, and its error where it fails.
fn inside(machine: &Machine, name: &str, script: &str) -> String {
    let out = machine.sh(&format!("berth exec {name} -- busybox sh -c '{script}'")).unwrap();
    (out.text() + &out.errors()).trim_end().to_owned()
}

fn uid(machine: &Machine, volume: &str) -> String {
    machine.ok(&format!("berth get volume {volume} -o json | jq -r .metadata.uid")).unwrap()
}

fn image(machine: &Machine, volume: &str) -> String {
    format!("/var/lib/berth/volumes/{}.img", uid(machine, volume))
}

/// State of a volume, and what is said of it; what the command line said where it could not tell, as after a boot.
fn stands(machine: &Machine, volume: &str) -> (String, String) {
    let look = format!("berth get volume {volume} -o json | jq -r '.status.state, .status.message'");
    let said = machine.sh(&look).unwrap();
    let text = said.text();
    match text.trim_end().split_once('\n') {
        Some((state, message)) => (state.to_owned(), message.to_owned()),
        None => (text, said.errors()),
    }
}

/// What Berth and the kernel hold for volumes.
fn disks(machine: &Machine) -> String {
    machine.ok("ls /var/lib/berth/volumes /dev/mapper; losetup --noheadings --list --output BACK-FILE").unwrap()
}

fn erase(machine: &Machine, volume: &str) {
    machine.ok(&format!("berth volume erase {volume} --yes --timeout 10m")).unwrap();
}

#[test]
fn data_outlives_a_restart_an_update_a_reinstallation_and_the_supervisor_with_ids_as_the_container_counts() {
    let (_alone, machine) = disturbed();
    let (before, nothing) = (holdings(machine), disks(machine));
    install(machine, "keeps", &format!("{FIRST} --volume data:/data:64Mi"));
    inside(machine, "keeps", "echo kept >/data/file && busybox chown 33:33 /data/file");
    let kept = || inside(machine, "keeps", "busybox cat /data/file; busybox stat -c %u:%g /data/file");
    assert_eq!(kept(), "kept\n33:33");
    let device = format!("/dev/mapper/berth-{}", uid(machine, "keeps-data"));
    let look = format!("mount {device} /mnt && stat -c %u:%g /mnt/data /mnt/data/file; umount /mnt");
    assert_eq!(machine.ok(&look).unwrap(), "0:0\n33:33", "ids on disk");

    machine.ok("berth restart keeps --timeout 10m").unwrap();
    assert_eq!(kept(), "kept\n33:33", "after a restart");
    machine.ok(&format!("berth update keeps --image 127.0.0.1:{REGISTRY}/nginx:2 --timeout 10m")).unwrap();
    assert_eq!(kept(), "kept\n33:33", "after an update");
    machine.ok("berth rollback keeps --timeout 10m").unwrap();
    assert_eq!(kept(), "kept\n33:33", "after a rollback");

    machine.ok("systemctl stop berthd").unwrap();
    let running = "berth.default.keeps.r3.service";
    machine.ok(&format!("kill -KILL $(systemctl show -P MainPID {running})")).unwrap();
    eventually(&"1 active".to_owned(), || {
        format!("{} {}", property(machine, running, "NRestarts"), property(machine, running, "ActiveState"))
    });
    machine.ok("systemctl start berthd").unwrap();
    eventually(&true, || ready(machine, "keeps").starts_with("True"));
    assert_eq!(kept(), "kept\n33:33", "after a restart by systemd while no supervisor lived");
    machine.ok("systemctl kill --signal=KILL berthd").unwrap();
    eventually(&true, || machine.sh("berth get bundle keeps").unwrap().success());
    assert_eq!(kept(), "kept\n33:33", "after the supervisor was killed");

    let told = machine.sh("berth uninstall keeps --timeout 10m").unwrap();
    assert!(told.errors().contains("volume/keeps-data with 64Mi is kept"), "{}", told.errors());
    assert_eq!(machine.ok("ls /dev/mapper").unwrap(), "control");
    install(machine, "keeps", &format!("{FIRST} --volume data:/data:64Mi"));
    assert_eq!(kept(), "kept\n33:33", "after a reinstallation");
    machine.ok("berth uninstall keeps --erase-volumes --timeout 10m").unwrap();
    eventually(&before, || holdings(machine));
    assert_eq!(disks(machine), nothing);
}

/// How many times a text stands in the files below the folder of volumes, and the LUKS header's own name of the only one.
fn search(machine: &Machine, text: &str) -> (String, String) {
    let folder = "/var/lib/berth/volumes";
    let found = machine.ok(&format!("sync; cat {folder}/* | grep -a -c {text}; true")).unwrap();
    (found, machine.ok(&format!("cryptsetup luksUUID {folder}/*.img.tmp")).unwrap())
}

#[test]
fn a_writable_layer_on_disk_is_encrypted_and_new_at_each_start_even_while_no_supervisor_lives() {
    let (_alone, machine) = disturbed();
    let nothing = disks(machine);
    let wish = "--set resources.ephemeralStorage=256Mi --set resources.memory=128Mi";
    install(machine, "writes", &format!("{FIRST} {wish}"));
    let unit = unit(machine, "writes");
    let fill = "busybox dd if=/dev/zero of=/srv/large bs=1M count=160 2>/dev/null; busybox stat -c %s /srv/large";
    assert_eq!(
        inside(machine, "writes", &format!("busybox mkdir -p /srv; {fill}")),
        "167772160",
        "more than its memory"
    );
    let write = "echo canary-of-the-layer >/etc/left; busybox yes canary-of-the-layer | busybox head -n 100000 >/tmp/left; \
                 busybox sync";
    inside(machine, "writes", write);
    let (found, first) = search(machine, "canary-of-the-layer");
    assert_eq!(found, "0", "what a service writes is nowhere in clear");

    machine.ok("systemctl stop berthd").unwrap();
    machine.ok(&format!("kill -KILL $(systemctl show -P MainPID {unit})")).unwrap();
    eventually(&"1 active".to_owned(), || {
        format!("{} {}", property(machine, &unit, "NRestarts"), property(machine, &unit, "ActiveState"))
    });
    machine.ok("systemctl start berthd").unwrap();
    eventually(&true, || ready(machine, "writes").starts_with("True"));
    let left = || inside(machine, "writes", "busybox ls /srv/large /etc/left /tmp/left 2>/dev/null");
    assert_eq!(left(), "", "after a restart by systemd");
    assert_eq!(search(machine, "canary-of-the-layer"), ("0".to_owned(), first.clone()));

    inside(machine, "writes", "echo again >/etc/left");
    machine.ok("berth restart writes --timeout 10m").unwrap();
    assert_eq!(left(), "", "after a restart");
    assert_ne!(search(machine, "canary-of-the-layer").1, first, "another disk with another key");
    let full = inside(
        machine,
        "writes",
        "busybox dd if=/dev/zero of=/tmp/left bs=1M 2>&1 | busybox grep -o \"No space left.*\"",
    );
    assert_eq!(full, "No space left on device");
    machine.ok("berth stop writes --timeout 10m").unwrap();
    assert_eq!(disks(machine), nothing, "a service that is stopped has nothing on disk");
    uninstall(machine, "writes");
}

#[test]
#[ignore = "long tier"]
fn a_service_that_is_not_root_writes_to_its_volume_and_a_failing_update_gives_it_back() {
    let (_lock, machine) = shared();
    let testbox = format!("127.0.0.1:{REGISTRY}/testbox:latest");
    install(machine, "user", &format!("{testbox} --set user=1000:1000 --volume data:/data:16Mi"));
    inside(machine, "user", "echo mine >/data/file");
    assert_eq!(inside(machine, "user", "stat -c %u:%g /data /data/file"), "1000:1000\n1000:1000");
    assert_eq!(inside(machine, "user", "ls -a /data"), ".\n..\nfile");
    let spec = r#"{"spec": {"args": ["exit", "3"]}}"#;
    let patch = format!(
        "curl --silent --fail --unix-socket /run/berth/api.sock -X PATCH -H 'Content-Type: application/merge-patch+json' \
         --data '{spec}' http://localhost/apis/berth.dev/v1/namespaces/default/bundles/user"
    );
    machine.ok(&patch).unwrap();
    eventually(&"False Degraded".to_owned(), || ready(machine, "user"));
    assert_eq!(bundle(machine, "user")["status"]["revision"], 1);
    assert_eq!(inside(machine, "user", "cat /data/file"), "mine");
    machine.ok("berth uninstall user --erase-volumes --timeout 10m").unwrap();
}

#[test]
fn a_volume_grows_under_a_service_that_writes_and_one_that_does_not_fit_is_refused_with_what_is_free() {
    let (_lock, machine) = shared();
    install(machine, "grows", &format!("{FIRST} --volume data:/data:32Mi"));
    let main = || property(machine, &unit(machine, "grows"), "MainPID");
    let before = main();
    // Over the same files again and again until there is room for more than had fitted.
    let writing = "berth exec grows -- busybox sh -c \
        'n=0; put() { busybox dd if=/dev/zero of=/data/$1 bs=1M count=1 2>/dev/null && echo $1 || exit 1; }; \
         until [ $(busybox df -P -k /data | busybox awk \"END {print \\$2}\") -gt 81920 ]; do put $((n = (n + 1) % 16)); done; \
         for n in $(busybox seq 40); do put $n; done; echo grown'";
    let writer = machine.start(writing).unwrap();
    let mut written = writer.until(berth_tests::pace::boots(4.0), |seen| seen.lines().count() > 2).unwrap();
    machine.ok("berth volume grow grows-data 96Mi --timeout 10m").unwrap();
    let rest = writer.finish(berth_tests::pace::boots(4.0)).unwrap();
    written += &rest.text();
    assert!(rest.success() && written.ends_with("39\n40\ngrown\n"), "{written}");
    assert_eq!(main(), before, "the service was started again");
    let room: u64 =
        inside(machine, "grows", "busybox df -P -k /data | busybox awk \"END {print \\$2}\"").parse().unwrap();
    assert!(room > 80 * 1024, "{room} KiB");
    assert_eq!(bundle(machine, "grows")["status"]["volumes"][0]["size"], "96Mi");

    let error = refused(machine, "volume grow grows-data 64Mi");
    assert!(error.contains("never shrinks: it has 96Mi"), "{error}");
    let error = refused(machine, "volume grow grows-data 100Ti --timeout 5m");
    assert!(error.contains("does not fit") && error.contains("are free on the data disk"), "{error}");
    machine.ok("berth volume grow grows-data 96Mi --timeout 10m").unwrap();
    eventually(&"True StartCompleted".to_owned(), || ready(machine, "grows"));
    assert_eq!(main(), before);
    machine.ok("berth uninstall grows --erase-volumes --timeout 10m").unwrap();

    let error = refused(machine, &format!("install {FIRST} --name large --volume data:/data:100Ti --timeout 5m"));
    assert!(error.contains("volume large-data does not fit: 100.0Ti more are wanted and"), "{error}");
    assert!(refused(machine, "get volume large-data").contains("not found"));
    uninstall(machine, "large");
}

#[test]
fn an_erased_volume_is_opened_by_nothing_that_is_left_and_others_run_on() {
    let (_lock, machine) = shared();
    install(machine, "stays", &format!("{FIRST} --volume data:/data:16Mi"));
    install(machine, "goes", &format!("{FIRST} --volume data:/data:16Mi"));
    inside(machine, "stays", "echo kept >/data/file");
    let main = || property(machine, &unit(machine, "stays"), "MainPID");
    let before = main();
    let error = refused(machine, "volume erase goes-data --yes");
    assert!(error.contains("first: berth uninstall goes"), "{error}");
    let error = refused(machine, "volume erase goes-data");
    assert!(error.contains("say --yes"), "{error}");
    let goes = uid(machine, "goes-data");
    uninstall(machine, "goes");
    machine.ok(&format!("cp /var/lib/berth/volumes/{goes}.img /root/copy.img")).unwrap();
    let keys = "cat /var/lib/berth/keys/volumes.keys /var/lib/berth/keys/master.cred | sha256sum";
    let old = machine.ok(keys).unwrap();
    erase(machine, "goes-data");
    assert_ne!(machine.ok(keys).unwrap(), old);
    assert!(!machine.sh(&format!("grep -r {goes} /var/lib/berth/keys")).unwrap().success());
    let attempts = "for file in $(find /var/lib/berth/keys -type f); do \
        cryptsetup open --test-passphrase --key-file $file /root/copy.img 2>/dev/null && echo $file; done; rm /root/copy.img";
    assert_eq!(machine.ok(attempts).unwrap(), "");
    assert_eq!(main(), before);
    assert_eq!(inside(machine, "stays", "busybox cat /data/file"), "kept");
    // With the new master key, by the supervisor's next life and its own restart alike.
    machine.ok("berth restart stays --timeout 10m").unwrap();
    assert_eq!(inside(machine, "stays", "busybox cat /data/file"), "kept");
    machine.ok("berth uninstall stays --erase-volumes --timeout 10m").unwrap();
}

#[test]
#[ignore = "long tier"]
fn what_is_not_the_volume_it_should_be_is_an_error_and_stays_as_it_is() {
    let (_lock, machine) = shared();
    install(machine, "harmed", &format!("{FIRST} --volume data:/data:16Mi"));
    install(machine, "other", &format!("{FIRST} --volume data:/data:16Mi"));
    let (own, others) = (image(machine, "harmed-data"), image(machine, "other-data"));
    machine.ok("berth stop harmed other --timeout 10m").unwrap();
    machine.ok(&format!("cp {own} /root/own.img")).unwrap();
    let harms = [
        (format!("cp {others} {own}"), "its key does not open its file"),
        (format!("truncate --size 4M {own}"), "its file has 3145728 bytes and had 16777216"),
        (format!("dd if=/dev/zero of={own} bs=1M count=1 conv=notrunc 2>/dev/null"), "no readable LUKS2 header"),
        (format!("rm {own}"), "its file is not there"),
    ];
    for (harm, said) in &harms {
        machine.ok(harm).unwrap();
        let sum = format!("sha256sum {own} || echo none");
        let before = machine.ok(&sum).unwrap();
        let error = refused(machine, "start harmed --timeout 5m");
        assert!(error.contains(said), "{harm}: {error}");
        let (state, message) = stands(machine, "harmed-data");
        assert!(state == "Damaged" && message.contains(said), "{harm}: {state}: {message}");
        assert_eq!(machine.ok(&sum).unwrap(), before, "{harm}: it was written to");
        machine.ok(&format!("berth stop harmed --timeout 10m; cp /root/own.img {own}")).unwrap();
    }
    machine.ok("berth start harmed --timeout 10m").unwrap();
    assert_eq!(stands(machine, "harmed-data").0, "Ready");

    // Something else in it, under the right key.
    let device = format!("/dev/mapper/berth-{}", uid(machine, "harmed-data"));
    let overwrite = format!("dd if=/dev/zero of={device} bs=4096 count=1 conv=notrunc,fsync 2>/dev/null");
    machine.ok(&format!("systemctl stop {} && {overwrite}", unit(machine, "harmed"))).unwrap();
    let sum = format!("sha256sum {own}");
    let before = machine.ok(&sum).unwrap();
    let error = refused(machine, "start harmed --timeout 5m");
    assert!(error.contains("no ext4 filesystem"), "{error}");
    assert_eq!(machine.ok(&sum).unwrap(), before, "it was written to");

    machine.ok("berth uninstall harmed other --erase-volumes --timeout 10m; rm /root/own.img").unwrap();
}

#[test]
#[ignore = "long tier"]
fn a_header_that_says_something_else_under_a_right_checksum_is_believed_by_nobody() {
    let (_lock, machine) = shared();
    machine.put("/run/header.py", include_str!("volumes/header.py").as_bytes(), 0o600).unwrap();
    install(machine, "crafted", &format!("{FIRST} --volume data:/data:16Mi"));
    install(machine, "beside", &format!("{FIRST} --volume data:/data:16Mi"));
    inside(machine, "crafted", "echo kept >/data/file");
    let own = image(machine, "crafted-data");
    let mains =
        || [property(machine, "berthd.service", "MainPID"), property(machine, &unit(machine, "beside"), "MainPID")];
    let before = mains();
    let (supervisor, argon) = (before[0].clone(), r#"{"type": "argon2id", "time": 9, "memory": 4194304, "cpus": 4}"#);
    machine.ok(&format!("berth stop crafted --timeout 10m; cp {own} /root/crafted.img")).unwrap();
    machine.ok(&format!("echo 5 >/proc/{supervisor}/clear_refs")).unwrap();
    let edit = |copies: &str, change: &str| format!("python3 /run/header.py {own} {copies} '{change}'");
    let theirs = format!(
        "echo -n theirs | cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
         --cipher aes-xts-plain64 --key-size 512 --hash sha256 --sector-size 4096 --luks2-metadata-size 16k \
         --luks2-keyslots-size 1015808 {own} -"
    );
    let crafted = [
        (edit("12", r#"{"segments": {"0": {"offset": "2097152"}}}"#), "the place where the data begins"),
        (edit("12", r#"{"segments": {"0": {"encryption": "cipher_null-ecb"}}}"#), "the cipher is"),
        (edit("12", r#"{"keyslots": {"0": {"kdf": {"iterations": 2147483647}}}}"#), "the rounds of the derivation"),
        (edit("12", &format!(r#"{{"keyslots": {{"0": {{"kdf": {argon}}}}}}}"#)), "its text is none of ours"),
        (edit("2", r#"{"segments": {"0": {"size": "4096"}}}"#), "copy 2 of the header"),
        (edit("12", "["), "its text is none of ours"),
        (theirs, "its key does not open its file"),
    ];
    for (craft, said) in &crafted {
        machine.ok(craft).unwrap();
        let sum = format!("sha256sum {own}");
        let made = machine.ok(&sum).unwrap();
        let error = refused(machine, "start crafted --timeout 5m");
        assert!(error.contains(said), "{craft}: {error}");
        let (state, message) = stands(machine, "crafted-data");
        assert!(state == "Damaged" && message.contains(said), "{craft}: {state}: {message}");
        assert_eq!(machine.ok(&sum).unwrap(), made, "{craft}: it was written to");
        machine.ok(&format!("berth stop crafted --timeout 10m; cp /root/crafted.img {own}")).unwrap();
    }
    let most: u64 =
        machine.ok(&format!("awk '/VmHWM/ {{print $2}}' /proc/{supervisor}/status")).unwrap().parse().unwrap();
    assert!(most < 256 << 10, "the supervisor took {most} KiB");
    machine.ok("berth start crafted --timeout 10m").unwrap();
    assert_eq!(inside(machine, "crafted", "busybox cat /data/file"), "kept");
    assert_eq!(mains(), before);
    machine.ok("berth uninstall crafted beside --erase-volumes --timeout 10m; rm /root/crafted.img").unwrap();
}

#[test]
#[ignore = "long tier"]
fn a_changed_key_record_is_one_volumes_loss_that_no_erasure_of_another_makes_final() {
    let (_alone, machine) = disturbed();
    let keys = "/var/lib/berth/keys/volumes.keys";
    install(machine, "flipped", &format!("{FIRST} --volume data:/data:16Mi"));
    install(machine, "intact", &format!("{FIRST} --volume data:/data:16Mi"));
    inside(machine, "flipped", "echo kept >/data/file");
    let uid = uid(machine, "flipped-data");
    machine.ok("berth stop flipped --timeout 10m").unwrap();
    let flip = format!(
        "python3 -c 'import sys; file = open(\"{keys}\", \"r+b\"); bytes = bytearray(file.read()); \
         bytes[bytes.index(b\"{uid} \") + 70] ^= 1; file.seek(0); file.write(bytes)'"
    );
    machine.ok(&flip).unwrap();
    let error = refused(machine, "start flipped --timeout 5m");
    assert!(error.contains("was changed on disk and does not open"), "{error}");
    assert_eq!(stands(machine, "flipped-data").0, "Damaged");
    let changed = machine.ok(&format!("sha256sum {keys}")).unwrap();

    machine.ok("systemctl restart berthd").unwrap();
    eventually(&true, || machine.sh("berth restart intact --timeout 10m").unwrap().success());
    machine.ok("berth stop flipped --timeout 10m").unwrap();
    uninstall(machine, "intact");
    let error = refused(machine, "volume erase intact-data --yes --timeout 10m");
    assert!(error.contains("of keys/volumes.keys cannot be opened, and under a new master key never could"), "{error}");
    assert_eq!(machine.ok(&format!("sha256sum {keys}")).unwrap(), changed);
    assert_eq!(stands(machine, "intact-data").0, "Ready");

    machine.ok(&flip).unwrap();
    machine.ok("berth start flipped --timeout 10m").unwrap();
    assert_eq!(inside(machine, "flipped", "busybox cat /data/file"), "kept");
    erase(machine, "intact-data");
    machine.ok("berth uninstall flipped --erase-volumes --timeout 10m").unwrap();
}

#[test]
fn what_an_earlier_life_has_left_is_put_right_at_the_start() {
    let (_alone, machine) = disturbed();
    let nothing = disks(machine);
    let folder = "/var/lib/berth/volumes";
    let leave = format!(
        "truncate --size 32M {folder}/left.img.tmp && loop=$(losetup --find --show --sector-size 4096 {folder}/left.img.tmp) && \
         echo -n secret | cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $loop - && \
         echo -n secret | cryptsetup open $loop berth-left - && touch {folder}/somebodys.img"
    );
    machine.ok(&leave).unwrap();
    machine.ok("systemctl restart berthd").unwrap();
    eventually(&true, || machine.sh("berth get bundles").unwrap().success());
    let said =
        machine.ok("journalctl -u berthd --no-pager --output=cat | grep -E 'left|somebodys' | tail -n 4").unwrap();
    assert!(said.contains("somebodys.img belongs to no volume on record; it is left alone"), "{said}");
    machine.ok(&format!("rm {folder}/somebodys.img")).unwrap();
    assert_eq!(disks(machine), nothing);
}

/// Makes the supervisor die for good at the next armed point, so that the plug can be pulled there.
const ARM: &str = "mkdir -p /run/systemd/system/berthd.service.d && \
     printf '[Service]\\nEnvironment=BERTH_ABORT_FILE=/run/abort\\nRestart=no\\n' \
     >/run/systemd/system/berthd.service.d/abort.conf && systemctl daemon-reload && systemctl restart berthd";

/// Where the power goes when not everywhere: the middle of each, which has most half done.
const SAMPLE: [&str; 3] = ["Install/FormatVolumes/begun", "Grow/GrowFilesystems/begun", "Erase/DestroyKey/applied"];

/// Every step of an operation with each of these moments, made of its steps' own names.
fn points(kind: OperationKind, moments: &[&str]) -> Vec<String> {
    let of = |step| moments.iter().map(move |moment| format!("{kind:?}/{step:?}/{moment}"));
    kind.steps().iter().flat_map(of).collect()
}

/// For each volume's life, the points of its creation, growth and erasure at which the power goes; `None` once it has
/// gone at all of them. Between the record of a step and the beginning of the next nothing is done. `BERTH_LONG` is the
/// number of the life to begin with.
fn cuts() -> Vec<[Option<String>; 3]> {
    let all = [Install, Grow, Erase].map(|kind| points(kind, &["begun", "applied"]));
    let Ok(first) = std::env::var("BERTH_LONG") else {
        let known = all.iter().flatten().map(String::as_str).collect::<Vec<_>>();
        assert!(SAMPLE.iter().all(|point| known.contains(point)), "{known:?}");
        return vec![SAMPLE.map(|point| Some(point.to_owned()))];
    };
    let first: usize = first.parse().unwrap();
    let most = all.iter().map(Vec::len).max().unwrap();
    (first - 1..most).map(|life| all.each_ref().map(|points| points.get(life).cloned())).collect()
}

#[test]
fn a_power_cut_at_a_step_of_creation_growth_or_erasure_is_repaired_by_the_next_boot() {
    let (mut machine, _alone) = own("cut");
    install(&machine, "witness", &format!("{FIRST} --volume data:/data:16Mi"));
    inside(&machine, "witness", "echo kept >/data/file; busybox sync");
    for [creation, growth, erasure] in cuts() {
        cut(&mut machine, creation, &format!("install {FIRST} --name web --volume data:/data:16Mi"));
        eventually(&"True StartCompleted".to_owned(), || up_or_why(&machine, "web"));
        eventually(&"kept".to_owned(), || {
            inside(&machine, "web", "echo kept >/data/file; busybox sync; busybox cat /data/file")
        });

        cut(&mut machine, growth, "volume grow web-data 64Mi");
        eventually(&"True StartCompleted".to_owned(), || ready(&machine, "web"));
        eventually(&"Ready".to_owned(), || stands(&machine, "web-data").0);
        let look = "busybox cat /data/file; busybox df -P -k /data | busybox awk \"END {print (\\$2 > 48000)}\"";
        eventually(&"kept\n1".to_owned(), || inside(&machine, "web", look));

        uninstall(&machine, "web");
        let uid = uid(&machine, "web-data");
        cut(&mut machine, erasure, "volume erase web-data --yes");
        eventually(&NOT_FOUND, || machine.sh("berth get volume web-data").unwrap().code());
        let left = format!(
            "ls /var/lib/berth/volumes /var/lib/berth/keys | grep -E '{uid}|next'; \
                            grep {uid} /var/lib/berth/keys/volumes.keys; true"
        );
        assert_eq!(machine.ok(&left).unwrap(), "");
        eventually(&"True StartCompleted".to_owned(), || ready(&machine, "witness"));
        eventually(&"kept".to_owned(), || inside(&machine, "witness", "busybox cat /data/file"));
    }
    machine.remove().unwrap();
}

/// What the command line ends with for something that is not there.
const NOT_FOUND: i32 = 3;

/// How it stands, and where it is not up what is at work for it.
fn up_or_why(machine: &Machine, name: &str) -> String {
    let stands = ready(machine, name);
    let look =
        format!("berth status {name}; berth get operations; journalctl -b -u berthd --no-pager --output=cat | tail");
    if stands.starts_with("True") { stands } else { format!("{stands}\n{}", machine.sh(&look).unwrap().text()) }
}

/// Asks for it, and pulls the plug where the supervisor has died; without a point it is simply done.
fn cut(machine: &mut Machine, point: Option<String>, line: &str) {
    let Some(point) = point else {
        machine.ok(&format!("berth {line} --timeout 10m")).unwrap();
        return;
    };
    eprintln!("the power goes at {point}");
    machine.ok(ARM).unwrap();
    machine.ok(&format!("echo {point} >/run/abort")).unwrap();
    let told = machine.sh(&format!("berth {line} --no-wait")).unwrap();
    let told = told.text() + &told.errors();
    eventually(&"failed".to_owned(), || {
        let state = property(machine, "berthd.service", "ActiveState");
        if state == "failed" { state } else { format!("{state}: {point} was not reached: {told}") }
    });
    machine.pull_the_plug().unwrap();
    machine.power_on().unwrap();
    eventually(&true, || machine.sh("berth get bundles").unwrap().success());
}

#[test]
#[ignore = "long tier"]
fn data_is_there_after_a_reboot_and_what_was_synced_after_a_power_cut() {
    let (mut machine, _alone) = own("volume-reboot");
    install(&machine, "web", &format!("{FIRST} --volume data:/data:32Mi"));
    inside(&machine, "web", "echo kept >/data/file");
    machine.reboot().unwrap();
    eventually(&"True StartCompleted".to_owned(), || ready(&machine, "web"));
    assert_eq!(inside(&machine, "web", "busybox cat /data/file"), "kept");
    inside(&machine, "web", "echo synced >/data/file; busybox sync");
    machine.pull_the_plug().unwrap();
    machine.power_on().unwrap();
    eventually(&"True StartCompleted".to_owned(), || ready(&machine, "web"));
    assert_eq!(inside(&machine, "web", "busybox cat /data/file"), "synced");
    assert_eq!(machine.ok("systemctl --failed --no-legend --plain").unwrap(), "");
    machine.power_off().unwrap();
}
