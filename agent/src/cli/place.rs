//! Where the socket goes.

use std::path::{Path, PathBuf};

use jobcred_wire::{SOCKET_FILE, SocketSearch};

use super::leftover;
use crate::config::Config;
use crate::front::socket::{BindError, BoundSocket, bind_first};
use crate::platform::Environment;

/// A bound socket, and why it is not where it would be looked for, if it is not.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) socket: BoundSocket,
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

/// Binds for `run`: the first place that can be used, or a private one when an agent is there already, or always with `private`.
pub(super) fn bind_for_run(
    config: &Config,
    environment: &Environment,
    uid: u32,
    private: bool,
) -> Result<Place, BindError> {
    let paths = candidates(config, environment, uid);
    let mut aside = None;
    if private {
        aside = Some("a sandbox is never found by accident".to_owned());
    } else {
        match bind_first(&paths, config.socket_group) {
            Ok(socket) => {
                return Ok(Place {
                    socket,
                    aside: None,
                });
            }
            Err(BindError::InUse(path)) => {
                aside = Some(format!("an agent already answers at {}", path.display()));
            }
            // Another directory may do: COMMAND is told the path.
            Err(BindError::Unusable { .. }) if config.socket.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    let own: Vec<PathBuf> = private_paths(&paths, environment, uid);
    let socket = bind_first(&own, config.socket_group)?;
    // The directory was found to be one where nobody else writes.
    if let Some(directory) = socket.path().parent() {
        leftover::remove(directory, uid);
    }
    Ok(Place { socket, aside })
}

/// Names of this run's own, beside the usual ones and, last, in `TMPDIR`.
fn private_paths(paths: &[PathBuf], environment: &Environment, uid: u32) -> Vec<PathBuf> {
    let mut noise = [0; 4];
    // Without randomness the pid alone has to do; a name that is taken is noticed when binding.
    let _ = getrandom::fill(&mut noise);
    let name = format!(
        "{}{}-{:08x}{}",
        leftover::PREFIX,
        std::process::id(),
        u32::from_ne_bytes(noise),
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
