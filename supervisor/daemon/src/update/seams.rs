//! What an update needs of the machine.

use berth_model::health::BootReport;
use berth_model::release::Entry;
use futures_util::future::BoxFuture;
use semver::Version;

/// Something of the machine could not be asked for or done.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The machine's versions: which runs, which are there, and how another comes to run.
pub trait Slots: Send + Sync + 'static {
    /// The version that runs; none if the machine's system is no image of Berth.
    fn running(&self) -> Result<Option<Version>, Fault>;
    /// The kernel's id of this start.
    fn boot_id(&self) -> Result<String, Fault>;
    /// What the firmware can start.
    fn entries(&self) -> Result<Vec<Entry>, Fault>;
    /// Writes what was fetched into the slot that is not in use, and its entry.
    fn write(&self) -> BoxFuture<'_, Result<(), Fault>>;
    /// Whether the entry of a version lies on its disk for good, with this SHA-256.
    fn holds(&self, version: &str, sha256: &str) -> Result<bool, Fault>;
    /// Removes the entries of a version that is not to be started.
    fn discard(&self, version: &str) -> Result<(), Fault>;
    /// Begins to start the machine anew.
    fn restart(&self) -> BoxFuture<'_, Result<(), Fault>>;
    /// Whether the machine has an address that others could reach it by.
    fn is_reached(&self) -> Result<bool, Fault>;
    /// What the newest start came to, if it came so far.
    fn report(&self) -> Result<Option<BootReport>, Fault>;
}
