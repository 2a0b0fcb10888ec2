//! Codes that people read in one place and type in another.

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::AuthError;

/// Letters and digits that nobody takes for one another: five bits each.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Characters between two dashes.
const GROUP: usize = 4;

/// Draws a code of so many characters, five bits each.
///
/// # Errors
/// The machine gives no randomness.
pub fn draw(length: usize) -> Result<Zeroizing<String>, AuthError> {
    let mut random = Zeroizing::new(vec![0; length]);
    SystemRandom::new().fill(random.as_mut()).map_err(|_| AuthError::Random)?;
    // A byte has a whole number of alphabets in it: each letter comes as often as another.
    let letters = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    Ok(Zeroizing::new(letters.collect()))
}

/// As people type it: in any case, with or without dashes.
pub fn plain(text: &str) -> Zeroizing<String> {
    let letters = text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_uppercase());
    Zeroizing::new(letters.collect())
}

/// Whether it could have been drawn with this length.
pub fn is_one(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// As it is shown: with dashes.
pub fn grouped(code: &str) -> Zeroizing<String> {
    let groups: Vec<&str> =
        (0..code.len()).step_by(GROUP).filter_map(|at| code.get(at..(at + GROUP).min(code.len()))).collect();
    Zeroizing::new(groups.join("-"))
}

/// Whether two are the same. How long it takes tells nothing: hashes are compared.
pub fn is_same(one: &str, other: &str) -> bool {
    let hash = |text: &str| digest(&SHA256, text.as_bytes());
    hash(one).as_ref() == hash(other).as_ref()
}
