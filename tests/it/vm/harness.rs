//! What the machines of these suites can do themselves, and the suites of other crates that need one.

use std::path::PathBuf;
use std::time::SystemTime;

use berth_tests::machine::{Disk, Link, Machine, Plan};
use berth_tests::{spawn, tree};

use super::{PARTS, Place, disturbed, eventually, install, page, plan, property, shared, unit};

/// One test, as each machine that differs from the saved one has to boot.
#[test]
#[ignore = "long tier"]
fn a_neighbour_on_a_private_link_is_served_and_a_spare_disk_keeps_what_was_flushed_when_the_power_is_cut() {
    let _alone = Place::whole();
    let network = Link::network().unwrap();
    let mut with_more = Plan { link: Some(Link { network, number: 1 }), ..plan("server") };
    with_more.disks = vec![Disk::blank("spare", 1)];
    let mut server = PARTS.fresh(&with_more).unwrap();
    let neighbour = Plan { link: Some(Link { network, number: 2 }), ..plan("neighbour") };
    let neighbour = neighbour.boot(&PARTS.guest, None).unwrap();

    install(&server, "web", "127.0.0.1:5000/nginx:1 --publish 8081:80");
    let fetch = "curl --silent --show-error --retry 30 --retry-all-errors http://10.99.0.1:8081/";
    assert_eq!(neighbour.ok(fetch).unwrap(), page(&server, 8081));
    let name = server.ok("hostname").unwrap();
    eventually(&"10.99.0.1".to_owned(), || by_multicast(&neighbour, "", "10.99.0.2", &name));
    // Services are no neighbours: one that asks in the same way, from its own network, hears nothing.
    let within = format!("nsenter --net --target {}", property(&server, &unit(&server, "web"), "MainPID"));
    let own = server.ok(&format!("{within} ip -4 -o address show dev eth0")).unwrap();
    let own = own.split_whitespace().nth(3).and_then(|shown| shown.split('/').next()).unwrap();
    assert_eq!(by_multicast(&server, &within, own, &name), "", "{own} hears of the machine");

    let told = |told: bool| {
        let settings = format!(
            "{{apiVersion: berth.dev/v1, kind: Settings, metadata: {{name: berth}}, \
             spec: {{network: {{multicastDns: {told}}}}}}}"
        );
        server.ok(&format!("printf '%s' '{settings}' | berth apply -f -")).unwrap();
    };
    told(false);
    eventually(&String::new(), || by_multicast(&neighbour, "", "10.99.0.2", &name));
    told(true);
    eventually(&"10.99.0.1".to_owned(), || by_multicast(&neighbour, "", "10.99.0.2", &name));
    neighbour.remove().unwrap();

    let device = "/dev/disk/by-id/virtio-spare";
    server
        .ok(&format!("mkfs.xfs -q {device} && mount {device} /mnt && echo kept >/mnt/file && sync /mnt/file"))
        .unwrap();
    server.pull_the_plug().unwrap();
    server.power_on().unwrap();
    assert_eq!(server.ok(&format!("mount {device} /mnt && cat /mnt/file")).unwrap(), "kept");
    server.remove().unwrap();
}

/// The addresses that somebody on the link answers with to a question for `<name>.local`, asked by a program that is run
/// by `within`.
fn by_multicast(asker: &Machine, within: &str, from: &str, name: &str) -> String {
    let mut question = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [name, "local", ""] {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.bytes());
    }
    question.extend(ADDRESS);
    let question: String = question.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let to = format!("UDP4-DATAGRAM:224.0.0.251:5353,ip-multicast-if={from}");
    let (ask, kept) = (format!("printf '{question}' | {within} socat -t 5 - {to}"), "/run/answer-by-multicast");
    let answer = asker.ok(&format!("{ask} >{kept} && od -An -v -tu1 {kept}")).unwrap();
    let answer: Vec<u8> = answer.split_whitespace().map(|byte| byte.parse().unwrap()).collect();
    // Type, class, four bytes of time, the length of an address, and the address.
    let records = answer.windows(14).filter(|record| record.starts_with(&ADDRESS) && record[8..10] == [0, 4]);
    records
        .map(|record| record[10..].iter().map(u8::to_string).collect::<Vec<_>>().join("."))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Type A, class IN, as questions and answers have it.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

#[test]
fn the_tests_that_need_systemd_pass_in_the_machine() {
    // Alone: they take the bus away from everybody.
    let (_alone, machine) = disturbed();
    run_inside(machine, "vm-", "");
}

#[test]
fn the_tests_that_need_encrypted_disks_pass_in_the_machine() {
    let (_lock, machine) = shared();
    run_inside(machine, "disks-", "");
}

#[test]
fn the_tests_that_need_network_namespaces_pass_in_the_machine() {
    let (_lock, machine) = shared();
    run_inside(machine, "berth_host-", "netns_");
}

/// Runs the newest of another crate's test programs of that name in the machine.
fn run_inside(machine: &Machine, prefix: &str, filter: &str) {
    let lean = tempfile::NamedTempFile::new().unwrap();
    let program = newest(prefix);
    spawn::run(spawn::command("strip").arg("-o").arg(lean.path()).arg(&program)).unwrap();
    let inside = format!("/run/{}", program.file_name().unwrap().display());
    machine.put(&inside, &std::fs::read(lean.path()).unwrap(), 0o755).unwrap();
    let out = machine.sh(&format!("{inside} {filter}; code=$?; rm {inside}; exit $code")).unwrap();
    let said = out.text() + &out.errors();
    assert!(out.success(), "{said}");
    assert!(!said.contains("skipped") && !said.contains("ok. 0 passed"), "nothing was tested: {said}");
}

/// Cargo leaves those of earlier builds beside it.
fn newest(prefix: &str) -> PathBuf {
    let folder = tree::programs().unwrap().join("deps");
    let built = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let programs = built.filter(|path| {
        path.extension().is_none() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    });
    let age =
        |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    programs.max_by_key(age).unwrap_or_else(|| panic!("no {prefix}* in {}: build the tests first", folder.display()))
}
