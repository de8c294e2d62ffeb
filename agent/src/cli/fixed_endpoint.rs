//! A sidecar's identity endpoint: a port that is configured, and a file beside the socket that leads other containers there.

mod env_file;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use self::env_file::{EnvFile, NAME};
use super::setup::Setup;
use crate::front::dialect::Kept;
use crate::front::native::NativeApi;
use crate::supervisor::say;

/// Between two tries to open an endpoint.
const PAUSE: Duration = Duration::from_secs(1);

/// Opens the endpoint, where one is configured, and retries while it cannot be opened. `socket` is where the agent listens. A failure is
/// said, and the agent serves its socket without an endpoint. It is not ready while another program has the port. The endpoint is there
/// for as long as what is returned.
pub(super) fn open(setup: &Setup, api: &Arc<NativeApi>, socket: Option<&Path>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let Some(port) = setup.config.endpoint_port else {
        return tasks;
    };
    let Some(directory) = socket.and_then(Path::parent) else {
        say(&format!(
            "there is no identity endpoint at 127.0.0.1:{port}: the socket was passed by LISTEN_FDS, and its directory is not known"
        ));
        return tasks;
    };
    let mut endpoint = FixedEndpoint {
        api: Arc::clone(api),
        address: (Ipv4Addr::LOCALHOST, port).into(),
        file: EnvFile::new(directory, &setup.config),
        was_taken: false,
        said: None,
    };
    let mut opened = endpoint.attempt();
    tasks.spawn(async move {
        while opened.is_none() {
            tokio::time::sleep(PAUSE).await;
            opened = endpoint.attempt();
        }
        std::future::pending::<()>().await;
    });
    tasks
}

/// The endpoint on its way.
struct FixedEndpoint {
    api: Arc<NativeApi>,
    address: SocketAddr,
    file: EnvFile,
    /// Whether another program was found at the port. Clients may have sent it the secret.
    was_taken: bool,
    /// The last failure that was said.
    said: Option<String>,
}

impl FixedEndpoint {
    fn attempt(&mut self) -> Option<Kept> {
        let address = self.address;
        match self.open() {
            Ok((kept, is_renewed)) => {
                self.api.endpoints.set_missing(None);
                let what = if is_renewed {
                    "has a new secret: source it again"
                } else {
                    "leads there"
                };
                say(&format!(
                    "identity endpoint at {address}; {NAME} beside the socket {what}"
                ));
                Some(kept)
            }
            Err(error) => {
                let why = format!("there is no identity endpoint at {address}: {error}");
                let not_ready = if self.was_taken {
                    self.api.endpoints.set_missing(Some(why.clone()));
                    ", and is not ready until then"
                } else {
                    ""
                };
                if self.said.as_ref() != Some(&why) {
                    say(&format!(
                        "{why}; the agent retries every {} s{not_ready}",
                        PAUSE.as_secs()
                    ));
                    self.said = Some(why);
                }
                None
            }
        }
    }

    /// The endpoint, and whether it has another secret than what other containers may have sourced.
    fn open(&mut self) -> io::Result<(Kept, bool)> {
        let listener = TcpListener::bind(self.address).inspect_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse && !self.file.has_an_agent() {
                self.was_taken = true;
                // The file must not lead to that program, and an agent that is started next must not use the secret again.
                self.file.remove();
            }
        })?;
        let keys = self.file.keys(self.address)?;
        let admission = self.api.admission.clone();
        let kept = self.api.endpoints.open(listener, admission, keys.keys)?;
        Ok((kept, keys.is_renewed || self.was_taken))
    }
}
