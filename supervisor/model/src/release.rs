//! What a version of the machine's own system is published as: a folder with `SHA256SUMS`, a signature of it, and the
//! files that it names.
//!
//! ```text
//! berth_<version>_<uuid>.usr.raw[.xz]      /usr, into the slot that is not in use
//! berth_<version>_<uuid>.verity.raw[.xz]   its hashes
//! berth_<version>.efi                      kernel and ramdisk; with it the version is there
//! ```

use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::health::BootReport;

/// A version as its list of sums has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Which.
    pub version: Version,
    /// Its parts, in the order in which they are written: the kernel last.
    pub parts: [Part; 3],
}

/// One file of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name, without a path.
    pub name: String,
    /// Its SHA-256, in lower-case hexadecimal digits.
    pub sha256: String,
}

/// A list of sums is not that of a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// A line is none of `sha256sum`'s.
    #[error("line {0} is not a sum and a name")]
    Line(usize),
    /// It names no kernel, or several.
    #[error("it names {0} files like berth_<version>.efi and should name one")]
    Kernels(usize),
    /// What the kernel's file is called is no version.
    #[error("{0} is no version like 1.2.3")]
    Version(String),
    /// A part is not named.
    #[error("it names no berth_{version}_<uuid>.{kind}.raw or .raw.xz")]
    Missing {
        /// Of which version.
        version: String,
        /// `usr` or `verity`.
        kind: &'static str,
    },
}

/// Longest list of sums that is read, in bytes.
pub const LONGEST: usize = 64 << 10;

impl Release {
    /// From a list as `sha256sum` writes it. What it names besides is somebody else's.
    ///
    /// # Errors
    /// [`ReleaseError`]: it is not that of exactly one version.
    pub fn parse(sums: &str) -> Result<Release, ReleaseError> {
        let parts = sums.lines().enumerate().map(|(at, line)| part(line).ok_or(ReleaseError::Line(at + 1)));
        let parts = parts.collect::<Result<Vec<Part>, _>>()?;
        let versions: Vec<&str> = parts.iter().filter_map(|part| kernel_of(&part.name)).collect();
        let [version] = versions[..] else { return Err(ReleaseError::Kernels(versions.len())) };
        let number = Version::parse(version).map_err(|_| ReleaseError::Version(version.to_owned()))?;
        let slot = |kind: &'static str| {
            let missing = || ReleaseError::Missing { version: version.to_owned(), kind };
            slot(&parts, version, kind).ok_or_else(missing)
        };
        let kernel = parts.iter().find(|part| kernel_of(&part.name) == Some(version));
        let kernel = kernel.cloned().ok_or(ReleaseError::Kernels(0))?;
        Ok(Release { version: number, parts: [slot("usr")?, slot("verity")?, kernel] })
    }

    /// The kernel and ramdisk.
    pub fn kernel(&self) -> &Part {
        &self.parts[2]
    }

    /// What the signature has to say beside the sums: it is good for this version in this channel only.
    pub fn comment(&self, channel: &str) -> String {
        comment(&self.version.to_string(), channel)
    }
}

/// What is signed with a version's list of sums.
pub fn comment(version: &str, channel: &str) -> String {
    format!("berth {version} {channel}")
}

/// Of `berth_1.2.3.efi` the version.
fn kernel_of(name: &str) -> Option<&str> {
    name.strip_prefix("berth_")?.strip_suffix(".efi")
}

/// Compressed where there are both.
fn slot(parts: &[Part], version: &str, kind: &str) -> Option<Part> {
    let begins = format!("berth_{version}_");
    let named = |ends: String| {
        let mut found = parts.iter().filter(move |part| part.name.ends_with(&ends));
        found.find(|part| part.name.starts_with(&begins)).cloned()
    };
    let raw = format!(".{kind}.raw");
    [format!("{raw}.xz"), raw].into_iter().find_map(named)
}

fn part(line: &str) -> Option<Part> {
    let (sum, name) = line.split_once("  ")?;
    let is_sum = sum.len() == 64 && sum.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_name = !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte));
    (is_sum && is_name).then(|| Part { name: name.to_owned(), sha256: sum.to_owned() })
}

/// Why a version may not follow another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backwards {
    /// It is the same.
    Same,
    /// It is older.
    Older,
}

/// Whether `next` may take the place of `present`.
///
/// # Errors
/// [`Backwards`].
pub fn may_follow(present: &Version, next: &Version) -> Result<(), Backwards> {
    match next.cmp_precedence(present) {
        std::cmp::Ordering::Greater => Ok(()),
        std::cmp::Ordering::Equal => Err(Backwards::Same),
        std::cmp::Ordering::Less => Err(Backwards::Older),
    }
}

/// Which versions of its system a machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SystemStatus {
    /// The version that runs; empty if the machine's system is no image of Berth.
    pub version: String,
    /// All that the machine could start.
    pub versions: Vec<Entry>,
    /// Whether it has an address that others could reach it by.
    pub reached: bool,
    /// What the newest start came to, if it came so far as to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_start: Option<BootReport>,
}

/// A version on the ESP, as boot counting names its file: `berth_2.0.0+3-0.efi`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Entry {
    /// Which.
    pub version: String,
    /// How often it may still be tried; none when it has been found good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tries_left: Option<u32>,
}

impl Entry {
    /// From a file's name; none if it is somebody else's.
    pub fn parse(file: &str) -> Option<Entry> {
        let name = file.strip_prefix("berth_")?.strip_suffix(".efi")?;
        let Some((version, counter)) = name.split_once('+') else {
            return Some(Entry { version: name.to_owned(), tries_left: None });
        };
        let left = counter.split('-').next()?.parse().ok()?;
        Some(Entry { version: version.to_owned(), tries_left: Some(left) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn sums(names: &[&str]) -> String {
        names.iter().map(|name| format!("{SUM}  {name}\n")).collect()
    }

    const WHOLE: [&str; 4] =
        ["berth_1.2.0.efi", "berth_1.2.0.raw.xz", "berth_1.2.0_ab-cd.usr.raw.xz", "berth_1.2.0_ab-ef.verity.raw.xz"];

    #[test]
    fn a_version_is_told_from_the_names_of_its_files_and_its_kernel_is_written_last() {
        let release = Release::parse(&sums(&WHOLE)).unwrap();
        let names: Vec<&str> = release.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(release.version, Version::new(1, 2, 0));
        assert_eq!(names, [WHOLE[2], WHOLE[3], WHOLE[0]]);
        assert_eq!((release.kernel().sha256.as_str(), release.comment("stable").as_str()), (SUM, "berth 1.2.0 stable"));
        let both = Release::parse(&sums(&[&WHOLE[..], &["berth_1.2.0_ab-cd.usr.raw"]].concat())).unwrap();
        assert_eq!(both.parts[0].name, WHOLE[2]);
    }

    #[test]
    fn a_list_that_is_not_that_of_one_version_is_refused() {
        let wrong = |names: &[&str]| Release::parse(&sums(names)).unwrap_err();
        let missing = |kind| ReleaseError::Missing { version: "1.2.0".to_owned(), kind };
        assert_eq!(wrong(&[]), ReleaseError::Kernels(0));
        assert_eq!(wrong(&["berth_1.efi"]), ReleaseError::Version("1".to_owned()));
        assert_eq!(wrong(&[&WHOLE[..], &["berth_1.3.0.efi"]].concat()), ReleaseError::Kernels(2));
        assert_eq!(wrong(&WHOLE[..2]), missing("usr"));
        assert_eq!(wrong(&WHOLE[..3]), missing("verity"));
        // Another version's.
        assert_eq!(wrong(&["berth_1.2.0.efi", "berth_1.1.0_a.usr.raw"]), missing("usr"));
        for line in
            ["", "x", &format!("{SUM}  ../berth_1.2.0.efi"), &format!("{SUM}  .efi"), &format!("{SUM} a"), "zz  a"]
        {
            assert_eq!(Release::parse(&format!("{line}\n")), Err(ReleaseError::Line(1)), "{line}");
        }
    }

    #[test]
    fn only_a_newer_version_may_follow() {
        let version = |text| Version::parse(text).unwrap();
        let follows = |next| may_follow(&version("1.2.0"), &version(next));
        assert_eq!((follows("1.2.1"), follows("1.10.0")), (Ok(()), Ok(())));
        assert_eq!((follows("1.2.0"), follows("1.2.0+other")), (Err(Backwards::Same), Err(Backwards::Same)));
        assert_eq!((follows("1.1.9"), follows("1.2.0-rc.1")), (Err(Backwards::Older), Err(Backwards::Older)));
    }

    #[test]
    fn a_file_says_how_often_its_version_may_still_be_tried() {
        let entry = |file| Entry::parse(file).map(|entry| (entry.version, entry.tries_left));
        assert_eq!(entry("berth_2.0.0+3-0.efi"), Some(("2.0.0".to_owned(), Some(3))));
        assert_eq!(entry("berth_2.0.0+0-3.efi"), Some(("2.0.0".to_owned(), Some(0))));
        assert_eq!(entry("berth_2.0.0.efi"), Some(("2.0.0".to_owned(), None)));
        assert_eq!(entry("other_2.0.0.efi"), None);
        assert_eq!(entry(".#sysupdateberth_2.0.0+3-0.efi1234"), None);
    }
}
