//! One sealed value: `version | salt | digest | ciphertext and tag`.
//!
//! Every envelope has a random salt, from which HKDF derives a cipher key that is used once; so
//! the nonce is constant and can never repeat under one key. The digest lies outside of the
//! ciphertext (it is read without opening) and is bound to it as associated data, together with
//! the identity of the record.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::hmac;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use super::ACCOUNTS;

const VERSION: u8 = 1;
const SALT: usize = 16;
const DIGEST: usize = 16;
const HEADER: usize = 1 + SALT + DIGEST;

/// What a sealed value belongs to. It opens for exactly this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Namespace of the Secret.
    pub namespace: &'a str,
    /// Name of the Secret.
    pub name: &'a str,
    /// Uid of the Secret: another one of the same name is another record.
    pub uid: &'a str,
    /// Key within the Secret.
    pub key: &'a str,
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace {
            ACCOUNTS => write!(f, "{} of user {}", self.key, self.name),
            namespace => write!(f, "key {} of secret {namespace}/{}", self.key, self.name),
        }
    }
}

impl Record<'_> {
    /// Unambiguous: every part is preceded by its length.
    fn identity(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [self.namespace, self.name, self.uid, self.key] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// 32 bytes that are wiped when dropped.
pub(super) struct Key(Zeroizing<[u8; 32]>);

struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

impl Key {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself, to be sealed by another.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }

    /// What a key is recognised by; says nothing about it.
    pub(super) fn check(&self) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_ref());
        hmac::sign(&key, b"berth master key check 1").as_ref().to_vec()
    }

    fn derive(&self, salt: &[u8], purpose: &[u8]) -> Result<Key, ring::error::Unspecified> {
        let mut derived = Key::new([0; 32]);
        let extracted = Salt::new(HKDF_SHA256, salt).extract(self.0.as_ref());
        extracted.expand(&[purpose], Bytes32)?.fill(derived.0.as_mut())?;
        Ok(derived)
    }

    fn cipher(&self, salt: &[u8]) -> Result<LessSafeKey, ring::error::Unspecified> {
        let key = self.derive(salt, b"berth sealed value 1")?;
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.0.as_ref())?))
    }

    fn digest(&self, record: &Record<'_>, value: &[u8]) -> Result<hmac::Tag, ring::error::Unspecified> {
        let key = self.derive(b"", b"berth value digest 1")?;
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.0.as_ref()));
        context.update(&record.identity());
        context.update(value);
        Ok(context.sign())
    }
}

/// A sealed value, taken apart.
pub(super) struct Envelope {
    salt: [u8; SALT],
    digest: [u8; DIGEST],
    sealed: Vec<u8>,
}

impl Envelope {
    pub(super) fn seal(
        key: &Key,
        record: &Record<'_>,
        value: &[u8],
        random: &dyn SecureRandom,
    ) -> Result<Self, ring::error::Unspecified> {
        let mut salt = [0; SALT];
        random.fill(&mut salt)?;
        let mut digest = [0; DIGEST];
        digest.copy_from_slice(&key.digest(record, value)?.as_ref()[..DIGEST]);
        // Encrypted in place: grown beforehand, so that no copy of the value is left behind.
        let mut sealed = Vec::with_capacity(value.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(value);
        let associated = Aad::from(associated(record, &salt, &digest));
        key.cipher(&salt)?.seal_in_place_append_tag(nonce(), associated, &mut sealed)?;
        Ok(Self { salt, digest, sealed })
    }

    pub(super) fn open(mut self, key: &Key, record: &Record<'_>) -> Option<Zeroizing<Vec<u8>>> {
        let associated = Aad::from(associated(record, &self.salt, &self.digest));
        let cipher = key.cipher(&self.salt).ok()?;
        let length = cipher.open_in_place(nonce(), associated, &mut self.sealed).ok()?.len();
        self.sealed.truncate(length);
        Some(Zeroizing::new(self.sealed))
    }

    pub(super) fn is_digest_of(
        &self,
        key: &Key,
        record: &Record<'_>,
        value: &[u8],
    ) -> Result<bool, ring::error::Unspecified> {
        Ok(key.digest(record, value)?.as_ref()[..DIGEST] == self.digest)
    }

    /// Names the value without saying anything about it, as 32 hexadecimal digits.
    pub(super) fn digest_text(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, sealed) = bytes.split_at_checked(HEADER)?;
        let (salt, digest) = header.strip_prefix(&[VERSION])?.split_at_checked(SALT)?;
        let (salt, digest) = (salt.try_into().ok()?, digest.try_into().ok()?);
        Some(Self { salt, digest, sealed: sealed.to_vec() })
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.sealed.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&self.sealed);
        bytes
    }
}

fn associated(record: &Record<'_>, salt: &[u8], digest: &[u8]) -> Vec<u8> {
    let mut bytes = record.identity();
    bytes.push(VERSION);
    bytes.extend_from_slice(salt);
    bytes.extend_from_slice(digest);
    bytes
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
