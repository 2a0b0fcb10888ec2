//! Client certificates: the key is made here and stays here; what is sent is a request to sign a certificate for it.

use berth_model::enrolment::Issued;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};

/// What is known of a client certificate that is kept here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The server that knows it.
    pub server: String,
    /// Whom it names: `user:alice`.
    pub subject: String,
    /// The name of its record there.
    pub name: String,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Identity {
    /// A certificate as a server has just signed it.
    pub fn of(server: &str, issued: &Issued) -> Self {
        Self {
            server: server.to_owned(),
            subject: issued.subject.clone(),
            name: issued.name.clone(),
            issued_at: issued.issued_at,
            expires_at: issued.expires_at,
        }
    }

    /// A third of its life or less is left: it is renewed, while it still can be.
    pub fn is_due(&self, now: Timestamp) -> bool {
        now.duration_until(self.expires_at) * 3 <= self.issued_at.duration_until(self.expires_at)
    }

    /// It is good for nothing any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }
}

/// A key, and a request to sign a certificate for it.
pub struct Fresh {
    key: KeyPair,
    /// The request as PEM. It names nobody: the server knows whom the certificate is for.
    pub request: String,
}

impl Fresh {
    /// Makes both.
    ///
    /// # Errors
    /// The machine gives no randomness.
    pub fn draw() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        let request = parameters.serialize_request(&key)?.pem()?;
        Ok(Self { key, request })
    }

    /// The key with the certificate that was signed for it, as one file holds both.
    pub fn with(&self, issued: &Issued) -> String {
        format!("{}{}", self.key.serialize_pem(), issued.certificate)
    }
}

/// Key and certificate of such a file, apart.
pub fn parts(pem: &str) -> Option<(&str, &str)> {
    let at = pem.find("-----BEGIN CERTIFICATE-----")?;
    Some(pem.split_at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (issued_at, expires_at) = (at("2026-03-01T00:00:00Z"), at("2026-03-07T00:00:00Z"));
        let identity = Identity { issued_at, expires_at, ..Identity::default() };
        assert!(!identity.is_due(at("2026-03-04T23:59:59Z")) && identity.is_due(at("2026-03-05T00:00:00Z")));
        assert!(!identity.is_over(at("2026-03-06T23:59:59Z")) && identity.is_over(expires_at));
    }

    #[test]
    fn a_request_names_nobody_and_the_key_is_not_in_it() {
        let fresh = Fresh::draw().unwrap();
        assert!(fresh.request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{}", fresh.request);
        let (one, other) = (fresh.key.serialize_pem(), Fresh::draw().unwrap().key.serialize_pem());
        assert_ne!(one, other);
        assert_eq!(
            parts(&format!("{one}-----BEGIN CERTIFICATE-----")),
            Some((one.as_str(), "-----BEGIN CERTIFICATE-----"))
        );
    }
}
