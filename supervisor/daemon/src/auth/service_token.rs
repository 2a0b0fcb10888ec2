//! Tokens of service accounts: JSON Web Tokens (RFC 7519) that this machine signs, and nobody else accepts. Nothing is
//! kept of them: they end by their time, or with the service account.

use std::path::Path;

use berth_host::fs::{atomic_write, ensure_dir, read_optional};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::AuthError;

/// For whom a token has to be made to be accepted here.
pub const AUDIENCE: &str = "berth";
const ISSUER: &str = "berth";
/// How every JSON Web Token begins: `{"` in base64.
const BEGINNING: &str = "eyJ";

/// A service account, as its token tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: one that was deleted and made again is another.
    pub uid: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(rename = "berth.dev")]
    account: Account,
}

/// Signs and checks.
pub struct ServiceTokens {
    sign: EncodingKey,
    check: DecodingKey,
}

impl ServiceTokens {
    /// Reads the key below `data`, or makes one.
    ///
    /// # Errors
    /// The file cannot be read or written, or is no key.
    pub fn open(data: &Path) -> Result<Self, AuthError> {
        let path = data.join("keys/tokens.key");
        ensure_dir(&data.join("keys"), 0o700)?;
        let key = match read_optional(&path)?.map(Zeroizing::new) {
            Some(key) if key.len() == 32 => key,
            Some(_) => return Err(AuthError::NoTokenKey { path }),
            None => {
                let mut key = Zeroizing::new(vec![0; 32]);
                SystemRandom::new().fill(key.as_mut()).map_err(|_| AuthError::Random)?;
                atomic_write(&path, &key, 0o600)?;
                key
            }
        };
        Ok(Self { sign: EncodingKey::from_secret(&key), check: DecodingKey::from_secret(&key) })
    }

    /// Whether a text can be a token of this kind.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(BEGINNING)
    }

    /// Makes a token.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn make(
        &self,
        account: Account,
        audiences: Vec<String>,
        now: Timestamp,
        life: SignedDuration,
    ) -> Result<String, AuthError> {
        let (from, until) = (now.as_second(), now.as_second().saturating_add(life.as_secs()));
        let sub = format!("system:serviceaccount:{}:{}", account.namespace, account.name);
        let claims = Claims { iss: ISSUER.into(), sub, aud: audiences, iat: from, nbf: from, exp: until, account };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.sign).map_err(AuthError::Token)
    }

    /// Whose a token is, if it was made here, for here, and is not over.
    pub fn whose(&self, token: &str, now: Timestamp) -> Option<Account> {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[ISSUER]);
        // The times are checked by the clock that everything else here goes by.
        rules.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.check, &rules).ok()?.claims;
        (now.as_second() >= claims.nbf && now.as_second() < claims.exp).then_some(claims.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { namespace: "team".into(), name: "deploy".into(), uid: "1".into() }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const NOON: &str = "2026-03-01T12:00:00Z";
    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    #[test]
    fn a_token_is_good_in_its_time_for_whom_it_was_made_on_the_machine_that_made_it() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tokens = ServiceTokens::open(dir.path()).unwrap();
        let made = tokens.make(account(), vec![AUDIENCE.into()], at(NOON), HOUR).unwrap();
        assert!(ServiceTokens::is_one(&made));
        let again = ServiceTokens::open(dir.path()).unwrap();
        assert_eq!(again.whose(&made, at(NOON)), Some(account()));
        assert_eq!(again.whose(&made, at("2026-03-01T12:59:59Z")), Some(account()));
        assert_eq!(again.whose(&made, at("2026-03-01T13:00:00Z")), None);
        assert_eq!(again.whose(&made, at("2026-03-01T11:59:59Z")), None);
        assert_eq!(ServiceTokens::open(other.path()).unwrap().whose(&made, at(NOON)), None);
        let elsewhere = tokens.make(account(), vec!["vault".into()], at(NOON), HOUR).unwrap();
        assert_eq!(tokens.whose(&elsewhere, at(NOON)), None);
    }

    #[test]
    fn a_token_that_says_it_needs_no_signature_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = ServiceTokens::open(dir.path()).unwrap();
        let made = tokens.make(account(), vec![AUDIENCE.into()], at(NOON), HOUR).unwrap();
        let claims = made.split('.').nth(1).unwrap();
        // {"alg":"none"}
        assert_eq!(tokens.whose(&format!("eyJhbGciOiJub25lIn0.{claims}."), at(NOON)), None);
        assert_eq!(tokens.whose("eyJ", at(NOON)), None);
    }

    #[test]
    fn a_damaged_key_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        ServiceTokens::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("keys/tokens.key"), "short").unwrap();
        let error = ServiceTokens::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("tokens.key"), "{error}");
        assert_eq!(std::fs::read(dir.path().join("keys/tokens.key")).unwrap(), b"short");
    }
}
