//! systemd's two ways to write any text as a name. Pure.

use std::fmt::Write;

/// Where systemd keeps one object per unit.
const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/";

/// Escapes one part of a unit name, as `systemd-escape` does.
///
/// A dash in a slice name means nesting, so a part that holds one must not keep it:
/// `my-team` becomes `my\x2dteam`.
#[must_use]
pub fn escape(part: &str) -> String {
    let mut escaped = String::with_capacity(part.len());
    for (at, byte) in part.bytes().enumerate() {
        match byte {
            b'/' => escaped.push('-'),
            b'.' if at == 0 => push_hex(&mut escaped, r"\x", byte),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => {
                escaped.push(char::from(byte));
            }
            _ => push_hex(&mut escaped, r"\x", byte),
        }
    }
    escaped
}

/// The unit behind an object path; `None` for the path of anything else.
#[must_use]
pub(super) fn unit_of_path(path: &str) -> Option<String> {
    let mut rest = path.strip_prefix(UNIT_PATH)?;
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some(at) = rest.find('_') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let hex = rest.get(at + 1..at + 3)?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        rest = &rest[at + 3..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

fn push_hex(text: &mut String, prefix: &str, byte: u8) {
    // Writing to a String cannot fail.
    let _: std::fmt::Result = write!(text, "{prefix}{byte:02x}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The object path of a unit, as systemd makes it.
    fn unit_path(unit: &str) -> String {
        let mut path = UNIT_PATH.to_owned();
        if unit.is_empty() {
            path.push('_');
        }
        for (at, byte) in unit.bytes().enumerate() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' => path.push(char::from(byte)),
                b'0'..=b'9' if at > 0 => path.push(char::from(byte)),
                _ => push_hex(&mut path, "_", byte),
            }
        }
        path
    }

    #[test]
    fn parts_are_escaped_as_systemd_escape_does() {
        for (part, expected) in [
            ("default", "default"),
            ("my-team", r"my\x2dteam"),
            ("a_b:c.d", "a_b:c.d"),
            (".hidden", r"\x2ehidden"),
            ("a/b", "a-b"),
            ("mit leer", r"mit\x20leer"),
            ("ä", r"\xc3\xa4"),
        ] {
            assert_eq!(escape(part), expected);
        }
    }

    #[test]
    fn a_unit_path_has_only_letters_and_digits_as_they_are() {
        assert_eq!(unit_path("x.my-ns.r7.service"), "/org/freedesktop/systemd1/unit/x_2emy_2dns_2er7_2eservice");
        assert_eq!(unit_path("7.slice"), "/org/freedesktop/systemd1/unit/_37_2eslice");
    }

    #[test]
    fn a_path_of_something_else_names_no_unit() {
        for path in [
            "/org/freedesktop/systemd1",
            "/org/freedesktop/systemd1/job/1",
            "/org/freedesktop/systemd1/unit/a_2",
            "/org/freedesktop/systemd1/unit/a_zz",
        ] {
            assert_eq!(unit_of_path(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn every_unit_is_found_again_from_its_path(unit in ".{1,40}") {
            prop_assert_eq!(unit_of_path(&unit_path(&unit)), Some(unit));
        }
    }
}
