//! How registries are reached: `auth.json` with credentials in the form of docker's `config.json`,
//! readable by root alone, and `registries.toml` with what else there is to say. Both are optional
//! and are read anew for every pull.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_client::Reference;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

/// Docker's registry as the protocol knows it.
const DOCKER_HUB: &str = "index.docker.io";

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file cannot be read.
    #[error("reading {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Others than root could read the credentials.
    #[error("{} can be read by others than its owner", .path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
    },
    /// Not of the form it should be.
    #[error("{} is malformed: {why}", .path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong, without any value.
        why: String,
    },
}

/// How registries are reached.
#[derive(Clone, Default)]
pub struct Settings {
    plain_http: Vec<String>,
    /// By registry, or registry and the beginning of the repository.
    credentials: BTreeMap<String, RegistryAuth>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RegistriesFile {
    #[serde(default)]
    plain_http: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
    identitytoken: Option<String>,
}

impl Settings {
    /// Reads `auth.json` and `registries.toml` in a directory.
    ///
    /// # Errors
    /// One is there but cannot be read, is malformed, or lets others read credentials.
    pub fn load(directory: &Path) -> Result<Self, SettingsError> {
        let path = directory.join("registries.toml");
        let registries: RegistriesFile = match read(&path)? {
            Some(bytes) => toml::from_slice(&bytes).map_err(|error| malformed(&path, error.message()))?,
            None => RegistriesFile::default(),
        };
        let path = directory.join("auth.json");
        let credentials = match read(&path)? {
            Some(bytes) => {
                only_owner(&path)?;
                credentials(&bytes).map_err(|why| SettingsError::Malformed { path, why })?
            }
            None => BTreeMap::new(),
        };
        Ok(Self { plain_http: registries.plain_http, credentials })
    }

    /// Without TLS: this very machine, and the registries listed as `host:port` or `host`.
    #[must_use]
    pub fn is_plain(&self, registry: &str) -> bool {
        let host = registry.split(':').next().unwrap_or(registry);
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback());
        loopback || self.plain_http.iter().any(|plain| plain == registry)
    }

    /// What to say who is asking.
    #[must_use]
    pub fn auth(&self, reference: &Reference) -> RegistryAuth {
        let mut name = format!("{}/{}", canonical(reference.registry()), reference.repository());
        loop {
            if let Some(found) = self.credentials.get(&name) {
                return found.clone();
            }
            match name.rfind('/') {
                Some(slash) => name.truncate(slash),
                None => return RegistryAuth::Anonymous,
            }
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, SettingsError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SettingsError::Read { path: path.to_owned(), source }),
    }
}

fn only_owner(path: &Path) -> Result<(), SettingsError> {
    let found = std::fs::metadata(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    if found.mode() & 0o077 == 0 { Ok(()) } else { Err(SettingsError::Exposed { path: path.to_owned() }) }
}

fn malformed(path: &Path, why: &str) -> SettingsError {
    SettingsError::Malformed { path: path.to_owned(), why: why.to_owned() }
}

fn credentials(bytes: &[u8]) -> Result<BTreeMap<String, RegistryAuth>, String> {
    // The message of a JSON error may quote what it could not read: only the place is told.
    let file: AuthFile = serde_json::from_slice(bytes)
        .map_err(|error| format!("not the expected JSON at line {} column {}", error.line(), error.column()))?;
    if file.creds_store.is_some() || !file.cred_helpers.is_empty() {
        return Err("credential helpers (`credsStore`, `credHelpers`) are not supported; use `auths`".into());
    }
    file.auths
        .into_iter()
        .map(|(name, entry)| {
            let auth = entry.into_auth().map_err(|why| format!("the entry `{name}` {why}"))?;
            Ok((canonical(&name), auth))
        })
        .collect()
}

impl AuthEntry {
    fn into_auth(self) -> Result<RegistryAuth, &'static str> {
        if self.identitytoken.is_some() {
            return Err(
                "holds an identity token, which is not supported; use a user name and password or access token",
            );
        }
        if let Some(token) = self.registrytoken {
            return Ok(RegistryAuth::Bearer(token));
        }
        if let (Some(user), Some(password)) = (self.username, self.password) {
            return Ok(RegistryAuth::Basic(user, password));
        }
        let encoded = self.auth.ok_or("holds no credentials")?;
        let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (user, password) = decoded
            .as_deref()
            .and_then(|text| text.split_once(':'))
            .ok_or("has an `auth` that is not base64 of `user:password`")?;
        Ok(RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()))
    }
}

/// `https://index.docker.io/v1/`, `docker.io` and the like, by one name.
fn canonical(name: &str) -> String {
    let bare = name.split_once("://").map_or(name, |(_, rest)| rest);
    let bare = bare.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    let (registry, rest) = bare.split_once('/').map_or((bare, None), |(registry, rest)| (registry, Some(rest)));
    let registry = match registry {
        "docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        other => other,
    };
    rest.map_or_else(|| registry.to_owned(), |rest| format!("{registry}/{rest}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn load(auth: &str, registries: &str) -> Result<Settings, SettingsError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("registries.toml"), registries).unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, auth).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        Settings::load(dir.path())
    }

    fn auth(settings: &Settings, reference: &str) -> RegistryAuth {
        settings.auth(&reference.parse().unwrap())
    }

    #[test]
    fn without_files_everybody_is_anonymous_and_only_this_machine_is_plain() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::load(dir.path()).unwrap();
        assert_eq!(auth(&settings, "example.org/a"), RegistryAuth::Anonymous);
        for plain in ["localhost:5000", "127.0.0.1:5000", "127.1.2.3", "localhost"] {
            assert!(settings.is_plain(plain), "{plain}");
        }
        for tls in ["example.org", "localhost.example.org", "127.0.0.1.example.org", "10.0.0.1:5000"] {
            assert!(!settings.is_plain(tls), "{tls}");
        }
    }

    #[test]
    fn credentials_are_found_by_registry_and_the_more_exact_entry_wins() {
        let settings = load(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
                "example.org:5000": {"username": "all", "password": "p:w"},
                "example.org:5000/team": {"registrytoken": "t"}}}"#,
            "",
        )
        .unwrap();
        let basic = |user: &str, password: &str| RegistryAuth::Basic(user.into(), password.into());
        assert_eq!(auth(&settings, "nginx"), basic("hub", "pw"));
        assert_eq!(auth(&settings, "example.org:5000/web"), basic("all", "p:w"));
        assert_eq!(auth(&settings, "example.org:5000/team/web"), RegistryAuth::Bearer("t".into()));
        assert_eq!(auth(&settings, "example.org:5000/teams/web"), basic("all", "p:w"));
        assert_eq!(auth(&settings, "example.org/web"), RegistryAuth::Anonymous);
    }

    #[test]
    fn what_cannot_be_honoured_is_an_error_that_tells_no_secret() {
        for (auth, part) in [
            (r#"{"auths": {"a": {"auth": "SECRET"}}}"#, "`a` has an `auth`"),
            (r#"{"auths": {"a": {}}}"#, "holds no credentials"),
            (r#"{"auths": {"a": {"identitytoken": "SECRET"}}}"#, "identity token"),
            (r#"{"credsStore": "SECRET"}"#, "credential helpers"),
            (r#"{"auths": "SECRET"}"#, "line 1"),
        ] {
            let error = load(auth, "").err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("SECRET"), "{error}");
        }
        let error = load("{}", "plain_http = []").err().unwrap().to_string();
        assert!(error.contains("plain_http"), "{error}");
        assert!(load("{}", r#"plain-http = ["r:5000"]"#).unwrap().is_plain("r:5000"));
    }

    #[test]
    fn credentials_that_others_can_read_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, "{}").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(Settings::load(dir.path()), Err(SettingsError::Exposed { .. })));
    }
}
