//! Layers of every legal and hostile kind, unpacked for real. Needs root: owners, whiteouts and
//! the overlay's own attributes cannot be made without.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink};
use std::process::Stdio;

use super::*;
use crate::blob::{parse_digest, sha256};
use crate::layer::merged::{Found, Program, find, find_program};
use crate::layer::refusal::Refusal;

/// A tar archive written byte by byte, so that it can say anything.
#[derive(Default, Clone)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: u8, name: &[u8], link: &[u8], mode: u32, body: &[u8]) -> Self {
        self.header(kind, name, link, mode, (1000, 100), body.len() as u64);
        self.body(body);
        self
    }

    fn header(&mut self, kind: u8, name: &[u8], link: &[u8], mode: u32, owner: (u64, u64), size: u64) {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..link.len()].copy_from_slice(link);
        old.linkflag = [kind];
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_500_000_000);
        header.set_size(size);
        header.set_cksum();
        self.0.extend(header.as_bytes());
    }

    fn body(&mut self, body: &[u8]) {
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn file(self, name: &str, body: &str) -> Self {
        self.entry(b'0', name.as_bytes(), b"", 0o644, body.as_bytes())
    }

    fn program(self, name: &str) -> Self {
        self.entry(b'0', name.as_bytes(), b"", 0o755, b"#!/bin/sh\n")
    }

    fn dir(self, name: &str) -> Self {
        self.entry(b'5', name.as_bytes(), b"", 0o755, b"")
    }

    fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(b'2', name.as_bytes(), to.as_bytes(), 0o777, b"")
    }

    fn hard_link(self, name: &str, to: &str) -> Self {
        self.entry(b'1', name.as_bytes(), to.as_bytes(), 0o644, b"")
    }

    /// Records for the entry after this.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend(format!("{length} {key}=").bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry(b'x', b"pax", b"", 0o644, &body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    store: LayerStore,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(dir.path()).unwrap();
        Self { dir, store }
    }

    fn unpack(&self, tar: Tar) -> Result<PathBuf, LayerError> {
        self.unpack_bytes(&tar.end())
    }

    fn unpack_bytes(&self, bytes: &[u8]) -> Result<PathBuf, LayerError> {
        let diff_id = parse_digest(&sha256(bytes)).unwrap();
        self.store.unpack(bytes, &diff_id, &Limits::default())?;
        Ok(self.store.path(&diff_id))
    }

    /// Everything below the directory, by path.
    fn everything(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        walk(self.dir.path(), self.dir.path(), &mut found);
        found
    }

    /// The archive is refused for this reason, the message names the entry, nothing is left.
    #[track_caller]
    fn refuses(&self, tar: Tar, entry: &str, expected: &Refusal) {
        let before = self.everything();
        let error = self.unpack(tar).unwrap_err();
        let LayerError::Refused { why, .. } = &error else { panic!("{error:?}") };
        assert_eq!(why, expected);
        assert!(error.to_string().contains(entry), "{error}");
        assert_eq!(self.everything(), before);
    }
}

fn walk(root: &Path, at: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        found.insert(path.strip_prefix(root).unwrap().to_owned(), format!("{:o} {}", meta.mode(), meta.len()));
        if meta.is_dir() {
            walk(root, &path, found);
        }
    }
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap()
}

fn is_whiteout(path: &Path) -> bool {
    let meta = fs::symlink_metadata(path).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

#[test]
fn owners_modes_times_and_setuid_are_those_of_the_image() {
    let at = Fixture::new();
    let tar = Tar::default()
        .entry(b'5', b"./", b"", 0o755, b"")
        .entry(b'5', b"tmp", b"", 0o1777, b"")
        .entry(b'0', b"bin/su", b"", 0o4755, b"root!")
        .entry(b'0', b"bin/wall", b"", 0o2755, b"");
    let layer = at.unpack(tar).unwrap();
    for (name, mode) in [("", 0o755), ("tmp", 0o1777), ("bin/su", 0o4755), ("bin/wall", 0o2755)] {
        let meta = fs::metadata(layer.join(name)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (mode, 1000, 100), "{name}");
        assert_eq!(meta.mtime(), 1_500_000_000, "{name}");
    }
    assert_eq!(text(layer.join("bin/su")), "root!");
}

#[test]
fn nobody_but_root_reaches_the_setuid_programs_of_images() {
    let at = Fixture::new();
    for name in ["layers", "unpacking"] {
        assert_eq!(fs::metadata(at.dir.path().join(name)).unwrap().mode() & 0o777, 0o700);
    }
}

#[test]
fn times_of_directories_do_not_depend_on_the_order_of_entries() {
    let at = Fixture::new();
    let layer = at.unpack(Tar::default().file("a/b/c", "x").dir("a/b").dir("a").file("a/late", "y")).unwrap();
    for name in ["a", "a/b"] {
        assert_eq!(fs::metadata(layer.join(name)).unwrap().mtime(), 1_500_000_000, "{name}");
    }
}

#[test]
fn a_directory_without_an_entry_of_its_own_belongs_to_root_whatever_is_around_it() {
    let at = Fixture::new();
    let layer = at.unpack(Tar::default().entry(b'5', b"a", b"", 0o2775, b"").file("a/b/c", "x")).unwrap();
    let meta = fs::metadata(layer.join("a/b")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime()), (0o755, 0, 0, 0));
}

#[test]
fn gzip_zstd_and_plain_layers_are_told_apart_by_their_content() {
    let plain = Tar::default().file("a", "content").end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain[..600]).unwrap();
    let mut members = gzip.finish().unwrap();
    // Two members, as parallel compressors write them.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain[600..]).unwrap();
    members.extend(gzip.finish().unwrap());
    let zstd = zstd::stream::encode_all(&plain[..], 1).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd].concat();
    let diff_id = parse_digest(&sha256(&plain)).unwrap();
    for blob in [plain, members, zstd, skippable] {
        let at = Fixture::new();
        at.store.unpack(&blob[..], &diff_id, &Limits::default()).unwrap();
        assert_eq!(text(at.store.path(&diff_id).join("a")), "content");
    }
}

#[test]
fn hard_links_share_one_file_and_symbolic_links_keep_their_text() {
    let at = Fixture::new();
    let tar = Tar::default()
        .file("usr/bin/perl", "perl")
        .hard_link("usr/bin/perl5", "/usr/bin/perl")
        .symlink("absolute", "/etc/passwd")
        .symlink("climbing", "../../../etc/passwd")
        .hard_link("again", "climbing");
    let layer = at.unpack(tar).unwrap();
    let inode = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap().ino();
    assert_eq!(inode("usr/bin/perl"), inode("usr/bin/perl5"));
    assert_eq!(inode("climbing"), inode("again"));
    assert_eq!(fs::read_link(layer.join("absolute")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read_link(layer.join("climbing")).unwrap(), Path::new("../../../etc/passwd"));
    let meta = fs::symlink_metadata(layer.join("absolute")).unwrap();
    assert_eq!((meta.uid(), meta.mtime()), (1000, 1_500_000_000));
}

#[test]
fn whiteouts_become_what_an_overlay_understands() {
    let at = Fixture::new();
    let tar = Tar::default().file("etc/.wh.passwd", "").file("var/.wh..wh..opq", "").file(".wh..wh.plnk/1.2", "");
    let layer = at.unpack(tar).unwrap();
    assert!(is_whiteout(&layer.join("etc/passwd")));
    assert!(merged::is_opaque(&layer.join("var")).unwrap());
    assert!(!merged::is_opaque(&layer.join("etc")).unwrap());
    assert!(!layer.join(".wh..wh.plnk").exists());
}

#[test]
fn what_is_removed_and_made_anew_in_one_layer_hides_what_was_below_in_either_order() {
    let at = Fixture::new();
    for tar in [
        Tar::default().file(".wh.d", "").dir("d").file("d/new", "x"),
        Tar::default().dir("d").file("d/new", "x").file(".wh.d", ""),
        Tar::default().file(".wh.d", "").file("d/new", "x"),
    ] {
        let layer = at.unpack(tar).unwrap();
        assert_eq!(text(layer.join("d/new")), "x");
        assert!(merged::is_opaque(&layer.join("d")).unwrap());
    }
    for tar in [Tar::default().file(".wh.f", "").file("f", "x"), Tar::default().file("f", "x").file(".wh.f", "")] {
        assert_eq!(text(at.unpack(tar).unwrap().join("f")), "x");
    }
}

#[test]
fn a_layer_may_hide_everything_below_it() {
    let at = Fixture::new();
    let bytes = Tar::default().file(".wh..wh..opq", "").file("a", "x").end();
    at.unpack_bytes(&bytes).unwrap();
    assert!(at.store.is_opaque(&parse_digest(&sha256(&bytes)).unwrap()).unwrap());
}

#[test]
fn capabilities_and_own_attributes_are_kept_and_labels_of_the_builder_dropped() {
    let at = Fixture::new();
    // cap_dac_override and cap_fowner: the value holds a newline.
    let capability = [&[1, 0, 0, 2, 0x0a][..], &[0; 15]].concat();
    let tar = Tar::default()
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"line\n20 path=elsewhere\n"),
            ("SCHILY.xattr.security.selinux", b"system_u:object_r:bin_t:s0\0"),
            ("mtime", b"1600000000.25"),
        ])
        .program("bin/ping");
    let layer = at.unpack(tar).unwrap();
    let get = |name| xattr::get(layer.join("bin/ping"), name).unwrap();
    assert_eq!(get("security.capability"), Some(capability));
    assert_eq!(get("user.note").as_deref(), Some(&b"line\n20 path=elsewhere\n"[..]));
    assert_eq!(get("security.selinux"), None);
    let meta = fs::metadata(layer.join("bin/ping")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_600_000_000, 250_000_000));
}

#[test]
fn a_default_access_list_does_not_reach_what_the_image_puts_below_it() {
    let at = Fixture::new();
    let entry =
        |tag: u16, perm: u16, id: u32| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let acl = [
        2u32.to_le_bytes().to_vec(),
        entry(1, 7, none),
        entry(2, 7, 33),
        entry(4, 5, none),
        entry(16, 7, none),
        entry(32, 0, none),
    ]
    .concat();
    let tar = Tar::default().pax(&[("SCHILY.xattr.system.posix_acl_default", &acl)]).dir("log").file("log/a", "x");
    let layer = at.unpack(tar).unwrap();
    assert_eq!(xattr::get(layer.join("log"), "system.posix_acl_default").unwrap(), Some(acl));
    assert_eq!(xattr::get(layer.join("log/a"), "system.posix_acl_access").unwrap(), None);
    assert_eq!(fs::metadata(layer.join("log/a")).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn attributes_that_speak_to_the_overlay_are_refused() {
    let at = Fixture::new();
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "btrfs.x", "user.a\0b"] {
        let tar = Tar::default().pax(&[(&format!("SCHILY.xattr.{name}"), b"y")]).dir("var");
        at.refuses(tar, "\"var\"", &Refusal::Xattr(name.escape_debug().to_string()));
    }
}

#[test]
fn long_names_in_both_formats_arrive_whole() {
    let at = Fixture::new();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let gnu = Tar::default().entry(b'L', b"././@LongLink", b"", 0, format!("{long}\0").as_bytes()).file("short", "gnu");
    assert_eq!(text(at.unpack(gnu).unwrap().join(&long)), "gnu");
    let pax = Tar::default().pax(&[("path", long.as_bytes())]).file("short", "pax");
    assert_eq!(text(at.unpack(pax).unwrap().join(&long)), "pax");
    let target = "t".repeat(300);
    let link =
        Tar::default().entry(b'K', b"././@LongLink", b"", 0, format!("{target}\0").as_bytes()).symlink("link", "short");
    assert_eq!(fs::read_link(at.unpack(link).unwrap().join("link")).unwrap(), Path::new(&target));
}

#[allow(clippy::disallowed_methods, reason = "a test drives the tools a user would")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}

/// What `tar --sparse` makes of a file with two holes, in each of its formats.
#[test]
fn sparse_files_keep_their_content_and_their_holes_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let original = fs::File::create(dir.path().join("sparse")).unwrap();
    original.write_all_at(b"start", 0).unwrap();
    original.write_all_at(b"middle", 4 << 20).unwrap();
    original.set_len(9 << 20).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
    ] {
        let archive = dir.path().join("archive.tar");
        let made = command("tar")
            .args(format)
            .args(["--sparse", "--hole-detection=raw", "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(dir.path())
            .arg("sparse")
            .status();
        assert!(made.unwrap().success());
        let at = Fixture::new();
        let layer = at.unpack_bytes(&fs::read(&archive).unwrap()).unwrap();
        let meta = fs::metadata(layer.join("sparse")).unwrap();
        assert_eq!(meta.len(), 9 << 20, "{format:?}");
        assert!(meta.blocks() * 512 < 1 << 20, "{format:?}: {} blocks", meta.blocks());
        assert!(fs::read(layer.join("sparse")).unwrap() == fs::read(dir.path().join("sparse")).unwrap(), "{format:?}");
    }
}

#[test]
fn named_pipes_are_made() {
    let at = Fixture::new();
    let layer = at.unpack(Tar::default().entry(b'6', b"run/initctl", b"", 0o600, b"")).unwrap();
    let meta = fs::symlink_metadata(layer.join("run/initctl")).unwrap();
    assert!(meta.file_type().is_fifo());
    assert_eq!((meta.mode() & 0o777, meta.uid(), meta.mtime()), (0o600, 1000, 1_500_000_000));
}

#[test]
fn later_entries_replace_earlier_ones_of_any_kind() {
    let at = Fixture::new();
    let tar = Tar::default()
        .file("a", "old")
        .dir("b")
        .file("b/inside", "x")
        .symlink("c", "nowhere")
        .file("a", "new")
        .file("b", "file now")
        .dir("c")
        .file("c/inside", "y");
    let layer = at.unpack(tar).unwrap();
    assert_eq!(text(layer.join("a")), "new");
    assert_eq!(text(layer.join("b")), "file now");
    assert_eq!(text(layer.join("c/inside")), "y");
}

#[test]
fn a_link_inside_the_layer_may_lead_to_a_directory_inside_the_layer() {
    let at = Fixture::new();
    let layer = at.unpack(Tar::default().dir("usr/lib").symlink("lib", "usr/lib").file("lib/libc.so", "x")).unwrap();
    assert_eq!(text(layer.join("usr/lib/libc.so")), "x");
}

#[test]
fn paths_that_climb_are_refused() {
    let at = Fixture::new();
    at.refuses(Tar::default().file("ok", "x").file("../escaped", "x"), "\"../escaped\"", &Refusal::Parent);
    at.refuses(Tar::default().file("/../escaped", "x"), "escaped", &Refusal::Parent);
    at.refuses(Tar::default().dir("a").file("a/../../escaped", "x"), "escaped", &Refusal::Parent);
}

#[test]
fn an_absolute_path_is_a_path_in_the_layer() {
    let at = Fixture::new();
    let layer = at.unpack(Tar::default().file("/etc/passwd", "ours")).unwrap();
    assert_eq!(text(layer.join("etc/passwd")), "ours");
}

#[test]
fn paths_through_links_that_lead_out_are_refused() {
    let at = Fixture::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "untouched").unwrap();
    let absolute = outside.path().to_str().unwrap();
    let climbing = format!("../../..{absolute}");
    for target in [absolute, &climbing, "..", "/", "../layers"] {
        let tar = Tar::default().symlink("d", target).file("d/victim", "overwritten");
        at.refuses(tar, "\"d/victim\"", &Refusal::SymlinkEscape);
        // The same through a directory that a later entry replaces by a link, and one link further.
        let tar = Tar::default().dir("d").file("d/x", "").symlink("d", target).file("d/victim", "overwritten");
        at.refuses(tar, "\"d/victim\"", &Refusal::SymlinkEscape);
        let tar = Tar::default().symlink("d", target).symlink("e", "d").dir("e/made/deep");
        at.refuses(tar, "\"e/made/deep\"", &Refusal::SymlinkEscape);
        at.refuses(Tar::default().symlink("d", target).file("d/.wh.victim", ""), "victim", &Refusal::SymlinkEscape);
        at.refuses(Tar::default().symlink("d", target).file("d/.wh..wh..opq", ""), "opq", &Refusal::SymlinkEscape);
    }
    assert_eq!(text(outside.path().join("victim")), "untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_file_in_the_place_of_a_link_replaces_the_link_and_not_its_target() {
    let at = Fixture::new();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "untouched").unwrap();
    let target = outside.path().to_str().unwrap();
    let layer = at.unpack(Tar::default().symlink("f", target).file("f", "new")).unwrap();
    assert_eq!(text(layer.join("f")), "new");
    let layer = at.unpack(Tar::default().symlink("f", "/").entry(b'5', b"f", b"", 0o700, b"")).unwrap();
    assert!(fs::symlink_metadata(layer.join("f")).unwrap().is_dir());
    assert_eq!(text(outside.path().into()), "untouched");
}

#[test]
fn links_in_a_circle_or_to_nowhere_are_refused_on_the_way() {
    let at = Fixture::new();
    at.refuses(Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", ""), "\"a/x\"", &Refusal::SymlinkLoop);
    at.refuses(Tar::default().symlink("a", "gone").file("a/x", ""), "\"a/x\"", &Refusal::SymlinkLoop);
    at.refuses(Tar::default().file("a", "").file("a/x", ""), "\"a/x\"", &Refusal::ThroughFile);
}

#[test]
fn hard_links_out_of_the_layer_are_refused() {
    let at = Fixture::new();
    let outside = tempfile::NamedTempFile::new().unwrap();
    let escape = |target: &str| Refusal::LinkEscape { target: format!("\"{target}\"") };
    at.refuses(Tar::default().hard_link("h", "../../etc/passwd"), "\"h\"", &escape("../../etc/passwd"));
    at.refuses(Tar::default().symlink("d", "/etc").hard_link("h", "d/passwd"), "\"h\"", &escape("d/passwd"));
    let missing = |target: &str| Refusal::LinkMissing { target: format!("\"{target}\"") };
    let absolute = outside.path().to_str().unwrap();
    at.refuses(Tar::default().hard_link("h", absolute), "\"h\"", &missing(absolute));
    at.refuses(Tar::default().file(".wh.a", "").hard_link("h", "a"), "\"h\"", &missing("a"));
    let tar = Tar::default().file("d/a", "").hard_link("d", "d/a");
    at.refuses(tar, "\"d\"", &missing("d/a"));
    let directory = Refusal::LinkToDirectory { target: "\"d\"".into() };
    at.refuses(Tar::default().dir("d").hard_link("h", "d"), "\"h\"", &directory);
    assert_eq!(fs::metadata(outside.path()).unwrap().nlink(), 1);
}

#[test]
fn devices_and_unknown_types_are_refused() {
    let at = Fixture::new();
    at.refuses(Tar::default().entry(b'3', b"dev/mem", b"", 0o666, b""), "\"dev/mem\"", &Refusal::Device);
    at.refuses(Tar::default().entry(b'4', b"dev/sda", b"", 0o666, b""), "\"dev/sda\"", &Refusal::Device);
    at.refuses(Tar::default().entry(b'V', b"label", b"", 0o666, b""), "\"label\"", &Refusal::Type(b'V'));
}

#[test]
fn names_no_file_can_have_are_refused() {
    let at = Fixture::new();
    let named = |name: &[u8]| Tar::default().pax(&[("path", name)]).file("short", "");
    at.refuses(named(b"a\0b"), r#""a\0b""#, &Refusal::Zero);
    at.refuses(named(&[b'n'; 300]), "nnn", &Refusal::TooLong);
    at.refuses(named("d/".repeat(3000).as_bytes()), "d/d", &Refusal::TooLong);
    at.refuses(named(b""), "\"\"", &Refusal::Empty);
    at.refuses(Tar::default().pax(&[("linkpath", b"a\0b")]).symlink("l", "x"), "\"l\"", &Refusal::Zero);
    at.refuses(Tar::default().symlink("l", ""), "\"l\"", &Refusal::LinkEmpty);
    at.refuses(Tar::default().file(".", ""), "\".\"", &Refusal::Root);
    at.refuses(Tar::default().symlink(".", "/"), "\".\"", &Refusal::Root);
    at.refuses(Tar::default().pax(&[("uid", b"4294967295")]).file("f", ""), "\"f\"", &Refusal::Owner);
    at.refuses(Tar::default().dir(".wh.d"), ".wh.d", &Refusal::Whiteout);
}

#[test]
fn a_layer_of_other_content_than_the_configuration_says_is_refused() {
    let at = Fixture::new();
    let bytes = Tar::default().file("a", "x").end();
    let other = parse_digest(&sha256(b"something else")).unwrap();
    let error = at.store.unpack(&bytes[..], &other, &Limits::default()).unwrap_err();
    assert!(
        matches!(&error, LayerError::DiffId { expected, got } if *expected == other.to_string() && *got == sha256(&bytes))
    );
    // Bytes after the end of the archive count as well.
    let longer = [&bytes[..], b"tail"].concat();
    let digest = parse_digest(&sha256(&bytes)).unwrap();
    assert!(at.store.unpack(&longer[..], &digest, &Limits::default()).is_err());
    assert_eq!(at.everything().len(), 2);
}

#[test]
fn a_layer_cut_short_or_damaged_is_refused() {
    let plain = Tar::default().file("a", &"content ".repeat(2000)).end();
    let diff_id = parse_digest(&sha256(&plain)).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::stream::encode_all(&plain[..], 1).unwrap();
    for whole in [gzip, zstd, plain] {
        let at = Fixture::new();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        for bytes in [&whole[..middle], &damaged] {
            at.store.unpack(bytes, &diff_id, &Limits::default()).unwrap_err();
            assert_eq!(at.everything().len(), 2);
        }
    }
}

#[test]
fn bombs_end_at_the_limit() {
    let at = Fixture::new();
    let limits = Limits { bytes: 1 << 20, entries: 100 };
    let unpack = |bytes: &[u8]| at.store.unpack(bytes, &parse_digest(&sha256(bytes)).unwrap(), &limits);
    // A small gzip stream of very many zeros, as content, as trailing bytes, as padding.
    let squeeze = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    };
    let mut content = Tar::default();
    content.header(b'0', b"zeros", b"", 0o644, (0, 0), 64 << 20);
    content.0.resize(content.0.len() + (64 << 20), 0);
    let trailing = [Tar::default().file("a", "x").end(), vec![0; 64 << 20]].concat();
    for bytes in [content.end(), trailing] {
        let error = unpack(&squeeze(&bytes)).unwrap_err();
        assert!(matches!(error, LayerError::TooManyBytes { limit } if limit == 1 << 20), "{error:?}");
    }
    let many = (0..101).fold(Tar::default(), |tar, number| tar.file(&format!("f{number}"), ""));
    assert!(matches!(unpack(&many.end()), Err(LayerError::TooManyEntries { limit: 100 })));
    let deep = Tar::default().pax(&[("path", "d/".repeat(200).as_bytes())]).dir("short");
    assert!(matches!(unpack(&deep.end()), Err(LayerError::TooManyEntries { limit: 100 })));
    assert_eq!(at.everything().len(), 2);
}

#[test]
fn a_removed_layer_is_gone_at_once_and_can_be_unpacked_again() {
    let at = Fixture::new();
    let bytes = Tar::default().file("a/b", "x").end();
    at.unpack_bytes(&bytes).unwrap();
    let diff_id = parse_digest(&sha256(&bytes)).unwrap();
    assert_eq!(at.store.list().unwrap(), std::slice::from_ref(&diff_id));
    at.store.remove(&diff_id).unwrap();
    at.store.remove(&diff_id).unwrap();
    assert_eq!(at.everything().len(), 2);
    at.unpack_bytes(&bytes).unwrap();
    assert!(at.store.contains(&diff_id));
}

/// Not a test of its own: the child of the test below, told by the environment where to unpack.
#[test]
fn child_that_unpacks_until_it_is_killed() {
    let Some(root) = std::env::var_os("BERTH_TEST_UNPACK_INTO") else { return };
    let store = LayerStore::open(Path::new(&root)).unwrap();
    let diff_id = parse_digest(&format!("sha256:{}", "0".repeat(64))).unwrap();
    store.unpack(std::io::stdin(), &diff_id, &Limits::default()).unwrap();
}

#[test]
fn a_kill_in_the_middle_of_unpacking_leaves_nothing_in_sight_and_the_rest_is_swept() {
    let at = Fixture::new();
    let mut child = command(std::env::current_exe().unwrap())
        .args(["--exact", "layer::tests::child_that_unpacks_until_it_is_killed"])
        .env("BERTH_TEST_UNPACK_INTO", at.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // More than fits into the pipe and the buffers behind it, so a part has been written when the
    // last byte is accepted; the end never comes.
    let content = "content ".repeat(1 << 16);
    let tar = (0..8).fold(Tar::default(), |tar, number| tar.file(&format!("dir/file{number}"), &content));
    child.stdin.as_mut().unwrap().write_all(&tar.0).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(at.store.list().unwrap(), []);
    assert_eq!(fs::read_dir(at.store.directory()).unwrap().count(), 0);
    assert!(at.everything().keys().any(|path| path.ends_with("dir/file0")), "it was killed before it wrote anything");
    assert_eq!(at.store.sweep().unwrap(), 1);
    assert_eq!(at.everything().len(), 2);
}

#[test]
fn a_path_is_found_as_an_overlay_of_the_layers_would_show_it() {
    let at = Fixture::new();
    let base = Tar::default()
        .program("usr/bin/nginx")
        .program("usr/bin/removed")
        .program("opt/old/tool")
        .program("srv/hidden")
        .file("etc/passwd", "x")
        .symlink("bin", "usr/bin")
        .symlink("usr/sbin", "/usr/bin")
        .symlink("climb", "../../../../usr/bin")
        .symlink("usr/bin/alias", "nginx")
        .symlink("loop", "loop");
    let top = Tar::default()
        .file("usr/bin/.wh.removed", "")
        .file("opt/old/.wh..wh..opq", "")
        .program("opt/new/tool")
        .file(".wh.srv", "");
    let layers = [at.unpack(top).unwrap(), at.unpack(base).unwrap()];
    let found = |path: &str| find(&layers, Path::new(path)).unwrap();
    for path in [
        "/usr/bin/nginx",
        "/bin/nginx",
        "usr/sbin/nginx",
        "/climb/nginx",
        "/bin/alias",
        "/../bin/./nginx",
        "/opt/../bin/nginx",
    ] {
        assert!(matches!(found(path), Found::File { executable: true, .. }), "{path}");
    }
    assert!(matches!(found("/etc/passwd"), Found::File { executable: false, .. }));
    assert!(matches!(found("/opt/new/tool"), Found::File { .. }));
    assert_eq!(found("/opt"), Found::Directory);
    for path in ["/usr/bin/removed", "/opt/old/tool", "/srv/hidden", "/srv", "/loop", "/usr/bin/nginx/x", "/nothing"] {
        assert_eq!(found(path), Found::Absent, "{path}");
    }
}

#[test]
fn a_link_of_an_image_is_never_followed_out_of_its_layers() {
    let at = Fixture::new();
    let layer = at.unpack(Tar::default().dir("etc")).unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    symlink(outside.path(), layer.join("etc/out")).unwrap();
    assert_eq!(find(&[layer], Path::new("/etc/out")).unwrap(), Found::Absent);
}

#[test]
fn a_program_is_looked_for_where_a_shell_would() {
    let at = Fixture::new();
    let tar = Tar::default().program("usr/bin/nginx").program("app/run.sh").file("app/data", "x").dir("usr/bin/dir");
    let layers = [at.unpack(tar).unwrap()];
    let find = |program: &str, directory: &str| {
        find_program(&layers, program, Path::new(directory), "/usr/local/bin:/usr/bin").unwrap()
    };
    assert_eq!(find("nginx", "/"), Program::Executable);
    assert_eq!(find("/usr/bin/nginx", "/"), Program::Executable);
    assert_eq!(find("./run.sh", "/app"), Program::Executable);
    assert_eq!(find("./run.sh", "/"), Program::Missing);
    assert_eq!(find("/app/data", "/"), Program::NotExecutable);
    assert_eq!(find("dir", "/"), Program::NotExecutable);
    assert_eq!(find("apache2", "/"), Program::Missing);
}
