//! What the path of an entry means, before any file is touched.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::refusal::{LONGEST_NAME, LONGEST_PATH, Refusal};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

/// What an entry asks for, by its path. Paths are relative to the root of the layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The root directory itself.
    Root,
    /// Something with this path.
    Path(PathBuf),
    /// Hide what lower layers have at this path.
    Whiteout(PathBuf),
    /// Hide everything lower layers have in this directory; empty for the root.
    Opaque(PathBuf),
    /// Bookkeeping of a file system that is no more.
    Ignored,
}

/// Reads a path. An absolute one starts at the root of the layer.
pub fn target(path: &[u8]) -> Result<Target, Refusal> {
    if path.is_empty() {
        return Err(Refusal::Empty);
    }
    let path = relative(path)?;
    let Some(name) = path.file_name() else {
        return Ok(Target::Root);
    };
    let name = name.as_bytes();
    let parent = path.parent().unwrap_or(Path::new(""));
    if path.iter().next().is_some_and(|first| is_aufs(first.as_bytes())) {
        return Ok(Target::Ignored);
    }
    if parent.iter().any(|part| part.as_bytes().starts_with(WHITEOUT)) {
        return Err(Refusal::Whiteout);
    }
    if name == OPAQUE {
        return Ok(Target::Opaque(parent.to_owned()));
    }
    if is_aufs(name) {
        return Ok(Target::Ignored);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Target::Path(path)),
        Some(b"" | b"." | b"..") => Err(Refusal::Whiteout),
        Some(hidden) => Ok(Target::Whiteout(parent.join(OsStr::from_bytes(hidden)))),
    }
}

/// A path made relative to the root, without `.` and doubled slashes; `..` is refused.
pub fn relative(path: &[u8]) -> Result<PathBuf, Refusal> {
    let mut clean = PathBuf::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Refusal::Parent),
            _ if part.contains(&0) => return Err(Refusal::Zero),
            _ if part.len() > LONGEST_NAME => return Err(Refusal::TooLong),
            _ => clean.push(OsStr::from_bytes(part)),
        }
    }
    if clean.as_os_str().len() > LONGEST_PATH {
        return Err(Refusal::TooLong);
    }
    Ok(clean)
}

fn is_aufs(name: &[u8]) -> bool {
    name.starts_with(AUFS) && name != OPAQUE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Target {
        Target::Path(text.into())
    }

    #[test]
    fn paths_are_relative_to_the_root_however_they_are_written() {
        for written in ["etc/passwd", "/etc/passwd", "./etc/passwd", "//etc/./passwd"] {
            assert_eq!(target(written.as_bytes()), Ok(path("etc/passwd")), "{written}");
        }
        for written in [".", "./", "/"] {
            assert_eq!(target(written.as_bytes()), Ok(Target::Root), "{written}");
        }
    }

    #[test]
    fn dots_that_climb_are_refused_even_where_they_would_stay_inside() {
        for written in ["..", "../etc/passwd", "a/../../b", "a/../b", "/..", "a/.."] {
            assert_eq!(target(written.as_bytes()), Err(Refusal::Parent), "{written}");
        }
        assert_eq!(target(b"a/...").unwrap(), path("a/..."));
    }

    #[test]
    fn names_the_kernel_would_not_take_are_refused() {
        assert_eq!(target(b""), Err(Refusal::Empty));
        assert_eq!(target(b"a\0b"), Err(Refusal::Zero));
        assert_eq!(target(&[b'a'; 256]), Err(Refusal::TooLong));
        assert_eq!(target("a/".repeat(2100).as_bytes()), Err(Refusal::TooLong));
        assert!(target(&[b'a'; 255]).is_ok());
    }

    #[test]
    fn whiteouts_hide_a_name_or_a_whole_directory() {
        assert_eq!(target(b"a/.wh.b"), Ok(Target::Whiteout("a/b".into())));
        assert_eq!(target(b"a/.wh..wh..opq"), Ok(Target::Opaque("a".into())));
        assert_eq!(target(b".wh..wh..opq"), Ok(Target::Opaque("".into())));
        assert_eq!(target(b".wh..wh.plnk/5.7"), Ok(Target::Ignored));
        for bad in ["a/.wh.", "a/.wh..", "a/.wh...", "a/.wh.b/c"] {
            assert_eq!(target(bad.as_bytes()), Err(Refusal::Whiteout), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_climbs_whatever_its_bytes(bytes in proptest::collection::vec(proptest::sample::select(b"./a\0wh".to_vec()), 0..40)) {
            if let Ok(Target::Path(path) | Target::Whiteout(path) | Target::Opaque(path)) = target(&bytes) {
                proptest::prop_assert!(path.is_relative());
                proptest::prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}
