//! Layers written entry by entry, so that they can be what no honest tool makes.

use tar::{EntryType, Header};

/// A tar archive in the making.
#[derive(Clone, Debug, Default)]
pub struct Layer(Vec<u8>);

impl Layer {
    /// With a program that anybody may run.
    pub fn program(self, name: &str, text: &str) -> Layer {
        self.entry(EntryType::Regular, name, "", 0o755, text.as_bytes())
    }

    /// With a file.
    pub fn file(self, name: &str, bytes: &[u8]) -> Layer {
        self.entry(EntryType::Regular, name, "", 0o644, bytes)
    }

    /// With a symbolic link.
    pub fn symlink(self, name: &str, to: &str) -> Layer {
        self.entry(EntryType::Symlink, name, to, 0o777, b"")
    }

    /// With another name of the file `of`.
    pub fn hard_link(self, name: &str, of: &str) -> Layer {
        self.entry(EntryType::Link, name, of, 0o644, b"")
    }

    /// With the node of a block device.
    pub fn device(self, name: &str) -> Layer {
        self.entry(EntryType::Block, name, "", 0o666, b"")
    }

    /// The archive.
    pub fn bytes(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }

    /// The archive, broken off in its last entry.
    pub fn broken_off(&self) -> Vec<u8> {
        self.0[..self.0.len() - 600].to_vec()
    }

    /// Names go into the header as they are: the library's own setters refuse `..`.
    fn entry(mut self, kind: EntryType, name: &str, link: &str, mode: u32, bytes: &[u8]) -> Layer {
        let mut header = Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
}
