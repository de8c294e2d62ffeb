//! The state this process was given, so that COMMAND can be given the same.

use std::fs;

use nix::sys::signal::{SigSet, Signal};

/// What was inherited: taken before anything else happens in the process.
///
/// One thing cannot be known any more: whether `SIGPIPE` was ignored. Rust's start-up code ignores it before any of ours runs,
/// and the standard library gives children the default.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Open descriptors above stderr. They are COMMAND's; whoever else keeps them open would keep pipes and locks alive.
    descriptors: Vec<i32>,
    /// Blocked signals.
    pub(super) blocked: SigSet,
    /// Ignored signals, as the kernel prints them: bit `n - 1` is signal `n`.
    ignored: u64,
}

impl Entry {
    /// Reads it, in part from `/proc`; without that, less is known and less restored.
    #[must_use]
    pub fn capture() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            descriptors: open_descriptors(),
            blocked: SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty()),
            ignored: mask(&status, "SigIgn:"),
        }
    }

    /// Whether the signal of this number was ignored.
    pub(super) fn ignores(&self, number: i32) -> bool {
        self.ignored & bit(number) != 0
    }

    /// Whether the signal of this number was blocked.
    pub(super) fn blocks(&self, number: i32) -> bool {
        Signal::try_from(number).is_ok_and(|signal| self.blocked.contains(signal))
    }

    /// Closes, in an agent that was started before COMMAND, what it was given of COMMAND's: all but `own`.
    pub(crate) fn close_others(&mut self, own: &[i32]) {
        self.descriptors
            .retain(|descriptor| !own.contains(descriptor));
        self.close_descriptors();
    }

    /// Closes what is COMMAND's alone, once COMMAND has it.
    pub(super) fn close_descriptors(&mut self) {
        for descriptor in self.descriptors.drain(..) {
            // They were open before this program made any of its own, so none of ours has such a number.
            let _ = nix::unistd::close(descriptor);
        }
    }
}

fn open_descriptors() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let mut found: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    // The directory itself was open while it was read, and is closed now.
    found.retain(|descriptor| fs::symlink_metadata(format!("/proc/self/fd/{descriptor}")).is_ok());
    found
}

/// Whether a process has a handler for the signal of this number, or has it blocked to take it in at its leisure. False where it
/// cannot be told: the kernel shows a signal that is waited for (`sigwait`) at this moment like one that nobody cares for.
pub(super) fn handles(pid: i32, number: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    (mask(&status, "SigCgt:") | mask(&status, "SigBlk:")) & bit(number) != 0
}

fn mask(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(0)
}

fn bit(number: i32) -> u64 {
    u32::try_from(number - 1)
        .ok()
        .and_then(|place| 1_u64.checked_shl(place))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Signal, bit, mask};

    #[test]
    fn masks_are_read_as_the_kernel_prints_them() {
        let status = "Name:\tx\nSigBlk:\t0000000000000200\nSigIgn:\t0000000000001001\n";
        assert_eq!(mask(status, "SigBlk:"), bit(Signal::SIGUSR1 as i32));
        assert_eq!(
            mask(status, "SigIgn:"),
            bit(Signal::SIGHUP as i32) | bit(Signal::SIGPIPE as i32)
        );
        assert_eq!(mask(status, "SigCgt:"), 0);
    }
}
