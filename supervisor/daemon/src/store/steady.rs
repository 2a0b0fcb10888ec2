//! The time by which credentials end. It is the machine's clock, and goes on when that is set back: what has expired stays
//! so, and whoever waits does not wait longer for it. When the machine's clock has caught up, it is that again.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use super::Clock;
use super::error::{Fault, StoreError};
use super::tx::Tx;

/// A clock that is behind by less is believed: it is set a little now and then.
const BELIEVED: SignedDuration = SignedDuration::from_mins(1);

/// A clock that never goes back by more than [`BELIEVED`].
pub(super) struct Steady {
    clock: Clock,
    last: Mutex<Last>,
}

/// What it said last, and when.
struct Last {
    said: Timestamp,
    at: Instant,
    /// The machine's clock was behind it.
    behind: bool,
}

impl Steady {
    /// Goes on from where the database was left.
    pub(super) fn open(connection: &Connection, clock: Clock) -> Result<Self, StoreError> {
        let sql = "SELECT value FROM meta WHERE key = 'steady'";
        let found = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).optional();
        let left = found.map_err(Fault::of("read how late it was"))?;
        let left = left.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(Timestamp::MIN);
        Ok(Self { clock, last: Mutex::new(Last { said: left, at: Instant::now(), behind: false }) })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.at((self.clock)())
    }

    /// The same when the machine's clock has been read just now.
    pub(super) fn at(&self, clock: Timestamp) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = SignedDuration::try_from(last.at.elapsed()).unwrap_or(SignedDuration::ZERO);
        let expected = last.said.checked_add(gone).unwrap_or(Timestamp::MAX);
        let behind = expected.duration_since(clock) >= BELIEVED;
        if behind && !last.behind {
            tracing::warn!(
                "the machine's clock says {clock} and was at {expected} before: what expires goes on as if it had not \
                 been set back"
            );
        }
        *last = Last { said: if behind { expected } else { clock }, at: Instant::now(), behind };
        last.said
    }
}

impl Tx<'_> {
    /// The time by which credentials end: [`Tx::now`], unless the machine's clock was set back.
    pub fn steady_now(&self) -> Timestamp {
        self.steady
    }

    /// Keeps how late it is, for the case that the clock is set back while nobody looks.
    pub fn note_steady(&mut self) -> Result<(), StoreError> {
        let sql = "INSERT INTO meta VALUES ('steady', ?1)
                   ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)";
        self.execute(sql, [self.steady.as_second()], "keep how late it is").map(drop)
    }
}
