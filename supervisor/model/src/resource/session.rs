//! Session: a user who is logged in somewhere. To delete it logs him out there.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a session is kept after it was last refreshed.
pub const SESSION_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);

crate::resource::object! {
    /// A user who is logged in somewhere; deleting it logs him out there.
    Session, "sessions", SessionSpec, SessionStatus
}

/// Who logged in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionSpec {
    /// Whose it is.
    pub user: String,
}

/// From where it was last refreshed, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionStatus {
    /// The address.
    pub address: String,
    /// The program, as it calls itself.
    pub program: String,
    /// When he last proved who he is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub authenticated: Option<Timestamp>,
    /// When it was last refreshed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub refreshed: Option<Timestamp>,
}
