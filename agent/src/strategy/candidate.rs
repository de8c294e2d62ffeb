//! One function per strategy: whether it applies, and what it would ask. The table of the selection, row by row.

use super::endpoint::{self, Imds, Named};
use super::reading::{Address, Id};
use super::{
    Choice, Facts, StartError, Strategy, Upstream, application, evidence, kubernetes, reason,
};
use crate::config::Config;

/// The facts as every row sees them, read once.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) facts: &'a Facts,
    pub(super) config: &'a Config,
    /// Kubernetes markers, and no batch-node marker that decides against them.
    pub(super) kubernetes: bool,
    /// `DEFAULT_IDENTITY_CLIENT_ID`.
    pub(super) client_id: Id,
    pub(super) named: Named,
    pub(super) imds: Imds,
    /// A compute instance whose endpoint answers with the user's token.
    pub(super) instance_user: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(facts: &'a Facts, config: &'a Config) -> Self {
        let client_id = Id::read(facts.environment.get("DEFAULT_IDENTITY_CLIENT_ID"));
        let named = endpoint::named(facts);
        // Where the platform writes the placeholder, the instance has no identity of its own: what answers is the
        // user's sign-on. Only the platform's endpoint does that; IMDS never answers for a user.
        let signs_user_on = facts.sso_file || client_id == Id::Placeholder;
        let instance_user = facts.on_compute_instance() && signs_user_on && named != Named::Nothing;
        Self {
            facts,
            config,
            kubernetes: facts.in_kubernetes() && facts.batch_marker().is_none(),
            client_id,
            named,
            imds: endpoint::imds(facts),
            instance_user,
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&'a str> {
        self.facts.environment.get(name)
    }

    /// Variables as evidence.
    pub(super) fn evidence(&self, names: &[&str]) -> Vec<String> {
        evidence::variables(&self.facts.environment, names)
    }

    /// The endpoint variables and the probe as evidence.
    pub(super) fn endpoint_evidence(&self) -> Vec<String> {
        let mut lines = self.evidence(&["MSI_ENDPOINT", "MSI_SECRET"]);
        for name in [
            "IDENTITY_ENDPOINT",
            "IDENTITY_HEADER",
            "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        ] {
            if self.facts.environment.is_set(name) {
                lines.extend(self.evidence(&[name]));
            }
        }
        if self.named == Named::Nothing {
            lines.push(endpoint::probe_in_words(self.facts));
        }
        lines
    }

    /// Whether IMDS stands for the job here, or may be used although it stands for the node.
    pub(super) fn may_use_imds(&self) -> bool {
        !self.facts.in_kubernetes()
            || self.facts.batch_marker().is_some()
            || self.facts.in_azure_ml_job()
            || self.config.allow_node_identity
    }
}

/// What became of one strategy.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) evidence: Vec<String>,
}

/// Whether a strategy is the one for these facts, looked at alone.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It applies and can serve.
    Applies {
        code: &'static str,
        message: String,
        choice: Choice,
    },
    /// It applies and cannot serve.
    Fails(StartError),
    /// It does not apply.
    Elsewhere { code: &'static str, message: String },
}

impl Verdict {
    /// Whether the strategy is the one for these facts, able to serve or not.
    pub(super) fn is_applicable(&self) -> bool {
        !matches!(self, Self::Elsewhere { .. })
    }

    pub(super) fn elsewhere(code: &'static str, message: impl Into<String>) -> Self {
        Self::Elsewhere {
            code,
            message: message.into(),
        }
    }

    pub(super) fn applies(
        strategy: Strategy,
        code: &'static str,
        message: impl Into<String>,
        upstream: Upstream,
    ) -> Self {
        Self::Applies {
            code,
            message: message.into(),
            choice: Choice {
                strategy,
                upstream,
                client_id: None,
            },
        }
    }
}

/// All strategies in the order they are considered. The first that applies, well or badly, decides.
pub(super) const ORDER: [Strategy; 8] = [
    Strategy::UserIdentity,
    Strategy::ComputeIdentity,
    Strategy::Kubernetes,
    Strategy::SystemIdentity,
    Strategy::ComputeInstanceUser,
    Strategy::ServicePrincipal,
    Strategy::AzureCli,
    Strategy::Sandbox,
];

/// Looks at one strategy. `configured` means that the configuration names it: then it applies, and only whether it can
/// serve is left to find out.
pub(super) fn consider(view: &View<'_>, strategy: Strategy, configured: bool) -> Finding {
    match strategy {
        Strategy::UserIdentity => user_identity(view, configured),
        Strategy::ComputeIdentity => compute_identity(view, configured),
        Strategy::Kubernetes => kubernetes::consider(view, configured),
        Strategy::SystemIdentity => system_identity(view, configured),
        Strategy::ComputeInstanceUser => compute_instance_user(view, configured),
        Strategy::ServicePrincipal => application::service_principal(view, configured),
        Strategy::AzureCli => application::azure_cli(view, configured),
        Strategy::Sandbox => application::sandbox(configured),
    }
}

fn user_identity(view: &View<'_>, configured: bool) -> Finding {
    let evidence = view.evidence(&["AZUREML_OBO_ENABLED", "OBO_ENDPOINT", "MSI_SECRET"]);
    let verdict = if view.variable("AZUREML_OBO_ENABLED") == Some("True") || configured {
        match endpoint::read(view.facts, "OBO_ENDPOINT") {
            Address::Usable(endpoint) => Verdict::applies(
                Strategy::UserIdentity,
                reason::OBO_ENABLED,
                "The job runs with the identity of the user who submitted it.",
                Upstream::OnBehalfOf {
                    endpoint,
                    secret: view.variable("MSI_SECRET").map(Into::into),
                },
            ),
            Address::Absent | Address::Placeholder => Verdict::Fails(StartError {
                code: reason::OBO_ENDPOINT_MISSING,
                message: "the job is to run with the submitting user's identity, but OBO_ENDPOINT is unset or a placeholder; \
                          the compute's identity is never used in its place"
                    .to_owned(),
                hint: "Submit with CLI v2 or SDK v2 to a compute cluster, with `identity: {type: user_identity}` on the job; in a \
                       pipeline set it on every step. To run with the compute's identity, set `identity: {type: managed}`."
                    .to_owned(),
            }),
            Address::Invalid(why) => Verdict::Fails(StartError {
                code: reason::OBO_ENDPOINT_INVALID,
                message: format!(
                    "the job is to run with the submitting user's identity, but OBO_ENDPOINT {why}; the compute's identity is \
                     never used in its place"
                ),
                hint: "OBO_ENDPOINT is set by the platform to an http address on this machine. Do not set it yourself.".to_owned(),
            }),
        }
    } else {
        Verdict::elsewhere(
            reason::OBO_NOT_ENABLED,
            "AZUREML_OBO_ENABLED is not exactly `True`, so the job does not run as its user.",
        )
    };
    Finding { verdict, evidence }
}

fn compute_identity(view: &View<'_>, configured: bool) -> Finding {
    let mut evidence = view.evidence(&["DEFAULT_IDENTITY_CLIENT_ID"]);
    let verdict = match &view.client_id {
        Id::Guid(_) if view.kubernetes && !configured => Verdict::elsewhere(
            reason::KUBERNETES_IGNORES_CLIENT_ID,
            "DEFAULT_IDENTITY_CLIENT_ID is set, but on Kubernetes the one identity is asked for without a client id.",
        ),
        Id::Guid(guid) => {
            evidence.extend(view.endpoint_evidence());
            compute_identity_with(view, guid, configured)
        }
        _ if configured => Verdict::Fails(StartError {
            code: reason::CLIENT_ID_REQUIRED,
            message:
                "the strategy compute-identity needs DEFAULT_IDENTITY_CLIENT_ID to be the identity's client id (a GUID)"
                    .to_owned(),
            hint: "Assign an identity to the compute cluster, or configure `system-identity` to ask without a client id.".to_owned(),
        }),
        Id::Absent => Verdict::elsewhere(
            reason::CLIENT_ID_UNSET,
            "DEFAULT_IDENTITY_CLIENT_ID is not set, so the compute names no identity.",
        ),
        Id::Placeholder => Verdict::elsewhere(
            reason::CLIENT_ID_PLACEHOLDER,
            "DEFAULT_IDENTITY_CLIENT_ID is no GUID but a placeholder: the compute has no identity assigned.",
        ),
    };
    Finding { verdict, evidence }
}

fn compute_identity_with(view: &View<'_>, client_id: &str, configured: bool) -> Verdict {
    match managed_identity(view, configured) {
        Managed::Upstream(upstream) => Verdict::Applies {
            code: reason::CLIENT_ID_GIVEN,
            message: "The compute names its managed identity by client id.".to_owned(),
            choice: Choice {
                strategy: Strategy::ComputeIdentity,
                upstream,
                client_id: Some(client_id.to_owned()),
            },
        },
        Managed::Fails(error) => Verdict::Fails(error),
        // The client id is evidence enough where the configuration forbids to probe.
        Managed::NotProbed if view.may_use_imds() => match endpoint::imds_upstream() {
            Ok(upstream) => Verdict::Applies {
                code: reason::CLIENT_ID_GIVEN,
                message: "The compute names its managed identity by client id; IMDS was not probed.".to_owned(),
                choice: Choice {
                    strategy: Strategy::ComputeIdentity,
                    upstream,
                    client_id: Some(client_id.to_owned()),
                },
            },
            Err(error) => Verdict::Fails(error),
        },
        Managed::NotProbed | Managed::Silent => Verdict::Fails(StartError {
            code: reason::NO_ENDPOINT_FOR_CLIENT_ID,
            message: "DEFAULT_IDENTITY_CLIENT_ID names the compute's identity, but MSI_ENDPOINT names no endpoint and IMDS does not answer"
                .to_owned(),
            hint: "On a compute cluster the platform sets MSI_ENDPOINT: check that the variables reach this process (`docker run`, `sudo` \
                   and `mpirun` drop them), and that the identity is still assigned to the cluster."
                .to_owned(),
        }),
    }
}

fn system_identity(view: &View<'_>, configured: bool) -> Finding {
    let evidence = view.endpoint_evidence();
    let verdict = if view.kubernetes && !configured {
        Verdict::elsewhere(
            reason::KUBERNETES_DECIDES,
            "This is a Kubernetes pod, where only the rules of the strategy kubernetes lead to a managed identity.",
        )
    } else if view.instance_user && !configured {
        Verdict::elsewhere(
            reason::INSTANCE_ANSWERS_FOR_USER,
            "On this compute instance the same call is answered with the user's token, which has a strategy of its own.",
        )
    } else {
        without_client_id(view, Strategy::SystemIdentity, configured)
    };
    Finding { verdict, evidence }
}

fn compute_instance_user(view: &View<'_>, configured: bool) -> Finding {
    let mut evidence = view.evidence(&["CI_NAME"]);
    for (path, there) in [
        ("/mnt/azmnt/.nbvm", view.facts.instance_file),
        ("/etc/environment.sso", view.facts.sso_file),
    ] {
        let state = if there { "is there" } else { "is not there" };
        evidence.push(format!("{path} {state}"));
    }
    let verdict = if configured {
        without_client_id(view, Strategy::ComputeInstanceUser, configured)
    } else if view.kubernetes {
        Verdict::elsewhere(
            reason::KUBERNETES_DECIDES,
            "This is a Kubernetes pod, where only the rules of the strategy kubernetes lead to a managed identity.",
        )
    } else if !view.facts.on_compute_instance() {
        Verdict::elsewhere(
            reason::NOT_A_COMPUTE_INSTANCE,
            "Nothing marks this machine as a compute instance.",
        )
    } else if view.instance_user {
        without_client_id(view, Strategy::ComputeInstanceUser, configured)
    } else if view.named == Named::Nothing {
        Verdict::elsewhere(
            reason::NO_ENDPOINT,
            "A compute instance, but no endpoint is named that would answer for its user.",
        )
    } else {
        Verdict::elsewhere(
            reason::NO_SINGLE_SIGN_ON,
            "A compute instance, but nothing says that it signs its user on.",
        )
    };
    Finding { verdict, evidence }
}

/// The call without client id, which two strategies share and name for what it gives.
fn without_client_id(view: &View<'_>, strategy: Strategy, configured: bool) -> Verdict {
    match managed_identity(view, configured) {
        Managed::Upstream(upstream) => {
            let (code, message) = match (strategy, &view.named) {
                (Strategy::ComputeInstanceUser, _) => (
                    reason::COMPUTE_INSTANCE_SSO,
                    "A compute instance with single sign-on: the platform answers with its user's token.".to_owned(),
                ),
                (_, Named::Usable(variable, _)) => (
                    reason::ENDPOINT_IN_ENVIRONMENT,
                    format!("{variable} names an endpoint, and nothing names a client id."),
                ),
                // A configured strategy makes no probe.
                _ if configured => (
                    reason::IMDS_ANSWERED,
                    "No endpoint is named in the environment, so IMDS is asked; it was not probed."
                        .to_owned(),
                ),
                _ => (
                    reason::IMDS_ANSWERED,
                    "No endpoint is named in the environment, and IMDS answers.".to_owned(),
                ),
            };
            Verdict::applies(strategy, code, message, upstream)
        }
        Managed::Fails(error) => Verdict::Fails(error),
        Managed::Silent => Verdict::elsewhere(
            reason::IMDS_NO_ANSWER,
            "No endpoint is named in the environment, and IMDS does not answer.",
        ),
        Managed::NotProbed => Verdict::elsewhere(
            reason::NO_ENDPOINT,
            "No endpoint is named in the environment, and IMDS was not probed.",
        ),
    }
}

/// Where managed-identity tokens would come from.
enum Managed {
    Upstream(Upstream),
    Fails(StartError),
    Silent,
    NotProbed,
}

/// The endpoint in the environment, else IMDS. A configured strategy needs no probe: to name it is to vouch for it.
fn managed_identity(view: &View<'_>, configured: bool) -> Managed {
    match &view.named {
        Named::Usable(_, upstream) => return Managed::Upstream(upstream.clone()),
        Named::Unusable(error) => return Managed::Fails(error.clone()),
        Named::Nothing => {}
    }
    if configured && !view.may_use_imds() {
        return Managed::Fails(kubernetes::node_identity_refused());
    }
    match view.imds {
        Imds::Answers => {}
        _ if configured => {}
        Imds::Silent => return Managed::Silent,
        Imds::Unknown => return Managed::NotProbed,
    }
    match endpoint::imds_upstream() {
        Ok(upstream) => Managed::Upstream(upstream),
        Err(error) => Managed::Fails(error),
    }
}
