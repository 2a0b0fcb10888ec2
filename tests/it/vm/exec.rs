//! The way into a container: a command run there is confined exactly as the container's first process is.

use std::collections::BTreeSet;

use berth_tests::machine::Machine;
use berth_tests::pace;
use nix::sys::signal::Signal;

use super::{eventually, install, property, shared, uninstall, unit};

const NGINX: &str = "127.0.0.1:5000/nginx:1";
const TESTBOX: &str = "127.0.0.1:5000/testbox:latest";

/// All that the kernel says of a process's confinement, one fact per line. The signals that it catches are left out:
/// each program has its own.
const FACTS: &str = r#"
    facts() {
        for name in /proc/$1/ns/*; do echo "${name##*/} $(readlink $name)"; done
        for name in cgroup uid_map gid_map setgroups oom_score_adj attr/current limits root; do
            [ -d /proc/$1/$name ] && readlink /proc/$1/$name || sed "s|^|$name |" /proc/$1/$name 2>/dev/null
        done
        grep -E '^(Uid|Gid|Groups|Umask|Cap|NoNewPrivs|Seccomp|SigBlk|SigIgn|Speculation|Cpus_allowed|Mems_allowed)' /proc/$1/status
    }"#;

/// Doors that are shut to a container.
const DENIED: &str = "for door in 'unshare -n true' 'unshare -U true' 'unshare -m true' 'mount -t tmpfs none /tmp' \
                      'hostname other' 'mknod /tmp/node c 1 3' 'dmesg'; do echo DOOR $door: $($door 2>&1); done";

#[test]
#[ignore = "long tier"]
fn a_command_differs_from_the_first_process_in_nothing_but_the_signals_that_nginx_ignores() {
    let (_lock, machine) = shared();
    install(machine, "entered", NGINX);
    let unit = unit(machine, "entered");
    let first = facts(machine, &found(machine, &unit, "nginx"));
    assert!(first.len() >= 48, "too little was looked at: {first:#?}");
    for terminal in ["", "--tty 24x80"] {
        let command = format!("berth-run exec {terminal} default.entered.r1 -- busybox sleep 4242");
        let running = machine.start(&format!("/usr/lib/berth/{command}")).unwrap();
        let entered = facts(machine, &found(machine, &unit, "busybox"));
        let differ: BTreeSet<&str> =
            first.symmetric_difference(&entered).filter_map(|fact| fact.split_whitespace().next()).collect();
        assert_eq!(differ, BTreeSet::from(["SigIgn:"]), "with {terminal:?}");
        running.signal(Signal::SIGTERM).unwrap();
        running.finish(pace::boots(4.0)).unwrap();
    }
    uninstall(machine, "entered");
}

fn facts(machine: &Machine, pid: &str) -> BTreeSet<String> {
    machine.ok(&format!("{FACTS}\nfacts {pid}")).unwrap().lines().map(str::to_owned).collect()
}

/// The container root's process of that name in the unit's payload, as soon as it is there.
fn found(machine: &Machine, unit: &str, name: &str) -> String {
    let (group, main) = (property(machine, unit, "ControlGroup"), property(machine, unit, "MainPID"));
    let look = format!(
        "cd /proc; for pid in $(cat /sys/fs/cgroup{group}/payload/cgroup.procs); do \
         [ $(cat $pid/comm) = {name} ] && [ $(stat -c %u $pid) = $(stat -c %u {main}) ] && echo $pid; done; true"
    );
    eventually(&1, || machine.ok(&look).unwrap().lines().count());
    machine.ok(&look).unwrap()
}

#[test]
fn what_is_denied_to_the_first_process_is_denied_to_a_command_with_the_same_words() {
    let (_lock, machine) = shared();
    let line =
        format!(r#"{TESTBOX} --set "command=$(jq -nc --arg script "$(cat /run/doors.sh)" '["sh", "-c", $script]')""#);
    machine.put("/run/doors.sh", format!("{DENIED}; exec sleep 4242").as_bytes(), 0o644).unwrap();
    install(machine, "denied", &line);
    let said = |text: String| -> Vec<String> {
        text.lines().filter(|line| line.starts_with("DOOR")).map(str::to_owned).collect()
    };
    let first = said(machine.ok("journalctl --no-pager --output=cat BERTH_BUNDLE=denied").unwrap());
    assert_eq!(first.len(), 7, "{first:?}");
    for door in &first {
        assert!(
            door.to_lowercase().contains("not permitted") || door.contains("ermission denied"),
            "a door is open: {door}"
        );
    }
    machine.put("/run/doors.sh", DENIED.as_bytes(), 0o644).unwrap();
    let entered =
        machine.ok("/usr/lib/berth/berth-run exec default.denied.r1 -- sh -c \"$(cat /run/doors.sh)\"").unwrap();
    assert_eq!(said(entered), first);
    uninstall(machine, "denied");
}

#[test]
#[ignore = "long tier"]
fn a_commands_end_is_told_as_a_shell_tells_it_also_when_the_service_is_stopped() {
    let (_lock, machine) = shared();
    install(machine, "codes", NGINX);
    let rows = [
        ("an exit code", "sh -c 'exit 7'", 7),
        ("a signal", "sh -c 'kill -9 $$'", 137),
        ("a file that is no program", "/etc/passwd", 126),
        ("a program that is not there", "/no/such", 127),
    ];
    for (what, command, code) in rows {
        let out = machine.sh(&format!("/usr/lib/berth/berth-run exec default.codes.r1 -- {command}")).unwrap();
        assert_eq!(out.code(), code, "{what}: {}", out.errors());
    }
    let who = machine.ok("/usr/lib/berth/berth-run exec --user www-data default.codes.r1 -- id -u").unwrap();
    assert_eq!(who, "33");

    let running = machine.start("/usr/lib/berth/berth-run exec default.codes.r1 -- busybox sleep 4242").unwrap();
    let unit = unit(machine, "codes");
    found(machine, &unit, "busybox");
    machine.ok(&format!("systemctl stop {unit}")).unwrap();
    assert_eq!(running.finish(pace::boots(4.0)).unwrap().code(), 137);
    uninstall(machine, "codes");
}
