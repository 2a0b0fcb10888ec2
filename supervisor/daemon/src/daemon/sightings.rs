//! What systemd last said about units, for as long as it has said nothing new.
//!
//! A bundle is looked at at every step of an operation, and a look at a unit takes six questions over the bus. systemd
//! tells of every change of a unit, so what was read stays true until then:
//!
//! ```text
//!            read, and no news meanwhile
//!  (nothing) ───────────────────────────> seen ──── news of the unit, an act of ours, 30 s ────> (nothing)
//! ```
//!
//! What was read while news of any unit came is not kept: it may be older than they are.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_host::systemd::UnitState;

/// How long news may be missing before the unit is read again anyway.
const TRUSTED: Duration = Duration::from_secs(30);

/// By name of unit; only units that are loaded.
#[derive(Debug, Default)]
pub struct Sightings(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    /// How often there was news of any unit.
    news: u64,
    seen: HashMap<String, (UnitState, Instant)>,
}

/// When a reading began.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Sightings {
    /// What was read, if it can still be true.
    pub fn last(&self, unit: &str) -> Option<UnitState> {
        let all = self.all();
        let (state, at) = all.seen.get(unit)?;
        (at.elapsed() < TRUSTED).then(|| state.clone())
    }

    /// To be asked for before a reading.
    pub fn now(&self) -> Moment {
        Moment(self.all().news)
    }

    /// Keeps what was read since then, unless there was news.
    pub fn keep(&self, unit: &str, since: Moment, state: &UnitState) {
        let mut all = self.all();
        if all.news == since.0 {
            all.seen.insert(unit.to_owned(), (state.clone(), Instant::now()));
        }
    }

    /// There is news of the unit.
    pub fn news(&self, unit: &str) {
        let mut all = self.all();
        all.news += 1;
        all.seen.remove(unit);
    }

    /// There may have been news of any unit.
    pub fn clear(&self) {
        let mut all = self.all();
        all.news += 1;
        all.seen.clear();
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use berth_host::systemd::ActiveState;

    use super::*;

    const UNIT: &str = "berth.default.web.r1.service";

    fn up() -> UnitState {
        UnitState { active: ActiveState::Active, main_pid: Some(7), restarts: 0, invocation: Some("1".into()) }
    }

    fn seen() -> Sightings {
        let sightings = Sightings::default();
        sightings.keep(UNIT, sightings.now(), &up());
        sightings
    }

    #[test]
    fn what_was_read_is_true_until_there_is_news_of_that_unit() {
        let sightings = seen();
        sightings.news("berth.default.other.r1.service");
        assert_eq!(sightings.last(UNIT), Some(up()));
        sightings.news(UNIT);
        assert_eq!(sightings.last(UNIT), None);
    }

    #[test]
    fn what_was_read_while_news_came_is_not_believed() {
        let sightings = Sightings::default();
        let began = sightings.now();
        sightings.news(UNIT);
        sightings.keep(UNIT, began, &up());
        assert_eq!(sightings.last(UNIT), None);
    }

    #[test]
    fn a_new_connection_and_a_long_silence_end_all_trust() {
        let sightings = seen();
        sightings.clear();
        assert_eq!(sightings.last(UNIT), None);

        let sightings = seen();
        sightings.all().seen.values_mut().for_each(|(_, at)| *at -= TRUSTED);
        assert_eq!(sightings.last(UNIT), None);
    }
}
