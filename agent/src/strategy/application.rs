//! The strategies that only the configuration can choose: for continuous integration, laptops and demonstrations.

use std::path::PathBuf;

use super::candidate::{Finding, Verdict, View};
use super::reading::{Id, is_tenant};
use super::{StartError, Strategy, Upstream, federation_issuer, reason};

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
            Err(error) => Verdict::Fails(error),
        }
    } else {
        only_when_configured()
    };
    Finding {
        verdict,
        evidence: view.evidence(&VARIABLES),
    }
}

fn principal_upstream(view: &View<'_>) -> Result<Upstream, StartError> {
    let fails = |why: &str| incomplete(view, why);
    let value = |name: &str| {
        view.variable(name)
            .ok_or_else(|| fails(&format!("{name} is unset")))
    };
    let tenant = value("AZURE_TENANT_ID")?;
    if !is_tenant(tenant) {
        return Err(fails("AZURE_TENANT_ID is neither a GUID nor a domain name"));
    }
    let Id::Guid(client_id) = Id::read(Some(value("AZURE_CLIENT_ID")?)) else {
        return Err(fails("AZURE_CLIENT_ID is not a GUID"));
    };
    Ok(Upstream::ServicePrincipal {
        authority: federation_issuer(&view.facts.environment, view.config)?,
        tenant: tenant.to_owned(),
        client_id,
        secret: value("AZURE_CLIENT_SECRET")?.into(),
    })
}

fn incomplete(view: &View<'_>, why: &str) -> StartError {
    StartError {
        code: reason::SERVICE_PRINCIPAL_INCOMPLETE,
        message: format!("the strategy service-principal is configured, but {why}"),
        hint: if view.variable("AZURE_CLIENT_CERTIFICATE_PATH").is_some() {
            "Set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET. jobcred cannot use a certificate (AZURE_CLIENT_CERTIFICATE_PATH): \
             make a secret, or let the application trust a managed identity or the pod."
        } else {
            "Set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET."
        }
        .to_owned(),
    }
}

pub(super) fn azure_cli(view: &View<'_>, configured: bool) -> Finding {
    if !configured {
        return Finding {
            verdict: only_when_configured(),
            evidence: Vec::new(),
        };
    }
    let verdict = match &view.facts.azure_cli {
        Some(program) => Verdict::applies(
            Strategy::AzureCli,
            reason::CONFIGURED,
            "Tokens are those of the Azure CLI's login.",
            Upstream::AzureCli {
                program: program.clone(),
                config_dir: view
                    .variable("AZURE_CONFIG_DIR")
                    .map(PathBuf::from)
                    .or_else(|| Some(PathBuf::from(view.variable("HOME")?).join(".azure"))),
                tenant: view.config.azure_cli_tenant.clone(),
            },
        ),
        None => Verdict::Fails(StartError {
            code: reason::AZURE_CLI_UNAVAILABLE,
            message: "the strategy azure-cli is configured, but no directory of PATH has a program `az`"
                .to_owned(),
            hint: "Install the Azure CLI and run `az login`, or put its directory on PATH; in a job, leave the strategy out of the configuration."
                .to_owned(),
        }),
    };
    Finding {
        verdict,
        evidence: view.evidence(&["PATH", "AZURE_CONFIG_DIR", "HOME"]),
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
