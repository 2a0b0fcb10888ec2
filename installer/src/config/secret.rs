//! What must not be seen: wiped when it is let go of, and never shown by accident.

use std::borrow::Cow;
use std::fmt;

use argon2::Params;
use argon2::password_hash::PasswordHash as Phc;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

/// What stands for a secret where it is not shown.
pub const HIDDEN: &str = "••••";

/// KiB that checking a password may take: more, and nobody could log in on a small machine.
const MOST_MEMORY: u32 = 1 << 20;

/// A text that is nobody's business.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps a text.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The text, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn hidden() -> Self {
        Self(Zeroizing::new(HIDDEN.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

/// An Argon2id hash of a password as a PHC string.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PasswordHash(Zeroizing<String>);

impl PasswordHash {
    /// The PHC string, for whoever checks passwords.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn hidden() -> Self {
        Self(Zeroizing::new(HIDDEN.to_owned()))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl TryFrom<Zeroizing<String>> for PasswordHash {
    type Error = &'static str;

    /// The message does not repeat what was given.
    fn try_from(text: Zeroizing<String>) -> Result<Self, Self::Error> {
        let wrong = "is no Argon2id hash; write a PHC string that begins with `$argon2id$v=19$` and has salt and hash";
        let phc = Phc::new(&text).map_err(|_| wrong)?;
        let whole = phc.algorithm.as_str() == "argon2id" && phc.salt.is_some() && phc.hash.is_some();
        let params = Params::try_from(&phc).map_err(|_| wrong)?;
        match whole && phc.version == Some(19) {
            true if params.m_cost() > MOST_MEMORY => {
                Err("takes more than 1 GiB to check; hash the password with m=1048576 or less")
            }
            true => Ok(Self(text)),
            false => Err(wrong),
        }
    }
}

impl TryFrom<String> for PasswordHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::try_from(Zeroizing::new(text))
    }
}

impl Serialize for PasswordHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JsonSchema for PasswordHash {
    fn schema_name() -> Cow<'static, str> {
        "PasswordHash".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^\$argon2id\$v=19\$" })
    }
}
