//! Images of every kind from a registry that behaves.

use std::sync::Mutex;

use super::*;

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
