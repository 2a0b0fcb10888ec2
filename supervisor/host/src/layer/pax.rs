//! Extended headers of the POSIX format: records `<length> <key>=<value>\n`, where the length
//! counts the whole record, so that a value may hold any byte.

use super::archive::{ArchiveError, Time};
use super::sparse::{self, Segment};

pub const PATH: &str = "path";
pub const LINK_PATH: &str = "linkpath";
pub const SIZE: &str = "size";
pub const UID: &str = "uid";
pub const GID: &str = "gid";
pub const MTIME: &str = "mtime";
pub const SPARSE_MAJOR: &str = "GNU.sparse.major";
pub const SPARSE_NAME: &str = "GNU.sparse.name";
pub const SPARSE_REAL_SIZE: &str = "GNU.sparse.realsize";
pub const SPARSE_SIZE: &str = "GNU.sparse.size";
const SPARSE_MAP: &str = "GNU.sparse.map";
const SPARSE_OFFSET: &str = "GNU.sparse.offset";
const SPARSE_BYTES: &str = "GNU.sparse.numbytes";
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of one extended header, in order.
#[derive(Default)]
pub struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// Splits the bytes of a header.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, ArchiveError> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let (key, value, rest) =
                record(bytes).ok_or(ArchiveError::Extension("a record is not of the form `length key=value`"))?;
            records.push((key.to_vec(), value.to_vec()));
            bytes = rest;
        }
        Ok(Self(records))
    }

    /// The value of a key, the last one if it stands more than once.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        let found = self.0.iter().rfind(|(name, _)| name == key.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    /// The same as a number.
    pub fn number(&self, key: &str) -> Result<Option<u64>, ArchiveError> {
        self.bytes(key).map(number).transpose()
    }

    /// The same as a time with a fraction.
    pub fn time(&self, key: &str) -> Result<Option<Time>, ArchiveError> {
        let Some(value) = self.bytes(key) else {
            return Ok(None);
        };
        let time = str::from_utf8(value).ok().and_then(time);
        time.map(Some).ok_or(ArchiveError::Extension("a time is not a number"))
    }

    /// Extended attributes, by their full names.
    pub fn xattrs(&self) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
        let mut found = Vec::new();
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix(XATTR) {
                let name = String::from_utf8(name.to_vec())
                    .map_err(|_| ArchiveError::Extension("an attribute's name is not text"))?;
                found.push((name, value.clone()));
            }
        }
        Ok(found)
    }

    /// The map of a sparse file in one of the two old encodings.
    pub fn segments(&self) -> Result<Option<Vec<Segment>>, ArchiveError> {
        let numbers: Vec<u64> = if let Some(map) = self.bytes(SPARSE_MAP) {
            let parts = map.split(|byte| *byte == b',').filter(|part| !part.is_empty());
            parts.map(number).collect::<Result<_, _>>()?
        } else {
            let keys = [SPARSE_OFFSET.as_bytes(), SPARSE_BYTES.as_bytes()];
            let records = self.0.iter().filter(|(key, _)| keys.contains(&key.as_slice()));
            records.map(|(_, value)| number(value)).collect::<Result<_, _>>()?
        };
        if numbers.is_empty() && self.bytes(SPARSE_SIZE).is_none() {
            return Ok(None);
        }
        let pairs = sparse::pairs(&numbers);
        pairs.map(Some).ok_or(ArchiveError::Extension("a sparse map with half a segment"))
    }
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length: usize = str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let body = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &bytes[length..]))
}

fn number(value: &[u8]) -> Result<u64, ArchiveError> {
    let text = str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok()).ok_or(ArchiveError::Extension("a value is not a number"))
}

fn time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    // -1.25 is 0.75 after -2.
    Some(if whole.starts_with('-') && nanoseconds > 0 {
        Time { seconds: seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds }
    } else {
        Time { seconds, nanoseconds }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_newlines_and_what_looks_like_a_record() {
        let value = b"x\n16 path=/etc/x\n";
        let length = 3 + "user.a=".len() + value.len() + 1;
        let mut bytes = format!("{length} user.a=").into_bytes();
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
        let records = Records::parse(&bytes).unwrap();
        assert_eq!(records.bytes("user.a"), Some(&value[..]));
        assert_eq!(records.bytes(PATH), None);
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        for bad in ["5 a=b\n", "99 a=b\n", "x a=b\n", "6 a=bc", "0 a=b\n", " =\n", "7 abcd\n"] {
            assert!(Records::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_may_lie_before_1970() {
        let at = |text| time(text).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(at("12"), Some((12, 0)));
        assert_eq!(at("12.5"), Some((12, 500_000_000)));
        assert_eq!(at("12.1234567891234"), Some((12, 123_456_789)));
        assert_eq!(at("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(at("soon"), None);
        assert_eq!(at("1.-5"), None);
    }
}
