//! The clock of schedules: the machine's.

use std::io;
use std::time::SystemTime;

use berth_host::alarm::Alarm;
use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::schedule;

/// A timer of the kernel's.
pub(super) struct LinuxAlarm(Alarm);

impl LinuxAlarm {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Alarm::new()?))
    }
}

impl schedule::Alarm for LinuxAlarm {
    fn until(&self, time: Option<Timestamp>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.0.until(time.map(SystemTime::from)))
    }
}
