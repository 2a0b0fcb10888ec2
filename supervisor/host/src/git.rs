//! A branch of a git repository elsewhere, to which commits are added and from which nothing is ever taken away.
//!
//! ```text
//! tip (asked of the server) ─> fetch, if it is not here ─> draft ─> signed ─> push (never forced)
//! ```
//!
//! What commits are made of is kept in a bare repository of this machine. It may be lost at any time, and is fetched again.
//! All of it waits for the network, and belongs on a thread that may block.

mod access;

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

use git2::build::TreeUpdateBuilder;
use git2::{
    Commit, Direction, ErrorClass, FetchOptions, FileMode, PushOptions, RemoteCallbacks, RemoteRedirect, Repository,
    Signature, Time,
};

pub use access::{Access, Place};
pub use git2::Oid;

use crate::fs::{FsError, remove_dir_all};

/// Longer, and a server counts as away; milliseconds.
const CONNECT: i32 = 20_000;
const ANSWER: i32 = 60_000;
/// What is fetched, and what is sent, in the bare repository.
const FETCHED: &str = "refs/remotes/elsewhere";
const SENT: &str = "refs/heads/sent";

/// Why the branch is not as it was to be.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// Git.
    #[error("{doing}")]
    Git {
        /// What.
        doing: &'static str,
        /// Why.
        #[source]
        source: git2::Error,
    },
    /// The bare repository cannot be made anew.
    #[error("making the bare repository anew")]
    File(#[from] FsError),
    /// The server does not prove to be the one that is meant.
    #[error("{0}")]
    Stranger(String),
    /// The server took the commits and refused the branch.
    #[error("the server refuses the branch: {0}")]
    Refused(String),
}

impl GitError {
    /// Whether it may be of what is kept here, which is then made anew by removing it.
    #[must_use]
    pub fn is_about_what_is_here(&self) -> bool {
        use ErrorClass::{Indexer, Object, Odb, Reference, Repository, Tree, Zlib};
        match self {
            Self::Git { source, .. } => {
                [Indexer, Object, Odb, Reference, Repository, Tree, Zlib].contains(&source.class())
            }
            Self::File(_) => true,
            Self::Stranger(_) | Self::Refused(_) => false,
        }
    }
}

fn failed(doing: &'static str) -> impl FnOnce(git2::Error) -> GitError {
    move |source| GitError::Git { doing, source }
}

/// A file that a commit brings.
pub struct Addition<'a> {
    /// Its path, with slashes.
    pub path: &'a str,
    /// What is in it.
    pub content: &'a [u8],
    /// What the commit says of itself.
    pub message: &'a str,
    /// Who commits: a name and a mail address.
    pub by: (&'a str, &'a str),
    /// When, in seconds since 1970.
    pub at: i64,
}

/// The branch, with the bare repository that it is known by here.
pub struct RemoteBranch {
    here: Repository,
    place: Place,
    /// libgit2 keeps to itself why a server was not taken for the one that is meant.
    stranger: Mutex<Option<String>>,
}

impl RemoteBranch {
    /// Opens the bare repository in `folder`; one that is no repository is made anew.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(folder: &Path, place: Place) -> Result<Self, GitError> {
        be_patient();
        let here = match Repository::open_bare(folder) {
            Ok(here) => here,
            Err(_) => {
                remove_dir_all(folder)?;
                Repository::init_bare(folder).map_err(failed("making the bare repository"))?
            }
        };
        Ok(Self { here, place, stranger: Mutex::default() })
    }

    /// The commit in which it ends; none, if the server has no such branch.
    ///
    /// # Errors
    /// The server does not say.
    pub fn tip(&self) -> Result<Option<Oid>, GitError> {
        let mut remote = self.here.remote_anonymous(&self.place.url).map_err(failed("reading the address"))?;
        let asked = remote.connect_auth(Direction::Fetch, Some(self.place.callbacks(&self.stranger)), None);
        let asked = asked.map_err(|source| self.failed("asking for the branch", source))?;
        let (wanted, heads) = (self.name(), asked.list().map_err(failed("reading the server's branches"))?);
        Ok(heads.iter().find(|head| head.name() == wanted).map(git2::RemoteHead::oid))
    }

    /// Whether a commit is here.
    pub fn has(&self, commit: Oid) -> bool {
        self.here.find_commit(commit).and_then(|commit| commit.tree()).is_ok()
    }

    /// Brings the branch here, with all that it grew from.
    ///
    /// # Errors
    /// The server does not give it.
    pub fn fetch(&self) -> Result<(), GitError> {
        let mut remote = self.here.remote_anonymous(&self.place.url).map_err(failed("reading the address"))?;
        let wanted = format!("+{}:{FETCHED}/{}", self.name(), self.place.branch);
        let mut options = FetchOptions::new();
        options.remote_callbacks(self.place.callbacks(&self.stranger)).follow_redirects(RemoteRedirect::None);
        let fetched = remote.fetch(&[wanted], Some(&mut options), None);
        fetched.map_err(|source| self.failed("fetching the branch", source))
    }

    /// Whether `newer` is `older`, or has grown from it. Both have to be here.
    ///
    /// # Errors
    /// What is here cannot be read.
    pub fn grew_from(&self, newer: Oid, older: Oid) -> Result<bool, GitError> {
        let grew = newer == older
            || self.has(older) && {
                self.here.graph_descendant_of(newer, older).map_err(failed("reading what the branch grew from"))?
            };
        Ok(grew)
    }

    /// The bytes of a commit that adds a file, as they are to be signed.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn draft(&self, parent: Option<Oid>, new: &Addition<'_>) -> Result<String, GitError> {
        let draft = || {
            let parents: Vec<Commit<'_>> =
                parent.map(|oid| self.here.find_commit(oid)).transpose()?.into_iter().collect();
            let before = match parents.first() {
                Some(parent) => parent.tree()?,
                None => self.here.find_tree(self.here.treebuilder(None)?.write()?)?,
            };
            let blob = self.here.blob(new.content)?;
            let tree =
                TreeUpdateBuilder::new().upsert(new.path, blob, FileMode::Blob).create_updated(&self.here, &before)?;
            let by = Signature::new(new.by.0, new.by.1, &Time::new(new.at, 0))?;
            let (tree, parents) = (self.here.find_tree(tree)?, parents.iter().collect::<Vec<_>>());
            let draft = self.here.commit_create_buffer(&by, &by, new.message, &tree, &parents)?;
            Ok(draft.as_str()?.to_owned())
        };
        draft().map_err(failed("making a commit"))
    }

    /// A draft with its signature, as a commit that is here.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn commit(&self, draft: &str, signature: &str) -> Result<Oid, GitError> {
        self.here.commit_signed(draft, signature, None).map_err(failed("keeping a commit"))
    }

    /// Has the branch end in this commit, which must have grown from where it ends now.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses it.
    pub fn push(&self, commit: Oid) -> Result<(), GitError> {
        self.here.reference(SENT, commit, true, "").map_err(failed("marking what is sent"))?;
        let mut remote = self.here.remote_anonymous(&self.place.url).map_err(failed("reading the address"))?;
        let refused = RefCell::new(None);
        {
            let mut callbacks: RemoteCallbacks<'_> = self.place.callbacks(&self.stranger);
            callbacks.push_update_reference(|_, status| {
                *refused.borrow_mut() = status.map(str::to_owned);
                Ok(())
            });
            let mut options = PushOptions::new();
            options.remote_callbacks(callbacks).follow_redirects(RemoteRedirect::None).packbuilder_parallelism(1);
            let wanted = format!("{SENT}:{}", self.name());
            let sent = remote.push(&[wanted], Some(&mut options));
            sent.map_err(|source| self.failed("sending the commits", source))?;
        }
        refused.into_inner().map_or(Ok(()), |why| Err(GitError::Refused(why)))
    }

    /// Puts all that the bare repository holds of this commit and those before it into one file, and removes the small ones.
    ///
    /// # Errors
    /// They cannot be read or written.
    pub fn pack(&self, commit: Oid) -> Result<(), GitError> {
        let objects = self.here.path().join("objects");
        let written = || {
            let mut walk = self.here.revwalk()?;
            walk.push(commit)?;
            let mut pack = self.here.packbuilder()?;
            pack.set_threads(1);
            pack.insert_walk(&mut walk)?;
            pack.write(&objects.join("pack"), 0o600)?;
            pack.name().map(|name| name.map(str::to_owned))
        };
        let name = written().map_err(failed("packing the bare repository"))?.unwrap_or_default();
        let listed =
            |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        for small in listed(&objects).filter(|path| path.file_name().is_some_and(|name| name.len() == 2)) {
            remove_dir_all(&small)?;
        }
        for older in listed(&objects.join("pack")).filter(|path| !path.to_string_lossy().contains(&name)) {
            crate::fs::remove_file(&older)?;
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: git2::Error) -> GitError {
        match self.stranger.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(why) => GitError::Stranger(why),
            None => GitError::Git { doing, source },
        }
    }

    fn name(&self) -> String {
        format!("refs/heads/{}", self.place.branch)
    }
}

/// Nobody waits for ever for a server.
#[allow(unsafe_code, reason = "libgit2 keeps its limits in globals")]
fn be_patient() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: nothing else of libgit2 has been called by this process, and nothing is until this has ended: everything
        // here begins with `RemoteBranch::open`.
        let set = unsafe {
            git2::opts::set_server_connect_timeout_in_milliseconds(CONNECT)
                .and_then(|()| git2::opts::set_server_timeout_in_milliseconds(ANSWER))
        };
        if let Err(error) = set {
            tracing::warn!("git servers are waited for without a limit: {error}");
        }
    });
}

#[cfg(test)]
mod tests;
