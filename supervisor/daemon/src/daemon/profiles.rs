//! System call profiles: files of this machine's administrator, read and compiled each time a service is about to start.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use berth_host::seccomp;
use berth_model::seccomp::read;
use futures_util::future::BoxFuture;
use tokio::io::AsyncReadExt;

use crate::bundle::seams::{Cause, ProfileFailure};

/// Where they lie.
pub const DIRECTORY: &str = "/etc/berth/seccomp";
/// Bytes of a file; those of other engines have some 15,000.
const LARGEST: u64 = 1 << 20;

/// The filter of the profile `name`, which is a DNS label.
pub fn filter<'a>(directory: &'a Path, name: &'a str) -> BoxFuture<'a, Result<Vec<u64>, ProfileFailure>> {
    let path = directory.join(format!("{name}.json"));
    Box::pin(async move {
        match text(&path).await {
            Ok(text) => compiled(text).await.map_err(|source| ProfileFailure::Unusable { path, source }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(ProfileFailure::Absent(path)),
            Err(error) => Err(ProfileFailure::Unusable { path, source: error.into() }),
        }
    })
}

async fn text(path: &PathBuf) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    tokio::fs::File::open(path).await?.take(LARGEST + 1).read_to_end(&mut text).await?;
    match text.len() as u64 > LARGEST {
        true => Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {LARGEST} bytes"))),
        false => Ok(text),
    }
}

/// Not in the middle of other work: a long profile keeps a processor for some milliseconds.
async fn compiled(text: Vec<u8>) -> Result<Vec<u64>, Cause> {
    tokio::task::spawn_blocking(move || Ok(seccomp::compile(&read(&text)?)?)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(text: Option<&str>) -> String {
        let directory = tempfile::tempdir().unwrap();
        if let Some(text) = text {
            std::fs::write(directory.path().join("strict.json"), text).unwrap();
        }
        match filter(directory.path(), "strict").await {
            Ok(filter) => format!("a filter: {}", !filter.is_empty()),
            Err(error) => {
                crate::log::chain(&error).replace(&directory.path().display().to_string(), "/etc/berth/seccomp")
            }
        }
    }

    #[tokio::test]
    async fn a_profile_is_found_under_its_name_and_what_is_wrong_with_it_is_told() {
        let rule = r#"{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO"}"#;
        let profile = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#);
        assert_eq!(told(Some(&profile)).await, "a filter: true");
        assert_eq!(told(None).await, "this machine has no system call profile /etc/berth/seccomp/strict.json");
        assert_eq!(
            told(Some(&profile.replace("mkdirat", "mkdirrat"))).await,
            "the system call profile /etc/berth/seccomp/strict.json cannot be used: there is no system call `mkdirrat`"
        );
        let malformed = told(Some("{}")).await;
        assert!(malformed.contains("it is not a profile in OCI's form: missing field `defaultAction`"), "{malformed}");
        let large = told(Some(&" ".repeat(1 << 21))).await;
        assert!(large.ends_with("it has more than 1048576 bytes"), "{large}");
    }
}
