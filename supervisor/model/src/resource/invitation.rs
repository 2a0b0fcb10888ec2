//! Invitation: an account that waits for somebody to set its password. What he shows is in the link that he was given; a
//! digest of it is kept apart.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::settings::NoStatus;

/// How long an invitation is good.
pub const INVITATION_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);

crate::resource::object! {
    /// An account that waits for somebody to set its password; called like the user who comes of it, if that is settled.
    Invitation, "invitations", InvitationSpec, NoStatus
}

/// What whoever takes it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvitationSpec {
    /// How he will be called; if it is left out, he chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The role that he is granted.
    pub role: String,
    /// Where; on the whole machine, if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Who invited him.
    pub invited_by: String,
    /// From then on it is good for nothing.
    #[schemars(with = "String")]
    pub expires_at: Timestamp,
}
