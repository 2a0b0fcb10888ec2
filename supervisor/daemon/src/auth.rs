//! Who asks: from a connection and the head of a request to a [`Subject`] of the policy.
//!
//! ```text
//! unix socket, peer uid 0            -> LocalRoot
//! unix socket, anybody else          -> refused
//! TLS, `Authorization: Bearer <token>` -> Owner, a user (session or API key) or a service account;
//!                                       refused if it is nobody's token
//! TLS, a bootstrap token             -> Bootstrap: he may enrol
//! TLS, a client certificate          -> its user or device; refused if it is good for nothing any more
//! TLS, nothing said                  -> Anonymous
//! ```
//!
//! Whoever comes with a certificate and a token is whose token it is; both have to be good.
//!
//! What a subject may do is decided by `berth_model::policy` alone. [`ca`] proves who answers.

pub mod accounts;
pub mod attempts;
pub mod ca;
pub mod claim;
pub mod client_certificate;
pub mod code;
pub mod passkey;
pub mod password;
pub mod secret;
pub mod service_token;
pub mod totp;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use berth_host::fs::{FsError, read_optional};
use berth_model::policy::{Known, Subject};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac;
use ring::rand::SystemRandom;
use zeroize::Zeroizing;

use crate::store::{Purpose, ReadTx, Store, StoreError, house_keeping};
use accounts::{Recognised, Used};
use client_certificate::Presented;
use service_token::{Account, ServiceTokens};

/// Every owner token begins so, to be recognised where it should not be.
pub const TOKEN_PREFIX: &str = "berth_owner_";

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over the unix socket, from a process of this user.
    Socket {
        /// As the kernel says.
        uid: u32,
    },
    /// Over TLS, from this address.
    Network(SocketAddr),
}

/// Why nobody can be told apart at all.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A token or key file cannot be read or written.
    #[error("keeping what tokens are known by")]
    File(#[from] FsError),
    /// The token file is not there or holds no token.
    #[error("{} holds no owner token; `systemctl restart berth-setup` makes one", path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
    },
    /// The key by which service accounts' tokens are signed is not there as a key.
    #[error("{} does not hold a key; restore it from a backup, or move it away to have a new one made (service accounts \
             then need new tokens)", path.display())]
    NoTokenKey {
        /// The file.
        path: PathBuf,
    },
    /// A token cannot be written.
    #[error("writing a token")]
    Token(#[source] jsonwebtoken::errors::Error),
    /// The secret of an authenticator app is none.
    #[error("making codes of an authenticator app")]
    Totp(#[source] totp_rs::TotpUrlError),
    /// No challenge for a passkey can be made.
    #[error("making a challenge for a passkey")]
    Passkey(#[source] webauthn_rs::prelude::WebauthnError),
    /// The machine gives no randomness.
    #[error("the machine gives no randomness")]
    Random,
}

/// Why somebody is not who he would have to be.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A bearer token that is nobody's.
    #[error("the token is not valid here; log in (`berth login`), or ask for another")]
    WrongToken,
    /// A token whose time is over.
    #[error("the token has expired; log in again (`berth login`), or ask for another")]
    Expired,
    /// A user who is kept out.
    #[error("this user is disabled; an administrator can enable him again")]
    Disabled,
    /// It cannot be looked up.
    #[error("looking up who asks")]
    Store(#[from] StoreError),
    /// A bootstrap token that was used, or has ended.
    #[error(
        "the bootstrap token is not valid: it is good once, within five minutes; have another one made \
             (`berth token --qr`)"
    )]
    WrongBootstrap,
    /// A client certificate that is recorded nowhere.
    #[error(
        "the client certificate is not known here, as it was deleted, or its user was; have another one issued \
             (`berth ca`)"
    )]
    UnknownCertificate,
    /// A client certificate that was ended.
    #[error("the client certificate was revoked; have another one issued (`berth ca`)")]
    RevokedCertificate,
    /// A client certificate whose time is over.
    #[error("the client certificate has expired; log in and have another one issued (`berth ca`)")]
    ExpiredCertificate,
    /// An `Authorization` header that is not understood.
    #[error("the Authorization header is not understood; send `Authorization: Bearer <token>`")]
    Malformed,
    /// A local user other than root.
    #[error("the socket is for root alone; use sudo, or the HTTPS address with a token")]
    NotRoot,
}

/// By what somebody came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The uid of his session, key or certificate.
    Object(String),
    /// He is a service account.
    Account(Account),
}

/// Knows who is who. Holds no token, only what recognises it.
pub struct Authenticator {
    key: hmac::Key,
    owner: hmac::Tag,
    store: Store,
    /// Tokens of service accounts.
    pub service_tokens: ServiceTokens,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

impl Authenticator {
    /// Reads the owner's token and the keys below `data`; users and service accounts are in the store.
    ///
    /// # Errors
    /// The token is not there, or no token; a key is damaged.
    pub fn open(data: &Path, store: Store) -> Result<Self, AuthError> {
        let token = data.join("token");
        let no_token = || AuthError::NoToken { path: token.clone() };
        let text = Zeroizing::new(read_optional(&token)?.ok_or_else(no_token)?);
        let text = parse_token(&text).ok_or_else(no_token)?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| AuthError::Random)?;
        let service_tokens = ServiceTokens::open(data)?;
        Ok(Self { owner: hmac::sign(&key, text.as_bytes()), key, store, service_tokens })
    }

    /// Says who asks.
    ///
    /// # Errors
    /// Somebody claims to be whom he is not, or must not ask on this way at all.
    pub async fn identify(
        &self,
        peer: Peer,
        presented: Option<&Presented>,
        headers: &HeaderMap,
    ) -> Result<Subject, Refusal> {
        match peer {
            Peer::Socket { uid: 0 } => return Ok(Subject::LocalRoot),
            Peer::Socket { .. } => return Err(Refusal::NotRoot),
            Peer::Network(_) => {}
        }
        let certified = match presented {
            None => Subject::Anonymous,
            Some(presented) => self.certified(presented).await?,
        };
        match bearer(headers)? {
            None => Ok(certified),
            Some(token) => match bootstrap(token) {
                Some(hash) => self.enrolling(hash).await,
                None => self.whose(token).await,
            },
        }
    }

    /// Who enrols with the bootstrap token that has this hash.
    async fn enrolling(&self, hash: [u8; 32]) -> Result<Subject, Refusal> {
        let now = self.store.steady_now();
        let find = move |tx: &ReadTx<'_>| accounts::by_bootstrap(tx, &hash, now);
        let enrolling = self.store.read(find).await??;
        Ok(Subject::Bootstrap(format!("bootstrap:{}", enrolling.identity()).into()))
    }

    /// Whose client certificate it is.
    async fn certified(&self, presented: &Presented) -> Result<Subject, Refusal> {
        let (hash, now) = (presented.hash, self.store.steady_now());
        let found = self.store.read(move |tx: &ReadTx<'_>| accounts::by_certificate(tx, &hash, now)).await??;
        self.noted(found).await
    }

    /// He, once it is noted that he came.
    async fn noted(&self, found: Recognised) -> Result<Subject, Refusal> {
        if let Some(used) = found.used {
            self.note_use(used).await?;
        }
        Ok(known(found.known))
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// It is nobody's, or good for nothing any more.
    pub async fn whose(&self, token: &[u8]) -> Result<Subject, Refusal> {
        if hmac::verify(&self.key, token, self.owner.as_ref()).is_ok() {
            return Ok(Subject::Owner);
        }
        let text = std::str::from_utf8(token).map_err(|_| Refusal::WrongToken)?;
        let now = self.store.steady_now();
        if ServiceTokens::is_one(text) {
            let account = self.service_tokens.whose(text, now).ok_or(Refusal::WrongToken)?;
            let find = move |tx: &ReadTx<'_>| {
                accounts::by_service_account(tx, &account.namespace, &account.name, &account.uid)
            };
            return Ok(known(self.store.read(find).await??.known));
        }
        let (purpose, hash) = secret::recognise(text)
            .filter(|(found, _)| [Purpose::Access, Purpose::Key].contains(found))
            .ok_or(Refusal::WrongToken)?;
        let find = move |tx: &ReadTx<'_>| accounts::by_credential(tx, purpose, &hash, now);
        let found = self.store.read(find).await??;
        self.noted(found).await
    }

    /// By what whoever asks came in, as far as it can be taken back.
    ///
    /// # Errors
    /// It cannot be looked up.
    pub async fn standing(
        &self,
        presented: Option<&Presented>,
        headers: &HeaderMap,
    ) -> Result<Option<Standing>, Refusal> {
        let token = bearer(headers)?.and_then(|token| std::str::from_utf8(token).ok());
        let shown = match token {
            Some(text) if ServiceTokens::is_one(text) => {
                let account = self.service_tokens.whose(text, self.store.steady_now());
                return Ok(account.map(Standing::Account));
            }
            Some(text) => secret::recognise(text),
            None => presented.map(|presented| (Purpose::Certificate, presented.hash)),
        };
        let Some((purpose, hash)) = shown else { return Ok(None) };
        let found = self.store.read(move |tx| tx.credential(purpose, &hash)).await?;
        Ok(found.map(|found| Standing::Object(found.object)))
    }

    /// Whose it was, by which somebody came who is refused, for the record: a certificate or token that is good no more
    /// still shows who had it.
    ///
    /// # Errors
    /// It cannot be looked up.
    pub async fn formerly(
        &self,
        presented: Option<&Presented>,
        headers: &HeaderMap,
    ) -> Result<Option<String>, Refusal> {
        let shown = match bearer(headers)?.and_then(|token| std::str::from_utf8(token).ok()) {
            Some(text) => secret::recognise(text),
            None => presented.map(|presented| (Purpose::Certificate, presented.hash)),
        };
        let Some((purpose, hash)) = shown else { return Ok(None) };
        Ok(self.store.read(move |tx| accounts::holder(tx, purpose, &hash)).await?)
    }

    /// Who he is now that came in by that.
    ///
    /// # Errors
    /// It was taken back.
    pub async fn stands(&self, standing: &Standing) -> Result<Subject, Refusal> {
        let (standing, now) = (standing.clone(), self.store.steady_now());
        let find = move |tx: &ReadTx<'_>| match &standing {
            Standing::Object(uid) => accounts::by_object(tx, uid, now),
            Standing::Account(account) => {
                accounts::by_service_account(tx, &account.namespace, &account.name, &account.uid)
            }
        };
        Ok(known(self.store.read(find).await??.known))
    }

    async fn note_use(&self, used: Used) -> Result<(), StoreError> {
        self.store.write(&house_keeping(), move |tx| accounts::note_use(tx, &used)).await
    }
}

fn known(known: Known) -> Subject {
    Subject::Known(known.into())
}

/// The token of a request, if it has one.
///
/// # Errors
/// What it has is not understood.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let (scheme, token) = header.as_bytes().split_at_checked(7).ok_or(Refusal::Malformed)?;
    match scheme.eq_ignore_ascii_case(b"bearer ") {
        true => Ok(Some(token.trim_ascii())),
        false => Err(Refusal::Malformed),
    }
}

/// By what a token is recognised, if it is a bootstrap token.
pub fn bootstrap(token: &[u8]) -> Option<[u8; 32]> {
    let recognised = secret::recognise(std::str::from_utf8(token).ok()?);
    recognised.filter(|(purpose, _)| *purpose == Purpose::Bootstrap).map(|(_, hash)| hash)
}

/// The token in the bytes of its file, if there is one.
pub fn parse_token(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end();
    let secret = text.strip_prefix(TOKEN_PREFIX)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (secret.len() >= 43 && secret.bytes().all(plain)).then_some(text)
}

/// What this machine is called and where it is reached now. Links of containers are left out:
/// they come and go, and nobody outside reaches the machine by them.
///
/// # Errors
/// The kernel does not say.
pub fn machine_names() -> std::io::Result<ca::Names> {
    let hostname = nix::unistd::gethostname()?;
    let links = nix::ifaddrs::getifaddrs()?;
    let outside = links.filter(|link| !link.interface_name.starts_with("berth"));
    let addresses = outside.filter_map(|link| address_of(link.address?));
    Ok(ca::Names::of(&hostname.to_string_lossy(), addresses))
}

/// Whether the machine has an address that others reach it by, or could.
///
/// # Errors
/// The kernel does not say.
pub fn is_reached() -> std::io::Result<bool> {
    let beyond_the_link = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    Ok(machine_names()?.addresses.iter().any(beyond_the_link))
}

fn address_of(address: nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "berth_owner_0123456789012345678901234567890123456789abc";

    fn opened(content: &str) -> Result<(tempfile::TempDir, Authenticator), AuthError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), content).unwrap();
        let clock: crate::store::Clock = std::sync::Arc::new(|| "2026-03-01T12:00:00Z".parse().unwrap());
        let store = Store::open(&dir.path().join("berth.db"), clock).unwrap();
        let who = Authenticator::open(dir.path(), store)?;
        Ok((dir, who))
    }

    async fn over_tls(authorization: Option<&str>) -> Result<Subject, String> {
        let mut headers = HeaderMap::new();
        if let Some(text) = authorization {
            headers.insert(AUTHORIZATION, text.parse().unwrap());
        }
        let peer = Peer::Network("192.0.2.1:40000".parse().unwrap());
        let (_dir, who) = opened(&format!("{TOKEN}\n")).unwrap();
        who.identify(peer, None, &headers).await.map_err(|refusal| refusal.to_string())
    }

    #[tokio::test]
    async fn the_token_makes_the_owner_and_nothing_else_does() {
        let wrong = || Err(Refusal::WrongToken.to_string());
        assert_eq!(over_tls(Some(&format!("Bearer {TOKEN}"))).await, Ok(Subject::Owner));
        assert_eq!(over_tls(Some(&format!("bearer {TOKEN}"))).await, Ok(Subject::Owner));
        assert_eq!(over_tls(None).await, Ok(Subject::Anonymous));
        for token in ["", "berth_key_x", "berth_access_x", "berth_refresh_x", "eyJhbGciOiJub25lIn0.e30.", "\u{e9}"] {
            assert_eq!(over_tls(Some(&format!("Bearer {token}"))).await, wrong(), "{token}");
        }
        assert_eq!(over_tls(Some(&format!("Bearer {TOKEN}x"))).await, wrong());
        assert_eq!(over_tls(Some("Basic cm9vdDo=")).await, Err(Refusal::Malformed.to_string()));
    }

    #[tokio::test]
    async fn on_the_socket_root_is_root_and_others_are_refused() {
        let (_dir, who) = opened(TOKEN).unwrap();
        let headers = HeaderMap::new();
        assert_eq!(who.identify(Peer::Socket { uid: 0 }, None, &headers).await.unwrap(), Subject::LocalRoot);
        let refused = who.identify(Peer::Socket { uid: 1000 }, None, &headers).await;
        assert!(matches!(refused, Err(Refusal::NotRoot)), "{refused:?}");
    }

    #[tokio::test]
    async fn a_file_without_a_token_is_an_error_that_says_what_to_do() {
        for content in ["", "\n", "berth_owner_short", "0123456789012345678901234567890123456789abcdefgh"] {
            let error = opened(content).map(drop).unwrap_err().to_string();
            assert!(error.ends_with("holds no owner token; `systemctl restart berth-setup` makes one"));
        }
    }

    #[test]
    fn the_machine_knows_its_loopback_names() {
        let names = machine_names().unwrap();
        assert!(names.dns.contains("localhost"));
        assert!(names.addresses.contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
