//! The stable codes of `jobcred explain`: why a strategy was chosen, passed over or failed, and what is worth a notice.
//!
//! Codes are an interface: `explain --json` prints them and scripts compare them. A code is never given another meaning;
//! new ones may be added. Each has one line here that says what it means, which is also its documentation.

/// Defines the codes as constants and lists them with their meanings.
macro_rules! codes {
    ($(#[$doc:meta])* $list:ident { $($name:ident = $code:literal: $meaning:literal;)+ }) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)+
        $(#[$doc])*
        pub const $list: &[(&str, &str)] = &[$(($name, $meaning),)+];
    };
}

codes! {
    /// Why a strategy was chosen.
    CHOSEN {
        OBO_ENABLED = "obo_enabled": "The job runs with the submitting user's identity and the platform names the endpoint.";
        CLIENT_ID_GIVEN = "client_id_given": "The compute names its identity and there is an endpoint to ask.";
        KUBERNETES_WORKLOAD_IDENTITY = "kubernetes_workload_identity": "The pod has the variables of workload identity.";
        KUBERNETES_ENDPOINT = "kubernetes_endpoint": "The pod has an endpoint in its environment.";
        KUBERNETES_IMDS_AZURE_ML_JOB = "kubernetes_imds_azure_ml_job": "The pod is an Azure ML job, for which IMDS stands for the compute's identity.";
        KUBERNETES_IMDS_ALLOWED = "kubernetes_imds_allowed": "The configuration allows the pod to use the node's identity.";
        ENDPOINT_IN_ENVIRONMENT = "endpoint_in_environment": "An endpoint is named in the environment.";
        IMDS_ANSWERED = "imds_answered": "Nothing is named in the environment and IMDS answered the probe.";
        COMPUTE_INSTANCE_SSO = "compute_instance_sso": "A compute instance with single sign-on answers with its user's token.";
        CONFIGURED = "configured": "The configuration names the strategy.";
    }
}

codes! {
    /// Why a strategy was passed over.
    PASSED_OVER {
        OBO_NOT_ENABLED = "obo_not_enabled": "`AZUREML_OBO_ENABLED` is not exactly True.";
        CLIENT_ID_UNSET = "client_id_unset": "`DEFAULT_IDENTITY_CLIENT_ID` is unset or empty.";
        CLIENT_ID_PLACEHOLDER = "client_id_placeholder": "`DEFAULT_IDENTITY_CLIENT_ID` holds a placeholder, not a GUID.";
        KUBERNETES_IGNORES_CLIENT_ID = "kubernetes_ignores_client_id": "On Kubernetes the one identity is asked for without a client id.";
        NOT_KUBERNETES = "not_kubernetes": "There are no Kubernetes markers.";
        BATCH_NODE = "batch_node": "There are Kubernetes markers, but batch-node markers decide against it.";
        KUBERNETES_DECIDES = "kubernetes_decides": "In a pod only the Kubernetes rules may lead to a managed identity.";
        NO_ENDPOINT = "no_endpoint": "No endpoint is named in the environment, and IMDS was not probed or would not do.";
        IMDS_NO_ANSWER = "imds_no_answer": "No endpoint is named in the environment and IMDS does not answer.";
        NOT_A_COMPUTE_INSTANCE = "not_a_compute_instance": "There are no compute-instance markers.";
        NO_SINGLE_SIGN_ON = "no_single_sign_on": "A compute instance, but nothing says that single sign-on is on.";
        INSTANCE_ANSWERS_FOR_USER = "instance_answers_for_user": "The same call would be answered with the user's token.";
        ONLY_WHEN_CONFIGURED = "only_when_configured": "Never detected; only the configuration can choose it.";
        OUTRANKED = "outranked": "It would apply, but another strategy comes first.";
        CONFIGURATION_DECIDES = "configuration_decides": "The configuration names another strategy.";
    }
}

codes! {
    /// Why a strategy that applies cannot serve: the codes of start-up errors.
    FAILED {
        OBO_ENDPOINT_MISSING = "obo_endpoint_missing": "User identity, but `OBO_ENDPOINT` is unset or a placeholder.";
        OBO_ENDPOINT_INVALID = "obo_endpoint_invalid": "User identity, but `OBO_ENDPOINT` is no address that may be asked.";
        ENDPOINT_INVALID = "endpoint_invalid": "The endpoint in the environment is no address that may be asked.";
        ENDPOINT_UNSUPPORTED = "endpoint_unsupported": "The endpoint in the environment speaks a protocol that jobcred does not.";
        NO_ENDPOINT_FOR_CLIENT_ID = "no_endpoint_for_client_id": "The compute names its identity, but there is no endpoint to ask.";
        CLIENT_ID_REQUIRED = "client_id_required": "compute-identity is configured, but no client id is given.";
        WORKLOAD_IDENTITY_INCOMPLETE = "workload_identity_incomplete": "Some of the variables of workload identity are missing.";
        WORKLOAD_IDENTITY_INVALID = "workload_identity_invalid": "A variable of workload identity has an impossible value.";
        NODE_IDENTITY_REFUSED = "node_identity_refused": "Only IMDS is left, and in this pod it stands for the node, not for the job.";
        KUBERNETES_IMDS_NO_ANSWER = "kubernetes_imds_no_answer": "Only IMDS is left, and it does not answer.";
        AUTHORITY_NOT_HTTPS = "authority_not_https": "The issuer's address is not https.";
        SERVICE_PRINCIPAL_INCOMPLETE = "service_principal_incomplete": "service-principal is configured, but a variable is missing or impossible.";
        AZURE_CLI_UNAVAILABLE = "azure_cli_unavailable": "azure-cli is configured, but there is no `az` on PATH.";
        FEDERATION_INVALID = "federation_invalid": "An application to act as is configured, but its issuer is no https address.";
        FEDERATION_IMPOSSIBLE = "federation_impossible": "An application to act as is configured, but the job's tokens are no managed identity's.";
        NOTHING_FOUND = "nothing_found": "Nothing in the environment leads to an identity.";
    }
}

codes! {
    /// Start-up errors that show only when the choice is carried out.
    CARRIED_OUT {
        SECRET_NOT_SENDABLE = "secret_not_sendable": "The endpoint's secret holds characters that no HTTP header can.";
        DECISION_CHANGED = "decision_changed": "The agent was started again, and what it finds now would lead to another identity than at the job's start.";
        DECISION_LOST = "decision_lost": "The agent cannot read what it was given, or what was decided at the job's start.";
        AGENT_KEEPS_ENDING = "agent_keeps_ending": "The agent ended several times in a row; what answers instead has no tokens.";
        NO_RANDOMNESS = "no_randomness": "The kernel's random number generator cannot be used.";
    }
}

codes! {
    /// What is worth a notice: placeholders, conflicts, things out of scope, ways around jobcred, broken promises.
    NOTICES {
        PLACEHOLDER_CLIENT_ID = "placeholder_client_id": "`DEFAULT_IDENTITY_CLIENT_ID` is a placeholder and counts as absent.";
        PLACEHOLDER_ENDPOINT = "placeholder_endpoint": "An endpoint variable is a placeholder and counts as absent.";
        PLACEHOLDER_AZURE_CLIENT_ID = "placeholder_azure_client_id": "`AZURE_CLIENT_ID` is no GUID; SDKs will ask for an identity of that name.";
        CLIENT_ID_NEAR_MISS = "client_id_near_miss": "`DEFAULT_IDENTITY_CLIENT_ID` looks like a GUID but is none, and counts as absent.";
        OBO_FLAG_NEAR_MISS = "obo_flag_near_miss": "`AZUREML_OBO_ENABLED` looks like True but is not exactly that.";
        CONFLICT_USER_AND_COMPUTE = "conflict_user_and_compute": "Both the user's and a compute identity are announced.";
        CONFLICT_USER_ON_KUBERNETES = "conflict_user_on_kubernetes": "User identity is announced in a Kubernetes pod.";
        CONFLICT_OBO_ENDPOINT_WITHOUT_FLAG = "conflict_obo_endpoint_without_flag": "`OBO_ENDPOINT` is set, but user identity is not enabled.";
        CONFLICT_OBO_ENDPOINT_IS_MSI = "conflict_obo_endpoint_is_msi": "`OBO_ENDPOINT` leads to the managed-identity endpoint.";
        CONFLICT_KUBERNETES_AND_BATCH = "conflict_kubernetes_and_batch": "Markers of Kubernetes and of a batch node.";
        CONFLICT_KUBERNETES_AND_INSTANCE = "conflict_kubernetes_and_instance": "Markers of Kubernetes and of a compute instance.";
        CONFLICT_INSTANCE_AND_BATCH = "conflict_instance_and_batch": "Markers of a compute instance and of a batch node.";
        CONFLICT_CLIENT_ID_ON_KUBERNETES = "conflict_client_id_on_kubernetes": "`DEFAULT_IDENTITY_CLIENT_ID` is set in a pod and is ignored.";
        CONFLICT_ENDPOINTS = "conflict_endpoints": "More than one endpoint is named in the environment.";
        CONFLICT_IDENTITY_IN_USE = "conflict_identity_in_use": "`AZUREML_IDENTITY_IN_USE` says otherwise than the other markers.";
        CONFLICT_IDENTITY_CLIENT_ID = "conflict_identity_client_id": "`AZUREML_IDENTITY_CLIENT_ID` names another identity than `DEFAULT_IDENTITY_CLIENT_ID`.";
        CONFLICT_AZURE_CLIENT_ID = "conflict_azure_client_id": "`AZURE_CLIENT_ID` names another identity than the one served by default.";
        CONFLICT_CONFIGURATION = "conflict_configuration": "The configuration chose otherwise than detection would have.";
        WORKLOAD_IDENTITY_UNUSED = "workload_identity_unused": "Variables of workload identity are there but not used.";
        TOKEN_FILE_MISSING = "token_file_missing": "`AZURE_FEDERATED_TOKEN_FILE` names a file that is not there.";
        TOKEN_PROXY_UNSUPPORTED = "token_proxy_unsupported": "AKS identity bindings are announced; jobcred asks the issuer itself.";
        MSI_SECRET_MISSING = "msi_secret_missing": "`MSI_ENDPOINT` without `MSI_SECRET`: the endpoint may refuse.";
        IDENTITY_HEADER_MISSING = "identity_header_missing": "`IDENTITY_ENDPOINT` without `IDENTITY_HEADER` counts as absent.";
        OWN_ENDPOINT_IGNORED = "own_endpoint_ignored": "An endpoint variable leads to a jobcred agent and counts as absent.";
        NODE_IDENTITY_ALLOWED = "node_identity_allowed": "Tokens come from IMDS of the node, as the configuration allows.";
        IMDS_IN_AZURE_ML_JOB = "imds_in_azure_ml_job": "An Azure ML job without an endpoint of its own asks IMDS of its node.";
        ROOTS_NOT_FOUND = "roots_not_found": "`ca_file`, `SSL_CERT_FILE` or `SSL_CERT_DIR` names what is not there or cannot be looked at. The other roots are used.";
        IMDS_PROXIED = "imds_proxied": "Something answered in the place of IMDS.";
        INSTANCE_TOKEN_OF_UNKNOWN_OWNER = "instance_token_of_unknown_owner": "On this compute instance the token may be the user's.";
        SINGULARITY_IDENTITY = "singularity_identity": "The job names its identity by a resource id, which is not sent by default.";
        ONLINE_ENDPOINT = "online_endpoint": "This looks like an online endpoint, which is out of scope.";
        SPARK_OUT_OF_SCOPE = "spark_out_of_scope": "User identity in Spark works in another way, which is out of scope.";
        FEDERATED_APPLICATION = "federated_application": "Tokens are those of an application in another tenant that trusts the job's identity.";
        FEDERATED_REGISTRY = "federated_registry": "A registry is asked as an application in another tenant that trusts the job's identity.";
        SANDBOX_TOKENS = "sandbox_tokens": "Tokens are made up and worth nothing outside the sandbox.";
        BYPASS_ENVIRONMENT_CREDENTIAL = "bypass_environment_credential": "SDKs try the application in the environment before any managed identity.";
        BYPASS_WORKLOAD_IDENTITY = "bypass_workload_identity": "SDKs try workload identity before any managed identity.";
        BYPASS_TOKEN_CREDENTIALS = "bypass_token_credentials": "`AZURE_TOKEN_CREDENTIALS` keeps SDKs from asking for a managed identity.";
        BYPASS_SERVICE_FABRIC = "bypass_service_fabric": "`IDENTITY_SERVER_THUMBPRINT` makes SDKs speak another protocol.";
        BYPASS_OLD_SDK = "bypass_old_sdk": "SDKs from 2020 and before look at `MSI_ENDPOINT` first.";
        BYPASS_STORAGE_KEY = "bypass_storage_key": "Storage tools prefer a key, a signature or a connection string.";
        BYPASS_AZCOPY_LOGIN = "bypass_azcopy_login": "`AzCopy` is told to log in by itself.";
        BYPASS_DOCKER_AUTH = "bypass_docker_auth": "Container tools take registry passwords from the environment.";
        BYPASS_REGISTRY_AUTH_FILE = "bypass_registry_auth_file": "Container tools read another file than the one that names the helper.";
        PROMISE_USER_TOKEN = "promise_user_token": "The token is a user's where an application's was announced.";
        PROMISE_APPLICATION_TOKEN = "promise_application_token": "The token is an application's where a user's was announced.";
        PROMISE_OTHER_CLIENT_ID = "promise_other_client_id": "The token belongs to another application than was asked for.";
        TOKEN_OF_EARLIER = "token_of_earlier": "The platform gave a token that it has had for an hour or more, and the groups in it are as old.";
        CLOCK_WRONG = "clock_wrong": "This machine's clock shows an impossible time, or another than the issuer's.";
        PROMISE_SANDBOX = "promise_sandbox": "A sandbox token outside the sandbox, or a real one inside it.";
    }
}

/// What a code means, in the words above; `None` for a code of another version.
#[must_use]
pub fn meaning(code: &str) -> Option<&'static str> {
    [CHOSEN, PASSED_OVER, FAILED, CARRIED_OUT, NOTICES]
        .into_iter()
        .flatten()
        .find(|(known, _)| *known == code)
        .map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{CARRIED_OUT, CHOSEN, FAILED, NOTICES, PASSED_OVER};

    #[test]
    fn codes_are_unique_and_snake_case() {
        let mut seen = BTreeSet::new();
        for (code, meaning) in [CHOSEN, PASSED_OVER, FAILED, CARRIED_OUT, NOTICES].concat() {
            assert!(seen.insert(code), "{code} is defined twice");
            assert!(
                code.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{code}"
            );
            assert!(meaning.ends_with('.'), "{code}: {meaning}");
        }
    }
}
