//! What is said about errors.

use std::error::Error;

/// An error with all that led to it.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(one) = source {
        text = format!("{text}: {one}");
        source = one.source();
    }
    text
}

/// Says what went wrong and does not matter enough to stop.
pub fn warn(error: &dyn Error) {
    eprintln!("Berth: {}", chain(error));
}
