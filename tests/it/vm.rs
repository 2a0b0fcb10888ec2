//! What a user of a booted machine sees.
//!
//! The suites share one machine where they leave each other alone: every test has a namespace and ports of its own.
//! What stops the supervisor or the machine itself has machines of its own ([`own`]).

mod faults;
mod life;
mod limits;
mod reboot;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use berth_tests::channel::Output;
use berth_tests::guest::Flavor;
use berth_tests::machine::{Machine, Plan};
use berth_tests::saved::Parts;
use berth_tests::{http, pace};

/// Ports of a machine that lead to services, one for each test that wants one.
const PORTS: [u16; 6] = [8001, 8002, 8003, 8004, 8005, 8006];

fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| Parts::build(Flavor::Test).unwrap())
}

/// A machine of a test's own.
fn own(name: &str) -> Machine {
    parts().ready(&Plan { forwards: PORTS.to_vec(), ..Plan::new(name) }).unwrap()
}

/// The machine that tests share.
fn shared() -> &'static Machine {
    static SHARED: OnceLock<Machine> = OnceLock::new();
    SHARED.get_or_init(|| own("shared"))
}

/// Runs `berth` with these words.
fn berth(machine: &Machine, words: &str) -> Output {
    machine.sh(&format!("berth {words}")).unwrap()
}

/// Makes a namespace.
fn namespace(machine: &Machine, name: &str) {
    let manifest = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
    machine.ok(&format!("echo '{manifest}' | berth apply -f -")).unwrap();
}

/// Installs an image of the guest's registry and waits until it is ready.
fn install(machine: &Machine, namespace: &str, name: &str, image: &str, more: &str) {
    let words = format!("install 127.0.0.1:5000/{image} --name {name} -n {namespace} --timeout 5m {more}");
    let out = berth(machine, &words);
    assert!(out.success(), "berth {words}\n{}{}", out.text(), out.errors());
}

/// Waits until a shell condition holds in the guest.
fn until(machine: &Machine, condition: &str) {
    let seconds = pace::boots(3.0).as_secs();
    let line = format!("timeout {seconds} sh -c 'until {condition}; do sleep 0.2; done'");
    let state = "berth get bundles -A -o yaml; berth events -A; journalctl --no-pager -n 40";
    let out = machine.sh(&line).unwrap();
    assert!(out.success(), "never came true: {condition}\n{}", machine.sh(state).unwrap().text());
}

/// Condition that a bundle's `Ready` has this status and reason.
fn ready(namespace: &str, name: &str, status: &str, reason: &str) -> String {
    format!(
        "berth get bundle {name} -n {namespace} -o json | jq -e \
         \".status.conditions[] | select(.type == \\\"Ready\\\" and .status == \\\"{status}\\\" and .reason == \\\"{reason}\\\")\" >/dev/null"
    )
}

/// Fetches a page until `stop` is set; the number of answers and what went wrong.
fn visit(port: u16, stop: &AtomicBool) -> (u32, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        match http::get(port, "/", pace::boots(1.0)) {
            Ok((200, _)) => good += 1,
            Ok((code, page)) => bad.push(format!("{:?}: {code} {page}", began.elapsed())),
            Err(error) => bad.push(format!("{:?}: {error}", began.elapsed())),
        }
    }
    (good, bad)
}

/// Runs `work` while a client visits the page; no visit may fail.
fn served_throughout(port: u16, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let (good, bad) = std::thread::scope(|scope| {
        let visits = scope.spawn(|| visit(port, &stop));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        let seen = visits.join().unwrap();
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
        seen
    });
    assert!(good > 0, "the page was never fetched");
    assert_eq!(bad, Vec::<String>::new(), "{good} visits went well");
}

/// What is on a machine beside its services: the same before and after means that nothing leaked.
fn baseline(machine: &Machine) -> String {
    machine
        .ok("ip -br link | awk '{print $1}' | sort; \
             ls /run/berth/plan /run/berth/last /run/berth/container 2>/dev/null; \
             ls /var/lib/berth/images/unpacking 2>/dev/null; \
             find /var/lib/berth -name '*.tmp'; \
             systemctl list-units --all --plain --no-legend 'berth.*.service' | awk '{print $1}'; \
             findmnt -rn -o TARGET | grep berth; \
             lsns -rn -t net -o NS | wc -l")
        .unwrap()
}
