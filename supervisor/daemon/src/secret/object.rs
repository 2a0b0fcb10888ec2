//! Whole objects with sealed values: what may be stored, what a reader gets.
//!
//! `maps` names the top-level maps (key to base64) whose values are sealed, as the registration of
//! the kind lists them.
//!
//! A reader who may not see values gets, in place of each, a *digest*: `berth-digest:<32 hex>`.
//! Sent back unchanged it means "as it is", so that editing a label of a Secret with any tool that
//! reads, changes and writes whole objects does not touch the values.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::envelope::Envelope;
use super::{Record, Sealer, SecretError};

const DIGEST_PREFIX: &str = "berth-digest:";

impl Sealer {
    /// Seals every value. One that is in `stored` already keeps its envelope, so that an unchanged
    /// object stays unchanged. Without one, `object` must hold the namespace, name and uid it will have.
    ///
    /// # Errors
    /// Locked, or a value that is not base64.
    pub fn seal_object(&self, maps: &[&str], object: &mut Value, stored: Option<&Value>) -> Result<(), SecretError> {
        let identity = stored.map_or_else(|| object["metadata"].clone(), |stored| stored["metadata"].clone());
        for map in maps {
            for (key, value) in entries(object, map) {
                let kept = stored.and_then(|stored| stored.get(*map)?.get(key));
                *value = self.seal_value(&identity, map, key, value, kept)?;
            }
        }
        Ok(())
    }

    fn seal_value(
        &self,
        identity: &Value,
        map: &str,
        key: &str,
        value: &Value,
        kept: Option<&Value>,
    ) -> Result<Value, SecretError> {
        let field = || format!("{map}.{key}");
        let clear = zeroize::Zeroizing::new(decode(value).ok_or_else(|| SecretError::Malformed { field: field() })?);
        let record = record_of(identity, key);
        if let (Some(kept), Some(envelope)) = (kept, kept.and_then(decode))
            && self.holds(&record, &envelope, &clear)?
        {
            return Ok(kept.clone());
        }
        Ok(Value::String(STANDARD.encode(self.seal(&record, &clear)?)))
    }

    /// The object with its values in the clear.
    ///
    /// # Errors
    /// Locked, or a value cannot be opened.
    pub fn reveal_object(&self, maps: &[&str], stored: &Value) -> Result<Value, SecretError> {
        let mut object = stored.clone();
        for map in maps {
            for (key, value) in entries(&mut object, map) {
                *value = self.reveal_value(&record_of(&stored["metadata"], key), value)?;
            }
        }
        Ok(object)
    }

    pub(super) fn reveal_value(&self, record: &Record<'_>, value: &Value) -> Result<Value, SecretError> {
        let damaged = || SecretError::Damaged { what: record.to_string() };
        let opened = self.unseal(record, &decode(value).ok_or_else(damaged)?)?;
        Ok(Value::String(STANDARD.encode(opened.as_slice())))
    }

    /// Puts the present values in the place of their digests in what a client sent.
    ///
    /// # Errors
    /// Locked; or a digest is not that of the present value.
    pub fn resolve_digests(&self, maps: &[&str], body: &mut Value, stored: Option<&Value>) -> Result<(), SecretError> {
        for map in maps {
            for (key, value) in entries(body, map) {
                let Some(digest) = decode(value).as_deref().and_then(digest_in) else { continue };
                let kept = stored.and_then(|stored| Some((stored, stored.get(*map)?.get(key)?)));
                let same = kept.filter(|(_, kept)| digest_of(kept).as_deref() == Some(&digest));
                let stale = || SecretError::StaleDigest { field: format!("{map}.{key}") };
                let (stored, kept) = same.ok_or_else(stale)?;
                *value = self.reveal_value(&record_of(&stored["metadata"], key), kept)?;
            }
        }
        Ok(())
    }
}

/// The object with digests in the place of values. Needs no key.
pub fn redact_object(maps: &[&str], mut stored: Value) -> Value {
    for map in maps {
        for (_, value) in entries(&mut stored, map) {
            *value = shown(value);
        }
    }
    stored
}

/// What stands in place of a sealed value.
pub(super) fn shown(sealed: &Value) -> Value {
    let digest = digest_of(sealed).unwrap_or_else(|| "unreadable".to_owned());
    Value::String(STANDARD.encode(format!("{DIGEST_PREFIX}{digest}")))
}

pub(super) fn entries<'a>(object: &'a mut Value, map: &str) -> impl Iterator<Item = (&'a String, &'a mut Value)> {
    object.get_mut(map).and_then(Value::as_object_mut).into_iter().flatten()
}

fn digest_of(sealed: &Value) -> Option<String> {
    Envelope::parse(&decode(sealed)?).map(|envelope| envelope.digest_text())
}

pub(super) fn digest_in(value: &[u8]) -> Option<String> {
    std::str::from_utf8(value).ok()?.strip_prefix(DIGEST_PREFIX).map(str::to_owned)
}

pub(super) fn decode(value: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(value.as_str()?).ok()
}

pub(super) fn record_of<'a>(metadata: &'a Value, key: &'a str) -> Record<'a> {
    let part = |name: &str| metadata[name].as_str().unwrap_or_default();
    Record { namespace: part("namespace"), name: part("name"), uid: part("uid"), key }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring::rand::SystemRandom;
    use serde_json::json;

    use super::*;
    use crate::secret::MasterKey;

    const MAPS: &[&str] = &["data"];

    fn sealer() -> (tempfile::TempDir, Sealer) {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(dir.path(), MasterKey::from_bytes(&[7; 32]), Arc::new(SystemRandom::new()));
        (dir, sealer)
    }

    fn clear(data: &[(&str, &str)]) -> Value {
        let data: serde_json::Map<String, Value> =
            data.iter().map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value).into())).collect();
        json!({"metadata": {"namespace": "default", "name": "db", "uid": "u1"}, "data": data})
    }

    fn sealed(sealer: &Sealer, data: &[(&str, &str)], stored: Option<&Value>) -> Value {
        let mut object = clear(data);
        sealer.seal_object(MAPS, &mut object, stored).unwrap();
        object
    }

    #[test]
    fn a_sealed_object_shows_nothing_and_comes_back_whole() {
        let (_dir, sealer) = sealer();
        let stored = sealed(&sealer, &[("a", "canary")], None);
        assert!(!stored.to_string().contains(&STANDARD.encode("canary")));
        assert_eq!(sealer.reveal_object(MAPS, &stored).unwrap(), clear(&[("a", "canary")]));
    }

    #[test]
    fn the_same_value_sealed_again_keeps_its_envelope_and_another_one_does_not() {
        let (_dir, sealer) = sealer();
        let stored = sealed(&sealer, &[("a", "one"), ("b", "two")], None);
        assert_eq!(sealed(&sealer, &[("a", "one"), ("b", "two")], Some(&stored)), stored);
        let changed = sealed(&sealer, &[("a", "one"), ("b", "2")], Some(&stored));
        assert_eq!(changed["data"]["a"], stored["data"]["a"]);
        assert_ne!(changed["data"]["b"], stored["data"]["b"]);
    }

    #[test]
    fn what_a_reader_gets_can_be_sent_back_and_stands_for_the_value() {
        let (_dir, sealer) = sealer();
        let stored = sealed(&sealer, &[("a", "one")], None);
        let mut read = redact_object(MAPS, stored.clone());
        let shown = String::from_utf8(decode(&read["data"]["a"]).unwrap()).unwrap();
        assert!(shown.starts_with("berth-digest:") && shown.len() == 13 + 32, "{shown}");
        sealer.resolve_digests(MAPS, &mut read, Some(&stored)).unwrap();
        assert_eq!(read, clear(&[("a", "one")]));
    }

    #[test]
    fn the_digest_of_another_value_is_refused() {
        let (_dir, sealer) = sealer();
        let old = sealed(&sealer, &[("a", "one")], None);
        let new = sealed(&sealer, &[("a", "two")], None);
        let read = redact_object(MAPS, old);
        for stored in [Some(&new), None] {
            let error = sealer.resolve_digests(MAPS, &mut read.clone(), stored).unwrap_err();
            assert!(error.to_string().starts_with("data.a is the digest of a value"), "{error}");
        }
    }

    #[test]
    fn an_envelope_moved_to_another_object_does_not_open() {
        let (_dir, sealer) = sealer();
        let mut stored = sealed(&sealer, &[("a", "one")], None);
        stored["metadata"]["uid"] = "u2".into();
        let error = sealer.reveal_object(MAPS, &stored).unwrap_err();
        assert!(error.to_string().starts_with("key a of secret default/db cannot be opened"), "{error}");
    }
}
