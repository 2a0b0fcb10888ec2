//! Logins that wait for somebody to let them in (RFC 8628): known by hashes, and gone when they end.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::error::{Fault, StoreError};
use super::read::{ReadTx, parsed};
use super::tx::Tx;

/// How long one waits.
pub const DEVICE_LOGIN_LIFE: SignedDuration = SignedDuration::from_mins(10);

/// A login that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLogin {
    /// From where.
    pub address: String,
    /// What the program there calls itself.
    pub program: String,
    /// When.
    pub began: Timestamp,
    /// Seconds that the program waits before it asks again.
    pub interval: i64,
    /// When it asked last.
    pub polled: Option<Timestamp>,
    /// What somebody has said about it.
    pub decision: Option<DeviceDecision>,
}

/// What somebody says about a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceDecision {
    /// It comes in as he does.
    Approved {
        /// The uid of the user.
        user: String,
        /// When he had proven who he is.
        authenticated: Timestamp,
    },
    /// It does not come in.
    Denied,
}

/// By what a login is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceHashes {
    /// What its program asks with.
    pub device: [u8; 32],
    /// What somebody types who is logged in elsewhere.
    pub code: [u8; 32],
}

/// How many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLoginsWaiting {
    /// That many.
    pub count: usize,
    /// When the first of them ends.
    pub first_end: Option<Timestamp>,
}

impl DeviceLogin {
    /// From then on it is known no more.
    pub fn ends(&self) -> Timestamp {
        self.began + DEVICE_LOGIN_LIFE
    }
}

fn encoded(login: &DeviceLogin) -> Result<String, StoreError> {
    let encoded = serde_json::to_string(login);
    encoded.map_err(|source| Fault::Encode { kind: "device login", source: Arc::new(source) }.into())
}

impl ReadTx<'_> {
    /// The login whose program asks with what has this hash.
    pub fn device_login(&self, device: &[u8; 32]) -> Result<Option<DeviceLogin>, StoreError> {
        let found = self.device_logins_by("SELECT device, body FROM device_login WHERE device = ?1", device)?;
        Ok(found.map(|(_, login)| login))
    }

    /// The login whose code for people has this hash, with the hash of what its program asks with.
    pub fn device_login_of_code(&self, code: &[u8; 32]) -> Result<Option<([u8; 32], DeviceLogin)>, StoreError> {
        self.device_logins_by("SELECT device, body FROM device_login WHERE code = ?1", code)
    }

    fn device_logins_by(&self, sql: &str, hash: &[u8; 32]) -> Result<Option<([u8; 32], DeviceLogin)>, StoreError> {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?));
        let found = self.rows(sql, params![hash.as_slice()], row, "look a waiting login up")?;
        let Some((device, body)) = found.into_iter().next() else { return Ok(None) };
        Ok(Some((device, parsed(|| "a waiting login".to_owned(), &body)?)))
    }

    /// How many logins wait from one place, or in all.
    pub fn device_logins_waiting(&self, place: Option<&str>) -> Result<DeviceLoginsWaiting, StoreError> {
        let sql = "SELECT count(*), min(expires_at) FROM device_login WHERE ?1 IS NULL OR place = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?));
        let found = self.rows(sql, [place], row, "count waiting logins")?;
        let (count, first) = found.into_iter().next().unwrap_or_default();
        let first_end = first.and_then(|seconds| Timestamp::from_second(seconds).ok());
        Ok(DeviceLoginsWaiting { count: usize::try_from(count).unwrap_or(usize::MAX), first_end })
    }
}

impl Tx<'_> {
    /// Keeps a login that begins at a place: an address, or a network that counts as one.
    pub fn add_device_login(
        &mut self,
        hashes: &DeviceHashes,
        place: &str,
        login: &DeviceLogin,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO device_login (device, code, place, expires_at, body) VALUES (?1, ?2, ?3, ?4, ?5)";
        let (device, code) = (hashes.device.as_slice(), hashes.code.as_slice());
        let values = params![device, code, place, login.ends().as_second(), encoded(login)?];
        self.execute(sql, values, "keep a waiting login")?;
        self.note_steady()
    }

    /// Keeps what has become of a login. Who has let it in is known from then on: it ends with him.
    pub fn change_device_login(&mut self, device: &[u8; 32], login: &DeviceLogin) -> Result<(), StoreError> {
        let approver = match &login.decision {
            Some(DeviceDecision::Approved { user, .. }) => Some(user),
            Some(DeviceDecision::Denied) | None => None,
        };
        let sql = "UPDATE device_login SET body = ?2, approver = ?3 WHERE device = ?1";
        let values = params![device.as_slice(), encoded(login)?, approver];
        self.execute(sql, values, "keep a waiting login").map(drop)
    }

    /// Forgets a login.
    pub fn forget_device_login(&mut self, device: &[u8; 32]) -> Result<(), StoreError> {
        let sql = "DELETE FROM device_login WHERE device = ?1";
        self.execute(sql, params![device.as_slice()], "forget a waiting login").map(drop)
    }

    /// Forgets the logins that the user with this uid has let in.
    pub fn forget_device_logins_of(&mut self, user: &str) -> Result<(), StoreError> {
        self.execute("DELETE FROM device_login WHERE approver = ?1", [user], "forget waiting logins").map(drop)
    }

    /// Forgets the logins that have ended.
    pub fn forget_ended_device_logins(&mut self) -> Result<(), StoreError> {
        let sql = "DELETE FROM device_login WHERE expires_at <= ?1";
        self.execute(sql, [self.steady.as_second()], "forget waiting logins").map(drop)
    }
}
