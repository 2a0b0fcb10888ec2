//! Client certificates: signed here for a key that its holder alone has, asked for in the handshake, recognised in each
//! request.
//!
//! ```text
//! signing request ─> key proven, its names left aside ─> certificate: CN, 128 random bits of serial, for clients alone
//! handshake       ─> none, or one of our authority; any other ends it (alert)
//! request         ─> the record of the certificate, found by its hash: whose it is, whether it is still good
//! ```
//!
//! The handshake lets expired ones in: a request can be told what is wrong, a handshake cannot.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::ca::{Authority, CaError, live_for};
use crate::store::hex;

/// Bytes of a request that is read: keys of 8192 bits fit in.
const LONGEST: usize = 16 * 1024;
/// Bits of an RSA key, at least.
const LEAST_RSA: usize = 2048;
/// Characters of a common name (RFC 5280).
const LONGEST_NAME: usize = 64;

/// A certificate with which somebody came; that he has its key, the handshake has proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The SHA-256 of it.
    pub hash: [u8; 32],
}

impl Presented {
    /// The first of the chain that was shown.
    pub fn of(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        chain?.first().map(|certificate| Self { hash: hash(certificate) })
    }
}

fn hash(der: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, der).as_ref());
    bytes
}

/// What is wrong with a signing request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is something else, or damaged.
    #[error(
        "is no certificate signing request as PEM whose signature is right; make one, e.g. with `openssl req -new`"
    )]
    Unreadable,
    /// Its key is too weak, or of a kind that is not known.
    #[error("has a key that is not taken; use ECDSA (P-256, P-384), Ed25519, or RSA of {LEAST_RSA} bits or more")]
    Key,
}

/// A request whose sender has shown that he has the key.
#[derive(Debug)]
pub struct SigningRequest(CertificateSigningRequestParams);

impl SigningRequest {
    /// Reads one; only its key will be used.
    ///
    /// # Errors
    /// It is none, its signature is wrong, or its key is weak.
    pub fn parse(pem: &str) -> Result<Self, RequestError> {
        if pem.len() > LONGEST {
            return Err(RequestError::Unreadable);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| RequestError::Unreadable)?;
        let (_, read) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Unreadable)?;
        let key = &read.certification_request_info.subject_pki;
        match key.parsed().map_err(|_| RequestError::Key)? {
            PublicKey::RSA(rsa) if rsa.key_size() < LEAST_RSA => return Err(RequestError::Key),
            PublicKey::RSA(_) | PublicKey::EC(_) | PublicKey::Unknown(_) => {}
            _ => return Err(RequestError::Key),
        }
        let proven = CertificateSigningRequestParams::from_der(&der).map_err(|_| RequestError::Unreadable)?;
        // What would be signed has to be the key that was proven, its curve included.
        match proven.public_key.subject_public_key_info() == key.raw {
            true => Ok(Self(proven)),
            false => Err(RequestError::Key),
        }
    }
}

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `users` or `devices`.
    pub kind: &'static str,
    /// His name.
    pub name: String,
}

/// A certificate that was just signed.
#[derive(Clone, Debug)]
pub struct Signed {
    /// It, as PEM.
    pub pem: String,
    /// By what it is recognised.
    pub presented: Presented,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Since when it is good, but for a day before for clocks that are behind.
    pub issued_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
}

/// Signs a certificate for the key of a request. What else the request says is not believed.
///
/// # Errors
/// The machine gives no randomness, or no certificate can be made.
pub fn sign(
    authority: &Authority,
    request: &SigningRequest,
    holder: &Holder,
    now: Timestamp,
    life: SignedDuration,
) -> Result<Signed, CaError> {
    let serial = draw_serial()?;
    let mut parameters = CertificateParams::default();
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, format!("berth:{}", holder.kind));
    let name: String = holder.name.chars().take(LONGEST_NAME).collect();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    live_for(&mut parameters, now, life)?;
    let certificate = authority.sign(&parameters, &request.0.public_key)?;
    Ok(Signed {
        pem: certificate.pem(),
        presented: Presented { hash: hash(certificate.der()) },
        serial: hex(&serial),
        issued_at: now,
        expires_at: now.checked_add(life).map_err(|_| CaError::Clock { now })?,
    })
}

/// 128 random bits, the first of them not set: as a number it is positive and 16 bytes long.
fn draw_serial() -> Result<[u8; 16], CaError> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| CaError::Random)?;
    // A serial of zero is none; one that begins with zeros would be written shorter than it is recorded.
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

/// What the TLS listener asks about certificates of clients.
#[derive(Debug)]
pub struct Verifier {
    ours: Arc<dyn ClientCertVerifier>,
}

impl Verifier {
    /// Lets in who has none, and who has one of this authority.
    ///
    /// # Errors
    /// The TLS library does not accept the authority.
    pub fn new(authority: &Authority) -> Result<Self, CaError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate_der()?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let ours = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
        Ok(Self { ours: ours.build().map_err(CaError::Verifier)? })
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        self.ours.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.ours.verify_client_cert(end_entity, intermediates, within_its_life(end_entity, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.ours.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.ours.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.ours.supported_verify_schemes()
    }
}

/// The time that a certificate is examined for: now, as far as it was ever good. Whether it is so now, each request is
/// told.
fn within_its_life(certificate: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
    let Ok((_, read)) = X509Certificate::from_der(certificate) else { return now };
    let seconds = |at: x509_parser::time::ASN1Time| u64::try_from(at.timestamp()).unwrap_or(0);
    let (from, until) = (seconds(read.validity().not_before), seconds(read.validity().not_after));
    let at = now.as_secs().min(until).max(from);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(at))
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

    fn noon() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn alice() -> Holder {
        Holder { kind: "users", name: "alice".into() }
    }

    /// A request that claims to be somebody, and something, that it is not.
    fn boastful(key: &KeyPair) -> String {
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, "olivia");
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        parameters.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn a_certificate_names_whom_we_say_for_clients_alone_whatever_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), noon()).unwrap();
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let request = SigningRequest::parse(&boastful(&key)).unwrap();
            let signed = sign(&authority, &request, &alice(), noon(), WEEK).unwrap();
            let der = CertificateDer::from_pem_slice(signed.pem.as_bytes()).unwrap();
            let (_, read) = X509Certificate::from_der(&der).unwrap();
            assert_eq!(read.subject().to_string(), "O=berth:users, CN=alice");
            let usage = read.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.client_auth && !usage.server_auth && !usage.any);
            let usage = read.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && !usage.key_cert_sign());
            assert!(!read.is_ca() && read.subject_alternative_name().unwrap().is_none());
            assert_eq!(read.validity().not_after.timestamp(), (noon() + WEEK).as_second());
            assert_eq!(signed.serial, hex(read.tbs_certificate.raw_serial()));
            assert_eq!((signed.serial.len(), signed.presented), (32, Presented { hash: hash(&der) }));
            assert_eq!(read.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        }
    }

    #[test]
    fn no_two_serials_are_alike_and_all_are_positive_and_as_long() {
        let serials: std::collections::BTreeSet<[u8; 16]> = (0..64).map(|_| draw_serial().unwrap()).collect();
        assert_eq!(serials.len(), 64);
        assert!(serials.iter().all(|serial| (0x40..0x80).contains(&serial[0])));
    }

    #[test]
    fn what_is_no_request_or_whose_signature_is_wrong_is_refused() {
        let unreadable = |pem: &str| matches!(SigningRequest::parse(pem), Err(RequestError::Unreadable));
        let good = boastful(&KeyPair::generate().unwrap());
        assert!(unreadable("") && unreadable("hello") && unreadable(&"x".repeat(LONGEST + 1)));
        let key = KeyPair::generate().unwrap();
        assert!(unreadable(&key.serialize_pem()));
        let der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
        for at in [der.len() - 1, der.len() / 2] {
            let mut damaged = der.to_vec();
            damaged[at] ^= 1;
            assert!(CertificateSigningRequestParams::from_der(&damaged.as_slice().into()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn an_expired_certificate_passes_the_handshake_and_a_foreign_or_a_servers_does_not() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let authority = Authority::open_or_create(dir.path(), noon()).unwrap();
        let foreign = Authority::open_or_create(elsewhere.path(), noon()).unwrap();
        let request = SigningRequest::parse(&boastful(&KeyPair::generate().unwrap())).unwrap();
        let verifier = Verifier::new(&authority).unwrap();
        let year_later = noon() + SignedDuration::from_hours(365 * 24);
        let seconds = |at: Timestamp| std::time::Duration::from_secs(at.as_second().unsigned_abs());
        let passes = |der: &CertificateDer<'_>, at| {
            verifier.verify_client_cert(der, &[], UnixTime::since_unix_epoch(seconds(at))).is_ok()
        };
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let ours = sign(&authority, &request, &alice(), noon(), WEEK).unwrap();
        assert!(passes(&der(&ours.pem), noon()) && passes(&der(&ours.pem), year_later));
        let theirs = sign(&foreign, &request, &alice(), noon(), WEEK).unwrap();
        assert!(!passes(&der(&theirs.pem), noon()) && !passes(&der(&theirs.pem), year_later));
        let names = super::super::ca::Names::of("harbour", []);
        super::super::ca::ServerCertificate::open(Arc::new(authority), &names, noon()).unwrap();
        let server = std::fs::read_to_string(dir.path().join("keys/server.pem")).unwrap();
        assert!(!passes(&der(&server), noon()), "the API's own certificate is no client's");
    }
}
