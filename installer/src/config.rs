//! `berth.toml`: what a machine is to become, as somebody wrote it before there was anybody to ask.
//!
//! ```text
//!  text --source--> tree with places --schema--> unknown keys, kinds of values, choices
//!                        |                             (each fault takes its key out of the tree)
//!                        +--serde--> Config --rules--> what must hold between keys
//! ```
//!
//! Every value has a type that can hold nothing wrong, so that whoever is given a [`Config`] need not look again. Nothing
//! here asks the machine: whether a disk is there or a keymap is known is for whoever installs.

mod fault;
mod overrides;
mod password;
mod profile;
mod rules;
mod schema;
mod secret;
mod source;
mod values;
mod words;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use fault::Fault;
pub use overrides::Overrides;
pub use password::{PasswordError, hashed, weakness};
pub use profile::{Minimum, Profile};
pub use schema::schema;
use schemars::JsonSchema;
pub use secret::{HIDDEN, PasswordHash, Secret};
use serde::{Deserialize, Serialize};
pub use values::{
    DiskId, FileName, HostAddress, Hostname, InterfaceAddress, InterfaceName, Keymap, MacAddress, NamespaceName, Size,
    SshKey, Timezone, UserName, Version, Vlan, WebAddress,
};
pub(crate) use words::written as word;
pub use words::{Action, Bus, Role, Unlock};
use zeroize::Zeroizing;

/// What a machine is to become. Only `version` must be there: what is left out has its default or is asked for later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The form of this file: 1.
    pub version: Version,
    /// How the machine is called: letters, digits and `-`. Not there: the name that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// Where its clock hangs: a name of the IANA database, e.g. `Europe/Berlin`. Not there: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<Timezone>,
    /// The keymap of its console, e.g. `de` or `us`. Not there: `us`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyboard: Option<Keymap>,
    /// What the machine is for, which decides what of Settings begins differently. Not there: `solo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// The disk to install onto. Not there: the machine that was started is set up where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// How the machine reaches its neighbours. Not there: DHCP on every wired interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What opens the data at a start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Who gets in by SSH. Not there: there is no SSH server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<Ssh>,
    /// Spec of the Settings object: what is written here is merged into what the profile sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub settings: Option<toml::Table>,
    /// New versions of the machine's own system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<Updates>,
    /// Who is told how it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// What happens when all is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<After>,
    /// People who have an account, the first of them an owner. Nobody: the machine waits to be claimed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<User>,
    /// What is installed at the first start, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<Bundle>,
}

/// Which disk, and whether it may be erased. All that is said must hold, of exactly one disk, and something must be said
/// that selects one; else nothing is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// A name that it has below `/dev/disk/`, e.g. `/dev/disk/by-id/nvme-Example_1TB_S1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<DiskId>,
    /// Its serial number, as its maker wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub serial: Option<String>,
    /// How it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<Bus>,
    /// The least that it holds: bytes, or e.g. `100G` (thousands) or `100Gi` (1024).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<Size>,
    /// The most that it holds, in the same words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Size>,
    /// Whether what is on it may be destroyed. Without it, only a blank disk is taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erase: bool,
}

impl Disk {
    /// Whether anything is said that selects a disk.
    pub fn selects(&self) -> bool {
        self.id.is_some()
            || self.serial.is_some()
            || self.bus.is_some()
            || self.min_size.is_some()
            || self.max_size.is_some()
    }
}

/// How the machine reaches its neighbours. With addresses it has these, without any it asks by DHCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// Name of the interface, where `*` and `?` stand for any letters and for one: `enp*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceName>,
    /// Its hardware address instead, e.g. `52:54:00:12:34:56`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Its addresses with the lengths of their prefixes, e.g. `192.0.2.5/24`. None: DHCP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<InterfaceAddress>,
    /// Where everything goes that is not on the same network: one address of IPv4, one of IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateway: Vec<HostAddress>,
    /// Who knows names. None: those that DHCP names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<HostAddress>,
    /// Number of the VLAN that all of this is about, 1 to 4094.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
}

/// What opens the data at a start. A recovery code opens it in any case and is shown once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Encryption {
    /// Not there: the TPM where the machine has one, else the recovery code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock: Option<Unlock>,
}

/// Who gets in by SSH.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ssh {
    /// Public keys that root may come with, each as in a `.pub` file. None: there is no SSH server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<SshKey>,
}

/// Somebody who has an account, with a password or the hash of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// How he logs in.
    pub name: UserName,
    /// What he may do.
    pub role: Role,
    /// Argon2id hash of his password as a PHC string: `$argon2id$v=19$m=19456,t=2,p=1$...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<PasswordHash>,
    /// The password itself. Whoever reads this file knows it then: give its hash instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

/// What is installed at the first start, from one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bundle {
    /// Where it is installed.
    #[serde(default, skip_serializing_if = "NamespaceName::is_default")]
    pub namespace: NamespaceName,
    /// The objects themselves, as YAML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub manifest: Option<String>,
    /// Name of a file with them, beside this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileName>,
}

/// New versions of the machine's own system, in the words of Settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Updates {
    /// URL of a folder with a folder for each channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<WebAddress>,
    /// Which of these, e.g. `stable` or `testing`. Not there: `stable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub channel: Option<String>,
    /// Seconds that a new version may take until everything serves that should. Not there: 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30, max = 3600))]
    pub health_timeout_seconds: Option<u32>,
}

/// Who is told how it went: the report is sent there by POST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Notify {
    /// Where to.
    pub url: WebAddress,
    /// What the report is signed with: `X-Berth-Signature: sha256=` and the HMAC of the body in hexadecimal digits.
    pub secret: Secret,
}

/// What happens when all is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct After {
    /// Not there: `reboot`.
    #[serde(default)]
    pub action: Action,
}

impl Config {
    /// One in which nothing is said.
    pub fn new() -> Self {
        Self {
            version: Version,
            hostname: None,
            timezone: None,
            keyboard: None,
            profile: None,
            disk: None,
            network: None,
            encryption: None,
            ssh: None,
            settings: None,
            updates: None,
            notify: None,
            after: None,
            users: Vec::new(),
            bundles: Vec::new(),
        }
    }

    /// Reads one. `name` is what the file is called where faults are told.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of the file, each with its place.
    pub fn parse(text: &str, name: &str) -> Result<Self, Vec<Fault>> {
        source::parse(text, name)
    }

    /// Whether all of it goes together: for one that was put together and not read.
    ///
    /// # Errors
    /// Each rule that is broken, by its key.
    pub fn checked(&self) -> Result<(), Vec<Fault>> {
        let broken = rules::broken(self).into_iter();
        let faults: Vec<Fault> = broken.map(|(path, message)| Fault::elsewhere("", path, message)).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// What is allowed and still better otherwise, with its place in the text that this was read from.
    pub fn warnings(&self, text: &str, name: &str) -> Vec<Fault> {
        source::placed(text, name, rules::warnings(self))
    }

    /// Files that are named and are not there, `folder` being where this was read from.
    pub fn missing_files(&self, folder: &Path, text: &str, name: &str) -> Vec<Fault> {
        let named = self.bundles.iter().enumerate().filter_map(|(at, bundle)| Some((at, bundle.file.as_ref()?)));
        let missing = named.filter(|(_, file)| !folder.join(file.as_str()).is_file());
        let said = missing.map(|(at, file)| {
            (
                format!("bundles[{at}].file"),
                format!("there is no file `{file}` beside this one; put it there or write `manifest`"),
            )
        });
        source::placed(text, name, said.collect())
    }

    /// As a file that reads the same, secrets included.
    ///
    /// # Errors
    /// Nothing that was read can fail; settings that were put together by hand could.
    pub fn to_toml(&self) -> Result<Zeroizing<String>, toml::ser::Error> {
        toml::to_string_pretty(self).map(Zeroizing::new)
    }

    /// The same with [`HIDDEN`] in the place of each secret, to be shown; it is no file that could be read again.
    #[must_use]
    pub fn hidden(&self) -> Self {
        let mut shown = self.clone();
        for user in &mut shown.users {
            user.password = user.password.as_ref().map(|_| Secret::hidden());
            user.password_hash = user.password_hash.as_ref().map(|_| PasswordHash::hidden());
        }
        if let Some(notify) = &mut shown.notify {
            notify.secret = Secret::hidden();
        }
        shown
    }

    /// The profile, said or not.
    pub fn profile(&self) -> Profile {
        self.profile.unwrap_or_default()
    }

    /// What happens when all is done, said or not.
    pub fn action(&self) -> Action {
        self.after.unwrap_or_default().action
    }

    /// What to merge into the spec of Settings: what the profile sets, over it `[updates]`, over that `[settings]`.
    pub fn settings_patch(&self) -> serde_json::Value {
        profile::merged(self)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}
