//! What the tests of several modules need: a plan, and comparison with golden files.

use std::path::PathBuf;

use berth_model::plan::{IdRange, InterfaceAddress, Network, PLAN_VERSION, Plan, Process, Root, Security, SystemCalls};
use serde_json::Value;

/// A plan like that of a web server in the default namespace.
pub fn plan() -> Plan {
    let address = |text: &str, prefix| InterfaceAddress { address: text.parse().unwrap(), prefix };
    Plan {
        version: PLAN_VERSION,
        id: "default.web.r7".to_owned(),
        hostname: "web".to_owned(),
        root: Root {
            store: "/var/lib/berth/images/layers".into(),
            layers: vec!["sha256-top".to_owned(), "sha256-base".to_owned()],
            writable_bytes: 64 << 20,
            writable_device: None,
            read_only: false,
        },
        ids: IdRange { base: 200_000, size: 65536 },
        network: Some(Network {
            bridge: "berth0".to_owned(),
            host_link: "bv-web-7".to_owned(),
            addresses: vec![address("10.213.0.5", 24), address("fd00:213::5", 64)],
            gateways: vec!["10.213.0.1".parse().unwrap(), "fd00:213::1".parse().unwrap()],
            nameservers: vec!["10.213.0.1".parse().unwrap()],
        }),
        volumes: Vec::new(),
        process: Process {
            args: ["nginx", "-g", "daemon off;"].map(str::to_owned).to_vec(),
            env: vec!["LANG=C.UTF-8".to_owned()],
            cwd: "/srv".to_owned(),
            user: String::new(),
        },
        security: Security {
            capabilities: ["CAP_CHOWN", "CAP_SETUID"].map(str::to_owned).to_vec(),
            devices: vec![],
            system_calls: SystemCalls::default(),
        },
        provided: false,
    }
}

/// Compares with `golden/<name>`; with `BERTH_BLESS` set, writes it instead.
pub fn golden(name: &str, value: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    if std::env::var_os("BERTH_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = text.lines().zip(expected.lines()).find(|(new, old)| new != old);
    assert!(
        text == expected,
        "{} differs first at {differing:?}; if that is meant: BERTH_BLESS=1 cargo test -p berth-run",
        path.display()
    );
}
