//! Commits, signed by the key that signs the chain: each adds a file of records, `<year>/<month>/<day>/<first>-<last>.jsonl`,
//! with lines as of `berth audit export`.
//!
//! ```text
//!            ┌─ is where we left it, or where we were about to leave it ─┐
//! tip ───────┼─ grew from there: others have added to it ────────────────┼─> commit ─> noted ─> pushed ─> noted
//!            └─ anything else: it was rewritten; nothing is sent         ┘
//! ```
//!
//! The commit is noted before it is sent, so that whoever is killed in between finds it again at the tip and does not send
//! its records twice.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_host::fs::remove_dir_all;
use berth_host::git::{Access, Addition, GitError, Oid, Place, RemoteBranch};
use berth_model::kinds::SECRET;
use berth_model::resource::settings::GitMirror;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{MirrorError, Receiver, Records, keep, kept};
use crate::audit::Notary;
use crate::secret::{Sealer, SecretError};
use crate::store::{Clock, Link, StoreError};

/// After so many commits, what is kept of them here is put into one file.
const PACKED_EVERY: u64 = 200;

/// A git repository.
#[derive(Clone)]
pub(super) struct Git {
    /// Where its position and the bare repository are kept.
    pub(super) folder: PathBuf,
    /// What this machine is called.
    pub(super) hostname: String,
    /// Opens the Secret.
    pub(super) sealer: Sealer,
    /// Signs.
    pub(super) notary: Arc<Notary>,
    /// The time.
    pub(super) clock: Clock,
}

/// Why a push came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    /// The Secret.
    #[error("Secret {namespace}/{name} holds no {what}", namespace = secret.namespace, name = secret.name)]
    NoAccess {
        /// As it is set.
        secret: berth_model::resource::settings::SecretName,
        /// What belongs there.
        what: &'static str,
    },
    /// Its values cannot be read.
    #[error("reading the Secret")]
    Secret(#[from] SecretError),
    /// Git, or the server.
    #[error(transparent)]
    Git(#[from] GitError),
    /// Nothing can be signed.
    #[error("signing a commit")]
    Sign(#[from] ssh_key::Error),
    /// The branch is not what it was.
    #[error(
        "branch {branch} does not hold commit {commit} any more, in which this machine left it: somebody rewrote or \
         removed it. Find out who; to go on, put it back, or set another branch"
    )]
    Rewritten {
        /// Its name.
        branch: String,
        /// The commit.
        commit: Oid,
    },
    /// The thread.
    #[error("the work on the repository broke off")]
    BrokeOff,
}

/// How far a branch has them. Another branch begins with the oldest that is kept.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Position {
    url: String,
    branch: String,
    /// Where it ended when we were last told.
    at: Option<Mark>,
    /// Where it ends if what was sent last got there.
    sent: Option<Mark>,
    /// Commits that were made.
    commits: u64,
}

/// A commit, and the last record in it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    commit: String,
    sequence: u64,
}

impl Mark {
    /// A commit that cannot be understood is none.
    fn oid(&self) -> Option<Oid> {
        Oid::from_str(&self.commit).ok()
    }
}

impl Receiver for Git {
    const PACE: Duration = Duration::from_secs(30);

    async fn advance(&self, records: &Records) -> Result<(), MirrorError> {
        let Some(set) = records.set().await?.git else { return Ok(()) };
        let failed = |source: PushError| MirrorError::Git { url: set.url.clone(), source };
        let mut position: Position = kept(&self.file())?;
        if (&position.url, &position.branch) != (&set.url, &set.branch) {
            position = Position { url: set.url.clone(), branch: set.branch.clone(), ..Position::default() };
        }
        loop {
            // What was sent may have got there: only the server knows, and it is asked once there is more to say.
            let sequence = position.at.as_ref().map_or(0, |mark| mark.sequence);
            let links = records.after(sequence).await?;
            if links.is_empty() {
                return Ok(());
            }
            let place = self.place(records, &set).await?.map_err(failed)?;
            let (git, before) = (self.clone(), position);
            let turn = tokio::task::spawn_blocking(move || git.turn(place, before, &links)).await;
            position = turn.unwrap_or(Err(PushError::BrokeOff)).map_err(failed)?;
            keep(&self.file(), &position)?;
        }
    }
}

impl Git {
    fn file(&self) -> PathBuf {
        self.folder.join("git.json")
    }

    fn bare(&self) -> PathBuf {
        self.folder.join("git")
    }

    /// The branch, with what opens it.
    async fn place(&self, records: &Records, set: &GitMirror) -> Result<Result<Place, PushError>, StoreError> {
        let name = set.secret.clone();
        let secret = records.store.read(move |tx| tx.get_value(&SECRET, &name.namespace, &name.name)).await?;
        let access = secret.map_or(Err(self.lacks(set)), |secret| {
            let secret = self.sealer.reveal_object(SECRET.sealed, &secret)?;
            access(set, &Secret::deserialize(&secret).unwrap_or_default()).ok_or_else(|| self.lacks(set))
        });
        let (url, branch, authority) = (set.url.clone(), set.branch.clone(), set.authority.clone());
        Ok(access.map(|access| Place { url, branch, access, authority }))
    }

    fn lacks(&self, set: &GitMirror) -> PushError {
        let what = if is_ssh(set) { "ssh-privatekey and known_hosts" } else { "username and password" };
        PushError::NoAccess { secret: set.secret.clone(), what }
    }

    /// Adds records to the branch, unless it has them already.
    fn turn(&self, place: Place, position: Position, links: &[Link]) -> Result<Position, PushError> {
        let turn = || {
            let branch = RemoteBranch::open(&self.bare(), place)?;
            let (parent, settled) = settle(&branch, position)?;
            let has = settled.at.as_ref().map_or(0, |mark| mark.sequence);
            match links.iter().any(|link| link.sequence <= has) {
                true => Ok(settled),
                false => self.add(&branch, parent, settled, links),
            }
        };
        turn().inspect_err(|error| self.start_over(error))
    }

    fn add(
        &self,
        branch: &RemoteBranch,
        parent: Option<Oid>,
        mut position: Position,
        links: &[Link],
    ) -> Result<Position, PushError> {
        let commit = self.commit(branch, parent, links)?;
        let sequence = links.last().map_or(0, |last| last.sequence);
        let mark = Some(Mark { commit: commit.to_string(), sequence });
        position = Position { sent: mark.clone(), commits: position.commits + 1, ..position };
        keep(&self.file(), &position).map_err(GitError::File)?;
        branch.push(commit)?;
        if position.commits.is_multiple_of(PACKED_EVERY) {
            branch.pack(commit)?;
        }
        Ok(Position { at: mark, sent: None, ..position })
    }

    /// A signed commit with these records.
    fn commit(&self, branch: &RemoteBranch, parent: Option<Oid>, links: &[Link]) -> Result<Oid, PushError> {
        let now = (self.clock)();
        let sequence = |link: Option<&Link>| link.map_or(0, |link| link.sequence);
        let (first, last) = (sequence(links.first()), sequence(links.last()));
        let content: String = links.iter().map(|link| link.line() + "\n").collect();
        let new = Addition {
            path: &format!("{}/{first:012}-{last:012}.jsonl", now.strftime("%Y/%m/%d")),
            content: content.as_bytes(),
            message: &format!("Records {first} to {last} of {}\n", self.hostname),
            by: ("Berth", &format!("audit@{}", self.hostname)),
            at: now.as_second(),
        };
        let draft = branch.draft(parent, &new)?;
        Ok(branch.commit(&draft, &self.notary.sign_commit(&draft)?)?)
    }

    /// What is kept here of the branch may be damaged, as after a loss of power: it is fetched again.
    fn start_over(&self, error: &PushError) {
        if matches!(error, PushError::Git(error) if error.is_about_what_is_here())
            && let Err(error) = remove_dir_all(&self.bare())
        {
            tracing::warn!("what is kept of the audit mirror's branch stays: {}", crate::log::chain(&error));
        }
    }
}

/// What the next commit grows from, and what of us is in it.
fn settle(branch: &RemoteBranch, position: Position) -> Result<(Option<Oid>, Position), PushError> {
    let tip = branch.tip()?;
    if let Some(tip) = tip.filter(|tip| !branch.has(*tip)) {
        branch.fetch()?;
        tracing::debug!("fetched the audit mirror's branch at {tip}");
    }
    let marks = [position.sent.clone(), position.at.clone()];
    for mark in marks.into_iter().flatten() {
        let (Some(left), Some(tip)) = (mark.oid(), tip) else { continue };
        if branch.grew_from(tip, left)? {
            return Ok((Some(tip), Position { at: Some(mark), sent: None, ..position }));
        }
    }
    match position.at.as_ref().and_then(Mark::oid) {
        Some(commit) => Err(PushError::Rewritten { branch: position.branch.clone(), commit }),
        None => Ok((tip, Position { sent: None, ..position })),
    }
}

fn is_ssh(set: &GitMirror) -> bool {
    set.url.starts_with("ssh://")
}

/// What a Secret holds that opens the branch.
fn access(set: &GitMirror, secret: &Secret) -> Option<Access> {
    let value = |key: &str| {
        let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
        Some(String::from_utf8(bytes.clone()).ok()?.trim_end().to_owned()).filter(|text| !text.is_empty())
    };
    if is_ssh(set) {
        let private = Zeroizing::new(value("ssh-privatekey")? + "\n");
        return Some(Access::Key { private, known_hosts: value("known_hosts")? });
    }
    Some(Access::Password { user: value("username")?, password: Zeroizing::new(value("password")?) })
}
