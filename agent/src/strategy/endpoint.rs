//! The managed-identity endpoint that the environment names, told by which variables are there.

use jobcred_wire::Secret;

use super::reading::{Address, IMDS, is_imds};
use super::{Facts, ProbeResult, StartError, Upstream, evidence, reason};

/// What the environment names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Nothing, or placeholders only.
    Nothing,
    /// An endpoint that can be asked, and the variable that names it.
    Usable(&'static str, Upstream),
    /// An endpoint that cannot. Nobody else is asked in its place: that could be somebody else's identity.
    Unusable(StartError),
}

/// What is known of IMDS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Imds {
    /// It answered the probe.
    Answers,
    /// It did not, or something else did in its place.
    Silent,
    /// It was not asked.
    Unknown,
}

/// Reads the endpoint variables.
///
/// On Azure ML `MSI_ENDPOINT` is the platform's own and comes first; elsewhere the order is that of the SDKs, where
/// `IDENTITY_ENDPOINT` does. A command started by jobcred may have both, and the first is then the way to the platform.
pub(super) fn named(facts: &Facts) -> Named {
    let readers: [fn(&Facts) -> Named; 3] = if facts.on_azure_ml() {
        [azure_ml, app_service, imds_stand_in]
    } else {
        [app_service, azure_ml, imds_stand_in]
    };
    readers
        .iter()
        .map(|read| read(facts))
        .find(|named| *named != Named::Nothing)
        .unwrap_or(Named::Nothing)
}

/// The variables that name an endpoint which could be asked, in the order they are looked at.
pub(super) fn usable_variables(facts: &Facts) -> Vec<&'static str> {
    [azure_ml(facts), app_service(facts), imds_stand_in(facts)]
        .into_iter()
        .filter_map(|named| match named {
            Named::Usable(variable, _) => Some(variable),
            Named::Nothing | Named::Unusable(_) => None,
        })
        .collect()
}

/// What the probe said. A probe is sent without the header that IMDS demands, so any answer will do, except those a proxy
/// gives in its place: 407, 502 and 504, and the 403 of container desktops.
pub(super) fn imds(facts: &Facts) -> Imds {
    match &facts.probe {
        Some(ProbeResult::Answered { .. }) if is_proxied(facts) => Imds::Silent,
        Some(ProbeResult::Answered { .. }) => Imds::Answers,
        Some(ProbeResult::NoAnswer { .. }) => Imds::Silent,
        Some(ProbeResult::NotMade { .. }) | None => Imds::Unknown,
    }
}

/// Whether the probe was answered by something that is not IMDS.
pub(super) fn is_proxied(facts: &Facts) -> bool {
    matches!(
        facts.probe,
        Some(ProbeResult::Answered {
            status: 403 | 407 | 502 | 504,
            ..
        })
    )
}

/// The probe as evidence.
pub(super) fn probe_in_words(facts: &Facts) -> String {
    match &facts.probe {
        None => "IMDS was not probed".to_owned(),
        Some(ProbeResult::NotMade { why }) => {
            format!("IMDS was not probed: {}", evidence::printable(why))
        }
        Some(ProbeResult::Answered { status, ms }) if is_proxied(facts) => {
            format!("IMDS probe: status {status} after {ms} ms, which is a proxy's answer")
        }
        Some(ProbeResult::Answered { status, ms }) => {
            format!("IMDS probe: status {status} after {ms} ms")
        }
        Some(ProbeResult::NoAnswer { reason }) => {
            format!("IMDS probe: no answer ({})", evidence::printable(reason))
        }
    }
}

/// The service itself, at its fixed address.
pub(super) fn imds_upstream() -> Result<Upstream, StartError> {
    match Address::read(Some(IMDS)) {
        Address::Usable(base) => Ok(Upstream::Imds { base }),
        _ => Err(invalid("the address of IMDS", "cannot be read")),
    }
}

fn azure_ml(facts: &Facts) -> Named {
    const VARIABLE: &str = "MSI_ENDPOINT";
    let secret = facts.environment.get("MSI_SECRET").map(Secret::from);
    match read(facts, VARIABLE) {
        Address::Absent | Address::Placeholder => Named::Nothing,
        Address::Invalid(why) => Named::Unusable(invalid(VARIABLE, why)),
        Address::Usable(_) if secret.is_none() && !facts.on_azure_ml() => {
            Named::Unusable(unsupported(
                VARIABLE,
                "MSI_ENDPOINT without MSI_SECRET is Azure Cloud Shell",
            ))
        }
        Address::Usable(endpoint) => Named::Usable(
            VARIABLE,
            match secret {
                Some(secret) if !facts.on_azure_ml() && !facts.in_kubernetes() => {
                    Upstream::AppService2017 { endpoint, secret }
                }
                secret => Upstream::AzureMl { endpoint, secret },
            },
        ),
    }
}

fn app_service(facts: &Facts) -> Named {
    const VARIABLE: &str = "IDENTITY_ENDPOINT";
    let environment = &facts.environment;
    let address = read(facts, VARIABLE);
    if matches!(address, Address::Absent | Address::Placeholder) {
        return Named::Nothing;
    }
    let Some(header) = environment.get("IDENTITY_HEADER") else {
        if environment.get("IMDS_ENDPOINT").is_some() {
            return Named::Unusable(unsupported(
                VARIABLE,
                "IDENTITY_ENDPOINT with IMDS_ENDPOINT is Azure Arc",
            ));
        }
        return Named::Nothing;
    };
    if environment.get("IDENTITY_SERVER_THUMBPRINT").is_some() {
        return Named::Unusable(unsupported(
            VARIABLE,
            "IDENTITY_ENDPOINT with IDENTITY_SERVER_THUMBPRINT is Service Fabric",
        ));
    }
    match address {
        Address::Usable(endpoint) => Named::Usable(
            VARIABLE,
            Upstream::AppService {
                endpoint,
                header: Secret::from(header),
            },
        ),
        Address::Invalid(why) => Named::Unusable(invalid(VARIABLE, why)),
        Address::Absent | Address::Placeholder => Named::Nothing,
    }
}

fn imds_stand_in(facts: &Facts) -> Named {
    const VARIABLE: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
    match read(facts, VARIABLE) {
        Address::Usable(url) if is_imds(&url) => Named::Nothing,
        Address::Absent | Address::Placeholder => Named::Nothing,
        Address::Invalid(why) => Named::Unusable(invalid(VARIABLE, why)),
        Address::Usable(base) => Named::Usable(VARIABLE, Upstream::Imds { base }),
    }
}

/// An endpoint variable; one that a jobcred agent has set counts as absent.
pub(super) fn read(facts: &Facts, variable: &str) -> Address {
    match facts.environment.get(variable) {
        Some(value) if facts.is_own_endpoint(value) => Address::Absent,
        value => Address::read(value),
    }
}

fn invalid(variable: &str, why: &str) -> StartError {
    StartError {
        code: reason::ENDPOINT_INVALID,
        message: format!("{variable} {why}, so it is not asked; nobody else is asked in its place"),
        hint: format!(
            "{variable} is set by the platform to an http address on this machine. Correct it, or unset it when it is a left-over."
        ),
    }
}

fn unsupported(variable: &str, why: &str) -> StartError {
    StartError {
        code: reason::ENDPOINT_UNSUPPORTED,
        message: format!("{why}, which jobcred does not speak"),
        hint: format!(
            "jobcred serves Azure ML jobs and Kubernetes pods. When {variable} is a left-over, unset it; else use an Azure SDK directly."
        ),
    }
}
