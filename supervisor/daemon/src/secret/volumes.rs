//! The keys of volumes: one small file, one line each.
//!
//! ```text
//! berth volume keys 1
//! epoch 3
//! <uid of the volume> <epoch> <key, sealed by the master key of that epoch>
//! ```
//!
//! A sealed key is bound to the volume's uid and to the epoch, so that no line opens for another
//! volume, and no line of an earlier time in this one. A line that cannot be read is that volume's
//! loss and nobody else's: it is kept byte by byte, as it may be put right by hand for as long as its
//! master key lives, and all others work. No new epoch begins over the head of such a line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use super::envelope::{Envelope, Key, Record};

/// Bytes of a volume's key.
const LENGTH: usize = 64;
const TITLE: &str = "berth volume keys 1";
/// Lines before those with keys.
const HEAD: usize = 2;

/// The file, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ring {
    epoch: u64,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Key { uid: String, epoch: u64, sealed: Vec<u8> },
    Unreadable(Vec<u8>),
}

impl Line {
    /// Whether it is a volume's, as far as that can be read.
    fn is_of(&self, volume: &str) -> bool {
        match self {
            Self::Key { uid, .. } => uid == volume,
            Self::Unreadable(bytes) => bytes.strip_prefix(volume.as_bytes()).is_some_and(|rest| rest.starts_with(b" ")),
        }
    }
}

impl Ring {
    pub(super) fn parse(file: &[u8]) -> Self {
        let mut ring = Self::default();
        for (at, line) in file.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            match (epoch_line(line), key_line(line)) {
                (Some(epoch), _) => ring.epoch = epoch,
                (None, Some(key)) => ring.lines.push(key),
                // What the file begins with holds no key, changed or not.
                (None, None) if line == TITLE.as_bytes() || (at < HEAD && line.len() <= TITLE.len()) => {}
                (None, None) => ring.lines.push(Line::Unreadable(line.to_vec())),
            }
        }
        // Should the line with the epoch be the one that cannot be read.
        let newest = ring.lines.iter().filter_map(|line| match line {
            Line::Key { epoch, .. } => Some(*epoch),
            Line::Unreadable(_) => None,
        });
        ring.epoch = newest.max().unwrap_or_default().max(ring.epoch);
        ring
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut file = format!("{TITLE}\nepoch {}\n", self.epoch).into_bytes();
        for line in &self.lines {
            file.extend_from_slice(&written(line));
            file.push(b'\n');
        }
        file
    }

    /// The key of a volume: `None` if there is no line for it, [`Err`] if it does not open.
    pub(super) fn open(&self, uid: &str, master: &Key) -> Option<Result<Zeroizing<Vec<u8>>, Unopened>> {
        self.lines.iter().find(|line| line.is_of(uid)).map(|line| match line {
            Line::Key { epoch, sealed, .. } => unseal(uid, *epoch, sealed, master).ok_or(Unopened),
            Line::Unreadable(_) => Err(Unopened),
        })
    }

    /// Draws a key for a volume; whatever was there for it is replaced.
    pub(super) fn draw(
        &mut self,
        uid: &str,
        master: &Key,
        random: &dyn SecureRandom,
    ) -> Result<Zeroizing<Vec<u8>>, ring::error::Unspecified> {
        let mut key = Zeroizing::new(vec![0; LENGTH]);
        random.fill(key.as_mut())?;
        let line = seal(uid, self.epoch, &key, master, random)?;
        self.forget(uid);
        self.lines.push(line);
        Ok(key)
    }

    pub(super) fn forget(&mut self, uid: &str) {
        self.lines.retain(|line| !line.is_of(uid));
    }

    /// The lines of the file, counted from 1, that do not open, those of one volume aside.
    pub(super) fn unopened(&self, but: &str, master: &Key) -> Vec<usize> {
        let is_lost = |line: &Line| match line {
            _ if line.is_of(but) => false,
            Line::Key { uid, epoch, sealed } => unseal(uid, *epoch, sealed, master).is_none(),
            Line::Unreadable(_) => true,
        };
        let lines = self.lines.iter().enumerate().filter(|(_, line)| is_lost(line));
        lines.map(|(at, _)| at + 1 + HEAD).collect()
    }

    /// The same keys but one, sealed for the next epoch by another master key. A line that does not
    /// open now is taken along as it is, and will never open: see [`Ring::unopened`].
    pub(super) fn next(
        &self,
        without: &str,
        from: &Key,
        to: &Key,
        random: &dyn SecureRandom,
    ) -> Result<Self, ring::error::Unspecified> {
        let mut next = Self { epoch: self.epoch.saturating_add(1), lines: Vec::new() };
        for line in &self.lines {
            match line {
                _ if line.is_of(without) => {}
                Line::Key { uid, epoch, sealed } => match unseal(uid, *epoch, sealed, from) {
                    Some(key) => next.lines.push(seal(uid, next.epoch, &key, to, random)?),
                    None => next.lines.push(line.clone()),
                },
                Line::Unreadable(_) => next.lines.push(line.clone()),
            }
        }
        Ok(next)
    }
}

/// A sealed key was changed on disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unopened;

fn epoch_line(line: &[u8]) -> Option<u64> {
    std::str::from_utf8(line).ok()?.strip_prefix("epoch ")?.parse().ok()
}

fn key_line(line: &[u8]) -> Option<Line> {
    let mut parts = std::str::from_utf8(line).ok()?.split(' ');
    let (uid, epoch, sealed) = (parts.next()?, parts.next()?.parse().ok()?, STANDARD.decode(parts.next()?).ok()?);
    let key = Line::Key { uid: uid.to_owned(), epoch, sealed };
    // Written in another way it would not be kept as it is.
    (parts.next().is_none() && written(&key) == line).then_some(key)
}

fn written(line: &Line) -> Vec<u8> {
    match line {
        Line::Key { uid, epoch, sealed } => format!("{uid} {epoch} {}", STANDARD.encode(sealed)).into_bytes(),
        Line::Unreadable(bytes) => bytes.clone(),
    }
}

fn seal(
    uid: &str,
    epoch: u64,
    key: &[u8],
    master: &Key,
    random: &dyn SecureRandom,
) -> Result<Line, ring::error::Unspecified> {
    let belongs = format!("key of epoch {epoch}");
    let envelope = Envelope::seal(master, &record(uid, &belongs), key, random)?;
    Ok(Line::Key { uid: uid.to_owned(), epoch, sealed: envelope.into_bytes() })
}

fn unseal(uid: &str, epoch: u64, sealed: &[u8], master: &Key) -> Option<Zeroizing<Vec<u8>>> {
    let belongs = format!("key of epoch {epoch}");
    let opened = Envelope::parse(sealed)?.open(master, &record(uid, &belongs))?;
    (opened.len() == LENGTH).then_some(opened)
}

/// No Secret has an empty namespace, so nothing else is bound like this.
fn record<'a>(uid: &'a str, key: &'a str) -> Record<'a> {
    Record { namespace: "", name: "volume", uid, key }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    fn key(byte: u8) -> Key {
        Key::new([byte; 32])
    }

    fn two() -> (Ring, [Vec<u8>; 2]) {
        let mut ring = Ring::default();
        let keys = ["one", "two"].map(|uid| ring.draw(uid, &key(7), &SystemRandom::new()).unwrap().to_vec());
        (ring, keys)
    }

    #[test]
    fn what_was_drawn_is_read_from_the_file() {
        let (ring, [one, two]) = two();
        let read = Ring::parse(&ring.to_bytes());
        assert_eq!(read, ring);
        assert_eq!(*read.open("one", &key(7)).unwrap().unwrap(), one);
        assert_eq!(*read.open("two", &key(7)).unwrap().unwrap(), two);
        assert!(read.open("three", &key(7)).is_none());
        assert_eq!(read.open("one", &key(8)), Some(Err(Unopened)));
    }

    #[test]
    fn a_line_opens_for_no_other_volume_and_in_no_other_epoch() {
        let (ring, _) = two();
        let text = String::from_utf8(ring.to_bytes()).unwrap();
        let swapped = text.replace("one ", "x ").replace("two ", "one ").replace("x ", "two ");
        assert_eq!(Ring::parse(swapped.as_bytes()).open("one", &key(7)), Some(Err(Unopened)));
        let later = text.replace("one 0 ", "one 1 ");
        assert_eq!(Ring::parse(later.as_bytes()).open("one", &key(7)), Some(Err(Unopened)));
    }

    /// Every single bit of uid, epoch, salt, digest, ciphertext and tag.
    #[test]
    fn a_changed_bit_of_a_record_is_that_volumes_loss_alone_and_stays_to_be_mended() {
        let (ring, [one, two]) = two();
        let file = ring.to_bytes();
        let place = |word: &[u8]| file.windows(word.len()).position(|window| window == word).unwrap();
        let (first, second) = (place(b"one "), place(b"two "));
        for (at, bit) in (first..second - 1).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            let mut ring = Ring::parse(&changed);
            assert!(!matches!(ring.open("one", &key(7)), Some(Ok(_))), "bit {bit} of {at}");
            assert_eq!(*ring.open("two", &key(7)).unwrap().unwrap(), two, "bit {bit} of {at}");
            assert!(!ring.unopened("two", &key(7)).is_empty(), "bit {bit} of {at}");

            // Another volume comes and goes: the file is written twice.
            ring.draw("three", &key(7), &SystemRandom::new()).unwrap();
            let mut ring = Ring::parse(&ring.to_bytes());
            ring.forget("three");
            let mut kept = ring.to_bytes();
            assert!(kept[first..] == changed[first..], "bit {bit} of {at}");
            kept[at] ^= 1 << bit;
            assert_eq!(*Ring::parse(&kept).open("one", &key(7)).unwrap().unwrap(), one, "bit {bit} of {at}");
        }
    }

    #[test]
    fn a_changed_bit_at_the_files_beginning_is_nobodys_loss() {
        let (ring, [one, two]) = two();
        let file = ring.to_bytes();
        let first = file.windows(4).position(|window| window == b"one ").unwrap();
        for (at, bit) in (0..first - 1).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            let ring = Ring::parse(&changed);
            let opened = ["one", "two"].map(|uid| ring.open(uid, &key(7)).unwrap().unwrap().to_vec());
            assert_eq!(opened, [one.clone(), two.clone()], "bit {bit} of {at}");
        }
    }

    #[test]
    fn lines_that_do_not_open_are_counted_as_an_editor_counts_them() {
        let (mut ring, _) = two();
        ring.lines.insert(1, Line::Unreadable(b"something".to_vec()));
        assert_eq!(ring.unopened("", &key(7)), [4]);
        assert_eq!(ring.unopened("one", &key(8)), [4, 5]);
    }

    #[test]
    fn the_next_epoch_has_all_keys_but_one_and_no_line_of_the_last() {
        let (mut ring, [one, _]) = two();
        ring.lines.push(Line::Unreadable(b"something".to_vec()));
        let next = ring.next("two", &key(7), &key(8), &SystemRandom::new()).unwrap();
        assert_eq!(*next.open("one", &key(8)).unwrap().unwrap(), one);
        assert_eq!(next.open("one", &key(7)), Some(Err(Unopened)));
        assert!(next.open("two", &key(8)).is_none());
        assert_eq!((next.epoch, next.lines.len()), (1, 2));
    }
}
