//! Where a branch is, by what it is written to, and how its server is known.

use std::sync::{Arc, Mutex, PoisonError};

use git2::cert::Cert;
use git2::{CertificateCheckStatus, Cred, CredentialType, Error, RemoteCallbacks};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use ssh_key::{HashAlg, KnownHosts, PublicKey};
use zeroize::Zeroizing;

/// A branch elsewhere.
#[derive(Default)]
pub struct Place {
    /// `https://host/path` or `ssh://user@host/path`; a folder, for tests.
    pub url: String,
    /// Its name, without `refs/heads/`.
    pub branch: String,
    /// Who comes.
    pub access: Access,
    /// The authority that signed the server's certificate itself, as PEM; none: those that the machine trusts.
    pub authority: Option<String>,
}

/// By what a server lets somebody write.
pub enum Access {
    /// Over HTTPS.
    Password {
        /// His name.
        user: String,
        /// His password or token.
        password: Zeroizing<String>,
    },
    /// Over SSH; the name is in the URL, or `git`.
    Key {
        /// A private key without a passphrase, as PEM.
        private: Zeroizing<String>,
        /// The server's keys, in lines as of `~/.ssh/known_hosts`; of them it is keys alone that are looked at.
        known_hosts: String,
    },
}

impl Place {
    /// What git asks of whoever uses it. Why a server is not taken for the one that is meant is kept in `stranger`.
    pub(super) fn callbacks<'a>(&'a self, stranger: &'a Mutex<Option<String>>) -> RemoteCallbacks<'a> {
        let mut callbacks = RemoteCallbacks::new();
        // Git asks until it is let in, or told that there is nothing more.
        let mut has_tried = false;
        callbacks.credentials(move |_, user, allowed| {
            if allowed.contains(CredentialType::USERNAME) {
                return Cred::username(user.unwrap_or("git"));
            }
            if std::mem::replace(&mut has_tried, true) {
                return Err(Error::from_str("it does not let in whoever has this name and this password or key"));
            }
            self.access.credential(user)
        });
        callbacks.certificate_check(|shown, host| {
            self.known(shown, host).inspect_err(|why| {
                *stranger.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.message().to_owned());
            })
        });
        callbacks
    }

    fn known(&self, shown: &Cert<'_>, host: &str) -> Result<CertificateCheckStatus, Error> {
        if let Some(key) = shown.as_hostkey() {
            return self.access.knows(key.hostkey().unwrap_or_default());
        }
        // Somebody who is known may have sent us on to somebody who is not meant.
        if !self.is_of(host) {
            return Err(Error::from_str(&format!("{host} answers, which is not the server that is set")));
        }
        match (&self.authority, shown.as_x509()) {
            (None, _) => Ok(CertificateCheckStatus::CertificatePassthrough),
            (Some(authority), Some(shown)) => match verified(authority, shown.data(), host) {
                Ok(()) => Ok(CertificateCheckStatus::CertificateOk),
                Err(why) => Err(Error::from_str(&format!("the authority that is set did not sign it: {why}"))),
            },
            (Some(_), None) => Err(Error::from_str("it shows no certificate")),
        }
    }

    pub(super) fn is_of(&self, host: &str) -> bool {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let rest = rest.split('/').next().unwrap_or_default();
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        let bare = |text: &str| text.trim_matches(['[', ']']).to_ascii_lowercase();
        let without_port = rest.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        bare(host) == bare(without_port.map_or(rest, |(host, _)| host)) || bare(host) == bare(rest)
    }
}

/// Whether an authority signed what a server of this name shows.
fn verified(authority: &str, shown: &[u8], host: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build()?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
    verifier.verify_server_cert(&CertificateDer::from_slice(shown), &[], &name, &[], UnixTime::now())?;
    Ok(())
}

impl Default for Access {
    fn default() -> Self {
        Self::Password { user: String::new(), password: Zeroizing::default() }
    }
}

impl Access {
    fn credential(&self, user: Option<&str>) -> Result<Cred, Error> {
        match self {
            Self::Password { user, password } => Cred::userpass_plaintext(user, password),
            Self::Key { private, .. } => Cred::ssh_key_from_memory(user.unwrap_or("git"), None, private, None),
        }
    }

    fn knows(&self, shown: &[u8]) -> Result<CertificateCheckStatus, Error> {
        let Self::Key { known_hosts, .. } = self else {
            return Err(Error::from_str("it speaks SSH, and has to speak HTTPS"));
        };
        let shown =
            PublicKey::from_bytes(shown).map_err(|why| Error::from_str(&format!("its key cannot be read: {why}")))?;
        let known = KnownHosts::new(known_hosts).filter_map(Result::ok);
        match known.into_iter().any(|entry| entry.public_key().key_data() == shown.key_data()) {
            true => Ok(CertificateCheckStatus::CertificateOk),
            false => Err(Error::from_str(&format!(
                "it shows a key that is not in known_hosts: {} {}",
                shown.algorithm(),
                shown.fingerprint(HashAlg::Sha256)
            ))),
        }
    }
}
