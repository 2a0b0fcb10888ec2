//! What needs the booted machine: Berth as its users meet it, through the command line, systemd and the network.
//!
//! Suites that leave the machine as it was share one (`shared`) and run side by side in it, each with services of its
//! own name; there is one such machine for each [`Place`]. Those that stop the supervisor, or compare with a baseline,
//! take turns in another (`disturbed`). What reboots or pulls the plug takes a machine of its own (`own`). All wake
//! from the same saved state.

mod accounts;
mod appliance;
mod certificates;
mod change;
mod changes;
mod cleanup;
mod clients;
mod confine;
mod crowd;
mod databases;
mod diagnostics;
mod endings;
mod exec;
mod faults;
mod full;
mod harness;
mod held;
mod kubectl;
mod machine;
mod namespaces;
mod neighbours;
mod network;
mod package;
mod projections;
mod refused;
mod schedules;
mod service;
mod session;
mod soak;
mod steps;
mod supervisor;
mod volumes;

use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_tests::channel::Output;
use berth_tests::guest::Flavor;
use berth_tests::machine::{Machine, Plan};
use berth_tests::saved::{Parts, REGISTRY};
use berth_tests::{http, pace};
use serde_json::Value;

/// Ports of the machine that tests publish services on; one each.
const PUBLISHED: [u16; 7] = [8081, 8082, 8083, 8084, 8086, 8087, 8088];

/// Between two looks at what comes about by itself.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What keeps one processor of the host busy: a machine that works alone, or two tests in a shared one.
const WHOLE: u32 = 2;
const PLACES: usize = 2;
static FREE: Mutex<Free> = Mutex::new(Free { parts: [WHOLE; PLACES], wanted_whole: 0 });
static GIVEN_BACK: Condvar = Condvar::new();
static ONE_DISTURBS: Mutex<()> = Mutex::new(());
static PARTS: LazyLock<Parts> = LazyLock::new(|| Parts::build(Flavor::Test).unwrap());
static SHARED: [LazyLock<Machine>; PLACES] = [LazyLock::new(|| to_share("a")), LazyLock::new(|| to_share("b"))];

fn to_share(name: &str) -> Machine {
    let machine = PARTS.ready(&plan(&format!("shared-{name}"))).unwrap();
    eprintln!("the console of shared machine {name}: {}", machine.home().join("console.log").display());
    machine
}

static DISTURBED: LazyLock<Machine> = LazyLock::new(|| {
    let machine = PARTS.ready(&plan("disturbed")).unwrap();
    eprintln!("the disturbed machine's console: {}", machine.home().join("console.log").display());
    warm_up(&machine);
    machine
});

/// One processor: two machines with two each, on two, spend half of their time waiting for themselves.
fn plan(name: &str) -> Plan {
    Plan { forwards: PUBLISHED.to_vec(), cpus: 1, ..Plan::new(name) }
}

/// Who wants a whole one comes first: such tests are the longest, and fill no gap that others leave.
struct Free {
    parts: [u32; PLACES],
    /// How many wait for a whole one.
    wanted_whole: usize,
}

impl Free {
    fn find(&self, taken: u32, these: &impl Fn(usize) -> bool) -> Option<usize> {
        let fits = (0..PLACES).filter(|at| these(*at) && self.parts[*at] >= taken);
        fits.filter(|_| taken == WHOLE || self.wanted_whole == 0).min_by_key(|at| self.parts[*at])
    }
}

/// A part of a processor of the host, given back when it is dropped.
struct Place {
    number: usize,
    taken: u32,
}

impl Place {
    /// Waits for a processor that nothing else keeps busy.
    fn whole() -> Place {
        Self::of(WHOLE, |_| true)
    }

    /// Waits for half of one of `these`, rather of one that is busy anyway.
    fn half(these: impl Fn(usize) -> bool) -> Place {
        Self::of(WHOLE / 2, these)
    }

    fn of(taken: u32, these: impl Fn(usize) -> bool) -> Place {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = usize::from(taken == WHOLE);
        free.wanted_whole += whole;
        loop {
            if let Some(number) = free.find(taken, &these) {
                free.parts[number] -= taken;
                free.wanted_whole -= whole;
                GIVEN_BACK.notify_all();
                return Place { number, taken };
            }
            free = GIVEN_BACK.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).parts[self.number] += self.taken;
        GIVEN_BACK.notify_all();
    }
}

fn shared() -> (Place, &'static Machine) {
    let place = Place::half(|_| true);
    let machine = &SHARED[place.number];
    (place, machine)
}

/// The first of the shared machines, for tests that have more in common than a machine.
fn first_shared() -> (Place, &'static Machine) {
    (Place::half(|at| at == 0), &SHARED[0])
}

/// Alone with a machine on which all images lie and no service is installed; it is to be left so.
fn disturbed() -> ((Place, MutexGuard<'static, ()>), &'static Machine) {
    let one = ONE_DISTURBS.lock().unwrap_or_else(PoisonError::into_inner);
    let alone = (Place::whole(), one);
    // What a test that failed has left is not the next one's to suffer from.
    let left = DISTURBED.ok("berth get bundles -o json | jq -r '.items[].metadata.name'").unwrap();
    uninstall_all(&DISTURBED, left.lines());
    let units = "systemctl list-units --all --plain --no-legend 'berth.*.service'";
    eventually(&String::new(), || DISTURBED.ok(units).unwrap());
    (alone, &DISTURBED)
}

/// Images stay for the next service, as does the empty table of rules: they belong to the baseline.
fn warm_up(machine: &Machine) {
    for image in ["testbox:latest", "nginx:1", "nginx:2"] {
        install(machine, "warm", &format!("127.0.0.1:{REGISTRY}/{image}"));
        uninstall(machine, "warm");
    }
}

fn own(name: &str) -> (Machine, Place) {
    let place = Place::whole();
    (PARTS.ready(&Plan { durable: true, ..plan(name) }).unwrap(), place)
}

/// Installs a service and waits until it is ready.
fn install(machine: &Machine, name: &str, more: &str) {
    machine.ok(&format!("berth install --name {name} --timeout 10m {more}")).unwrap();
}

fn uninstall(machine: &Machine, name: &str) {
    machine.ok(&format!("berth uninstall {name} --timeout 10m")).unwrap();
}

/// So many at a time that no command takes too long.
fn uninstall_all<'n>(machine: &Machine, names: impl IntoIterator<Item = &'n str>) {
    let names: Vec<&str> = names.into_iter().collect();
    names.chunks(20).for_each(|some| uninstall(machine, &some.join(" ")));
}

/// Runs the command line and expects it to refuse: what it said, exit code and all.
fn refused(machine: &Machine, line: &str) -> String {
    let out: Output = machine.sh(&format!("berth {line}")).unwrap();
    assert_ne!(out.code(), 0, "`berth {line}` should have failed and said: {}", out.text());
    out.text() + &out.errors()
}

/// The bundle as the API has it.
fn bundle(machine: &Machine, name: &str) -> Value {
    serde_json::from_str(&machine.ok(&format!("berth get bundle {name} -o json")).unwrap()).unwrap()
}

/// Status and reason of its `Ready` condition, as `True StartCompleted`; what the command line said where it could not
/// tell, as after a boot.
fn ready(machine: &Machine, name: &str) -> String {
    let answer: Output = machine.sh(&format!("berth get bundle {name} -o json")).unwrap();
    let Ok(bundle) = serde_json::from_str::<Value>(&answer.text()) else { return answer.errors() };
    let conditions = bundle["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default();
    format!("{} {}", ready["status"].as_str().unwrap_or("-"), ready["reason"].as_str().unwrap_or("-"))
}

/// The unit that serves it now.
fn unit(machine: &Machine, name: &str) -> String {
    bundle(machine, name)["status"]["unit"].as_str().unwrap().to_owned()
}

fn property(machine: &Machine, unit: &str, name: &str) -> String {
    machine.ok(&format!("systemctl show --property {name} --value {unit}")).unwrap()
}

/// What the machine answers on that published port, from outside it.
fn page(machine: &Machine, port: u16) -> String {
    match http::get(machine.forwarded(port), "/", pace::boots(1.0)) {
        Ok((200, page)) => page.trim().to_owned(),
        Ok((code, page)) => format!("{code} {page}"),
        Err(err) => err.to_string(),
    }
}

/// Looks again until it holds; what was seen last where it never does. Less and less often: each look takes the machine's
/// one processor from what is waited for.
#[track_caller]
fn eventually<T: PartialEq + std::fmt::Debug>(wanted: &T, mut look: impl FnMut() -> T) {
    let until = Instant::now() + pace::boots(4.0);
    let mut pause = FIRST_PAUSE;
    let mut seen = look();
    while seen != *wanted && Instant::now() < until {
        breathe(pause);
        pause = LONGEST_PAUSE.min(pause * 3 / 2);
        seen = look();
    }
    assert_eq!(seen, *wanted);
}

/// Everything, and with its full count.
fn is_long() -> bool {
    std::env::var_os("BERTH_LONG").is_some()
}

#[allow(
    clippy::disallowed_methods,
    reason = "what the guest's systemd or kernel does by itself reaches us as no event"
)]
fn breathe(pause: Duration) {
    std::thread::sleep(pause);
}

/// What Berth and the kernel hold for services: compared before and after, so that nothing is left behind.
fn holdings(machine: &Machine) -> String {
    let look = "find /run/berth/plan /run/berth/provided /run/berth/last /run/berth/container /var/lib/berth/images | sort; \
                ip -brief link | cut -d' ' -f1 | cut -d@ -f1 | sort; nft --stateless list ruleset; cat /proc/self/mounts; \
                systemctl list-units --all --plain --no-legend 'berth.*.service' | cut -d' ' -f1 | sort; \
                find /sys/fs/cgroup/berth.slice -name '*.service'; \
                ps -e -o uid=,args= | awk '$1 >= 65536 || /[b]erth-run/' | sort";
    machine.ok(look).unwrap()
}

/// Looks until the machine holds what it held before, and tells a difference line by line.
#[track_caller]
fn nothing_is_left(machine: &Machine, before: &str) {
    let before: Vec<&str> = before.lines().collect();
    eventually(&Vec::<String>::new(), || {
        let now = holdings(machine);
        let now: Vec<&str> = now.lines().collect();
        let more = now.iter().filter(|line| !before.contains(line)).map(|line| format!("more: {line}"));
        let less = before.iter().filter(|line| !now.contains(line)).map(|line| format!("less: {line}"));
        more.chain(less).collect()
    });
}
