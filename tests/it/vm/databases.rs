//! Real database servers as services, asked by their own clients: their passwords come from secrets that nobody has
//! seen, their rows lie on encrypted volumes.

use berth_tests::channel::Output;
use berth_tests::machine::Machine;

use super::{REGISTRY, bundle, eventually, install, own, ready, uninstall};

struct Server {
    name: &'static str,
    image: &'static str,
    port: u16,
    /// Where it looks for its password, and who it becomes.
    variable: &'static str,
    owner: &'static str,
    volume: &'static str,
    /// Its client, with the password in `$secret` and the question in `$sql`.
    client: &'static str,
}

const SERVERS: [Server; 2] = [
    Server {
        name: "relational",
        image: "postgres:17",
        port: 5432,
        variable: "POSTGRES_PASSWORD_FILE",
        owner: "postgres",
        volume: "/var/lib/postgresql/data",
        client: "PGPASSWORD=$secret psql -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres -qtA -c \"$sql\"",
    },
    Server {
        name: "myriad",
        image: "mariadb:11",
        port: 3306,
        variable: "MARIADB_ROOT_PASSWORD_FILE",
        owner: "mysql",
        volume: "/var/lib/mysql",
        client: "MYSQL_PWD=$secret mariadb -h 127.0.0.1 -u root -N -e \"$sql\" mysql",
    },
];

impl Server {
    fn manifest(&self, generation: u32) -> String {
        let Self { name, image, port, variable, owner, volume, .. } = self;
        format!(
            "apiVersion: berth.dev/v1\nkind: Bundle\nmetadata: {{name: {name}}}\nspec:\n  \
             image: 127.0.0.1:{REGISTRY}/{image}\n  \
             env: [{{name: {variable}, value: /run/secrets/password}}, {{name: TRY, value: '{generation}'}}]\n  \
             volumeMounts: [{{mountPath: /run/secrets, secret: {{name: {name}}}, owner: {owner}}}]\n  \
             volumes: [{{name: data, mountPath: {volume}, size: 512Mi}}]\n  \
             ports: [{{name: sql, containerPort: {port}}}]\n  resources: {{cpu: '2', memory: 512Mi}}\n  \
             health: {{tcp: {{port: {port}}}, interval: 2s, startPeriod: 20m, stableWindow: 4s}}\n"
        )
    }

    fn put(&self, machine: &Machine, generation: u32) -> String {
        let path = format!("/run/{}.yaml", self.name);
        machine.put(&path, self.manifest(generation).as_bytes(), 0o644).unwrap();
        path
    }

    fn asked_with(&self, machine: &Machine, secret: &str, sql: &str) -> Output {
        let script = format!("secret={secret}; sql=\"{sql}\"; {}", self.client).replace('\'', "'\\''");
        machine.sh(&format!("berth exec {} -- sh -c '{script}'", self.name)).unwrap()
    }

    /// What it answers to whoever knows its password.
    fn asked(&self, machine: &Machine, sql: &str) -> String {
        let out = self.asked_with(machine, "$(cat /run/secrets/password)", sql);
        assert!(out.success(), "{} on {sql}: {}", self.name, out.errors());
        out.text().trim().to_owned()
    }

    fn rows(&self, machine: &Machine) -> String {
        self.asked_with(machine, "$(cat /run/secrets/password)", "SELECT count(*) FROM kept").text().trim().to_owned()
    }
}

#[test]
fn passwords_are_drawn_and_rows_survive_restart_update_reinstallation_and_losing_power() {
    let (mut machine, _alone) = own("databases");
    for server in &SERVERS {
        let name = server.name;
        machine.ok(&format!("berth secret create {name} --generate password")).unwrap();
        install(&machine, name, &format!("-f {}", server.put(&machine, 1)));
        let refused = server.asked_with(&machine, "guessed", "SELECT 1");
        assert!(!refused.success() && refused.errors().to_lowercase().contains("password"), "{}", refused.errors());
        server.asked(&machine, "CREATE TABLE kept (n int)");
        server.asked(&machine, "INSERT INTO kept VALUES (1)");

        machine.ok(&format!("berth restart {name} --timeout 20m")).unwrap();
        assert_eq!(server.rows(&machine), "1", "{name} after a restart");
        server.asked(&machine, "INSERT INTO kept VALUES (2)");
        machine.ok(&format!("berth apply -f {} --wait --timeout 20m", server.put(&machine, 2))).unwrap();
        assert_eq!(bundle(&machine, name)["status"]["revision"].as_u64(), Some(2));
        assert_eq!(server.rows(&machine), "2", "{name} after an update");
        machine.ok("systemctl kill --signal=KILL berthd").unwrap();
        eventually(&true, || machine.sh("berth get bundles").unwrap().success());
        assert_eq!(server.rows(&machine), "2", "{name} after the supervisor was killed");
        uninstall(&machine, name);
        install(&machine, name, &format!("-f {}", server.put(&machine, 3)));
        assert_eq!(server.rows(&machine), "2", "{name} after it was removed and installed again");
    }
    // What was acknowledged is there when the plug is pulled the moment after.
    for server in &SERVERS {
        server.asked(&machine, "INSERT INTO kept VALUES (3)");
    }
    machine.pull_the_plug().unwrap();
    machine.power_on().unwrap();
    for server in &SERVERS {
        eventually(&"True StartCompleted".to_owned(), || ready(&machine, server.name));
        assert_eq!(server.rows(&machine), "3", "{} after losing power", server.name);
    }
}
