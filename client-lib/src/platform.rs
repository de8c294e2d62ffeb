//! The clocks, the environment and the process: the one place where this crate touches the real ones.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use jobcred_wire::{AGENT_UID_VARIABLE, SOCKET_VARIABLE, SocketSearch};

/// The wall clock in unix seconds, the unit of every time on the wire.
#[expect(
    clippy::disallowed_methods,
    reason = "the one reading of the wall clock; tests replace it through the builder"
)]
pub(crate) fn unix_now() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        // A clock before 1970 is as good as the epoch: every token looks fresh, and the agent knows better.
        Err(_) => 0,
    }
}

/// The monotonic clock, for deadlines of system calls: a std socket has no runtime whose time it could use.
#[expect(
    clippy::disallowed_methods,
    reason = "deadlines of blocking system calls; nothing decides about tokens by it"
)]
pub(crate) fn monotonic_now() -> Instant {
    Instant::now()
}

/// What the environment says about where an agent is.
pub(crate) fn socket_search() -> SocketSearch {
    SocketSearch {
        explicit: variable(SOCKET_VARIABLE),
        runtime_dir: variable("XDG_RUNTIME_DIR"),
        uid: own_uid(),
    }
}

/// The one uid besides one's own and root whose agent is accepted; a value that is no number counts as absent, which is
/// the strict side.
pub(crate) fn agent_uid() -> Option<u32> {
    variable(AGENT_UID_VARIABLE)?.trim().parse().ok()
}

/// The effective uid, by which the kernel judges this process.
pub(crate) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The process id: it tells a forked child that what it holds was opened by another process.
pub(crate) fn own_pid() -> u32 {
    std::process::id()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one reading of the environment; the builder takes values instead"
)]
fn variable(name: &str) -> Option<String> {
    // A value that is no UTF-8 still counts as set: it must not send the search elsewhere.
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}
