//! Markers that say different things. Every notice says which rule decided.

use jobcred_wire::Notice;

use super::candidate::View;
use super::notice::{info, warning};
use super::reading::{Address, Id};
use super::{Choice, Strategy, Upstream, endpoint, reason, select};

/// The conflicts in the environment.
pub(super) fn collect(
    view: &View<'_>,
    decided: Option<Strategy>,
    choice: Option<&Choice>,
) -> Vec<Notice> {
    let mut notices = Vec::new();
    configuration(view, &mut notices);
    user_identity(view, &mut notices);
    places(view, &mut notices);
    ids(view, decided, choice, &mut notices);
    notices
}

fn configuration(view: &View<'_>, notices: &mut Vec<Notice>) {
    if let Some(configured) = view.config.strategy
        && let Some(detected) = select::detected(view)
        && configured != detected
    {
        notices.push(info(
            reason::CONFLICT_CONFIGURATION,
            format!("Detection would have chosen {detected}; the configuration names {configured}, and explicit configuration decides."),
            None,
        ));
    }
}

fn user_identity(view: &View<'_>, notices: &mut Vec<Notice>) {
    let is_enabled = view.variable("AZUREML_OBO_ENABLED") == Some("True");
    let obo_endpoint = endpoint::read(view.facts, "OBO_ENDPOINT");
    if !is_enabled {
        if matches!(obo_endpoint, Address::Usable(_) | Address::Invalid(_))
            && view.config.strategy != Some(Strategy::UserIdentity)
        {
            notices.push(info(
                reason::CONFLICT_OBO_ENDPOINT_WITHOUT_FLAG,
                "OBO_ENDPOINT is set, but AZUREML_OBO_ENABLED is not exactly `True`: the flag decides, and the job does not run as its user.",
                Some("For the user's identity submit with `identity: {type: user_identity}`; in a pipeline set it on every step."),
            ));
        }
        return;
    }
    if view.client_id.guid().is_some() {
        notices.push(info(
            reason::CONFLICT_USER_AND_COMPUTE,
            "AZUREML_OBO_ENABLED is `True` and DEFAULT_IDENTITY_CLIENT_ID names the compute's identity: the user's identity decides, for \
             every token of this job.",
            None,
        ));
    }
    if view.facts.in_kubernetes() {
        notices.push(info(
            reason::CONFLICT_USER_ON_KUBERNETES,
            "User identity is enabled in a Kubernetes pod, where the platform does not document it: AZUREML_OBO_ENABLED decides.",
            None,
        ));
    }
    let is_msi = match (&obo_endpoint, endpoint::read(view.facts, "MSI_ENDPOINT")) {
        (Address::Usable(obo), Address::Usable(msi)) if *obo == msi => true,
        (Address::Usable(obo), _) => obo.path().trim_end_matches('/').ends_with("/MSI/auth"),
        _ => false,
    };
    if is_msi {
        notices.push(warning(
            reason::CONFLICT_OBO_ENDPOINT_IS_MSI,
            "OBO_ENDPOINT leads to the managed-identity endpoint, so the answer may be the compute's token. It is asked as it stands, \
             because the flag decides.",
            "Seen in pipeline steps without an identity of their own: set `identity: {type: user_identity}` on the step, and check with \
             `jobcred explain --probe`.",
        ));
    }
}

fn places(view: &View<'_>, notices: &mut Vec<Notice>) {
    let facts = view.facts;
    match facts.batch_marker() {
        Some(marker) if facts.in_kubernetes() => notices.push(warning(
            reason::CONFLICT_KUBERNETES_AND_BATCH,
            format!("Kubernetes markers and {marker}: batch-node markers decide, so this is not treated as a Kubernetes pod."),
            "Unset whichever is a left-over, or configure the strategy.",
        )),
        Some(marker) if facts.on_compute_instance() => notices.push(warning(
            reason::CONFLICT_INSTANCE_AND_BATCH,
            format!(
                "Markers of a compute instance and {marker}: the compute instance decides, because there a token may be the user's."
            ),
            "Unset CI_NAME when it is a left-over, or configure the strategy.",
        )),
        _ => {}
    }
    if view.kubernetes && facts.on_compute_instance() {
        notices.push(warning(
            reason::CONFLICT_KUBERNETES_AND_INSTANCE,
            "Markers of Kubernetes and of a compute instance: Kubernetes decides.",
            "On a compute instance unset KUBERNETES_SERVICE_HOST, or configure the strategy: its endpoint may answer with the user's token.",
        ));
    }
    if let [first, others @ ..] = endpoint_order(view).as_slice()
        && !others.is_empty()
    {
        notices.push(info(
            reason::CONFLICT_ENDPOINTS,
            format!(
                "{first} and {} both name an endpoint: {}",
                others.join(" and "),
                if facts.on_azure_ml() {
                    "on Azure ML its own variable, MSI_ENDPOINT, comes first."
                } else {
                    "outside Azure ML the order of the Azure SDKs decides."
                }
            ),
            None,
        ));
    }
}

/// The variables that name an endpoint, the one that counts first.
fn endpoint_order(view: &View<'_>) -> Vec<&'static str> {
    let mut variables = endpoint::usable_variables(view.facts);
    if let endpoint::Named::Usable(first, _) = view.named {
        variables.retain(|variable| *variable != first);
        variables.insert(0, first);
    }
    variables
}

fn ids(
    view: &View<'_>,
    decided: Option<Strategy>,
    choice: Option<&Choice>,
    notices: &mut Vec<Notice>,
) {
    if view.kubernetes
        && decided == Some(Strategy::Kubernetes)
        && view.variable("DEFAULT_IDENTITY_CLIENT_ID").is_some()
    {
        notices.push(info(
            reason::CONFLICT_CLIENT_ID_ON_KUBERNETES,
            "DEFAULT_IDENTITY_CLIENT_ID is set and ignored: Kubernetes compute has one identity, which is asked for without a client id.",
            None,
        ));
    }
    match view.variable("AZUREML_IDENTITY_IN_USE") {
        Some("Managed") if view.variable("AZUREML_OBO_ENABLED") == Some("True") => notices.push(warning(
            reason::CONFLICT_IDENTITY_IN_USE,
            "AZUREML_IDENTITY_IN_USE says `Managed`, but AZUREML_OBO_ENABLED is `True`: the latter decides, and tokens are the user's.",
            "A job has one kind of identity. Set it in the job's `identity`, not by variables.",
        )),
        Some("ServicePrincipal") => notices.push(info(
            reason::CONFLICT_IDENTITY_IN_USE,
            "AZUREML_IDENTITY_IN_USE says `ServicePrincipal`, which the platform does not support for jobs: it is not looked at.",
            None,
        )),
        _ => {}
    }
    let asked_for = Id::read(view.variable("AZUREML_IDENTITY_CLIENT_ID"));
    if let (Some(asked_for), Some(given)) = (asked_for.guid(), view.client_id.guid())
        && asked_for != given
    {
        notices.push(warning(
            reason::CONFLICT_IDENTITY_CLIENT_ID,
            "AZUREML_IDENTITY_CLIENT_ID names another identity than DEFAULT_IDENTITY_CLIENT_ID: the latter decides.",
            "Name the other identity in the request (`client_id`) where it is wanted.",
        ));
    }
    // Elsewhere the variable belongs to the strategy itself.
    let sends = match choice.map(|choice| &choice.upstream) {
        Some(
            Upstream::WorkloadIdentity { .. }
            | Upstream::ServicePrincipal { .. }
            | Upstream::AzureCli { .. }
            | Upstream::Sandbox,
        )
        | None => return,
        Some(_) => choice.and_then(|choice| choice.client_id.as_deref()),
    };
    let named = Id::read(view.variable("AZURE_CLIENT_ID"));
    if let Some(named) = named.guid()
        && sends != Some(named)
    {
        notices.push(warning(
            reason::CONFLICT_AZURE_CLIENT_ID,
            match sends {
                Some(_) => "AZURE_CLIENT_ID names another identity than DEFAULT_IDENTITY_CLIENT_ID: the latter is served by default.",
                None => "AZURE_CLIENT_ID is set, but this strategy asks without a client id: the variable is not sent.",
            },
            "DefaultAzureCredential passes AZURE_CLIENT_ID on as the identity it wants. Unset it when the job's own identity is meant.",
        ));
    }
}
