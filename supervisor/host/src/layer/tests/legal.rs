//! Everything an honest image may hold.

use super::*;

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
