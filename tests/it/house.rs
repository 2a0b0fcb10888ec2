//! The house rules that no compiler checks: who may use whom, and what must not be in the tree.

use std::fs;
use std::path::{Path, PathBuf};

use berth_tests::{cache, spawn, tree};

/// Folder, crate, and the crates of this workspace it may use.
const LAYERS: [(&str, &str, &[&str]); 8] = [
    ("supervisor/model", "berth-model", &[]),
    ("supervisor/host", "berth-host", &[]),
    ("supervisor/run", "berth-run", &["berth-model"]),
    ("supervisor/client", "berth", &["berth-model"]),
    ("supervisor/dns", "berth-dns", &["berth-model"]),
    ("supervisor/daemon", "berthd", &["berth-model", "berth-host"]),
    ("installer", "berth-installer", &["berth-host", "berth-model", "berth"]),
    ("tests", "berth-tests", &["berth-model", "berth"]),
];

/// What the pure crate must not depend on: anything that reads a clock, rolls dice, or does IO.
const IMPURE: [&str; 9] = ["tokio", "nix", "libc", "rusqlite", "reqwest", "ring", "rand", "zbus", "rustix"];

/// Domains of the daemon: they meet in stored resources and model types only. What carries them all (store, reconcile,
/// operation) is not one of them.
const DOMAINS: [&str; 6] = ["bundle", "image", "network", "schedule", "secret", "volume"];

#[test]
fn every_crate_depends_only_on_those_below_it() {
    for (folder, name, allowed) in LAYERS {
        let manifest = read(&tree::top().join(folder).join("Cargo.toml"));
        for used in dependencies(&manifest) {
            let ours = LAYERS.iter().any(|(_, other, _)| *other == used);
            assert!(!ours || allowed.contains(&used.as_str()), "{name} must not depend on {used}");
        }
    }
}

#[test]
fn the_model_depends_on_nothing_that_acts() {
    let manifest = read(&tree::top().join("supervisor/model/Cargo.toml"));
    for used in dependencies(&manifest) {
        assert!(!IMPURE.contains(&used.as_str()), "berth-model is pure and must not depend on {used}");
    }
}

#[test]
fn domains_of_the_daemon_do_not_know_each_other() {
    let source = tree::top().join("supervisor/daemon/src");
    for domain in DOMAINS {
        let mut files = rust_files(&source.join(domain));
        files.extend(Some(source.join(format!("{domain}.rs"))).filter(|file| file.exists()));
        for file in files {
            for line in product_lines(&read(&file)) {
                for other in DOMAINS.iter().filter(|other| **other != domain) {
                    let wanted = format!("crate::{other}::");
                    assert!(!line.contains(&wanted), "{}: {line}: {domain} must not use {other}", file.display());
                }
            }
        }
    }
}

#[test]
fn unsafe_code_lies_in_the_host_crate_and_where_launcher_and_first_process_call_the_kernel() {
    let kernel = [Path::new("supervisor/run/src/sys.rs"), Path::new("supervisor/run/init/sys.rs")];
    for file in tracked().into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs")) {
        let allowed = file.starts_with("supervisor/host") || kernel.contains(&file.as_path());
        let text = read(&tree::top().join(&file));
        let used =
            text.lines().find(|line| !line.trim_start().starts_with("//") && line.contains(concat!("unsafe", " {")));
        assert!(allowed || used.is_none(), "{}: {}", file.display(), used.unwrap_or_default());
    }
}

#[test]
fn nothing_in_the_tree_names_a_place_outside_it() {
    // Split, so that this file does not find itself.
    let forbidden = [
        concat!("/work", "/"),
        concat!("/tmp", "/w/"),
        concat!("deb.debian", ".org"),
        concat!("pypi", ".org"),
        concat!("index.crates", ".io"),
        concat!("proxy.golang", ".org"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("unimplemented", "!("),
        concat!("todo", "!("),
        concat!("dbg", "!("),
    ];
    for file in tracked() {
        // The licence and the lock file are not our words.
        if file == Path::new("Cargo.lock") || file == Path::new("LICENSE") {
            continue;
        }
        let Ok(text) = fs::read_to_string(tree::top().join(&file)) else { continue };
        for word in forbidden {
            assert!(!text.contains(word), "{} contains {word:?}", file.display());
        }
    }
}

#[test]
fn modules_have_names_that_say_what_they_hold() {
    for file in tracked().into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs")) {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        assert!(
            !["util", "utils", "common", "helpers", "helper", "manager", "misc"].contains(&&*name),
            "{}",
            file.display()
        );
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// Names in the `[dependencies]` and `[build-dependencies]` tables; tests may use what they like.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut table = "";
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            table = line;
        } else if let Some((name, _)) = line.split_once(['.', '=', ' '])
            && ["[dependencies]", "[build-dependencies]"].contains(&table)
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// Lines before the file's own tests, without comments.
fn product_lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    lines.filter(|line| !line.trim_start().starts_with("//"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    if !folder.is_dir() {
        return Vec::new();
    }
    let mut files = Vec::new();
    for path in cache::children(folder).unwrap() {
        let tests = path.file_name().is_some_and(|name| name == "tests" || name == "tests.rs");
        if path.is_dir() && !tests {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") && !tests {
            files.push(path);
        }
    }
    files
}

/// Everything that is in the tree, as git has it.
fn tracked() -> Vec<PathBuf> {
    let listed = spawn::output(spawn::command("git").arg("-C").arg(tree::top()).args(["ls-files", "-z"])).unwrap();
    String::from_utf8(listed)
        .unwrap()
        .split_terminator('\0')
        .map(PathBuf::from)
        .filter(|file| tree::top().join(file).exists())
        .collect()
}
