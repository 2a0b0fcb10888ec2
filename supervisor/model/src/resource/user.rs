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
    /// How many recovery codes he has left, if he needs a code to log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_codes: Option<u32>,
}
