//! Where the socket goes.

use std::path::{Path, PathBuf};

use jobcred_wire::{SOCKET_FILE, SocketSearch};

use super::leftover;
use super::setup::Setup;
use crate::config::{Config, place_fingerprint};
use crate::front::claim::Mark;
use crate::front::election::{ElectionError, Part, Seat};
use crate::front::socket::{BindError, BoundSocket, first_of};
use crate::platform::{Environment, Processes};
use crate::strategy::{Facts, Strategy};

/// Why a sandbox is not where clients look unasked.
pub(super) const SANDBOX_ASIDE: &str = "a sandbox is never found by accident";

/// A part at an agent, and why it is not where it would be looked for, if it is not.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) seat: Seat,
    pub(super) aside: Option<String>,
}

/// The configured place alone, else the standard ones, first to last.
pub(super) fn candidates(config: &Config, environment: &Environment, uid: u32) -> Vec<PathBuf> {
    match &config.socket {
        Some(path) => vec![path.clone()],
        None => standard(environment, uid),
    }
}

/// Whether the configuration names a place where nobody would look unasked.
pub(super) fn is_chosen(config: &Config, environment: &Environment, uid: u32) -> bool {
    let usual = standard(environment, uid);
    config
        .socket
        .as_ref()
        .is_some_and(|path| !usual.contains(path))
}

fn standard(environment: &Environment, uid: u32) -> Vec<PathBuf> {
    SocketSearch {
        explicit: None,
        runtime_dir: environment.get("XDG_RUNTIME_DIR").map(str::to_owned),
        uid,
    }
    .paths()
}

/// What agents that are interchangeable with this process's own have in common. `None` where nobody shall share it.
pub(super) fn mark(setup: &Setup) -> Option<Mark> {
    if setup.config.strategy == Some(Strategy::Sandbox) {
        return None;
    }
    // Where it cannot be told which container this is, no agent of another one can be told from our own.
    let namespaces = Processes::system().own_namespaces()?;
    let facts = Facts::gather(&setup.outside.environment, &setup.outside.files);
    Some(Mark {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fingerprint: place_fingerprint(&setup.config, &facts),
        namespaces,
    })
}

/// A part for `run`: at the first place that can be used, whether an agent of the same `mark` is there or none; else, and always
/// without a mark, at a private one.
pub(super) fn for_run(setup: &Setup, mark: Option<&Mark>) -> Result<Place, BindError> {
    let config = &setup.config;
    let (environment, uid) = (&setup.outside.environment, setup.outside.own_uid);
    let paths = candidates(config, environment, uid);
    let mut aside = None;
    if let Some(mark) = mark {
        let elected = first_of(&paths, config.socket_group, |place| {
            match Seat::elect(place, mark) {
                Ok(seat) => Ok(Ok(seat)),
                Err(ElectionError::Aside(reason)) => Ok(Err(reason)),
                Err(ElectionError::Unusable(error)) => Err(error),
            }
        });
        match elected {
            Ok(Ok(seat)) => return Ok(Place { seat, aside: None }),
            Ok(Err(reason)) => aside = Some(reason),
            // Another directory may do: COMMAND is told the path.
            Err(_) if config.socket.is_none() => {}
            Err(error) => return Err(error),
        }
    } else {
        aside = Some(SANDBOX_ASIDE.to_owned());
    }
    let seat = alone(&paths, setup, mark)?;
    Ok(Place { seat, aside })
}

/// A private socket for an agent that nobody shall find by accident.
pub(super) fn bind_alone(setup: &Setup) -> Result<BoundSocket, BindError> {
    let config = &setup.config;
    let paths = candidates(config, &setup.outside.environment, setup.outside.own_uid);
    match alone(&paths, setup, None)?.take_part() {
        Part::Owner(socket) => Ok(socket),
        Part::Sharer(_) | Part::Taken => Err(BindError::InUse(PathBuf::new())),
    }
}

fn alone(paths: &[PathBuf], setup: &Setup, mark: Option<&Mark>) -> Result<Seat, BindError> {
    let uid = setup.outside.own_uid;
    let own = private_paths(paths, &setup.outside.environment, uid);
    let draft = format!(".{:08x}", noise());
    let seat = first_of(&own, setup.config.socket_group, |place| {
        Seat::alone(place, mark, &draft)
    })?;
    // The directory was found to be one where nobody else writes.
    if let Some(directory) = seat.path().parent() {
        leftover::remove(directory, uid);
    }
    Ok(seat)
}

/// Names of this run's own, beside the usual ones and, last, in `TMPDIR`.
fn private_paths(paths: &[PathBuf], environment: &Environment, uid: u32) -> Vec<PathBuf> {
    let name = format!(
        "{}{}-{:08x}{}",
        leftover::PREFIX,
        std::process::id(),
        noise(),
        leftover::SUFFIX
    );
    let temporary = environment
        .get("TMPDIR")
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| {
            Path::new(dir)
                .join(format!("jobcred-{uid}"))
                .join(SOCKET_FILE)
        });
    let mut own = Vec::new();
    let usual = paths.iter().cloned().chain(standard(environment, uid));
    for path in usual.chain(temporary) {
        let path = path.with_file_name(&name);
        if !own.contains(&path) {
            own.push(path);
        }
    }
    own
}

/// Without randomness the pid alone has to do; a name that is taken is noticed when binding.
fn noise() -> u32 {
    getrandom::u32().unwrap_or_else(|_| std::process::id())
}

#[cfg(test)]
mod tests {
    use super::{is_chosen, private_paths, standard};
    use crate::config::Config;
    use crate::platform::Environment;

    #[test]
    fn a_sandbox_is_only_where_somebody_put_it() {
        let environment = Environment::from([("XDG_RUNTIME_DIR", "/run/user/7")]);
        let mut config = Config::default();
        assert!(!is_chosen(&config, &environment, 7));
        for path in standard(&environment, 7) {
            config.socket = Some(path);
            assert!(!is_chosen(&config, &environment, 7));
        }
        config.socket = Some("/shared/sandbox/agent.sock".into());
        assert!(is_chosen(&config, &environment, 7));
    }

    #[test]
    fn private_paths_are_beside_the_usual_ones_and_never_one_of_them() {
        let environment = Environment::from([("TMPDIR", "/scratch")]);
        let usual = standard(&environment, 7);
        let own = private_paths(&usual, &environment, 7);
        assert!(own.iter().all(|path| !usual.contains(path)));
        let dirs: Vec<_> = own.iter().filter_map(|path| path.parent()).collect();
        assert_eq!(
            dirs,
            ["/run/jobcred", "/tmp/jobcred-7", "/scratch/jobcred-7"].map(std::path::Path::new)
        );
    }
}
