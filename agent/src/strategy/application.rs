//! The strategies that only the configuration can choose: for continuous integration, laptops and demonstrations.

use super::candidate::{Finding, Verdict, View};
use super::reading::{Id, is_tenant};
use super::{StartError, Strategy, Upstream, kubernetes, reason};

const VARIABLES: [&str; 3] = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"];

pub(super) fn service_principal(view: &View<'_>, configured: bool) -> Finding {
    let verdict = if configured {
        match principal_upstream(view) {
            Ok(upstream) => Verdict::applies(
                Strategy::ServicePrincipal,
                reason::CONFIGURED,
                "The environment holds an application's credentials.",
                upstream,
            ),
            Err(why) => Verdict::Fails(StartError {
                code: reason::SERVICE_PRINCIPAL_INCOMPLETE,
                message: format!("the strategy service-principal is configured, but {why}"),
                hint: "Set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET.".to_owned(),
            }),
        }
    } else {
        only_when_configured()
    };
    Finding {
        verdict,
        evidence: view.evidence(&VARIABLES),
    }
}

fn principal_upstream(view: &View<'_>) -> Result<Upstream, String> {
    let missing = |name: &str| format!("{name} is unset");
    let value = |name: &str| view.variable(name).ok_or_else(|| missing(name));
    let tenant = value("AZURE_TENANT_ID")?;
    if !is_tenant(tenant) {
        return Err("AZURE_TENANT_ID is neither a GUID nor a domain name".to_owned());
    }
    let Id::Guid(client_id) = Id::read(Some(value("AZURE_CLIENT_ID")?)) else {
        return Err("AZURE_CLIENT_ID is no GUID".to_owned());
    };
    Ok(Upstream::ServicePrincipal {
        authority: kubernetes::issuer(view)?,
        tenant: tenant.to_owned(),
        client_id,
        secret: value("AZURE_CLIENT_SECRET")?.into(),
    })
}

pub(super) fn azure_cli(configured: bool) -> Finding {
    let verdict = if configured {
        Verdict::Fails(StartError {
            code: reason::AZURE_CLI_UNAVAILABLE,
            message: "the strategy azure-cli is configured, but this version of jobcred cannot use the Azure CLI's login yet"
                .to_owned(),
            hint: "Configure `service-principal`, or use `jobcred run --sandbox` where made-up tokens will do.".to_owned(),
        })
    } else {
        only_when_configured()
    };
    Finding {
        verdict,
        evidence: Vec::new(),
    }
}

pub(super) fn sandbox(configured: bool) -> Finding {
    let verdict = if configured {
        Verdict::applies(
            Strategy::Sandbox,
            reason::CONFIGURED,
            "Tokens are made up by jobcred itself, and marked as such.",
            Upstream::Sandbox,
        )
    } else {
        only_when_configured()
    };
    Finding {
        verdict,
        evidence: Vec::new(),
    }
}

fn only_when_configured() -> Verdict {
    Verdict::elsewhere(
        reason::ONLY_WHEN_CONFIGURED,
        "Never detected: it is used only when the configuration names it.",
    )
}
