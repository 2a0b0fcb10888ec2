//! Wiring: the only place that knows every domain.
//!
//! ```text
//!  API --writes--> store --changes--> bundle driver --operations--> store --> runner --> steps
//!                                        ^                                       |
//!                     systemd's signals -+        images, units, network <-------+
//! ```
//!
//! Everything ends with one token: on SIGTERM the listeners stop accepting, watches end, operations
//! are dropped where they stand (their records say how far they were), the store is closed. Services
//! are systemd's and go on.

mod alarm;
mod ballast;
mod cleanup;
mod commands;
mod diagnostics;
mod disks;
mod health;
mod housekeeping;
mod images;
mod logs;
pub mod machine;
mod memory;
mod mirror;
pub mod net;
mod node;
mod notify;
mod pressure;
mod profiles;
mod properties;
mod provided;
mod references;
mod sightings;
mod signals;
mod slices;
mod slots;
mod support;
mod system;
mod usage;
pub(crate) mod volumes;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use berth_host::cmd::CmdError;
use berth_host::fs;
use berth_host::systemd::{Systemd, SystemdError};
use ring::rand::SystemRandom;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::api::{self, Api, Readiness, Rights, WatchPace};
use crate::audit::{AuditError, Notary};
use crate::auth::attempts::Attempts;
use crate::auth::ca::{Authority, CaError, ServerCertificate};
use crate::auth::claim::{Claim, ClaimError};
use crate::auth::passkey::Challenges;
use crate::auth::{AuthError, Authenticator, accounts, machine_names};
use crate::bundle::steps::{DRAIN, PATIENCE, Steps, Turns};
use crate::bundle::{BundleError, Bundles};
use crate::config::Config;
use crate::image::{ImageError, ImageStore};
use crate::metrics::Metrics;
use crate::operation::{ABORT_FILE_VARIABLE, AbortPoints, Runner};
use crate::reconcile::Driver;
use crate::schedule::Scheduler;
use crate::secret::{self, MasterKey, Sealer, SystemdCreds, Vault};
use crate::store::{Clock, Store, StoreError, house_keeping};
use crate::update::Updates;
use crate::volume::Volumes;
use cleanup::Cleaner;
use diagnostics::Examiner;
use machine::LinuxMachine;
use net::LinuxNet;

/// What is in files here is shown to whoever logs in at the machine's console.
const CONSOLE: &str = "/run/issue.d";
/// Names of bundles that wait to be looked at; more make their senders wait.
const SIGNALS: usize = 256;

/// The daemon cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The database.
    #[error("opening the store")]
    Store(#[from] StoreError),
    /// The images on disk.
    #[error("opening the images")]
    Images(#[from] ImageError),
    /// What runs of what should.
    #[error("looking at what runs")]
    Bundles(#[from] BundleError),
    /// systemd.
    #[error("reaching systemd")]
    Systemd(#[from] SystemdError),
    /// Links and addresses.
    #[error("reaching the network's configuration")]
    Links(#[from] berth_host::link::LinkError),
    /// Directories under `/run` and `/var/lib`.
    #[error("preparing directories")]
    Runtime(#[from] berth_host::fs::FsError),
    /// A new epoch of the master key was left half in use.
    #[error("taking the newest master key into use")]
    Epoch(#[source] CmdError),
    /// Certificate authority.
    #[error("preparing the API's certificate; `berthd setup` makes the authority")]
    Certificate(#[from] CaError),
    /// The code by which the machine is claimed.
    #[error("preparing the code by which the machine is claimed")]
    Claim(#[from] ClaimError),
    /// Audit records.
    #[error("preparing the audit records")]
    Audit(#[from] AuditError),
    /// Token.
    #[error("reading the owner's token; `berthd setup` makes it")]
    Token(#[from] AuthError),
    /// A listener or a signal handler.
    #[error("{doing}")]
    Io {
        /// What.
        doing: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> DaemonError {
    let doing = doing.into();
    move |source| DaemonError::Io { doing, source }
}

/// The parts that others are made from.
struct Parts {
    store: Store,
    images: ImageStore,
    machine: Arc<LinuxMachine>,
    systemd: Systemd,
    metrics: Metrics,
    sealer: Sealer,
    notary: Arc<Notary>,
    volumes: Volumes,
    net: Arc<LinuxNet>,
    clock: Clock,
    stop: CancellationToken,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`DaemonError`]: something it cannot do without is missing.
pub async fn run(config: Config, clock: Clock) -> Result<(), DaemonError> {
    let parts = open(&config, clock).await?;
    let tasks = TaskTracker::new();
    parts.volumes.tidy().await?;
    let cleaner = Arc::new(cleaner(&parts, &config));
    spawn_operations(&parts, &config, Arc::clone(&cleaner), &tasks);
    spawn_bundles(&parts, &config, &tasks).await?;
    spawn_schedules(&parts, &tasks).await?;
    let certificate = spawn_api(&parts, &config, Arc::clone(&cleaner), &tasks).await?;
    housekeeping::spawn(&parts, Arc::clone(&cleaner), certificate, &tasks);
    pressure::spawn(cleaner, &parts, &tasks);
    ballast::spawn(&config.data, &parts, &tasks);
    memory::spawn(&parts, &tasks);
    mirror::spawn(&parts, &config, &tasks)?;
    notify::ready();
    notify::spawn_watchdog(parts.store.clone(), parts.stop.clone(), &tasks);
    info!("berthd {} is up and listens on {}", env!("CARGO_PKG_VERSION"), config.listen);
    terminated().await?;
    notify::stopping();
    parts.stop.cancel();
    tasks.close();
    tasks.wait().await;
    sign_audit(&parts).await;
    parts.store.close().await;
    Ok(())
}

/// The chain is signed as far as it goes, so that what is taken off its end while nobody looks is seen.
async fn sign_audit(parts: &Parts) {
    let notary = parts.notary.clone();
    if let Err(error) = parts.store.write(&house_keeping(), move |tx| notary.sign(tx)).await {
        tracing::error!("signing the audit records failed: {}", crate::log::chain(&error));
    }
}

async fn open(config: &Config, clock: Clock) -> Result<Parts, DaemonError> {
    let store = Store::open(&config.database(), Arc::clone(&clock))?;
    tokio::spawn(Store::forget_copies(config.database()));
    let metrics = Metrics::new();
    metrics.ask(Arc::new(usage::Usage { store: store.clone(), data: config.data.clone() }));
    let systemd = Systemd::connect().await?;
    let sealer = sealer(config).await?;
    let keys = Arc::new(volumes::SealedKeys(sealer.clone()));
    let disks = Arc::new(disks::LinuxDisks::new(&config.data)?);
    let names = config.runtime.join("dns");
    fs::ensure_dir(&names, 0o755)?;
    Ok(Parts {
        volumes: Volumes::new(store.clone(), disks, keys),
        net: Arc::new(LinuxNet::new(store.clone(), names.join("zone.json"), config.network_pool, metrics.clone())?),
        images: images::open(&config.data).await?,
        machine: Arc::new(LinuxMachine::new(systemd.clone(), &config.runtime, metrics.clone())?),
        systemd,
        metrics,
        sealer,
        notary: Arc::new(Notary::open(&config.data)?),
        clock,
        stop: CancellationToken::new(),
        store,
    })
}

fn spawn_operations(parts: &Parts, config: &Config, cleaner: Arc<Cleaner>, tasks: &TaskTracker) {
    let follow = net::follow_store(Arc::clone(&parts.net), parts.store.clone(), config.reconcile_interval);
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(follow));
    let quotas = slices::follow_store(parts.systemd.clone(), parts.store.clone());
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(quotas));
    let steps = Steps {
        store: parts.store.clone(),
        machine: parts.machine.clone(),
        images: Arc::new(local_images(parts)),
        provider: Arc::new(objects(parts)),
        net: parts.net.clone(),
        volumes: Arc::new(volumes::BundleVolumes(parts.volumes.clone())),
        layers: parts.images.layers().to_owned(),
        pool: config.network_pool,
        drawn: drawn(),
        drain: DRAIN,
        turns: Turns::new(PATIENCE),
    };
    let abort = AbortPoints::from_file(std::env::var_os(ABORT_FILE_VARIABLE).map(PathBuf::from));
    let (bundles, volumes) = (Arc::new(steps), Arc::new(parts.volumes.clone()));
    let executor = volumes::ByTarget { bundles, volumes, machine: cleaner, updates: Arc::new(updates(parts, config)) };
    let runner = Runner::new(parts.store.clone(), Arc::new(executor), abort, parts.metrics.clone());
    let runner = runner.noting(api::note_wish);
    tasks.spawn(runner.run(parts.stop.clone()));
}

/// Whose signatures of new versions are good.
const RELEASE_KEYS: &str = "/usr/share/berth/release-keys";

fn updates(parts: &Parts, config: &Config) -> Updates {
    Updates {
        store: parts.store.clone(),
        slots: Arc::new(slots::LinuxSlots::new(parts.systemd.clone(), &config.data)),
        http: parts.images.http(),
        folder: config.data.join("update"),
        keys: RELEASE_KEYS.into(),
    }
}

fn drawn() -> [u8; 5] {
    let [.., a, b, c, d, e] = uuid::Uuid::new_v4().into_bytes();
    [a, b, c, d, e]
}

async fn spawn_bundles(parts: &Parts, config: &Config, tasks: &TaskTracker) -> Result<(), BundleError> {
    let (wake, signals) = mpsc::channel(SIGNALS);
    let (store, machine, clock) = (parts.store.clone(), parts.machine.clone(), Arc::clone(&parts.clock));
    let bundles = Bundles::new(store, machine, Arc::new(objects(parts)), clock, wake.clone());
    bundles.doubt().await?;
    let driver = Driver::new("bundle", Arc::new(bundles), config.reconcile_interval, parts.metrics.clone());
    tasks.spawn(driver.run(signals, parts.stop.clone()));
    let from_store = signals::from_store(parts.store.clone(), wake.clone());
    let from_systemd = signals::from_systemd(parts.systemd.clone(), parts.machine.clone(), parts.store.clone(), wake);
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(from_store));
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(from_systemd));
    Ok(())
}

async fn spawn_schedules(parts: &Parts, tasks: &TaskTracker) -> Result<(), DaemonError> {
    let alarm = alarm::LinuxAlarm::new().map_err(io_error("making a timer"))?;
    let clock = Arc::clone(&parts.clock);
    let scheduler = Scheduler::new(parts.store.clone(), clock, Arc::new(alarm), parts.metrics.clone());
    scheduler.prepare().await?;
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(scheduler.run()));
    Ok(())
}

async fn spawn_api(
    parts: &Parts,
    config: &Config,
    cleaner: Arc<Cleaner>,
    tasks: &TaskTracker,
) -> Result<ServerCertificate, DaemonError> {
    accounts::show_built_in_roles(&parts.store).await?;
    let now = (parts.clock)();
    let authority = Arc::new(Authority::open_or_create(&config.data, now)?);
    let names = machine_names().map_err(io_error("reading the machine's names and addresses"))?;
    let certificate = ServerCertificate::open(Arc::clone(&authority), &names, now)?;
    let examiner = Arc::new(Examiner::new(parts, config, Arc::clone(&cleaner), certificate.clone()));
    let hostname = nix::unistd::gethostname().map_err(|errno| io_error("reading the machine's name")(errno.into()))?;
    let hostname = hostname.to_string_lossy();
    let claim = Arc::new(Claim::open(&parts.store, &config.runtime, Path::new(CONSOLE), &hostname).await?);
    let router = router(parts, config, cleaner, Arc::clone(&examiner), (claim, authority))?;
    examiner.begin(router.clone(), parts, tasks);
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.map_err(io_error(format!("listening on {}", config.listen)))?;
    let socket = api::bind_socket(&config.socket());
    let socket = socket.map_err(io_error(format!("listening on {}", config.socket().display())))?;
    tasks.spawn(api::serve_tls(listener, certificate.tls()?, router.clone(), parts.stop.clone()));
    tasks.spawn(api::serve_socket(socket, router, parts.stop.clone()));
    Ok(certificate)
}

fn router(
    parts: &Parts,
    config: &Config,
    cleanup: Arc<Cleaner>,
    examiner: Arc<Examiner>,
    (claim, authority): (Arc<Claim>, Arc<Authority>),
) -> Result<Router, DaemonError> {
    Ok(api::router(Api {
        store: parts.store.clone(),
        sealer: parts.sealer.clone(),
        authenticator: Authenticator::open(&config.data, parts.store.clone())?,
        authority,
        attempts: Attempts::default(),
        challenges: Challenges::default(),
        rights: Rights::default(),
        settings: api::CurrentSettings::default(),
        limiter: api::Limiter::default(),
        claim,
        notary: parts.notary.clone(),
        refusals: api::Refusals::default(),
        metrics: parts.metrics.clone(),
        readiness: Readiness::default(),
        images: Arc::new(local_images(parts)),
        cleanup,
        system: Arc::new(system::System::new(parts, config, examiner)),
        logs: Arc::new(logs::JournalLogs::new(parts.store.clone())),
        overlaps: parts.net.overlapping(),
        commands: Arc::new(commands::Commands::new(parts.store.clone(), &config.runtime)),
        clock: Arc::clone(&parts.clock),
        stop: parts.stop.clone(),
        pace: WatchPace::default(),
    }))
}

/// Opens the keys with the master key that systemd unsealed, or stays locked and says why. If an
/// erasure was cut short while it took a new master key into use, systemd may have unsealed the old one.
async fn sealer(config: &Config) -> Result<Sealer, DaemonError> {
    let keys = config.data.join("keys");
    let master = if secret::finish_epoch(&keys)? {
        let sealed = fs::read_optional(&keys.join("master.cred"))?.unwrap_or_default();
        MasterKey::from_bytes(&SystemdCreds.unseal(&sealed).await.map_err(DaemonError::Epoch)?)
    } else {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        MasterKey::from_credentials(credentials.as_deref())
    };
    Ok(Sealer::open(&keys, master, Arc::new(SystemRandom::new())))
}

fn objects(parts: &Parts) -> provided::Objects {
    provided::Objects::new(parts.store.clone(), parts.sealer.clone())
}

fn local_images(parts: &Parts) -> images::LocalImages {
    images::LocalImages { images: parts.images.clone(), store: parts.store.clone(), metrics: parts.metrics.clone() }
}

fn cleaner(parts: &Parts, config: &Config) -> Cleaner {
    Cleaner::new(local_images(parts), &config.data, Arc::clone(&parts.clock))
}

/// Waits for the request to end.
async fn terminated() -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(io_error("listening for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io_error("listening for SIGINT"))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
