//! Reads a tar stream entry by entry, with bounds.
//!
//! The `tar` crate decodes the 512-byte headers. What stands between them is read here, for three
//! reasons: the crate reads long names and extended headers into memory at whatever length they
//! claim; it splits extended headers at every newline, also at those inside a value (a file
//! capability may hold one); and it knows one of the four encodings of sparse files.
//!
//! ```text
//! next_entry():  [g skipped] [x | L | K remembered]* header [sparse map]  ->  Entry
//! read():        the bytes stored for that entry, then nothing
//! ```

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::pax::{self, Records};
use super::sparse::{self, SparseMap};

const BLOCK: u64 = 512;
/// Longest name or link target in a GNU extension.
const LONGEST_NAME: u64 = 1 << 16;
/// Longest extended header.
const LONGEST_RECORDS: u64 = 1 << 20;

/// Why a stream is not a tar archive that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream itself fails.
    #[error("reading the archive")]
    Read(#[source] io::Error),
    /// It ends in the middle of something.
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    /// A header whose checksum is wrong.
    #[error("a header of the archive is damaged: its checksum is wrong")]
    Checksum,
    /// A number that is none.
    #[error("the archive's header of {entry} is damaged")]
    Header {
        /// Which entry.
        entry: String,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// An extension longer than anything sensible.
    #[error("an extended header of the archive is {0} bytes long")]
    LongExtension(u64),
    /// An extension that cannot be understood.
    #[error("an extended header of the archive is malformed: {0}")]
    Extension(&'static str),
    /// A sparse file that contradicts itself.
    #[error("the sparse file {entry} is malformed: {why}")]
    Sparse {
        /// Which entry.
        entry: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of a file before it.
    HardLink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// Something else, by its type byte.
    Other(u8),
}

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Whole seconds, also negative.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// One entry, without its bytes.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path as written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Last change.
    pub mtime: Time,
    /// Target of a link as written, else empty.
    pub link: Vec<u8>,
    /// Bytes stored.
    pub stored: u64,
    /// Where the bytes stored belong, if there are holes between them.
    pub sparse: Option<SparseMap>,
    /// Extended attributes by their full names.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// The path for a message, with everything unprintable escaped.
    pub fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// Bytes for a message, with everything unprintable escaped.
pub fn shown(bytes: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(bytes);
    let mut short: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().count() > LONGEST {
        short.push_str("...");
    }
    format!("\"{short}\"")
}

/// What extension headers say of the entry after them.
#[derive(Default)]
struct Extensions {
    records: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// A tar stream. Read the bytes of the newest entry from it.
pub struct Archive<R> {
    inner: R,
    /// Bytes of the current entry not yet read.
    body: u64,
    /// Padding after them.
    padding: u64,
}

impl<R: Read> Archive<R> {
    /// From the beginning of the stream.
    pub fn new(inner: R) -> Self {
        Self { inner, body: 0, padding: 0 }
    }

    /// The stream, wherever it is now: after `next_entry`, at the first byte of the entry.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The same for good.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; `None` at the end. What was not read of the last one is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.expect(header.entry_size().map_err(|e| damaged(&header, e))?);
            match header.entry_type() {
                EntryType::XGlobalHeader => {}
                EntryType::XHeader => {
                    let bytes = self.extension(LONGEST_RECORDS)?;
                    extensions.records = Some(Records::parse(&bytes)?);
                }
                EntryType::GNULongName => extensions.long_name = Some(self.long_name()?),
                EntryType::GNULongLink => extensions.long_link = Some(self.long_name()?),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, ArchiveError> {
        let records = extensions.records.unwrap_or_default();
        let or_damaged = |result: io::Result<u64>| result.map_err(|e| damaged(header, e));
        let path = records
            .bytes(pax::SPARSE_NAME)
            .or(records.bytes(pax::PATH))
            .map(<[u8]>::to_vec)
            .or(extensions.long_name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = records
            .bytes(pax::LINK_PATH)
            .map(<[u8]>::to_vec)
            .or(extensions.long_link)
            .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let kind = kind_of(header, &path);
        let stored = match records.number(pax::SIZE)? {
            Some(size) => size,
            None => or_damaged(header.entry_size())?,
        };
        let mut entry = Entry {
            kind,
            mode: header.mode().map_err(|e| damaged(header, e))? & 0o7777,
            uid: records.number(pax::UID)?.map_or_else(|| or_damaged(header.uid()), Ok)?,
            gid: records.number(pax::GID)?.map_or_else(|| or_damaged(header.gid()), Ok)?,
            mtime: mtime(header, &records)?,
            link: if matches!(kind, Kind::Symlink | Kind::HardLink) { link } else { Vec::new() },
            stored,
            sparse: None,
            xattrs: records.xattrs()?,
            path,
        };
        if kind == Kind::File {
            self.expect(stored);
            entry.sparse = self.sparse_map(header, &records, &entry)?;
            entry.stored = self.body;
        } else {
            // Some writers announce a size for entries that have no bytes; nobody stores any.
            entry.stored = 0;
            self.expect(if matches!(kind, Kind::Other(_)) { stored } else { 0 });
        }
        Ok(entry)
    }

    fn sparse_map(
        &mut self,
        header: &Header,
        records: &Records,
        entry: &Entry,
    ) -> Result<Option<SparseMap>, ArchiveError> {
        let malformed = |why| ArchiveError::Sparse { entry: entry.shown(), why };
        let map = if header.entry_type().is_gnu_sparse() {
            Some(self.gnu_map(header)?)
        } else if records.bytes(pax::SPARSE_MAJOR) == Some(b"1") {
            let real = records.number(pax::SPARSE_REAL_SIZE)?;
            let (segments, read) = sparse::read_map(self).map_err(|source| match source {
                sparse::MapError::Read(source) => ArchiveError::Read(source),
                sparse::MapError::Malformed(why) => malformed(why),
            })?;
            self.skip_map_padding(read).map_err(|()| malformed("its map is cut short"))?;
            Some((segments, real.unwrap_or(0)))
        } else {
            match (records.segments()?, records.number(pax::SPARSE_SIZE)?) {
                (Some(segments), Some(real)) => Some((segments, real)),
                (None, _) => None,
                (Some(_), None) => return Err(malformed("its size is missing")),
            }
        };
        map.map(|(segments, real)| SparseMap::new(segments, real, self.body).map_err(malformed)).transpose()
    }

    /// The map that stands in the header itself and, if it is long, in blocks after it.
    fn gnu_map(&mut self, header: &Header) -> Result<(Vec<sparse::Segment>, u64), ArchiveError> {
        let Some(gnu) = header.as_gnu() else {
            return Err(ArchiveError::Extension("a sparse file outside of the GNU format"));
        };
        let mut segments = Vec::new();
        let mut push = |found: &[GnuSparseHeader]| -> io::Result<()> {
            for segment in found.iter().filter(|segment| !segment.is_empty()) {
                segments.push(sparse::Segment { offset: segment.offset()?, length: segment.length()? });
            }
            if segments.len() > sparse::MOST_SEGMENTS {
                return Err(io::Error::other("too many segments"));
            }
            Ok(())
        };
        push(&gnu.sparse).map_err(|e| damaged(header, e))?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            read_whole(&mut self.inner, block.as_mut_bytes())?;
            push(block.sparse()).map_err(|e| damaged(header, e))?;
            more = block.is_extended();
        }
        let real = gnu.real_size().map_err(|e| damaged(header, e))?;
        Ok((segments, real))
    }

    /// A map inside the body fills whole blocks.
    fn skip_map_padding(&mut self, read: u64) -> Result<(), ()> {
        let rest = read.next_multiple_of(BLOCK) - read;
        let skipped = io::copy(&mut self.by_ref().take(rest), &mut io::sink()).map_err(|_| ())?;
        if skipped == rest { Ok(()) } else { Err(()) }
    }

    fn expect(&mut self, size: u64) {
        self.body = size;
        self.padding = size.wrapping_neg() % BLOCK;
    }

    /// Every byte of the body must be there. Padding may be missing where the stream ends: some builders of images
    /// write the last entry without it and no end marker, and a digest covers the whole anyway.
    fn skip_rest(&mut self) -> Result<(), ArchiveError> {
        let (body, rest) = (self.body, self.body.saturating_add(self.padding));
        self.expect(0);
        let skipped = io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink()).map_err(ArchiveError::Read)?;
        if skipped >= body { Ok(()) } else { Err(ArchiveError::Truncated) }
    }

    /// The next header; `None` at a block of zeros or where the stream ends between entries.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let taken = self.inner.read(&mut bytes[..]).map_err(ArchiveError::Read)?;
        if taken == 0 {
            return Ok(None);
        }
        read_whole(&mut self.inner, &mut bytes[taken..])?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum();
        match header.cksum() {
            Ok(expected) if expected == sum + 8 * u32::from(b' ') => Ok(Some(header)),
            _ => Err(ArchiveError::Checksum),
        }
    }

    fn extension(&mut self, longest: u64) -> Result<Vec<u8>, ArchiveError> {
        if self.body > longest {
            return Err(ArchiveError::LongExtension(self.body));
        }
        let size = self.body;
        let mut bytes = Vec::new();
        self.by_ref().take(size).read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(ArchiveError::Truncated) }
    }

    fn long_name(&mut self) -> Result<Vec<u8>, ArchiveError> {
        let mut name = self.extension(LONGEST_NAME)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.body).unwrap_or(usize::MAX));
        let taken = self.inner.read(&mut into[..most])?;
        self.body -= taken as u64;
        Ok(taken)
    }
}

fn read_whole(from: &mut impl Read, into: &mut [u8]) -> Result<(), ArchiveError> {
    from.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Truncated,
        _ => ArchiveError::Read(error),
    })
}

fn damaged(header: &Header, source: io::Error) -> ArchiveError {
    ArchiveError::Header { entry: shown(&header.path_bytes()), source }
}

fn kind_of(header: &Header, path: &[u8]) -> Kind {
    match header.entry_type() {
        // Before there was a type for directories, a slash at the end made one.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => Kind::CharDevice,
        EntryType::Block => Kind::BlockDevice,
        other => Kind::Other(other.as_byte()),
    }
}

fn mtime(header: &Header, records: &Records) -> Result<Time, ArchiveError> {
    if let Some(time) = records.time(pax::MTIME)? {
        return Ok(time);
    }
    let seconds = header.mtime().map_err(|e| damaged(header, e))?;
    Ok(Time { seconds: i64::try_from(seconds).unwrap_or_default(), nanoseconds: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, name: &str, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header.set_cksum();
        header
    }

    #[test]
    fn a_long_name_that_claims_gigabytes_is_refused_before_it_is_read() {
        let mut bytes = header(EntryType::GNULongName, "././@LongLink", 8 << 30).as_bytes().to_vec();
        bytes.extend([b'a'; 2048]);
        let error = Archive::new(&bytes[..]).next_entry().unwrap_err();
        assert!(matches!(error, ArchiveError::LongExtension(_)), "{error}");
    }

    #[test]
    fn an_entry_cut_short_is_an_error_and_not_the_end() {
        let mut bytes = header(EntryType::Regular, "a", 1000).as_bytes().to_vec();
        bytes.extend([b'a'; 600]);
        let mut archive = Archive::new(&bytes[..]);
        assert_eq!(archive.next_entry().unwrap().unwrap().stored, 1000);
        assert!(matches!(archive.next_entry(), Err(ArchiveError::Truncated)));
    }

    #[test]
    fn the_last_entry_may_lack_its_padding_and_the_end_marker() {
        let mut bytes = header(EntryType::Regular, "a", 1000).as_bytes().to_vec();
        bytes.extend([b'a'; 1000]);
        let mut archive = Archive::new(&bytes[..]);
        assert_eq!(archive.next_entry().unwrap().unwrap().stored, 1000);
        assert!(archive.next_entry().unwrap().is_none());
    }

    #[test]
    fn a_damaged_header_is_an_error() {
        let mut bytes = header(EntryType::Regular, "a", 0).as_bytes().to_vec();
        bytes[0] = b'b';
        assert!(matches!(Archive::new(&bytes[..]).next_entry(), Err(ArchiveError::Checksum)));
    }

    #[test]
    fn sizes_of_entries_without_bytes_are_not_skipped_over() {
        let mut bytes = header(EntryType::Directory, "d/", 4096).as_bytes().to_vec();
        bytes.extend(header(EntryType::Regular, "a", 0).as_bytes());
        let mut archive = Archive::new(&bytes[..]);
        assert_eq!(archive.next_entry().unwrap().unwrap().kind, Kind::Directory);
        assert_eq!(archive.next_entry().unwrap().unwrap().path, b"a");
        assert!(archive.next_entry().unwrap().is_none());
    }

    #[test]
    fn unprintable_names_are_escaped_in_messages() {
        assert_eq!(shown(b"a\nb\x1b[2J\""), r#""a\nb\u{1b}[2J\"""#);
        assert!(shown(&[b'x'; 5000]).len() < 300);
    }
}
