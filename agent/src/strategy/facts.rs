//! What the selection looks at: the environment, a few files, and the result of at most one probe. Reading only.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::platform::{Environment, Files};

/// Lists (separated by blanks) the endpoint URLs that a jobcred agent itself has put into the environment of its
/// command. An endpoint variable with one of these values counts as absent, so that an agent started inside such a
/// command asks the platform, never another agent and never itself.
pub const OWN_ENDPOINTS_VARIABLE: &str = "JOBCRED_OWN_ENDPOINTS";

/// Where Kubernetes mounts a pod's service account.
const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A file that only compute instances have.
const INSTANCE_FILE: &str = "/mnt/azmnt/.nbvm";
/// A file that compute instances with single sign-on have.
const SSO_FILE: &str = "/etc/environment.sso";

/// What the probe of IMDS gave. Made once, at start, by the transport; here only a fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeResult {
    /// No probe was made.
    NotMade {
        /// Why not, as a clause: `the configuration turns it off`.
        why: String,
    },
    /// Something answered.
    Answered {
        /// The HTTP status.
        status: u16,
        /// How long it took, in milliseconds.
        ms: u64,
    },
    /// Nothing answered in time.
    NoAnswer {
        /// What happened instead, as a clause: `connection refused`.
        reason: String,
    },
}

/// Everything the selection may look at, gathered before it begins.
///
/// Its `Debug` shows no values of variables: they may be secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact, independent of the others"
)]
pub struct Facts {
    /// The variables.
    pub environment: Environment,
    /// Whether the directory of a Kubernetes service account is there.
    pub service_account: bool,
    /// Whether the file that marks a compute instance is there.
    pub instance_file: bool,
    /// Whether the file that marks single sign-on on a compute instance is there.
    pub sso_file: bool,
    /// Whether the file named by `AZURE_FEDERATED_TOKEN_FILE` is there.
    pub token_file: bool,
    /// The first `az` on `PATH`.
    pub azure_cli: Option<PathBuf>,
    /// The result of the probe; `None` like [`ProbeResult::NotMade`].
    pub probe: Option<ProbeResult>,
}

impl Facts {
    /// Gathers everything but the probe.
    #[must_use]
    pub fn gather(environment: &Environment, files: &Files) -> Self {
        Self {
            environment: environment.clone(),
            service_account: files.is_dir(Path::new(SERVICE_ACCOUNT_DIR)),
            instance_file: files.exists(Path::new(INSTANCE_FILE)),
            sso_file: files.exists(Path::new(SSO_FILE)),
            token_file: environment
                .get("AZURE_FEDERATED_TOKEN_FILE")
                .is_some_and(|path| files.exists(Path::new(path))),
            azure_cli: environment
                .get("PATH")
                .and_then(|path| find_program(path, "az", files)),
            probe: None,
        }
    }

    /// The same facts with the result of the probe.
    #[must_use]
    pub fn with_probe(mut self, result: ProbeResult) -> Self {
        self.probe = Some(result);
        self
    }

    /// The markers of Kubernetes: one variable or one directory.
    pub(super) fn in_kubernetes(&self) -> bool {
        self.environment.get("KUBERNETES_SERVICE_HOST").is_some() || self.service_account
    }

    /// The first variable that marks a batch node: those of Azure Batch, which compute clusters run on.
    pub(super) fn batch_marker(&self) -> Option<&str> {
        self.environment
            .iter()
            .map(|(name, _)| name)
            .find(|name| name.starts_with("AZ_BATCH"))
    }

    /// Whether any marker of a compute instance is there.
    pub(super) fn on_compute_instance(&self) -> bool {
        self.environment.get("CI_NAME").is_some() || self.instance_file || self.sso_file
    }

    /// Whether this is a job of Azure ML, as its run context says.
    pub(super) fn in_azure_ml_job(&self) -> bool {
        self.environment.get("AZUREML_RUN_ID").is_some()
    }

    /// Whether this is any compute of Azure ML: there, `MSI_ENDPOINT` is the platform's own variable.
    pub(super) fn on_azure_ml(&self) -> bool {
        self.in_azure_ml_job() || self.batch_marker().is_some() || self.on_compute_instance()
    }

    /// Whether `url` was put into the environment by a jobcred agent.
    pub(super) fn is_own_endpoint(&self, url: &str) -> bool {
        self.environment
            .get(OWN_ENDPOINTS_VARIABLE)
            .is_some_and(|list| list.split_ascii_whitespace().any(|own| own == url))
    }
}

/// The first program of this name on a search path. Relative parts are left out: what they name depends on where a process
/// happens to be.
fn find_program(path: &str, name: &str, files: &Files) -> Option<PathBuf> {
    path.split(':')
        .map(Path::new)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|program| files.exists(program))
}
