//! `just bench`: Berth beside a plain unit and a Quadlet, in one boot, in turns. Nothing here passes or fails.
//!
//! ```text
//! machine ─ volumes beside dm-crypt ─ networks ─ rules of many services ─ one service, two peers ─ memory
//!         of the supervisor ─ starts in turns ─ requests ─ lives ─ more services ─ boots ─ memory again ─ looks at many
//! ```
//!
//! `tests/bench/results.json` keeps what each number was made from, and on what.

mod access;
mod disks;
mod fleet;
mod lives;
mod memory;
mod networks;
mod ratio;
mod requests;
mod rules;
mod starts;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cache::{CacheError, at};
use crate::guest::Flavor;
use crate::machine::{Machine, MachineError, Plan};
use crate::saved::{Parts, SavedError};
use crate::spawn::{self, SpawnError};
use crate::{accel, tree};

/// Starts of each unit, unless `BERTH_BENCH_RUNS` says otherwise.
const RUNS: usize = 20;
/// The services that memory is measured with.
const SERVICES: usize = 30;
/// The fewer ones that looks are counted at, too: whether looks cost the same each.
const FEW: usize = 10;
/// And the more, of which no others run than `SERVICES`.
const MANY: usize = 100;
const MOST: usize = 500;
/// The image of all of them: one shell that sleeps.
const IMAGE: &str = "127.0.0.1:5000/testbox:latest";

/// The bench could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Building or waking the machine.
    #[error("getting a machine")]
    Saved(#[from] SavedError),
    /// A command in it.
    #[error("measuring")]
    Machine(#[from] MachineError),
    /// A tool of this side.
    #[error("getting a program ready")]
    Tool(#[from] SpawnError),
    /// The results.
    #[error("writing the results")]
    Files(#[from] CacheError),
    /// A number that is none.
    #[error("`{0}` is no measurement")]
    NoNumber(String),
}

/// Measures, writes `tests/bench/results.json` and prints the rows.
pub fn run() -> Result<(), BenchError> {
    let parts = Parts::build(Flavor::Bench)?;
    let mut machine = parts.ready(&Plan { disks: vec![disks::spare()], ..Plan::new("bench") })?;
    let accel = accel::choose(&parts.guest)?;
    let only = std::env::var("BERTH_BENCH_ONLY").ok();
    let mut rows = Rows { on: about(&machine, &format!("{accel:?}"))?, rows: Vec::new(), only };
    measure(&mut machine, &mut rows)?;
    Ok(machine.remove()?)
}

/// Printed and kept as they come: an hour is long, and what was measured in it is true even if the rest fails.
struct Rows {
    on: Value,
    rows: Vec<Value>,
    /// The parts that are wanted (`disks lives`), if not all: these are printed, not kept.
    only: Option<String>,
}

impl Rows {
    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.split_whitespace().any(|one| one == part))
    }

    fn push(&mut self, row: Value) -> Result<(), BenchError> {
        println!("{row}");
        if self.only.is_some() {
            return Ok(());
        }
        self.rows.push(row);
        let path = tree::top().join("tests/bench/results.json");
        let text =
            serde_json::to_string_pretty(&json!({ "on": self.on, "rows": self.rows })).unwrap_or_default() + "\n";
        Ok(at(&path, fs::write(&path, text))?)
    }

    fn extend(&mut self, rows: impl IntoIterator<Item = Value>) -> Result<(), BenchError> {
        rows.into_iter().try_for_each(|row| self.push(row))
    }
}

fn measure(machine: &mut Machine, rows: &mut Rows) -> Result<(), BenchError> {
    if rows.wants("disks") {
        rows.extend(disks::rows(machine)?)?;
    }
    if rows.wants("networks") {
        rows.extend(networks::rows(machine)?)?;
        rows.extend(rules::rows(machine)?)?;
    }
    starts::prepare(machine)?;
    if rows.wants("starts") {
        rows.push(memory::supervisor(machine, 1)?)?;
        starts::add_volume(machine)?;
        let runs = std::env::var("BERTH_BENCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(RUNS);
        rows.extend(starts::rows(&starts::measure(machine, runs)?))?;
        machine.ok("berth uninstall full --erase-volumes --timeout 10m")?;
    }
    if rows.wants("requests") {
        rows.extend(requests::rows(machine)?)?;
    }
    if rows.wants("access") {
        rows.extend(access::rows(machine)?)?;
    }
    if rows.wants("lives") {
        lives::rows(machine).try_for_each(|row| rows.push(row?))?;
    }
    if rows.wants("boots") || rows.wants("looks") { many(machine, rows) } else { Ok(()) }
}

fn many(machine: &mut Machine, rows: &mut Rows) -> Result<(), BenchError> {
    fleet::fill(machine, 2, FEW)?;
    if rows.wants("looks") {
        rows.push(fleet::looks(machine, FEW)?)?;
    }
    fleet::fill(machine, FEW + 1, fleet::BOOTED)?;
    if rows.wants("boots") {
        rows.push(fleet::boots(machine)?)?;
    }
    fleet::fill(machine, fleet::BOOTED + 1, SERVICES)?;
    if rows.wants("boots") {
        rows.push(memory::resident(machine)?)?;
        rows.push(memory::supervisor(machine, SERVICES)?)?;
    }
    if rows.wants("looks") { looks(machine, rows) } else { Ok(()) }
}

fn looks(machine: &Machine, rows: &mut Rows) -> Result<(), BenchError> {
    rows.push(fleet::looks(machine, SERVICES)?)?;
    fleet::rest(machine, SERVICES + 1, MANY)?;
    rows.push(fleet::looks(machine, MANY)?)?;
    fleet::rest(machine, MANY + 1, MOST)?;
    rows.push(fleet::looks(machine, MOST)?)?;
    Ok(())
}

/// What it was measured on. Emulated processors say `Tcg`.
fn about(machine: &Machine, accel: &str) -> Result<Value, BenchError> {
    let said = |line: &str| machine.ok(line);
    Ok(json!({
        "processors": said("nproc")?,
        "accelerator": accel,
        "kernel": said("uname -r")?,
        "systemd": said("systemctl --version | head -n 1")?,
        "podman": said("podman --version")?,
    }))
}

/// Puts an example of this build's into the machine, below `/run`.
fn put_example(machine: &Machine, name: &str) -> Result<(), BenchError> {
    let folder = at(Path::new("."), tree::programs())?;
    let stripped = machine.home().join(name);
    spawn::output(spawn::command("strip").arg("-o").arg(&stripped).arg(folder.join("examples").join(name)))?;
    Ok(machine.put(&format!("/run/{name}"), &at(&stripped, fs::read(&stripped))?, 0o755)?)
}

fn number(text: &str) -> Result<u64, BenchError> {
    text.trim().parse().map_err(|_| BenchError::NoNumber(text.to_owned()))
}
