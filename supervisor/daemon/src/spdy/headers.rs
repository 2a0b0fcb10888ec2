//! Headers of streams: names and values with their lengths, packed by zlib with a dictionary that both sides know. Each
//! direction is one zlib stream for as long as the connection lasts.

use bytes::Buf;
use flate2::{Compress, Compression, Decompress, DecompressError, FlushCompress, FlushDecompress, Status};

/// Bytes of the headers of one stream, unpacked: those of clients have some hundred.
const LARGEST: usize = 16 << 10;

/// The dictionary's words, each of which comes after its length, and what follows them (section 2.6.10.1 of the draft).
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
    Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov \
    Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=\
    iso-8859-1,utf-,*,enq=0.";

/// Headers that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Not packed as they should be.
    #[error("unpacking them")]
    Inflate(#[from] DecompressError),
    /// The answer could not be packed.
    #[error("packing an answer")]
    Deflate(#[from] flate2::CompressError),
    /// More than any client says.
    #[error("they have more than {LARGEST} bytes")]
    TooLong,
    /// Lengths that do not fit, or text that is none.
    #[error("they are not names and values with their lengths")]
    Malformed,
}

pub(super) fn dictionary() -> Vec<u8> {
    let words = WORDS.split_whitespace().map(|word| word.replace('_', " "));
    let mut all = Vec::new();
    for word in words {
        all.extend_from_slice(&u32::try_from(word.len()).unwrap_or_default().to_be_bytes());
        all.extend_from_slice(word.as_bytes());
    }
    all.extend_from_slice(REST.as_bytes());
    all
}

/// What the client has packed.
pub(super) struct Inflated(Decompress);

impl Default for Inflated {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflated {
    pub(super) fn read(&mut self, packed: &[u8]) -> Result<Vec<(String, String)>, HeaderError> {
        let plain = self.unpack(packed)?;
        pairs(&plain).ok_or(HeaderError::Malformed)
    }

    fn unpack(&mut self, packed: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let (begin, mut plain) = (self.0.total_in(), Vec::with_capacity(1 << 10));
        loop {
            let taken = usize::try_from(self.0.total_in() - begin).unwrap_or(usize::MAX);
            let left = packed.get(taken..).unwrap_or_default();
            let before = plain.len();
            match self.0.decompress_vec(left, &mut plain, FlushDecompress::Sync) {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary())?;
                    continue;
                }
                Err(error) => return Err(error.into()),
                Ok(Status::StreamEnd) => return Ok(plain),
                Ok(Status::Ok | Status::BufError) => {}
            }
            if plain.len() > LARGEST {
                return Err(HeaderError::TooLong);
            }
            if plain.len() < plain.capacity() || plain.len() == before && left.is_empty() {
                return Ok(plain);
            }
            plain.reserve(1 << 10);
        }
    }
}

/// What is answered.
#[derive(Default)]
pub(super) struct Deflated(Option<Compress>);

impl Deflated {
    /// No headers at all: their number, which is none.
    pub(super) fn none(&mut self) -> Result<Vec<u8>, HeaderError> {
        let compress = match self.0.take() {
            Some(compress) => compress,
            None => {
                let mut compress = Compress::new(Compression::fast(), true);
                compress.set_dictionary(&dictionary())?;
                compress
            }
        };
        let compress = self.0.insert(compress);
        let mut packed = Vec::with_capacity(64);
        compress.compress_vec(&0_u32.to_be_bytes(), &mut packed, FlushCompress::Sync)?;
        Ok(packed)
    }
}

/// A count, then each name and value after its length.
fn pairs(mut plain: &[u8]) -> Option<Vec<(String, String)>> {
    let count = plain.try_get_u32().ok()?;
    let mut text = || {
        let length = usize::try_from(plain.try_get_u32().ok()?).ok()?;
        let (text, rest) = plain.split_at_checked(length)?;
        plain = rest;
        String::from_utf8(text.to_vec()).ok()
    };
    (0..count).map(|_| Some((text()?, text()?))).collect()
}
