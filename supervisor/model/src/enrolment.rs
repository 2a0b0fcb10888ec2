//! What is said between whoever wants a client certificate and the machine that signs it.

use jiff::Timestamp;
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
