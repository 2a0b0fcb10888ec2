//! How often somebody may be wrong about who he is: five times in fifteen minutes from one address, whatever the name, and
//! in all more often for one name, so that many addresses together do not guess it. An address from which that name came
//! in before is not held up by what strangers do.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// Failures from one address.
const OF_ADDRESS: usize = 5;
/// Failures for one name, from addresses that it never came in from.
const OF_NAME: usize = 25;
/// Within this time.
const WINDOW: SignedDuration = SignedDuration::from_mins(15);
/// Addresses and names that are kept in mind; more and the oldest are forgotten.
const KEPT: usize = 10_000;

/// What somebody is held up by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Tried {
    Address(IpAddr),
    Name(String),
}

/// Failures of late.
#[derive(Debug, Default)]
pub struct Attempts {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    failures: HashMap<Tried, VecDeque<Timestamp>>,
    /// From where a name came in.
    known: HashMap<String, VecDeque<IpAddr>>,
}

impl Attempts {
    /// Whether somebody may try now; otherwise the seconds until he may.
    ///
    /// # Errors
    /// Seconds to wait.
    pub fn allowed(&self, name: &str, from: IpAddr, now: Timestamp) -> Result<(), u64> {
        let (mut seen, from) = (self.seen(), neighbourhood(from));
        let known = seen.known.get(name).is_some_and(|places| places.contains(&from));
        let by_name = if known { 0 } else { seen.wait(&Tried::Name(name.to_owned()), OF_NAME, now) };
        match seen.wait(&Tried::Address(from), OF_ADDRESS, now).max(by_name) {
            0 => Ok(()),
            seconds => Err(seconds),
        }
    }

    /// Somebody was wrong.
    pub fn failed(&self, name: &str, from: IpAddr, now: Timestamp) {
        let (mut seen, from) = (self.seen(), neighbourhood(from));
        seen.note(Tried::Address(from), now);
        seen.note(Tried::Name(name.to_owned()), now);
    }

    /// Somebody was right, whose try was counted before that was known. What was wrong before counts on: else whoever has
    /// an account of his own could guess others' for ever.
    pub fn succeeded(&self, name: &str, from: IpAddr) {
        self.forgiven(name, from);
        let (mut seen, from) = (self.seen(), neighbourhood(from));
        let places = seen.known.entry(name.to_owned()).or_default();
        if !places.contains(&from) {
            places.push_back(from);
        }
        if places.len() > OF_NAME {
            places.pop_front();
        }
    }

    /// Somebody was not wrong, but is not in yet either. What was wrong before counts on, as above.
    pub fn forgiven(&self, name: &str, from: IpAddr) {
        let (mut seen, from) = (self.seen(), neighbourhood(from));
        seen.take_back(&Tried::Address(from));
        seen.take_back(&Tried::Name(name.to_owned()));
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Seconds until fewer than `most` failures are in the window.
    fn wait(&mut self, tried: &Tried, most: usize, now: Timestamp) -> u64 {
        let Some(times) = self.failures.get_mut(tried) else { return 0 };
        // A clock that was set back leaves no time in the future.
        times.retain(|at| *at <= now && now.duration_since(*at) < WINDOW);
        let Some(oldest) = times.len().checked_sub(most).and_then(|at| times.get(at)) else { return 0 };
        let left = WINDOW - now.duration_since(*oldest);
        u64::try_from(left.as_secs()).unwrap_or(0) + 1
    }

    fn take_back(&mut self, tried: &Tried) {
        if let Some(times) = self.failures.get_mut(tried) {
            times.pop_back();
        }
    }

    fn note(&mut self, tried: Tried, now: Timestamp) {
        if self.failures.len() >= KEPT {
            self.failures.retain(|_, times| times.back().is_some_and(|at| now.duration_since(*at) < WINDOW));
        }
        if self.failures.len() < KEPT || self.failures.contains_key(&tried) {
            self.failures.entry(tried).or_default().push_back(now);
        }
    }
}

/// What counts as one address: somebody has all of an IPv6 network of 64 bits to ask from.
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) & !u128::from(u64::MAX)).to_be_bytes()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn from(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn after_five_failures_an_address_waits_until_the_first_is_fifteen_minutes_old() {
        let attempts = Attempts::default();
        for second in 0..5 {
            assert_eq!(attempts.allowed("alice", from("192.0.2.1"), at(second)), Ok(()));
            attempts.failed("alice", from("192.0.2.1"), at(second));
        }
        assert_eq!(attempts.allowed("alice", from("192.0.2.1"), at(10)), Err(891));
        assert_eq!(attempts.allowed("bob", from("192.0.2.1"), at(10)), Err(891));
        assert_eq!(attempts.allowed("alice", from("192.0.2.2"), at(10)), Ok(()));
        assert_eq!(attempts.allowed("alice", from("192.0.2.1"), at(901)), Ok(()));
    }

    #[test]
    fn strangers_lock_nobody_out_who_came_in_before() {
        let attempts = Attempts::default();
        attempts.succeeded("alice", from("198.51.100.7"));
        for host in 0..25 {
            attempts.failed("alice", from(&format!("192.0.2.{host}")), at(0));
        }
        assert!(attempts.allowed("alice", from("192.0.2.200"), at(1)).is_err());
        assert_eq!(attempts.allowed("bob", from("192.0.2.200"), at(1)), Ok(()));
        assert_eq!(attempts.allowed("alice", from("198.51.100.7"), at(1)), Ok(()));
    }

    #[test]
    fn all_of_an_ipv6_network_is_one_address_and_so_is_a_mapped_one() {
        let attempts = Attempts::default();
        for host in 1..=5 {
            attempts.failed("alice", from(&format!("2001:db8::{host}")), at(0));
            attempts.failed("bob", from("::ffff:192.0.2.1"), at(0));
        }
        assert!(attempts.allowed("carol", from("2001:db8::ffff"), at(1)).is_err());
        assert_eq!(attempts.allowed("carol", from("2001:db8:0:1::1"), at(1)), Ok(()));
        assert!(attempts.allowed("carol", from("192.0.2.1"), at(1)).is_err());
    }

    #[test]
    fn whoever_is_right_now_and_then_guesses_others_no_more_often() {
        let attempts = Attempts::default();
        let (from, now) = (from("192.0.2.1"), at(10));
        for _ in 0..5 {
            assert_eq!(attempts.allowed("alice", from, now), Ok(()));
            attempts.failed("alice", from, now);
            if attempts.allowed("mallory", from, now).is_ok() {
                attempts.failed("mallory", from, now);
                attempts.succeeded("mallory", from);
            }
        }
        assert!(attempts.allowed("alice", from, now).is_err());
    }

    #[test]
    fn who_is_right_ever_so_often_is_not_held_up_nor_is_he_elsewhere() {
        let attempts = Attempts::default();
        for _ in 0..100 {
            assert_eq!(attempts.allowed("robot", from("192.0.2.1"), at(0)), Ok(()));
            attempts.failed("robot", from("192.0.2.1"), at(0));
            attempts.succeeded("robot", from("192.0.2.1"));
        }
        assert_eq!(attempts.allowed("robot", from("192.0.2.2"), at(1)), Ok(()));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nobody_up() {
        let attempts = Attempts::default();
        for _ in 0..5 {
            attempts.failed("alice", from("192.0.2.1"), at(10_000));
        }
        assert!(attempts.allowed("alice", from("192.0.2.1"), at(10_001)).is_err());
        assert_eq!(attempts.allowed("alice", from("192.0.2.1"), at(6_400)), Ok(()));
    }
}
