//! Who asks: from a connection and the head of a request to a [`Subject`] of the policy.
//!
//! ```text
//! unix socket, peer uid 0            -> LocalRoot
//! unix socket, anybody else          -> refused
//! TLS, `Authorization: Bearer <token>` -> Owner, or refused if it is not the owner's token
//! TLS, nothing said                  -> Anonymous
//! ```
//!
//! What a subject may do is decided by `berth_model::policy` alone. [`ca`] proves who answers.

pub mod ca;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use berth_host::fs::{FsError, read_optional};
use berth_model::policy::Subject;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac;
use ring::rand::SystemRandom;
use zeroize::Zeroizing;

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
    /// The token file cannot be read.
    #[error("reading the owner's token")]
    File(#[from] FsError),
    /// The token file is not there or holds no token.
    #[error("{} holds no owner token; `systemctl restart berth-setup` makes one", path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
    },
    /// The machine gives no randomness.
    #[error("the machine gives no randomness")]
    Random,
}

/// Why somebody is not who he would have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A bearer token that is nobody's.
    #[error("the token is not valid here; the owner's is in /var/lib/berth/token on the machine")]
    WrongToken,
    /// An `Authorization` header that is not understood.
    #[error("the Authorization header is not understood; send `Authorization: Bearer <token>`")]
    Malformed,
    /// A local user other than root.
    #[error("the socket is for root alone; use sudo, or the HTTPS address with a token")]
    NotRoot,
}

/// Knows who is who. Holds no token, only what recognises it.
pub struct Authenticator {
    key: hmac::Key,
    owner: hmac::Tag,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

impl Authenticator {
    /// Reads the owner's token.
    ///
    /// # Errors
    /// It is not there, or no token.
    pub fn open(token: &Path) -> Result<Self, AuthError> {
        let no_token = || AuthError::NoToken { path: token.to_owned() };
        let text = Zeroizing::new(read_optional(token)?.ok_or_else(no_token)?);
        let text = parse_token(&text).ok_or_else(no_token)?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| AuthError::Random)?;
        Ok(Self { owner: hmac::sign(&key, text.as_bytes()), key })
    }

    /// Says who asks.
    ///
    /// # Errors
    /// Somebody claims to be whom he is not, or must not ask on this way at all.
    pub fn identify(&self, peer: Peer, headers: &HeaderMap) -> Result<Subject, Refusal> {
        match peer {
            Peer::Socket { uid: 0 } => return Ok(Subject::LocalRoot),
            Peer::Socket { .. } => return Err(Refusal::NotRoot),
            Peer::Network(_) => {}
        }
        let Some(header) = headers.get(AUTHORIZATION) else { return Ok(Subject::Anonymous) };
        let token = bearer(header.as_bytes()).ok_or(Refusal::Malformed)?;
        self.whose(token).ok_or(Refusal::WrongToken)
    }

    /// Whose token it is. Takes as long for one as for another.
    pub fn whose(&self, token: &[u8]) -> Option<Subject> {
        hmac::verify(&self.key, token, self.owner.as_ref()).ok().map(|()| Subject::Owner)
    }
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
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

fn address_of(address: nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "berth_owner_0123456789012345678901234567890123456789abc";

    fn opened(content: &str) -> Result<Authenticator, AuthError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), content).unwrap();
        Authenticator::open(&dir.path().join("token"))
    }

    fn over_tls(authorization: Option<&str>) -> Result<Subject, Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(text) = authorization {
            headers.insert(AUTHORIZATION, text.parse().unwrap());
        }
        let peer = Peer::Network("192.0.2.1:40000".parse().unwrap());
        opened(&format!("{TOKEN}\n")).unwrap().identify(peer, &headers)
    }

    #[test]
    fn the_token_makes_the_owner_and_nothing_else_does() {
        assert_eq!(over_tls(Some(&format!("Bearer {TOKEN}"))), Ok(Subject::Owner));
        assert_eq!(over_tls(Some(&format!("bearer {TOKEN}"))), Ok(Subject::Owner));
        assert_eq!(over_tls(None), Ok(Subject::Anonymous));
        assert_eq!(over_tls(Some("Bearer ")), Err(Refusal::WrongToken));
        assert_eq!(over_tls(Some(&format!("Bearer {TOKEN}x"))), Err(Refusal::WrongToken));
        assert_eq!(over_tls(Some("Basic cm9vdDo=")), Err(Refusal::Malformed));
    }

    #[test]
    fn on_the_socket_root_is_root_and_others_are_refused() {
        let who = opened(TOKEN).unwrap();
        let ask = |uid| who.identify(Peer::Socket { uid }, &HeaderMap::new());
        assert_eq!(ask(0), Ok(Subject::LocalRoot));
        assert_eq!(ask(1000), Err(Refusal::NotRoot));
    }

    #[test]
    fn a_file_without_a_token_is_an_error_that_says_what_to_do() {
        for content in ["", "\n", "berth_owner_short", "0123456789012345678901234567890123456789abcdefgh"] {
            let error = opened(content).unwrap_err().to_string();
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
