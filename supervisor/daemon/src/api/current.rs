//! Settings as they are now, without reading them for each request: they are read again once the store has a newer
//! version. A version is told before whoever wrote it is answered, so that what is set holds from that answer on.

use std::sync::{Arc, PoisonError, RwLock};

use berth_model::resource::settings::{self, Settings, SettingsSpec};

use crate::store::{Store, StoreError};

/// What was read last, and of which version it is.
#[derive(Debug, Default)]
pub struct CurrentSettings(RwLock<(u64, Arc<SettingsSpec>)>);

impl CurrentSettings {
    /// The newest; what is not set is as it is by default.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) async fn get(&self, store: &Store) -> Result<Arc<SettingsSpec>, StoreError> {
        let newest = *store.revision().borrow();
        let (version, kept) = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if version >= newest {
            return Ok(kept);
        }
        let look = |tx: &crate::store::ReadTx<'_>| Ok((tx.version()?, tx.get::<Settings>("", settings::NAME)?));
        let (version, found) = store.read(look).await?;
        let found = Arc::new(found.map(|found| found.spec).unwrap_or_default());
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody who read later may have been quicker.
        if version >= kept.0 {
            *kept = (version, found);
        }
        Ok(kept.1.clone())
    }
}
