//! Secrets that are shown once and then recognised: random, told apart by how they begin, kept as a hash.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::AuthError;
use crate::store::Purpose;

/// Bytes of randomness, as many as their hash has.
const LENGTH: usize = 32;

/// How each kind of secret begins, to be recognised where it should not be.
const PREFIXES: [(Purpose, &str); 6] = [
    (Purpose::Access, "berth_access_"),
    (Purpose::Refresh, "berth_refresh_"),
    (Purpose::Key, "berth_key_"),
    (Purpose::Bootstrap, "berth_bootstrap_"),
    (Purpose::Invitation, "berth_invitation_"),
    (Purpose::Device, "berth_device_"),
];

/// A secret, and what recognises it.
pub struct Fresh {
    /// What its bearer shows. It is said once, and never again.
    pub secret: Zeroizing<String>,
    /// What is kept.
    pub hash: [u8; LENGTH],
}

/// Makes a secret.
///
/// # Errors
/// The machine gives no randomness.
pub fn fresh(purpose: Purpose) -> Result<Fresh, AuthError> {
    let mut random = Zeroizing::new([0; LENGTH]);
    SystemRandom::new().fill(random.as_mut()).map_err(|_| AuthError::Random)?;
    let secret = Zeroizing::new(format!("{}{}", prefix(purpose), URL_SAFE_NO_PAD.encode(random.as_ref())));
    let hash = hash(&secret);
    Ok(Fresh { secret, hash })
}

/// What a secret is for, and by what it is recognised; `None`, if it cannot be one.
///
/// A secret is random in all its length, so that its hash needs no salt, and to look the hash up tells by the time it takes
/// nothing about secrets.
pub fn recognise(secret: &str) -> Option<(Purpose, [u8; LENGTH])> {
    let (purpose, _) = PREFIXES.into_iter().find(|(_, prefix)| secret.starts_with(prefix))?;
    Some((purpose, hash(secret)))
}

/// By what a code is recognised that people type. Who has the hash of one of less than 80 bits can find it by trying all.
pub fn of_code(purpose: Purpose, plain: &str) -> [u8; LENGTH] {
    hash(&format!("{purpose:?}:{plain}"))
}

fn prefix(purpose: Purpose) -> &'static str {
    PREFIXES.iter().find(|(known, _)| *known == purpose).map_or("", |(_, prefix)| prefix)
}

fn hash(secret: &str) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_recognised_by_its_purpose_and_hash_and_no_two_are_alike() {
        for (purpose, _) in PREFIXES {
            let (one, other) = (fresh(purpose).unwrap(), fresh(purpose).unwrap());
            assert_eq!(recognise(&one.secret), Some((purpose, one.hash)));
            assert_ne!(one.hash, other.hash);
            assert_eq!(one.secret.len() - prefix(purpose).len(), 43);
        }
        assert_eq!(recognise("berth_owner_x"), None);
        assert_eq!(recognise(""), None);
    }
}
