//! When a service is healthy, and when a new revision may serve: pure decisions over looks at it.
//!
//! ```text
//!            good                        failAfter bad ones in a row
//!  Starting ──────► Healthy ─────────────────────────────────► Unhealthy
//!     │                ▲                                           │
//!     │                └───────────────── good ────────────────────┘
//!     └── failAfter bad ones in a row, after startPeriod ──► Unhealthy
//! ```
//!
//! Before the first good look, and no longer than `startPeriod`, bad looks do not count. A new
//! revision may serve when it has been healthy for `stableWindow` without a bad look between. Time
//! counts from the start of the run, so that a machine whose clock is set meanwhile judges the same.

use std::time::Duration;

/// How often and how patiently a service is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// From one look to the next.
    pub interval: Duration,
    /// How long one look may take.
    pub timeout: Duration,
    /// After a start, so long bad looks do not count before the first good one.
    pub start_period: Duration,
    /// How long a new revision must be healthy before it serves.
    pub stable_window: Duration,
    /// So many bad looks in a row make it unhealthy.
    pub fail_after: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            start_period: Duration::from_secs(60),
            stable_window: Duration::from_secs(10),
            fail_after: 3,
        }
    }
}

/// While a service starts it is looked at so often, to be found ready soon.
const STARTING_INTERVAL: Duration = Duration::from_secs(1);

/// How a service stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has looked yet.
    Unknown,
    /// It has not answered well yet, and has time for it.
    Starting,
    /// It answers.
    Healthy,
    /// It does not; what the last look said.
    Unhealthy(String),
}

/// Whether a new revision may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again.
    Wait,
    /// It may.
    Promote,
    /// It never will; what the last look said.
    Fail(String),
}

/// The looks at one run of a service, as far as they matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Of the first good look since the last bad one.
    good_since: Option<Duration>,
    ever_good: bool,
    bad_in_a_row: u32,
    last_word: Option<String>,
    looks: u64,
}

impl Course {
    /// Takes what a look has found so long after the start of the run: nothing, or what is wrong.
    pub fn look(&mut self, found: Result<(), String>, rules: &Rules, after: Duration) {
        self.looks += 1;
        match found {
            Ok(()) => {
                self.good_since.get_or_insert(after);
                self.ever_good = true;
                self.bad_in_a_row = 0;
                self.last_word = None;
            }
            Err(word) => {
                self.good_since = None;
                self.last_word = Some(word);
                if self.ever_good || after >= rules.start_period {
                    self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
                }
            }
        }
    }

    /// How it stands.
    pub fn standing(&self, rules: &Rules) -> Standing {
        if self.looks == 0 {
            return Standing::Unknown;
        }
        if self.bad_in_a_row >= rules.fail_after {
            return Standing::Unhealthy(self.last_word.clone().unwrap_or_default());
        }
        if self.ever_good { Standing::Healthy } else { Standing::Starting }
    }

    /// Whether this run may serve so long after its start.
    pub fn verdict(&self, rules: &Rules, after: Duration) -> Verdict {
        if let Standing::Unhealthy(word) = self.standing(rules) {
            return Verdict::Fail(word);
        }
        match self.good_since {
            Some(since) if after.saturating_sub(since) >= rules.stable_window => Verdict::Promote,
            _ => Verdict::Wait,
        }
    }

    /// How long to wait before the next look.
    pub fn pause(&self, rules: &Rules) -> Duration {
        if self.ever_good { rules.interval } else { rules.interval.min(STARTING_INTERVAL) }
    }

    /// What the last look said, if it was a bad one.
    pub fn last_word(&self) -> Option<&str> {
        self.last_word.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        start_period: Duration::from_secs(30),
        stable_window: Duration::from_secs(10),
        fail_after: 3,
    };

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    /// A run that began at 0, looked at every so many seconds from 1 on; `+` is good.
    fn course(every: u64, looks: &str) -> Course {
        let mut course = Course::default();
        for (index, look) in looks.chars().enumerate() {
            let found = if look == '+' { Ok(()) } else { Err(format!("look {index}")) };
            course.look(found, &RULES, at(1 + every * u64::try_from(index).unwrap()));
        }
        course
    }

    #[test]
    fn nobody_knows_before_the_first_look() {
        assert_eq!(course(1, "").standing(&RULES), Standing::Unknown);
        assert_eq!(course(1, "").verdict(&RULES, at(100)), Verdict::Wait);
    }

    #[test]
    fn bad_looks_do_not_count_while_it_starts_and_do_after_its_time() {
        assert_eq!(course(1, "------").standing(&RULES), Standing::Starting);
        assert_eq!(course(10, "-----").standing(&RULES), Standing::Starting);
        assert_eq!(course(10, "------").standing(&RULES), Standing::Unhealthy("look 5".into()));
    }

    #[test]
    fn after_the_first_good_look_bad_ones_count_even_in_the_start_period() {
        assert_eq!(course(1, "+--").standing(&RULES), Standing::Healthy);
        assert_eq!(course(1, "+---").standing(&RULES), Standing::Unhealthy("look 3".into()));
    }

    #[test]
    fn one_good_look_makes_it_healthy_again() {
        assert_eq!(course(1, "+----+").standing(&RULES), Standing::Healthy);
        assert_eq!(course(1, "+--+--+--").standing(&RULES), Standing::Healthy);
    }

    #[test]
    fn a_new_revision_serves_after_it_was_healthy_for_the_whole_window() {
        assert_eq!(course(1, "--+").verdict(&RULES, at(12)), Verdict::Wait);
        assert_eq!(course(1, "--+").verdict(&RULES, at(13)), Verdict::Promote);
        // A bad look between begins the window anew.
        assert_eq!(course(1, "+++++-+").verdict(&RULES, at(13)), Verdict::Wait);
        assert_eq!(course(1, "+++++-+").verdict(&RULES, at(17)), Verdict::Promote);
    }

    #[test]
    fn a_new_revision_that_turns_unhealthy_never_serves() {
        assert_eq!(course(1, "+---").verdict(&RULES, at(100)), Verdict::Fail("look 3".into()));
    }

    #[test]
    fn it_is_looked_at_more_often_until_it_first_answers() {
        assert_eq!(course(1, "--").pause(&RULES), Duration::from_secs(1));
        assert_eq!(course(1, "--+").pause(&RULES), Duration::from_secs(10));
        let quick = Rules { interval: Duration::from_millis(500), ..RULES };
        assert_eq!(course(1, "").pause(&quick), Duration::from_millis(500));
    }
}
