//! What cannot work is refused with a reason and a way out, in the exit code, the message, the condition and an event.

use std::fs;
use std::path::Path;

use berth_tests::images;
use berth_tests::machine::Machine;
use berth_tests::spawn;

use super::{install, ready, refused, shared, uninstall};

const TESTBOX: &str = "127.0.0.1:5000/testbox:latest";

#[test]
fn a_missing_image_is_named_in_message_condition_and_event() {
    let (_lock, machine) = shared();
    let said = refused(machine, "install 127.0.0.1:5000/nosuch:1 --name absent --timeout 10m");
    assert!(said.contains("has no tag 1 in nosuch") && said.contains("try:"), "{said}");
    assert!(ready(machine, "absent").starts_with("False"));
    let events = machine.ok("berth events").unwrap();
    assert!(events.lines().any(|line| line.contains("Warning") && line.contains("bundle/absent")), "{events}");
    uninstall(machine, "absent");
}

#[test]
fn a_digest_that_nobody_has_is_refused() {
    let (_lock, machine) = shared();
    let digest = format!("sha256:{}", "0".repeat(64));
    let said = refused(machine, &format!("install 127.0.0.1:5000/testbox@{digest} --name wrongdigest --timeout 10m"));
    assert!(said.contains(&digest) && said.contains("try:"), "{said}");
    uninstall(machine, "wrongdigest");
}

#[test]
fn a_bad_name_and_an_unknown_field_are_named() {
    let (_lock, machine) = shared();
    let said = refused(machine, &format!("install {TESTBOX} --name Bad_Name"));
    assert!(said.contains("metadata.name") && said.contains("lower-case"), "{said}");
    let said = refused(machine, &format!("install {TESTBOX} --name fine --set nosuch=1"));
    assert!(said.contains("spec.nosuch"), "{said}");
}

#[test]
fn a_published_port_belongs_to_one_service() {
    let (_lock, machine) = shared();
    install(machine, "first", "127.0.0.1:5000/nginx:1 --publish 8083:80");
    let said = refused(machine, "install 127.0.0.1:5000/nginx:1 --name second --publish 8083:80 --timeout 10m");
    assert!(said.contains("8083") && said.contains("default/first") && said.contains("try:"), "{said}");
    uninstall(machine, "second");
    uninstall(machine, "first");
}

#[test]
fn a_program_that_the_image_has_not_is_named() {
    let (_lock, machine) = shared();
    let said = refused(machine, &format!("install {TESTBOX} --name lost --set 'command=[\"/no/such\"]' --timeout 10m"));
    assert!(said.contains("/no/such"), "{said}");
    uninstall(machine, "lost");
}

#[test]
fn layers_that_reach_out_of_the_image_are_refused() {
    let (_lock, machine) = shared();
    let folder = tempfile::tempdir().unwrap();
    for (name, arguments) in [
        ("climbing", vec!["--transform", "s,^file,../../escaped,"]),
        ("absolute", vec!["--transform", "s,^file,/../escaped,"]),
    ] {
        let layer = folder.path().join("layer.tar");
        layer_with(folder.path(), &layer, &arguments);
        let said = refused_layer(machine, folder.path(), name, &layer);
        assert!(said.contains("refused"), "{name}: {said}");
    }
    machine.ok("! find / -xdev -name escaped | grep .").unwrap();
}

#[test]
fn a_layer_that_ends_early_is_refused() {
    let (_lock, machine) = shared();
    let folder = tempfile::tempdir().unwrap();
    let layer = folder.path().join("layer.tar");
    layer_with(folder.path(), &layer, &[]);
    images::layout(&folder.path().join("cut"), "1", &[&layer], &serde_json::json!({"Cmd": ["/file"]})).unwrap();
    let blobs = folder.path().join("cut/blobs/sha256");
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("cut/index.json")).unwrap()).unwrap();
    let manifest = blob(&blobs, &manifest["manifests"][0]);
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let cut = blob(&blobs, &manifest["layers"][0]);
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let said = import(machine, folder.path(), "cut");
    assert!(said.contains("sha256:"), "{said}");
}

/// A layer with one file, its name changed by tar's arguments.
fn layer_with(folder: &Path, layer: &Path, arguments: &[&str]) {
    fs::write(folder.join("file"), "#!/bin/sh\n".repeat(2000)).unwrap();
    let mut tar = spawn::command("tar");
    tar.args(["--absolute-names", "-C"]).arg(folder).args(arguments).arg("-cf").arg(layer).arg("file");
    spawn::output(&mut tar).unwrap();
}

fn refused_layer(machine: &Machine, folder: &Path, name: &str, layer: &Path) -> String {
    images::layout(&folder.join(name), "1", &[layer], &serde_json::json!({"Cmd": ["/file"]})).unwrap();
    import(machine, folder, name)
}

/// Imports the layout, and installs from it where the import itself does not refuse.
fn import(machine: &Machine, folder: &Path, name: &str) -> String {
    let archive = folder.join("archive.tar");
    spawn::output(spawn::command("tar").arg("-C").arg(folder.join(name)).arg("-cf").arg(&archive).arg(".")).unwrap();
    let path = format!("/run/{name}.tar");
    machine.put(&path, &fs::read(&archive).unwrap(), 0o600).unwrap();
    refused(machine, &format!("image import {path} --name local/{name}:1"))
}

fn blob(blobs: &Path, descriptor: &serde_json::Value) -> std::path::PathBuf {
    blobs.join(descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:"))
}
