//! Variables by which SDKs and tools get credentials past jobcred: nothing is wrong with them, but a person who wonders
//! why jobcred is not asked should see them.

use jobcred_wire::Notice;

use super::candidate::View;
use super::notice::{info, warning};
use super::{Choice, Upstream, reason};

/// What storage SDKs and tools prefer to a token.
const STORAGE_SECRETS: [&str; 9] = [
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SERVICE_ENDPOINT_SAS",
    "AZURE_STORAGEBLOB_CONNECTIONSTRING",
    "AZURE_STORAGEBLOB_SASTOKEN",
];

/// The ways around jobcred that the environment opens.
pub(super) fn collect(view: &View<'_>, choice: Option<&Choice>) -> Vec<Notice> {
    let mut notices = Vec::new();
    let upstream = choice.map(|choice| &choice.upstream);
    let set = |name: &str| view.variable(name).is_some();

    let has_application = set("AZURE_TENANT_ID") && set("AZURE_CLIENT_ID");
    if let Some(name) = ["AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH"]
        .into_iter()
        .find(|name| has_application && set(name))
        && !matches!(upstream, Some(Upstream::ServicePrincipal { .. }))
    {
        notices.push(warning(
            reason::BYPASS_ENVIRONMENT_CREDENTIAL,
            format!(
                "AZURE_TENANT_ID, AZURE_CLIENT_ID and {name} are set: DefaultAzureCredential takes that application first and never asks jobcred."
            ),
            "Unset them, or configure the strategy `service-principal` to have jobcred use them.",
        ));
    }
    if set("AZURE_FEDERATED_TOKEN_FILE") {
        notices.push(info(
            reason::BYPASS_WORKLOAD_IDENTITY,
            "AZURE_FEDERATED_TOKEN_FILE is set: DefaultAzureCredential tries workload identity by itself before it asks jobcred.",
            Some("Use jobcred's own credential, or set AZURE_TOKEN_CREDENTIALS=ManagedIdentityCredential."),
        ));
    }
    if let Some(value) = view.variable("AZURE_TOKEN_CREDENTIALS")
        && !["prod", "managedidentitycredential"]
            .contains(&value.trim().to_ascii_lowercase().as_str())
    {
        notices.push(warning(
            reason::BYPASS_TOKEN_CREDENTIALS,
            "AZURE_TOKEN_CREDENTIALS keeps DefaultAzureCredential from trying managed identity, and so from asking jobcred.",
            "Unset it, or set it to ManagedIdentityCredential.",
        ));
    }
    if set("IDENTITY_SERVER_THUMBPRINT") {
        notices.push(warning(
            reason::BYPASS_SERVICE_FABRIC,
            "IDENTITY_SERVER_THUMBPRINT makes Azure SDKs take the endpoint for Service Fabric's and demand https of it.",
            "Unset IDENTITY_SERVER_THUMBPRINT.",
        ));
    }
    if matches!(
        upstream,
        Some(Upstream::AzureMl { .. } | Upstream::AppService2017 { .. })
    ) {
        notices.push(info(
            reason::BYPASS_OLD_SDK,
            "MSI_ENDPOINT still leads to the platform: tools that look at it first (azure-identity before 1.6, AzureML's own data tools) \
             keep working without jobcred.",
            None,
        ));
    }
    if let Some(name) = STORAGE_SECRETS.into_iter().find(|name| set(name)) {
        notices.push(info(
            reason::BYPASS_STORAGE_KEY,
            format!("{name} is set: storage tools that know it use it instead of a token."),
            Some("Unset it to have access decided by the job's identity."),
        ));
    }
    if set("AZCOPY_AUTO_LOGIN_TYPE") {
        notices.push(info(
            reason::BYPASS_AZCOPY_LOGIN,
            "AZCOPY_AUTO_LOGIN_TYPE is set: AzCopy logs in by itself in that way.",
            Some("`MSI` makes AzCopy ask the managed-identity endpoint, which jobcred can stand in for."),
        ));
    }
    if set("DOCKER_AUTH_CONFIG") {
        notices.push(info(
            reason::BYPASS_DOCKER_AUTH,
            "DOCKER_AUTH_CONFIG is set: container tools that read it take its passwords before they ask a credential helper.",
            Some("Unset it to have registries served by docker-credential-jobcred."),
        ));
    }
    if set("REGISTRY_AUTH_FILE") {
        notices.push(info(
            reason::BYPASS_REGISTRY_AUTH_FILE,
            "REGISTRY_AUTH_FILE is set: podman, skopeo and buildah read that file, which must name the credential helper itself.",
            None,
        ));
    }
    notices
}
