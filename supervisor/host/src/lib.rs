//! What Linux can do, in the kernel's and systemd's own words.
//!
//! Every module wraps one thing of the machine: external programs, files, systemd, the journal,
//! links, the packet filter, registries and layers. Nothing here knows what the product is: no
//! resource, no policy, no name of ours. Callers decide, this crate does, and says what happened.

pub mod alarm;
pub mod blob;
pub mod cmd;
pub mod disk_image;
pub mod ext4;
pub mod flows;
pub mod fs;
pub mod git;
pub mod journal;
pub mod layer;
pub mod link;
pub mod loopdev;
pub mod luks;
pub mod manifest;
pub mod memory;
#[cfg(test)]
mod netns;
pub mod nft;
pub mod oci_layout;
pub mod registry;
pub mod seccomp;
pub mod systemd;
pub mod usage;
