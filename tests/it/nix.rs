//! The NixOS side without a NixOS: every file is read by Nix itself, and sets only options that there are.

use std::path::Path;

use berth_tests::{spawn, tree};
use serde_json::Value;

/// What stands in the folder, but for the flake.
const FILES: [&str; 7] = ["appliance", "check", "module", "options", "package", "read", "test"];

/// What Nix makes of an expression in the folder of our modules. It keeps nothing, so it needs no store.
fn evaluated(expression: &str) -> Value {
    let mut nix = spawn::command("nix-instantiate");
    nix.args(["--store", "dummy://", "--eval", "--strict", "--json", "--expr", expression]);
    let said = spawn::output(nix.current_dir(tree::top().join("image/nixos"))).unwrap();
    serde_json::from_slice(&said).unwrap()
}

fn findings(module: &Path) -> Vec<String> {
    let found = evaluated(&format!("import ./check.nix {{ module = {}; }}", module.display()));
    found.as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[test]
fn nix_reads_every_file_and_the_flake() {
    let folder = tree::top().join("image/nixos");
    let files = FILES.map(|name| folder.join(format!("{name}.nix")));
    for file in files.into_iter().chain([tree::top().join("flake.nix")]) {
        spawn::output(spawn::command("nix-instantiate").args(["--store", "dummy://", "--parse"]).arg(&file)).unwrap();
    }
}

#[test]
fn our_modules_set_only_options_that_there_are_to_values_of_their_kind() {
    for module in ["module.nix", "appliance.nix"] {
        assert_eq!(findings(&tree::top().join("image/nixos").join(module)), Vec::<String>::new(), "{module}");
    }
}

#[test]
fn an_option_that_there_is_not_or_a_value_of_another_kind_would_be_found() {
    let module = tree::top().join("image/nixos/appliance.nix");
    let text = std::fs::read_to_string(module).unwrap();
    let text = text.replace("networking.useNetworkd", "networking.useNetwrokd");
    let text = text.replace("system.etc.overlay.mutable = false", "system.etc.overlay.mutable = \"no\"");
    // Beside the others, as it imports and reads them by their place.
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let from = tree::top();
    for part in ["Cargo.toml", "units", "image"] {
        spawn::run(spawn::command("cp").arg("-r").arg(from.join(part)).arg(folder.path())).unwrap();
    }
    let broken = image.join("nixos/broken.nix");
    std::fs::write(&broken, text).unwrap();
    assert_eq!(
        findings(&broken),
        [
            "networking.useNetwrokd: nixpkgs has no such option",
            "system.etc.overlay.mutable: wants bool and is given string"
        ]
    );
}

#[test]
fn every_unit_that_the_package_starts_is_started_on_nixos() {
    let wired = evaluated(
        "(import ./module.nix { lib = { mkIf = _: set: set; mkDefault = one: one; mkOption = _: { }; \
         mkEnableOption = _: { }; literalExpression = text: text; types = { bool = 0; package = 0; }; \
         mapAttrs = builtins.mapAttrs; filterAttrs = keep: set: builtins.listToAttrs (map (name: { inherit name; \
         value = set.${name}; }) (builtins.filter (name: keep name set.${name}) (builtins.attrNames set))); }; \
         pkgs = { }; config.services.berth = { enable = true; package = { }; openFirewall = true; }; \
         }).config.systemd.services",
    );
    let preset = std::fs::read_to_string(tree::top().join("units/system-preset/90-berth.preset")).unwrap();
    for line in preset.lines().filter_map(|line| line.strip_prefix("enable ")) {
        let name = line.strip_suffix(".service").unwrap();
        assert_eq!(wired[name]["wantedBy"], serde_json::json!(["multi-user.target"]), "{line}");
    }
}

#[test]
fn the_lock_pins_the_one_input_by_its_content() {
    let text = std::fs::read_to_string(tree::top().join("flake.lock")).unwrap();
    let lock: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(lock["version"], 7);
    assert_eq!(lock["nodes"]["root"]["inputs"], serde_json::json!({"nixpkgs": "nixpkgs"}));
    let pinned = &lock["nodes"]["nixpkgs"]["locked"];
    let revision = pinned["rev"].as_str().unwrap();
    assert!(revision.len() == 40 && revision.bytes().all(|digit| digit.is_ascii_hexdigit()), "{revision}");
    let hash = pinned["narHash"].as_str().unwrap().strip_prefix("sha256-").unwrap();
    assert!(hash.len() == 44 && hash.ends_with('='), "{hash}");
}
