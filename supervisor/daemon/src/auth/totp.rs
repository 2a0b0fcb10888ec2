//! Codes of an authenticator app (RFC 6238), as every such app makes them: SHA-1, six digits, another one every 30 seconds.

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use totp_rs::{Algorithm, TOTP};
use zeroize::Zeroizing;

use super::{AuthError, code};

/// Bytes of a secret, as RFC 4226 recommends.
const LENGTH: usize = 20;
const DIGITS: usize = 6;
/// Seconds that a code is shown for.
const STEP: u64 = 30;
/// Steps that the clock of an app may be off, either way.
const DRIFT: u64 = 1;

/// What makes a user's codes, in his app and here.
pub struct Generator(TOTP);

impl Generator {
    /// Draws a secret for a user of this machine.
    ///
    /// # Errors
    /// The machine gives no randomness.
    pub fn draw(user: &str, machine: &str) -> Result<Self, AuthError> {
        let mut secret = Zeroizing::new([0; LENGTH]);
        SystemRandom::new().fill(secret.as_mut()).map_err(|_| AuthError::Random)?;
        Self::of(secret.as_ref(), user, machine)
    }

    /// The same again, from its secret.
    ///
    /// # Errors
    /// It is none.
    pub fn of(secret: &[u8], user: &str, machine: &str) -> Result<Self, AuthError> {
        let issuer = Some(format!("Berth {machine}"));
        let made = TOTP::new(Algorithm::SHA1, DIGITS, 1, STEP, secret.to_vec(), issuer, user.to_owned());
        made.map(Self).map_err(AuthError::Totp)
    }

    /// The secret.
    pub fn secret(&self) -> &[u8] {
        &self.0.secret
    }

    /// The secret as people type it into an app, in base 32.
    pub fn typed(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.get_secret_base32())
    }

    /// What an app reads from a QR code: `otpauth://totp/...`.
    pub fn uri(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.get_url())
    }

    /// The step whose code it is, if that is now, or nearly, and after the one of which a code was taken last.
    pub fn step_of(&self, said: &str, now: Timestamp, last: Option<u64>) -> Option<u64> {
        let said: String = said.chars().filter(|sign| !sign.is_whitespace()).collect();
        let now = u64::try_from(now.as_second()).ok()? / STEP;
        let near = now.saturating_sub(DRIFT)..=now + DRIFT;
        // All are looked at, so that the time it takes does not tell which it was.
        let right: Vec<u64> = near.filter(|step| code::is_same(&self.0.generate(step * STEP), &said)).collect();
        right.into_iter().find(|step| last.is_none_or(|last| last < *step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of RFC 6238's own examples.
    const SECRET: &[u8] = b"12345678901234567890";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        let generator = Generator::of(SECRET, "alice", "box").unwrap();
        // The last six digits of its table.
        for (second, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert!(generator.step_of(code, at(second), None).is_some(), "{second}");
        }
        assert_eq!(generator.step_of("28 7082", at(59), None), Some(1));
    }

    #[test]
    fn a_code_is_good_once_and_one_step_early_or_late_and_no_more() {
        let generator = Generator::of(SECRET, "alice", "box").unwrap();
        let code = |step: u64| generator.0.generate(step * STEP);
        for (step, good) in [(8, false), (9, true), (10, true), (11, true), (12, false)] {
            assert_eq!(generator.step_of(&code(step), at(300), None).is_some(), good, "{step}");
        }
        assert_eq!(generator.step_of(&code(10), at(300), Some(10)), None);
        assert_eq!(generator.step_of(&code(9), at(300), Some(10)), None);
        assert_eq!(generator.step_of(&code(11), at(300), Some(10)), Some(11));
        assert_eq!(generator.step_of("", at(300), None), None);
    }

    #[test]
    fn an_app_is_told_all_by_one_address() {
        let generator = Generator::of(SECRET, "alice", "box").unwrap();
        let uri = generator.uri();
        assert!(
            uri.starts_with("otpauth://totp/Berth%20box:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"),
            "{}",
            *uri
        );
        let (one, other) = (Generator::draw("alice", "box").unwrap(), Generator::draw("alice", "box").unwrap());
        assert!(one.secret() != other.secret() && one.typed().len() == 32);
    }
}
