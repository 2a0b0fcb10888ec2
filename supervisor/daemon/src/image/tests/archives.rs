//! Images from files.

use super::*;

#[tokio::test]
async fn an_image_is_imported_from_every_kind_of_archive_and_known_by_that_name() {
    let image = Image::web().layer(Tar::default().file("srv/index.html", "hello"));
    let built = Built::of(&image);
    let docker = tempfile::tempdir().unwrap();
    let docker = docker.path().join("docker.tar");
    let from = format!("oci:{}", built.path().display());
    run("skopeo", &["--insecure-policy", "copy", "--quiet", &from, &format!("docker-archive:{}", docker.display())]);
    for archive in [built.tar(), fs::read(&docker).unwrap()] {
        let at = Fixture::new();
        let found = at.store.import("registry.invalid/web:1", &archive[..], nobody()).await.unwrap();
        assert_eq!(directories(&found), image.unpacked());
        assert_eq!(at.text(&found, 0, "srv/index.html"), "hello");
        // Nobody is asked about the name.
        let resolution = at.store.resolve("registry.invalid/web:1").await.unwrap();
        assert!(resolution.offline.is_none());
        assert_eq!(resolution.pinned, found.reference);
        assert_eq!(at.ensure(&resolution.pinned).await.unwrap(), found);
    }
    let at = Fixture::new();
    let found = at.store.import_directory("web:1", built.path(), nobody()).await.unwrap();
    assert!(found.reference.starts_with("docker.io/library/web@sha256:"), "{}", found.reference);
}

#[tokio::test]
async fn a_damaged_archive_is_refused_and_leaves_nothing() {
    let at = Fixture::new();
    let image = Image::web().layer(Tar::default().noise("big", 1 << 16, 5));
    let (digest, _) = image.packed_layer(1);
    let built = Built::of(&image);
    let whole = built.tar();
    let import = async |bytes: &[u8]| at.store.import("web:1", bytes, nobody()).await;
    at.assert_refused(import(&whole[..whole.len() / 2]).await, "InvalidImage", &[]);
    at.assert_refused(import(b"no archive").await, "InvalidImage", &[]);
    at.assert_refused(
        import(&Tar::default().file("a", "b").end()).await,
        "InvalidImage",
        &["neither an OCI image layout"],
    );
    at.assert_refused(import(&[&[0x1f, 0x8b][..], &[0; 64]].concat()).await, "InvalidImage", &["compressed"]);
    fs::OpenOptions::new().write(true).open(built.blob_path(&digest)).unwrap().write_all_at(b"rot", 50).unwrap();
    at.assert_refused(import(&built.tar()).await, "DigestMismatch", &[&digest]);
    fs::remove_file(built.blob_path(&digest)).unwrap();
    at.assert_refused(import(&built.tar()).await, "InvalidImage", &[&format!("no blob {digest}")]);
    let other = format!("web@sha256:{}", "2".repeat(64));
    let result = at.store.import(&other, &Built::of(&Image::web()).tar()[..], nobody()).await;
    assert_eq!(result.as_ref().unwrap_err().code(), "DigestMismatch");
}

#[tokio::test]
async fn a_hostile_archive_is_refused_like_a_hostile_registry() {
    let at = Fixture::new();
    let image = Image::web().layer(Tar::default().file("../escaped", "x"));
    let result = at.store.import("web:1", &Built::of(&image).tar()[..], nobody()).await;
    at.assert_refused(result, "LayerRefused", &["\"../escaped\""]);
}

#[tokio::test]
async fn an_upload_over_the_limit_is_refused() {
    let at = Fixture::with(Limits { bytes: 1 << 16, entries: 1000, spare: 0 });
    let result = at.store.import("web:1", tokio::io::repeat(0), nobody()).await;
    at.assert_refused(result, "UploadTooLarge", &["65536"]);
}

#[tokio::test]
async fn layers_below_one_that_hides_everything_and_layers_that_repeat_are_not_mounted() {
    let at = Fixture::new();
    let repeated = Tar::default().file("same", "x");
    let image = Image::web()
        .layer(Tar::default().file(".wh..wh..opq", "").program("usr/bin/web"))
        .layer(repeated.clone())
        .layer(Tar::default().file("between", ""))
        .layer(repeated);
    let found = at.store.import("web:1", &Built::of(&image).tar()[..], nobody()).await.unwrap();
    let unpacked = image.unpacked();
    assert_eq!(directories(&found), [&unpacked[0][..], &unpacked[1], &unpacked[3]]);
}
