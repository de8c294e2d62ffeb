//! How a client finds its agent and how long it waits: what both clients are built from.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jobcred_wire::SocketSearch;

use crate::Error;
use crate::owner::OwnerRule;
use crate::platform;

/// Settings of a client, each with a default that suits a job.
#[derive(Clone)]
pub struct Builder {
    socket: Option<PathBuf>,
    search: Option<SocketSearch>,
    agent_uid: Option<u32>,
    connect_timeout: Duration,
    timeout: Duration,
    clock: Option<Clock>,
}

type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Settings with the environment read and every default filled in.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) paths: Vec<PathBuf>,
    /// Whether the program itself named the one path.
    pub(crate) is_given: bool,
    pub(crate) owner: OwnerRule,
    /// What is wrong with the environment, said by whoever would connect.
    mistake: Option<Error>,
    pub(crate) connect_timeout: Duration,
    pub(crate) timeout: Duration,
    clock: Option<Clock>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            socket: None,
            search: None,
            agent_uid: None,
            connect_timeout: CONNECT_TIMEOUT,
            timeout: TIMEOUT,
            clock: None,
        }
    }

    /// The agent's socket; nothing else is looked at then.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Where to look, instead of what this process's environment says.
    #[must_use]
    pub fn search(mut self, search: SocketSearch) -> Self {
        self.search = Some(search);
        self
    }

    /// One more uid, besides one's own and root, whose agent is trusted. The default is `JOBCRED_AGENT_UID`.
    #[must_use]
    pub fn agent_uid(mut self, uid: u32) -> Self {
        self.agent_uid = Some(uid);
        self
    }

    /// How long to wait for a place in the agent's backlog. The default is 5 seconds.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take in all. The default is 60 seconds, which is longer than the agent itself waits for Azure.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The wall clock, in unix seconds, by which tokens end. For tests; the default is the system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    pub(crate) fn settle(self) -> Settings {
        let is_given = self.socket.is_some();
        let paths = match (self.socket, self.search) {
            (Some(path), _) => vec![path],
            (None, Some(search)) => search.paths(),
            (None, None) => platform::socket_search().paths(),
        };
        let agent_uid = match self.agent_uid {
            Some(uid) => Ok(Some(uid)),
            None => platform::agent_uid(),
        };
        Settings {
            paths,
            is_given,
            owner: OwnerRule {
                own_uid: platform::own_uid(),
                agent_uid: agent_uid.as_ref().ok().copied().flatten(),
            },
            mistake: agent_uid.err(),
            connect_timeout: self.connect_timeout,
            timeout: self.timeout,
            clock: self.clock,
        }
    }
}

impl Settings {
    /// Whether they can be gone by.
    ///
    /// # Errors
    /// `invalid`, with what is wrong.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.mistake.clone().map_or(Ok(()), Err)
    }

    /// The wall clock in unix seconds.
    pub(crate) fn now(&self) -> i64 {
        self.clock
            .as_ref()
            .map_or_else(platform::unix_now, |clock| clock())
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("socket", &self.socket)
            .field("search", &self.search)
            .field("agent_uid", &self.agent_uid)
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("paths", &self.paths)
            .field("owner", &self.owner)
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The agent's backlog is only full for as long as it takes to accept; a few seconds mean that it hangs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Above the agent's own patience with Azure, so that its reason arrives instead of our timeout.
const TIMEOUT: Duration = Duration::from_secs(60);

/// For a token that is wanted only to replace a valid one: a caller that could go on must not hang for long.
pub(crate) const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);
