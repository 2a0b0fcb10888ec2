//! Passwords of people, as the API has them: what is too weak, and how they are hashed.
//!
//! The numbers are those of the daemon, which would refuse what is weaker and takes hashes of other costs.

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::PasswordHash;

/// The shortest password, in characters.
const SHORTEST: usize = 10;
/// The longest, in bytes.
const LONGEST: usize = 1024;
/// KiB of memory, passes, lanes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);

/// A password could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The hash could not be made.
    #[error("the password could not be hashed")]
    Hash(#[source] argon2::password_hash::Error),
}

/// What is wrong with a new password of a user, and what to do; none, if nothing is.
pub fn weakness(user: &str, password: &str) -> Option<String> {
    let mut letters = Zeroizing::new(password.chars().collect::<Vec<char>>());
    if letters.len() < SHORTEST {
        return Some(format!("is too short; use {SHORTEST} characters or more, a few words are easy to keep in mind"));
    }
    if password.len() > LONGEST {
        return Some(format!("is too long; use {LONGEST} bytes at most"));
    }
    letters.dedup();
    let lower = Zeroizing::new(password.to_lowercase());
    let guessed = letters.len() < 4 || lower.contains(&user.to_lowercase());
    guessed.then(|| "is easily guessed; use something that nobody guesses who knows the name".to_owned())
}

/// Hashes a password. Takes a good part of a second and 19 MiB, on purpose.
///
/// # Errors
/// [`PasswordError::Hash`].
pub fn hashed(password: &str) -> Result<PasswordHash, PasswordError> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|error| PasswordError::Hash(error.into()))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let salt = SaltString::generate(&mut OsRng);
    let phc = argon2.hash_password(password.as_bytes(), &salt).map_err(PasswordError::Hash)?;
    let made = PasswordHash::try_from(Zeroizing::new(phc.to_string()));
    made.map_err(|_| PasswordError::Hash(argon2::password_hash::Error::PhcStringField))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hashed_as_the_api_does_it_and_the_hash_is_not_shown() {
        let hash = hashed("correct horse battery").unwrap();
        assert!(hash.reveal().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.reveal());
        assert_ne!(hash, hashed("correct horse battery").unwrap());
        assert_eq!(format!("{hash:?}"), "••••");
    }

    #[test]
    fn a_weak_password_is_refused_with_what_to_do() {
        let told = |password: &str| weakness("alex", password);
        assert_eq!(told("correct horse battery"), None);
        assert!(told("short").unwrap().contains("10 characters or more"));
        assert!(told("aaaaaaaaaaaaaa").unwrap().contains("nobody guesses"));
        assert!(told("Alex-is-the-best").unwrap().contains("nobody guesses"));
        assert!(told(&"ab1!".repeat(300)).unwrap().contains("1024 bytes"));
    }
}
