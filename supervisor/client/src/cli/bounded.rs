//! Files of whatever size, read as far as anything of them could be taken.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::failure::Failure;

/// No server takes a body of more than a few MiB; a manifest may hold several.
const LONGEST: u64 = 16 << 20;

/// The bytes of a file, or of standard input (`-`).
///
/// # Errors
/// It cannot be read, or is longer than anything that would be taken; little more than that was read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = if is_input(path) { all(io::stdin().lock()) } else { File::open(path).and_then(all) };
    let bytes = bytes.map_err(|source| Failure::Read { path: shown(path), source })?;
    match bytes.len() as u64 > LONGEST {
        true => Err(Failure::TooLong { path: shown(path), limit: LONGEST }),
        false => Ok(bytes),
    }
}

/// The same as text.
///
/// # Errors
/// As [`read`], or it is no UTF-8.
pub(super) fn text(path: &Path) -> Result<String, Failure> {
    let no_text =
        |error| Failure::Read { path: shown(path), source: io::Error::new(io::ErrorKind::InvalidData, error) };
    String::from_utf8(read(path)?).map_err(|error| no_text(error.utf8_error()))
}

fn is_input(path: &Path) -> bool {
    path == Path::new("-")
}

fn shown(path: &Path) -> PathBuf {
    if is_input(path) { "standard input".into() } else { path.to_owned() }
}

fn all(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_refused_with_the_bound_and_not_read_to_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(LONGEST).unwrap();
        assert_eq!(read(file.path()).unwrap().len() as u64, LONGEST);
        file.as_file().set_len(1 << 40).unwrap();
        let said = text(file.path()).unwrap_err().to_string();
        assert!(said.ends_with("is longer than 16777216 bytes"), "{said}");
    }
}
