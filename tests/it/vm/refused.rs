//! What cannot work is refused with a reason and a way out: on the command line and in its exit code, in the
//! condition and in an event. Nothing of it stays, and whoever runs is left alone.

use std::fs;
use std::path::Path;

use berth_tests::handmade::Layer;
use berth_tests::machine::Machine;
use berth_tests::saved::REGISTRY;
use berth_tests::{images, spawn};
use serde_json::{Value, json};

use super::{
    bundle, disturbed, eventually, holdings, install, nothing_is_left, property, refused, shared, uninstall, unit,
};

const TESTBOX: &str = "127.0.0.1:5000/testbox:latest";
const REFUSED: &str = "build it again without that entry";
const LIES: &str = "push the image again, check proxies and mirrors";

/// One thing that cannot work.
struct Row {
    /// What is wrong with it.
    wrong: &'static str,
    /// Name of the service that is asked for.
    name: &'static str,
    /// What `berth install` is given.
    line: String,
    /// What goes wrong once it is at work.
    meanwhile: Option<fn(&Machine)>,
    /// The exit code, and the word for programs in the message.
    ends: (i32, &'static str),
    /// Said everywhere: what is wrong, and what to do about it.
    says: [&'static str; 2],
}

/// The service is named after the image; what is wrong is said in words.
fn row(wrong: &'static str, name: &'static str, code: &'static str, says: [&'static str; 2]) -> Row {
    let line = format!("127.0.0.1:{REGISTRY}/{name}:1");
    Row { wrong, name, line, meanwhile: None, ends: (1, code), says }
}

fn rows() -> Vec<Row> {
    let mut rows = layers();
    rows.extend([
        row(
            "a tag that nobody has pushed",
            "nosuch",
            "ImageNotFound",
            ["has no tag 1 in nosuch", "Check the spelling"],
        ),
        Row {
            line: format!("{TESTBOX}@sha256:{}", "0".repeat(64)).replace(":latest", ""),
            ..row("a digest that nobody has", "nodigest", "ImageNotFound", ["sha256:00000", "Check the spelling"])
        },
        Row {
            line: "localhost/empty:1".into(),
            ..row("an image that names no program", "empty", "NoProgram", ["names no program to run", "Set `command`"])
        },
        Row {
            line: format!(r#"{TESTBOX} --set 'command=["/no/such"]'"#),
            ..row(
                "a program that the image has not",
                "lost",
                "ProgramMissing",
                ["no program `/no/such`", "Correct `command`"],
            )
        },
        Row {
            line: format!(r#"{TESTBOX} --set 'command=["/etc/passwd"]'"#),
            ..row("a program that is none", "text", "ProgramMissing", ["not an executable file", "Correct `command`"])
        },
        Row {
            line: "127.0.0.1:5000/nginx:1 --publish 8081:80".into(),
            ends: (5, "PortConflict"),
            ..row(
                "a port of another service",
                "second",
                "",
                ["8081/TCP of the machine is already published by bundle default/first", "publish another port"],
            )
        },
        Row {
            line: "127.0.0.1:5000/nginx:1 --publish 5000:80".into(),
            ends: (5, "PortConflict"),
            ..row(
                "a port that the machine itself uses",
                "registry",
                "",
                ["5000/TCP of the machine is already in use", "publish another port"],
            )
        },
        Row {
            line: "127.0.0.1:5001/large:1".into(),
            meanwhile: Some(take_the_registry_away),
            ..row(
                "a registry that goes in the middle of a blob",
                "large",
                "RegistryUnreachable",
                ["127.0.0.1:5001 refuses connections", "Check that the registry at"],
            )
        },
    ]);
    rows
}

/// Images whose layers, or what the registry holds of them, are not as they should be.
fn layers() -> Vec<Row> {
    vec![
        row(
            "content that is not what its digest says",
            "changed",
            "DigestMismatch",
            ["the registry 127.0.0.1:5000 sent a wrong blob", LIES],
        ),
        row(
            "a layer of which half is missing",
            "half",
            "DigestMismatch",
            ["the registry 127.0.0.1:5000 sent a wrong blob", LIES],
        ),
        row(
            "a layer whose archive ends early",
            "early",
            "LayerDamaged",
            ["unexpected end of file", "build and push it again"],
        ),
        row(
            "a path that climbs",
            "climbing",
            "LayerRefused",
            [r#""../escaped" is refused: its path contains `..`"#, REFUSED],
        ),
        row(
            "a path that climbs from the root",
            "rooted",
            "LayerRefused",
            [r#"escaped" is refused: its path contains `..`"#, REFUSED],
        ),
        row(
            "a path through a symbolic link that leads out",
            "symlink",
            "LayerRefused",
            [r#""way/escaped" is refused: its path goes through a symbolic link that leads out"#, REFUSED],
        ),
        row(
            "a hard link to a file outside",
            "hardlink",
            "LayerRefused",
            [r#""escaped" is refused: it is a hard link to "../../../../etc/shadow", which leads out"#, REFUSED],
        ),
        row("a device node", "device", "LayerRefused", [r#""escaped" is refused: it is a device node"#, REFUSED]),
    ]
}

/// The layer of the image of that name.
fn layer(name: &str) -> Option<Vec<u8>> {
    let honest = Layer::default().program("run", "#!/bin/sh\n");
    Some(match name {
        "changed" | "half" => honest.file("noise", &noise(1 << 16)).bytes(),
        "large" => honest.file("noise", &noise(4 << 20)).bytes(),
        "early" => honest.file("noise", &noise(1 << 16)).broken_off(),
        "climbing" => honest.file("../escaped", b"x").bytes(),
        "rooted" => honest.file("/../../escaped", b"x").bytes(),
        "symlink" => honest.symlink("way", "/").file("way/escaped", b"x").bytes(),
        "hardlink" => honest.hard_link("escaped", "../../../../etc/shadow").bytes(),
        "device" => honest.device("escaped").bytes(),
        _ => return None,
    })
}

/// Bytes that do not compress, always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn what_cannot_work_is_told_everywhere_with_a_way_out_and_leaves_nothing() {
    let (_alone, machine) = disturbed();
    let folder = tempfile::tempdir().unwrap();
    import(machine, folder.path(), "empty", &Layer::default().program("run", "").bytes(), &json!({})).unwrap();
    install(machine, "first", "127.0.0.1:5000/nginx:1 --publish 8081:80");
    open_a_way_that_ends_half_way(machine);
    let rows = rows();
    for row in &rows {
        prepare(machine, folder.path(), row.name);
    }
    let untouched = property(machine, &unit(machine, "first"), "MainPID");
    let before = holdings(machine);

    // Two at a time, as the machine has two processors.
    for pair in rows.chunks(2) {
        std::thread::scope(|scope| pair.iter().for_each(|row| drop(scope.spawn(|| try_to_install(machine, row)))));
    }
    nothing_is_left(machine, &before);
    let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    uninstall(machine, &names.join(" "));
    nothing_is_left(machine, &before);
    machine.ok("! find / -xdev -name escaped | grep .").unwrap();
    assert_eq!(property(machine, &unit(machine, "first"), "MainPID"), untouched);
    uninstall(machine, "first");
}

/// Pushes the image of that name, and does to it in the registry what cannot be pushed.
fn prepare(machine: &Machine, folder: &Path, name: &str) {
    let Some(bytes) = layer(name) else { return };
    let layout = lay_out(folder, name, &bytes, &json!({"Cmd": ["/run"]}));
    images::push(&layout, &format!("{name}:1"), machine.forwarded(REGISTRY)).unwrap();
    let blob = format!("/var/lib/docker-registry/docker/registry/v2/blobs/{}/data", in_registry(&layout));
    match name {
        "changed" => machine.ok(&format!("printf x | dd of={blob} bs=1 seek=5000 conv=notrunc status=none")).unwrap(),
        "half" => machine.ok(&format!("truncate --size=30000 {blob}")).unwrap(),
        _ => String::new(),
    };
}

/// Port 5001 leads to the registry, but lets no connection have more than the beginning of a large blob.
fn open_a_way_that_ends_half_way(machine: &Machine) {
    let way = "#!/bin/sh\n\
               socat - TCP:127.0.0.1:5000 | {\n\
               dd bs=64k count=400000 iflag=count_bytes status=none; exec sleep infinity\n\
               }\n";
    machine.put("/run/halfway.sh", way.as_bytes(), 0o644).unwrap();
    machine
        .ok("systemd-run --quiet --unit=halfway socat TCP-LISTEN:5001,fork,reuseaddr,bind=127.0.0.1 'EXEC:sh /run/halfway.sh'")
        .unwrap();
}

fn take_the_registry_away(machine: &Machine) {
    eventually(&true, || {
        let blobs = "find /var/lib/berth/images/blobs -size +200k";
        !machine.ok(blobs).unwrap().is_empty()
    });
    machine.ok("systemctl stop halfway").unwrap();
}

fn try_to_install(machine: &Machine, row: &Row) {
    let running = machine.start(&format!("berth install --name {} {} --timeout 10m", row.name, row.line)).unwrap();
    row.meanwhile.iter().for_each(|happens| happens(machine));
    let out = running.finish(berth_tests::pace::boots(10.0)).unwrap();
    let said = out.errors();
    let wrong = row.wrong;
    let (exit, code) = row.ends;
    assert_eq!(out.code(), exit, "{wrong}: {said}");
    assert!(
        said.starts_with(&format!("error [{code}]")) || said.contains(&format!("\nerror [{code}]")),
        "{wrong}: {said}"
    );
    assert!(said.contains("  try: "), "{wrong}: {said}");
    tells(row, "the command line", &said);
    // The condition follows the operation's end.
    eventually(&"ProfileFailed".into(), || obstacle(&bundle(machine, row.name))["reason"].clone());
    let condition = obstacle(&bundle(machine, row.name));
    tells(row, "the condition", condition["message"].as_str().unwrap());
    let events = machine.ok(&format!("berth events --for bundle/{} -o json", row.name)).unwrap();
    let events: Value = serde_json::from_str(&events).unwrap();
    let warning = events["items"].as_array().unwrap().iter().find(|event| event["type"] == "Warning");
    tells(
        row,
        "the event",
        warning.unwrap_or_else(|| panic!("{wrong}: no warning in {events}"))["message"].as_str().unwrap(),
    );
}

#[track_caller]
fn tells(row: &Row, place: &str, text: &str) {
    for part in row.says {
        assert!(text.contains(part), "{}: {place} does not say `{part}`: {text}", row.wrong);
    }
}

/// The first condition that does not hold.
fn obstacle(bundle: &Value) -> Value {
    let conditions = bundle["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["status"] == "False").unwrap_or_default()
}

#[test]
#[ignore = "long tier"]
fn three_hundred_megabytes_of_configuration_are_refused_with_the_bound_and_take_no_memory() {
    let (_alone, machine) = disturbed();
    machine.put("/run/endless.py", include_str!("refused/endless.py").as_bytes(), 0o644).unwrap();
    machine.ok("systemd-run --quiet --unit=endless python3 /run/endless.py").unwrap();
    install(machine, "first", "127.0.0.1:5000/nginx:1 --publish 8081:80");
    let supervisor = property(machine, "berthd.service", "MainPID");
    let untouched = property(machine, &unit(machine, "first"), "MainPID");
    let before = holdings(machine);
    machine.ok(&format!("echo 5 >/proc/{supervisor}/clear_refs")).unwrap();

    for image in ["manifest", "config"] {
        let line = format!("install 127.0.0.1:5002/{image}:1 --name {image} --timeout 10m");
        let said = refused(machine, &line);
        assert!(said.contains("of more than 4194304 bytes"), "{image}: {said}");
        uninstall(machine, image);
    }
    machine.ok("{ printf 'a: '; head -c 300000000 /dev/zero | tr '\\0' x; } >/var/tmp/vast.yaml").unwrap();
    for line in ["apply -f /var/tmp/vast.yaml", "configmap create vast --from-file /var/tmp/vast.yaml"] {
        let said = refused(machine, line);
        assert!(said.contains("/var/tmp/vast.yaml is longer than 16777216 bytes"), "{line}: {said}");
    }
    let post = "curl --silent --unix-socket /run/berth/api.sock -H 'Content-Type: application/json' -H 'Expect:' \
                -X POST --upload-file /var/tmp/vast.yaml http://localhost/api/v1/namespaces/default/configmaps";
    let said = machine.sh(post).unwrap().text();
    assert!(said.contains("RequestEntityTooLarge") && said.contains("larger than 3145728 bytes"), "{said}");

    let most: u64 =
        machine.ok(&format!("awk '/VmHWM/ {{print $2}}' /proc/{supervisor}/status")).unwrap().parse().unwrap();
    assert!(most < 256 << 10, "the supervisor took {most} KiB");
    assert_eq!(property(machine, "berthd.service", "MainPID"), supervisor);
    assert_eq!(property(machine, &unit(machine, "first"), "MainPID"), untouched);
    assert_eq!(machine.sh("berth get configmap vast").unwrap().code(), 3);
    nothing_is_left(machine, &before);
    machine.ok("rm /var/tmp/vast.yaml; systemctl stop endless").unwrap();
    uninstall(machine, "first");
}

#[test]
#[ignore = "long tier"]
fn what_is_no_service_is_refused_at_the_door_with_the_field_and_changes_nothing() {
    let (_lock, machine) = shared();
    let rows = [
        ("a bad name", "--name Bad_Name", "metadata.name", "lower-case"),
        ("an unknown field", "--name door --set nosuch=1", "spec.nosuch", "unknown field"),
        (
            "an unknown field of a part",
            "--name door --set resources.nosuch=1",
            "spec.resources.nosuch",
            "unknown field",
        ),
        ("a limit that is none", "--name door --memory lots", "spec.resources.memory", "lots"),
    ];
    for (wrong, line, field, hint) in rows {
        let out = machine.sh(&format!("berth install {TESTBOX} {line}")).unwrap();
        assert_eq!(out.code(), 1, "{wrong}: {}", out.errors());
        assert!(out.errors().contains(field) && out.errors().contains(hint), "{wrong}: {}", out.errors());
    }
    for name in ["Bad_Name", "door"] {
        assert_eq!(machine.sh(&format!("berth get bundle {name}")).unwrap().code(), 3, "{name}");
    }
}

#[test]
#[ignore = "long tier"]
fn an_archive_that_reaches_out_or_ends_early_is_not_imported() {
    let (_lock, machine) = shared();
    let folder = tempfile::tempdir().unwrap();
    let rows = [("climbing", "refused: its path contains `..`"), ("early", "unexpected end of file")];
    for (name, says) in rows {
        let said = import(machine, folder.path(), name, &layer(name).unwrap(), &json!({"Cmd": ["/run"]})).unwrap_err();
        assert!(said.contains(says), "{name}: {said}");
    }
    assert!(!machine.ok("berth image list").unwrap().contains("localhost/climbing"));
}

/// Imports an image of that one layer as `localhost/<name>:1`; what was said if it is refused.
fn import(machine: &Machine, folder: &Path, name: &str, layer: &[u8], config: &Value) -> Result<(), String> {
    let layout = lay_out(folder, name, layer, config);
    let archive = folder.join("archive.tar");
    spawn::output(spawn::command("tar").arg("-C").arg(layout).arg("-cf").arg(&archive).arg(".")).unwrap();
    let path = format!("/run/{name}.tar");
    machine.put(&path, &fs::read(&archive).unwrap(), 0o600).unwrap();
    let out = machine.sh(&format!("berth image import {path} --name localhost/{name}:1 && rm {path}")).unwrap();
    if out.success() { Ok(()) } else { Err(out.errors()) }
}

fn lay_out(folder: &Path, name: &str, layer: &[u8], config: &Value) -> std::path::PathBuf {
    let (tar, layout) = (folder.join("layer.tar"), folder.join(name));
    fs::write(&tar, layer).unwrap();
    images::layout(&layout, "1", &[&tar], config).unwrap();
    layout
}

/// Where a registry keeps the first layer of an image, like `sha256/01/0123...`.
fn in_registry(layout: &Path) -> String {
    let read = |path: String| -> Value { serde_json::from_slice(&fs::read(layout.join(path)).unwrap()).unwrap() };
    let blob = |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
    let index = read("index.json".into());
    let manifest = read(blob(&index["manifests"][0]["digest"]));
    let digest = manifest["layers"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    format!("sha256/{}/{digest}", &digest[..2])
}
