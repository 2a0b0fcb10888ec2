//! Where the stored bytes of a sparse file belong.

use std::io::{self, Read};

/// More segments than this are no file but an attack.
pub const MOST_SEGMENTS: usize = 1 << 18;
/// Longest decimal number in a map.
const LONGEST_NUMBER: usize = 20;

/// A run of bytes that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// The segments of one file, in order, and its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseMap {
    /// In order, without overlap, inside the file.
    pub segments: Vec<Segment>,
    /// Length of the file, holes included.
    pub real: u64,
}

impl SparseMap {
    /// Checks that the segments fit the file and the bytes stored for it.
    pub fn new(segments: Vec<Segment>, real: u64, stored: u64) -> Result<Self, &'static str> {
        let (mut end, mut sum) = (0u64, 0u64);
        for segment in &segments {
            if segment.offset < end {
                return Err("its segments overlap");
            }
            end = segment.offset.checked_add(segment.length).ok_or("it is too long")?;
            sum = sum.checked_add(segment.length).ok_or("it is too long")?;
        }
        if end > real {
            return Err("a segment lies past its end");
        }
        if sum != stored {
            return Err("its segments do not add up to the bytes stored");
        }
        Ok(Self { segments, real })
    }
}

/// Why a map inside the body cannot be read.
pub enum MapError {
    /// The stream fails.
    Read(io::Error),
    /// It is not a map.
    Malformed(&'static str),
}

/// Offsets and lengths in turn, as segments; `None` if one is left over.
pub fn pairs(numbers: &[u64]) -> Option<Vec<Segment>> {
    let (pairs, []) = numbers.as_chunks::<2>() else {
        return None;
    };
    let segments = pairs.iter().map(|[offset, length]| Segment { offset: *offset, length: *length });
    Some(segments.collect())
}

/// Reads the map that opens the body: one decimal number per line, first how many segments, then
/// offset and length of each. Also tells how many bytes that took.
pub fn read_map(from: &mut impl Read) -> Result<(Vec<Segment>, u64), MapError> {
    let mut read = 0;
    let count = usize::try_from(line(from, &mut read)?).unwrap_or(usize::MAX);
    if count > MOST_SEGMENTS {
        return Err(MapError::Malformed("it has too many segments"));
    }
    let mut segments = Vec::new();
    for _ in 0..count {
        segments.push(Segment { offset: line(from, &mut read)?, length: line(from, &mut read)? });
    }
    Ok((segments, read))
}

fn line(from: &mut impl Read, read: &mut u64) -> Result<u64, MapError> {
    let mut digits = String::new();
    loop {
        let mut byte = [0];
        if from.read(&mut byte).map_err(MapError::Read)? == 0 {
            return Err(MapError::Malformed("its map is cut short"));
        }
        *read += 1;
        match byte[0] {
            b'\n' => break,
            digit if digit.is_ascii_digit() && digits.len() < LONGEST_NUMBER => {
                digits.push(char::from(digit));
            }
            _ => return Err(MapError::Malformed("its map is not made of numbers")),
        }
    }
    digits.parse().map_err(|_| MapError::Malformed("its map is not made of numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_to_fit_the_file_and_the_bytes_stored() {
        let segments = |list: &[(u64, u64)]| {
            list.iter().map(|(offset, length)| Segment { offset: *offset, length: *length }).collect()
        };
        assert!(SparseMap::new(segments(&[(0, 5), (10, 5)]), 20, 10).is_ok());
        assert!(SparseMap::new(segments(&[(0, 5), (4, 5)]), 20, 10).is_err());
        assert!(SparseMap::new(segments(&[(10, 5), (0, 5)]), 20, 10).is_err());
        assert!(SparseMap::new(segments(&[(0, 5), (18, 5)]), 20, 10).is_err());
        assert!(SparseMap::new(segments(&[(0, 5)]), 20, 10).is_err());
        assert!(SparseMap::new(segments(&[(u64::MAX, 5)]), u64::MAX, 5).is_err());
    }

    #[test]
    fn a_map_in_the_body_is_read_to_its_last_line_and_no_further() {
        let mut bytes = &b"2\n0\n5\n10\n5\nDATA"[..];
        let Ok((segments, read)) = read_map(&mut bytes) else { panic!("refused") };
        assert_eq!(segments.len(), 2);
        assert_eq!((read, bytes), (11, &b"DATA"[..]));
        for bad in ["", "1\n5\n", "x\n", "99999999999\n", "1\n-5\n5\n", &"1".repeat(5000)] {
            assert!(read_map(&mut bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
