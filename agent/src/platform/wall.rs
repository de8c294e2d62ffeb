//! Word that the wall clock was set or that the machine slept, so that nobody has to look at it now and then.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::net::unix::pipe::Receiver;

/// A moment that never comes, in unix seconds: the kernel tells only those who wait for some moment that the clock was set.
const NEVER: i64 = 1 << 33;

/// Tells of jumps of the machine's wall clock. Being slewed is none.
///
/// The runtime's name for a descriptor of which it knows no more than that it can be read is one end of a pipe.
#[derive(Debug)]
pub(crate) struct ClockJumps(Receiver);

impl ClockJumps {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// When the kernel has no such timer, or no descriptor is left.
    pub(crate) fn watch() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
        let never = Expiration::OneShot(TimeSpec::new(NEVER, 0));
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        timer.set(never, flags)?;
        let timer: OwnedFd = timer.as_fd().try_clone_to_owned()?;
        Ok(Self(Receiver::from_file_unchecked(File::from(timer))?))
    }

    /// Waits for the next jump, or for one since the last call.
    pub(crate) async fn next(&self) {
        let mut expirations = [0; 8];
        loop {
            if self.0.readable().await.is_err() {
                // The runtime is ending.
                return std::future::pending().await;
            }
            match self.0.try_read(&mut expirations) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // ECANCELED, once for each time that it was set; the timer goes on.
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ClockJumps;

    #[tokio::test]
    async fn a_clock_that_is_not_set_tells_nothing() {
        let jumps = ClockJumps::watch().unwrap();
        let next = std::pin::pin!(jumps.next());
        assert!(futures::poll!(next).is_pending());
    }
}
