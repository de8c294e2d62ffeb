//! One timer as a file descriptor, so that waiting for it and for signals is one wait, and an idle supervisor never wakes up.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timer that fires once.
pub(super) struct Timer(TimerFd);

impl Timer {
    pub(super) fn new() -> nix::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self(TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?))
    }

    /// Fires once after `wait`, in place of whatever was set before.
    pub(super) fn start(&self, wait: Duration) {
        // Zero would switch the timer off.
        let wait = wait.max(Duration::from_millis(1));
        let expiration = Expiration::OneShot(TimeSpec::from_duration(wait));
        // Cannot fail with a descriptor and a time that are valid.
        let _ = self.0.set(expiration, TimerSetTimeFlags::empty());
    }

    pub(super) fn stop(&self) {
        let _ = self.0.unset();
    }

    /// Takes note that it has fired, so that it is not reported again.
    pub(super) fn clear(&self) {
        let _ = self.0.wait();
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
