//! Volume: a disk of a bundle's, encrypted, with a life of its own.
//!
//! It is named `<bundle>-<volume>`, belongs to no other object, and so outlives the bundle: a bundle
//! of the same name finds it again. Its file, its device and its key go by its uid, so it can follow its bundle to
//! another name.
//!
//! ```text
//!  (asked for) --> Creating --> Ready <--> Growing
//!                                 |  ^
//!                        lock     v  |  unlock
//!                               Locked          Ready, Locked, Damaged --> Erasing --> (gone)
//!  what is found is not what it should be: Damaged, until it is found in order again
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

crate::resource::object! {
    /// A disk of a bundle's.
    Volume, "volumes", VolumeSpec, VolumeStatus
}

/// Whose it is. Changes only when the bundle gets another name, and the volume with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// Name of the bundle.
    pub bundle: String,
    /// Its name within the bundle.
    pub volume: String,
}

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeStatus {
    /// One word.
    pub state: VolumeState,
    /// Bytes it has, or is to have once it is made.
    pub size: u64,
    /// Bytes it is growing to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<u64>,
    /// The step that an interrupted creation, growth or erasure goes on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What is wrong with it, and what to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One word for how a volume stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeState {
    /// Its key, its file or its filesystem are not made yet.
    #[default]
    Creating,
    /// It can be used.
    Ready,
    /// It is getting more room, and can be used meanwhile.
    Growing,
    /// Its key is being destroyed; there is no way back.
    Erasing,
    /// Closed until it is unlocked.
    Locked,
    /// It was found to be something else than it should; nothing was changed.
    Damaged,
}

impl VolumeState {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Ready => "Ready",
            Self::Growing => "Growing",
            Self::Erasing => "Erasing",
            Self::Locked => "Locked",
            Self::Damaged => "Damaged",
        }
    }
}

/// Name of the Volume of a bundle's volume.
pub fn volume_name(bundle: &str, volume: &str) -> String {
    format!("{bundle}-{volume}")
}

/// Where the open device of a volume is.
pub fn device_path(uid: &str) -> String {
    format!("/dev/mapper/{}", device_name(uid))
}

/// The name of the open device of a volume.
pub fn device_name(uid: &str) -> String {
    format!("berth-{uid}")
}
