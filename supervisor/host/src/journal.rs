//! The journal, read and followed through `journalctl`.
//!
//! A [`Query`] becomes the arguments of one `journalctl` process whose lines are parsed as they
//! are asked for: when nobody asks, the pipe fills and the process waits, so memory stays
//! bounded. Dropping [`Entries`] ends the process. Every entry carries its cursor, from which
//! a later query goes on without a gap.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::cmd::{CmdError, Command, Line, Lines};

const JOURNALCTL: &str = "/usr/bin/journalctl";
/// The longest line of JSON. journald cuts lines of a service's output at 48 KiB; as an array of
/// numbers that is four times as much, with room for the other fields.
const LONGEST_LINE: usize = 512 << 10;
/// What `journalctl` says when a pattern matches no unit that the journal has ever seen.
const NO_SUCH_UNIT: &str = "No data available";

/// Why the journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// `journalctl` did not start, or refused the query (as with a cursor that is none).
    #[error("reading the journal")]
    Journalctl(#[source] CmdError),
    /// A line that is not an entry.
    #[error("understanding an entry of the journal")]
    Json(#[source] serde_json::Error),
    /// An entry without a field that every entry has.
    #[error("an entry of the journal has no usable {0}")]
    Field(&'static str),
}

/// Waits until all that was written before the call can be read: a service's last words are still on their way to the
/// journal when its unit is already known to have ended.
///
/// # Errors
/// [`JournalError::Journalctl`], also where it takes longer than [`Command::timeout`] allows by default.
pub async fn caught_up() -> Result<(), JournalError> {
    Command::new(JOURNALCTL).arg("--sync").run().await.map(drop).map_err(JournalError::Journalctl)
}

/// Which entries to read, oldest first. Conditions of different kinds must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    units: Vec<String>,
    fields: Vec<(String, String)>,
    extra: Vec<String>,
    after: Option<String>,
    since_us: Option<u64>,
    last: Option<u32>,
    follow: bool,
}

impl Query {
    /// All entries of the machine.
    #[must_use]
    pub fn new() -> Query {
        Query::default()
    }

    /// Entries of this unit, and what systemd says about it. Several units: those of any.
    ///
    /// A shell pattern stands for the units that are in the journal when the query starts: to
    /// follow units that are yet to come, match on a [`Query::field`].
    #[must_use]
    pub fn unit(mut self, pattern: impl Into<String>) -> Query {
        self.units.push(pattern.into());
        self
    }

    /// Entries in which this field has exactly this value. Several values of one field: any of
    /// them; several fields: all of them.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<String>) -> Query {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// A field to be found in [`Entry::fields`].
    #[must_use]
    pub fn with(mut self, field: impl Into<String>) -> Query {
        self.extra.push(field.into());
        self
    }

    /// Entries after the one with this cursor.
    #[must_use]
    pub fn after(mut self, cursor: impl Into<String>) -> Query {
        self.after = Some(cursor.into());
        self
    }

    /// Entries from this time on, microseconds since 1970.
    #[must_use]
    pub fn since_us(mut self, time: u64) -> Query {
        self.since_us = Some(time);
        self
    }

    /// Of those entries that are there already, only the newest so many.
    #[must_use]
    pub fn last(mut self, entries: u32) -> Query {
        self.last = Some(entries);
        self
    }

    /// Go on with new entries as they come, instead of ending.
    #[must_use]
    pub fn follow(mut self) -> Query {
        self.follow = true;
        self
    }

    fn args(&self) -> Vec<String> {
        let mut wanted = vec!["MESSAGE", "PRIORITY", "_PID", "_SYSTEMD_UNIT"];
        wanted.extend(self.extra.iter().map(String::as_str));
        let mut args: Vec<String> = ["--output=json", "--all", "--quiet", "--no-pager"].map(str::to_owned).into();
        args.push(format!("--output-fields={}", wanted.join(",")));
        args.extend(self.units.iter().map(|unit| format!("--unit={unit}")));
        args.extend(self.after.iter().map(|cursor| format!("--after-cursor={cursor}")));
        if let Some(time) = self.since_us {
            let (seconds, rest) = (time / 1_000_000, time % 1_000_000);
            args.push(format!("--since=@{seconds}.{rest:06}"));
        }
        match self.last {
            Some(entries) => args.push(format!("--lines={entries}")),
            None if self.follow => args.push("--no-tail".to_owned()),
            None => {}
        }
        if self.follow {
            args.push("--follow".to_owned());
        }
        args.push("--".to_owned());
        args.extend(self.fields.iter().map(|(name, value)| format!("{name}={value}")));
        args
    }

    /// Starts reading. Needs to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`JournalError::Journalctl`].
    pub fn read(&self) -> Result<Entries, JournalError> {
        let lines = Command::new(JOURNALCTL)
            .args(self.args())
            .stdout_limit(LONGEST_LINE)
            .stream()
            .map_err(JournalError::Journalctl)?;
        Ok(Entries { lines })
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where to go on later: [`Query::after`].
    pub cursor: String,
    /// When it was written, microseconds since 1970.
    pub time_us: u64,
    /// Process that wrote it, in the host's numbering.
    pub pid: Option<u32>,
    /// Unit of that process.
    pub unit: Option<String>,
    /// 0 (emergency) to 7 (debug).
    pub priority: Option<u8>,
    /// The text, in whatever encoding the process wrote it, without a newline at its end.
    pub message: Vec<u8>,
    /// Those fields of [`Query::with`] that the entry has.
    pub fields: BTreeMap<String, Vec<u8>>,
}

impl Entry {
    fn parse(line: &[u8]) -> Result<Entry, JournalError> {
        let mut json: Map<String, Value> = serde_json::from_slice(line).map_err(JournalError::Json)?;
        let mut text = |name: &'static str| {
            let bytes = json.remove(name).and_then(bytes)?;
            String::from_utf8(bytes).ok()
        };
        let cursor = text("__CURSOR").ok_or(JournalError::Field("cursor"))?;
        let time = text("__REALTIME_TIMESTAMP").and_then(|time| time.parse().ok());
        Ok(Entry {
            cursor,
            time_us: time.ok_or(JournalError::Field("time"))?,
            pid: text("_PID").and_then(|pid| pid.parse().ok()),
            unit: text("_SYSTEMD_UNIT"),
            priority: text("PRIORITY").and_then(|priority| priority.parse().ok()),
            message: json.remove("MESSAGE").and_then(bytes).unwrap_or_default(),
            fields: json
                .into_iter()
                .filter(|(name, _)| !name.starts_with("__"))
                .filter_map(|(name, value)| Some((name, bytes(value)?)))
                .collect(),
        })
    }
}

/// `journalctl` writes text as a string, other bytes as an array of numbers, a field that
/// occurs more than once as an array of those, and one that is too large as null.
fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.into_bytes()),
        Value::Array(values) if values.first().is_some_and(Value::is_number) => {
            values.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect()
        }
        Value::Array(values) => values.into_iter().next().and_then(bytes),
        _ => None,
    }
}

/// What comes next in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An entry.
    Entry(Box<Entry>),
    /// An entry that was too large to be taken along.
    Dropped,
}

/// The entries that a query finds. Dropping it ends the reading.
#[derive(Debug)]
pub struct Entries {
    lines: Lines,
}

impl Entries {
    /// The next entry; `None` at the end, which a query that follows does not have. May be
    /// dropped halfway without losing anything.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn next(&mut self) -> Result<Option<Record>, JournalError> {
        match self.lines.next().await {
            Ok(Some(Line::Whole(line))) => Entry::parse(&line).map(|entry| Some(Record::Entry(Box::new(entry)))),
            Ok(Some(Line::TooLong)) => Ok(Some(Record::Dropped)),
            Ok(None) => Ok(None),
            Err(CmdError::Failed { stderr, .. }) if stderr.contains(NO_SUCH_UNIT) => Ok(None),
            Err(error) => Err(JournalError::Journalctl(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_reads_as_arguments_of_journalctl() {
        let query = Query::new()
            .unit("x.default.*")
            .field("TEAM", "a b")
            .with("INVOCATION_ID")
            .after("s=1;i=2")
            .since_us(12_000_345)
            .last(20)
            .follow();
        assert_eq!(
            query.args(),
            [
                "--output=json",
                "--all",
                "--quiet",
                "--no-pager",
                "--output-fields=MESSAGE,PRIORITY,_PID,_SYSTEMD_UNIT,INVOCATION_ID",
                "--unit=x.default.*",
                "--after-cursor=s=1;i=2",
                "--since=@12.000345",
                "--lines=20",
                "--follow",
                "--",
                "TEAM=a b",
            ]
        );
    }

    #[test]
    fn following_without_a_number_shows_what_is_there_too() {
        assert!(Query::new().follow().args().contains(&"--no-tail".to_owned()));
    }

    #[test]
    fn an_entry_keeps_its_cursor_time_process_and_text() {
        let line = br#"{"__CURSOR":"s=a;i=1","__REALTIME_TIMESTAMP":"1700000000000001",
            "__MONOTONIC_TIMESTAMP":"5","_PID":"42","_SYSTEMD_UNIT":"x.service","PRIORITY":"6",
            "MESSAGE":"hello","INVOCATION_ID":"ab"}"#;
        let expected = Entry {
            cursor: "s=a;i=1".to_owned(),
            time_us: 1_700_000_000_000_001,
            pid: Some(42),
            unit: Some("x.service".to_owned()),
            priority: Some(6),
            message: b"hello".to_vec(),
            fields: [("INVOCATION_ID".to_owned(), b"ab".to_vec())].into(),
        };
        assert_eq!(Entry::parse(line).unwrap(), expected);
    }

    #[test]
    fn a_message_that_is_no_text_comes_back_byte_by_byte() {
        let entry = |message: &str| {
            let line = format!(r#"{{"__CURSOR":"s","__REALTIME_TIMESTAMP":"1","MESSAGE":{message}}}"#);
            Entry::parse(line.as_bytes()).unwrap().message
        };
        assert_eq!(entry("[27,91,255]"), [27, 91, 255]);
        assert_eq!(entry(r#"["first","second"]"#), b"first");
        assert_eq!(entry("null"), b"");
    }

    #[test]
    fn a_line_that_is_no_entry_is_an_error() {
        assert!(matches!(Entry::parse(b"-- Boot --"), Err(JournalError::Json(_))));
        assert!(matches!(Entry::parse(b"{}"), Err(JournalError::Field("cursor"))));
    }
}
