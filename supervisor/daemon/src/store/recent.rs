//! The newest changes, kept as they were written: whoever follows the store need not read and decode again what another
//! follower, or the writer itself, had in hands a moment ago.
//!
//! What is here is never more than what the change log on the disk says; whoever asks for older changes, or for some
//! that cannot be told, is sent there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::changes::Change;

/// Changes kept at most.
const LENGTH: usize = 512;
/// Bytes of JSON kept at most, so that a few large objects do not take the memory of many small ones. Decoded they are
/// several times as large.
const BYTES: usize = 256 << 10;

/// A change, and how many bytes of JSON it is made of.
pub(super) type Weighed = (Arc<Change>, usize);

/// What one transaction adds, or one closure of it.
#[derive(Default)]
pub(super) struct News {
    pub(super) changes: Vec<Weighed>,
    /// Changes up to this version are forgotten.
    pub(super) compacted: Option<u64>,
}

impl News {
    pub(super) fn extend(&mut self, later: News) {
        self.changes.extend(later.changes);
        self.compacted = self.compacted.max(later.compacted);
    }
}

/// Shared by the writer and all who follow.
#[derive(Clone)]
pub(super) struct Recent(Arc<Mutex<Kept>>);

struct Kept {
    /// The version after which all changes are here.
    since: u64,
    /// The newest version.
    until: u64,
    changes: VecDeque<Weighed>,
    bytes: usize,
}

impl Recent {
    /// Nothing is known of what led to `version`.
    pub(super) fn new(version: u64) -> Self {
        Self(Arc::new(Mutex::new(Kept { since: version, until: version, changes: VecDeque::new(), bytes: 0 })))
    }

    /// Takes in what was committed, up to `version`.
    pub(super) fn add(&self, news: News, version: u64) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = news.changes.first().map_or(version, |(change, _)| change.resource_version - 1);
        if begins != kept.until {
            // A commit before this one was not told of: what is here would have a gap.
            *kept = Kept { since: begins, until: begins, changes: VecDeque::new(), bytes: 0 };
        }
        kept.bytes += news.changes.iter().map(|(_, bytes)| bytes).sum::<usize>();
        kept.changes.extend(news.changes);
        kept.until = version;
        kept.forget(news.compacted.unwrap_or(0));
    }

    /// At most `limit` changes after version `since`; `None` if that cannot be told from here.
    pub(super) fn after(&self, since: u64, limit: usize) -> Option<Vec<Arc<Change>>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if since < kept.since || since > kept.until {
            return None;
        }
        let first = kept.changes.partition_point(|(change, _)| change.resource_version <= since);
        Some(kept.changes.range(first..).take(limit).map(|(change, _)| Arc::clone(change)).collect())
    }
}

impl Kept {
    /// Drops what is compacted, and the oldest that are too many.
    fn forget(&mut self, compacted: u64) {
        self.since = self.since.max(compacted);
        while let Some((oldest, bytes)) = self.changes.front() {
            let version = oldest.resource_version;
            if version > self.since && self.changes.len() <= LENGTH && self.bytes <= BYTES {
                return;
            }
            self.bytes -= bytes;
            self.since = self.since.max(version);
            self.changes.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_model::event::ChangeKind;
    use berth_model::kinds::CONFIG_MAP;
    use berth_model::resource::operation::Actor;
    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;

    fn change(version: u64) -> Change {
        Change {
            resource_version: version,
            kind: &CONFIG_MAP,
            namespace: "default".into(),
            name: "it".into(),
            what: ChangeKind::Modified,
            object: Value::Null,
            previous: None,
            actor: Actor { identity: "test".into(), source: "api".into() },
            at: Timestamp::UNIX_EPOCH,
        }
    }

    /// One commit.
    fn add(recent: &Recent, versions: impl IntoIterator<Item = u64>, until: u64, bytes: usize) {
        let changes = versions.into_iter().map(|version| (Arc::new(change(version)), bytes)).collect();
        recent.add(News { changes, compacted: None }, until);
    }

    fn after(recent: &Recent, since: u64) -> Option<Vec<u64>> {
        let changes = recent.after(since, usize::MAX)?;
        Some(changes.iter().map(|change| change.resource_version).collect())
    }

    #[test]
    fn what_was_written_since_the_start_is_told_and_nothing_older_or_yet_to_come() {
        let recent = Recent::new(5);
        assert_eq!(after(&recent, 5), Some(vec![]));
        add(&recent, [6, 7], 7, 10);
        add(&recent, [8], 8, 10);
        assert_eq!(after(&recent, 5), Some(vec![6, 7, 8]));
        assert_eq!(after(&recent, 7), Some(vec![8]));
        assert_eq!(after(&recent, 8), Some(vec![]));
        assert_eq!((after(&recent, 4), after(&recent, 9)), (None, None));
        assert_eq!(recent.after(5, 1).unwrap().len(), 1);
    }

    #[test]
    fn the_oldest_go_first_by_their_number_and_by_their_size() {
        let recent = Recent::new(0);
        let many = LENGTH as u64 + 3;
        add(&recent, 1..=many, many, 1);
        assert_eq!(after(&recent, 2), None);
        assert_eq!(after(&recent, 3).unwrap().len(), LENGTH);
        add(&recent, [many + 1], many + 1, BYTES - 1);
        assert_eq!(after(&recent, many - 1), Some(vec![many, many + 1]));
        add(&recent, [many + 2], many + 2, BYTES + 1);
        assert_eq!(after(&recent, many + 1), None);
        assert_eq!(after(&recent, many + 2), Some(vec![]));
    }

    #[test]
    fn a_commit_that_nobody_told_of_leaves_no_gap_and_what_is_compacted_is_gone() {
        let recent = Recent::new(0);
        add(&recent, [1, 2], 2, 1);
        add(&recent, [5], 5, 1);
        assert_eq!((after(&recent, 2), after(&recent, 4)), (None, Some(vec![5])));
        add(&recent, [6, 7], 7, 1);
        recent.add(News { changes: Vec::new(), compacted: Some(6) }, 7);
        assert_eq!((after(&recent, 5), after(&recent, 6)), (None, Some(vec![7])));
    }
}
