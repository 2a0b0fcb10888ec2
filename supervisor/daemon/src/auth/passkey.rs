//! Passkeys (Web Authentication): what a browser and an authenticator prove together, for one host name.
//!
//! A challenge is answered once, within five minutes, and is kept in memory until then: whoever is in the middle of a login
//! while the supervisor is replaced begins anew.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;
use webauthn_rs::prelude::{
    AuthenticationResult, CreationChallengeResponse, Passkey, PasskeyAuthentication, PasskeyRegistration,
    PublicKeyCredential, RegisterPublicKeyCredential, RequestChallengeResponse, Url, WebauthnError,
};
use webauthn_rs::{Webauthn, WebauthnBuilder};

use super::{AuthError, secret};
use crate::store::Purpose;

/// How long a challenge may be answered, in seconds.
pub const CHALLENGE_SECONDS: i64 = 300;
/// Challenges that are kept at a time; the oldest gives way. Whoever asks for one has proven a password.
const MOST: usize = 1024;

/// What a browser takes the machine for: it lets a passkey answer to this name alone.
pub struct RelyingParty {
    webauthn: Webauthn,
    /// The host name.
    pub host: String,
}

impl RelyingParty {
    /// The machine under the name that a browser has in its address bar, with or without a port.
    ///
    /// # Errors
    /// It is no name, but an address, for which browsers keep no passkeys.
    pub fn of(authority: &str) -> Result<Self, NoName> {
        let refused = || NoName(authority.to_owned());
        let origin = Url::parse(&format!("https://{authority}")).map_err(|_| refused())?;
        let host = origin.domain().filter(|host| host.parse::<IpAddr>().is_err()).ok_or_else(refused)?.to_owned();
        let built = WebauthnBuilder::new(&host, &origin).map(|builder| builder.rp_name("Berth").allow_any_port(true));
        let webauthn = built.and_then(WebauthnBuilder::build).map_err(|_| refused())?;
        Ok(Self { webauthn, host })
    }

    /// What a browser needs to make a passkey for a user beside those that he has.
    ///
    /// # Errors
    /// No challenge can be drawn.
    pub fn begin_registration(
        &self,
        user: Uuid,
        name: &str,
        has: &[Passkey],
    ) -> Result<(CreationChallengeResponse, PasskeyRegistration), AuthError> {
        let others = has.iter().map(|key| key.cred_id().clone()).collect();
        let begun = self.webauthn.start_passkey_registration(user, name, name, Some(others));
        begun.map_err(AuthError::Passkey)
    }

    /// The passkey that a browser has made.
    ///
    /// # Errors
    /// The answer is none to this challenge.
    pub fn finish_registration(
        &self,
        answer: &RegisterPublicKeyCredential,
        state: &PasskeyRegistration,
    ) -> Result<Passkey, WebauthnError> {
        self.webauthn.finish_passkey_registration(answer, state)
    }

    /// What a browser needs to show that it has one of these.
    ///
    /// # Errors
    /// No challenge can be drawn.
    pub fn begin_login(&self, has: &[Passkey]) -> Result<(RequestChallengeResponse, PasskeyAuthentication), AuthError> {
        self.webauthn.start_passkey_authentication(has).map_err(AuthError::Passkey)
    }

    /// Whether a browser has shown that.
    ///
    /// # Errors
    /// It has not.
    pub fn finish_login(
        &self,
        answer: &PublicKeyCredential,
        state: &PasskeyAuthentication,
    ) -> Result<AuthenticationResult, WebauthnError> {
        self.webauthn.finish_passkey_authentication(answer, state)
    }
}

/// Somebody came by an address.
#[derive(Debug, thiserror::Error)]
#[error(
    "passkeys belong to a name, and {0} is none that a browser keeps one for; open the machine by its name, as in \
         https://berth.local:6443, with its certificate authority installed (`berth ca`)"
)]
pub struct NoName(String);

/// What a challenge is about.
#[derive(Clone)]
pub enum Pending {
    /// A passkey that is to be made.
    Registration(Box<PasskeyRegistration>),
    /// One that is to be shown.
    Login(Box<PasskeyAuthentication>),
}

struct Waiting {
    until: Timestamp,
    /// Uid of whom it was given to.
    user: String,
    about: Pending,
}

/// Challenges that wait for an answer.
#[derive(Default)]
pub struct Challenges(Mutex<HashMap<String, Waiting>>);

impl Challenges {
    /// Keeps one for a user; what it is asked for by.
    ///
    /// # Errors
    /// The machine gives no randomness.
    pub fn keep(&self, user: &str, about: Pending, now: Timestamp) -> Result<String, AuthError> {
        let id = secret::fresh(Purpose::Challenge)?.secret.to_string();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| now < one.until);
        if all.len() >= MOST {
            let oldest = all.iter().min_by_key(|(_, one)| one.until).map(|(id, _)| id.clone());
            oldest.map(|id| all.remove(&id));
        }
        let until = now + SignedDuration::from_secs(CHALLENGE_SECONDS);
        all.insert(id.clone(), Waiting { until, user: user.to_owned(), about });
        Ok(id)
    }

    /// Takes one away, if it is this user's and in time: it is answered once, rightly or not.
    pub fn take(&self, id: &str, user: &str, now: Timestamp) -> Option<Pending> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(id)?.user != user {
            return None;
        }
        all.remove(id).filter(|one| now < one.until).map(|one| one.about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_with_any_port_and_an_address_is_not() {
        for (authority, host) in
            [("berth.local:6443", "berth.local"), ("BERTH.local", "berth.local"), ("localhost:1", "localhost")]
        {
            assert_eq!(RelyingParty::of(authority).ok().map(|party| party.host).as_deref(), Some(host));
        }
        for authority in ["192.0.2.1:6443", "[2001:db8::1]:6443", "", "a b", "berth.local/path?x"] {
            let taken = RelyingParty::of(authority).ok().map(|party| party.host);
            assert!(taken.as_deref().is_none_or(|host| host == "berth.local"), "{authority}: {taken:?}");
        }
        let told = RelyingParty::of("192.0.2.1:6443").err().unwrap().to_string();
        assert!(told.contains("192.0.2.1:6443 is none that a browser keeps one for"), "{told}");
    }

    #[test]
    fn a_challenge_is_its_users_answered_once_and_in_time() {
        let (challenges, now) = (Challenges::default(), "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap());
        let party = RelyingParty::of("berth.local").unwrap();
        let (_, state) = party.begin_registration(Uuid::nil(), "alice", &[]).unwrap();
        let about = Pending::Registration(Box::new(state));
        let id = challenges.keep("alice-uid", about.clone(), now).unwrap();
        assert!(challenges.take(&id, "bob-uid", now).is_none());
        assert!(challenges.take(&id, "alice-uid", now).is_some());
        assert!(challenges.take(&id, "alice-uid", now).is_none());
        let id = challenges.keep("alice-uid", about, now).unwrap();
        assert!(challenges.take(&id, "alice-uid", now + SignedDuration::from_secs(CHALLENGE_SECONDS)).is_none());
    }

    #[test]
    fn there_are_never_more_challenges_than_are_kept() {
        let (challenges, now) = (Challenges::default(), "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap());
        let (_, state) =
            RelyingParty::of("berth.local").unwrap().begin_registration(Uuid::nil(), "alice", &[]).unwrap();
        let about = Pending::Registration(Box::new(state));
        let first = challenges.keep("alice-uid", about.clone(), now).unwrap();
        for _ in 0..MOST {
            challenges.keep("alice-uid", about.clone(), now + SignedDuration::from_secs(1)).unwrap();
        }
        assert_eq!(challenges.0.lock().unwrap().len(), MOST);
        assert!(challenges.take(&first, "alice-uid", now).is_none());
    }
}
