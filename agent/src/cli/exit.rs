//! Exit codes. They are part of the interface: scripts and schedulers act on them, so none ever changes its meaning.

use jobcred_wire::ErrorCode;

/// Everything went well. With `run`, COMMAND's own code comes through instead.
pub const OK: i32 = 0;
/// The command line or the configuration has a mistake.
pub const USAGE: i32 = 2;
/// A declared resource was refused for good: `run` did not start COMMAND, `wait` need not wait.
pub const RESOURCE_REFUSED: i32 = 118;
/// The user's session behind the job has ended, and only the user can heal that: `token`, `wait`, `explain --probe`.
pub const GRANT_ENDED: i32 = 119;
/// jobcred itself failed.
pub const INTERNAL: i32 = 120;
/// No identity can be had here: `explain`, `agent`, or `run --required`.
pub const NO_IDENTITY: i32 = 121;
/// There is no place for the socket, or an agent already answers there: `agent`, or `run --required`.
pub const NO_SOCKET: i32 = 122;
/// No agent answers: `token`, `env`, `status`, `health`.
pub const NO_AGENT: i32 = 123;
/// The time given to `wait` is over. The code that timeout(1) uses.
pub const TIMED_OUT: i32 = 124;
/// The agent, or the issuer asked by `explain --probe`, answered with an error; it is on stderr.
pub const REFUSED: i32 = 125;

/// The code for an error of this kind that an agent, or an issuer asked directly, answered with.
#[must_use]
pub fn of(kind: ErrorCode) -> i32 {
    match kind {
        ErrorCode::GrantEnded => GRANT_ENDED,
        _ => REFUSED,
    }
}

/// The same for `--help`. A test keeps it in step with the constants.
pub const HELP: &str = "\
Exit codes:
  0        success; `run` ends exactly as COMMAND did, by the same signal if a signal killed it
  2        a mistake in the command line or in the configuration; COMMAND was not started
  118      a declared resource was refused for good: COMMAND was not started (`run`), waiting is no use (`wait`)
  119      the user's session that the job borrowed has ended: sign in and submit again (`run` with declared resources,
           `token`, `wait`, `explain --probe`)
  120      jobcred itself failed
  121      no identity can be had here (`explain`, `check`, `agent`, `run --required`)
  122      no place for the socket, or an agent already answers there (`agent`, `run --required`)
  123      no agent answers (`token`, `env`, `status`, `health`)
  124      not ready in time (`wait`, and `run --required` with declared resources)
  125      the agent answered with an error: refused, not to be had, not ready, or upstream is down; storage says no (`check`)
  126,127  COMMAND cannot be run, or is not found (as in shells)";

#[cfg(test)]
mod tests {
    #[test]
    fn every_code_is_in_the_help() {
        for code in [
            super::OK,
            super::USAGE,
            super::RESOURCE_REFUSED,
            super::GRANT_ENDED,
            super::INTERNAL,
            super::NO_IDENTITY,
            super::NO_SOCKET,
            super::NO_AGENT,
            super::TIMED_OUT,
            super::REFUSED,
        ] {
            assert!(super::HELP.contains(&format!("\n  {code:<9}")), "{code}");
        }
    }
}
