//! How far a pull is: the sum over its layers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use berth_host::blob::Digest;

/// Bytes of layers fetched so far, of all there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Here.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

impl Progress {
    /// 0 to 100.
    #[must_use]
    pub fn percent(self) -> u8 {
        let percent = (self.done.min(self.total) * 100).checked_div(self.total).unwrap_or(100);
        u8::try_from(percent).unwrap_or(100)
    }
}

/// Is told how far it is; called often, also from several layers at once.
pub type Watcher = Arc<dyn Fn(Progress) + Send + Sync>;

/// Adds up what has come of each layer.
pub(super) struct Sum {
    total: u64,
    done: Mutex<HashMap<String, u64>>,
    watcher: Watcher,
}

impl Sum {
    pub fn new(total: u64, watcher: Watcher) -> Self {
        Self { total, done: Mutex::default(), watcher }
    }

    /// So much of a layer is here.
    pub fn arrived(&self, layer: &Digest, bytes: u64) {
        let done = {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.insert(layer.to_string(), bytes);
            done.values().sum()
        };
        (self.watcher)(Progress { done, total: self.total });
    }
}
