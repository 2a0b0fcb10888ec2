//! The image store against a real registry, with images of every kind. Needs root, and the tools
//! docker-registry, skopeo and tar.

mod build;
mod servers;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::time::Duration;

use build::{Image, Layout as Built, Packed, Tar, native};
use servers::{Fault, Proxy, Registry as Server, run};

use super::*;

/// A store in a directory of its own, and what it looked like when it was empty.
struct Fixture {
    dir: tempfile::TempDir,
    store: ImageStore,
    empty: BTreeMap<PathBuf, u64>,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("settings")).unwrap();
        let store = ImageStore::open(&dir.path().join("store"), options(dir.path(), limits)).unwrap();
        let mut fixture = Self { dir, store, empty: BTreeMap::new() };
        fixture.empty = fixture.everything();
        fixture
    }

    /// Credentials for a registry.
    fn login(&self, registry: &str, user: &str, password: &str) {
        let path = self.dir.path().join("settings/auth.json");
        let entry = serde_json::json!({"auths": {registry: {"username": user, "password": password}}});
        fs::write(&path, entry.to_string()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    async fn ensure(&self, reference: &str) -> Result<ResolvedImage, ImageError> {
        self.store.ensure(reference, nobody()).await
    }

    /// It fails with this code, every part of the message is in it, and nothing is left.
    #[track_caller]
    fn assert_refused(&self, result: Result<ResolvedImage, ImageError>, code: &str, parts: &[&str]) {
        let error = result.unwrap_err();
        let message = chain(&error);
        assert_eq!(error.code(), code, "{message}");
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        assert!(!error.advice().is_empty());
        assert_eq!(self.everything(), self.empty, "after: {message}");
    }

    /// Every file and directory of the store with its length.
    fn everything(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        walk(&self.dir.path().join("store"), &mut found);
        found
    }

    fn text(&self, image: &ResolvedImage, layer: usize, path: &str) -> String {
        let layer = self.store.layers().join(layer_directory(&image.layers[layer]));
        fs::read_to_string(layer.join(path)).unwrap()
    }
}

fn options(dir: &Path, limits: Limits) -> Options {
    let wait = Duration::from_millis(5);
    let patience =
        Patience { read: Duration::from_secs(20), first_wait: wait, longest_wait: wait, ..Patience::default() };
    Options { settings: dir.join("settings"), limits, patience, platform: Platform::here() }
}

fn walk(at: &Path, found: &mut BTreeMap<PathBuf, u64>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            found.insert(path.clone(), 0);
            walk(&path, found);
        } else {
            found.insert(path, meta.len());
        }
    }
}

fn nobody() -> Watcher {
    Arc::new(|_| {})
}

fn chain(error: &ImageError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn directories(image: &ResolvedImage) -> Vec<String> {
    image.layers.iter().map(|layer| layer_directory(layer)).collect()
}

#[tokio::test]
async fn an_image_is_pulled_by_its_tag_and_pinned_by_its_digest() {
    let (server, at) = (Server::start(), Fixture::new());
    let config = serde_json::json!({
        "Entrypoint": ["/usr/bin/web"], "Cmd": ["-v"], "Env": ["A=b"],
        "User": "www-data", "WorkingDir": "/srv", "StopSignal": "SIGQUIT",
    });
    let image = Image::web().layer(Tar::default().file("srv/index.html", "hello")).config(config);
    server.push(&Built::of(&image), "team/web:1", &[]);
    let name = format!("{}/team/web:1", server.address());
    let pinned = at.store.resolve(&name).await.unwrap().pinned;
    assert!(pinned.starts_with(&format!("{}/team/web@sha256:", server.address())), "{pinned}");
    let found = at.ensure(&pinned).await.unwrap();
    assert_eq!(found.reference, pinned);
    assert_eq!(pinned, format!("{}/team/web@{}", server.address(), found.digest));
    assert_eq!((&found.entrypoint[..], &found.cmd[..]), (&["/usr/bin/web".to_owned()][..], &["-v".to_owned()][..]));
    assert_eq!(
        (found.user.as_str(), found.working_dir.as_str(), found.stop_signal.as_str()),
        ("www-data", "/srv", "SIGQUIT")
    );
    assert_eq!(directories(&found), image.unpacked());
    assert_eq!(at.text(&found, 0, "srv/index.html"), "hello");
    // The archives of the layers are not kept beside them: manifest and configuration are.
    assert_eq!(fs::read_dir(at.dir.path().join("store/blobs")).unwrap().count(), 2);
}

#[tokio::test]
async fn what_was_pulled_once_is_used_with_the_registry_gone() {
    let (server, at) = (Server::start(), Fixture::new());
    server.push(&Built::of(&Image::web()), "web:1", &[]);
    let name = format!("{}/web:1", server.address());
    let first = at.ensure(&name).await.unwrap();
    drop(server);
    let resolution = at.store.resolve(&name).await.unwrap();
    assert_eq!(resolution.pinned, first.reference);
    assert!(matches!(resolution.offline, Some(RegistryError::Refused { .. })), "{resolution:?}");
    assert_eq!(at.ensure(&name).await.unwrap(), first);
    assert_eq!(at.ensure(&first.reference).await.unwrap(), first);
    let other = name.replace(":1", ":2");
    assert_eq!(at.store.resolve(&other).await.unwrap_err().code(), "RegistryUnreachable");
}

#[tokio::test]
async fn a_store_opened_again_knows_its_images() {
    let (server, at) = (Server::start(), Fixture::new());
    server.push(&Built::of(&Image::web()), "web:1", &[]);
    let name = format!("{}/web:1", server.address());
    let first = at.ensure(&name).await.unwrap();
    drop(server);
    let Fixture { dir, store, .. } = at;
    let locked = ImageStore::open(&dir.path().join("store"), options(dir.path(), Limits::default()));
    assert!(matches!(locked, Err(ImageError::Locked)));
    drop(store);
    let store = ImageStore::open(&dir.path().join("store"), options(dir.path(), Limits::default())).unwrap();
    assert_eq!(store.resolve(&name).await.unwrap().pinned, first.reference);
    assert_eq!(store.ensure(&name, nobody()).await.unwrap(), first);
}

#[tokio::test]
async fn a_tag_that_moved_means_the_new_image_and_the_old_one_stays() {
    let (server, at) = (Server::start(), Fixture::new());
    server.push(&Built::of(&Image::web()), "web:1", &[]);
    let name = format!("{}/web:1", server.address());
    let old = at.ensure(&name).await.unwrap();
    server.push(&Built::of(&Image::web().layer(Tar::default().file("new", ""))), "web:1", &[]);
    let new = at.ensure(&name).await.unwrap();
    assert_ne!(old.digest, new.digest);
    drop(server);
    assert_eq!(at.store.resolve(&name).await.unwrap().pinned, new.reference);
    assert_eq!(at.ensure(&old.reference).await.unwrap(), old);
}

#[tokio::test]
async fn docker_manifests_are_understood() {
    let (server, at) = (Server::start(), Fixture::new());
    server.push(&Built::of(&Image::web()), "web:1", &["--format=v2s2"]);
    let found = at.ensure(&format!("{}/web:1", server.address())).await.unwrap();
    assert_eq!(directories(&found), Image::web().unpacked());
}

#[tokio::test]
async fn layers_of_every_packing_are_understood() {
    let (server, at) = (Server::start(), Fixture::new());
    let image = [Packed::Plain, Packed::Gzip, Packed::Zstd]
        .into_iter()
        .enumerate()
        .fold(Image::new(), |image, (number, packed)| {
            image.packed(Tar::default().file("f", &format!("layer {number}")), packed)
        });
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    let found = at.ensure(&format!("{}/web:1", server.address())).await.unwrap();
    assert_eq!(directories(&found), image.unpacked());
    assert_eq!(at.text(&found, 0, "f"), "layer 2");
}

#[tokio::test]
async fn of_an_index_the_image_for_this_machine_is_taken() {
    let (server, at) = (Server::start(), Fixture::new());
    let native_image = Image::web().layer(Tar::default().file("arch", native()));
    let images = [Image::web().architecture("s390x"), native_image.clone()];
    server.push(&Built::multi(&images), "web:1", &["--all"]);
    let name = format!("{}/web:1", server.address());
    let found = at.ensure(&name).await.unwrap();
    assert_eq!(at.text(&found, 0, "arch"), native());
    assert_eq!(at.store.resolve(&name).await.unwrap().pinned, found.reference);
    // The digest of the index is another name for the same image, also without the registry.
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]).stdout;
    let by_index = format!("{}/web@{}", server.address(), berth_host::blob::sha256(&raw));
    assert_eq!(at.ensure(&by_index).await.unwrap(), found);
    drop(server);
    assert_eq!(at.ensure(&by_index).await.unwrap(), found);
}

#[tokio::test]
async fn an_image_for_other_machines_is_refused_with_what_there_is() {
    let (server, at) = (Server::start(), Fixture::new());
    let other = Image::web().architecture("s390x");
    server.push(&Built::multi(&[other.clone(), Image::web().architecture("riscv64")]), "many:1", &["--all"]);
    server.push(&Built::of(&other), "one:1", &["--override-arch=s390x"]);
    let many = at.ensure(&format!("{}/many:1", server.address())).await;
    at.assert_refused(many, "NoImageForPlatform", &["linux/s390x, linux/riscv64", &format!("linux/{}", native())]);
    let one = at.ensure(&format!("{}/one:1", server.address())).await;
    at.assert_refused(one, "NoImageForPlatform", &["linux/s390x"]);
}

#[tokio::test]
async fn a_layer_is_fetched_and_unpacked_once_however_many_ask_for_it_at_once() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    let base = || Image::new().packed(Tar::default().program("usr/bin/web").noise("big", 2 << 20, 7), Packed::Gzip);
    for number in 0..4 {
        let image = base().layer(Tar::default().file("which", &number.to_string()));
        server.push(&Built::of(&image), &format!("web:{number}"), &["--preserve-digests"]);
    }
    let names: Vec<String> = (0..8).map(|number| format!("{}/web:{}", proxy.address(), number % 4)).collect();
    let images = futures_util::future::join_all(names.iter().map(|name| at.ensure(name))).await;
    for (number, image) in images.into_iter().enumerate() {
        assert_eq!(at.text(&image.unwrap(), 0, "which"), (number % 4).to_string());
    }
    assert_eq!(proxy.times(&base().packed_layer(0).0), 1);
    assert_eq!(fs::read_dir(at.store.layers()).unwrap().count(), 5);
}

#[tokio::test]
async fn progress_ends_at_all_of_it() {
    let (server, at) = (Server::start(), Fixture::new());
    let image = Image::web().layer(Tar::default().noise("big", 1 << 20, 3));
    let size = (0..2).map(|number| image.packed_layer(number).1 as u64).sum();
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    let seen = Arc::<Mutex<Vec<Progress>>>::default();
    let log = seen.clone();
    let watcher: Watcher = Arc::new(move |progress| log.lock().unwrap().push(progress));
    at.store.ensure(&format!("{}/web:1", server.address()), watcher).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(*seen.last().unwrap(), Progress { done: size, total: size });
    assert_eq!(seen.last().unwrap().percent(), 100);
    assert!(seen.len() > 4, "{seen:?}");
}

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
    let image = Image::web().layer(Tar::default().noise("big", 1 << 20, 5));
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    proxy.faults(&[Fault::IgnoreRange, Fault::IgnoreRange, Fault::Die(300_000)]);
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
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let result = at.ensure(&format!("{unused}/web:1")).await;
    at.assert_refused(result, "RegistryUnreachable", &[&format!("{unused} refuses connections")]);
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
    let (server, at) = (Server::start(), Fixture::with(Limits { bytes: 1 << 20, entries: 1000 }));
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
    let at = Fixture::with(Limits { bytes: 1 << 16, entries: 1000 });
    let result = at.store.import("web:1", tokio::io::repeat(0), nobody()).await;
    at.assert_refused(result, "UploadTooLarge", &["65536"]);
}

#[tokio::test]
async fn unused_images_are_removed_with_the_layers_that_nothing_else_needs() {
    let (server, at) = (Server::start(), Fixture::new());
    for name in ["a", "b"] {
        let image = Image::web().layer(Tar::default().file("which", name));
        server.push(&Built::of(&image), &format!("{name}:1"), &[]);
    }
    let names: Vec<String> = ["a", "b"].iter().map(|name| format!("{}/{name}:1", server.address())).collect();
    let a = at.ensure(&names[0]).await.unwrap();
    let b = at.ensure(&names[1]).await.unwrap();
    let in_use = HashSet::from([a.digest.clone()]);
    let listed = at.store.list(&in_use).unwrap();
    let of = |digest: &str| listed.iter().find(|image| image.digest == digest).unwrap();
    assert_eq!((&of(&a.digest).names[..], of(&a.digest).in_use, of(&a.digest).layers), (&names[..1], true, 2));
    assert_eq!((&of(&b.digest).references[..], of(&b.digest).in_use), (std::slice::from_ref(&b.reference), false));
    let error = at.store.remove(&names[0], &in_use).await.unwrap_err();
    assert_eq!(error.code(), "ImageInUse");
    let pruned = at.store.prune(&in_use).await.unwrap();
    assert_eq!(pruned.len(), 1);
    assert_eq!(at.text(&a, 0, "which"), "a");
    assert_eq!(at.text(&a, 1, "etc/passwd").len(), 22);
    assert_eq!(fs::read_dir(at.store.layers()).unwrap().count(), 2);
    at.store.remove(&names[0], &HashSet::new()).await.unwrap();
    assert_eq!(at.everything(), at.empty);
    assert_eq!(at.store.remove(&names[0], &HashSet::new()).await.unwrap_err().code(), "ImageNotFound");
}

#[tokio::test]
async fn what_a_crash_left_is_gone_after_the_next_start() {
    let (server, at) = (Server::start(), Fixture::new());
    server.push(&Built::of(&Image::web()), "web:1", &[]);
    let image = at.ensure(&format!("{}/web:1", server.address())).await.unwrap();
    let before = at.everything();
    let Fixture { dir, store, .. } = at;
    drop(store);
    let root = dir.path().join("store");
    let digit = |digit: &str| format!("sha256-{}", digit.repeat(64));
    // Killed while it fetched one layer and unpacked another, after a third was complete.
    fs::write(root.join("blobs").join(digit("1") + ".partial"), "half").unwrap();
    fs::write(root.join("blobs").join(digit("2")), "whole").unwrap();
    fs::create_dir_all(root.join("unpacking").join(digit("3")).join("etc")).unwrap();
    fs::create_dir_all(root.join("layers").join(digit("4")).join("etc")).unwrap();
    let store = ImageStore::open(&root, options(dir.path(), Limits::default())).unwrap();
    let mut after = BTreeMap::new();
    walk(&root, &mut after);
    assert_eq!(after, before);
    assert_eq!(store.ensure(&image.reference, nobody()).await.unwrap(), image);
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

#[tokio::test]
async fn a_missing_program_is_found_out_before_the_start() {
    let at = Fixture::new();
    let import =
        async |name: &str, image: Image| at.store.import(name, &Built::of(&image).tar()[..], nobody()).await.unwrap();
    let web = import("web:1", Image::web()).await;
    at.store.check_program(&web, &BundleSpec::default()).await.unwrap();
    let spec = |program: &str| BundleSpec { command: vec![program.into()], ..BundleSpec::default() };
    at.store.check_program(&web, &spec("web")).await.unwrap();
    let error = at.store.check_program(&web, &spec("wbe")).await.unwrap_err();
    assert_eq!(error.code(), "ProgramMissing");
    assert!(error.to_string().contains("no program `wbe`"), "{error}");
    let error = at.store.check_program(&web, &spec("/etc/passwd")).await.unwrap_err();
    assert!(error.to_string().contains("not an executable file"), "{error}");
    let empty = import("empty:1", Image::web().config(serde_json::json!({}))).await;
    assert_eq!(at.store.check_program(&empty, &BundleSpec::default()).await.unwrap_err().code(), "NoProgram");
}
