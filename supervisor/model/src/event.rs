//! Watch events: what a change of an object looks like to somebody who watches a part of them.

use serde_json::{Value, json};

use crate::kinds::Registration;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was made.
    Added,
    /// It is different now.
    Modified,
    /// It is gone.
    Deleted,
}

/// Type of an event on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchType {
    /// Came into sight.
    Added,
    /// Changed in sight.
    Modified,
    /// Went out of sight.
    Deleted,
    /// Nothing happened up to a version.
    Bookmark,
    /// The watch ends; the object is a `Status`.
    Error,
}

impl WatchType {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }

    /// `{"type": ..., "object": ...}`.
    pub fn with(self, object: Value) -> Value {
        json!({ "type": self.name(), "object": object })
    }
}

/// What a watcher sees of a change, who saw the object before if `before`, and sees it now if
/// `after`: leaving the selection looks like a removal, entering it like a creation.
pub fn seen(what: ChangeKind, before: bool, after: bool) -> Option<WatchType> {
    match (what, before, after) {
        (ChangeKind::Deleted, true, _) => Some(WatchType::Deleted),
        (ChangeKind::Deleted, false, _) => None,
        (_, true, true) => Some(WatchType::Modified),
        (_, false, true) => Some(WatchType::Added),
        (_, true, false) => Some(WatchType::Deleted),
        (_, false, false) => None,
    }
}

/// An otherwise empty object that tells a watcher how far it has seen.
pub fn bookmark(kind: &Registration, version: u64, initial_end: bool) -> Value {
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if initial_end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let object = json!({ "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata });
    WatchType::Bookmark.with(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_sees_objects_enter_change_in_and_leave_the_selection() {
        use ChangeKind as C;
        use WatchType as W;
        assert_eq!(seen(C::Added, false, true), Some(W::Added));
        assert_eq!(seen(C::Modified, false, true), Some(W::Added));
        assert_eq!(seen(C::Modified, true, true), Some(W::Modified));
        assert_eq!(seen(C::Modified, true, false), Some(W::Deleted));
        assert_eq!(seen(C::Deleted, true, true), Some(W::Deleted));
        assert_eq!(seen(C::Deleted, false, false), None);
        assert_eq!(seen(C::Modified, false, false), None);
    }

    #[test]
    fn a_bookmark_carries_the_kind_and_the_version_only() {
        let event = bookmark(&crate::kinds::BUNDLE, 7, false);
        assert_eq!(
            event,
            json!({"type": "BOOKMARK", "object": {
                "apiVersion": "berth.dev/v1", "kind": "Bundle", "metadata": {"resourceVersion": "7"}
            }})
        );
    }
}
