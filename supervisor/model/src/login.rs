//! What is said between whoever logs in and the machine. Nothing of it is kept as it is, nor shown in a log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Seconds that an access token is good for.
pub const ACCESS_SECONDS: i64 = 15 * 60;

/// `POST /auth/login`: who it is.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Login {
    /// His name.
    pub user: String,
    /// His password.
    pub password: String,
    /// The code of his authenticator app, or one of his recovery codes; asked for with a cause in the field `code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What a browser answered to the challenge of `POST /auth/passkey`, in the place of a code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<PasskeyProof>,
}

/// An answer to a passkey's challenge.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasskeyProof {
    /// As it was given out.
    pub challenge: String,
    /// The `PublicKeyCredential` that `navigator.credentials.get` came to, as JSON.
    pub credential: Value,
}

/// The answer to `POST .../users/NAME/passkeys` and to `POST /auth/passkey`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PasskeyChallenge {
    /// To be sent back with what the browser answers.
    pub challenge: String,
    /// What `navigator.credentials.create` or `navigator.credentials.get` takes, as JSON.
    pub options: Value,
    /// Seconds within which it has to be answered.
    pub expires_in: i64,
}

/// `POST .../users/NAME/passkeys/confirm`: a passkey that a browser has made.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfirmPasskey {
    /// As it was given out.
    pub challenge: String,
    /// What its user calls it.
    pub name: String,
    /// The `PublicKeyCredential` that `navigator.credentials.create` came to, as JSON.
    pub credential: Value,
}

/// `POST .../users/NAME/passkeys/remove`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemovePasskey {
    /// What its user calls it.
    pub name: String,
}

/// `POST /auth/refresh`: new tokens for old ones.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refresh {
    /// As it was given out last.
    pub refresh_token: String,
}

/// The answer to both: the tokens that a session has from now on.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// Name of the Session.
    pub session: String,
    /// Who is logged in.
    pub user: String,
    /// To be sent as `Authorization: Bearer ...`.
    pub access_token: String,
    /// Seconds that it is good for.
    pub expires_in: i64,
    /// Good once, for new ones, within seven days. Whoever uses it a second time ends the session.
    pub refresh_token: String,
}

/// `POST /auth/password`: a new password, by whoever knows the old one.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangePassword {
    /// His name.
    pub user: String,
    /// The password that he has.
    pub password: String,
    /// The one that he wants.
    pub new_password: String,
    /// As for a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// As for a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<PasskeyProof>,
}

/// The answer to `POST .../users/NAME/totp`: what an authenticator app needs, shown this once.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolment {
    /// To be typed into the app, in base 32.
    pub secret: String,
    /// The same as an address that apps read from a QR code.
    pub uri: String,
    /// Seconds within which it has to be confirmed.
    pub expires_in: i64,
}

/// `POST .../users/NAME/totp/confirm`: a code that the app shows.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfirmTotp {
    /// The code.
    pub code: String,
}

/// The answer to it.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryCodes {
    /// Good once each in the place of a code of the app; shown this once.
    pub recovery_codes: Vec<String>,
}

/// `POST .../users/NAME/totp/disable`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisableTotp {
    /// A code of the app, or a recovery code: from whoever takes away his own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// `POST .../users/NAME/password`: a password that somebody else sets.
/// Exactly one of the two.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetPassword {
    /// The password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Its hash: a PHC string of Argon2id, from whoever keeps configurations without passwords in them. How good the
    /// password is cannot be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
}

/// `POST .../users/NAME/apikeys`: a key that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NewKey {
    /// What it is called, after the name of its user and a dot; drawn, if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// It may do no more than this role allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// It is good in this namespace alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Seconds that it is good for; for good, if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u32>,
}

/// `POST .../invitations`: what somebody is to get who is invited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Invite {
    /// How he will be called; if it is left out, he chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The role that he is granted.
    pub role: String,
    /// Where; on the whole machine, if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// `POST /auth/invitation`: whoever was invited sets his password, and his name, if the invitation leaves it to him.
/// Answered with an [`Accepted`].
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accept {
    /// As it stands in the link.
    pub secret: String,
    /// How he wants to be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password that he wants.
    pub password: String,
}

/// The answer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// The name of the user who came of it.
    pub user: String,
}

/// `POST /auth/claim`: the first owner of a machine, by whoever reads the code on its console.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claim {
    /// The code, with or without its dashes.
    pub code: String,
    /// The name of the user who becomes owner.
    pub user: String,
    /// His password.
    pub password: String,
}

/// What a program asks for that shows a code (RFC 8628).
pub const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The answer to `POST /auth/device`, in the shape of RFC 8628.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct DeviceAuthorization {
    /// What the program asks with.
    pub device_code: String,
    /// What somebody types who is logged in elsewhere.
    pub user_code: String,
    /// Where he does that with a browser.
    pub verification_uri: String,
    /// Seconds that both are good for.
    pub expires_in: i64,
    /// Seconds that the program waits before it asks.
    pub interval: i64,
}

/// `POST /auth/device/token`, a form: whether somebody has let a login in.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct DeviceCode {
    /// [`DEVICE_GRANT`].
    pub grant_type: String,
    /// As it was given out.
    pub device_code: String,
}

/// The answer to it, once somebody has let it in: [`Tokens`], called as RFC 6749 does.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct DeviceTokens {
    /// Name of the Session.
    pub session: String,
    /// Who is logged in.
    pub user: String,
    /// To be sent as `Authorization: Bearer ...`.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds that it is good for.
    pub expires_in: i64,
    /// As in [`Tokens`].
    pub refresh_token: String,
}

impl From<Tokens> for DeviceTokens {
    fn from(tokens: Tokens) -> Self {
        let Tokens { session, user, access_token, expires_in, refresh_token } = tokens;
        Self { session, user, access_token, token_type: "Bearer".to_owned(), expires_in, refresh_token }
    }
}

impl From<DeviceTokens> for Tokens {
    fn from(tokens: DeviceTokens) -> Self {
        let DeviceTokens { session, user, access_token, expires_in, refresh_token, .. } = tokens;
        Self { session, user, access_token, expires_in, refresh_token }
    }
}

/// Why a program has no tokens yet, or gets none: the words of RFC 6749 and RFC 8628.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceRefusal {
    /// Nobody has decided; it asks again.
    AuthorizationPending,
    /// The same, and it asked too soon: it waits five seconds longer from now on.
    SlowDown,
    /// Somebody said no.
    AccessDenied,
    /// The login has ended, or was used.
    ExpiredToken,
    /// What it asks with was never given out here.
    InvalidGrant,
    /// It is no form with the fields that are needed.
    InvalidRequest,
    /// It is another kind of login.
    UnsupportedGrantType,
}

/// The answer with 400: one of these words, and the same for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRefused {
    /// For programs.
    pub error: DeviceRefusal,
    /// For people.
    pub error_description: String,
}

impl DeviceRefused {
    /// One that says why.
    pub fn new(error: DeviceRefusal, why: &str) -> Self {
        Self { error, error_description: why.to_owned() }
    }
}

/// `POST .../users/NAME/devicelogins` and what is below it: which login is meant.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserCode {
    /// As the program shows it, with or without its dash.
    pub user_code: String,
}

/// The answer to it: what is known of a login that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceLoginShown {
    /// From where it was begun.
    pub address: String,
    /// What the program there calls itself.
    pub program: String,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// From then on its code is good for nothing.
    pub expires_at: Timestamp,
}
