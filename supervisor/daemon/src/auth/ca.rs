//! Berth's own certificate authority, and the certificate its API shows.
//!
//! ```text
//! keys/ca.key      made once, 0600             ca.crt (beside keys/)  the same certificate,
//! keys/ca.crt      self-signed by it                                  for whoever has to trust it
//! keys/server.pem  key and chain in one file, so that one rename replaces both
//! ```
//!
//! [`Authority::open_or_create`] makes what is missing and never replaces a key: killed after
//! `ca.key`, the next start signs the certificate for that key. [`ServerCertificate`] is what the
//! TLS listener asks at every handshake, so a renewed certificate needs no restart. Whether one is
//! due is decided by [`due`] from what it says, the names it should say and the time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use berth_host::fs::{FsError, atomic_write, ensure_dir, read_optional};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::client_certificate::Verifier;
use crate::store::hex;

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Life of the authority: about twenty years, since every client would have to trust a new one.
const AUTHORITY_DAYS: i32 = 20 * 365;
/// Life of the certificate the API shows.
const SERVER_DAYS: i32 = 90;

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A key or certificate file could not be read or written.
    #[error("keeping the certificates on disk")]
    File(#[from] FsError),
    /// A file is there but is not what it should be.
    #[error("{} does not hold {what}; restore it from a backup, or move it away and run `berthd setup` \
             to make a new one (every client then has to trust the new authority)", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Making a key or a certificate failed.
    #[error("making a certificate")]
    Make(#[from] rcgen::Error),
    /// The TLS library does not accept a key or certificate.
    #[error("handing a certificate to TLS")]
    Tls(#[from] rustls::Error),
    /// Who comes with a certificate cannot be examined.
    #[error("preparing to examine clients' certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// A serial number cannot be drawn.
    #[error("the machine gives no randomness")]
    Random,
    /// The time is outside of what a certificate can say.
    #[error("the clock says {now}, which no certificate can hold; set the clock")]
    Clock {
        /// What the clock says.
        now: Timestamp,
    },
}

/// The authority: its key never leaves this value and its file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    keys: PathBuf,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority below `data`, or makes it. Safe to repeat after a kill at any point.
    ///
    /// # Errors
    /// A file that cannot be read or written, or that holds something else.
    pub fn open_or_create(data: &Path, now: Timestamp) -> Result<Self, CaError> {
        let keys = data.join("keys");
        ensure_dir(&keys, 0o700)?;
        let key = authority_key(&keys)?;
        let certificate = authority_certificate(&keys, &key, now)?;
        publish(&data.join("ca.crt"), &certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        Ok(Self { issuer, certificate, keys })
    }

    /// The authority's certificate as PEM, for whoever has to trust it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The same as DER.
    ///
    /// # Errors
    /// It is damaged.
    pub fn certificate_der(&self) -> Result<CertificateDer<'static>, CaError> {
        let damaged = |_| CaError::Damaged { path: self.keys.join("ca.crt"), what: "the certificate of keys/ca.key" };
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(damaged)
    }

    /// The SHA-256 of the certificate, in hexadecimal.
    ///
    /// # Errors
    /// It is damaged.
    pub fn fingerprint(&self) -> Result<String, CaError> {
        Ok(hex(ring::digest::digest(&ring::digest::SHA256, &self.certificate_der()?).as_ref()))
    }

    /// Signs a certificate for a public key.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn sign(
        &self,
        parameters: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<rcgen::Certificate, CaError> {
        Ok(parameters.signed_by(key, &self.issuer)?)
    }

    /// Makes a server certificate for these names and keeps it, key and chain in one file.
    fn issue(&self, names: &Names, now: Timestamp) -> Result<Shown, CaError> {
        let key = KeyPair::generate()?;
        let certificate = server_parameters(names, now)?.signed_by(&key, &self.issuer)?;
        let pem = format!("{}{}{}", key.serialize_pem(), certificate.pem(), self.certificate);
        atomic_write(&self.keys.join("server.pem"), pem.as_bytes(), 0o600)?;
        Shown::parse(pem.as_bytes()).ok_or_else(|| self.damaged_server())
    }

    /// The certificate kept from before, if there is one and it is whole.
    fn kept(&self) -> Result<Option<Shown>, CaError> {
        let pem = read_optional(&self.keys.join("server.pem"))?;
        Ok(pem.and_then(|pem| Shown::parse(&pem)).filter(|shown| shown.is_signed_by(&self.certificate)))
    }

    fn damaged_server(&self) -> CaError {
        CaError::Damaged { path: self.keys.join("server.pem"), what: "the API's key and certificate" }
    }
}

fn authority_key(keys: &Path) -> Result<KeyPair, CaError> {
    let path = keys.join("ca.key");
    if let Some(pem) = read_optional(&path)? {
        let what = "the authority's private key";
        let pem = std::str::from_utf8(&pem).ok();
        return pem.and_then(|pem| KeyPair::from_pem(pem).ok()).ok_or(CaError::Damaged { path, what });
    }
    let key = KeyPair::generate()?;
    atomic_write(&path, key.serialize_pem().as_bytes(), 0o600)?;
    Ok(key)
}

fn authority_certificate(keys: &Path, key: &KeyPair, now: Timestamp) -> Result<String, CaError> {
    let path = keys.join("ca.crt");
    if let Some(pem) = read_optional(&path)? {
        let ours = CertificateDer::from_pem_slice(&pem).is_ok_and(|der| belongs_to(&der, key));
        let text = String::from_utf8(pem).ok().filter(|_| ours);
        return text.ok_or(CaError::Damaged { path, what: "the certificate of keys/ca.key" });
    }
    let pem = authority_parameters(now)?.self_signed(key)?.pem();
    atomic_write(&path, pem.as_bytes(), 0o600)?;
    Ok(pem)
}

fn belongs_to(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, found)| found.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
}

/// Puts the certificate where everybody on the machine can read it.
fn publish(path: &Path, certificate: &str) -> Result<(), FsError> {
    if read_optional(path)?.as_deref() == Some(certificate.as_bytes()) {
        return Ok(());
    }
    atomic_write(path, certificate.as_bytes(), 0o644)
}

fn authority_parameters(now: Timestamp) -> Result<CertificateParams, CaError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = called("Berth authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    live(&mut parameters, now, AUTHORITY_DAYS)?;
    Ok(parameters)
}

fn server_parameters(names: &Names, now: Timestamp) -> Result<CertificateParams, CaError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = called("Berth API");
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in &names.dns {
        parameters.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    parameters.subject_alt_names.extend(names.addresses.iter().copied().map(SanType::IpAddress));
    live(&mut parameters, now, SERVER_DAYS)?;
    Ok(parameters)
}

fn called(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Valid from a day ago, for clients whose clock is behind, for `days` from now.
fn live(parameters: &mut CertificateParams, now: Timestamp, days: i32) -> Result<(), CaError> {
    live_for(parameters, now, DAY * days)
}

/// Valid from a day ago, for clients whose clock is behind, for so long from now.
pub(super) fn live_for(
    parameters: &mut CertificateParams,
    now: Timestamp,
    life: SignedDuration,
) -> Result<(), CaError> {
    let date = |at: Result<Timestamp, jiff::Error>| {
        at.ok()
            .and_then(|at| time::OffsetDateTime::from_unix_timestamp(at.as_second()).ok())
            .ok_or(CaError::Clock { now })
    };
    parameters.not_before = date(now.checked_sub(DAY))?;
    parameters.not_after = date(now.checked_add(life))?;
    Ok(())
}

/// What a server certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Host names.
    pub dns: BTreeSet<String>,
    /// Addresses.
    pub addresses: BTreeSet<IpAddr>,
}

impl Names {
    /// The names of a machine: its host name, that name in mDNS, the loopback names, and those
    /// of its addresses that somebody else can reach.
    pub fn of(hostname: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut names = Self::default();
        names.dns.insert("localhost".to_owned());
        let hostname = hostname.trim_end_matches('.').to_ascii_lowercase();
        if is_dns_name(&hostname) {
            if !hostname.contains('.') {
                names.dns.insert(format!("{hostname}.local"));
            }
            names.dns.insert(hostname);
        }
        names.addresses.extend([IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()]);
        names.addresses.extend(addresses.into_iter().filter(is_reachable));
        names
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 247 && name.split('.').all(label)
}

/// Link-local addresses need a zone to be reached, which no certificate can name.
fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_unicast_link_local(),
    }
}

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whom it is for.
    pub names: Names,
    /// Valid from.
    pub from: Timestamp,
    /// Valid until.
    pub until: Timestamp,
}

/// Why a certificate has to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// There is none yet, or what is there is damaged or of another authority.
    Missing,
    /// A third of its life or less is left, or it is not valid yet by our clock.
    Age,
    /// The machine has a name or address it does not say, or says one the machine no longer has.
    Names,
}

/// Whether a certificate has to be replaced.
pub fn due(kept: Option<&Facts>, names: &Names, now: Timestamp) -> Option<Due> {
    let Some(kept) = kept else { return Some(Due::Missing) };
    let life = kept.from.duration_until(kept.until);
    let left = now.duration_until(kept.until);
    if left * 3 <= life || now < kept.from {
        return Some(Due::Age);
    }
    (kept.names != *names).then_some(Due::Names)
}

/// A key with its chain, and what the certificate says.
struct Shown {
    key: Arc<CertifiedKey>,
    facts: Facts,
}

impl Shown {
    fn parse(pem: &[u8]) -> Option<Self> {
        let key = PrivateKeyDer::from_pem_slice(pem).ok()?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
        let facts = facts_of(chain.first()?)?;
        let key = rustls::crypto::ring::sign::any_ecdsa_type(&key).ok()?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().ok()?;
        Some(Self { key: Arc::new(key), facts })
    }

    fn is_signed_by(&self, authority: &str) -> bool {
        let authority = CertificateDer::from_pem_slice(authority.as_bytes()).ok();
        authority.as_ref() == self.key.cert.get(1)
    }
}

fn facts_of(certificate: &CertificateDer<'_>) -> Option<Facts> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = Names::default();
    for name in &parsed.subject_alternative_name().ok()??.value.general_names {
        match name {
            GeneralName::DNSName(name) => drop(names.dns.insert((*name).to_owned())),
            GeneralName::IPAddress(bytes) => drop(names.addresses.insert(address_of(bytes)?)),
            _ => return None,
        }
    }
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    let (from, until) = (at(parsed.validity().not_before)?, at(parsed.validity().not_after)?);
    Some(Facts { names, from, until })
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// What the TLS listener shows: asked at every handshake, replaced while it runs.
#[derive(Clone)]
pub struct ServerCertificate {
    authority: Arc<Authority>,
    shown: Arc<RwLock<Shown>>,
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate").field("facts", &self.facts()).finish_non_exhaustive()
    }
}

impl ServerCertificate {
    /// Takes the kept certificate, or makes one if it is due.
    ///
    /// # Errors
    /// As of [`Authority::open_or_create`].
    pub fn open(authority: Arc<Authority>, names: &Names, now: Timestamp) -> Result<Self, CaError> {
        let kept = authority.kept()?;
        let shown = match kept {
            Some(kept) if due(Some(&kept.facts), names, now).is_none() => kept,
            _ => authority.issue(names, now)?,
        };
        Ok(Self { authority, shown: Arc::new(RwLock::new(shown)) })
    }

    /// Replaces the certificate if that is due; new connections get the new one.
    ///
    /// # Errors
    /// As of [`Authority::open_or_create`]; the present certificate stays in use.
    pub fn renew(&self, names: &Names, now: Timestamp) -> Result<Option<Due>, CaError> {
        let Some(why) = due(Some(&self.facts()), names, now) else { return Ok(None) };
        let fresh = self.authority.issue(names, now)?;
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(Some(why))
    }

    /// What the present certificate says.
    pub fn facts(&self) -> Facts {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).facts.clone()
    }

    /// The TLS settings of the API: rustls with ring, HTTP/2 and HTTP/1.1 offered, clients asked for a certificate.
    ///
    /// # Errors
    /// The TLS library refuses its own defaults.
    pub fn tls(&self) -> Result<Arc<rustls::ServerConfig>, CaError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(Verifier::new(&self.authority)?))
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.read().unwrap_or_else(PoisonError::into_inner).key.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn names() -> Names {
        Names::of("harbour", ["192.0.2.7".parse().unwrap(), "fe80::1".parse().unwrap()])
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_machine_is_known_by_its_name_mdns_loopback_and_reachable_addresses() {
        let names = names();
        assert_eq!(Vec::from_iter(&names.dns), ["harbour", "harbour.local", "localhost"]);
        let addresses: Vec<_> = names.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1", "192.0.2.7", "::1"]);
        assert_eq!(Vec::from_iter(Names::of("bad_name", []).dns), ["localhost"]);
    }

    #[test]
    fn keys_are_for_root_alone_and_the_certificate_is_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let now = at("2026-03-01T00:00:00Z");
        let authority = Authority::open_or_create(dir.path(), now).unwrap();
        ServerCertificate::open(Arc::new(authority), &names(), now).unwrap();
        assert_eq!(mode(&dir.path().join("keys")), 0o700);
        assert_eq!(mode(&dir.path().join("keys/ca.key")), 0o600);
        assert_eq!(mode(&dir.path().join("keys/server.pem")), 0o600);
        assert_eq!(mode(&dir.path().join("ca.crt")), 0o644);
    }

    #[test]
    fn opening_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let now = at("2026-03-01T00:00:00Z");
        let first = Authority::open_or_create(dir.path(), now).unwrap();
        let shown = ServerCertificate::open(Arc::new(first), &names(), now).unwrap();
        let before = std::fs::read(dir.path().join("keys/server.pem")).unwrap();
        let again = Authority::open_or_create(dir.path(), now + DAY).unwrap();
        let kept = ServerCertificate::open(Arc::new(again), &names(), now + DAY).unwrap();
        assert_eq!(kept.facts(), shown.facts());
        assert_eq!(std::fs::read(dir.path().join("keys/server.pem")).unwrap(), before);
    }

    #[test]
    fn killed_after_the_key_the_next_start_signs_for_that_key() {
        let dir = tempfile::tempdir().unwrap();
        let now = at("2026-03-01T00:00:00Z");
        Authority::open_or_create(dir.path(), now).unwrap();
        let key = std::fs::read(dir.path().join("keys/ca.key")).unwrap();
        std::fs::remove_file(dir.path().join("keys/ca.crt")).unwrap();
        Authority::open_or_create(dir.path(), now).unwrap();
        assert_eq!(std::fs::read(dir.path().join("keys/ca.key")).unwrap(), key);
    }

    #[test]
    fn a_damaged_authority_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let now = at("2026-03-01T00:00:00Z");
        Authority::open_or_create(dir.path(), now).unwrap();
        let path = dir.path().join("keys/ca.key");
        std::fs::write(&path, "half").unwrap();
        let error = Authority::open_or_create(dir.path(), now).unwrap_err();
        assert!(matches!(error, CaError::Damaged { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"half");
    }

    #[test]
    fn a_key_and_certificate_that_do_not_belong_together_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let now = at("2026-03-01T00:00:00Z");
        Authority::open_or_create(dir.path(), now).unwrap();
        Authority::open_or_create(other.path(), now).unwrap();
        std::fs::copy(other.path().join("keys/ca.crt"), dir.path().join("keys/ca.crt")).unwrap();
        let error = Authority::open_or_create(dir.path(), now).unwrap_err();
        assert!(error.to_string().contains("ca.crt does not hold the certificate of keys/ca.key"), "{error}");
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left_or_names_change() {
        let kept = Facts { names: names(), from: at("2026-01-01T00:00:00Z"), until: at("2026-03-02T00:00:00Z") };
        let when = |now: &str| due(Some(&kept), &names(), at(now));
        assert_eq!(when("2026-02-09T00:00:00Z"), None);
        assert_eq!(when("2026-02-10T00:00:00Z"), Some(Due::Age));
        assert_eq!(when("2026-04-01T00:00:00Z"), Some(Due::Age));
        assert_eq!(when("2025-12-31T00:00:00Z"), Some(Due::Age));
        let moved = Names::of("harbour", ["192.0.2.8".parse().unwrap()]);
        assert_eq!(due(Some(&kept), &moved, at("2026-02-01T00:00:00Z")), Some(Due::Names));
        assert_eq!(due(None, &names(), at("2026-02-01T00:00:00Z")), Some(Due::Missing));
    }

    #[test]
    fn a_renewed_certificate_is_shown_without_a_restart_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let now = at("2026-03-01T00:00:00Z");
        let authority = Arc::new(Authority::open_or_create(dir.path(), now).unwrap());
        let shown = ServerCertificate::open(authority.clone(), &names(), now).unwrap();
        assert_eq!(shown.renew(&names(), now + DAY * 30).unwrap(), None);
        let late = now + DAY * 61;
        assert_eq!(shown.renew(&names(), late).unwrap(), Some(Due::Age));
        assert_eq!(shown.facts().until, late + DAY * SERVER_DAYS);
        assert_eq!(ServerCertificate::open(authority, &names(), late).unwrap().facts(), shown.facts());
    }

    #[test]
    fn a_certificate_of_another_authority_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let now = at("2026-03-01T00:00:00Z");
        let open = |dir: &Path| {
            let authority = Arc::new(Authority::open_or_create(dir, now).unwrap());
            ServerCertificate::open(authority, &names(), now).unwrap();
        };
        open(dir.path());
        open(other.path());
        let (ours, theirs) = (dir.path().join("keys/server.pem"), other.path().join("keys/server.pem"));
        std::fs::copy(&theirs, &ours).unwrap();
        open(dir.path());
        assert_ne!(std::fs::read(ours).unwrap(), std::fs::read(theirs).unwrap());
    }
}
