//! How fast this machine is: the seconds its last boot of a guest took, and time limits as multiples of them.
//!
//! Limits only end what hangs. No test asserts on a duration.

use std::fs;
use std::time::Duration;

use crate::cache;

/// A machine that boots quickly alone is slower as one of two.
const FLOOR: f64 = 60.0;
const UNKNOWN: f64 = 150.0;

/// The measured boot, in seconds; generous where none was measured yet.
pub fn boot_seconds() -> f64 {
    let kept = cache::folder().ok().and_then(|folder| fs::read_to_string(folder.join("boot-seconds")).ok());
    kept.and_then(|text| text.trim().parse().ok()).unwrap_or(UNKNOWN)
}

/// So many boots' time, for something that should take far less.
pub fn boots(times: f64) -> Duration {
    Duration::from_secs_f64(boot_seconds().max(FLOOR) * times)
}

/// Remembers a boot; a slower one counts at once, faster ones bit by bit.
pub fn remember_boot(took: Duration) -> Result<(), cache::CacheError> {
    let (old, new) = (boot_seconds(), took.as_secs_f64());
    let kept = if (old - UNKNOWN).abs() < f64::EPSILON || new > old { new } else { old * 0.7 + new * 0.3 };
    let path = cache::folder()?.join("boot-seconds");
    cache::at(&path, fs::write(&path, format!("{kept:.1}\n")))
}
