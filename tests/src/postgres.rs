//! PostgreSQL as a service of a machine: installed from its image with a password that nobody chose, and asked from
//! outside by its own client.

use crate::machine::{Machine, MachineError};
use crate::spawn::{self, SpawnError};

/// The machine's port that leads to it.
pub const PORT: u16 = 5432;
/// What is installed.
pub const BUNDLE: &str = include_str!("../../image/services/postgres/bundle.yaml");

/// PostgreSQL could not be installed or asked.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The machine.
    #[error("installing PostgreSQL")]
    Machine(#[from] MachineError),
    /// The client.
    #[error("asking PostgreSQL through the published port")]
    Client(#[from] SpawnError),
}

/// Makes the secret and installs the service, each unless it is there; what the command line said.
pub fn install(machine: &Machine) -> Result<String, PostgresError> {
    machine.ok("berth get secret postgres >/dev/null 2>&1 || berth secret create postgres --generate password")?;
    machine.put("/run/postgres.yaml", BUNDLE.as_bytes(), 0o644)?;
    Ok(machine.ok("berth install -f /run/postgres.yaml --timeout 20m")?)
}

/// The answer of PostgreSQL, which is asked through the published port as its superuser.
pub fn ask(machine: &Machine, question: &str) -> Result<String, PostgresError> {
    // The service is asked for it: reads of the secret do not tell it.
    let password = machine.ok("berth exec postgres -- cat /run/secrets/password")?;
    let mut psql = spawn::command("psql");
    psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--username=postgres", "--dbname=postgres"]);
    psql.args(["--host=127.0.0.1", &format!("--port={}", machine.forwarded(PORT)), "--command", question]);
    let answer = spawn::output(psql.env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", "60"))?;
    Ok(String::from_utf8_lossy(&answer).trim().to_owned())
}
