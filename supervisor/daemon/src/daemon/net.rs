//! The network, for real: bridges and neighbours by netlink, both tables by nft.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_host::link::{Links, Network, Route};
use berth_host::{flows, fs, nft};
use berth_model::allocation::Pool;
use berth_model::event::ChangeKind;
use berth_model::kinds::Kind;
use berth_model::network::{Plan, Zone};
use berth_model::resource::Namespace;
use berth_model::resource::operation::Actor;
use berth_model::resource::{Bundle, Revision, Settings, settings};
use futures_util::future::BoxFuture;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use tokio::sync::{Mutex, watch};
use tracing::{error, info, warn};

use crate::bundle::seams::{Cause, Net};
use crate::metrics::{Effect, Metrics};
use crate::network::{self, Segment, rules};
use crate::store::{Change, EventType, Store, StoreError, Tx};

/// Every bridge of ours begins so.
const BRIDGE: &str = "berth";
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Changes looked at before the network is rendered anyway.
const BATCH: usize = 200;

/// The machine's links, packet filter and names. One at a time: the tables are written whole, so the last
/// writer has to be the one that read last.
pub struct LinuxNet {
    store: Store,
    zone: PathBuf,
    /// What new networks are taken from.
    pool: Pool,
    overlaps: watch::Sender<Vec<String>>,
    kernel: Mutex<Kernel>,
    metrics: Metrics,
}

struct Kernel {
    links: Links,
    /// What was told last.
    told: Option<Plan>,
}

impl LinuxNet {
    /// Opens a netlink socket. Names are written to that file; new networks are taken from that pool.
    ///
    /// # Errors
    /// The socket cannot be had.
    pub fn new(store: Store, zone: PathBuf, pool: Pool, metrics: Metrics) -> Result<Self, berth_host::link::LinkError> {
        let kernel = Kernel { links: Links::open()?, told: None };
        Ok(Self { store, zone, pool, overlaps: watch::Sender::default(), kernel: Mutex::new(kernel), metrics })
    }

    /// Where addresses of bundles overlap networks of other links at present, a sentence each.
    pub fn overlapping(&self) -> watch::Receiver<Vec<String>> {
        self.overlaps.subscribe()
    }

    /// The machine may come to another LAN while services run. They are left alone, and it is told.
    async fn notice_overlaps(&self) -> Result<(), Cause> {
        let plan = network::plan(&self.store).await?;
        let used = plan.networks.iter().flat_map(|network| &network.gateways).filter_map(|one| Pool::holding(*one));
        let pools: BTreeSet<Pool> = used.chain([self.pool]).collect();
        let found = self.overlaps(pools.into_iter().collect()).await?;
        Ok(self.found(found).await?)
    }

    async fn found(&self, found: Vec<String>) -> Result<(), StoreError> {
        let known = self.overlaps.borrow().clone();
        let news: Vec<String> = found.iter().filter(|overlap| !known.contains(overlap)).cloned().collect();
        // What cannot be recorded is news again at the next look.
        tell(&self.store, news).await?;
        self.overlaps.send_if_modified(|known| {
            let differs = *known != found;
            *known = found;
            differs
        });
        Ok(())
    }

    /// Brings the machine to what the store says, if that is news or is to be told again. Rules come last: what they let through has to be there, and new links come after them.
    async fn bring_about(&self, even_if_told: bool) -> Result<(), Cause> {
        let mut kernel = self.kernel.lock().await;
        let plan = network::plan(&self.store).await?;
        if !even_if_told && kernel.told.as_ref() == Some(&plan) {
            return Ok(());
        }
        // Until all is done, nobody knows what the kernel has.
        kernel.told = None;
        let written = self.write(&kernel.links, &plan).await;
        self.metrics.effect(Effect::NetworkApply, written.is_ok());
        written?;
        kernel.told = Some(plan);
        Ok(())
    }

    /// Where the kernel's rules differ from what it was told last, a sentence each. Before it was told anything there
    /// is nothing to compare with, which is a difference, too.
    pub(super) async fn differences(&self) -> Result<Vec<String>, Cause> {
        let kernel = self.kernel.lock().await;
        let Some(plan) = &kernel.told else { return Ok(vec!["the rules are not written yet".to_owned()]) };
        let mut differences = Vec::new();
        for table in rules::tables(plan) {
            differences.extend(table.differences().await?);
        }
        Ok(differences)
    }

    /// Brings bridges and rules to what the store says, whatever there is.
    pub(super) async fn write_anew(&self) -> Result<(), Cause> {
        self.bring_about(true).await
    }

    async fn write(&self, links: &Links, plan: &Plan) -> Result<(), Cause> {
        let segments = network::segments(plan);
        for segment in &segments {
            ensure(links, segment).await?;
        }
        nft::apply_together(&rules::tables(plan)).await?;
        forget_former(links, plan).await?;
        remove_unused(links, &segments).await?;
        self.write_names(&Zone::of(plan))
    }
}

/// Overlaps that nobody has heard of yet: in the log, and as events of the Settings, which stand for the machine.
async fn tell(store: &Store, news: Vec<String>) -> Result<(), StoreError> {
    if news.is_empty() {
        return Ok(());
    }
    news.iter().for_each(|overlap| warn!("{overlap}"));
    let actor = Actor { identity: "berthd".into(), source: "network".into() };
    let write = move |tx: &mut Tx<'_>| {
        let Some(settings) = tx.get::<Settings>("", settings::NAME)? else { return Ok(()) };
        news.iter().try_for_each(|overlap| {
            let message = format!("{overlap}; give the other link another network, or Berth another `pool`");
            tx.emit_event(&settings, EventType::Warning, "AddressPoolOverlap", &message)
        })
    };
    store.write(&actor, write).await
}

/// Follows the store: who may reach whom changes without any operation, by a bundle's dependencies,
/// a label or a policy. Now and then it is looked whether the tables are still there: other programs
/// flush all there are when they are reloaded. Runs until the store is closed.
pub async fn follow_store(net: Arc<LinuxNet>, store: Store, resync: Duration) {
    let mut newest = store.revision();
    let (mut seen, mut again) = (0, true);
    loop {
        let until = *newest.borrow_and_update();
        if (again || concerns(&store, seen).await)
            && let Err(error) = net.bring_about(again && is_gone().await).await
        {
            error!(
                error = error.as_ref() as &dyn std::error::Error,
                "the network is not as the store says; trying again"
            );
            tokio::time::sleep(RETRY).await;
            continue;
        }
        if again && let Err(error) = net.notice_overlaps().await {
            error!(error = error.as_ref() as &dyn std::error::Error, "the networks of other links cannot be looked at");
        }
        seen = until;
        again = match tokio::time::timeout(resync, newest.changed()).await {
            Ok(Ok(())) => false,
            Ok(Err(_)) => return,
            Err(_) => true,
        };
    }
}

/// Whether one of our tables is gone. Not to know is as bad.
async fn is_gone() -> bool {
    let ours = |tables: Vec<(String, String)>| tables.iter().filter(|(_, name)| name == rules::TABLE).count();
    nft::tables().await.map_or(0, ours) < 2
}

/// Whether anything the network is made from has changed. Too many changes to tell are a yes.
async fn concerns(store: &Store, seen: u64) -> bool {
    match store.changes(seen, BATCH).await {
        Ok(changes) => changes.len() == BATCH || changes.iter().any(|change| is_concerned(change)),
        Err(_) => true,
    }
}

fn is_concerned(change: &Change) -> bool {
    if change.kind == Bundle::registration() {
        return change.what != ChangeKind::Modified || is_other_wish(change);
    }
    let concerned = [Revision::registration(), NetworkPolicy::registration(), Namespace::registration()];
    concerned.contains(&change.kind) || change.kind == Settings::registration()
}

/// How a bundle fares, which changes with every step of an operation on it, is no matter of the network.
fn is_other_wish(change: &Change) -> bool {
    let before = change.previous.as_ref();
    ["/spec", "/metadata/labels"]
        .iter()
        .any(|part| change.object.pointer(part) != before.and_then(|before| before.pointer(part)))
}

impl LinuxNet {
    /// `berth-dns` reads the file whenever it is another one; it runs as nobody in particular.
    fn write_names(&self, zone: &Zone) -> Result<(), Cause> {
        let bytes = serde_json::to_vec_pretty(zone)?;
        if fs::read_optional(&self.zone)?.as_deref() != Some(bytes.as_slice()) {
            fs::atomic_write(&self.zone, &bytes, 0o644)?;
        }
        Ok(())
    }
}

async fn ensure(links: &Links, segment: &Segment) -> Result<(), Cause> {
    let own: Vec<Network> =
        segment.addresses.iter().map(|(address, prefix)| Network::new(*address, *prefix)).collect::<Result<_, _>>()?;
    links.ensure_bridge(&segment.bridge, &own).await?;
    links.ensure_neighbours(&segment.bridge, &segment.neighbours).await?;
    Ok(())
}

/// Whoever comes to an address meets no connections of those who had it before. An address without
/// a link has nobody whose connections could be lost.
async fn forget_former(links: &Links, plan: &Plan) -> Result<(), Cause> {
    let present: BTreeSet<String> = links.list("").await?.into_iter().map(|link| link.name).collect();
    let ends = plan.members.iter().flat_map(|member| &member.ends);
    let vacant: BTreeSet<IpAddr> =
        ends.filter(|end| !present.contains(&end.link)).flat_map(|end| end.addresses.iter().copied()).collect();
    let forgotten = flows::forget(&vacant).await?;
    if forgotten > 0 {
        info!(forgotten, "connections of former bundles are forgotten");
    }
    Ok(())
}

async fn remove_unused(links: &Links, used: &[Segment]) -> Result<(), Cause> {
    let keep: BTreeSet<&str> = used.iter().map(|segment| segment.bridge.as_str()).collect();
    for link in links.list(BRIDGE).await?.into_iter().filter(|link| link.kind == "bridge") {
        if !keep.contains(link.name.as_str()) {
            links.delete(&link.name).await?;
        }
    }
    Ok(())
}

impl Net for LinuxNet {
    fn configure(&self) -> BoxFuture<'_, Result<(), Cause>> {
        Box::pin(self.bring_about(true))
    }

    fn occupied(&self, port: u16, udp: bool) -> BoxFuture<'_, Result<bool, Cause>> {
        Box::pin(async move { taken(port, udp).map_err(Cause::from) })
    }

    fn connected<'a>(&'a self, to: &'a BTreeSet<IpAddr>) -> BoxFuture<'a, Result<usize, Cause>> {
        Box::pin(async move { Ok(flows::at_work(to).await?) })
    }

    fn forget<'a>(&'a self, gone: &'a BTreeSet<IpAddr>) -> BoxFuture<'a, Result<(), Cause>> {
        Box::pin(async move { Ok(flows::forget(gone).await.map(drop)?) })
    }

    fn overlaps(&self, pools: Vec<Pool>) -> BoxFuture<'_, Result<Vec<String>, Cause>> {
        Box::pin(async move {
            let (addresses, routes) = {
                let kernel = self.kernel.lock().await;
                (kernel.links.addresses().await?, kernel.links.routes().await?)
            };
            let addresses = addresses.into_iter().map(|own| Route { link: own.link, network: own.network });
            network::overlaps(&pools, addresses.chain(routes)).map_err(Cause::from)
        })
    }
}

/// Whether a program of this machine listens there, found out by trying. (A socket that listens on
/// one address only is in the way, too: published ports take all of the machine's addresses.)
fn taken(port: u16, udp: bool) -> std::io::Result<bool> {
    let everywhere = (Ipv4Addr::UNSPECIFIED, port);
    let tried = if udp { UdpSocket::bind(everywhere).map(drop) } else { TcpListener::bind(everywhere).map(drop) };
    match tried {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::Event;
    use serde_json::{Value, json};

    use super::*;

    fn change(what: ChangeKind, object: Value, previous: Option<Value>) -> Change {
        let actor = Actor { identity: "test".into(), source: "api".into() };
        let (kind, at) = (Bundle::registration(), Timestamp::UNIX_EPOCH);
        Change {
            resource_version: 1,
            kind,
            namespace: String::new(),
            name: String::new(),
            what,
            object,
            previous,
            actor,
            at,
        }
    }

    #[test]
    fn a_bundle_concerns_the_network_by_its_wish_and_its_labels_and_not_by_how_it_fares() {
        let before =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"image": "i"}, "status": {"phase": "Pending"}});
        let with = |part: &str, value: Value| {
            let mut after = before.clone();
            *after.pointer_mut(part).unwrap() = value;
            is_concerned(&change(ChangeKind::Modified, after, Some(before.clone())))
        };
        assert!(!with("/status", json!({"phase": "Running"})));
        assert!(with("/spec", json!({"image": "i", "dependsOn": ["db"]})));
        assert!(with("/metadata/labels", json!({})));
        assert!(is_concerned(&change(ChangeKind::Added, before.clone(), None)));
        assert!(is_concerned(&change(ChangeKind::Deleted, before.clone(), Some(before))));
    }
    #[tokio::test]
    async fn an_overlap_is_an_event_once_and_again_when_it_has_been_away() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("berth.db"), Arc::new(|| Timestamp::UNIX_EPOCH)).unwrap();
        let net = LinuxNet::new(store.clone(), dir.path().join("zone"), Pool::default(), Metrics::new()).unwrap();
        let count = || async {
            let events = store.read(|tx| tx.list::<Event>(None)).await.unwrap();
            let about = events.iter().filter(|one| one.reason.as_deref() == Some("AddressPoolOverlap"));
            about
                .map(|one| (one.message.clone().unwrap_or_default(), one.count.unwrap_or_default()))
                .collect::<Vec<_>>()
        };
        let lan = || vec!["10.213.0.0/16 overlaps link lan0".to_owned()];
        for found in [vec![], lan(), lan()] {
            net.found(found).await.unwrap();
        }
        let told = count().await;
        assert!(told[0].0.starts_with("10.213.0.0/16 overlaps link lan0; give the other link"), "{told:?}");
        assert_eq!((told.len(), told[0].1), (1, 1));
        for found in [vec![], lan()] {
            net.found(found).await.unwrap();
        }
        assert_eq!(count().await[0].1, 2);
        assert_eq!(*net.overlapping().borrow(), lan());
    }
}
