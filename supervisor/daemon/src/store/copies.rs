//! The way back from a new schema.
//!
//! ```text
//! new version   berth.db at schema 5 ─ copied whole ─> berth.db.schema-5 ─> berth.db taken to schema 6
//! left again    berth.db at schema 6 ─ set aside ─> berth.db.left-6;  berth.db.schema-5 ─> berth.db
//! kept          up for an hour ─> berth.db.schema-5 and berth.db.left-6 are removed
//! ```
//!
//! A version of the machine's system is tried for minutes and then kept or left. Whoever comes back within that time
//! finds the store as it was before, less what was written in these minutes. After it nothing is put back by itself: it
//! would cost more than minutes.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::Fault;

/// What is kept of another schema is removed by a version that has been up for so long: no trial takes longer.
pub(super) const KEPT: Duration = Duration::from_secs(60 * 60);

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(format!(".{what}"));
    name.into()
}

fn copy_of(path: &Path, schema: i64) -> PathBuf {
    beside(path, &format!("schema-{schema}"))
}

fn failed<E: std::error::Error + Send + Sync + 'static>(path: &Path) -> impl Fn(E) -> Fault {
    move |source| Fault::Copy { path: path.into(), source: Arc::new(source) }
}

/// Copies the whole store, which has this schema, before it gets another.
///
/// # Errors
/// There is no room for it; nothing has changed then.
pub(super) fn keep(connection: &Connection, path: &Path, schema: i64) -> Result<(), Fault> {
    let (copy, part) = (copy_of(path, schema), beside(path, "part"));
    remove(&part).map_err(failed(&part))?;
    connection.execute("VACUUM INTO ?1", [part.to_string_lossy()]).map_err(failed(&copy))?;
    fs::set_permissions(&part, Permissions::from_mode(0o600)).map_err(failed(&copy))?;
    publish(&part, &copy).map_err(failed(&copy))
}

/// Puts the copy of a schema in the place of a store that a newer version has taken further; `false` if there is none.
/// What that version has written is set aside.
///
/// # Errors
/// A file cannot be written; the store is then one of the two, whole.
pub(super) fn go_back(path: &Path, found: i64, known: i64) -> Result<bool, Fault> {
    let (copy, part, left) = (copy_of(path, known), beside(path, "part"), beside(path, &format!("left-{found}")));
    if !copy.exists() {
        return Ok(false);
    }
    one_file(path).map_err(failed(path))?;
    let back = || -> io::Result<()> {
        remove(&left)?;
        fs::hard_link(path, &left)?;
        fs::copy(&copy, &part)?;
        publish(&part, path)?;
        remove(&copy)
    };
    back().map_err(failed(path))?;
    tracing::warn!(
        "the store had schema {found}, as a newer version has left it that did not stay; it is again as it was before that, \
         and what was written since is in {}",
        left.display()
    );
    Ok(true)
}

/// Brings all that is beside the database into it: side files of another database must not be found beside the copy.
fn one_file(path: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)?.pragma_update(None, "journal_mode", "DELETE")
}

fn publish(part: &Path, name: &Path) -> io::Result<()> {
    File::open(part)?.sync_all()?;
    fs::rename(part, name)?;
    name.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes what is kept of other schemas, once this version has been up for so long.
pub(super) async fn forget_after(kept: Duration, path: PathBuf) {
    tokio::time::sleep(kept).await;
    if let Err(error) = forget(&path) {
        tracing::warn!("copies of the store before its last change of schema stay in {}: {error}", path.display());
    }
}

fn forget(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in fs::read_dir(path.parent().unwrap_or(Path::new("/")))? {
        let found = entry?.path();
        let file = found.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rest = file.strip_prefix(&name).unwrap_or_default();
        if rest.starts_with(".schema-") || rest.starts_with(".left-") {
            remove(&found)?;
        }
    }
    Ok(())
}
