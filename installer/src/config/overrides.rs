//! What is said at the start instead of in the file: flags over environment over file over defaults.
//!
//! Secrets are never values of flags or variables, which others on the machine can see, but files.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::{
    Action, After, Bus, Config, Disk, DiskId, Encryption, Fault, HostAddress, Hostname, InterfaceAddress,
    InterfaceName, Keymap, MacAddress, Network, Notify, PasswordHash, Profile, Role, Secret, Size, Ssh, SshKey,
    Timezone, Unlock, Updates, User, UserName, Vlan, WebAddress, rules,
};

/// Keys of `berth.toml` as flags and as variables `BERTH_INSTALLER_*`.
#[derive(Clone, Debug, Default, Args)]
pub struct Overrides {
    /// How the machine is called.
    #[arg(long, env = "BERTH_INSTALLER_HOSTNAME")]
    pub hostname: Option<Hostname>,
    /// Where its clock hangs, e.g. Europe/Berlin.
    #[arg(long, env = "BERTH_INSTALLER_TIMEZONE")]
    pub timezone: Option<Timezone>,
    /// The keymap of its console.
    #[arg(long, env = "BERTH_INSTALLER_KEYBOARD")]
    pub keyboard: Option<Keymap>,
    /// What the machine is for.
    #[arg(long, env = "BERTH_INSTALLER_PROFILE")]
    pub profile: Option<Profile>,
    /// The disk to install onto, by a name below /dev/disk.
    #[arg(long, env = "BERTH_INSTALLER_DISK_ID")]
    pub disk_id: Option<DiskId>,
    /// The disk to install onto, by its serial number.
    #[arg(long, env = "BERTH_INSTALLER_DISK_SERIAL")]
    pub disk_serial: Option<String>,
    /// The disk to install onto, by how it is connected.
    #[arg(long, env = "BERTH_INSTALLER_DISK_BUS")]
    pub disk_bus: Option<Bus>,
    /// The least that the disk holds, e.g. 100G.
    #[arg(long, env = "BERTH_INSTALLER_DISK_MIN_SIZE")]
    pub disk_min_size: Option<Size>,
    /// The most that the disk holds.
    #[arg(long, env = "BERTH_INSTALLER_DISK_MAX_SIZE")]
    pub disk_max_size: Option<Size>,
    /// Destroy what is on the disk.
    #[arg(long, env = "BERTH_INSTALLER_ERASE", num_args = 0..=1, default_missing_value = "true")]
    pub erase: Option<bool>,
    /// Interface to the network, by its name or a pattern.
    #[arg(long, env = "BERTH_INSTALLER_INTERFACE")]
    pub interface: Option<InterfaceName>,
    /// Interface to the network, by its hardware address.
    #[arg(long, env = "BERTH_INSTALLER_MAC")]
    pub mac: Option<MacAddress>,
    /// Addresses of the interface, e.g. 192.0.2.5/24; without any, DHCP.
    #[arg(long, env = "BERTH_INSTALLER_ADDRESS", value_delimiter = ',')]
    pub address: Vec<InterfaceAddress>,
    /// Where everything goes that is not on the same network.
    #[arg(long, env = "BERTH_INSTALLER_GATEWAY", value_delimiter = ',')]
    pub gateway: Vec<HostAddress>,
    /// Who knows names.
    #[arg(long, env = "BERTH_INSTALLER_DNS", value_delimiter = ',')]
    pub dns: Vec<HostAddress>,
    /// Number of the VLAN.
    #[arg(long, env = "BERTH_INSTALLER_VLAN")]
    pub vlan: Option<Vlan>,
    /// What opens the data at a start.
    #[arg(long, env = "BERTH_INSTALLER_UNLOCK")]
    pub unlock: Option<Unlock>,
    /// File with public keys for root's SSH, one a line.
    #[arg(long, env = "BERTH_INSTALLER_SSH_KEYS_FILE", value_name = "FILE")]
    pub ssh_keys_file: Option<PathBuf>,
    /// The first owner, with one of the next two.
    #[arg(long, env = "BERTH_INSTALLER_OWNER", value_name = "NAME")]
    pub owner: Option<UserName>,
    /// File with the owner's password as an Argon2id hash.
    #[arg(long, env = "BERTH_INSTALLER_PASSWORD_HASH_FILE", value_name = "FILE", conflicts_with = "password_file")]
    pub password_hash_file: Option<PathBuf>,
    /// File with the owner's password.
    #[arg(long, env = "BERTH_INSTALLER_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Where new versions come from.
    #[arg(long, env = "BERTH_INSTALLER_UPDATE_SOURCE", value_name = "URL")]
    pub update_source: Option<WebAddress>,
    /// Which of them.
    #[arg(long, env = "BERTH_INSTALLER_UPDATE_CHANNEL", value_name = "CHANNEL")]
    pub update_channel: Option<String>,
    /// Where the report is sent.
    #[arg(long, env = "BERTH_INSTALLER_NOTIFY_URL", value_name = "URL")]
    pub notify_url: Option<WebAddress>,
    /// File with the secret that the report is signed with.
    #[arg(long, env = "BERTH_INSTALLER_NOTIFY_SECRET_FILE", value_name = "FILE")]
    pub notify_secret_file: Option<PathBuf>,
    /// What happens when all is done.
    #[arg(long, env = "BERTH_INSTALLER_AFTER")]
    pub after: Option<Action>,
}

impl Overrides {
    /// Puts what was said at the start over what a file says. Reads the files that were named.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else, or what does not go together; each by its flag or key.
    pub fn over(self, mut config: Config) -> Result<Config, Vec<Fault>> {
        let mut faults = Vec::new();
        self.machine(&mut config);
        self.disk(&mut config);
        self.network(&mut config);
        faults.extend(self.ssh(&mut config).err());
        faults.extend(self.owner(&mut config).err());
        faults.extend(self.notify(&mut config).err());
        if faults.is_empty() {
            let broken = rules::broken(&config).into_iter();
            faults
                .extend(broken.map(|(path, message)| Fault::elsewhere("with the flags and variables", path, message)));
        }
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    fn machine(&self, config: &mut Config) {
        replace(&mut config.hostname, &self.hostname);
        replace(&mut config.timezone, &self.timezone);
        replace(&mut config.keyboard, &self.keyboard);
        replace(&mut config.profile, &self.profile);
        replace(&mut config.after, &self.after.map(|action| After { action }));
        replace(&mut config.encryption, &self.unlock.map(|unlock| Encryption { unlock: Some(unlock) }));
        if self.update_source.is_some() || self.update_channel.is_some() {
            let updates = config.updates.get_or_insert_with(Updates::default);
            replace(&mut updates.source, &self.update_source);
            replace(&mut updates.channel, &self.update_channel);
        }
    }

    fn disk(&self, config: &mut Config) {
        let erase = self.erase;
        let said = Disk {
            id: self.disk_id.clone(),
            serial: self.disk_serial.clone(),
            bus: self.disk_bus,
            min_size: self.disk_min_size,
            max_size: self.disk_max_size,
            erase: false,
        };
        if !said.selects() && erase.is_none() {
            return;
        }
        let disk = config.disk.get_or_insert_with(Disk::default);
        replace(&mut disk.id, &said.id);
        replace(&mut disk.serial, &said.serial);
        replace(&mut disk.bus, &said.bus);
        replace(&mut disk.min_size, &said.min_size);
        replace(&mut disk.max_size, &said.max_size);
        disk.erase = erase.unwrap_or(disk.erase);
    }

    /// An interface that is named here takes the place of the one in the file, however that is named.
    fn network(&self, config: &mut Config) {
        let lists = [self.address.len(), self.gateway.len(), self.dns.len()];
        let named = self.interface.is_some() || self.mac.is_some();
        if !named && self.vlan.is_none() && lists == [0; 3] {
            return;
        }
        let network = config.network.get_or_insert_with(Network::default);
        if named {
            network.interface.clone_from(&self.interface);
            network.mac.clone_from(&self.mac);
        }
        replace(&mut network.vlan, &self.vlan);
        replace_all(&mut network.address, &self.address);
        replace_all(&mut network.gateway, &self.gateway);
        replace_all(&mut network.dns, &self.dns);
    }

    fn ssh(&self, config: &mut Config) -> Result<(), Fault> {
        let Some(path) = &self.ssh_keys_file else { return Ok(()) };
        let flag = "--ssh-keys-file";
        let text = content(flag, path)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Result<Vec<SshKey>, String> = lines.map(str::parse).collect();
        let keys =
            keys.map_err(|wrong| Fault::elsewhere(flag, path.display().to_string(), format!("a line {wrong}")))?;
        config.ssh = Some(Ssh { keys });
        Ok(())
    }

    /// The owner takes the place of the first user.
    fn owner(&self, config: &mut Config) -> Result<(), Fault> {
        let password_hash = self.password_hash_file.as_deref().map(hash_in).transpose()?;
        let password = self.password_file.as_deref().map(|path| content("--password-file", path)).transpose()?;
        let Some(name) = self.owner.clone().or_else(|| config.users.first().map(|user| user.name.clone())) else {
            let said = password_hash.is_some() || password.is_some();
            let message = "a password was given and nobody whose it is; add `--owner NAME`";
            return if said { Err(Fault::elsewhere("--owner", "", message)) } else { Ok(()) };
        };
        if self.owner.is_none() && password_hash.is_none() && password.is_none() {
            return Ok(());
        }
        let user = User { name, role: Role::Owner, password_hash, password: password.map(Secret::new) };
        match config.users.first_mut() {
            Some(first) if user.password.is_none() && user.password_hash.is_none() => first.name = user.name,
            Some(first) => *first = user,
            None => config.users.push(user),
        }
        Ok(())
    }

    fn notify(&self, config: &mut Config) -> Result<(), Fault> {
        let secret =
            self.notify_secret_file.as_deref().map(|path| content("--notify-secret-file", path)).transpose()?;
        let before = config.notify.take();
        let url = self.notify_url.clone().or_else(|| before.as_ref().map(|notify| notify.url.clone()));
        let secret = secret.map(Secret::new).or_else(|| before.map(|notify| notify.secret));
        config.notify = match (url, secret) {
            (Some(url), Some(secret)) => Some(Notify { url, secret }),
            (None, None) => None,
            (Some(_), None) => {
                let message = "nothing to sign the report with; add `--notify-secret-file FILE`";
                return Err(Fault::elsewhere("--notify-url", "", message));
            }
            (None, Some(_)) => {
                let message = "nobody to send the report to; add `--notify-url URL`";
                return Err(Fault::elsewhere("--notify-secret-file", "", message));
            }
        };
        Ok(())
    }
}

fn replace<T: Clone>(place: &mut Option<T>, said: &Option<T>) {
    if said.is_some() {
        place.clone_from(said);
    }
}

fn replace_all<T: Clone>(place: &mut Vec<T>, said: &[T]) {
    if !said.is_empty() {
        *place = said.to_vec();
    }
}

fn hash_in(path: &Path) -> Result<PasswordHash, Fault> {
    let flag = "--password-hash-file";
    let hash = PasswordHash::try_from(content(flag, path)?);
    hash.map_err(|wrong| Fault::elsewhere(flag, path.display().to_string(), format!("what is in it {wrong}")))
}

/// What is in a file, without the end of its last line.
fn content(flag: &str, path: &Path) -> Result<Zeroizing<String>, Fault> {
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        let message = format!("cannot be read: {error}; name a file of text that this user may read");
        Fault::elsewhere(flag, path.display().to_string(), message)
    })?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        overrides: Overrides,
    }

    fn said(flags: &[&str]) -> Overrides {
        Arguments::try_parse_from([&["berth-installer"], flags].concat()).unwrap().overrides
    }

    fn file(text: &str) -> Config {
        Config::parse(&format!("version = 1\n{text}"), "berth.toml").unwrap()
    }

    fn wrong(flags: &[&str], config: Config) -> String {
        said(flags).over(config).unwrap_err()[0].to_string()
    }

    #[test]
    fn what_is_said_at_the_start_goes_over_the_file_and_the_rest_of_the_file_stays() {
        let text =
            "hostname = 'attic'\ntimezone = 'UTC'\n[disk]\nserial = 'A'\nerase = true\n[updates]\nchannel = 'testing'";
        let flags =
            ["--hostname", "cellar", "--disk-bus", "nvme", "--erase=false", "--unlock", "tpm", "--after", "poweroff"];
        let config = said(&flags).over(file(text)).unwrap();
        let expected = "hostname = 'cellar'\ntimezone = 'UTC'\n[disk]\nserial = 'A'\nbus = 'nvme'\n[updates]\nchannel = 'testing'\n\
                        [encryption]\nunlock = 'tpm'\n[after]\naction = 'poweroff'";
        assert_eq!(config, file(expected));
        assert_eq!(said(&[]).over(file(text)), Ok(file(text)));
        assert!(said(&["--erase"]).over(file(text)).unwrap().disk.unwrap().erase);
    }

    #[test]
    fn every_flag_has_a_variable_with_its_name_and_no_secret_is_a_value() {
        use clap::CommandFactory;
        let command = Arguments::command();
        let flags: Vec<_> = command.get_arguments().filter_map(|flag| Some((flag.get_long()?, flag))).collect();
        for (long, flag) in flags.into_iter().filter(|(long, _)| !["help", "version"].contains(long)) {
            let expected = format!("BERTH_INSTALLER_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(flag.get_env().unwrap().to_string_lossy(), expected);
            let secret = ["password", "secret"].iter().any(|word| long.contains(word));
            assert!(!secret || long.ends_with("-file"), "{long}");
        }
    }

    #[test]
    fn an_interface_that_is_named_takes_the_place_of_the_one_in_the_file() {
        let text = "[network]\ninterface = 'enp*'\naddress = ['192.0.2.5/24']";
        let flags = ["--mac", "52:54:00:12:34:56", "--address", "192.0.2.6/24,2001:db8::6/64"];
        let network = said(&flags).over(file(text)).unwrap().network.unwrap();
        assert_eq!((network.interface, network.address.len()), (None, 2));
    }

    #[test]
    fn secrets_come_from_files_and_the_owner_takes_the_place_of_the_first_user() {
        let folder = tempfile::tempdir().unwrap();
        let written = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let password = written("password", "correct horse battery\n");
        let text = "[[users]]\nname = 'alex'\nrole = 'owner'\npassword = 'another long one'";
        let users = said(&["--owner", "sam", "--password-file", &password]).over(file(text)).unwrap().users;
        assert_eq!((users.len(), users[0].name.as_str()), (1, "sam"));
        assert_eq!(users[0].password.as_ref().map(Secret::reveal), Some("correct horse battery"));
        let renamed = said(&["--owner", "sam"]).over(file(text)).unwrap().users;
        assert_eq!(renamed[0].password.as_ref().map(Secret::reveal), Some("another long one"));
        let secret = written("secret", "0123456789abcdef");
        let notify =
            said(&["--notify-url", "https://example.org/", "--notify-secret-file", &secret]).over(file("")).unwrap();
        assert_eq!(notify.notify.unwrap().secret.reveal(), "0123456789abcdef");
        let keys = written("keys", "# mine\n\nnot a key\n");
        assert!(wrong(&["--ssh-keys-file", &keys], file("")).starts_with("--ssh-keys-file: "));
        let hash = wrong(&["--owner", "sam", "--password-hash-file", &password], file(""));
        assert!(hash.contains("no Argon2id hash") && !hash.contains("horse"), "{hash}");
    }

    #[test]
    fn what_does_not_go_together_is_told_by_flag_or_key() {
        assert!(wrong(&["--erase"], file("")).starts_with("with the flags and variables: disk: says no disk"));
        assert!(
            wrong(&["--password-file", "/nosuch/file"], file(""))
                .starts_with("--password-file: /nosuch/file: cannot be read")
        );
        assert!(wrong(&["--notify-url", "https://example.org"], file("")).contains("--notify-secret-file FILE"));
        assert!(wrong(&["--owner", "sam"], file("")).contains("users[0]: has no way in"));
    }
}
