//! Registries that are slow, flap, or want to be left alone for a while.

use super::*;

/// An image with one layer of so many bytes of noise, in the registry as `web:1`.
fn pushed(server: &Server, size: usize) -> Image {
    let image = Image::new().layer(Tar::default().noise("big", size, 5));
    server.push(&Built::of(&image), "web:1", &["--preserve-digests"]);
    image
}

/// The ranges in which a blob was asked for.
fn ranges(proxy: &Proxy, digest: &str) -> Vec<String> {
    let asked = proxy.seen().into_iter().filter(|line| line.contains(digest));
    asked.map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_layer_that_takes_longer_than_anybody_waits_for_a_byte_comes_over_one_connection_as_long_as_bytes_come() {
    let (server, at) = (Server::start(), Fixture::hurried());
    let proxy = Proxy::start(&server).await;
    let image = pushed(&server, 1 << 16);
    proxy.faults(&[Fault::IgnoreRange, Fault::Drip(60)]);
    at.ensure(&format!("{}/web:1", proxy.address())).await.unwrap();
    assert_eq!(ranges(&proxy, &image.packed_layer(0).0), [""], "nobody gave up in between");
}

#[tokio::test]
async fn a_layer_that_stops_coming_goes_on_over_another_connection() {
    let (server, at) = (Server::start(), Fixture::hurried());
    let proxy = Proxy::start(&server).await;
    let image = pushed(&server, 1 << 16);
    proxy.faults(&[Fault::IgnoreRange, Fault::Stall(30_000), Fault::Stall(10_000)]);
    at.ensure(&format!("{}/web:1", proxy.address())).await.unwrap();
    assert_eq!(ranges(&proxy, &image.packed_layer(0).0), ["", "bytes=30000-", "bytes=40000-"]);
}

#[tokio::test]
async fn a_registry_that_stops_talking_every_time_ends_in_an_error_that_says_how_far_it_came() {
    let (server, at) = (Server::start(), Fixture::hurried());
    let proxy = Proxy::start(&server).await;
    let (digest, size) = pushed(&server, 1 << 16).packed_layer(0);
    let name = format!("{}/web:1", proxy.address());
    proxy.faults(&[&[Fault::IgnoreRange][..], &[Fault::Stall(100); 3]].concat());
    at.assert_refused(at.ensure(&name).await, "TransferInterrupted", &[&digest, &format!("300 of {size} bytes")]);
    proxy.faults(&[Fault::Silence; 3]);
    at.assert_refused(at.ensure(&name).await, "RegistryUnreachable", &[proxy.address(), "does not answer"]);
}

#[tokio::test]
async fn a_registry_that_ends_connections_again_and_again_gives_the_whole_image_in_the_end() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    let image = pushed(&server, 6 << 20);
    // As far as a connection comes: any four of them come further than what counts as headway.
    let lengths = [300_000, 1_200_000, 290_000, 270_000, 310_000, 280_000, 700_000, 265_000, 1_000_000];
    let cuts = lengths.map(Fault::Cut);
    let flaps = [Fault::HangUp, Fault::HangUp, Fault::Status(502), Fault::IgnoreRange];
    proxy.faults(&[&flaps[..], &cuts].concat());
    let found = at.ensure(&format!("{}/web:1", proxy.address())).await.unwrap();
    assert_eq!(directories(&found), image.unpacked());
    let mut stopped = lengths.iter().scan(0, |sum, length| {
        *sum += length;
        Some(format!("bytes={sum}-"))
    });
    let asked = ranges(&proxy, &image.packed_layer(0).0);
    assert_eq!(asked.first().map(String::as_str), Some(""));
    assert!(asked[1..].iter().all(|range| Some(range) == stopped.next().as_ref()), "{asked:?}");
    assert_eq!(asked.len(), 1 + lengths.len());
}

#[tokio::test]
async fn a_registry_that_says_when_to_come_again_is_not_asked_before() {
    for busy in [Fault::Busy(429, 1), Fault::Busy(503, 1), Fault::BusyBlob(429, 1), Fault::BusyBlob(503, 1)] {
        let (server, at) = (Server::start(), Fixture::new());
        let proxy = Proxy::start(&server).await;
        pushed(&server, 1 << 10);
        proxy.faults(&[busy]);
        // Its pauses of their own are so short that all tries would be over by then.
        let found = at.ensure(&format!("{}/web:1", proxy.address())).await;
        assert!(found.is_ok(), "{busy:?}: {}", chain(&found.unwrap_err()));
    }
}

#[tokio::test]
async fn a_registry_that_wants_to_be_left_alone_for_longer_than_anybody_waits_is_asked_once_and_told_so() {
    let (server, at) = (Server::start(), Fixture::new());
    let proxy = Proxy::start(&server).await;
    pushed(&server, 1 << 10);
    proxy.faults(&[Fault::Busy(429, 3600)]);
    let result = at.ensure(&format!("{}/web:1", proxy.address())).await;
    assert!(result.as_ref().unwrap_err().is_transient());
    at.assert_refused(result, "RegistryFailed", &["asked too often", "left alone for 3600 s"]);
    assert_eq!(proxy.seen().len(), 1);
    let proxy = Proxy::start(&server).await;
    proxy.faults(&[Fault::Busy(503, 3600)]);
    let result = at.ensure(&format!("{}/web:1", proxy.address())).await;
    at.assert_refused(result, "RegistryFailed", &["answered 503, and wants to be left alone for 3600 s"]);
}
