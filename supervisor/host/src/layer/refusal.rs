//! What is refused in a layer, and why: one list.

/// Longest name of a file, in bytes.
pub const LONGEST_NAME: usize = 255;
/// Longest path or link target, in bytes.
pub const LONGEST_PATH: usize = 4095;

/// Why an entry is refused. Nothing of the layer is kept then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `..` in a path.
    #[error("its path contains `..`")]
    Parent,
    /// A path that names nothing.
    #[error("its path is empty")]
    Empty,
    /// A zero byte in a path or link target.
    #[error("its path or target contains a zero byte")]
    Zero,
    /// A name or path longer than the kernel takes.
    #[error("its name is longer than {LONGEST_NAME} bytes or its path longer than {LONGEST_PATH}")]
    TooLong,
    /// The root of the layer as something else than a directory.
    #[error("it would replace the root directory of the layer")]
    Root,
    /// A symbolic link on the way leads out of the layer.
    #[error("its path goes through a symbolic link that leads out of the layer")]
    SymlinkEscape,
    /// Symbolic links on the way lead nowhere.
    #[error("its path goes through symbolic links that lead nowhere")]
    SymlinkLoop,
    /// Something on the way is no directory.
    #[error("its path goes through something that is not a directory")]
    ThroughFile,
    /// A hard link that leads out of the layer.
    #[error("it is a hard link to {target}, which leads out of the layer")]
    LinkEscape {
        /// As written, escaped.
        target: String,
    },
    /// A hard link to what is not there.
    #[error("it is a hard link to {target}, which is not in the layer before it")]
    LinkMissing {
        /// As written, escaped.
        target: String,
    },
    /// A hard link to a directory.
    #[error("it is a hard link to {target}, which is a directory")]
    LinkToDirectory {
        /// As written, escaped.
        target: String,
    },
    /// A symbolic link without a target.
    #[error("it is a symbolic link to nothing")]
    LinkEmpty,
    /// A device node.
    #[error("it is a device node, and images may not bring devices")]
    Device,
    /// A type of entry that means nothing here.
    #[error("its type, byte {0}, is not known")]
    Type(u8),
    /// An extended attribute that would change what the layer means, or that nobody knows.
    #[error("its extended attribute `{0}` is not allowed")]
    Xattr(String),
    /// A marker of removal that names nothing, or is no plain file.
    #[error("it is a malformed whiteout")]
    Whiteout,
    /// Too many long paths.
    #[error("the paths of the layer's directories add up to more than 256 MiB")]
    Crowded,
    /// An owner or group that no file can have.
    #[error("its owner or group is out of range")]
    Owner,
}
