//! Services come, change, are used and go at random, for as long as one likes: at every moment there is what a model says,
//! and in the end the supervisor is as large as it was when it had settled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_tests::machine::Machine;

use super::{disturbed, eventually, holdings, nothing_is_left, ready, uninstall};

/// Minutes, if `BERTH_SOAK` does not say how many.
const MINUTES: u64 = 5;
/// Names of services.
const NAMES: [&str; 5] = ["soak-a", "soak-b", "soak-c", "soak-d", "soak-e"];
/// The first part of the time is for caches, pools and tables to get as large as they get: then it has settled.
const SETTLING: u32 = 4;

/// Bytes by which the supervisor's memory may grow: what an allocator does not give back at once.
const MEMORY: u64 = 24 << 20;
/// Descriptors and threads that may be there by chance when it is looked at, as of a connection that is being closed.
const BY_CHANCE: u64 = 3;
/// The database keeps that many of the newest versions for who watches, so many bytes each at most, and finished
/// operations and events for days. It grows by what is written, and by nothing else.
const VERSIONS: u64 = 20_000;
const PER_VERSION: u64 = 16 << 10;
const DATABASE: u64 = 4 << 20;

/// What is there: services, and the mark that each was given last.
type Model = BTreeMap<&'static str, u64>;

/// Draws by a seed (splitmix64, Steele et al. 2014).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// How large the supervisor is.
#[derive(Clone, Copy, Debug)]
struct Size {
    memory: u64,
    descriptors: u64,
    threads: u64,
    database: u64,
    version: u64,
}

impl Size {
    fn of(machine: &Machine) -> Self {
        let look = "pid=$(systemctl show --property MainPID --value berthd); \
                    awk '/^VmRSS/ {print $2 * 1024}' /proc/$pid/status; ls /proc/$pid/fd | wc -l; \
                    awk '/^Threads/ {print $2}' /proc/$pid/status; \
                    stat --format %s /var/lib/berth/berth.db* | awk '{sum += $1} END {print sum}'; \
                    curl -s --unix-socket /run/berth/api.sock http://localhost/apis/berth.dev/v1/bundles \
                    | jq -r .metadata.resourceVersion";
        let told = machine.ok(look).unwrap();
        let numbers: Vec<u64> = told.lines().map(|line| line.trim().parse().unwrap()).collect();
        let [memory, descriptors, threads, database, version] = numbers.try_into().unwrap();
        Self { memory, descriptors, threads, database, version }
    }

    /// By what it has outgrown another, a line each.
    fn beyond(&self, settled: &Self) -> Vec<String> {
        let versions = (self.version - settled.version).min(VERSIONS);
        let pairs = [
            ("bytes of memory", self.memory, settled.memory + MEMORY),
            ("descriptors", self.descriptors, settled.descriptors + BY_CHANCE),
            ("threads", self.threads, settled.threads + BY_CHANCE),
            ("bytes of database", self.database, settled.database + DATABASE + versions * PER_VERSION),
        ];
        let too_much = pairs.into_iter().filter(|(_, now, allowed)| now > allowed);
        too_much.map(|(what, now, allowed)| format!("{now} {what}, and {allowed} are allowed")).collect()
    }
}

/// The service as a file: it says its mark once, and then sleeps.
fn written(machine: &Machine, name: &str, mark: u64) {
    let manifest = format!(
        "{{apiVersion: berth.dev/v1, kind: Bundle, metadata: {{name: {name}, namespace: default}}, spec: {{\
         image: '127.0.0.1:5000/testbox:latest', env: [{{name: MARK, value: 'mark-{mark}'}}], \
         command: [/usr/bin/sh, -c, 'echo $MARK; exec sleep 1000000'], resources: {{memory: 32Mi}}}}}}"
    );
    machine.put("/run/soak.yaml", manifest.as_bytes(), 0o600).unwrap();
}

/// Does one thing, to the machine and to the model, and looks whether both agree about it.
fn act(machine: &Machine, model: &mut Model, draw: &mut Draw, number: u64) {
    let name = NAMES[draw.below(NAMES.len())];
    let deed = draw.below(5);
    eprintln!("{number}: {name}, {deed}, {:?}", model.get(name));
    match (model.get(name).copied(), deed) {
        (None, _) => {
            written(machine, name, number);
            machine.ok("berth install -f /run/soak.yaml --timeout 10m").unwrap();
            model.insert(name, number);
        }
        (Some(_), 0) => {
            written(machine, name, number);
            machine.ok("berth apply -f /run/soak.yaml --wait --timeout 10m").unwrap();
            model.insert(name, number);
        }
        (Some(_), 1) => {
            uninstall(machine, name);
            model.remove(name);
        }
        (Some(mark), 2) => {
            let said = machine.ok(&format!("berth logs {name} --tail 1")).unwrap();
            assert_eq!(said.trim(), format!("mark-{mark}"), "the last words of {name}");
        }
        (Some(mark), _) => {
            let said = machine.ok(&format!("berth exec {name} -- sh -c 'echo $MARK'")).unwrap();
            assert_eq!(said.trim(), format!("mark-{mark}"), "what {name} runs with");
        }
    }
}

/// Everything that is in the model is there and well, and nothing else is.
fn agree(machine: &Machine, model: &Model) {
    let wanted: Vec<String> = model.iter().map(|(name, mark)| format!("{name} mark-{mark}")).collect();
    let look = ".items[] | .metadata.name + \" \" + .spec.env[0].value";
    eventually(&wanted.join("\n"), || {
        machine.ok(&format!("berth get bundles -o json | jq -r '{look}' | sort")).unwrap()
    });
    for name in model.keys() {
        eventually(&"True StartCompleted".to_owned(), || ready(machine, name));
    }
    let units = "systemctl list-units --plain --no-legend 'berth.default.*.service' | wc -l";
    assert_eq!(machine.ok(units).unwrap(), model.len().to_string(), "units");
}

/// Takes everything away; how large the supervisor is then.
fn emptied(machine: &Machine, model: &mut Model) -> Size {
    agree(machine, model);
    std::mem::take(model).keys().for_each(|name| uninstall(machine, name));
    machine.ok("berth system cleanup").unwrap();
    Size::of(machine)
}

#[test]
#[ignore = "five minutes in the long tier, an hour by `just soak`"]
fn services_come_and_go_at_random_and_the_supervisor_stays_as_large_as_it_is() {
    let (_alone, machine) = disturbed();
    let minutes = std::env::var("BERTH_SOAK").map_or(MINUTES, |minutes| minutes.parse().unwrap());
    let seed = std::env::var("BERTH_SEED").map_or_else(|_| std::process::id().into(), |seed| seed.parse().unwrap());
    eprintln!("{minutes} min; replay with BERTH_SEED={seed}");
    let before = holdings(machine);
    let (whole, began) = (Duration::from_secs(minutes * 60), Instant::now());
    let (mut model, mut draw, mut number, mut settled) = (Model::new(), Draw(seed), 0, None);
    while began.elapsed() < whole {
        if settled.is_none() && began.elapsed() > whole / SETTLING {
            settled = Some(emptied(machine, &mut model));
            eprintln!("settled after {number} deeds: {settled:?}");
        }
        number += 1;
        act(machine, &mut model, &mut draw, number);
    }
    let (settled, end) = (settled.expect("it was not long enough to settle"), emptied(machine, &mut model));
    eprintln!("after {number} deeds: {end:?}");
    // Threads without work, and memory, are given back after a while.
    eventually(&Vec::<String>::new(), || Size::of(machine).beyond(&settled));
    nothing_is_left(machine, &before);
}
