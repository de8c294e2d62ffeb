//! Where an agent's socket may be.

use std::path::PathBuf;

/// The name of the socket inside its directory.
pub const SOCKET_FILE: &str = "agent.sock";

/// The places to look for an agent, from what the caller's environment says.
///
/// A client looks at all of them, in this order: a notebook and a shell of one user have different variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketSearch {
    /// The value of [`crate::SOCKET_VARIABLE`]; when set, it is the only place.
    pub explicit: Option<String>,
    /// The value of `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<String>,
    /// The caller's effective uid.
    pub uid: u32,
}

impl SocketSearch {
    /// The paths to try, first to last.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        if let Some(path) = self.explicit.as_deref().filter(|path| !path.is_empty()) {
            return vec![PathBuf::from(path)];
        }
        let mut paths = vec![PathBuf::from("/run/jobcred").join(SOCKET_FILE)];
        if let Some(dir) = self
            .runtime_dir
            .as_deref()
            .filter(|dir| dir.starts_with('/'))
        {
            paths.push(PathBuf::from(dir).join("jobcred").join(SOCKET_FILE));
        }
        paths.push(PathBuf::from(format!("/tmp/jobcred-{}", self.uid)).join(SOCKET_FILE));
        paths
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::SocketSearch;

    #[test]
    fn order_of_the_places() {
        let search = SocketSearch {
            explicit: None,
            runtime_dir: Some("/run/user/7".to_owned()),
            uid: 7,
        };
        let expected = [
            "/run/jobcred/agent.sock",
            "/run/user/7/jobcred/agent.sock",
            "/tmp/jobcred-7/agent.sock",
        ]
        .map(PathBuf::from);
        assert_eq!(search.paths(), expected);
    }

    #[test]
    fn an_explicit_path_is_the_only_one() {
        let search = SocketSearch {
            explicit: Some("/x/y.sock".to_owned()),
            ..SocketSearch::default()
        };
        assert_eq!(search.paths(), [PathBuf::from("/x/y.sock")]);
    }
}
