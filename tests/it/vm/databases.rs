//! Real database servers as services, asked by their own clients: their passwords come from secrets that nobody has
//! seen, their rows lie on encrypted volumes. Both go through the same at once.

use std::panic::resume_unwind;
use std::thread;
use std::time::Instant;

use berth_tests::channel::{Event, Output, Running};
use berth_tests::machine::Machine;
use berth_tests::pace;
use ring::digest::{SHA256, digest};

use super::{REGISTRY, bundle, eventually, own, property, uninstall, unit};

struct Server {
    name: &'static str,
    image: &'static str,
    port: u16,
    /// Where it looks for its password, and who it becomes.
    variable: &'static str,
    owner: &'static str,
    volume: &'static str,
    /// Keeps it small and quick to start on an emulated processor, where a start with TLS takes minutes.
    args: &'static str,
    /// Its client, with the password in `$secret`; it reads statements from its standard input.
    client: &'static str,
    /// The client's option that takes a statement instead.
    statement: &'static str,
    /// Makes the client print what follows, once all before it has been acknowledged.
    print: &'static str,
}

const SERVERS: [Server; 2] = [
    Server {
        name: "relational",
        image: "postgres:17",
        port: 5432,
        variable: "POSTGRES_PASSWORD_FILE",
        owner: "postgres",
        volume: "/var/lib/postgresql/data",
        args: "[postgres, -c, shared_buffers=16MB]",
        client: "PGPASSWORD=$secret psql -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres -qtA -F ' '",
        statement: "-c",
        print: "\\echo",
    },
    Server {
        name: "myriad",
        image: "mariadb:11",
        port: 3306,
        variable: "MARIADB_ROOT_PASSWORD_FILE",
        owner: "mysql",
        volume: "/var/lib/mysql",
        args: "[mariadbd, --skip-ssl, --innodb-buffer-pool-size=16M]",
        client: "MYSQL_PWD=$secret mariadb --skip-ssl -h 127.0.0.1 -u root -N --unbuffered -D mysql",
        statement: "-e",
        print: "SELECT",
    },
];

/// What every server does, each on a thread of its own.
fn both<T: Send>(work: impl Fn(&Server) -> T + Sync) -> Vec<T> {
    let work = &work;
    thread::scope(|scope| {
        let working: Vec<_> = SERVERS.iter().map(|server| scope.spawn(move || work(server))).collect();
        working.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

impl Server {
    fn put(&self, machine: &Machine, generation: u32, size: &str) -> String {
        let Self { name, image, port, variable, owner, volume, args, .. } = self;
        let manifest = format!(
            "apiVersion: berth.dev/v1\nkind: Bundle\nmetadata: {{name: {name}}}\nspec:\n  \
             image: 127.0.0.1:{REGISTRY}/{image}\n  args: {args}\n  \
             env: [{{name: {variable}, value: /run/secrets/password}}, {{name: TRY, value: '{generation}'}}]\n  \
             volumeMounts: [{{mountPath: /run/secrets, secret: {{name: {name}}}, owner: {owner}}}]\n  \
             volumes: [{{name: data, mountPath: {volume}, size: {size}}}]\n  \
             ports: [{{name: sql, containerPort: {port}}}]\n  resources: {{cpu: '2', memory: 512Mi}}\n  \
             health: {{tcp: {{port: {port}}}, interval: 1s, startPeriod: 20m, stableWindow: 1s}}\n"
        );
        let path = format!("/run/{name}.yaml");
        machine.put(&path, manifest.as_bytes(), 0o644).unwrap();
        path
    }

    /// Installed with a password that nobody has seen, and with a table.
    fn begin(&self, machine: &Machine) {
        machine.ok(&format!("berth secret create {} --generate password", self.name)).unwrap();
        patiently(machine, &format!("berth install -f {} --timeout 20m", self.put(machine, 1, "448Mi")));
        self.asked(machine, "CREATE TABLE kept (round int, n int)");
    }

    fn exec(&self, secret: &str, script: &str) -> String {
        let script = format!("secret={secret}; {script}").replace('\'', "'\\''");
        format!("berth exec {} -- sh -c '{script}'", self.name)
    }

    fn asked_with(&self, machine: &Machine, secret: &str, sql: &str) -> Output {
        machine.sh(&self.exec(secret, &format!("{} {} \"{sql}\"", self.client, self.statement))).unwrap()
    }

    /// What it answers to whoever knows its password.
    fn asked(&self, machine: &Machine, sql: &str) -> String {
        let out = self.asked_with(machine, PASSWORD, sql);
        assert!(out.success(), "{} on {sql}: {}", self.name, out.errors());
        out.text().trim().to_owned()
    }

    /// Waits until it does after a start of the machine: first by what costs little, because a client that is started
    /// again and again takes the processor from all that it waits for.
    fn answers(&self, machine: &Machine) {
        let runs =
            format!("systemctl list-units --state=active --no-legend 'berth.default.{}.*' | grep -q .", self.name);
        machine.ok(&format!("until {runs}; do sleep 0.5; done")).unwrap();
        eventually(&"1".to_owned(), || {
            let out = self.asked_with(machine, PASSWORD, "SELECT 1");
            if out.success() { out.text().trim().to_owned() } else { out.errors() }
        });
    }

    /// Rows, and the last one's number.
    fn rows(&self, machine: &Machine, round: i32) -> (u64, u64) {
        pair(&self.asked(machine, &format!("SELECT count(*), coalesce(max(n), 0) FROM kept WHERE round = {round}")))
    }

    /// Of every round there was: how many rows, and the last one's number.
    fn all_rows(&self, machine: &Machine) -> Vec<(u64, u64)> {
        let said = self.asked(machine, "SELECT count(*), max(n) FROM kept GROUP BY round ORDER BY round");
        said.lines().map(pair).collect()
    }

    /// A client that inserts rows 1, 2, 3..., one transaction each, and prints the number of each that was acknowledged.
    fn written(&self, machine: &Machine, round: i32) -> Running {
        let rows = format!(
            "n=0; while n=$((n + 1)); do printf 'INSERT INTO kept VALUES ({round}, %d);\\n%s %d;\\n' $n '{}' $n; done",
            self.print
        );
        machine.start(&self.exec(PASSWORD, &format!("{{ {rows}; }} | {}", self.client))).unwrap()
    }

    fn main(&self, machine: &Machine) -> String {
        property(machine, &unit(machine, self.name), "MainPID")
    }

    /// Its volume is made larger while rows come in.
    fn grows(&self, machine: &Machine) {
        let before = self.main(machine);
        let writer = self.written(machine, UNDER_GROWTH);
        let mut seen = writer.until(pace::boots(4.0), |seen| acknowledged(seen) >= 5).unwrap();
        machine.ok(&format!("berth volume grow {}-data 512Mi --timeout 10m", self.name)).unwrap();
        // One more after the growth: what had come before its end is read first.
        let last = self.rows(machine, UNDER_GROWTH).1;
        seen += &writer.until(pace::boots(4.0), |more| acknowledged(more) > last).unwrap();
        writer.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
        let (count, last) = self.rows(machine, UNDER_GROWTH);
        assert!(count == last && last >= acknowledged(&seen), "{}: {count} rows up to {last}: {seen}", self.name);
        assert_eq!(self.main(machine), before, "{} was started again", self.name);
        let room = format!("df -P -k {} | tail -n 1 | awk '{{print ($2 > 460000)}}'", self.volume);
        assert_eq!(machine.ok(&self.exec("", &room)).unwrap(), "1", "the filesystem of {} did not grow", self.name);
    }
}

/// What the round is called in which rows are written under growth; 0 is what is written by hand.
const UNDER_GROWTH: i32 = -1;

/// Runs what may take as long as a database takes to be made on an emulated processor.
fn patiently(machine: &Machine, line: &str) {
    let out = machine.start(line).unwrap().finish(pace::boots(20.0)).unwrap();
    assert!(out.success(), "{line}: {}{}", out.text(), out.errors());
}

/// Read where it lies, by a shell in the container.
const PASSWORD: &str = "$(cat /run/secrets/password)";

fn pair(said: &str) -> (u64, u64) {
    let (count, last) = said.split_once([' ', '\t']).unwrap();
    (count.parse().unwrap(), last.parse().unwrap())
}

/// From 1 to 60, by what it is drawn for.
fn drawn(for_what: &str) -> u64 {
    u64::from(digest(&SHA256, for_what.as_bytes()).as_ref()[0]) % 60 + 1
}

/// What a command in a machine that is no more had said.
fn rest(running: &Running) -> String {
    let mut said = Vec::new();
    while let Ok(Event::Output(bytes)) = running.next(pace::boots(1.0)) {
        said.extend(bytes);
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// The last number that was printed whole.
fn acknowledged(seen: &str) -> u64 {
    let whole = seen.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let last = whole.lines().last().unwrap_or_default().trim_end_matches(';');
    last.parse().unwrap_or_default()
}

/// A machine for each server, which lose their power at once. So many times each; `BERTH_CUTS` is another number.
#[test]
fn rows_that_were_acknowledged_survive_power_cuts_while_others_are_written() {
    let usual = if super::is_long() { 100 } else { 2 };
    let rounds = std::env::var("BERTH_CUTS").map_or(usual, |count| count.parse().unwrap());
    let seed = std::env::var("BERTH_SEED").unwrap_or_else(|_| std::process::id().to_string());
    eprintln!("replay with BERTH_SEED={seed}");
    let seed = &seed;
    both(|server| {
        let (mut machine, _alone) = own(&format!("{}-power", server.name));
        server.begin(&machine);
        without_registry(&machine);
        power_cuts(&mut machine, server, rounds, seed);
    });
}

/// One test, because two installations take longer than all that is asked of them.
#[test]
#[ignore = "long tier"]
fn rows_survive_what_is_done_to_the_service_and_the_supervisor_and_a_reboot() {
    let (mut machine, _alone) = own("databases");
    both(|server| server.begin(&machine));
    wanted_by_an_operator(&machine);
    without_registry(&machine);
    killed_and_rebooted(&mut machine);
}

/// The images are there for good, and its start costs every boot.
fn without_registry(machine: &Machine) {
    machine.ok("systemctl disable --quiet --now docker-registry").unwrap();
}

/// Restart, update, growth, removal and installation.
fn wanted_by_an_operator(machine: &Machine) {
    both(|server| {
        let name = server.name;
        let refused = server.asked_with(machine, "guessed", "SELECT 1");
        let said = refused.errors().to_lowercase();
        assert!(!refused.success() && (said.contains("password") && !said.contains("guessed")), "{said}");
        server.asked(machine, "INSERT INTO kept VALUES (0, 1)");

        patiently(machine, &format!("berth restart {name} --timeout 10m"));
        assert_eq!(server.rows(machine, 0), (1, 1), "{name} after a restart");
        server.asked(machine, "INSERT INTO kept VALUES (0, 2)");
        patiently(machine, &format!("berth apply -f {} --wait --timeout 10m", server.put(machine, 2, "448Mi")));
        assert_eq!(bundle(machine, name)["status"]["revision"].as_u64(), Some(2));
        assert_eq!(server.rows(machine, 0), (2, 2), "{name} after an update");
        server.grows(machine);
        uninstall(machine, name);
        patiently(machine, &format!("berth install -f {} --timeout 10m", server.put(machine, 3, "512Mi")));
        assert_eq!(server.rows(machine, 0), (2, 2), "{name} after it was removed and installed again");
    });
}

fn killed_and_rebooted(machine: &mut Machine) {
    let mains = both(|server| server.main(machine));
    machine.ok("systemctl kill --signal=KILL berthd").unwrap();
    eventually(&true, || machine.sh("berth get bundles").unwrap().success());
    both(|server| server.asked(machine, "INSERT INTO kept VALUES (0, 3)"));
    assert_eq!(both(|server| server.main(machine)), mains, "a server was started again with the supervisor");

    machine.reboot().unwrap();
    both(|server| server.answers(machine));
    assert_eq!(both(|server| server.rows(machine, 0)), [(3, 3), (3, 3)], "after a reboot");
}

/// The power goes in the middle of writing: every row that was acknowledged is there.
fn power_cuts(machine: &mut Machine, server: &Server, rounds: i32, seed: &str) {
    let name = server.name;
    // Of each round so far, the rows that were found after it.
    let mut kept = server.all_rows(machine);
    for round in 1..=rounds {
        let wanted = drawn(&format!("{seed} {round} {name}"));
        let writer = server.written(machine, round);
        let seen = writer.until(pace::boots(4.0), |seen| acknowledged(seen) >= wanted).unwrap();
        machine.pull_the_plug().unwrap();
        // What had come out of the machine by then was acknowledged, too.
        let told = acknowledged(&(seen + &rest(&writer)));
        let began = Instant::now();
        machine.power_on().unwrap();
        server.answers(machine);
        let found = server.all_rows(machine);
        eprintln!("{name}, round {round}: after {told} rows; it answers {} s later", began.elapsed().as_secs());
        let (count, last) = found.last().copied().unwrap_or_default();
        assert!(count == last && last >= told, "{name}: {told} acknowledged, {count} up to {last} there");
        assert_eq!(found[..found.len() - 1], kept, "{name}: rows of earlier rounds");
        kept = found;
        let states = "berth get volumes -o json | jq -r '.items[].status.state' | sort -u; systemctl --failed --no-legend --plain";
        assert_eq!(machine.ok(states).unwrap(), "Ready");
    }
}
