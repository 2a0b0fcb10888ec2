//! Where things lie in the source tree.

use std::path::{Path, PathBuf};

/// The top of the tree that this crate was built in.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned()
}

/// The folder of built programs: that of the running program, so that nothing else is ever taken by mistake.
pub fn programs() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    // A test's own program lies one folder deeper.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}
