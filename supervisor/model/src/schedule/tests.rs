//! Timetables through the changes of clocks, and what follows from looking at one.

use proptest::prelude::*;

use super::*;
use crate::resource::schedule::{Action, ActionKind};

const UID: &str = "1c5a9f62-5d1e-4a57-9a86-00000000002a";

fn spec(cron: Option<&str>, interval: Option<&str>, timezone: &str, jitter: Option<&str>) -> ScheduleSpec {
    ScheduleSpec {
        cron: cron.map(str::to_owned),
        interval: interval.map(str::to_owned),
        timezone: timezone.into(),
        jitter: jitter.map(str::to_owned),
        missed_runs: MissedRuns::RunOnce,
        suspend: false,
        action: Action { kind: ActionKind::Cleanup, bundle: None },
    }
}

fn cron(expression: &str, zone: &str) -> Timetable {
    Timetable::new(&spec(Some(expression), None, zone, None), UID, Timestamp::UNIX_EPOCH).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn times(table: &Timetable, after: &str, count: usize) -> Vec<String> {
    let times = std::iter::successors(table.next(at(after)), |time| table.next(*time));
    times.take(count).map(|time| time.to_string()).collect()
}

#[test]
fn a_time_of_day_is_meant_where_the_clock_hangs() {
    let table = cron("30 4 * * MON-FRI", "Asia/Kolkata");
    assert_eq!(times(&table, "2026-11-20T00:00:00Z", 2), ["2026-11-22T23:00:00Z", "2026-11-23T23:00:00Z"]);
    let table = cron("30 4 * * *", "europe/berlin");
    assert_eq!(times(&table, "2026-07-01T02:30:00Z", 1), ["2026-07-02T02:30:00Z"], "the time itself is not after it");
    assert_eq!(times(&table, "2026-12-01T00:00:00Z", 1), ["2026-12-01T03:30:00Z"]);
    assert_eq!(times(&cron("0 0 29 2 *", "UTC"), "2024-03-01T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
}

#[test]
fn a_time_of_day_that_does_not_exist_comes_right_after_the_gap_and_only_once() {
    // Berlin goes from 02:00 to 03:00 on 29 March 2026, at 01:00 UTC.
    let around = |expression| times(&cron(expression, "Europe/Berlin"), "2026-03-28T12:00:00Z", 2);
    assert_eq!(around("30 2 * * *"), ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    assert_eq!(around("0 2 * * *"), ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]);
    assert_eq!(around("15,30,45 2 * * *"), ["2026-03-29T01:00:00Z", "2026-03-30T00:15:00Z"]);
    assert_eq!(around("0 2,3 * * *"), ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]);
    // Samoa had no 30 December 2011.
    let samoa = times(&cron("0 12 * * *", "Pacific/Apia"), "2011-12-29T00:00:00Z", 3);
    assert_eq!(samoa, ["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"]);
}

#[test]
fn a_time_of_day_that_exists_twice_comes_the_first_time() {
    // Berlin goes from 03:00 back to 02:00 on 25 October 2026, at 01:00 UTC.
    let table = cron("30 2 * * *", "Europe/Berlin");
    let around = times(&table, "2026-10-24T12:00:00Z", 2);
    assert_eq!(around, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    for between in ["2026-10-25T00:45:00Z", "2026-10-25T01:10:00Z", "2026-10-25T01:30:00Z", "2026-10-25T01:40:00Z"] {
        assert_eq!(times(&table, between, 1), ["2026-10-26T01:30:00Z"], "{between}");
    }
}

#[test]
fn a_rhythm_goes_on_through_both() {
    let half = cron("*/30 * * * *", "Europe/Berlin");
    let spring = times(&half, "2026-03-29T00:15:00Z", 3);
    assert_eq!(spring, ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]);
    let autumn = times(&half, "2026-10-25T00:15:00Z", 4);
    let expected = ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"];
    assert_eq!(autumn, expected);
    // Every second hour by what clocks show: 00, 02, 02 again, 04.
    let even = times(&cron("0 */2 * * *", "Europe/Berlin"), "2026-10-24T22:30:00Z", 3);
    assert_eq!(even, ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T03:00:00Z"]);
}

#[test]
fn an_interval_is_counted_from_the_creation_whatever_clocks_do() {
    let spec = spec(None, Some("6h"), "Europe/Berlin", None);
    let table = Timetable::new(&spec, UID, at("2026-03-28T20:10:05Z")).unwrap();
    let next = times(&table, "2026-03-28T20:10:05Z", 2);
    assert_eq!(next, ["2026-03-29T02:10:05Z", "2026-03-29T08:10:05Z"]);
    assert_eq!(times(&table, "2026-03-27T20:10:06Z", 1), ["2026-03-28T02:10:05Z"], "a clock that went back");
}

#[test]
fn jitter_moves_all_times_of_a_schedule_alike_and_those_of_another_differently() {
    let with = |uid: &str| {
        let spec = spec(Some("0 3 * * *"), None, "UTC", Some("1h"));
        Timetable::new(&spec, uid, Timestamp::UNIX_EPOCH).unwrap()
    };
    let mine = times(&with(UID), "2026-01-01T00:00:00Z", 2);
    assert_eq!(mine, times(&with(UID), "2026-01-01T00:00:00Z", 2));
    assert_eq!(mine[0][13..], mine[1][13..]);
    assert!(mine[0].starts_with("2026-01-01T03:"), "{mine:?}");
    assert_ne!(mine, times(&with("1c5a9f62-5d1e-4a57-9a86-00000000002b"), "2026-01-01T00:00:00Z", 2));
    assert_eq!(times(&with(UID), &mine[0], 1), mine[1..]);
}

fn looked(planned: &str, last: Option<&str>, busy: bool, now: &str, missed_runs: MissedRuns) -> (Due, String) {
    let present = Present { planned: Some(at(planned)), last: last.map(at), busy, again: None, now: at(now) };
    let Turn { due, next } = turn(&cron("0 3 * * *", "UTC"), missed_runs, &present);
    (due, next.unwrap().to_string())
}

#[test]
fn a_time_that_has_come_is_run_and_one_that_has_not_is_waited_for() {
    use MissedRuns::{RunOnce, Skip};
    let next = "2026-05-03T03:00:00Z".to_owned();
    for policy in [RunOnce, Skip] {
        let look = |now| looked("2026-05-02T03:00:00Z", None, false, now, policy);
        assert_eq!(look("2026-05-02T02:59:59Z"), (Due::NotYet, "2026-05-02T03:00:00Z".to_owned()));
        assert_eq!(look("2026-05-02T03:00:00Z"), (Due::Now, next.clone()));
        assert_eq!(look("2026-05-02T03:01:00Z"), (Due::Now, next.clone()));
    }
    let busy = looked("2026-05-02T03:00:00Z", None, true, "2026-05-02T03:00:00Z", RunOnce);
    assert_eq!(busy, (Due::Busy, next));
}

#[test]
fn what_was_missed_is_made_up_for_by_one_run_or_passed_over() {
    let look = |policy| looked("2026-05-02T03:00:00Z", None, false, "2026-05-04T12:00:00Z", policy);
    let missed = Missed { count: 3, first: at("2026-05-02T03:00:00Z") };
    let next = "2026-05-05T03:00:00Z".to_owned();
    assert_eq!(look(MissedRuns::RunOnce), (Due::Late(missed), next.clone()));
    assert_eq!(look(MissedRuns::Skip), (Due::PassedOver(missed), next));
    let ages = looked("1970-01-01T03:00:00Z", None, false, "2026-05-04T12:00:00Z", MissedRuns::RunOnce);
    assert!(matches!(ages.0, Due::Late(Missed { count: MOST_MISSED, .. })), "{ages:?}");
}

#[test]
fn what_failed_is_tried_again_soon_and_later_each_time_but_not_past_the_next_time() {
    let after = |retries| again(at("2026-05-02T03:00:00Z"), retries).unwrap().to_string();
    let minutes: Vec<String> = [0, 1, 2, 3, 4, 40].map(|retries| after(retries)[14..16].to_owned()).into();
    assert_eq!(minutes, ["01", "02", "04", "08", "10", "10"]);
    let look = |planned: &str, now: &str, again: &str| {
        let again = Some(at(again));
        let present = Present { planned: Some(at(planned)), last: None, busy: false, again, now: at(now) };
        let Turn { due, next } = turn(&cron("0 3 * * *", "UTC"), MissedRuns::RunOnce, &present);
        (due, next.unwrap().to_string())
    };
    let (regular, soon) = ("2026-05-03T03:00:00Z", "2026-05-02T03:05:00Z");
    assert_eq!(look(regular, "2026-05-02T03:04:00Z", soon), (Due::NotYet, soon.to_owned()));
    assert_eq!(look(soon, soon, soon), (Due::Now, regular.to_owned()));
    assert_eq!(look(regular, "2026-05-02T09:00:00Z", soon), (Due::NotYet, "2026-05-02T09:00:00Z".to_owned()));
    assert_eq!(look(regular, "2026-05-03T02:55:00Z", "2026-05-03T03:05:00Z"), (Due::NotYet, regular.to_owned()));
}

#[test]
fn a_clock_that_goes_back_a_little_repeats_nothing_and_one_that_was_wrong_is_forgotten() {
    let ran = Some("2026-05-02T03:00:01Z");
    let look = |now| looked("2026-05-03T03:00:00Z", ran, false, now, MissedRuns::RunOnce);
    assert_eq!(look("2026-05-02T02:59:58Z"), (Due::NotYet, "2026-05-03T03:00:00Z".to_owned()));
    assert_eq!(look("2026-05-01T02:59:58Z"), (Due::NotYet, "2026-05-01T03:00:00Z".to_owned()));
}

proptest! {
    #[test]
    fn times_rise_and_none_is_left_out_between(
        minute in 0_u8..60, hour in 0_u8..24, rhythm: bool, second in 1_700_000_000_i64..1_900_000_000, jitter in 0_u32..7200,
        zone in proptest::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
    ) {
        let cron = if rhythm { format!("{minute} */3 * * *") } else { format!("{minute} {hour} * * *") };
        let spec = spec(Some(&cron), None, zone, Some(&format!("{jitter}s")));
        let table = Timetable::new(&spec, UID, Timestamp::UNIX_EPOCH).unwrap();
        let after = Timestamp::from_second(second).unwrap();
        let next = table.next(after).unwrap();
        let (later, longest) = (table.next(next).unwrap(), if rhythm { 4 } else { 25 });
        prop_assert!(next > after && later > next);
        prop_assert!(next.duration_since(after) <= SignedDuration::from_hours(longest));
        // Whoever looks at any time before it is told the same.
        let between = Timestamp::from_second(next.as_second() - 1).unwrap();
        prop_assert_eq!(table.next(between.max(after)), Some(next));
    }
}
