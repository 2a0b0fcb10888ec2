//! Image references: `registry/repository[:tag][@algorithm:hex]`, by the grammar of the distribution specification.
//!
//! The crate that has the type reads text with one regular expression over all of Unicode's word characters: compiled,
//! with the caches of two threads, it held 15 MB of the supervisor for ever. So text is taken apart here; a test holds
//! both to the same answers.

use std::fmt;

use oci_spec::distribution::Reference;

use super::NameError;

/// The longest repository, as registries have it.
const REPOSITORY_LIMIT: usize = 255;
/// The longest tag (distribution specification).
const TAG_LIMIT: usize = 128;
/// The registry of a name without one, by the convention that the first container tools set.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Another name of it.
const DEFAULT_REGISTRY_OF_OLD: &str = "index.docker.io";
/// Where that registry keeps repositories whose name has one part only.
const DEFAULT_FOLDER: &str = "library";
/// The tag meant by a reference that has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Digest algorithms and how many hexadecimal digits each has (image specification).
const ALGORITHMS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// A parsed image reference: registry, repository, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference(Reference);

impl ImageReference {
    /// Registry, repository, tag and digest, with the defaults filled in.
    pub fn reference(&self) -> &Reference {
        &self.0
    }
}

impl TryFrom<&str> for ImageReference {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        let (host, rest) = match text.split_once('/') {
            _ if text.is_empty() => return Err(NameError::Empty),
            Some((host, rest)) if is_registry(host) => (host, rest),
            _ => (DEFAULT_REGISTRY, text),
        };
        let wrong = |why: &str| NameError::Image { text: text.into(), why: why.into() };
        parse(host, rest).map(Self).map_err(wrong)
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// The first part is a registry if it could not be a part of a repository's name, or is this machine.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn parse(host: &str, rest: &str) -> Result<Reference, &'static str> {
    let (name, digest) = rest.split_once('@').map_or((rest, None), |(name, digest)| (name, Some(digest)));
    let (repository, tag) = name.split_once(':').map_or((name, None), |(name, tag)| (name, Some(tag)));
    check_host(host)?;
    check_repository(repository)?;
    tag.map_or(Ok(()), check_tag)?;
    digest.map_or(Ok(()), check_digest)?;
    let (host, repository) = normal(host, repository);
    Ok(match (tag, digest) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(host, repository, tag.into(), digest.into()),
        (None, Some(digest)) => Reference::with_digest(host, repository, digest.into()),
        (tag, None) => Reference::with_tag(host, repository, tag.unwrap_or(DEFAULT_TAG).into()),
    })
}

fn normal(host: &str, repository: &str) -> (String, String) {
    let host = if host == DEFAULT_REGISTRY_OF_OLD { DEFAULT_REGISTRY } else { host };
    match host == DEFAULT_REGISTRY && !repository.contains('/') {
        true => (host.into(), format!("{DEFAULT_FOLDER}/{repository}")),
        false => (host.into(), repository.into()),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    if !name.split('.').all(label) {
        return Err("the registry is not a host name");
    }
    match port {
        Some(port) if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err("the registry's port is not a number")
        }
        _ => Ok(()),
    }
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.len() > REPOSITORY_LIMIT {
        return Err("the repository is longer than 255 characters");
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("the repository must be lower case");
    }
    match repository.split('/').all(is_component) {
        true => Ok(()),
        false => Err("the repository has a character in the wrong place"),
    }
}

/// Runs of `a-z0-9` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: char| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let joined = |joint: &str| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-');
    component.starts_with(alphanumeric)
        && component.ends_with(alphanumeric)
        && component.split(alphanumeric).all(joined)
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let good = tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    match tag.bytes().next() {
        Some(first) if good && word(first) && tag.len() <= TAG_LIMIT => Ok(()),
        _ => Err("the tag is not 1 to 128 of letters, digits, `_`, `.` and `-`"),
    }
}

fn check_digest(digest: &str) -> Result<(), &'static str> {
    let (algorithm, hex) = digest.split_once(':').ok_or("the digest has no algorithm")?;
    let known = ALGORITHMS.iter().find(|(name, _)| *name == algorithm);
    let (_, length) = known.ok_or("the digest's algorithm is not sha256, sha384 or sha512")?;
    match hex.len() == *length && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(()),
        false => Err("the digest has too few or too many hexadecimal digits"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_image_reference_knows_its_registry_repository_and_tag() {
        let image = ImageReference::try_from("registry.local:5000/web/nginx:1.27").unwrap();
        assert_eq!(image.reference().registry(), "registry.local:5000");
        assert_eq!(image.reference().repository(), "web/nginx");
        assert_eq!(image.reference().tag(), Some("1.27"));
    }

    #[test]
    fn a_bad_image_reference_is_told_the_grammar_and_which_part_breaks_it() {
        let why = |text: &str| ImageReference::try_from(text).unwrap_err().to_string();
        assert!(why("Nginx Latest").contains("registry/repository[:tag][@sha256:...]"));
        assert!(why("reg.local/Web:1").contains("(the repository must be lower case)"));
        assert!(why("reg.local/web:").contains("(the tag is not 1 to 128"));
        assert!(why("reg.local/web@sha256:12").contains("too few or too many"));
        assert!(why("reg.local/web@md5:12").contains("not sha256, sha384 or sha512"));
        assert!(why("reg.local:x/web").contains("(the registry's port is not a number)"));
        assert!(why("-a.b/web").contains("(the registry is not a host name)"));
        assert!(why("Upper/case").contains("must be lower case"));
        assert!(why("reg.local/a//b").contains("(the repository has a character in the wrong place)"));
    }

    proptest! {
        #[test]
        fn text_is_read_as_the_crate_reads_it(
            host in "((([a-zA-Z0-9-]{1,4}[.]?){1,3}|localhost|docker[.]io|index[.]docker[.]io)(:[0-9x]{0,3})?/)?",
            rest in "[a-z0-9.-]{1,5}(/[a-z0-9._/-]{1,9})?(:[a-zA-Z0-9._-]{0,5})?(@sha256:[0-9a-fA-F]{63,65}|@md5:[0-9a-f]{32})?",
        ) {
            // Capitals are for registries only, `_` for repositories only; the crate takes some names that mix them up.
            prop_assume!(is_registry(host.trim_end_matches('/')) || host == host.to_lowercase());
            let text = format!("{host}{rest}");
            let theirs = text.parse::<Reference>().ok();
            prop_assert_eq!(ImageReference::try_from(text.as_str()).ok().map(|image| image.0), theirs, "{}", text);
        }
    }
}
