//! Exit codes. They are part of the interface: scripts and schedulers act on them, so none ever changes its meaning.

use jobcred_wire::ErrorCode;

/// Everything went well. With `run`, COMMAND's own code comes through instead.
pub const OK: i32 = 0;
/// The command line or the configuration has a mistake.
pub const USAGE: i32 = 2;
/// A declared resource was refused for good: `run` did not start COMMAND, `wait` need not wait, `health --ready` says no.
pub const RESOURCE_REFUSED: i32 = 118;
/// The user's session behind the job has ended, and only the user can heal that: `run`, `wait`, `health --ready`, `token`,
/// `explain --probe`.
pub const GRANT_ENDED: i32 = 119;
/// jobcred itself failed, or a setting of this machine keeps it from the issuer.
pub const INTERNAL: i32 = 120;
/// No identity can be had here: `explain`, `agent`, or `run --required`.
pub const NO_IDENTITY: i32 = 121;
/// There is no place for the socket, no room for the agent or none that stays up, or one already answers there: `agent`, or
/// `run --required`.
pub const NO_SOCKET: i32 = 122;
/// No agent answers: `token`, `env`, `status`, `top`, `health`; or what answers is none: `explain`, `check`.
pub const NO_AGENT: i32 = 123;
/// Not all declared resources are there in time: `wait`, `health --ready`, `run --required`. The code that timeout(1) uses.
pub const TIMED_OUT: i32 = 124;
/// The agent, or the issuer asked by `explain --probe`, answered with an error; it is on stderr.
pub const REFUSED: i32 = 125;

/// The code for an error of this kind that an agent, or an issuer asked directly, answered with.
#[must_use]
pub fn of(kind: ErrorCode) -> i32 {
    match kind {
        ErrorCode::GrantEnded => GRANT_ENDED,
        ErrorCode::Internal | ErrorCode::Unknown => INTERNAL,
        _ => REFUSED,
    }
}

/// The code for an error of this kind as the answer to whether the declared resources are there: `run`, `wait`, `health --ready`.
#[must_use]
pub fn of_readiness(kind: ErrorCode) -> i32 {
    match kind {
        ErrorCode::Transient => TIMED_OUT,
        ErrorCode::GrantEnded => GRANT_ENDED,
        _ if kind.is_final() => RESOURCE_REFUSED,
        _ => INTERNAL,
    }
}

/// The same for `--help`. A test keeps it in step with the constants.
pub const HELP: &str = "\
Exit codes:
  0        success; `run` ends exactly as COMMAND did, by the same signal if
           one killed it
  2        a mistake in the command line or in the configuration; COMMAND was
           not started
  118      a declared resource was refused for good: COMMAND was not started
           (`run`), waiting is no use (`wait`, `health --ready`)
  119      the user's session that the job borrowed has ended: sign in and
           submit again (`run` with declared resources, `wait`,
           `health --ready`, `token`, `explain --probe`)
  120      jobcred itself failed, or a setting of this machine keeps it from
           the issuer (proxy, roots, TLS); `run` starts COMMAND anyway, unless
           `--required`
  121      no identity can be had here (`explain`, `check`, `agent`,
           `run --required`)
  122      no place for the socket, no room for the agent or none that stays
           up, or one already answers there (`agent`, `run --required`)
  123      no agent answers (`token`, `env`, `status`, `top`, `health`), or
           what answers is none (`explain`, `check`)
  124      not all declared resources are there in time (`wait`,
           `run --required`), or yet (`health --ready`)
  125      the agent answered with an error: refused, not to be had, or upstream
           is down (`token`, `explain --probe`); storage says no (`check`)
  126,127  COMMAND cannot be run, or is not found (as in shells)";

#[cfg(test)]
mod tests {
    use jobcred_wire::ErrorCode;

    use super::{of, of_readiness};

    #[test]
    fn whoever_asks_is_told_the_same() {
        for (kind, readiness, token) in [
            (ErrorCode::InvalidRequest, 118, 125),
            (ErrorCode::Denied, 118, 125),
            (ErrorCode::Unavailable, 118, 125),
            (ErrorCode::Rejected, 118, 125),
            (ErrorCode::GrantEnded, 119, 119),
            (ErrorCode::Internal, 120, 120),
            (ErrorCode::Unknown, 120, 120),
            (ErrorCode::Transient, 124, 125),
        ] {
            assert_eq!((of_readiness(kind), of(kind)), (readiness, token), "{kind}");
        }
    }

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
