//! How a client finds its agent and how long it waits.

use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use jobcred_client::Builder;

use crate::boundary::guard;
use crate::text;

/// Settings of a client, each with a default that suits a job.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    socket: Option<PathBuf>,
    agent_uid: Option<u32>,
    timeout: Option<Duration>,
}

/// Settings with every default in place.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_settings_new() -> Option<Box<Settings>> {
    guard(Box::default)
}

/// The agent's socket; nothing else is looked at then. NULL, the default, means `JOBCRED_SOCKET`, else the first place that
/// answers of `/run/jobcred/agent.sock`, `$XDG_RUNTIME_DIR/jobcred/agent.sock` and `/tmp/jobcred-$UID/agent.sock`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jobcred_settings_set_socket(
    settings: Option<&mut Settings>,
    path: *const c_char,
) {
    guard(|| {
        if let Some(settings) = settings {
            // SAFETY: by the rules of the header. A path is bytes, not text.
            let path = unsafe { text::bytes(path) };
            settings.socket = path.map(|bytes| PathBuf::from(OsStr::from_bytes(bytes)));
        }
    });
}

/// One more user, besides one's own and root, whose agent is trusted. The default is `JOBCRED_AGENT_UID`.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_settings_set_agent_uid(settings: Option<&mut Settings>, uid: u32) {
    if let Some(settings) = settings {
        settings.agent_uid = Some(uid);
    }
}

/// How long a call may take in all, in milliseconds; 0 means the default of 60 seconds, which is longer than the agent itself
/// waits for Azure.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_settings_set_timeout(settings: Option<&mut Settings>, milliseconds: u32) {
    if let Some(settings) = settings {
        settings.timeout =
            (milliseconds > 0).then(|| Duration::from_millis(u64::from(milliseconds)));
    }
}

/// Frees settings; clients made from them keep theirs. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_settings_free(settings: Option<Box<Settings>>) {
    drop(settings);
}

impl Settings {
    pub(crate) fn apply(&self, mut builder: Builder) -> Builder {
        if let Some(path) = &self.socket {
            builder = builder.socket(path);
        }
        if let Some(uid) = self.agent_uid {
            builder = builder.agent_uid(uid);
        }
        if let Some(timeout) = self.timeout {
            builder = builder.timeout(timeout);
        }
        builder
    }
}
