//! What the API tells of the machine itself.

use std::sync::Arc;

use berth_model::diagnostics::Diagnosis;
use berth_model::machine::Machine;
use berth_model::release::SystemStatus;
use berth_model::usage::Usage;
use futures_util::future::BoxFuture;

use super::Parts;
use super::diagnostics::Examiner;
use super::slots::LinuxSlots;
use super::support::Support;
use super::{node, usage};
use crate::api::{DiagnoseRequest, PortError, Power, SystemPort};
use crate::config::Config;
use crate::store::Clock;

/// Looks after the machine.
pub(super) struct System {
    usage: usage::Usage,
    clock: Clock,
    examiner: Arc<Examiner>,
    support: Support,
    slots: Arc<LinuxSlots>,
}

impl System {
    pub(super) fn new(parts: &Parts, config: &Config, examiner: Arc<Examiner>) -> Self {
        let usage = usage::Usage { store: parts.store.clone(), data: config.data.clone() };
        let support = Support::new(parts, config, Arc::clone(&examiner), usage.clone());
        let slots = Arc::new(LinuxSlots::new(parts.systemd.clone(), &config.data));
        Self { usage, clock: Arc::clone(&parts.clock), examiner, support, slots }
    }
}

impl SystemPort for System {
    fn usage(&self) -> BoxFuture<'_, Result<Usage, PortError>> {
        Box::pin(async move { self.usage.look().await.map_err(failed) })
    }

    fn machine(&self, rates: bool) -> BoxFuture<'_, Result<Machine, PortError>> {
        Box::pin(async move { node::look(&self.usage, &self.clock, rates).await.map_err(failed) })
    }

    fn diagnose(&self, request: DiagnoseRequest) -> BoxFuture<'_, Result<Diagnosis, PortError>> {
        let examiner = Arc::clone(&self.examiner);
        // A task of its own: what is made for a trial is thrown away even if whoever asked hangs up.
        let task = tokio::spawn(async move { examiner.examine(request).await });
        Box::pin(async move { task.await.map_err(failed)? })
    }

    fn versions(&self) -> BoxFuture<'_, Result<SystemStatus, PortError>> {
        let slots = Arc::clone(&self.slots);
        let looked = tokio::task::spawn_blocking(move || slots.status());
        Box::pin(async move { looked.await.map_err(failed)?.map_err(PortError::Failed) })
    }

    fn give_up(&self) -> BoxFuture<'_, Result<Option<String>, PortError>> {
        let slots = Arc::clone(&self.slots);
        let done = tokio::task::spawn_blocking(move || slots.give_up());
        Box::pin(async move { done.await.map_err(failed)?.map_err(PortError::Failed) })
    }

    fn power(&self, power: Power) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { self.slots.power(power).await.map_err(PortError::Failed) })
    }

    fn support_bundle(&self, output: bool) -> BoxFuture<'_, Result<Vec<u8>, PortError>> {
        Box::pin(self.support.make(output))
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> PortError {
    PortError::Failed(Box::new(error))
}
