//! COMMAND's way to jobcred for unmodified SDKs: the variables that lead them here, and the endpoint these name.

use super::setup::Setup;
use crate::config::Dialect;
use crate::strategy::{Selection, StandIn, keep_platform, stand_in};
use crate::supervisor::{Endpoint, say, with_loopback};

/// By which newer versions of `DefaultAzureCredential` pass over everything but managed identity.
const ONLY_MANAGED_IDENTITY: (&str, &str) =
    ("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential");

/// Opens the endpoint that COMMAND shall have, if any, and adds what leads to it to `variables`. Whatever fails, COMMAND runs
/// without.
pub(super) fn open(
    setup: &Setup,
    selection: Option<&Selection>,
    quiet: bool,
    variables: &mut Vec<(String, String)>,
) -> Option<Endpoint> {
    let choice = match selection.map(|selection| &selection.outcome) {
        // It was said why; SDKs find what they would find without jobcred.
        Some(Err(_)) => return None,
        Some(Ok(choice)) => Some(choice),
        None => None,
    };
    let environment = &setup.outside.environment;
    let StandIn { dialects, remark } = stand_in(&setup.config, environment, choice);
    if let (Some(remark), false) = (remark, quiet) {
        say(remark);
    }
    if dialects.is_empty() {
        return None;
    }
    let endpoint = match Endpoint::open(&dialects) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            say(&format!(
                "Azure SDKs are not led to jobcred, and ask the platform as they would without it: {error}"
            ));
            return None;
        }
    };
    let own = endpoint.variables(&dialects);
    variables.extend(keep_platform(&own, environment));
    variables.extend(
        own.into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    );
    variables.extend(with_loopback(environment));
    if setup.config.exclusive && dialects.contains(&Dialect::AppService) {
        let (name, value) = ONLY_MANAGED_IDENTITY;
        variables.push((name.to_owned(), value.to_owned()));
    }
    Some(endpoint)
}
