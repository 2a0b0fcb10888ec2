//! User: a person who has an account. What he may do is said by [`super::RoleBinding`]s; how he proves who he is, is
//! kept apart from it and shown to nobody.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

crate::resource::object! {
    /// A person who has an account.
    User, "users", UserSpec, UserStatus
}

/// What is said about a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UserSpec {
    /// How he is called by others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// He cannot log in, and nothing that he has is good for anything, until this is taken back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// What is known about his ways in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UserStatus {
    /// When his password was last set; none, if he has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub password_set: Option<Timestamp>,
    /// When he last logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_login: Option<Timestamp>,
    /// Since when he needs a code of an authenticator app to log in; none, if he does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub totp_set: Option<Timestamp>,
    /// Passkeys that he may show in the place of a code.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passkeys: Vec<PasskeyStatus>,
    /// How many recovery codes he has left, if he needs more than his password to log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_codes: Option<u32>,
}

impl UserStatus {
    /// Whether he needs more than his password to log in.
    pub fn has_second_factor(&self) -> bool {
        self.totp_set.is_some() || !self.passkeys.is_empty()
    }
}

/// What is known of a passkey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasskeyStatus {
    /// As its user calls it.
    pub name: String,
    /// The host name of the machine that it is good for.
    pub host: String,
    /// Since when it is known.
    #[schemars(with = "String")]
    pub added: Timestamp,
    /// When it was last shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_used: Option<Timestamp>,
}
