//! Keeps a list up to date: the machine that decides what to ask next, without any network.
//!
//! ```text
//!            listed                      ended, lost
//!   List ------------> Watch(version) <---------------+
//!    ^  ^                |  |  |                      |
//!    |  | 410 (at once)  |  |  +--> (wait) -----------+
//!    |  +----------------+  |
//!    +--(wait)-- list lost  +--> event: news; bookmark: version only
//! ```
//!
//! The driver in [`follow`] asks what [`Machine::next`] says and tells [`Machine::heard`] what came
//! of it. Waits double from half a second to ten seconds and start anew once something is heard.
//! After a second list only what differs is news.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

mod follow;

pub use follow::Watcher;

/// The first wait after a connection is lost.
pub const FIRST_WAIT: Duration = Duration::from_millis(500);
/// No wait is longer.
pub const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What to ask of the server, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// Wait so long before.
    pub after: Duration,
    /// Then ask this.
    pub ask: Ask,
}

/// A question to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The whole list.
    List,
    /// What changed since this version.
    Watch {
        /// `resourceVersion` of the last thing heard.
        since: String,
    },
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The whole list.
    Listed {
        /// The list's `resourceVersion`.
        version: String,
        /// Its items.
        items: Vec<Value>,
    },
    /// One line of a watch.
    Event(Event),
    /// The watch ended as watches do.
    Ended {
        /// How long it had been open.
        lasted: Duration,
    },
    /// The versions asked for are compacted away.
    Gone,
    /// No answer, or it broke off.
    Lost {
        /// For people.
        why: String,
        /// How long it had been open.
        lasted: Duration,
    },
}

/// One line of a watch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The object, or a `Status`.
    pub object: Value,
}

/// What a watcher wants to know.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// An object appeared or changed.
    Present(Value),
    /// An object vanished; its last known state.
    Absent(Value),
    /// All that was there at first has been told. Comes once.
    Synced,
    /// The connection is lost and will be tried again. Comes once per loss.
    Lost(String),
}

/// Namespace and name.
type Key = (String, String);

/// Knows what has been heard and decides what to ask next.
#[derive(Debug, Default)]
pub struct Machine {
    known: BTreeMap<Key, Value>,
    version: Option<String>,
    synced: bool,
    failures: u32,
}

impl Machine {
    /// All that was there at first has been told.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// The next question.
    pub fn next(&self) -> Next {
        let ask = match &self.version {
            Some(version) => Ask::Watch { since: version.clone() },
            None => Ask::List,
        };
        Next { after: backoff(self.failures), ask }
    }

    /// Takes in what came of the question.
    pub fn heard(&mut self, heard: Heard) -> Vec<News> {
        match heard {
            Heard::Listed { version, items } => self.listed(version, items),
            Heard::Event(event) => self.event(event),
            Heard::Ended { lasted } => self.failed(lasted, None),
            Heard::Gone => {
                self.version = None;
                self.failed(Duration::ZERO, None)
            }
            Heard::Lost { why, lasted } => self.failed(lasted, Some(why)),
        }
    }

    /// Does not end a row of failures: a server whose every watch says 410 must not be asked in a
    /// tight loop.
    fn listed(&mut self, version: String, items: Vec<Value>) -> Vec<News> {
        self.version = Some(version);
        let items: BTreeMap<Key, Value> = items.into_iter().map(|item| (key(&item), item)).collect();
        let before = std::mem::replace(&mut self.known, items);
        let gone = before.iter().filter(|(key, _)| !self.known.contains_key(*key));
        let differs = |key: &Key, item: &Value| before.get(key).map(version_of) != Some(version_of(item));
        let present = self.known.iter().filter(|(key, item)| differs(key, item));
        let mut news: Vec<News> = gone.map(|(_, item)| News::Absent(item.clone())).collect();
        news.extend(present.map(|(_, item)| News::Present(item.clone())));
        if !std::mem::replace(&mut self.synced, true) {
            news.push(News::Synced);
        }
        news
    }

    fn event(&mut self, event: Event) -> Vec<News> {
        if event.kind == "ERROR" {
            return self.error(&event.object);
        }
        self.failures = 0;
        if let Some(version) = version_of(&event.object) {
            self.version = Some(version.to_owned());
        }
        match event.kind.as_str() {
            "ADDED" | "MODIFIED" => self.present(event.object),
            "DELETED" => self.absent(event.object),
            _ => Vec::new(),
        }
    }

    fn error(&mut self, status: &Value) -> Vec<News> {
        if status["code"] == 410 {
            return self.heard(Heard::Gone);
        }
        let why = status["message"].as_str().unwrap_or("the server ended the watch").to_owned();
        self.failed(Duration::ZERO, Some(why))
    }

    fn present(&mut self, object: Value) -> Vec<News> {
        let before = self.known.insert(key(&object), object.clone());
        match before.is_some_and(|before| version_of(&before) == version_of(&object)) {
            true => Vec::new(),
            false => vec![News::Present(object)],
        }
    }

    fn absent(&mut self, object: Value) -> Vec<News> {
        self.known.remove(&key(&object)).map(|_| News::Absent(object)).into_iter().collect()
    }

    /// The first failure after something was heard is told and costs no wait: an ended watch is
    /// normal, and a 410 says what to do. A watch that was open for long counts as heard.
    fn failed(&mut self, lasted: Duration, why: Option<String>) -> Vec<News> {
        if lasted >= LONGEST_WAIT {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        match why {
            Some(why) if self.failures == 1 => vec![News::Lost(why)],
            _ => Vec::new(),
        }
    }
}

/// The wait after so many failures in a row: none after the first.
pub fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => FIRST_WAIT.saturating_mul(1 << (more - 2).min(10)).min(LONGEST_WAIT),
    }
}

fn key(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn version_of(object: &Value) -> Option<&str> {
    object["metadata"]["resourceVersion"].as_str()
}

#[cfg(test)]
mod tests;
