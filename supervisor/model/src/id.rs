//! Names: what text may stand for a namespace, a bundle, an image.

mod image;

pub use image::ImageReference;

/// Why a text is not the name it should be. The message says what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No text at all.
    #[error("must not be empty")]
    Empty,
    /// Longer than the rule allows.
    #[error("`{text}` has {length} characters; at most {limit} are allowed")]
    TooLong {
        /// How it begins.
        text: String,
        /// Its length.
        length: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// A character in the wrong place.
    #[error(
        "`{text}` is not a DNS label: use lower-case letters, digits and `-`, \
         with a letter or digit at both ends"
    )]
    Label {
        /// What was given.
        text: String,
    },
    /// A character in the wrong place.
    #[error(
        "`{text}` is not a DNS name: use lower-case letters, digits, `-` and `.`, \
         with a letter or digit at both ends of each part"
    )]
    Subdomain {
        /// What was given.
        text: String,
    },
    /// Not an image reference.
    #[error(
        "`{text}` is not an image reference ({why}): expected \
         `registry/repository[:tag][@sha256:...]`"
    )]
    Image {
        /// What was given.
        text: String,
        /// Which part of the grammar it breaks.
        why: String,
    },
}

/// Characters of a text that is far too long that are told of it.
const SHOWN: usize = 64;

/// Checks a DNS label (RFC 1123): 1 to 63 of `a-z0-9-`, letter or digit at both ends.
pub fn dns_label(text: &str) -> Result<(), NameError> {
    limited(text, 63)?;
    if is_label(text) { Ok(()) } else { Err(NameError::Label { text: text.into() }) }
}

/// Checks a DNS name (RFC 1123): labels joined by dots, 253 characters at most.
pub fn dns_subdomain(text: &str) -> Result<(), NameError> {
    limited(text, 253)?;
    if text.split('.').all(is_label) { Ok(()) } else { Err(NameError::Subdomain { text: text.into() }) }
}

fn limited(text: &str, limit: usize) -> Result<(), NameError> {
    match text.chars().count() {
        0 => Err(NameError::Empty),
        length if length > limit => Err(NameError::TooLong { text: beginning(text), length, limit }),
        _ => Ok(()),
    }
}

/// As much of a text as is told of it.
fn beginning(text: &str) -> String {
    text.chars().take(SHOWN).chain("...".chars()).collect()
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_short_lower_case_and_begins_and_ends_with_a_letter_or_digit() {
        for good in ["a", "web", "web-1", "0", &"x".repeat(63)] {
            assert_eq!(dns_label(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", "a b", &"x".repeat(64)] {
            assert!(dns_label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_name_is_told_what_would_be_right() {
        let error = dns_label("My_Web").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`My_Web` is not a DNS label: use lower-case letters, digits and `-`, \
             with a letter or digit at both ends"
        );
    }

    #[test]
    fn a_subdomain_is_labels_joined_by_dots() {
        assert_eq!(dns_subdomain("web.17af-3.x"), Ok(()));
        for bad in ["a..b", ".a", "a.", "a.-b"] {
            assert!(dns_subdomain(bad).is_err(), "{bad}");
        }
    }
}
