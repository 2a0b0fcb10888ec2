//! An examination of the machine: everything Berth depends on, looked at once, each with what it means and what to do.
//!
//! ```text
//! POST system/diagnostics ─> ground   what the kernel, the disk and the clock give
//!                         ─> parts    systemd, Berth's own units, keys, certificate, rules, names, registries, services
//!                         ─> leftovers  things of ours that belong to nothing; with a repair they are removed
//!                         ─> loopback   a bundle that is made, tried and thrown away (image: its only program)
//! ```
//!
//! A look never ends an examination: what cannot be looked at is a finding, too. One examination at a time; it goes on
//! to its end even if whoever asked has hung up, so that the bundle is thrown away.

mod ground;
mod image;
mod leftovers;
mod loopback;
mod parts;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use berth_host::systemd::Systemd;
use berth_model::diagnostics::{Area, Diagnosis, Finding, Outcome};
use tokio_util::task::TaskTracker;
use tracing::info;

use super::Parts;
use super::cleanup::Cleaner;
use super::net::LinuxNet;
use crate::api::{DiagnoseRequest, PortError};
use crate::auth::ca::ServerCertificate;
use crate::config::Config;
use crate::secret::Sealer;
use crate::store::{Clock, Store};
use loopback::Loopback;

/// Examines this machine.
pub(super) struct Examiner {
    store: Store,
    systemd: Systemd,
    net: Arc<LinuxNet>,
    sealer: Sealer,
    cleaner: Arc<Cleaner>,
    certificate: ServerCertificate,
    clock: Clock,
    data: PathBuf,
    runtime: PathBuf,
    loopback: Loopback,
    turn: tokio::sync::Mutex<()>,
}

impl Examiner {
    pub(super) fn new(parts: &Parts, config: &Config, cleaner: Arc<Cleaner>, certificate: ServerCertificate) -> Self {
        Self {
            store: parts.store.clone(),
            systemd: parts.systemd.clone(),
            net: parts.net.clone(),
            sealer: parts.sealer.clone(),
            cleaner,
            certificate,
            clock: parts.clock.clone(),
            data: config.data.clone(),
            runtime: config.runtime.clone(),
            loopback: Loopback::new(parts.store.clone(), &config.runtime),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The API is there: what an examination that was cut short has left is removed.
    pub(super) fn begin(self: &Arc<Self>, router: Router, parts: &Parts, tasks: &TaskTracker) {
        self.loopback.set(router);
        let examiner = Arc::clone(self);
        tasks.spawn(parts.stop.clone().run_until_cancelled_owned(async move {
            let _turn = examiner.turn.lock().await;
            examiner.loopback.tidy_up().await;
        }));
    }

    /// Looks at everything.
    pub(super) async fn examine(&self, request: DiagnoseRequest) -> Result<Diagnosis, PortError> {
        let busy = || PortError::Conflict("another examination is under way; try again when it has ended".to_owned());
        let _turn = self.turn.try_lock().map_err(|_| busy())?;
        let mut findings = self.ground().await;
        findings.extend(self.parts(request.repair).await);
        findings.extend(self.leftovers(request.repair).await);
        let mut not_probed = None;
        if request.loopback {
            match self.loopback.run().await {
                Ok(tried) => findings.extend(tried),
                Err(why) => not_probed = Some(why),
            }
        }
        let diagnosis = Diagnosis::new(findings, not_probed);
        let (problems, warnings) = (diagnosis.count(Outcome::Problem), diagnosis.count(Outcome::Warning));
        info!(problems, warnings, "the machine was examined");
        Ok(diagnosis)
    }
}

/// A finding, with the time it took.
async fn timed(look: impl Future<Output = Finding>) -> Finding {
    let began = Instant::now();
    let finding = look.await;
    Finding { took_ms: milliseconds(began), ..finding }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What cannot be looked at.
fn unseen(area: Area, name: &str, error: &(dyn std::error::Error + 'static)) -> Finding {
    let message = format!("this could not be looked at: {}", crate::log::chain(error));
    Finding::new(area, name, Outcome::Problem, message)
        .means("Whether it is well is not known.", "See what `journalctl -u berthd` says, and try again.")
}
