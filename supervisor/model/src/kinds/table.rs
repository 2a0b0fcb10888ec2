//! Cells of a table, as plain functions from an object.

use jiff::Timestamp;
use serde_json::Value;

/// Header of one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// `Name`, shown in capitals.
    pub name: &'static str,
    /// `string`, `integer`.
    pub kind: &'static str,
    /// 0 is always shown, 1 only in the wide table.
    pub priority: i32,
    /// What it says.
    pub description: &'static str,
}

impl Column {
    pub(super) const NAME: Column = Column::text("Name", "Unique within kind and namespace.");
    pub(super) const AGE: Column = Column::text("Age", "Time since creation.");

    pub(super) const fn text(name: &'static str, description: &'static str) -> Column {
        Column { name, kind: "string", priority: 0, description }
    }

    pub(super) const fn number(name: &'static str, description: &'static str) -> Column {
        Column { name, kind: "integer", priority: 0, description }
    }

    /// `name` for the name, before which clients put the kind where they show several.
    pub fn format(&self) -> &'static str {
        if *self == Self::NAME { "name" } else { "" }
    }

    pub(super) const fn wide(mut self) -> Column {
        self.priority = 1;
        self
    }
}

/// The value at a JSON pointer as text; empty if there is none.
pub(super) fn text(object: &Value, pointer: &str) -> Value {
    match object.pointer(pointer) {
        None | Some(Value::Null) => Value::from(""),
        Some(Value::String(text)) => Value::from(text.as_str()),
        Some(other) => Value::from(other.to_string()),
    }
}

/// The number of entries of the map or list at a JSON pointer.
pub(super) fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

/// The number at a JSON pointer, 0 if there is none.
pub(super) fn number(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).filter(|value| value.is_number()).cloned().unwrap_or_else(|| 0.into())
}

/// Time since the RFC 3339 time at a JSON pointer, as [`age`] writes it.
pub(super) fn since(object: &Value, pointer: &str, now: Timestamp) -> Value {
    let time = object.pointer(pointer).and_then(Value::as_str);
    match time.and_then(|time| time.parse::<Timestamp>().ok()) {
        Some(time) => Value::from(age(now.duration_since(time).as_secs())),
        None => Value::from("<unknown>"),
    }
}

/// Seconds in the two most telling units, as `kubectl` shows ages: `45s`, `3m20s`, `5h`, `12d`.
pub fn age(seconds: i64) -> String {
    let two = |value: i64, unit: char, rest: i64, small: char| match rest {
        0 => format!("{value}{unit}"),
        rest => format!("{value}{unit}{rest}{small}"),
    };
    match seconds.max(0) {
        s @ 0..120 => format!("{s}s"),
        s @ 120..600 => two(s / 60, 'm', s % 60, 's'),
        s @ 600..10_800 => format!("{}m", s / 60),
        s @ 10_800..28_800 => two(s / 3600, 'h', s % 3600 / 60, 'm'),
        s @ 28_800..172_800 => format!("{}h", s / 3600),
        s @ 172_800..691_200 => two(s / 86_400, 'd', s % 86_400 / 3600, 'h'),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_shown_in_the_units_that_matter() {
        let shown = [
            (-5, "0s"),
            (59, "59s"),
            (120, "2m"),
            (200, "3m20s"),
            (3600, "60m"),
            (10_860, "3h1m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
        ];
        for (seconds, expected) in shown {
            assert_eq!(age(seconds), expected);
        }
    }

    #[test]
    fn an_object_without_a_creation_time_has_an_unknown_age() {
        let cell = since(&serde_json::json!({}), "/metadata/creationTimestamp", Timestamp::UNIX_EPOCH);
        assert_eq!(cell, "<unknown>");
    }
}
