//! Images from a registry, by the OCI distribution protocol.
//!
//! A [`Session`] is one conversation about one image. [`Session::resolve`] turns the reference into
//! the manifest for this platform, [`Session::document`] fetches a configuration,
//! [`Session::download`] a layer, as many at once as the caller likes.
//!
//! ```text
//! request -> 401 -> handshake (oci-client) -> request with a token
//! 429, 503 -> wait, as long as Retry-After says -> request
//! blob:  connection ends early -> wait -> Range from where it stopped -> ... -> digest and size right -> rename
//! ```
//!
//! `oci-client` parses references and talks to token services. What is downloaded is fetched here,
//! with bounds on everything a registry could send without end, and nothing is believed: every
//! manifest, configuration and layer is held against its digest and size before anybody sees it.

pub mod error;
pub mod settings;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use oci_spec::image::Descriptor;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use rustls::crypto::CryptoProvider;
use tokio::sync::Mutex;

use crate::blob::{self, Digest};
use crate::manifest::{self, Document, ManifestError, Platform, Resolved};
pub use error::RegistryError;
pub use settings::Settings;

/// Longest manifest, index or configuration.
const LONGEST_DOCUMENT: u64 = 4 << 20;
/// How much of an error's text is read.
const LONGEST_COMPLAINT: u64 = 16 << 10;
/// A handshake that takes longer than this has failed.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(60);
const DIGEST_HEADER: &str = "docker-content-digest";

/// How patient a client is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until the next byte.
    pub read: Duration,
    /// Tries without headway until a request has failed.
    pub tries: u32,
    /// Wait after the first failed try; it doubles, up to [`Patience::longest_wait`].
    pub first_wait: Duration,
    /// Longest wait between tries.
    pub longest_wait: Duration,
    /// Longest wait that a registry may ask for; one that wants more has failed.
    pub longest_asked: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(30),
            tries: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(4),
            longest_asked: Duration::from_secs(60),
        }
    }
}

/// Told how many bytes of a blob have come; the number may fall when a transfer starts over.
pub type Arrived<'a> = &'a (dyn Fn(&Digest, u64) + Send + Sync);

/// Connections to registries, shared by all sessions.
#[derive(Clone)]
pub struct Registry {
    http: reqwest::Client,
    patience: Patience,
}

impl Registry {
    /// Makes the client; no connection yet.
    ///
    /// # Errors
    /// The system's certificates cannot be loaded.
    pub fn new(patience: Patience) -> Result<Self, RegistryError> {
        if CryptoProvider::get_default().is_none() {
            // Somebody else may be quicker; then theirs is as good.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(patience.connect)
                .read_timeout(patience.read)
        };
        // A system without certificates can still talk to registries that speak plain HTTP.
        let http = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        let http = http.map_err(|error| RegistryError::Client(error.into()))?;
        Ok(Self { http, patience })
    }

    /// The client, for what is fetched from elsewhere with the same patience.
    #[must_use]
    pub fn http(&self) -> reqwest::Client {
        self.http.clone()
    }

    /// Begins a conversation about an image.
    #[must_use]
    pub fn session(&self, reference: &Reference, settings: &Settings) -> Session {
        let registry = reference.resolve_registry().to_owned();
        Session {
            client: self.clone(),
            plain: settings.is_plain(&registry),
            auth: settings.auth(reference),
            authorization: Arc::default(),
            reference: reference.clone(),
            registry,
        }
    }
}

/// A conversation about one image.
#[derive(Clone)]
pub struct Session {
    client: Registry,
    registry: String,
    plain: bool,
    auth: RegistryAuth,
    authorization: Arc<Mutex<Option<HeaderValue>>>,
    reference: Reference,
}

impl Session {
    /// The manifest of the reference for this platform: a digest in the reference decides, else
    /// its tag. An index is followed.
    ///
    /// # Errors
    /// The registry or the manifest fails; transient failures were tried again.
    pub async fn resolve(&self, platform: &Platform) -> Result<Resolved, RegistryError> {
        let wanted = self.reference.digest().map(parse_digest).transpose()?;
        let mut resolved = self.manifest(wanted).await?;
        for _ in 0..2 {
            match resolved {
                (digest, bytes, Document::Image(manifest)) => {
                    return Ok(Resolved { digest, bytes, manifest: *manifest });
                }
                (_, _, Document::Index(index)) => {
                    let chosen = manifest::choose(&index, platform)?.digest().to_string();
                    resolved = self.manifest(Some(parse_digest(&chosen)?)).await?;
                }
            }
        }
        match resolved {
            (digest, bytes, Document::Image(manifest)) => Ok(Resolved { digest, bytes, manifest: *manifest }),
            _ => Err(ManifestError::Nested.into()),
        }
    }

    /// A small blob: an image's configuration.
    ///
    /// # Errors
    /// The registry fails, or it is too large or another one.
    pub async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let digest = parse_digest(descriptor.digest().as_ref())?;
        let url = self.url("blobs", digest.as_ref());
        let (bytes, _) = self.small(&url, "configuration", HeaderMap::new()).await?;
        blob::verify(&bytes, &digest)
            .map_err(|source| RegistryError::WrongBlob { registry: self.registry.clone(), source })?;
        Ok(bytes)
    }

    async fn manifest(&self, wanted: Option<Digest>) -> Result<(Digest, Vec<u8>, Document), RegistryError> {
        let name = wanted.as_ref().map_or_else(|| self.reference.tag().unwrap_or("latest"), AsRef::as_ref);
        let url = self.url("manifests", name);
        let accept = HeaderValue::from_str(&manifest::ACCEPTED.join(", "))
            .map_err(|error| RegistryError::Client(error.into()))?;
        let (bytes, headers) = self.small(&url, "manifest", HeaderMap::from_iter([(ACCEPT, accept)])).await?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let announced = text(DIGEST_HEADER).and_then(|digest| blob::parse_digest(digest).ok());
        let wrong = |source| RegistryError::WrongManifest { registry: self.registry.clone(), source };
        let digest = match wanted.or(announced) {
            Some(digest) => {
                blob::verify(&bytes, &digest).map_err(wrong)?;
                digest
            }
            None => parse_digest(&blob::sha256(&bytes))?,
        };
        let media_type = text(CONTENT_TYPE.as_str()).and_then(|value| value.split(';').next()).map(str::trim);
        let document = manifest::parse(&bytes, media_type)?;
        Ok((digest, bytes, document))
    }

    /// A document of bounded length, tried again while the registry is up but fails.
    async fn small(
        &self,
        url: &str,
        what: &'static str,
        headers: HeaderMap,
    ) -> Result<(Vec<u8>, HeaderMap), RegistryError> {
        let mut tries = transfer::Tries::new(self.client.patience);
        loop {
            match self.small_once(url, what, headers.clone()).await {
                Err(error) if is_hiccup(&error) && tries.wait(error.retry_after()).await => {}
                other => return other,
            }
        }
    }

    async fn small_once(
        &self,
        url: &str,
        what: &'static str,
        headers: HeaderMap,
    ) -> Result<(Vec<u8>, HeaderMap), RegistryError> {
        let response = self.get(url, headers).await?;
        let headers = response.headers().clone();
        let bytes = read_bounded(response, LONGEST_DOCUMENT).await.map_err(|error| self.transport(error))?;
        match bytes {
            Some(bytes) => Ok((bytes, headers)),
            None => Err(RegistryError::TooLarge { registry: self.registry.clone(), what, limit: LONGEST_DOCUMENT }),
        }
    }

    /// A response with a status of success, after a handshake if the registry asks for one.
    async fn get(&self, url: &str, headers: HeaderMap) -> Result<Response, RegistryError> {
        let used = self.authorization.lock().await.clone();
        let mut response = self.send(url, &headers, used.as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let fresh = self.authenticate(used).await?;
            response = self.send(url, &headers, fresh.as_ref()).await?;
        }
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.complaint(url, response).await)
    }

    async fn send(
        &self,
        url: &str,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut headers = headers.clone();
        headers.extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
        self.client.http.get(url).headers(headers).send().await.map_err(|error| self.transport(error))
    }

    /// What to send from now on, after `used` was not enough. One handshake for all who wait.
    async fn authenticate(&self, used: Option<HeaderValue>) -> Result<Option<HeaderValue>, RegistryError> {
        let mut authorization = self.authorization.lock().await;
        if *authorization == used {
            *authorization = self.handshake().await?;
        }
        Ok(authorization.clone())
    }

    async fn handshake(&self) -> Result<Option<HeaderValue>, RegistryError> {
        let patience = self.client.patience;
        let config = ClientConfig {
            protocol: if self.plain { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(patience.connect),
            read_timeout: Some(patience.read),
            ..ClientConfig::default()
        };
        let client = oci_client::Client::try_from(config).map_err(|error| RegistryError::Client(error.into()))?;
        let asked = client.auth(&self.reference, &self.auth, RegistryOperation::Pull);
        let token = match tokio::time::timeout(HANDSHAKE_LIMIT, asked).await {
            Ok(Ok(token)) => token,
            Ok(Err(oci_client::errors::OciDistributionError::RequestError(error))) => {
                return Err(self.transport(error));
            }
            Ok(Err(_)) | Err(_) => return Err(self.unauthorized()),
        };
        let value = match (token, &self.auth) {
            (Some(token), _) => format!("Bearer {token}"),
            (None, RegistryAuth::Basic(user, password)) => transfer::basic(user, password),
            (None, _) => return Ok(None),
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| self.unauthorized())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn complaint(&self, url: &str, response: Response) -> RegistryError {
        let registry = self.registry.clone();
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let body = read_bounded(response, LONGEST_COMPLAINT).await.ok().flatten().unwrap_or_default();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.unauthorized(),
            StatusCode::NOT_FOUND => RegistryError::NotFound { registry, what: self.missing(url, &body) },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests { registry, retry_after },
            status => {
                let detail = transfer::own_words(&body);
                RegistryError::Status { registry, status: status.as_u16(), detail, retry_after }
            }
        }
    }

    fn missing(&self, url: &str, body: &[u8]) -> String {
        let repository = self.reference.repository();
        if let Some((_, blob)) = url.rsplit_once("/blobs/") {
            return format!("blob {blob} in {repository}");
        }
        if transfer::has_code(body, "NAME_UNKNOWN") {
            return format!("repository {repository}");
        }
        match url.rsplit_once("/manifests/") {
            Some((_, digest)) if digest.contains(':') => format!("image {digest} in {repository}"),
            Some((_, tag)) => format!("tag {tag} in {repository}"),
            None => format!("repository {repository}"),
        }
    }

    fn url(&self, kind: &str, name: &str) -> String {
        let scheme = if self.plain { "http" } else { "https" };
        format!("{scheme}://{}/v2/{}/{kind}/{name}", self.registry, self.reference.repository())
    }

    fn unauthorized(&self) -> RegistryError {
        RegistryError::Unauthorized {
            registry: self.registry.clone(),
            repository: self.reference.repository().to_owned(),
            anonymous: self.auth == RegistryAuth::Anonymous,
        }
    }

    fn transport(&self, error: reqwest::Error) -> RegistryError {
        RegistryError::transport(&self.registry, error)
    }

    fn range(from: u64) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("bytes={from}-"));
        HeaderMap::from_iter(value.ok().filter(|_| from > 0).map(|value| (RANGE, value)))
    }
}

/// What it says in seconds. A date is not read: two clocks would have to agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    said.ok().map(Duration::from_secs)
}

/// Worth another try at once: somebody is there but fumbled. Who is not there is left to the caller,
/// who has another clock.
fn is_hiccup(error: &RegistryError) -> bool {
    error.is_transient() && !matches!(error, RegistryError::UnknownHost { .. } | RegistryError::Refused { .. })
}

fn parse_digest(text: &str) -> Result<Digest, RegistryError> {
    blob::parse_digest(text).map_err(RegistryError::Keep)
}

/// The body, or `None` if it is longer than allowed.
async fn read_bounded(mut response: Response, limit: u64) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}
