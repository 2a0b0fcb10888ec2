//! What the API tells of the machine itself.

use berth_model::usage::Usage;
use futures_util::future::BoxFuture;

use super::Parts;
use super::usage;
use crate::api::{PortError, SystemPort};
use crate::config::Config;

/// Looks after the machine.
pub(super) struct System {
    usage: usage::Usage,
}

impl System {
    pub(super) fn new(parts: &Parts, config: &Config) -> Self {
        Self { usage: usage::Usage { store: parts.store.clone(), data: config.data.clone() } }
    }
}

impl SystemPort for System {
    fn usage(&self) -> BoxFuture<'_, Result<Usage, PortError>> {
        Box::pin(async move { self.usage.look().await.map_err(|error| PortError::Failed(Box::new(error))) })
    }
}
