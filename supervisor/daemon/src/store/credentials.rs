//! What proves who somebody is: kept beside the objects, since whoever may read these shall not read it.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::error::{Fault, StoreError};
use super::read::ReadTx;
use super::tx::Tx;

/// What a credential is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To ask on behalf of a session.
    Access,
    /// To have new ones for a session, once.
    Refresh,
    /// To ask on behalf of a user, as long as the key is there.
    Key,
    /// To enrol on behalf of what it belongs to, once.
    Bootstrap,
    /// A client certificate: its key proves who somebody is, its hash leads to its record.
    Certificate,
    /// To have an account made, once.
    Invitation,
    /// To come in once somebody who is logged in elsewhere says so; kept with the logins that wait.
    Device,
    /// In the place of a code of an authenticator app, once.
    Recovery,
    /// To answer a passkey's challenge; kept in memory alone.
    Challenge,
}

/// What is kept of a user to check what he shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifier {
    /// By what his password is checked: a PHC string.
    Password,
    /// By what codes of his authenticator app are checked, sealed.
    Totp,
    /// The same, before he has shown that his app has it.
    Enrolment,
    /// Public keys and counters of his passkeys.
    Passkeys,
}

impl Verifier {
    fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Totp => "totp",
            Self::Enrolment => "enrolment",
            Self::Passkeys => "passkeys",
        }
    }
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Refresh => "refresh",
            Self::Key => "key",
            Self::Bootstrap => "bootstrap",
            Self::Certificate => "certificate",
            Self::Invitation => "invitation",
            Self::Device => "device",
            Self::Recovery => "recovery",
            Self::Challenge => "challenge",
        }
    }
}

/// A credential that is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The uid of the object that it belongs to.
    pub object: String,
    /// From then on it is good for nothing.
    pub expires_at: Option<Timestamp>,
    /// It was used, and is good once.
    pub spent: bool,
}

impl ReadTx<'_> {
    /// The credential of which this is the hash.
    pub fn credential(&self, purpose: Purpose, hash: &[u8; 32]) -> Result<Option<Credential>, StoreError> {
        let sql = "SELECT object, expires_at, spent FROM credential WHERE hash = ?1 AND purpose = ?2";
        let found = self.connection.prepare_cached(sql).and_then(|mut ready| {
            let values = params![hash.as_slice(), purpose.name()];
            let row = ready.query_row(values, |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?, row.get(2)?)));
            row.optional()
        });
        let found = found.map_err(Fault::of("look a credential up"))?;
        Ok(found.map(|(object, expires_at, spent)| {
            let expires_at = expires_at.map(|seconds| Timestamp::from_second(seconds).unwrap_or(Timestamp::MIN));
            Credential { object, expires_at, spent }
        }))
    }

    /// By what something is checked that the user with this uid shows; `None`, if he has no such thing.
    pub fn verifier(&self, user: &str, what: Verifier) -> Result<Option<String>, StoreError> {
        let sql = "SELECT body FROM verifier WHERE object = ?1 AND purpose = ?2";
        let found = self.rows(sql, [user, what.name()], |row| row.get(0), "look a verifier up")?;
        Ok(found.into_iter().next())
    }

    /// How many credentials for a purpose the object with this uid has.
    pub fn credentials(&self, purpose: Purpose, object: &str) -> Result<u32, StoreError> {
        let sql = "SELECT count(*) FROM credential WHERE object = ?1 AND purpose = ?2";
        let found = self.rows(sql, [object, purpose.name()], |row| row.get(0), "count credentials")?;
        Ok(found.into_iter().next().unwrap_or_default())
    }
}

impl Tx<'_> {
    /// Makes what has this hash a credential of the object with this uid; goes with the object. It ends by
    /// [`Tx::steady_now`], not by the machine's clock.
    pub fn add_credential(
        &mut self,
        purpose: Purpose,
        hash: &[u8; 32],
        object: &str,
        expires_at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO credential (hash, purpose, object, expires_at) VALUES (?1, ?2, ?3, ?4)";
        let values = params![hash.as_slice(), purpose.name(), object, expires_at.map(Timestamp::as_second)];
        self.execute(sql, values, "keep a credential")?;
        self.note_steady()
    }

    /// Makes the credentials of an object good for nothing. They are known until they expire, so that it is seen when
    /// somebody uses one again.
    pub fn spend_credentials(&mut self, object: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM credential WHERE object = ?1 AND expires_at <= ?2";
        self.execute(sql, params![object, self.steady.as_second()], "forget old credentials")?;
        self.execute("UPDATE credential SET spent = 1 WHERE object = ?1", [object], "spend credentials").map(drop)
    }

    /// Forgets what an object's credentials of a purpose were that have expired.
    pub fn forget_expired_credentials(&mut self, purpose: Purpose, object: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM credential WHERE object = ?1 AND purpose = ?2 AND expires_at <= ?3";
        let values = params![object, purpose.name(), self.steady.as_second()];
        self.execute(sql, values, "forget old credentials").map(drop)
    }

    /// Forgets a credential; answers whether there was one.
    pub fn take_credential(&mut self, purpose: Purpose, hash: &[u8; 32]) -> Result<bool, StoreError> {
        let sql = "DELETE FROM credential WHERE hash = ?1 AND purpose = ?2";
        let gone = self.execute(sql, params![hash.as_slice(), purpose.name()], "take a credential")?;
        Ok(gone > 0)
    }

    /// Takes all credentials of an object away that it has for a purpose.
    pub fn drop_credentials(&mut self, purpose: Purpose, object: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM credential WHERE object = ?1 AND purpose = ?2";
        self.execute(sql, params![object, purpose.name()], "drop credentials").map(drop)
    }

    /// Sets by what something is checked that the user with this uid shows.
    pub fn set_verifier(&mut self, user: &str, what: Verifier, body: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO verifier (object, purpose, body) VALUES (?1, ?2, ?3)
                   ON CONFLICT (object, purpose) DO UPDATE SET body = excluded.body";
        self.execute(sql, params![user, what.name(), body], "keep a verifier").map(drop)
    }

    /// Forgets by what something is checked; says whether it was known.
    pub fn drop_verifier(&mut self, user: &str, what: Verifier) -> Result<bool, StoreError> {
        let sql = "DELETE FROM verifier WHERE object = ?1 AND purpose = ?2";
        Ok(self.execute(sql, params![user, what.name()], "forget a verifier")? > 0)
    }
}
