//! Other clients that people use, against a machine's API from outside: over TLS, with its authority and a token.

use std::fs;
use std::path::{Path, PathBuf};

use berth_tests::machine::Machine;
use berth_tests::saved::API;
use berth_tests::{cache, python, spawn, tree};
use serde_json::json;

use super::{REGISTRY, shared};

/// Writes a kubeconfig and what it names.
fn configure(machine: &Machine, folder: &Path) {
    let authority = folder.join("ca.crt");
    fs::write(&authority, machine.ok("cat /var/lib/berth/ca.crt").unwrap()).unwrap();
    let token = machine.ok("cat /var/lib/berth/token").unwrap();
    let server = format!("https://127.0.0.1:{}", machine.forwarded(API));
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "berth",
        "clusters": [{"name": "berth", "cluster": {"server": server, "certificate-authority": authority}}],
        "users": [{"name": "owner", "user": {"token": token.trim()}}],
        "contexts": [{"name": "berth", "context": {"cluster": "berth", "user": "owner"}}],
    });
    fs::write(folder.join("config"), config.to_string()).unwrap();
}

#[test]
#[ignore = "long tier"]
fn the_python_client_of_kubernetes_makes_watches_enters_and_deletes_a_service() {
    let (_lock, machine) = shared();
    let python = python::with(&["kubernetes==33.1.0"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    configure(machine, folder.path());
    let script = folder.path().join("official.py");
    fs::write(&script, include_str!("clients/official.py")).unwrap();
    let mut program = spawn::command(python);
    program.arg("-I").arg(script).arg(folder.path().join("config")).arg(format!("127.0.0.1:{REGISTRY}/testbox:latest"));
    let said = spawn::output(&mut program).unwrap();
    assert_eq!(String::from_utf8_lossy(&said).trim(), "all is as it should be");
    machine.ok("berth volume erase -n python box-data --yes --timeout 10m").unwrap();
    machine.ok("berth delete namespace/python --timeout 10m").unwrap();
}

/// The program of `tests/kube`, which is no part of the workspace; compiled once in the user's cache folder.
fn kube() -> PathBuf {
    let (source, target) = (tree::top().join("tests/kube/Cargo.toml"), cache::folder().unwrap().join("kube"));
    let mut build = spawn::command("cargo");
    build.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(source).arg("--target-dir").arg(&target);
    spawn::run(&mut build).unwrap();
    target.join("debug/berth-kube")
}

#[test]
#[ignore = "long tier"]
fn kube_rs_writes_applies_watches_keeps_at_hand_and_enters_a_service() {
    let program = kube();
    let (_lock, machine) = shared();
    let folder = tempfile::tempdir().unwrap();
    configure(machine, folder.path());
    let mut program = spawn::command(program);
    program.arg(folder.path().join("config")).arg(format!("127.0.0.1:{REGISTRY}/testbox:latest"));
    let said = spawn::output(&mut program).unwrap();
    assert_eq!(String::from_utf8_lossy(&said).trim(), "all is as it should be");
    machine.ok("berth delete namespace/kube-rs --timeout 10m").unwrap();
}
