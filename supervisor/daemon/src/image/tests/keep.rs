//! What stays, what goes, and what works without a registry.

use super::*;

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
    let error = at.store.still().unwrap().remove(&names[0], &in_use).await.unwrap_err();
    assert_eq!(error.code(), "ImageInUse");
    let still = at.store.still().unwrap();
    let told = still.unused(&in_use).unwrap();
    assert_eq!(at.text(&b, 0, "which"), "b");
    let pruned = still.prune(&in_use).await.unwrap();
    assert_eq!((pruned.len(), &pruned[0].digest, &told[0].digest), (1, &b.digest, &b.digest));
    assert!(matches!(at.store.still(), Err(ImageError::Busy)), "two at once");
    drop(still);
    assert_eq!(at.text(&a, 0, "which"), "a");
    assert_eq!(at.text(&a, 1, "etc/passwd").len(), 22);
    assert_eq!(fs::read_dir(at.store.layers()).unwrap().count(), 2);
    at.store.still().unwrap().remove(&names[0], &HashSet::new()).await.unwrap();
    assert_eq!(at.everything(), at.empty);
    assert_eq!(at.store.still().unwrap().remove(&names[0], &HashSet::new()).await.unwrap_err().code(), "ImageNotFound");
}

#[tokio::test]
async fn images_are_listed_by_name_whatever_their_digests_are() {
    let (server, at) = (Server::start(), Fixture::new());
    let names = ["a", "b", "c", "d", "e", "f"].map(|name| format!("{}/{name}:1", server.address()));
    for (n, name) in names.iter().enumerate() {
        let image = Image::web().layer(Tar::default().file("which", &n.to_string()));
        server.push(&Built::of(&image), name.rsplit('/').next().unwrap(), &[]);
        at.ensure(name).await.unwrap();
    }
    let listed = at.store.list(&HashSet::new()).unwrap();
    assert_eq!(listed.iter().flat_map(|image| image.names.clone()).collect::<Vec<_>>(), names);
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
