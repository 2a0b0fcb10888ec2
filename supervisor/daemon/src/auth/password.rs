//! Passwords: Argon2id, with the cost that OWASP recommends (19 MiB, two passes, one lane).
//!
//! Hashing takes memory and time on purpose. Few are hashed at once, so that a crowd at the door takes neither from
//! services, and a password of nobody takes as long as one that is wrong.

use std::sync::{Arc, LazyLock};

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// The shortest password, in characters.
const SHORTEST: usize = 10;
/// The longest, in bytes: more would only be work.
const LONGEST: usize = 1024;
/// KiB of memory, passes, lanes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// The most that a hash made elsewhere may cost, in KiB and passes: each login pays it.
const DEAREST: (u32, u32) = (64 * 1024, 10);
/// Passwords that are hashed at the same time.
const AT_ONCE: usize = 2;

/// What does not work out with a password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too short, too long, or too easily guessed.
    #[error("{0}")]
    Weak(String),
    /// A hash that is not kept.
    #[error("{0}")]
    Unfit(String),
    /// Hashing failed.
    #[error("the password could not be hashed")]
    Hash(#[source] argon2::password_hash::Error),
    /// Nobody hashes any more.
    #[error("the password could not be hashed, as the daemon is ending")]
    Ending,
}

/// Says what is wrong with a new password.
///
/// # Errors
/// [`PasswordError::Weak`].
pub fn check(user: &str, password: &str) -> Result<(), PasswordError> {
    let weak = |why: String| Err(PasswordError::Weak(why));
    let mut letters: Vec<char> = password.chars().collect();
    if letters.len() < SHORTEST {
        return weak(format!("use {SHORTEST} characters or more; a few words are easy to keep in mind"));
    }
    if password.len() > LONGEST {
        return weak(format!("use {LONGEST} bytes at most"));
    }
    letters.dedup();
    if letters.len() < 4 || password.to_lowercase().contains(&user.to_lowercase()) {
        return weak("use something that nobody guesses who knows the name".to_owned());
    }
    Ok(())
}

/// Says what is wrong with a hash that was made elsewhere: it has to be as hard to guess from as ours, and not so dear that
/// logins take the machine's memory.
///
/// # Errors
/// [`PasswordError::Unfit`].
pub fn check_hash(phc: &str) -> Result<(), PasswordError> {
    let unfit = |why: &str| Err(PasswordError::Unfit(why.to_owned()));
    let Ok(parsed) = PasswordHash::new(phc) else {
        return unfit("it is no PHC string like $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH");
    };
    let long_enough = parsed.salt.is_some() && parsed.hash.is_some_and(|hash| hash.len() >= 16);
    if parsed.algorithm != Algorithm::Argon2id.ident() || !long_enough {
        return unfit("use Argon2id with a salt and a hash of 16 bytes or more");
    }
    let Ok(params) = Params::try_from(&parsed) else {
        return unfit("its parameters make no sense");
    };
    let (memory, passes, _) = COST;
    // OWASP holds 7 MiB with five passes to be as good as 19 with two: memory times passes is what counts.
    let cheap = params.m_cost() < 7 * 1024 || params.m_cost() * params.t_cost() < memory * passes * 9 / 10;
    if cheap || params.m_cost() > DEAREST.0 || params.t_cost() > DEAREST.1 || params.p_cost() > 4 {
        return unfit("let it cost as much as 19 MiB with two passes, and at most 64 MiB, ten passes and four lanes");
    }
    Ok(())
}

/// Hashes a password, into a PHC string.
///
/// # Errors
/// [`PasswordError::Hash`].
pub async fn hash(password: Zeroizing<String>) -> Result<String, PasswordError> {
    apart(move || {
        let salt = SaltString::generate(&mut OsRng);
        let hashed = argon2()?.hash_password(password.as_bytes(), &salt).map_err(PasswordError::Hash)?;
        Ok(hashed.to_string())
    })
    .await
}

/// Whether it is the password of this PHC string. Without one it takes as long, and is not.
///
/// # Errors
/// [`PasswordError::Hash`] if what is kept is no PHC string.
pub async fn verify(password: Zeroizing<String>, phc: Option<String>) -> Result<bool, PasswordError> {
    if password.len() > LONGEST {
        return Ok(false);
    }
    apart(move || {
        let known = phc.is_some();
        let phc = phc.unwrap_or_else(|| NOBODYS.clone());
        let parsed = PasswordHash::new(&phc).map_err(PasswordError::Hash)?;
        let right = argon2()?.verify_password(password.as_bytes(), &parsed).is_ok();
        Ok(known && right)
    })
    .await
}

/// What is checked where there is nothing to check: of a password that nobody knows.
static NOBODYS: LazyLock<String> = LazyLock::new(|| {
    let salt = SaltString::generate(&mut OsRng);
    let nothing = SaltString::generate(&mut OsRng);
    let hashed = argon2()
        .ok()
        .and_then(|argon| argon.hash_password(nothing.as_str().as_bytes(), &salt).ok().map(|one| one.to_string()));
    hashed.unwrap_or_default()
});

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|error| PasswordError::Hash(error.into()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Does it where nobody waits for it who has something else to do.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
) -> Result<T, PasswordError> {
    static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));
    let place = Arc::clone(&PLACES).acquire_owned().await.map_err(|_| PasswordError::Ending)?;
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Ending)?;
    drop(place);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_no_other_is() {
        let phc = hash(secret("correct horse battery")).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(verify(secret("correct horse battery"), Some(phc.clone())).await.unwrap());
        assert!(!verify(secret("correct horse batterz"), Some(phc.clone())).await.unwrap());
        assert!(!verify(secret(""), None).await.unwrap());
        assert!(!verify(secret(&"x".repeat(LONGEST + 1)), Some(phc)).await.unwrap());
        assert!(verify(secret("anything"), Some("not a hash".into())).await.is_err());
    }

    #[test]
    fn a_hash_from_elsewhere_is_taken_if_it_is_worth_as_much_as_ours() {
        let told = |phc: &str| check_hash(phc).err().map(|error| error.to_string());
        let of =
            |how: &str| format!("$argon2id$v=19${how}$c29tZXNhbHQxMjM0$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI");
        assert_eq!(told(&of("m=19456,t=2,p=1")), None);
        assert_eq!(told(&of("m=7168,t=5,p=1")), None);
        for other in ["m=4096,t=3,p=1", "m=19456,t=1,p=1", "m=2097152,t=2,p=1", "m=19456,t=200,p=1"] {
            assert!(told(&of(other)).unwrap().contains("64 MiB"), "{other}");
        }
        assert!(told(&of("m=19456,t=2,p=1").replace("argon2id", "argon2i")).unwrap().contains("Argon2id"));
        assert!(told("$argon2id$v=19$m=19456,t=2,p=1").unwrap().contains("hash"));
        assert!(told("secret").unwrap().contains("PHC"));
    }

    #[test]
    fn a_password_that_is_guessed_is_refused_with_what_to_do() {
        let told = |password: &str| check("alice", password).err().map(|error| error.to_string());
        assert_eq!(told("correct horse battery"), None);
        assert!(told("short").unwrap().contains("10 characters or more"));
        assert!(told("aaaaaaaaaaaaaa").unwrap().contains("nobody guesses"));
        assert!(told("Alice-is-the-best").unwrap().contains("nobody guesses"));
        assert!(told(&"ab1!".repeat(300)).unwrap().contains("1024 bytes"));
    }
}
