//! What is found on the way to the service, before it is asked.

use std::net::IpAddr;

use crate::storage::{Finding, Location, code};
use crate::transport::{FailureKind, NoAddress, TlsProblem, TransportError};

pub(super) fn listed(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().take(4).map(ToString::to_string).collect();
    texts.join(", ")
}

pub(super) fn no_address(location: &Location, why: &NoAddress) -> (String, Finding) {
    let host = location.host();
    match why {
        NoAddress::NotFound => (
            format!("{host} has no address"),
            Finding::failure(
                code::NAME_NOT_FOUND,
                format!("there is no host {host}"),
                "Every account has a name in public DNS, so either there is no such account, or this network's DNS does not know \
                 public names or has a zone of its own without this one.",
            )
            .fix_by(
                "See whether the account's name is right:",
                "az storage account list --query \"[].name\" --output tsv",
            )
            .fix(
                "If it is, look at the private DNS zones of this network: one for this service (privatelink...) that is linked to the \
                 network, but has no record for the account, hides the public address.",
            ),
        ),
        NoAddress::Failed(reason) => (
            format!("{host} could not be looked up: {reason}"),
            Finding::failure(
                code::NAME_FAILED,
                "names cannot be looked up here",
                "The resolver gave no answer, which says nothing about the account.",
            )
            .fix("Look at /etc/resolv.conf and at the network's DNS servers; try again."),
        ),
    }
}

pub(super) fn bypassed(alias: &str) -> Finding {
    Finding::warning(
        code::PRIVATE_ENDPOINT_BYPASSED,
        "the account has a private endpoint, and its name leads past it here",
        format!(
            "Public DNS knows {alias}, which it does for accounts with a private endpoint; in this network the account's name still \
             has a public address."
        ),
    )
    .fix(
        "If this job should use the private endpoint, link the private DNS zone to this network; if not, the account's firewall has \
         to allow this network.",
    )
}

/// Why no answer came, by what went wrong on the way.
pub(super) fn unreached(error: &TransportError) -> Finding {
    let (code, title) = match error.kind() {
        FailureKind::Proxy | FailureKind::ProxySetting => (code::PROXY, "the proxy is in the way"),
        FailureKind::Timeout => (code::CONNECTION_TIMEOUT, "no answer in time"),
        FailureKind::Tls => (code::TLS_FAILED, "TLS failed"),
        FailureKind::OutOfDate => (
            code::TLS_OUT_OF_DATE,
            "the certificate is not valid now, by this machine's clock",
        ),
        FailureKind::Roots => (code::ROOTS_MISSING, "no certificate can be checked"),
        FailureKind::Redirect | FailureKind::TooLarge | FailureKind::Broken => {
            (code::NOT_STORAGE, "what answered is not Azure Storage")
        }
        FailureKind::Connect | FailureKind::BadUrl => (code::NO_CONNECTION, "no connection"),
    };
    Finding::failure(code, title, format!("{error}.")).fix(error.hint())
}

pub(super) fn bad_certificate(error: &TransportError, problem: TlsProblem, host: &str) -> Finding {
    match problem {
        TlsProblem::UnknownIssuer => Finding::failure(
            code::TLS_UNKNOWN_ISSUER,
            "the certificate is by an issuer that is not trusted here",
            "Azure's certificates are by public issuers. Either the roots in this image are missing or old, or a proxy opens TLS and \
             shows a certificate of its own. No token was sent.",
        )
        .fix("If there is such a proxy, name its root: JOBCRED_CA_FILE=/path/root.pem (`ca_file` in the configuration), and the same \
              for other programs by SSL_CERT_FILE and REQUESTS_CA_BUNDLE.")
        .fix("Else install the distribution's ca-certificates."),
        TlsProblem::WrongName => Finding::failure(
            code::TLS_WRONG_NAME,
            "the certificate is for another host",
            format!("Whatever answers for {host} is something else, or the name is an alias that no certificate is made for. No token was sent."),
        )
        .fix("See where the name leads (above): a hosts file, a DNS zone or a proxy sends it elsewhere."),
        TlsProblem::OutOfDate => Finding::failure(
            code::TLS_OUT_OF_DATE,
            "the certificate is not valid now, by this machine's clock",
            "Azure renews its certificates in time, so it is more likely that the clock is wrong. No token was sent.",
        )
        .fix("Compare `date -u` with the real time."),
        TlsProblem::Other => unreached(error),
    }
}
