//! What a process of many days keeps in memory without need.

use std::ffi::c_void;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};
use procfs::ProcError;
use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

/// Nothing was given back, or not all.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// What is mapped cannot be read.
    #[error("reading what this process has in memory")]
    Maps(#[from] ProcError),
    /// The kernel refused.
    #[error("giving pages of the program back to the kernel")]
    Advise(#[from] nix::Error),
}

/// Gives back what was freed, and the pages of the program and its libraries: the kernel maps the neighbours of a page
/// that is run, too, and never takes them away again. Those that are needed come back from its cache, which is its to
/// keep or drop.
pub fn give_back() -> Result<(), MemoryError> {
    trim();
    for map in Process::myself()?.maps()?.into_iter().filter(is_program) {
        drop_pages(&map)?;
    }
    Ok(())
}

/// Only what nobody writes: a page that was changed, as relocations are, is in no file.
fn is_program(map: &MemoryMap) -> bool {
    let wanted = MMPermissions::READ | MMPermissions::EXECUTE | MMPermissions::PRIVATE;
    map.perms == wanted && matches!(map.pathname, MMapPath::Path(_))
}

#[allow(unsafe_code, reason = "pages can be named by their address only")]
fn drop_pages(map: &MemoryMap) -> nix::Result<()> {
    let (start, end) = map.address;
    let Some(address) = usize::try_from(start).ok().and_then(|start| NonNull::new(start as *mut c_void)) else {
        return Ok(());
    };
    let length = usize::try_from(end - start).unwrap_or(0);
    // SAFETY: the mapping is a file's and cannot be written, so that each page is as it was when it is read again.
    unsafe { madvise(address, length, MmapAdvise::MADV_DONTNEED) }
}

#[allow(unsafe_code, reason = "the C library's allocator has no other interface")]
fn trim() {
    // SAFETY: it takes the allocator's own locks and changes nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in memory of all that `give_back` gives back.
    fn of_the_program() -> u64 {
        let maps = Process::myself().unwrap().smaps().unwrap();
        maps.into_iter().filter(is_program).filter_map(|map| map.extension.map.get("Rss").copied()).sum()
    }

    #[test]
    fn the_pages_of_the_program_are_given_back_and_it_runs_on() {
        let before = of_the_program();
        give_back().unwrap();
        let after = of_the_program();
        assert!(after < before, "{after} of {before} bytes are still there");
        let sorted: std::collections::BTreeSet<_> = ["c", "a", "b"].into();
        assert_eq!(sorted.into_iter().collect::<String>(), "abc");
    }
}
