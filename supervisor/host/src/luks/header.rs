//! What a LUKS2 header says, read by ourselves before the library does anything about it.
//!
//! A header is two copies of the same: 4096 bytes in binary, then JSON, under one checksum. The
//! library takes the newer copy at its word, and writes the other anew after it. Whoever can write to
//! the file can therefore make it map other bytes, leave the cipher out, or derive a key for hours
//! with gigabytes of memory, all under a valid checksum. So every copy that the library would accept
//! must say what [`super::format`] writes, and nothing else; whose key it takes is found out after.
//!
//! ```text
//! 0       binary (4096), JSON (12288)      the first copy
//! 16384   binary (4096), JSON (12288)      the second
//! 32768   key slots
//! 1 MiB   data
//! ```

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{CIPHER, HEADER, KEY_SLOTS, VOLUME_KEY};
use crate::loopdev::SECTOR;

/// Bytes of one copy, and of its binary part.
const COPY: usize = 16 << 10;
const BINARY: usize = 4096;
/// What the first and the second copy begin with.
const MAGIC: [&[u8; 6]; 2] = [b"LUKS\xba\xbe", b"SKUL\xba\xbe"];
/// Derivations cost milliseconds at most with so many rounds; the library never takes fewer than 1000.
const ROUNDS: u64 = 10_000;
/// Key slots keep so many pieces of the key, for disks that cannot overwrite.
const STRIPES: u64 = 4000;

/// Why a header is not one to be used.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It cannot be read.
    #[error("reading the header")]
    Read(#[source] io::Error),
    /// Neither copy is a LUKS2 header with a valid checksum.
    #[error("there is no LUKS2 header with a valid checksum")]
    None,
    /// It is one that is never made here.
    #[error("copy {copy} of the header is not as it was made: {what}")]
    Foreign {
        /// 1 or 2.
        copy: usize,
        /// What is other than it should be.
        what: String,
    },
}

/// Looks at both copies; nothing is written. Blocks.
///
/// # Errors
/// [`HeaderError`]; a copy whose checksum is wrong is no error beside one that is right.
pub(super) fn check(device: &Path) -> Result<(), HeaderError> {
    let mut bytes = vec![0; 2 * COPY];
    File::open(device).and_then(|mut device| device.read_exact(&mut bytes)).map_err(HeaderError::Read)?;
    check_bytes(&bytes)
}

fn check_bytes(bytes: &[u8]) -> Result<(), HeaderError> {
    let mut valid = 0;
    for (at, copy) in bytes.chunks_exact(COPY).enumerate() {
        // The library believes the length that a copy gives itself, and looks for the checksum there.
        match Copy::parse(at, copy) {
            Some(Ok(copy)) => copy.check()?,
            Some(Err(what)) => return Err(HeaderError::Foreign { copy: at + 1, what }),
            None => continue,
        }
        valid += 1;
    }
    if valid == 0 { Err(HeaderError::None) } else { Ok(()) }
}

/// A copy with a valid checksum.
struct Copy<'a> {
    number: usize,
    binary: &'a [u8],
    json: &'a [u8],
}

impl<'a> Copy<'a> {
    /// `None` for what the library refuses, too; [`Err`] for another length or checksum than ours.
    fn parse(at: usize, copy: &'a [u8]) -> Option<Result<Self, String>> {
        let (binary, json) = copy.split_at_checked(BINARY)?;
        if binary.get(..6) != MAGIC.get(at).map(|magic| &magic[..]) || binary.get(6..8)? != [0, 2] {
            return None;
        }
        let length = u64::from_be_bytes(binary.get(8..16)?.try_into().ok()?);
        if length != COPY as u64 {
            return Some(Err(format!("it has {length} bytes and should have {COPY}")));
        }
        let place = u64::from_be_bytes(binary.get(256..264)?.try_into().ok()?);
        if place != (at * COPY) as u64 {
            return None;
        }
        let algorithm = word(binary.get(72..104)?);
        if algorithm != "sha256" {
            return Some(Err(format!("its checksum is {algorithm:?} and should be sha256")));
        }
        let mut blank = copy.to_vec();
        blank.get_mut(448..512)?.fill(0);
        let is_valid = digest(&SHA256, &blank).as_ref() == binary.get(448..480)?;
        is_valid.then_some(Ok(Self { number: at + 1, binary, json }))
    }

    fn check(&self) -> Result<(), HeaderError> {
        let foreign = |what| HeaderError::Foreign { copy: self.number, what };
        if self.binary.get(208..256).is_none_or(|subsystem| !word(subsystem).is_empty()) {
            return Err(foreign("it belongs to another program".to_owned()));
        }
        let end = self.json.iter().position(|byte| *byte == 0).unwrap_or(self.json.len());
        let said = serde_json::from_slice::<Said>(self.json.get(..end).unwrap_or_default());
        // The library's parser goes less deep than ours, which has an end, too.
        let said = said.map_err(|error| foreign(format!("its text is none of ours: {error}")))?;
        said.check().map_err(foreign)
    }
}

/// Text of a field that is filled up with zeros.
fn word(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}

/// The text of a header. What is not named here is never written by us.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    keyslots: One<KeySlot>,
    segments: One<Segment>,
    digests: One<Digest>,
    tokens: Map<String, Value>,
    config: Settings,
}

/// Exactly one, by the name `0`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One<T> {
    #[serde(rename = "0")]
    only: T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeySlot {
    #[serde(rename = "type")]
    kind: String,
    key_size: u64,
    af: Stripes,
    area: Area,
    kdf: Derivation,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stripes {
    #[serde(rename = "type")]
    kind: String,
    stripes: u64,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    size: String,
    encryption: String,
    key_size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Derivation {
    #[serde(rename = "type")]
    kind: String,
    hash: String,
    iterations: u64,
    #[serde(rename = "salt")]
    _salt: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Segment {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    size: String,
    iv_tweak: String,
    encryption: String,
    sector_size: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Digest {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    segments: Vec<String>,
    hash: String,
    iterations: u64,
    #[serde(rename = "salt")]
    _salt: String,
    #[serde(rename = "digest")]
    _digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    json_size: String,
    keyslots_size: String,
}

impl Said {
    fn check(&self) -> Result<(), String> {
        let (slot, data, digest) = (&self.keyslots.only, &self.segments.only, &self.digests.only);
        let (area, end) = (&slot.area, 2 * COPY as u64 + KEY_SLOTS);
        let begin: u64 = area.offset.parse().unwrap_or_default();
        let size: u64 = area.size.parse().unwrap_or(u64::MAX);
        let cipher = format!("{}-{}", CIPHER.0, CIPHER.1);
        same("the kind of its data", &data.kind, "crypt")?;
        same("the cipher", &data.encryption, &cipher)?;
        same("the place where the data begins", &data.offset, HEADER)?;
        same("the size of the data", &data.size, "dynamic")?;
        same("the number of the first sector", &data.iv_tweak, "0")?;
        same("the sector size", data.sector_size, SECTOR)?;
        same("the kind of its key slot", &slot.kind, "luks2")?;
        same("the size of the key", slot.key_size, VOLUME_KEY)?;
        same("the derivation of the key slot's key", &slot.kdf.kind, "pbkdf2")?;
        same("the derivation's hash", &slot.kdf.hash, "sha256")?;
        at_most("the rounds of the derivation", slot.kdf.iterations)?;
        same("the kind of the key's pieces", &slot.af.kind, "luks1")?;
        same("the number of the key's pieces", slot.af.stripes, STRIPES)?;
        same("the hash of the key's pieces", &slot.af.hash, "sha256")?;
        same("the kind of the key slot's place", &area.kind, "raw")?;
        same("the cipher of the key slot", &area.encryption, &cipher)?;
        same("the key size of the key slot", area.key_size, VOLUME_KEY)?;
        let fits = begin >= 2 * COPY as u64 && begin.checked_add(size).is_some_and(|last| last <= end);
        same("whether the key slot lies where key slots are", fits, true)?;
        same("the kind of its digest", &digest.kind, "pbkdf2")?;
        same("the digest's hash", &digest.hash, "sha256")?;
        at_most("the rounds of the digest", digest.iterations)?;
        same("what the digest is for", [&digest.keyslots[..], &digest.segments[..]].concat().join(" "), "0 0")?;
        same("the number of tokens", self.tokens.len(), 0)?;
        same("the size of its text", &self.config.json_size, COPY - BINARY)?;
        same("the size of the key slots", &self.config.keyslots_size, KEY_SLOTS)
    }
}

/// Whether both are written alike.
fn same(what: &str, found: impl Display, made: impl Display) -> Result<(), String> {
    let (found, made) = (found.to_string(), made.to_string());
    // Whoever wrote it had room for thousands of letters.
    let shown: String = found.chars().take(40).collect();
    if found == made { Ok(()) } else { Err(format!("{what} is {shown:?} and should be {made:?}")) }
}

fn at_most(what: &str, found: u64) -> Result<(), String> {
    if found <= ROUNDS { Ok(()) } else { Err(format!("{what} are {found} and should be {ROUNDS} at most")) }
}

#[cfg(test)]
mod tests;
