//! What is said between whoever wants a client certificate and the machine that signs it.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A certificate that is wanted. Whom it names, the machine knows by who asks, or by the path; what the request says
/// about that is not believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NewCertificate {
    /// A certificate signing request (PKCS #10) as PEM: it brings the public key, and proves that there is a private one.
    pub request: String,
    /// What the certificate is for, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// The answer: a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issued {
    /// The certificate as PEM.
    pub certificate: String,
    /// The authority that signed it, as PEM; the machine's own certificate is signed by it, too.
    pub authority: String,
    /// Whom it names: `user:alice`.
    pub subject: String,
    /// The name of the object that records it.
    pub name: String,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// When it ends. Its holder asks for the next one in time.
    pub expires_at: Timestamp,
}

/// How long a bootstrap token is good.
pub const BOOTSTRAP_LIFE: SignedDuration = SignedDuration::from_mins(5);

/// `POST .../bootstraptokens`, the answer: what somebody without any certificate enrols with, once.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// To be sent as `Authorization: Bearer ...`, with a signing request, and good for nothing else.
    pub token: String,
    /// The SHA-256 of the machine's authority, in hexadecimal: before the token is sent, whoever holds it looks whether
    /// that is who answers.
    pub fingerprint: String,
    /// Whom the certificate will name: `user:alice`.
    pub subject: String,
    /// When the token ends.
    pub expires_at: Timestamp,
}

/// All that is needed to enrol, in one word that can be copied or shown as a QR code.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Where: `https://host:port`.
    pub server: String,
    /// The SHA-256 of the machine's authority, in hexadecimal.
    pub fingerprint: String,
    /// The bootstrap token.
    pub token: String,
}

/// It is no such word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not what `berth token --qr` shows: {PREFIX}SERVER#FINGERPRINT#TOKEN, in one piece")]
pub struct InvitationError;

const PREFIX: &str = "berth-enrol:";

impl fmt::Display for Invitation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{PREFIX}{}#{}#{}", self.server, self.fingerprint, self.token)
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(InvitationError)?;
        let mut parts = rest.split('#');
        let (Some(server), Some(fingerprint), Some(token), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvitationError);
        };
        let hash = fingerprint.len() == 64 && fingerprint.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !server.starts_with("https://") || !hash || token.is_empty() {
            return Err(InvitationError);
        }
        let (server, token) = (server.to_owned(), token.to_owned());
        Ok(Self { server, fingerprint: fingerprint.to_ascii_lowercase(), token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_one_word_that_is_read_back_as_it_was() {
        let fingerprint = "0123456789abcdef".repeat(4);
        let server = "https://[fd00::1]:6443".to_owned();
        let invitation = Invitation { server, fingerprint: fingerprint.clone(), token: "berth_bootstrap_x".into() };
        let word = invitation.to_string();
        assert_eq!(word, format!("berth-enrol:https://[fd00::1]:6443#{fingerprint}#berth_bootstrap_x"));
        assert!(format!(" {word}\n").parse::<Invitation>().is_ok_and(|read| read == invitation));
        for wrong in [
            String::new(),
            word.replace("https", "http"),
            word.replace("berth-enrol:", ""),
            word.replace("0123", "012"),
            word.replace("0123", "012x"),
            format!("{word}#more"),
            word.replace("berth_bootstrap_x", ""),
        ] {
            assert!(wrong.parse::<Invitation>().is_err(), "{wrong}");
        }
    }
}
