//! The Kubernetes row: workload identity, else the pod's endpoint, else IMDS where it stands for the job.

use std::path::PathBuf;

use super::candidate::{Finding, Verdict, View};
use super::endpoint::{self, Imds, Named};
use super::reading::{Id, is_tenant};
use super::{StartError, Strategy, Upstream, federation_issuer, reason};

/// The variables that the workload identity webhook puts into a pod and that the exchange cannot do without.
const WORKLOAD_IDENTITY: [&str; 3] = [
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
];

pub(super) fn consider(view: &View<'_>, configured: bool) -> Finding {
    let mut evidence = view.evidence(&["KUBERNETES_SERVICE_HOST"]);
    evidence.push(format!(
        "the service-account directory {}",
        if view.facts.service_account {
            "is there"
        } else {
            "is not there"
        }
    ));
    if let Some(marker) = view.facts.batch_marker() {
        evidence.push(format!("{marker} is set"));
    }
    let verdict = if view.kubernetes || configured {
        evidence.extend(view.evidence(&WORKLOAD_IDENTITY));
        evidence.extend(view.endpoint_evidence());
        evidence.extend(view.evidence(&["AZUREML_RUN_ID"]));
        evidence.push(format!(
            "allow_node_identity is {}",
            view.config.allow_node_identity
        ));
        upstream(view, configured)
    } else if view.facts.in_kubernetes() {
        Verdict::elsewhere(
            reason::BATCH_NODE,
            "There are Kubernetes markers, but this is a node of a compute cluster, whose rules come first.",
        )
    } else {
        Verdict::elsewhere(
            reason::NOT_KUBERNETES,
            "There is neither KUBERNETES_SERVICE_HOST nor a service account.",
        )
    };
    Finding { verdict, evidence }
}

fn upstream(view: &View<'_>, configured: bool) -> Verdict {
    match workload_identity(view) {
        Federation::Complete(upstream) => {
            return chosen(
                reason::KUBERNETES_WORKLOAD_IDENTITY,
                "The pod has the variables of workload identity.",
                upstream,
            );
        }
        Federation::Invalid(error) => return Verdict::Fails(error),
        // An endpoint may still be there; IMDS would be somebody else's identity.
        Federation::Incomplete(error) if view.named == Named::Nothing => {
            return Verdict::Fails(error);
        }
        Federation::Incomplete(_) | Federation::Absent => {}
    }
    match &view.named {
        Named::Usable(variable, upstream) => {
            return chosen(
                reason::KUBERNETES_ENDPOINT,
                format!(
                    "{variable} names the endpoint of the pod's one identity, which is asked without a client id."
                ),
                upstream.clone(),
            );
        }
        Named::Unusable(error) => return Verdict::Fails(error.clone()),
        Named::Nothing => {}
    }
    imds(view, configured)
}

fn imds(view: &View<'_>, configured: bool) -> Verdict {
    let (code, message) = if view.facts.in_azure_ml_job() {
        (
            reason::KUBERNETES_IMDS_AZURE_ML_JOB,
            "The pod names no endpoint; in an Azure ML job IMDS stands for the compute's identity.",
        )
    } else if view.config.allow_node_identity {
        (
            reason::KUBERNETES_IMDS_ALLOWED,
            "The pod names no endpoint; the configuration allows the node's identity.",
        )
    } else {
        return Verdict::Fails(node_identity_refused());
    };
    if view.imds == Imds::Silent && !configured {
        return Verdict::Fails(StartError {
            code: reason::KUBERNETES_IMDS_NO_ANSWER,
            message:
                "the pod has neither the variables of workload identity nor an endpoint, and IMDS does not answer"
                    .to_owned(),
            hint: "Azure ML Kubernetes compute: attach the compute with an identity. AKS: label the pod `azure.workload.identity/use: \
                   \"true\"` and use a service account that is annotated with the identity's client id. When IMDS is only slow at \
                   start, configure the strategy `kubernetes`: it is then used without a probe."
                .to_owned(),
        });
    }
    match endpoint::imds_upstream() {
        Ok(upstream) => chosen(code, message, upstream),
        Err(error) => Verdict::Fails(error),
    }
}

fn chosen(code: &'static str, message: impl Into<String>, upstream: Upstream) -> Verdict {
    Verdict::applies(Strategy::Kubernetes, code, message, upstream)
}

pub(super) fn node_identity_refused() -> StartError {
    StartError {
        code: reason::NODE_IDENTITY_REFUSED,
        message: "this Kubernetes pod has neither the variables of workload identity nor an endpoint of its own, and IMDS would \
                  answer for the node, not for the job"
            .to_owned(),
        hint: "Label the pod `azure.workload.identity/use: \"true\"` and give it a service account that is annotated with \
               `azure.workload.identity/client-id`. Only when the node's identity is really meant, set `allow_node_identity = true`."
            .to_owned(),
    }
}

/// What the environment has of workload identity.
enum Federation {
    /// No token file: nothing that would mark the pod.
    Absent,
    /// The token file, but not all of the rest.
    Incomplete(StartError),
    /// All there, but something in it is impossible.
    Invalid(StartError),
    /// All there.
    Complete(Upstream),
}

fn workload_identity(view: &View<'_>) -> Federation {
    let Some(token_file) = view.variable("AZURE_FEDERATED_TOKEN_FILE") else {
        return Federation::Absent;
    };
    let missing: Vec<&str> = WORKLOAD_IDENTITY
        .into_iter()
        .filter(|name| view.variable(name).is_none())
        .collect();
    let (Some(tenant), Some(client_id)) = (
        view.variable("AZURE_TENANT_ID"),
        view.variable("AZURE_CLIENT_ID"),
    ) else {
        return Federation::Incomplete(StartError {
            code: reason::WORKLOAD_IDENTITY_INCOMPLETE,
            message: format!(
                "AZURE_FEDERATED_TOKEN_FILE marks the pod for workload identity, but {} unset",
                match missing.as_slice() {
                    [one] => format!("{one} is"),
                    several => format!("{} are", several.join(" and ")),
                }
            ),
            hint: "Annotate the pod's service account with `azure.workload.identity/client-id` (and `/tenant-id` when the cluster's \
                   is another one), and start the pod anew."
                .to_owned(),
        });
    };
    let Id::Guid(client_id) = Id::read(Some(client_id)) else {
        return invalid("AZURE_CLIENT_ID is no GUID");
    };
    if !is_tenant(tenant) {
        return invalid("AZURE_TENANT_ID is neither a GUID nor a domain name");
    }
    let authority = match federation_issuer(&view.facts.environment, view.config) {
        Ok(url) => url,
        Err(error) => return Federation::Invalid(error.into()),
    };
    Federation::Complete(Upstream::WorkloadIdentity {
        authority,
        tenant: tenant.to_owned(),
        client_id,
        token_file: PathBuf::from(token_file),
    })
}

fn invalid(why: &str) -> Federation {
    Federation::Invalid(StartError {
        code: reason::WORKLOAD_IDENTITY_INVALID,
        message: format!("the pod has the variables of workload identity, but {why}"),
        hint: "The workload identity webhook sets these variables from the service account's annotations: correct those, and do not set \
               the variables yourself."
            .to_owned(),
    })
}
