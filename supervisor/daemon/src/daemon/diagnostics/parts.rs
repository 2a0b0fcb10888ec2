//! Berth's own parts, and what they lean on besides the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use berth_host::systemd::{ActiveState, UnitSummary};
use berth_model::condition::Reason;
use berth_model::diagnostics::{Area, Finding, Outcome};
use berth_model::id::ImageReference;
use berth_model::resource::Bundle;
use berth_model::resource::bundle::Phase;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::net::TcpStream;

use super::{Examiner, timed, unseen};
use crate::network;

/// What Berth is made of, and what stands still without it.
const UNITS: [(&str, &str); 3] = [
    ("berth-setup.service", "Keys and certificates have not been looked at since the boot."),
    ("berth-dns.service", "Services cannot look up any name."),
    ("berth-exec.socket", "No command can be run in a service, and health checks by a command fail."),
];
/// How long a name server, or a registry, may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Less than this is left of a certificate that should have been renewed long ago.
const SHORT: SignedDuration = SignedDuration::from_hours(24 * 7);
/// Port of registries unless their name says another.
const HTTPS: u16 = 443;

impl Examiner {
    /// All of it; with `repair`, what should run and does not is started.
    pub(super) async fn parts(&self, repair: bool) -> Vec<Finding> {
        let mut findings = vec![timed(self.units(repair)).await];
        findings.push(timed(self.records()).await);
        findings.push(timed(async { self.keys() }).await);
        findings.push(timed(async { certificate(self.certificate.facts().until, (self.clock)()) }).await);
        findings.push(timed(self.rules(repair)).await);
        findings.push(timed(self.names()).await);
        findings.push(timed(self.registries()).await);
        findings.push(timed(async { boot_slot() }).await);
        findings.push(timed(self.services(repair)).await);
        findings
    }

    async fn units(&self, repair: bool) -> Finding {
        let (name, wanted) = ("systemd", UNITS.map(|(unit, _)| unit));
        let listed = match self.systemd.list(&wanted).await {
            Ok(listed) => listed,
            Err(error) => return unseen(Area::Berth, name, &error),
        };
        let mut finding = units(&listed);
        let down: Vec<&str> = down(&listed).map(|(unit, _)| unit).collect();
        for unit in down.into_iter().filter(|_| repair) {
            finding.repaired.push(match self.systemd.start(unit).await {
                Ok(outcome) => format!("started {unit}: {outcome:?}"),
                Err(error) => format!("starting {unit} failed: {}", crate::log::chain(&error)),
            });
        }
        finding
    }

    async fn records(&self) -> Finding {
        let name = "store";
        match self.store.read(|tx| tx.list::<Bundle>(None)).await {
            Ok(bundles) => {
                let seen = format!(
                    "it answers, and holds {} bundles; {} writes wait",
                    bundles.len(),
                    self.store.queue_depth()
                );
                Finding::new(Area::Berth, name, Outcome::Ok, seen)
            }
            Err(error) => unseen(Area::Berth, name, &error),
        }
    }

    fn keys(&self) -> Finding {
        let name = "master key";
        match self.sealer.locked() {
            None => Finding::new(Area::Berth, name, Outcome::Ok, "it is unsealed, and opens the keys"),
            Some(why) => Finding::new(Area::Berth, name, Outcome::Problem, crate::log::chain(why)).means(
                "Secrets cannot be read and volumes cannot be opened.",
                "`berth setup` checks the keys and says what is wrong with them.",
            ),
        }
    }

    async fn rules(&self, repair: bool) -> Finding {
        let name = "packet filter";
        let mut finding = match self.net.differences().await {
            Ok(differences) if differences.is_empty() => {
                return Finding::new(Area::Berth, name, Outcome::Ok, "the kernel has the rules it was told");
            }
            Ok(differences) => Finding::new(Area::Berth, name, Outcome::Problem, differences.join("; ")).means(
                "Services may not be reached, or by those who should not reach them.",
                "`berth diagnostics --repair` writes the rules anew; see which program of this machine changes them.",
            ),
            Err(error) => unseen(Area::Berth, name, &*error),
        };
        if repair {
            finding.repaired.push(match self.net.write_anew().await {
                Ok(()) => "wrote bridges and rules anew".to_owned(),
                Err(error) => format!("writing the rules anew failed: {}", crate::log::chain(&*error)),
            });
        }
        finding
    }

    /// Asks the name server on one bridge; any answer shows that it lives.
    async fn names(&self) -> Finding {
        let name = "names";
        let plan = match network::plan(&self.store).await {
            Ok(plan) => plan,
            Err(error) => return unseen(Area::Berth, name, &error),
        };
        let gateways = plan.networks.iter().flat_map(|network| network.gateways.iter().copied());
        let Some(server) = gateways.into_iter().find(IpAddr::is_ipv4) else {
            return Finding::new(Area::Berth, name, Outcome::Skipped, "there is no network of bundles to ask on yet");
        };
        let asked = tokio::task::spawn_blocking(move || ask(SocketAddr::new(server, 53)));
        match asked.await {
            Ok(Ok(())) => Finding::new(Area::Berth, name, Outcome::Ok, format!("berth-dns answers on {server}")),
            Ok(Err(error)) => {
                Finding::new(Area::Berth, name, Outcome::Problem, format!("berth-dns on {server}: {error}"))
                    .means("Services cannot look up any name.", "`systemctl status berth-dns`; `--repair` starts it.")
            }
            Err(error) => unseen(Area::Berth, name, &error),
        }
    }

    /// The registries that services come from: whether their names are known and they can be connected to.
    async fn registries(&self) -> Finding {
        let name = "registries";
        let hosts = match self.store.read(|tx| tx.list::<Bundle>(None)).await {
            Ok(bundles) => registries(bundles.iter().map(|bundle| bundle.spec.image.as_str())),
            Err(error) => return unseen(Area::Berth, name, &error),
        };
        if hosts.is_empty() {
            return Finding::new(Area::Berth, name, Outcome::Skipped, "no service comes from a registry");
        }
        let (mut answer, mut silent) = (Vec::new(), Vec::new());
        for (host, port) in hosts {
            match tokio::time::timeout(PATIENCE, TcpStream::connect((host.as_str(), port))).await {
                Ok(Ok(_)) => answer.push(host),
                Ok(Err(error)) => silent.push(format!("{host}:{port}: {error}")),
                Err(_) => silent.push(format!("{host}:{port}: no answer within {} s", PATIENCE.as_secs())),
            }
        }
        match silent.as_slice() {
            [] => Finding::new(Area::Berth, name, Outcome::Ok, format!("{} can be connected to", answer.join(", "))),
            silent => Finding::new(Area::Berth, name, Outcome::Warning, silent.join("; ")).means(
                "Services run on; what is not on the machine yet cannot be installed or updated from there.",
                "Check the machine's network, its name servers and its proxies.",
            ),
        }
    }

    /// Whether all that should run does.
    async fn services(&self, repair: bool) -> Finding {
        let name = "services";
        let bundles = match self.store.read(|tx| tx.list::<Bundle>(None)).await {
            Ok(bundles) => bundles,
            Err(error) => return unseen(Area::Berth, name, &error),
        };
        let down: Vec<&Bundle> = bundles.iter().filter(|bundle| is_down(bundle)).collect();
        if down.is_empty() {
            let seen = format!("{} are as they should be", bundles.len());
            return Finding::new(Area::Berth, name, Outcome::Ok, seen);
        }
        let said: Vec<String> = down.iter().map(|bundle| complaint(bundle)).collect();
        let mut finding = Finding::new(Area::Berth, name, Outcome::Problem, said.join("; ")).means(
            "These services do not serve although they should.",
            "`berth status NAME` says why; `berth logs NAME` what it wrote.",
        );
        for bundle in down.into_iter().filter(|_| repair) {
            let (namespace, name) = named(bundle);
            finding.repaired.push(match self.loopback.restart(namespace, name).await {
                Ok(operation) => format!("asked for {namespace}/{name} to be restarted: {operation}"),
                Err(error) => format!("{namespace}/{name} cannot be restarted: {error}"),
            });
        }
        finding
    }
}

fn down(listed: &[UnitSummary]) -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_up = |unit: &str| listed.iter().any(|one| one.name == unit && one.active == ActiveState::Active);
    UNITS.into_iter().filter(move |(unit, _)| !is_up(unit))
}

fn units(listed: &[UnitSummary]) -> Finding {
    let (units, meanings): (Vec<&str>, Vec<&str>) = down(listed).unzip();
    match units.as_slice() {
        [] => Finding::new(Area::Berth, "systemd", Outcome::Ok, "it answers, and all of Berth's units are active"),
        units => Finding::new(Area::Berth, "systemd", Outcome::Problem, format!("not active: {}", units.join(", ")))
            .means(meanings.join(" "), format!("`systemctl status {}`; `--repair` starts them.", units.join(" "))),
    }
}

fn certificate(until: Timestamp, now: Timestamp) -> Finding {
    let name = "certificate";
    let left = now.duration_until(until);
    let seen = format!("the API's certificate is valid until {until}");
    let advice = "`systemctl restart berthd` makes a new one; see whether the clock is right.";
    if left <= SignedDuration::ZERO {
        return Finding::new(Area::Berth, name, Outcome::Problem, seen)
            .means("Nobody who checks it can connect over the network.", advice);
    }
    match left < SHORT {
        true => Finding::new(Area::Berth, name, Outcome::Warning, seen).means("It should have been renewed.", advice),
        false => Finding::new(Area::Berth, name, Outcome::Ok, seen),
    }
}

fn boot_slot() -> Finding {
    let seen = "Berth was installed as a package: the machine has one system and no slots to choose from";
    Finding::new(Area::Berth, "boot slot", Outcome::Skipped, seen)
}

fn named(bundle: &Bundle) -> (&str, &str) {
    (bundle.metadata.namespace.as_deref().unwrap_or_default(), bundle.metadata.name.as_deref().unwrap_or_default())
}

/// It should run and does not, and nobody has stopped it with `systemctl` or is at work on it.
fn is_down(bundle: &Bundle) -> bool {
    let Some(status) = &bundle.status else { return false };
    let settled = matches!(status.phase, Phase::Failed | Phase::Running);
    let stopped = |one: &Condition| one.reason == Reason::StoppedByOperator.name();
    let obstacle = obstacle(bundle).is_some_and(|one| !stopped(one));
    bundle.spec.start && bundle.metadata.deletion_timestamp.is_none() && settled && obstacle
}

/// The first condition that does not hold: that is where it hangs.
fn obstacle(bundle: &Bundle) -> Option<&Condition> {
    bundle.status.as_ref()?.conditions.iter().find(|one| one.status != "True")
}

fn complaint(bundle: &Bundle) -> String {
    let (namespace, name) = named(bundle);
    let (reason, message) = obstacle(bundle).map(|one| (one.reason.as_str(), one.message.as_str())).unwrap_or_default();
    format!("{namespace}/{name} does not serve ({reason}: {message})")
}

/// Host and port of each; images that were brought by hand come from none.
fn registries<'a>(images: impl Iterator<Item = &'a str>) -> BTreeMap<String, u16> {
    let references = images.filter_map(|image| ImageReference::try_from(image).ok());
    let hosts: BTreeSet<String> = references.map(|one| one.reference().resolve_registry().to_owned()).collect();
    let hosts = hosts.iter().filter(|host| host.as_str() != "localhost");
    let split = |host: &String| match host.rsplit_once(':').map(|(name, port)| (name, port.parse())) {
        Some((name, Ok(port))) => (name.trim_matches(['[', ']']).to_owned(), port),
        _ => (host.clone(), HTTPS),
    };
    hosts.map(split).collect()
}

/// Whether anybody answers a question for a name: one question and the head of its answer, which is all a look needs.
fn ask(server: SocketAddr) -> std::io::Result<()> {
    let question = b"\x2b\x17\x01\x00\0\x01\0\0\0\0\0\0\x05berth\x08internal\0\0\x06\0\x01";
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut answer = [0; 512];
    match socket.recv(&mut answer)? {
        12.. if answer[..2] == question[..2] && answer[2] & 0x80 != 0 => Ok(()),
        _ => Err(std::io::Error::other("what answers is no name server")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, active: ActiveState) -> UnitSummary {
        UnitSummary { name: name.to_owned(), description: String::new(), active, sub: String::new(), job: None }
    }

    #[test]
    fn a_part_that_does_not_run_is_named_with_what_stands_still_without_it() {
        let up = UNITS.map(|(name, _)| unit(name, ActiveState::Active));
        assert_eq!(units(&up).result, Outcome::Ok);
        let mut some = up.to_vec();
        some[1].active = ActiveState::Failed;
        let found = units(&some);
        assert_eq!((found.result, found.message.as_str()), (Outcome::Problem, "not active: berth-dns.service"));
        assert_eq!(found.meaning, "Services cannot look up any name.");
        assert_eq!(units(&[]).meaning.matches('.').count(), 3);
    }

    #[test]
    fn a_certificate_is_a_warning_in_its_last_week_and_a_problem_when_it_has_ended() {
        let until: Timestamp = "2026-03-10T00:00:00Z".parse().unwrap();
        let on = |day: &str| certificate(until, format!("2026-03-{day}T00:00:01Z").parse().unwrap()).result;
        assert_eq!([on("01"), on("04"), on("10")], [Outcome::Ok, Outcome::Warning, Outcome::Problem]);
    }

    #[test]
    fn a_service_is_down_if_it_should_run_and_nobody_has_stopped_it() {
        let bundle = |start: bool, phase: &str, status: &str, reason: &str| -> Bundle {
            let condition = |kind: &str, status: &str, reason: &str| {
                serde_json::json!({"type": kind, "status": status, "reason": reason, "message": "m",
                                   "lastTransitionTime": "2026-03-01T00:00:00Z"})
            };
            let conditions = [condition("Bound", status, reason), condition("Ready", status, "StartPending")];
            let object = serde_json::json!({"metadata": {"namespace": "a", "name": "web"},
                "spec": {"image": "x", "start": start}, "status": {"phase": phase, "conditions": conditions}});
            serde_json::from_value(object).unwrap()
        };
        let failed = bundle(true, "Failed", "False", "WorkloadFailed");
        assert!(is_down(&failed));
        assert_eq!(complaint(&failed), "a/web does not serve (WorkloadFailed: m)");
        assert!(is_down(&bundle(true, "Running", "False", "StartFailed")));
        assert!(!is_down(&bundle(true, "Running", "True", "StartCompleted")));
        assert!(!is_down(&bundle(true, "Progressing", "False", "WorkloadPending")));
        assert!(!is_down(&bundle(false, "Failed", "False", "StartFailed")));
        assert!(!is_down(&bundle(true, "Running", "False", "StoppedByOperator")));
    }

    #[test]
    fn registries_are_taken_from_the_names_of_images_and_localhost_is_none() {
        let images = ["127.0.0.1:5000/nginx:1", "localhost/web:1", "quay.io/a/b@sha256:00", "nginx"];
        let found = registries(images.into_iter());
        assert_eq!(found.get("127.0.0.1"), Some(&5000));
        assert!(found.keys().all(|host| host != "localhost"), "{found:?}");
        assert!(found.contains_key("index.docker.io"), "{found:?}");
    }

    #[test]
    fn a_name_server_that_is_not_there_is_found_out() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = silent.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut question = [0; 64];
            let (length, from) = silent.recv_from(&mut question).unwrap();
            question[2] |= 0x80;
            silent.send_to(&question[..length], from).unwrap();
        });
        ask(server).unwrap();
        answering.join().unwrap();
        assert!(ask(server).is_err());
    }
}
