//! Which server is meant, and who asks: flags and environment, else this machine's own socket,
//! where root needs no login because the kernel vouches for it.

use std::path::PathBuf;

use reqwest::Url;

/// The socket of the daemon on this machine.
pub const LOCAL_SOCKET: &str = "/run/berth/api.sock";

/// Where requests go, and the files that open the door. The token itself is read by the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Scheme, host and port; behind a socket only a name for the `Host` header.
    pub base: Url,
    /// The unix socket that is used instead of the network.
    pub socket: Option<PathBuf>,
    /// Holds the bearer token.
    pub token_file: Option<PathBuf>,
    /// Holds a client certificate and its key, as PEM.
    pub identity_file: Option<PathBuf>,
    /// Holds the certificate authority that signed the server's certificate, as PEM.
    pub ca_file: Option<PathBuf>,
}

/// The address makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Not a URL.
    #[error("the server address {address:?} cannot be read; write it like https://192.0.2.7:6443")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Some other scheme than `https` or `unix`.
    #[error("the server address {0:?} must begin with https:// or unix:// (plain http only to this machine itself)")]
    Scheme(String),
}

/// Why an address is not a URL; named here so that callers need no other crate.
pub type ParseError = <Url as std::str::FromStr>::Err;

impl Server {
    /// The server at `address` (`https://host:port`, `host:port` or `unix:///path`), else this
    /// machine's socket.
    ///
    /// # Errors
    /// The address is no URL, or would send the token in the clear.
    pub fn choose(
        address: Option<&str>,
        token_file: Option<PathBuf>,
        ca_file: Option<PathBuf>,
    ) -> Result<Self, ServerError> {
        let (base, socket) = match address {
            None => (parse("http://localhost/")?, Some(PathBuf::from(LOCAL_SOCKET))),
            Some(address) => match address.strip_prefix("unix://") {
                Some(path) => (parse("http://localhost/")?, Some(PathBuf::from(path))),
                None => (network(address)?, None),
            },
        };
        Ok(Self { base, socket, token_file, identity_file: None, ca_file })
    }

    /// The same server, asked with a client certificate.
    pub fn with_identity(self, file: Option<PathBuf>) -> Self {
        Self { identity_file: file, ..self }
    }

    /// How a person would name it.
    pub fn shown(&self) -> String {
        match &self.socket {
            Some(path) => format!("unix://{}", path.display()),
            None => self.base.as_str().trim_end_matches('/').to_owned(),
        }
    }

    /// No proxy may stand between, and the network plays no part.
    pub fn is_local(&self) -> bool {
        self.socket.is_some() || is_loopback(&self.base)
    }
}

fn network(address: &str) -> Result<Url, ServerError> {
    let base = match address.contains("://") {
        true => parse(address)?,
        false => parse(&format!("https://{address}"))?,
    };
    match base.scheme() {
        "https" => Ok(base),
        "http" if is_loopback(&base) => Ok(base),
        _ => Err(ServerError::Scheme(address.to_owned())),
    }
}

fn parse(address: &str) -> Result<Url, ServerError> {
    Url::parse(address).map_err(|source| ServerError::Address { address: address.to_owned(), source })
}

fn is_loopback(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: Option<&str>) -> String {
        match Server::choose(address, None, None) {
            Ok(server) => server.shown(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn without_an_address_it_is_this_machine() {
        assert_eq!(shown(None), "unix:///run/berth/api.sock");
    }

    #[test]
    fn a_host_and_port_mean_https() {
        assert_eq!(shown(Some("box:6443")), "https://box:6443");
        assert_eq!(shown(Some("https://192.0.2.7:6443/")), "https://192.0.2.7:6443");
    }

    #[test]
    fn a_token_never_travels_in_the_clear() {
        assert!(shown(Some("http://box:6443")).contains("must begin with https://"));
        assert_eq!(shown(Some("http://127.0.0.1:8080")), "http://127.0.0.1:8080");
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(
            shown(Some("https://")),
            "the server address \"https://\" cannot be read; write it like https://192.0.2.7:6443"
        );
    }
}
