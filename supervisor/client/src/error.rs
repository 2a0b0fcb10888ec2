//! What can go wrong between a request and its answer.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// No answer, or one that says no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with an error of its own; all there is to say is in it.
    #[error("{}", told(.0))]
    Refused(Box<Status>),
    /// Nobody answers there.
    #[error("no answer from {server}")]
    Unreachable {
        /// Where.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The socket exists, but is not for this user.
    #[error("{server} is for root alone")]
    NotForYou {
        /// Where.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server's certificate is not one to trust.
    #[error("the certificate of {server} is not trusted")]
    Untrusted {
        /// Where.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer broke off.
    #[error("the answer from {server} broke off")]
    Interrupted {
        /// Where.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is not what the API promises.
    #[error("the answer from {server} cannot be understood")]
    Malformed {
        /// Where.
        server: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A file that is needed to log in or to send cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The token file holds something that is no token.
    #[error("{} holds no usable token", .0.display())]
    Token(PathBuf),
    /// The certificate file holds something else.
    #[error("{} holds no key and certificate that can be used", path.display())]
    Identity {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A bootstrap token that cannot be sent.
    #[error("this is no bootstrap token")]
    Bootstrap,
    /// The TLS library refuses its settings.
    #[error("cannot prepare TLS")]
    Tls(#[source] rustls::Error),
    /// The TLS library cannot be set up.
    #[error("cannot prepare the connection to {server}")]
    Setup {
        /// Where.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The request was turned into this command instead of being sent.
    #[error("not sent, but printed: {0}")]
    Printed(String),
}

impl ClientError {
    /// Sorts a failure of the HTTP client by what a person can do about it.
    pub(crate) fn from_http(server: &str, source: reqwest::Error) -> Self {
        let server = server.to_owned();
        if !source.is_connect() && !source.is_timeout() {
            return Self::Interrupted { server, source };
        }
        if chain(&source).any(|cause| cause.to_string().contains("invalid peer certificate")) {
            return Self::Untrusted { server, source };
        }
        match io_kind(&source) {
            Some(io::ErrorKind::PermissionDenied) => Self::NotForYou { server, source },
            _ => Self::Unreachable { server, source },
        }
    }

    /// The server's code, if it was the server that refused.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(status) => status.code.and_then(|code| u16::try_from(code).ok()),
            _ => None,
        }
    }

    /// The resource is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The resource is there already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Refused(status) if status.reason.as_deref() == Some("AlreadyExists"))
    }

    /// The versions asked for are compacted away.
    pub fn is_gone(&self) -> bool {
        self.code() == Some(410)
    }

    /// The same request may succeed a moment later without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused(_) => matches!(self.code(), Some(429 | 500..)),
            Self::Unreachable { .. } | Self::Interrupted { .. } => true,
            _ => false,
        }
    }
}

/// The server's own sentence.
pub fn told(status: &Status) -> String {
    let reason = || status.reason.clone().unwrap_or_else(|| "the server refused without a reason".to_owned());
    status.message.clone().filter(|message| !message.is_empty()).unwrap_or_else(reason)
}

/// An error and all that it came from.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    chain(error).find_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind)
}
