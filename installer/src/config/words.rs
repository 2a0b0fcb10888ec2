//! Values that are one of a few words.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a disk is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Bus {
    /// NVM Express.
    Nvme,
    /// Serial ATA.
    Sata,
    /// USB: sticks, and disks in cases.
    Usb,
    /// A virtual machine's.
    Virtio,
    /// SCSI and SAS.
    Scsi,
    /// SD cards and what is soldered in.
    Mmc,
}

/// What opens the data at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Unlock {
    /// The machine's TPM, and nobody has to be there.
    Tpm,
    /// Somebody who types the recovery code.
    RecoveryCode,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Role {
    /// Everything, other owners included.
    Owner,
    /// Everything but owners: services, data, users, settings, values of secrets.
    Admin,
    /// Makes, changes and enters services; destroys no data.
    Operator,
    /// Sees services, their output and their data's names; changes nothing.
    Viewer,
    /// Sees what is there and who may do what; changes nothing.
    Auditor,
}

impl Role {
    /// How it is written, here and as the name of the Role.
    pub fn word(self) -> String {
        written(&self)
    }
}

/// What happens when all is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Action {
    /// The machine starts again, with its own system.
    #[default]
    Reboot,
    /// The machine is switched off.
    Poweroff,
}

/// How a word is written in the file.
pub(crate) fn written<T: ValueEnum>(word: &T) -> String {
    word.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
