//! Rows of the results: a number with all that it was made from.

use serde_json::{Value, json};

/// What was measured, and which end of it is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Less is better.
    Microseconds,
    /// More is better.
    BytesPerSecond,
    /// More is better.
    OperationsPerSecond,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Unit::Microseconds => "microseconds",
            Unit::BytesPerSecond => "bytes_per_second",
            Unit::OperationsPerSecond => "operations_per_second",
        }
    }

    fn best(self, raw: &[u64]) -> f64 {
        let best = if self == Unit::Microseconds { raw.iter().min() } else { raw.iter().max() };
        best.copied().map_or(f64::NAN, float)
    }
}

/// Ours over the peer's. The same place in both lists is the same round, and the value is the median of the rounds'
/// own ratios: what else the machine does passes over both alike.
pub fn row(name: &str, unit: Unit, ours: &[u64], theirs: &[u64]) -> Value {
    let rounds: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| float(*ours) / float(*theirs)).collect();
    json!({
        "name": name,
        "unit": "ratio",
        "value": thousandth(median(rounds)),
        "of_medians": thousandth(median(floats(ours)) / median(floats(theirs))),
        "of_best": thousandth(unit.best(ours) / unit.best(theirs)),
        format!("berth_{}", unit.word()): ours,
        format!("peer_{}", unit.word()): theirs,
    })
}

/// Milliseconds: the median of so many microseconds, and the least of them.
pub fn time(name: &str, microseconds: &[u64]) -> Value {
    json!({
        "name": name,
        "unit": "ms",
        "value": thousandth(median(floats(microseconds)) / 1000.0),
        "least": thousandth(Unit::Microseconds.best(microseconds) / 1000.0),
        "microseconds": microseconds,
    })
}

/// Milliseconds that all but one in a hundred stay below, beside the median.
pub fn late(name: &str, microseconds: &[u64]) -> Value {
    let mut row = time(name, microseconds);
    row["median"] = row["value"].take();
    row["value"] = thousandth(all_but_a_hundredth(microseconds) / 1000.0).into();
    row
}

/// What all but one in a hundred of so many microseconds stay below, in microseconds.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is one of the numbers given, or nothing"
)]
pub fn hundredth(microseconds: &[u64]) -> u64 {
    all_but_a_hundredth(microseconds) as u64
}

/// The least number that at least 99 of 100 do not exceed.
fn all_but_a_hundredth(raw: &[u64]) -> f64 {
    let mut sorted = raw.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * 99).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().map_or(f64::NAN, float)
}

fn thousandth(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn floats(raw: &[u64]) -> Vec<f64> {
    raw.iter().copied().map(float).collect()
}

#[allow(clippy::cast_precision_loss, reason = "what is measured is far below 2^52")]
fn float(value: u64) -> f64 {
    value as f64
}

/// The one in the middle, or what lies between the two in the middle; not a number if there is none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.wrapping_sub(1)), at(middle)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp, reason = "halves of small whole numbers are exact")]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(vec![1.0, 4.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn a_ratio_is_of_rounds_and_keeps_its_numbers() {
        let row = row("x", Unit::Microseconds, &[20, 90, 30], &[10, 30, 10]);
        assert_eq!(row["value"], 3.0);
        assert_eq!(row["of_best"], 2.0);
        assert_eq!(row["berth_microseconds"], json!([20, 90, 30]));
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "small whole numbers are exact")]
    fn of_two_hundred_the_two_latest_may_be_later() {
        let many: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(all_but_a_hundredth(&many), 198.0);
        assert_eq!(all_but_a_hundredth(&[7]), 7.0);
    }

    #[test]
    fn the_best_throughput_is_the_highest() {
        assert_eq!(row("x", Unit::BytesPerSecond, &[20, 40], &[10, 80])["of_best"], 0.5);
    }
}
