//! A timer on the machine's clock that also goes off when that clock is set.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Far enough away for one that only waits for the clock to be set: the year 2200.
const NEVER: Duration = Duration::from_secs(230 * 365 * 86_400);

/// The timer.
#[derive(Debug)]
pub struct Alarm(AsyncFd<Timer>);

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Alarm {
    /// A timer that is not set. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives none.
    #[allow(unsafe_code, reason = "tokio's word for: this keeps its descriptor")]
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // SAFETY: a Timer owns its descriptor, always names the same one, and closes it when it is dropped.
        Ok(Self(unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE) }?))
    }

    /// Returns when the clock shows `time`, at once if it is past that, or when the clock is set, whichever is first.
    /// Without a time it waits for the clock to be set. One wait at a time; a new one takes the place of one given up.
    ///
    /// # Errors
    /// The kernel refuses the time.
    pub async fn until(&self, time: Option<SystemTime>) -> io::Result<()> {
        let time = time.unwrap_or(UNIX_EPOCH + NEVER);
        // Zero would switch it off.
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().max(Duration::from_nanos(1));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        match self.0.get_ref().0.set(Expiration::OneShot(TimeSpec::from_duration(since)), flags) {
            Ok(()) => {}
            // It was set since the wait before.
            Err(Errno::ECANCELED) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.0.async_io(Interest::READABLE, |timer| Ok(timer.0.wait()?)).await
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the clock is what is tested")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_goes_off_at_its_time_or_at_once_if_that_is_past() {
        let alarm = Alarm::new().unwrap();
        for time in [UNIX_EPOCH, SystemTime::now(), SystemTime::now() + Duration::from_millis(30)] {
            alarm.until(Some(time)).await.unwrap();
            assert!(SystemTime::now() >= time);
        }
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_leaves_nothing_behind() {
        let alarm = Alarm::new().unwrap();
        let soon = SystemTime::now() + Duration::from_millis(500);
        let given_up = tokio::time::timeout(Duration::ZERO, alarm.until(Some(soon))).await;
        assert!(given_up.is_err());
        let later = soon + Duration::from_millis(40);
        alarm.until(Some(later)).await.unwrap();
        assert!(SystemTime::now() >= later, "the alarm that was given up went off");
        assert!(tokio::time::timeout(Duration::from_millis(20), alarm.until(None)).await.is_err());
    }
}
