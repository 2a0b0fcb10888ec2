//! Who a container's process is: a user as written in an image's configuration, resolved against
//! the image's own passwd and group files.
//!
//! The files belong to the image and so to nobody we trust: see `confined.rs` for how they are
//! opened; lines that are no entries are passed over.

use std::io;
use std::path::Path;

use crate::confined::{self, Found};

/// What went wrong while a user was resolved.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A file of the image cannot be read.
    #[error("reading {file} of the image")]
    Read {
        /// Path inside.
        file: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is a device, a pipe, a directory, or too large.
    #[error("{0} of the image is no regular file of at most 1 MiB")]
    Unfit(&'static str),
    /// No such name.
    #[error("the image's passwd has no user {0:?}; give a numeric id or a user of the image")]
    NoUser(String),
    /// No such name.
    #[error("the image's group file has no group {0:?}; give a numeric id or a group of the image")]
    NoGroup(String),
    /// The id lies outside of the container's range.
    #[error("id {id} is outside of the container's {size} ids")]
    OutOfRange {
        /// The id asked for.
        id: u32,
        /// How many ids the container has.
        size: u32,
    },
}

/// A resolved user, in ids as seen inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory, `/` if the image does not say.
    pub home: String,
}

/// One line of passwd.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// One line of group.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Resolves `user` in the root at `root`; ids have to be below `size`.
pub fn resolve_in(root: &Path, user: &str, size: u32) -> Result<Identity, UserError> {
    let passwd = read_inside(root, "/etc/passwd")?;
    let group = read_inside(root, "/etc/group")?;
    resolve(user, &passwd, &group, size)
}

/// Resolves `user`, `user:group` or nothing (root), by name or number.
///
/// As everywhere: a number that passwd does not know is taken as it is, with group 0; a group given
/// by hand replaces the user's groups.
fn resolve(user: &str, passwd: &str, group: &str, size: u32) -> Result<Identity, UserError> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group_name)) => (name, Some(group_name).filter(|name| !name.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let account = account_of(name, passwd)?;
    let groups: Vec<Group> = group.lines().filter_map(parse_group).collect();
    let (gid, supplementary) = match group_name {
        Some(group_name) => (gid_of(group_name, &groups)?, Vec::new()),
        None => (account.gid, groups_with(&account, &groups)),
    };
    let identity = Identity { uid: account.uid, gid, groups: supplementary, home: account.home };
    in_range(identity, size)
}

fn account_of(name: &str, passwd: &str) -> Result<Account, UserError> {
    let mut accounts = passwd.lines().filter_map(parse_account);
    let number = name.parse::<u32>().ok();
    match number {
        None => accounts.find(|account| account.name == name).ok_or_else(|| UserError::NoUser(name.to_owned())),
        Some(uid) => Ok(accounts.find(|account| account.uid == uid).unwrap_or(Account {
            name: String::new(),
            uid,
            gid: 0,
            home: "/".to_owned(),
        })),
    }
}

fn gid_of(name: &str, groups: &[Group]) -> Result<u32, UserError> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    groups
        .iter()
        .find(|group| group.name == name)
        .map(|group| group.gid)
        .ok_or_else(|| UserError::NoGroup(name.to_owned()))
}

fn groups_with(account: &Account, groups: &[Group]) -> Vec<u32> {
    let mut found: Vec<u32> = groups
        .iter()
        .filter(|group| !account.name.is_empty() && group.members.contains(&account.name))
        .map(|group| group.gid)
        .filter(|gid| *gid != account.gid)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn in_range(identity: Identity, size: u32) -> Result<Identity, UserError> {
    let all = [identity.uid, identity.gid];
    match all.iter().chain(&identity.groups).find(|id| **id >= size) {
        Some(id) => Err(UserError::OutOfRange { id: *id, size }),
        None => Ok(identity),
    }
}

fn parse_account(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields.as_slice() else {
        return None;
    };
    Some(Account {
        name: entry_name(name)?,
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: match *home {
            home if home.starts_with('/') => home.to_owned(),
            _ => "/".to_owned(),
        },
    })
}

fn parse_group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields.as_slice() else {
        return None;
    };
    Some(Group {
        name: entry_name(name)?,
        gid: gid.parse().ok()?,
        members: members.split(',').map(str::to_owned).collect(),
    })
}

fn entry_name(name: &str) -> Option<String> {
    (!name.is_empty() && !name.starts_with('#')).then(|| name.to_owned())
}

/// Reads a file of the image; a file that is not there is empty.
fn read_inside(root: &Path, file: &'static str) -> Result<String, UserError> {
    match confined::look(root, Path::new(file)) {
        Ok(Found::File(text)) => Ok(text),
        Ok(Found::Nothing) => Ok(String::new()),
        Ok(Found::Directory | Found::Unfit) => Err(UserError::Unfit(file)),
        Err(source) => Err(UserError::Read { file, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # a comment:x:1:1::/:\n\
        broken line\n\
        huge:x:99999999999:1::/:/bin/sh\n\
        negative:x:-1:0::/:/bin/sh\n\
        www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
        homeless:x:44:44::relative:/bin/sh\n\
        far:x:70000:70000::/far:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:www-data,root\nweb:x:33:\nssl:x:101:www-data\n\
        ssl-again:x:101:www-data\nbroken:x\nfar:x:70000:\n";
    const SIZE: u32 = 65536;

    fn identity(user: &str) -> Result<Identity, UserError> {
        resolve(user, PASSWD, GROUP, SIZE)
    }

    fn ids(user: &str) -> (u32, u32, Vec<u32>) {
        let found = identity(user).unwrap();
        (found.uid, found.gid, found.groups)
    }

    #[test]
    fn nothing_means_root() {
        assert_eq!(ids(""), (0, 0, vec![4]));
        assert_eq!(identity("").unwrap().home, "/root");
    }

    #[test]
    fn a_name_brings_its_groups_once_each() {
        assert_eq!(ids("www-data"), (33, 33, vec![4, 101]));
        assert_eq!(identity("www-data").unwrap().home, "/var/www");
    }

    #[test]
    fn a_known_number_is_the_same_as_its_name() {
        assert_eq!(identity("33").unwrap(), identity("www-data").unwrap());
    }

    #[test]
    fn an_unknown_number_is_taken_with_group_zero() {
        assert_eq!(ids("1234"), (1234, 0, vec![]));
        assert_eq!(identity("1234").unwrap().home, "/");
    }

    #[test]
    fn a_group_given_by_hand_replaces_all_groups() {
        assert_eq!(ids("www-data:adm"), (33, 4, vec![]));
        assert_eq!(ids("33:777"), (33, 777, vec![]));
        assert_eq!(ids(":adm"), (0, 4, vec![]));
        assert_eq!(ids("www-data:"), (33, 33, vec![4, 101]));
    }

    #[test]
    fn unknown_names_are_refused_by_name() {
        assert_eq!(
            identity("nobody-here").unwrap_err().to_string(),
            "the image's passwd has no user \"nobody-here\"; give a numeric id or a user of the image"
        );
        assert!(matches!(
            identity("root:nogroup"),
            Err(UserError::NoGroup(name)) if name == "nogroup"
        ));
    }

    #[test]
    fn lines_that_are_no_entries_are_passed_over() {
        for name in ["broken line", "huge", "negative", "# a comment", "#"] {
            assert!(matches!(identity(name), Err(UserError::NoUser(_))), "{name}");
        }
    }

    #[test]
    fn ids_beyond_the_range_are_refused() {
        for user in ["far", "65536", "4294967295", "root:far", "root:65536"] {
            assert!(matches!(identity(user), Err(UserError::OutOfRange { size: SIZE, .. })), "{user}");
        }
    }

    #[test]
    fn a_relative_home_is_not_believed() {
        assert_eq!(identity("homeless").unwrap().home, "/");
    }

    #[test]
    fn an_image_without_the_files_has_numbers_only() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(resolve_in(root.path(), "5:6", SIZE).unwrap().gid, 6);
        assert!(matches!(resolve_in(root.path(), "www-data", SIZE), Err(UserError::NoUser(_))));
    }

    #[test]
    fn files_that_are_no_files_are_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/group")).unwrap();
        assert!(matches!(resolve_in(root.path(), "", SIZE), Err(UserError::Unfit("/etc/group"))));
    }
}
