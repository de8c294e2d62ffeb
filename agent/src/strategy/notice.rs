//! What a person should know besides the choice: placeholders, things out of scope, things left unused.

use jobcred_wire::{Notice, Severity};

use super::candidate::View;
use super::reading::{Address, Id, is_meant_as_guid};
use super::{Choice, Strategy, Upstream, endpoint, evidence, reason};

/// The notices about single variables and about the choice itself.
pub(super) fn collect(
    view: &View<'_>,
    decided: Option<Strategy>,
    choice: Option<&Choice>,
) -> Vec<Notice> {
    let mut notices = Vec::new();
    placeholders(view, &mut notices);
    endpoints(view, &mut notices);
    out_of_scope(view, &mut notices);
    if let Some(choice) = choice {
        about_choice(view, choice, &mut notices);
    }
    workload_identity(view, decided, choice, &mut notices);
    notices
}

/// Something good to know.
pub(super) fn info(code: &str, message: impl Into<String>, hint: Option<&str>) -> Notice {
    notice(Severity::Info, code, message, hint)
}

/// Something to look at.
pub(super) fn warning(code: &str, message: impl Into<String>, hint: &str) -> Notice {
    notice(Severity::Warning, code, message, Some(hint))
}

fn notice(
    severity: Severity,
    code: &str,
    message: impl Into<String>,
    hint: Option<&str>,
) -> Notice {
    Notice {
        severity,
        code: code.to_owned(),
        message: message.into(),
        hint: hint.map(str::to_owned),
    }
}

fn placeholders(view: &View<'_>, notices: &mut Vec<Notice>) {
    let client_id = view.variable("DEFAULT_IDENTITY_CLIENT_ID");
    if view.client_id == Id::Placeholder && client_id.is_some_and(is_meant_as_guid) {
        notices.push(warning(
            reason::CLIENT_ID_NEAR_MISS,
            "DEFAULT_IDENTITY_CLIENT_ID looks as if it was meant to be a GUID, but is none, and counts as absent.",
            "The platform sets this variable. Where you do, copy the identity's client id whole: 32 digits, four hyphens, nothing around them.",
        ));
    } else if view.client_id == Id::Placeholder {
        notices.push(info(
            reason::PLACEHOLDER_CLIENT_ID,
            "DEFAULT_IDENTITY_CLIENT_ID holds a placeholder and counts as absent: the compute has no identity assigned.",
            Some("Assign one to the compute, and start the job again: a job keeps the variables that it was started with."),
        ));
    }
    for name in [
        "MSI_ENDPOINT",
        "OBO_ENDPOINT",
        "IDENTITY_ENDPOINT",
        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    ] {
        if endpoint::read(view.facts, name) == Address::Placeholder {
            notices.push(info(
                reason::PLACEHOLDER_ENDPOINT,
                format!("{name} holds a placeholder, not a URL, and counts as absent."),
                Some("Azure SDKs do not see this and fail with errors about the network; jobcred's own clients are not affected."),
            ));
        }
    }
    if Id::read(view.variable("AZURE_CLIENT_ID")) == Id::Placeholder {
        notices.push(warning(
            reason::PLACEHOLDER_AZURE_CLIENT_ID,
            "AZURE_CLIENT_ID is no GUID; Azure SDKs send it along as the name of the identity they want.",
            "Unset AZURE_CLIENT_ID. It is often copied from DEFAULT_IDENTITY_CLIENT_ID, which may be a placeholder.",
        ));
    }
    if let Some(flag) = view.variable("AZUREML_OBO_ENABLED")
        && flag != "True"
        && ["true", "1", "yes", "on"].contains(&flag.trim().to_ascii_lowercase().as_str())
    {
        notices.push(warning(
            reason::OBO_FLAG_NEAR_MISS,
            "AZUREML_OBO_ENABLED looks as if it was meant to be `True`, but only exactly `True` enables user identity.",
            "The platform sets this variable; submit the job with `identity: {type: user_identity}` and do not set it yourself.",
        ));
    }
}

fn endpoints(view: &View<'_>, notices: &mut Vec<Notice>) {
    let is_url = |name| {
        !matches!(
            endpoint::read(view.facts, name),
            Address::Absent | Address::Placeholder
        )
    };
    if is_url("MSI_ENDPOINT") && view.variable("MSI_SECRET").is_none() && view.facts.on_azure_ml() {
        notices.push(warning(
            reason::MSI_SECRET_MISSING,
            "MSI_ENDPOINT is set without MSI_SECRET; Azure ML's endpoint refuses requests without the secret.",
            "The two come together: check what drops MSI_SECRET on the way to this process.",
        ));
    }
    if is_url("IDENTITY_ENDPOINT")
        && view.variable("IDENTITY_HEADER").is_none()
        && view.variable("IMDS_ENDPOINT").is_none()
    {
        notices.push(warning(
            reason::IDENTITY_HEADER_MISSING,
            "IDENTITY_ENDPOINT is set without IDENTITY_HEADER and counts as absent.",
            "azure-identity for Python gives up on managed identity in this state: unset IDENTITY_ENDPOINT or set both.",
        ));
    }
    for name in ["MSI_ENDPOINT", "IDENTITY_ENDPOINT", "OBO_ENDPOINT"] {
        if view
            .variable(name)
            .is_some_and(|url| view.facts.is_own_endpoint(url))
        {
            notices.push(info(
                reason::OWN_ENDPOINT_IGNORED,
                format!("{name} leads to a jobcred agent that already runs here and counts as absent, so that no agent asks another."),
                None,
            ));
        }
    }
    if endpoint::is_proxied(view.facts) {
        notices.push(warning(
            reason::IMDS_PROXIED,
            format!(
                "Something answered in the place of IMDS ({}).",
                endpoint::probe_in_words(view.facts)
            ),
            "IMDS works only without a proxy: exclude 169.254.169.254 from the network's proxy.",
        ));
    }
}

fn out_of_scope(view: &View<'_>, notices: &mut Vec<Notice>) {
    if let Some(name) = ["AZUREML_MODEL_DIR", "AZUREML_ENTRY_SCRIPT"]
        .into_iter()
        .find(|name| view.variable(name).is_some())
    {
        notices.push(warning(
            reason::ONLINE_ENDPOINT,
            format!("{name} is set: this looks like an online endpoint. jobcred is made for training jobs and is not tested there."),
            "In an online endpoint use an Azure SDK directly.",
        ));
    }
    if view
        .variable("AZUREML_DATAPREP_TOKEN_PROVIDER")
        .is_some_and(|provider| provider.eq_ignore_ascii_case("sparkobo"))
    {
        notices.push(warning(
            reason::SPARK_OUT_OF_SCOPE,
            "This is a Spark job, where the user's identity comes from a service that jobcred does not speak to.",
            "Use azure-ai-ml's credential in Spark jobs.",
        ));
    }
    if view.variable("_AZUREML_SINGULARITY_JOB_UAI").is_some() && view.client_id.guid().is_none() {
        notices.push(info(
            reason::SINGULARITY_IDENTITY,
            "_AZUREML_SINGULARITY_JOB_UAI names the job's identity by resource id; without DEFAULT_IDENTITY_CLIENT_ID no id is sent.",
            Some("Export DEFAULT_IDENTITY_CLIENT_ID with the identity's client id before jobcred starts."),
        ));
    }
}

fn about_choice(view: &View<'_>, choice: &Choice, notices: &mut Vec<Notice>) {
    let asks_imds =
        matches!(&choice.upstream, Upstream::Imds { base } if super::reading::is_imds(base));
    if choice.strategy == Strategy::Sandbox {
        notices.push(warning(
            reason::SANDBOX_TOKENS,
            "The sandbox is on: tokens are made up, marked, and worth nothing to Azure.",
            "Leave `--sandbox` away to have the real identity detected.",
        ));
    }
    if asks_imds
        && view.facts.in_kubernetes()
        && !view.facts.in_azure_ml_job()
        && view.config.allow_node_identity
    {
        notices.push(warning(
            reason::NODE_IDENTITY_ALLOWED,
            "Tokens come from IMDS of the node, as `allow_node_identity` permits: every pod of the node can get the same.",
            "Prefer workload identity.",
        ));
    } else if asks_imds && view.facts.on_azure_ml() && choice.client_id.is_none() {
        notices.push(warning(
            reason::IMDS_IN_AZURE_ML_JOB,
            "Azure ML names no endpoint and no client id here, so IMDS of the node is asked; the node may have identities that are not \
             the job's.",
            "Check with `jobcred explain --probe` whose token it is, and set `expect.client_id` or `expect.object_id`.",
        ));
    }
    if choice.strategy == Strategy::SystemIdentity && view.facts.on_compute_instance() && !asks_imds
    {
        notices.push(warning(
            reason::INSTANCE_TOKEN_OF_UNKNOWN_OWNER,
            "On a compute instance a request without client id is answered with the user's token when single sign-on is on, and nothing \
             here says whether it is.",
            "Check with `jobcred explain --probe`; set DEFAULT_IDENTITY_CLIENT_ID to use the instance's identity.",
        ));
    }
}

fn workload_identity(
    view: &View<'_>,
    decided: Option<Strategy>,
    choice: Option<&Choice>,
    notices: &mut Vec<Notice>,
) {
    let Some(path) = view.variable("AZURE_FEDERATED_TOKEN_FILE") else {
        return;
    };
    let is_used = matches!(
        choice.map(|choice| &choice.upstream),
        Some(Upstream::WorkloadIdentity { .. })
    );
    if !is_used {
        // A start-up error of the Kubernetes row has said it already.
        if choice.is_some() || decided != Some(Strategy::Kubernetes) {
            notices.push(info(
                reason::WORKLOAD_IDENTITY_UNUSED,
                if view.kubernetes {
                    "AZURE_FEDERATED_TOKEN_FILE is set but not used: another way was chosen."
                } else {
                    "AZURE_FEDERATED_TOKEN_FILE is set but not used: workload identity is detected in Kubernetes pods only."
                },
                Some("Configure the strategy `kubernetes` to use it all the same."),
            ));
        }
        return;
    }
    if !view.facts.token_file {
        notices.push(warning(
            reason::TOKEN_FILE_MISSING,
            format!(
                "AZURE_FEDERATED_TOKEN_FILE names {}, which is not there.",
                evidence::plain(path).unwrap_or_else(|| "a file".to_owned())
            ),
            "Look at the pod's projected volumes; a sidecar needs the same volume mount as the training container.",
        ));
    }
    if view.variable("AZURE_KUBERNETES_TOKEN_PROXY").is_some() {
        notices.push(warning(
            reason::TOKEN_PROXY_UNSUPPORTED,
            "AZURE_KUBERNETES_TOKEN_PROXY announces AKS identity bindings, which jobcred does not use: it asks the issuer itself.",
            "The identity needs a federated credential of its own for this service account.",
        ));
    }
}
