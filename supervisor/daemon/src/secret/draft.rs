//! Values that are to be written later: sealed at once, and named by their digests in the object that they wait for.
//!
//! They lie with whoever keeps them, a change set, and open for nobody else: the record that they are bound to has the
//! keeper's uid in place of that of a Secret, which may not be there yet.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::object::{decode, digest_in, entries, record_of, shown};
use super::{Record, Sealer, SecretError};

/// Sealed values that wait.
#[derive(Clone, Debug, Default)]
pub struct Drafts {
    /// Uid of whoever keeps them.
    pub keeper: String,
    /// Each by its digest, as it stands in the object.
    pub sealed: BTreeMap<String, String>,
}

/// An object as it was before somebody gave it other values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before<'a> {
    /// With digests in place of values, drafts included.
    pub shown: Option<&'a Value>,
    /// As it is stored, without drafts.
    pub stored: Option<&'a Value>,
}

impl Sealer {
    /// Makes drafts of the new values of an object; what is left in it are digests. Digests may be sent back.
    ///
    /// # Errors
    /// Locked; a value that is not base64; a digest that is not that of the present value.
    pub fn draft_object(
        &self,
        maps: &[&str],
        object: &mut Value,
        before: Before<'_>,
        drafts: &mut Drafts,
    ) -> Result<(), SecretError> {
        let metadata = object["metadata"].clone();
        for map in maps {
            let in_map = |before: Option<&'_ Value>| before.and_then(|before| before.get(*map)).cloned();
            let (shown, stored) = (in_map(before.shown), in_map(before.stored));
            for (key, value) in entries(object, map) {
                let field = || format!("{map}.{key}");
                let clear = Zeroizing::new(decode(value).ok_or_else(|| SecretError::Malformed { field: field() })?);
                let known = shown.as_ref().and_then(|shown| shown.get(key));
                if digest_in(&clear).is_some() {
                    if known == Some(value) {
                        continue;
                    }
                    return Err(SecretError::StaleDigest { field: field() });
                }
                let kept = stored.as_ref().and_then(|stored| stored.get(key)).zip(before.stored);
                let kept = kept.map(|(sealed, stored)| (record_of(&stored["metadata"], key), sealed.clone()));
                let record = Record { uid: &drafts.keeper, ..record_of(&metadata, key) };
                let waits = known.and_then(|known| drafts.sealed.get(known.as_str()?));
                let waits = waits.map(|sealed| (record, Value::from(sealed.as_str())));
                *value = match self.known(kept.into_iter().chain(waits), &clear)? {
                    Some(digest) => digest,
                    None => {
                        let sealed = STANDARD.encode(self.seal(&record, &clear)?);
                        let digest = self::shown(&Value::from(sealed.as_str()));
                        drafts.sealed.insert(digest.as_str().unwrap_or_default().to_owned(), sealed);
                        digest
                    }
                };
            }
        }
        Ok(())
    }

    /// The digest of a value that is sealed already.
    fn known<'a>(
        &self,
        sealed: impl Iterator<Item = (Record<'a>, Value)>,
        clear: &[u8],
    ) -> Result<Option<Value>, SecretError> {
        for (record, sealed) in sealed {
            if self.holds(&record, &decode(&sealed).unwrap_or_default(), clear)? {
                return Ok(Some(shown(&sealed)));
            }
        }
        Ok(None)
    }

    /// Puts values in the clear in place of the digests of drafts. Digests of stored values stay
    /// ([`Sealer::resolve_digests`]).
    ///
    /// # Errors
    /// Locked, or a draft was changed on disk.
    pub fn open_drafts(&self, maps: &[&str], object: &mut Value, drafts: &Drafts) -> Result<(), SecretError> {
        let metadata = object["metadata"].clone();
        for map in maps {
            for (key, value) in entries(object, map) {
                let Some(sealed) = value.as_str().and_then(|digest| drafts.sealed.get(digest)) else { continue };
                let record = Record { uid: &drafts.keeper, ..record_of(&metadata, key) };
                *value = self.reveal_value(&record, &Value::from(sealed.as_str()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring::rand::SystemRandom;
    use serde_json::json;

    use super::*;
    use crate::secret::{MasterKey, redact_object};

    const MAPS: &[&str] = &["data"];

    fn object(uid: &str, value: &str) -> Value {
        json!({"metadata": {"namespace": "default", "name": "db", "uid": uid}, "data": {"a": STANDARD.encode(value)}})
    }

    #[test]
    fn drafts_show_digests_open_for_their_keeper_alone_and_know_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(dir.path(), MasterKey::from_bytes(&[7; 32]), Arc::new(SystemRandom::new()));
        let mut stored = object("u1", "one");
        sealer.seal_object(MAPS, &mut stored, None).unwrap();
        let shown = redact_object(MAPS, stored.clone());
        let before = Before { shown: Some(&shown), stored: Some(&stored) };
        let mut drafts = Drafts { keeper: "set".into(), ..Drafts::default() };

        let mut same = object("", "one");
        sealer.draft_object(MAPS, &mut same, before, &mut drafts).unwrap();
        assert_eq!((&same["data"], drafts.sealed.len()), (&shown["data"], 0), "it is so already");
        let mut staged = object("", "canary");
        sealer.draft_object(MAPS, &mut staged, before, &mut drafts).unwrap();
        let all = format!("{staged} {drafts:?}");
        assert!(!all.contains("canary") && !all.contains(&STANDARD.encode("canary")), "{all}");
        let on_top = Before { shown: Some(&staged), ..before };
        let mut again = object("", "canary");
        sealer.draft_object(MAPS, &mut again, on_top, &mut drafts).unwrap();
        sealer.draft_object(MAPS, &mut again, on_top, &mut drafts).unwrap();
        assert_eq!((&again, drafts.sealed.len()), (&staged, 1));
        let stale = sealer.draft_object(MAPS, &mut shown.clone(), on_top, &mut drafts).unwrap_err();
        assert!(matches!(stale, SecretError::StaleDigest { .. }), "{stale}");

        let other = Drafts { keeper: "other".into(), ..drafts.clone() };
        assert!(sealer.open_drafts(MAPS, &mut staged.clone(), &other).is_err());
        sealer.open_drafts(MAPS, &mut staged, &drafts).unwrap();
        assert_eq!(staged, object("", "canary"));
    }
}
