//! What is handed to whoever helps: one archive, without secrets.
//!
//! ```text
//! berth-support/README.txt        what is in it, and what was left out
//!   versions.json usage.json diagnostics.json units.json disks.json rules.json
//!   objects/<plural>.json         every object: values of Secrets, ConfigMaps and variables redacted
//!   journal/supervisor.txt        what Berth's own units wrote
//!   journal/units.txt             what systemd says of services' units
//!   journal/services.txt          what services wrote, only if asked for
//! ```
//!
//! What can be had is taken along, and what cannot says why in its place: it is made when something is broken.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use berth_host::journal::{Entry, Query, Record};
use berth_host::nft;
use berth_host::nft::types::NfFamily;
use berth_host::systemd::Systemd;
use berth_model::kinds::KINDS;
use berth_model::redact;
use berth_model::resource::change_set::without_sealed;
use jiff::Timestamp;
use serde_json::{Value, json};
use tar::{Builder, Header};

use super::Parts;
use super::diagnostics::Examiner;
use super::usage::Usage;
use crate::api::{DiagnoseRequest, PortError};
use crate::config::Config;
use crate::store::{Clock, Store};

/// Everything lies below it.
const TOP: &str = "berth-support";
/// Entries of each journal, the newest.
const ENTRIES: u32 = 5000;
/// Units of ours, and those of services.
const OURS: [&str; 4] = ["berthd.service", "berth-setup.service", "berth-dns.service", "berth-exec*"];
const SERVICES: &str = "berth.*.service";
/// Between size and time, as for layers.
const LEVEL: i32 = 3;

/// Makes archives.
pub(super) struct Support {
    store: Store,
    systemd: Systemd,
    examiner: Arc<Examiner>,
    usage: Usage,
    clock: Clock,
    data: PathBuf,
}

/// An archive on its way. Each file is read, written and forgotten before the next.
struct Archive(Builder<zstd::stream::write::Encoder<'static, Vec<u8>>>, Timestamp);

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Support {
    pub(super) fn new(parts: &Parts, config: &Config, examiner: Arc<Examiner>, usage: Usage) -> Self {
        let (store, systemd, clock) = (parts.store.clone(), parts.systemd.clone(), parts.clock.clone());
        Self { store, systemd, examiner, usage, clock, data: config.data.clone() }
    }

    /// The archive as a tar file packed with zstd; what services wrote is in it if `output`.
    pub(super) async fn make(&self, output: bool) -> Result<Vec<u8>, PortError> {
        self.packed(output).await.map_err(|error| PortError::Failed(Box::new(error)))
    }

    async fn packed(&self, output: bool) -> io::Result<Vec<u8>> {
        let mut archive = Archive::new((self.clock)())?;
        archive.add("README.txt", readme(output).as_bytes())?;
        archive.json("versions.json", Ok(versions()))?;
        archive.json("usage.json", self.usage.look().await.map(|usage| json!(usage)).map_err(Cause::from))?;
        let examined = self.examiner.examine(DiagnoseRequest::default()).await;
        archive.json("diagnostics.json", examined.map(|found| json!(found)).map_err(Cause::from))?;
        archive.json("units.json", self.units().await)?;
        archive.json("disks.json", self.disks())?;
        archive.json("rules.json", rules().await)?;
        for kind in KINDS.iter().filter(|kind| kind.is_stored()) {
            let objects = self.store.read(move |tx| tx.page(kind, &crate::store::PageRequest::default())).await;
            let shown = |page: crate::store::Page| {
                let mut items = page.items;
                items.iter_mut().for_each(without_sealed);
                json!(items.iter().map(|item| redact::object(item, output)).collect::<Vec<_>>())
            };
            archive.json(&format!("objects/{}.json", kind.plural), objects.map(shown).map_err(Cause::from))?;
        }
        let ours = OURS.iter().fold(Query::new(), |query, unit| query.unit(*unit));
        archive.add("journal/supervisor.txt", lines(ours, output).await.as_bytes())?;
        // What the manager itself says of a unit, and nothing that its processes do.
        let of_units = Query::new().unit(SERVICES).field("_PID", "1");
        archive.add("journal/units.txt", lines(of_units, output).await.as_bytes())?;
        if output {
            let services = Query::new().unit(SERVICES).field("_TRANSPORT", "stdout");
            archive.add("journal/services.txt", lines(services, output).await.as_bytes())?;
        }
        archive.end()
    }

    async fn units(&self) -> Result<Value, Cause> {
        let mut patterns = OURS.to_vec();
        patterns.push(SERVICES);
        let mut units = Vec::new();
        for unit in self.systemd.list(&patterns).await? {
            let state = self.systemd.state(&unit.name).await;
            let state = state.map_or_else(|error| crate::log::chain(&error), |state| format!("{state:?}"));
            units.push(json!({"name": unit.name, "description": unit.description, "sub": unit.sub, "state": state}));
        }
        Ok(Value::from(units))
    }

    fn disks(&self) -> Result<Value, Cause> {
        let room = berth_host::disk_image::room(&self.data)?;
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let mounts: Vec<&str> = mounts.lines().filter(|line| line.starts_with("/dev/")).collect();
        let loops = berth_host::loopdev::attached_below(&self.data)?;
        let loops: Vec<String> =
            loops.iter().map(|(device, file)| format!("{} on {}", device.display(), file.display())).collect();
        Ok(json!({
            "dataDisk": {"total": room.total, "free": room.free}, "mounts": mounts, "loops": loops,
            "mappers": berth_host::luks::names("berth-")?, "partitions": std::fs::read_to_string("/proc/partitions")?,
        }))
    }
}

impl Archive {
    fn new(time: Timestamp) -> io::Result<Self> {
        Ok(Self(Builder::new(zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?), time))
    }

    fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.1.as_second()).unwrap_or_default());
        self.0.append_data(&mut header, format!("{TOP}/{name}"), content)
    }

    /// What was found, or why it was not.
    fn json(&mut self, name: &str, found: Result<Value, Cause>) -> io::Result<()> {
        let value = found.unwrap_or_else(|error| json!({"error": crate::log::chain(&*error)}));
        self.add(name, format!("{value:#}\n").as_bytes())
    }

    fn end(self) -> io::Result<Vec<u8>> {
        let mut packed = self.0.into_inner()?;
        packed.flush()?;
        packed.finish()
    }
}

fn readme(output: bool) -> String {
    let written = if output { "is in journal/services.txt and where errors quote it" } else { "was left out" };
    format!(
        "This tells how a Berth machine fares, for whoever helps with it.\n\n\
         Left out: values of Secrets, ConfigMaps and environment variables, arguments that look like secrets, users and\n\
         passwords in addresses. What services wrote {written}. Names of services, images, hosts and\n\
         addresses are in it; have a look before you hand it on.\n"
    )
}

fn versions() -> Value {
    let file = |path| std::fs::read_to_string(path).unwrap_or_default();
    json!({
        "berth": env!("CARGO_PKG_VERSION"), "kernel": file("/proc/version").trim(), "system": file("/etc/os-release"),
        "commandLine": redact::text(file("/proc/cmdline").trim(), false),
    })
}

async fn rules() -> Result<Value, Cause> {
    let mut rules = serde_json::Map::new();
    for (family, name) in nft::tables().await? {
        let known = [("inet", NfFamily::INet), ("bridge", NfFamily::Bridge)];
        let ours = known.into_iter().find(|(word, _)| *word == family && name == crate::network::rules::TABLE);
        let content = match ours {
            Some((_, family)) => json!(nft::read(family, &name).await?),
            None => Value::Null,
        };
        rules.insert(format!("{family} {name}"), content);
    }
    Ok(Value::Object(rules))
}

/// The newest entries, a line each; why there are none where they cannot be read.
async fn lines(query: Query, output: bool) -> String {
    let mut text = String::new();
    let read = async {
        let mut entries = query.last(ENTRIES).read()?;
        while let Some(record) = entries.next().await? {
            match record {
                Record::Entry(entry) => text.push_str(&line(&entry, output)),
                Record::Dropped => text.push_str("(a line was too long to be shown)\n"),
            }
        }
        Ok::<(), Cause>(())
    };
    match read.await {
        Ok(()) => text,
        Err(error) => {
            let why = crate::log::chain(&*error);
            text + &format!("(the journal cannot be read any further: {why})\n")
        }
    }
}

fn line(entry: &Entry, output: bool) -> String {
    let time = i64::try_from(entry.time_us).ok().and_then(|us| Timestamp::from_microsecond(us).ok());
    let unit = entry.unit.as_deref().unwrap_or("-");
    let message = redact::text(&String::from_utf8_lossy(&entry.message), output);
    format!("{} {unit}: {message}\n", time.unwrap_or(Timestamp::UNIX_EPOCH))
}
