//! The clocks, the environment and the process: the one place where this crate touches the real ones.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use jobcred_wire::{AGENT_UID_VARIABLE, SOCKET_VARIABLE, SocketSearch};

use crate::Error;

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

/// The one uid besides one's own and root whose agent is accepted, as the environment has it; blank is as good as unset.
///
/// # Errors
/// `invalid` when it is no uid: whoever set it means somebody.
pub(crate) fn agent_uid() -> Result<Option<u32>, Error> {
    match variable(AGENT_UID_VARIABLE) {
        Some(text) if !text.trim().is_empty() => uid(text.trim()).map(Some),
        _ => Ok(None),
    }
}

fn uid(text: &str) -> Result<u32, Error> {
    // `u32::from_str` takes a sign; a uid has none.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(uid) if digits => Ok(uid),
        _ => Err(Error::invalid(format!(
            "{AGENT_UID_VARIABLE} is no uid: it takes a number from 0 to {}, the uid that the agent runs as, or nothing",
            u32::MAX
        ))),
    }
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

#[cfg(test)]
mod tests {
    use super::uid;
    use crate::ErrorKind;

    #[test]
    fn only_a_uid_is_one() {
        assert_eq!(uid("0").unwrap(), 0);
        assert_eq!(uid("4294967295").unwrap(), u32::MAX);
        for text in ["x", "12x", "-1", "+1", "4294967296", "1 2", "1.0"] {
            let error = uid(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
            assert!(error.message().contains("JOBCRED_AGENT_UID"), "{error}");
        }
    }
}
