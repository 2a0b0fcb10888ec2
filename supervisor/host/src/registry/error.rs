//! Why an image cannot be had from a registry, and what to do about it.

use std::error::Error;
use std::io;
use std::time::Duration;

use super::settings::SettingsError;
use crate::blob::BlobError;
use crate::manifest::ManifestError;

/// Why an image cannot be had from a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The settings cannot be used.
    #[error("reading the settings of registries")]
    Settings(#[from] SettingsError),
    /// No connection can be made to anybody.
    #[error("setting up the client for registries")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// No such host.
    #[error("the registry {registry} is not known by that name")]
    UnknownHost {
        /// Host and port.
        registry: String,
        /// What the resolver said.
        #[source]
        source: reqwest::Error,
    },
    /// Nobody listens.
    #[error("the registry {registry} refuses connections")]
    Refused {
        /// Host and port.
        registry: String,
        /// What the kernel said.
        #[source]
        source: reqwest::Error,
    },
    /// No answer, or half of one.
    #[error("the registry {registry} does not answer")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// It is not who it should be.
    #[error("no safe connection to the registry {registry}")]
    Tls {
        /// Host and port.
        registry: String,
        /// What is wrong.
        #[source]
        source: reqwest::Error,
    },
    /// It wants to know who asks, or does not like the answer.
    #[error("the registry {registry} does not let {} read {repository}", if *.anonymous { "anybody" } else { "this user" })]
    Unauthorized {
        /// Host and port.
        registry: String,
        /// Which repository.
        repository: String,
        /// No credentials were given.
        anonymous: bool,
    },
    /// It does not have it.
    #[error("the registry {registry} has no {what}")]
    NotFound {
        /// Host and port.
        registry: String,
        /// Repository, tag, digest or blob.
        what: String,
    },
    /// Asked too often.
    #[error("the registry {registry} has been asked too often{}", peace(*.retry_after))]
    TooManyRequests {
        /// Host and port.
        registry: String,
        /// How long it wants not to be asked, if it says so.
        retry_after: Option<Duration>,
    },
    /// It answers something else.
    #[error("the registry {registry} answered {status}{detail}{}", peace(*.retry_after))]
    Status {
        /// Host and port.
        registry: String,
        /// HTTP status.
        status: u16,
        /// Its own words, escaped, with `: ` before them; may be empty.
        detail: String,
        /// How long it wants not to be asked, if it says so.
        retry_after: Option<Duration>,
    },
    /// A blob ended early, more than once.
    #[error("the registry {registry} sent {got} of {expected} bytes of blob {digest}")]
    Interrupted {
        /// Host and port.
        registry: String,
        /// Which blob.
        digest: String,
        /// Bytes that came.
        got: u64,
        /// Bytes announced.
        expected: u64,
        /// What ended it, if it was not just the end.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// A document longer than any sensible one.
    #[error("the registry {registry} sent a {what} of more than {limit} bytes")]
    TooLarge {
        /// Host and port.
        registry: String,
        /// `manifest` or `configuration`.
        what: &'static str,
        /// The longest allowed.
        limit: u64,
    },
    /// The manifest is not the one asked for.
    #[error("the registry {registry} sent a wrong manifest")]
    WrongManifest {
        /// Host and port.
        registry: String,
        /// Expected and got.
        #[source]
        source: BlobError,
    },
    /// A blob is not the one asked for, or cannot be kept.
    #[error("the registry {registry} sent a wrong blob")]
    WrongBlob {
        /// Host and port.
        registry: String,
        /// Expected and got.
        #[source]
        source: BlobError,
    },
    /// The image cannot be run here.
    #[error("the image cannot be used")]
    Manifest(#[from] ManifestError),
    /// What came cannot be kept.
    #[error("keeping a blob")]
    Keep(#[source] BlobError),
    /// What came cannot be written.
    #[error("writing a blob")]
    Write(#[source] io::Error),
}

impl RegistryError {
    /// Trying again without a change may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::UnknownHost { .. }
            | Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::TooManyRequests { .. }
            | Self::Interrupted { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// How long the registry wants not to be asked again, if it says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Nobody could be asked: what is known locally may serve instead.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.is_transient()
    }

    /// What to do.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Settings(SettingsError::Exposed { path }) => format!("Run `chmod 600 {}`.", path.display()),
            Self::Settings(_) => "Correct the file.".into(),
            Self::Client(_) => "Install the package `ca-certificates`.".into(),
            Self::UnknownHost { registry, .. } => {
                format!("Check the spelling of `{registry}` and this machine's name resolution, or import the image.")
            }
            Self::Refused { registry, .. } | Self::Unreachable { registry, .. } => {
                format!(
                    "Check that the registry at `{registry}` is up and reachable from this machine, or import the image."
                )
            }
            Self::Tls { registry, .. } => format!(
                "If `{registry}` speaks plain HTTP, add it to `plain-http` in /etc/berth/registries/registries.toml; \
                 if its certificate comes from an authority of your own, add that to the system's."
            ),
            Self::Unauthorized { registry, anonymous: true, .. } => format!(
                "Check that the repository exists; if it is private, add credentials for `{registry}` to \
                 /etc/berth/registries/auth.json."
            ),
            Self::Unauthorized { registry, .. } => format!(
                "Check that the repository exists and that the credentials for `{registry}` in \
                 /etc/berth/registries/auth.json are right and may read it."
            ),
            Self::NotFound { .. } => "Check the spelling of the image, its tag and its digest.".into(),
            Self::TooManyRequests { .. } => "Wait, or add credentials with a higher limit.".into(),
            Self::Status { status, .. } if *status >= 500 => "Wait, or look at the registry's own log.".into(),
            Self::Status { .. } => "Check that the address is a registry's.".into(),
            Self::Interrupted { .. } => "Check the network and the registry, then try again.".into(),
            Self::TooLarge { .. } => "Push the image again; this is no image that can be run.".into(),
            Self::WrongManifest { .. } | Self::WrongBlob { .. } => {
                "The registry or something before it damages images or lies: push the image again, \
                 check proxies and mirrors."
                    .into()
            }
            Self::Manifest(error) => error.advice(),
            Self::Keep(_) | Self::Write(_) => "Check the disk: its free space and its health.".into(),
        }
    }

    /// From what the HTTP client says.
    pub(super) fn transport(registry: &str, source: reqwest::Error) -> Self {
        let registry = registry.to_owned();
        if caused_by(&source, &|cause| cause.is::<rustls::Error>()) {
            return Self::Tls { registry, source };
        }
        if caused_by(&source, &|cause| cause.to_string().starts_with("dns error")) {
            return Self::UnknownHost { registry, source };
        }
        let refused = |cause: &(dyn Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
        };
        if caused_by(&source, &refused) {
            return Self::Refused { registry, source };
        }
        Self::Unreachable { registry, source }
    }
}

fn peace(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |pause| format!(", and wants to be left alone for {} s", pause.as_secs()))
}

/// Something in the chain is this. An IO error hides what it was made of from the chain.
fn caused_by(error: &(dyn Error + 'static), this: &dyn Fn(&(dyn Error + 'static)) -> bool) -> bool {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    this(error)
        || wrapped.is_some_and(|inner| caused_by(inner, this))
        || error.source().is_some_and(|source| caused_by(source, this))
}

impl ManifestError {
    /// What to do.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Platform { wanted, .. } => format!("Build or choose an image for {wanted}."),
            Self::MediaType { .. } => {
                "Push the image with a current tool, as an OCI or Docker v2 image with gzip, zstd or plain layers."
                    .into()
            }
            _ => "Build and push the image again.".into(),
        }
    }
}
