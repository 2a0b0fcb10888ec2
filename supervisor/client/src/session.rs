//! Sessions of users who logged in, and client certificates: what each needs, in files of its own for nobody else to read.
//!
//! ```text
//! <context>.json    server, user, refresh token      <context>.token   the access token alone
//! <context>.pem     a client certificate with its key      <context>.certificate.json   whose it is, and when it ends
//! <context>.crt     the authority of the server, if it is not one that the system knows
//! ```
//!
//! A refresh token is good once, so that whoever refreshes holds a lock, and looks first whether somebody else just did.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use berth_model::login::Tokens;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// So long before its end a token is replaced: time for a request with it to arrive.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// Files of a session, and of a client certificate.
const SESSION: [&str; 2] = ["json", "token"];
const CERTIFICATE: [&str; 2] = ["certificate.json", "pem"];

/// A user who is logged in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The server.
    pub server: String,
    /// The name of the session there.
    pub name: String,
    /// Who.
    pub user: String,
    /// For how long the access token is good.
    pub expires_at: Timestamp,
    /// For new ones.
    pub refresh_token: String,
}

impl Session {
    /// A session as a server has just given it out.
    pub fn of(server: &str, tokens: &Tokens, now: Timestamp) -> Self {
        Self {
            server: server.to_owned(),
            name: tokens.session.clone(),
            user: tokens.user.clone(),
            expires_at: now + SignedDuration::from_secs(tokens.expires_in),
            refresh_token: tokens.refresh_token.clone(),
        }
    }

    /// Its token is good for as long as a request takes.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now + MARGIN < self.expires_at
    }
}

/// Where sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    folder: PathBuf,
}

impl Sessions {
    /// Below the directory of a user's configuration.
    pub fn below(configuration: &Path) -> Self {
        Self { folder: configuration.join("berth/sessions") }
    }

    /// The usual place: below $XDG_CONFIG_HOME, or ~/.config.
    pub fn usual(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        let home = || variable("HOME").map(|home| home.join(".config"));
        variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).or_else(home).map(|path| Self::below(&path))
    }

    fn path(&self, context: &str, what: &str) -> PathBuf {
        self.folder.join(format!("{context}.{what}"))
    }

    /// The file with the access token of a context.
    pub fn token_file(&self, context: &str) -> PathBuf {
        self.path(context, "token")
    }

    /// The file with the authority of a context's server, if it has one of its own.
    pub fn authority_file(&self, context: &str) -> Option<PathBuf> {
        Some(self.path(context, "crt")).filter(|path| path.exists())
    }

    /// The session of a context, if there is one.
    ///
    /// # Errors
    /// The file cannot be read, or is something else.
    pub fn read(&self, context: &str) -> io::Result<Option<Session>> {
        match fs::read(self.path(context, "json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the session of a context. Its token comes first: if it ends in between, there is a token that is good.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, context: &str, session: &Session, access_token: &str) -> io::Result<()> {
        self.forget(context, &CERTIFICATE)?;
        self.replace(&self.token_file(context), access_token.as_bytes())?;
        self.replace(&self.path(context, "json"), &serde_json::to_vec(session)?)
    }

    /// The client certificate of a context, if it has one.
    ///
    /// # Errors
    /// The file cannot be read, or is something else.
    pub fn read_identity(&self, context: &str) -> io::Result<Option<Identity>> {
        match fs::read(self.path(context, "certificate.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file with the client certificate of a context and its key.
    pub fn identity_file(&self, context: &str) -> PathBuf {
        self.path(context, "pem")
    }

    /// Keeps the client certificate of a context, with its key: from then on it is by that, and by no session, that
    /// somebody asks there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_identity(&self, context: &str, identity: &Identity, pem: &str) -> io::Result<()> {
        self.forget(context, &SESSION)?;
        self.replace(&self.identity_file(context), pem.as_bytes())?;
        self.replace(&self.path(context, "certificate.json"), &serde_json::to_vec(identity)?)
    }

    fn forget(&self, context: &str, files: &[&str]) -> io::Result<()> {
        files.iter().try_for_each(|what| absent(fs::remove_file(self.path(context, what))))
    }

    /// Keeps the authority of a context's server, or that it has none of its own.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_authority(&self, context: &str, pem: Option<&[u8]>) -> io::Result<()> {
        match pem {
            Some(pem) => self.replace(&self.path(context, "crt"), pem),
            None => absent(fs::remove_file(self.path(context, "crt"))),
        }
    }

    /// Forgets who asks in a context.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, context: &str) -> io::Result<()> {
        let all = SESSION.iter().chain(&CERTIFICATE).chain(&["crt"]);
        self.forget(context, &all.copied().collect::<Vec<_>>())
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.make()?;
        let mut new = tempfile::Builder::new().prefix(".session").tempfile_in(&self.folder)?;
        new.write_all(content)?;
        new.as_file().sync_all()?;
        new.persist(path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Waits until nobody else changes the session of a context; until the file is dropped, nobody does.
    ///
    /// # Errors
    /// The lock cannot be made.
    pub fn lock(&self, context: &str) -> io::Result<File> {
        self.make()?;
        let path = self.path(context, "lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.lock()?;
        Ok(file)
    }

    fn make(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }
}

fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn session(expires_at: &str) -> Session {
        let tokens = Tokens { session: "alice.x".into(), user: "alice".into(), ..Tokens::default() };
        let session = Session::of("https://box:6443", &tokens, Timestamp::UNIX_EPOCH);
        Session { expires_at: expires_at.parse().unwrap(), ..session }
    }

    #[test]
    fn a_session_is_kept_for_its_owner_alone_and_forgotten_whole() {
        let home = tempfile::tempdir().unwrap();
        let sessions = Sessions::below(home.path());
        assert!(sessions.read("box").unwrap().is_none());
        sessions.write("box", &session("2026-03-01T12:00:00Z"), "secret").unwrap();
        sessions.write_authority("box", Some(b"PEM")).unwrap();
        assert_eq!(sessions.read("box").unwrap().unwrap().user, "alice");
        assert_eq!(fs::read(sessions.token_file("box")).unwrap(), b"secret");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&sessions.token_file("box")), 0o600);
        assert_eq!(mode(sessions.token_file("box").parent().unwrap()), 0o700);
        assert!(sessions.authority_file("box").is_some());
        for _ in 0..2 {
            sessions.remove("box").unwrap();
        }
        assert!(sessions.read("box").unwrap().is_none() && !sessions.token_file("box").exists());
        assert_eq!(sessions.authority_file("box"), None);
    }

    #[test]
    fn a_context_has_a_session_or_a_certificate_and_not_both() {
        let home = tempfile::tempdir().unwrap();
        let sessions = Sessions::below(home.path());
        sessions.write("box", &session("2026-03-01T12:00:00Z"), "secret").unwrap();
        let identity = Identity { server: "https://box:6443".into(), ..Identity::default() };
        sessions.write_identity("box", &identity, "PEM").unwrap();
        assert!(sessions.read("box").unwrap().is_none() && !sessions.token_file("box").exists());
        assert_eq!(sessions.read_identity("box").unwrap(), Some(identity));
        let mode = fs::metadata(sessions.identity_file("box")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        sessions.write("box", &session("2026-03-01T12:00:00Z"), "secret").unwrap();
        assert!(sessions.read_identity("box").unwrap().is_none() && !sessions.identity_file("box").exists());
    }

    #[test]
    fn a_token_is_replaced_before_its_end() {
        let session = session("2026-03-01T12:00:00Z");
        assert!(session.is_fresh("2026-03-01T11:58:59Z".parse().unwrap()));
        assert!(!session.is_fresh("2026-03-01T11:59:00Z".parse().unwrap()));
    }

    #[test]
    fn the_usual_place_is_that_of_a_users_configuration() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/me"));
        let place = Sessions::usual(home).unwrap().token_file("box");
        assert_eq!(place, Path::new("/home/me/.config/berth/sessions/box.token"));
        assert_eq!(Sessions::usual(|_| None), None);
    }
}
