//! What is refused, and what only looks as if it should be.

use super::*;

#[test]
fn attributes_that_speak_to_the_overlay_are_refused() {
    let at = Fixture::new();
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "btrfs.x", "user.a\0b"] {
        let tar = Tar::default().pax(&[(&format!("SCHILY.xattr.{name}"), b"y")]).dir("var");
        at.refuses(tar, "\"var\"", &Refusal::Xattr(name.escape_debug().to_string()));
    }
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
    let limits = Limits { bytes: 1 << 20, entries: 100, spare: 0 };
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
