//! Registries that fail, lie, or let nobody in, and images with bad intentions.

use super::*;

#[tokio::test]
async fn a_registry_with_passwords_lets_in_who_knows_one() {
    let (server, at) = (Server::guarded(), Fixture::new());
    server.push(&Built::of(&Image::web()), "web:1", &[]);
    let name = format!("{}/web:1", server.address());
    at.assert_refused(at.ensure(&name).await, "RegistryUnauthorized", &["does not let anybody read web"]);
    at.login(server.address(), "user", "wrong");
    at.assert_refused(at.ensure(&name).await, "RegistryUnauthorized", &["does not let this user read web"]);
    at.login(server.address(), "user", "password");
    at.ensure(&name).await.unwrap();
}

#[tokio::test]
async fn a_registry_with_a_token_service_is_asked_with_a_token() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    proxy.demand_token();
    server.push(&Built::of(&Image::web()), "web:1", &[]);
    let name = format!("{}/web:1", proxy.address());
    at.login(proxy.address(), "user", "wrong");
    at.assert_refused(at.ensure(&name).await, "RegistryUnauthorized", &["web"]);
    at.login(proxy.address(), "user", "password");
    at.ensure(&name).await.unwrap();
    let pinned = at.store.resolve(&name).await.unwrap().pinned;
    assert!(pinned.contains("@sha256:"), "{pinned}");
}

#[tokio::test]
async fn an_interrupted_layer_goes_on_where_it_stopped() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    let image = Image::new().layer(Tar::default().noise("big", 1 << 20, 5));
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    let name = format!("{}/web:1", proxy.address());
    // The first blob asked for is the configuration.
    proxy.faults(&[Fault::IgnoreRange, Fault::Cut(300_000), Fault::Cut(200_000), Fault::Cut(10)]);
    at.ensure(&name).await.unwrap();
    let (digest, _) = image.packed_layer(0);
    let ranges: Vec<String> = proxy
        .seen()
        .iter()
        .filter(|line| line.contains(&digest))
        .map(|line| line.rsplit(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(ranges, ["", "bytes=300000-", "bytes=500000-", "bytes=500010-"]);
}

#[tokio::test]
async fn a_registry_that_cannot_resume_is_read_from_the_beginning() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    let image = Image::new().layer(Tar::default().noise("big", 1 << 20, 5));
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    proxy.faults(&[Fault::IgnoreRange, Fault::Cut(300_000), Fault::IgnoreRange]);
    at.ensure(&format!("{}/web:1", proxy.address())).await.unwrap();
    assert_eq!(proxy.times(&image.packed_layer(0).0), 2);
}

#[tokio::test]
async fn two_halves_that_do_not_fit_are_fetched_once_more_in_one_piece() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    let image = Image::new().layer(Tar::default().noise("big", 1 << 20, 5));
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    proxy.faults(&[Fault::IgnoreRange, Fault::Cut(300_000), Fault::Corrupt(5)]);
    at.ensure(&format!("{}/web:1", proxy.address())).await.unwrap();
    assert_eq!(proxy.times(&image.packed_layer(0).0), 3);
}

#[tokio::test]
async fn a_registry_that_dies_in_mid_blob_leaves_a_clear_error_and_nothing_else() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    let image = Image::new().layer(Tar::default().noise("big", 1 << 20, 5));
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    proxy.faults(&[Fault::IgnoreRange, Fault::Die(300_000)]);
    let result = at.ensure(&format!("{}/web:1", proxy.address())).await;
    assert!(result.as_ref().unwrap_err().is_transient());
    at.assert_refused(result, "RegistryUnreachable", &[proxy.address(), "does not answer"]);
}

#[tokio::test]
async fn a_layer_that_never_comes_whole_is_told_with_how_much_came() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    let image = Image::new().layer(Tar::default().noise("big", 1 << 20, 5));
    let (digest, size) = image.packed_layer(0);
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    proxy.faults(&[&[Fault::IgnoreRange][..], &[Fault::Cut(100); 5]].concat());
    let result = at.ensure(&format!("{}/web:1", proxy.address())).await;
    at.assert_refused(result, "TransferInterrupted", &[&digest, &format!("500 of {size} bytes")]);
}

#[tokio::test]
async fn a_shortened_layer_is_refused() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    let image = Image::new().layer(Tar::default().noise("big", 1 << 20, 5));
    let (digest, size) = image.packed_layer(0);
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    proxy.faults(&[Fault::IgnoreRange, Fault::Shorten(1000)]);
    let result = at.ensure(&format!("{}/web:1", proxy.address())).await;
    at.assert_refused(result, "DigestMismatch", &[&digest, "has 1000 bytes", &size.to_string()]);
}

#[tokio::test]
async fn a_wrong_byte_anywhere_is_refused_with_both_digests() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    let image = Image::new().layer(Tar::default().noise("big", 1 << 20, 5));
    let (digest, _) = image.packed_layer(0);
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    let name = format!("{}/web:1", proxy.address());
    proxy.faults(&[Fault::IgnoreRange, Fault::Corrupt(70_000)]);
    at.assert_refused(at.ensure(&name).await, "DigestMismatch", &[&digest, "arrived as sha256:"]);
    proxy.faults(&[Fault::Corrupt(20)]);
    at.assert_refused(at.ensure(&name).await, "DigestMismatch", &["wrong blob", "arrived as sha256:"]);
    proxy.faults(&[Fault::CorruptManifest]);
    at.assert_refused(at.ensure(&name).await, "DigestMismatch", &["wrong manifest", "arrived as sha256:"]);
    at.ensure(&name).await.unwrap();
}

#[tokio::test]
async fn a_blob_that_rotted_in_the_registry_is_refused() {
    let (server, at) = (Server::start(), Fixture::new());
    let image = Image::new().layer(Tar::default().noise("big", 1 << 16, 5));
    let (digest, _) = image.packed_layer(0);
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    fs::OpenOptions::new().write(true).open(server.blob(&digest)).unwrap().write_all_at(b"rot", 50).unwrap();
    let result = at.ensure(&format!("{}/web:1", server.address())).await;
    at.assert_refused(result, "DigestMismatch", &[&digest]);
}

#[tokio::test]
async fn a_manifest_without_end_is_not_read_to_its_end() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    proxy.faults(&[Fault::EndlessManifest]);
    let result = at.ensure(&format!("{}/web:1", proxy.address())).await;
    at.assert_refused(result, "InvalidImage", &["manifest of more than 4194304 bytes"]);
}

#[tokio::test]
async fn a_registry_that_stumbles_is_asked_again_and_one_that_lies_down_is_named() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    server.push(&Built::of(&Image::web()), "web:1", &[]);
    let name = format!("{}/web:1", proxy.address());
    proxy.faults(&[Fault::Status(503); 5]);
    at.assert_refused(at.ensure(&name).await, "RegistryFailed", &["answered 503"]);
    proxy.faults(&[Fault::Status(429); 5]);
    at.assert_refused(at.ensure(&name).await, "RegistryFailed", &["asked too often"]);
    proxy.faults(&[Fault::Status(503), Fault::Status(429)]);
    at.ensure(&name).await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let (server, at) = (Server::start(), Fixture::new());
    server.push(&Built::of(&Image::web()), "web:1", &[]);
    let address = server.address();
    at.assert_refused(at.ensure(&format!("{address}/web:2")).await, "ImageNotFound", &["no tag 2 in web"]);
    at.assert_refused(at.ensure(&format!("{address}/wbe:1")).await, "ImageNotFound", &["wbe"]);
    let digest = format!("sha256:{}", "0".repeat(64));
    let result = at.ensure(&format!("{address}/web@{digest}")).await;
    at.assert_refused(result, "ImageNotFound", &[&format!("no image {digest} in web")]);
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() {
    let at = Fixture::new();
    // Its own for as long as the test runs, and not listened on.
    let unheard = tokio::net::TcpSocket::new_v4().unwrap();
    unheard.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = unheard.local_addr().unwrap();
    let result = at.ensure(&format!("{address}/web:1")).await;
    at.assert_refused(result, "RegistryUnreachable", &[&format!("{address} refuses connections")]);
    let result = at.ensure("registry.invalid/web:1").await;
    at.assert_refused(result, "RegistryUnreachable", &["registry.invalid is not known by that name"]);
}

#[tokio::test]
async fn a_registry_without_tls_has_to_be_allowed() {
    let (server, at) = (Server::start(), Fixture::new());
    server.push(&Built::of(&Image::web()), "web:1", &[]);
    // The same machine by a name that is not known to be this machine's own.
    let registry = server.address().replace("127.0.0.1", "127.1");
    let name = format!("{registry}/web:1");
    let result = at.ensure(&name).await;
    assert!(result.as_ref().unwrap_err().advice().contains("plain-http"));
    at.assert_refused(result, "RegistryUnreachable", &["no safe connection"]);
    let allowed = format!("plain-http = [\"{registry}\"]\n");
    fs::write(at.dir.path().join("settings/registries.toml"), allowed).unwrap();
    at.ensure(&name).await.unwrap();
}

#[tokio::test]
async fn hostile_layers_are_refused_by_the_name_of_the_entry_and_leave_nothing() {
    let server = Server::start();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let cases = [
        ("dots", Tar::default().file("../escaped", "x"), "\"../escaped\"", "`..`"),
        ("symlink", Tar::default().symlink("d", target).file("d/escaped", "x"), "\"d/escaped\"", "symbolic link"),
        (
            "climb",
            Tar::default().symlink("d", "../../../../..").file("d/tmp/escaped", "x"),
            "\"d/tmp/escaped\"",
            "symbolic link",
        ),
        ("hardlink", Tar::default().hard_link("h", "../../../../../etc/passwd"), "\"h\"", "hard link"),
        ("device", Tar::default().entry(b'3', "dev/mem", "", 0o666, b""), "\"dev/mem\"", "device"),
    ];
    for (name, tar, entry, why) in cases {
        let at = Fixture::new();
        // A good layer before the bad one goes with it.
        server.push(&Built::of(&Image::web().layer(tar)), &format!("{name}:1"), &[]);
        let result = at.ensure(&format!("{}/{name}:1", server.address())).await;
        at.assert_refused(result, "LayerRefused", &[entry, why, &format!("{}/{name}", server.address())]);
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_layer_other_than_the_configuration_says_is_refused() {
    let (server, at) = (Server::start(), Fixture::new());
    let wrong = format!("sha256:{}", "1".repeat(64));
    server.push(&Built::of(&Image::web().diff_ids(&[&wrong])), "web:1", &["--preserve-digests"]);
    let result = at.ensure(&format!("{}/web:1", server.address())).await;
    at.assert_refused(result, "DigestMismatch", &[&wrong]);
}

#[tokio::test]
async fn a_layer_over_the_limit_is_refused() {
    let (server, at) = (Server::start(), Fixture::with(Limits { bytes: 1 << 20, entries: 1000, spare: 0 }));
    let zeros = Tar::default().entry(b'0', "zeros", "", 0o644, &vec![0; 2 << 20]);
    server.push(&Built::of(&Image::web().layer(zeros)), "web:1", &[]);
    let result = at.ensure(&format!("{}/web:1", server.address())).await;
    at.assert_refused(result, "LayerTooLarge", &["more than 1048576 bytes"]);
}

#[tokio::test]
async fn a_malformed_reference_is_told_the_grammar() {
    let at = Fixture::new();
    at.assert_refused(at.ensure("Web Server").await, "InvalidImageName", &["registry/repository[:tag]"]);
}

/// A small disk of its own, in memory.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("small"), dir.path(), Some("tmpfs"), flags, Some(format!("size={size}").as_str()))
            .unwrap();
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test]
async fn an_image_never_fills_the_disk_to_its_end() {
    let (server, disk) = (Server::start(), SmallDisk::new("96m"));
    let at = Fixture::on(disk.0.path(), Limits::default());
    let zeros = Tar::default().entry(b'0', "zeros", "", 0o644, &vec![0; 128 << 20]);
    server.push(&Built::of(&Image::web().layer(zeros)), "bomb:1", &[]);
    server.push(&Built::of(&Image::web().layer(Tar::default().noise("big", 40 << 20, 9))), "big:1", &[]);
    let bomb = at.ensure(&format!("{}/bomb:1", server.address())).await;
    at.assert_refused(bomb, "NoRoom", &["bomb", "packed and more when unpacked, and 3", "Mi are free"]);
    let big = at.ensure(&format!("{}/big:1", server.address())).await;
    at.assert_refused(big, "NoRoom", &["take 4", "and 3"]);
    let upload = at.store.import("web:1", tokio::io::repeat(0), nobody()).await;
    at.assert_refused(upload, "UploadTooLarge", &[]);
}
