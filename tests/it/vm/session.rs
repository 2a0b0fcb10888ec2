//! Commands in services, as people and programs run them: `berth exec` (exec.rs compares their confinement).

use berth_tests::machine::Machine;

use super::{REGISTRY, bundle, eventually, install, property, refused, shared, uninstall, unit};

fn sleeper(machine: &Machine, name: &str) {
    install(
        machine,
        name,
        &format!("127.0.0.1:{REGISTRY}/testbox:latest --set 'command=[\"/usr/bin/sleep\",\"1000000\"]'"),
    );
}

/// What a line of the guest's shell said and how it ended, on one line.
fn said(machine: &Machine, line: &str) -> String {
    let out = machine.sh(line).unwrap();
    format!("{} [{}] {}", out.text().trim(), out.errors().trim(), out.code())
}

/// Processes in the container beside its first one and its program.
fn strangers(machine: &Machine, unit: &str) -> usize {
    let group = property(machine, unit, "ControlGroup");
    machine.ok(&format!("wc -l </sys/fs/cgroup{group}/payload/cgroup.procs")).unwrap().parse::<usize>().unwrap() - 2
}

#[test]
fn streams_and_the_exit_code_are_the_commands() {
    let (_lock, machine) = shared();
    sleeper(machine, "shell");
    assert_eq!(said(machine, "berth exec shell -- echo hello"), "hello [] 0");
    assert_eq!(said(machine, "berth exec shell -- sh -c 'echo out; echo err >&2; exit 7'"), "out [err] 7");
    assert_eq!(said(machine, "berth exec shell -- sh -c 'kill -KILL $$'"), " [] 137");
    assert_eq!(said(machine, "echo in | berth exec -i shell -- cat"), "in [] 0");
    assert_eq!(said(machine, "echo in | berth exec shell -- cat"), " [] 0");
    assert_eq!(said(machine, "berth exec -u 33 shell -- id -u"), "33 [] 0");
    let missing = said(machine, "berth exec shell -- no-such-program");
    assert!(missing.contains("no-such-program: no such program") && missing.ends_with(" 127"), "{missing}");

    // More than all buffers on the way hold, in both directions at once.
    let sum = "head -c 8000000 /dev/zero | tr '\\0' x | md5sum";
    let there_and_back = "head -c 8000000 /dev/zero | tr '\\0' x | berth exec -i shell -- cat | md5sum";
    assert_eq!(machine.ok(there_and_back).unwrap(), machine.ok(sum).unwrap());

    assert!(refused(machine, "exec nobody -- true").contains("there is no bundle default/nobody"));
    machine.ok("berth stop shell --timeout 10m").unwrap();
    assert!(refused(machine, "exec shell -- true").contains("is not running"));
    uninstall(machine, "shell");
}

#[test]
#[ignore = "long tier"]
fn with_a_terminal_the_command_has_one_of_the_containers_own() {
    let (_lock, machine) = shared();
    sleeper(machine, "seat");
    // `script` gives `berth` a terminal of 33 rows and 99 columns.
    let line = "script -qec 'stty rows 33 cols 99; berth exec -it seat -- sh -c \"tty; stty size; exit 4\"' /dev/null </dev/null; echo \"code $?\"";
    let said = machine.ok(line).unwrap();
    assert!(said.contains("/dev/pts/0") && said.contains("33 99") && said.contains("code 4"), "{said}");
    assert!(refused(machine, "exec -t seat -- true </dev/null").contains("-t needs a terminal"));
    uninstall(machine, "seat");
}

#[test]
fn a_session_that_ends_leaves_nothing_whoever_ends_it() {
    let (_lock, machine) = shared();
    sleeper(machine, "clean");
    let unit = unit(machine, "clean");
    let main = property(machine, &unit, "MainPID");
    let begin = "(berth exec clean -- sh -c 'sleep 7777; true' >/dev/null 2>&1 & echo $! >/run/client.pid)";

    // The client dies.
    machine.ok(begin).unwrap();
    eventually(&2, || strangers(machine, &unit));
    machine.ok("kill -KILL $(cat /run/client.pid)").unwrap();
    eventually(&0, || strangers(machine, &unit));

    // The helper dies: the command is its child.
    machine.ok("(berth exec clean -- sleep 6666 >/dev/null 2>&1 &) ; true").unwrap();
    eventually(&1, || strangers(machine, &unit));
    machine.ok("kill -KILL $(ps -o ppid= --pid $(pgrep -x -f 'sleep 6666'))").unwrap();
    eventually(&0, || strangers(machine, &unit));

    // The service ends.
    machine.ok("(berth exec clean -- sleep 8888; echo \"code $?\") >/run/told 2>&1 & true").unwrap();
    eventually(&1, || strangers(machine, &unit));
    assert_eq!(property(machine, &unit, "MainPID"), main);
    machine.ok("berth stop clean --timeout 10m").unwrap();
    eventually(&true, || machine.ok("cat /run/told").unwrap().contains("code 137"));
    eventually(&String::new(), || {
        machine.ok("systemctl list-units --failed --plain --no-legend 'berth-exec@*'").unwrap()
    });
    uninstall(machine, "clean");
}

#[test]
#[ignore = "long tier"]
fn what_is_run_is_in_no_argument_list_of_the_machine_and_not_in_the_journal() {
    let (_lock, machine) = shared();
    sleeper(machine, "secretive");
    let unit = unit(machine, "secretive");
    // The client's own arguments hold it, so it asks through the API by a file.
    let word = "xyzzy-4711";
    let ask = format!(
        "printf 'url = \"http://x/apis/berth.dev/v1/namespaces/default/bundles/secretive/exec?command=sh&command=-c&command=read%%20x;%%20true&command={word}&stdin=true&stdout=true\"\\n' >/run/ask; \
         (curl -s --max-time 60 --unix-socket /run/berth/api.sock -K /run/ask -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
         -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' -H 'Sec-WebSocket-Protocol: v5.channel.k8s.io' --http1.1 -o /dev/null >/dev/null 2>&1 & echo $! >/run/asker.pid)"
    );
    machine.ok(&ask).unwrap();
    eventually(&1, || strangers(machine, &unit));
    let outside = "for p in /proc/[0-9]*; do case $(readlink $p/ns/pid) in \"$(readlink /proc/1/ns/pid)\") tr '\\0' ' ' <$p/cmdline;; esac; done | grep -c '[x]yzzy-4711'; true";
    assert_eq!(machine.ok(outside).unwrap(), "0");
    assert_eq!(machine.ok(&format!("systemctl show 'berth-exec@*' | grep -c {word}; true")).unwrap(), "0");
    assert_eq!(
        machine.ok(&format!("journalctl --no-pager -b -u berthd -u 'berth-exec@*' | grep -c {word}; true")).unwrap(),
        "0"
    );
    assert!(machine.ok("journalctl --no-pager -b -u berthd").unwrap().contains("exec"), "who ran a command is told");
    machine.ok("kill $(cat /run/asker.pid); rm -f /run/ask").unwrap();
    eventually(&0, || strangers(machine, &unit));
    assert_eq!(bundle(machine, "secretive")["status"]["restarts"], 0);
    uninstall(machine, "secretive");
}
