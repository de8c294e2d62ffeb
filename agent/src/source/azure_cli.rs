//! The Azure CLI's login, for laptops and continuous integration; only when configured.

mod answer;
mod call;
#[cfg(fuzzing)]
pub mod fuzz;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jobcred_wire::ErrorCode;
use tokio::sync::Semaphore;

use self::call::{Call, Ended};
use super::ask::refuse_identity;
use super::{Outside, Source, SourceRequest};
use crate::error::TokenError;
use crate::platform::Environment;
use crate::token::{AccessToken, Identity};

/// The program takes one to three seconds, much more on a cold disk.
const PATIENCE: Duration = Duration::from_secs(40);
/// Each call is a Python interpreter, and they wait for each other's file locks.
const AT_ONCE: usize = 2;

/// Asks `az account get-access-token`.
#[derive(Debug)]
pub struct AzureCli {
    program: PathBuf,
    tenant: Option<String>,
    environment: Environment,
    outside: Outside,
    patience: Duration,
    turns: Arc<Semaphore>,
}

impl AzureCli {
    /// `program` is an absolute path; `tenant` is named when a request names none.
    #[must_use]
    pub fn new(program: PathBuf, tenant: Option<String>, outside: &Outside) -> Self {
        Self {
            program,
            tenant,
            environment: environment(&outside.environment),
            outside: outside.clone(),
            patience: PATIENCE,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The same with another patience.
    #[cfg(test)]
    pub(super) fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn arguments(&self, request: &SourceRequest) -> Result<Vec<String>, TokenError> {
        let mut arguments: Vec<String> = ["account", "get-access-token", "--output", "json"]
            .map(str::to_owned)
            .to_vec();
        let resource = plain(request.resource.as_str(), "resource")?;
        arguments.push(format!("--resource={resource}"));
        if let Some(tenant) = request.tenant.as_deref().or(self.tenant.as_deref()) {
            arguments.push(format!("--tenant={}", plain(tenant, "tenant")?));
        }
        Ok(arguments)
    }
}

#[async_trait]
impl Source for AzureCli {
    fn name(&self) -> &'static str {
        "azure-cli"
    }

    fn honours_tenant(&self) -> bool {
        true
    }

    async fn fetch(&self, request: &SourceRequest) -> Result<AccessToken, TokenError> {
        if request.identity != Identity::Job {
            return Err(
                refuse_identity(request, "the Azure CLI has its login's identity only")
                    .with_hint("ask without naming an identity"),
            );
        }
        let call = Call {
            program: &self.program,
            arguments: self.arguments(request)?,
            environment: &self.environment,
            patience: self.patience,
        };
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        match call.run().await {
            Ended::Well(output) => answer::read(
                &output,
                request.resource.as_str(),
                self.outside.clock.now(),
            ),
            Ended::Badly { code, words } => Err(answer::refused(code, &words)),
            Ended::TooLate => Err(TokenError::new(
                ErrorCode::Transient,
                format!(
                    "the Azure CLI gave no answer within {} s and was ended",
                    self.patience.as_secs()
                ),
            )
            .with_hint("see whether `az account get-access-token` answers in a shell; it may wait for a network or for a lock on its files")),
            Ended::NotStarted(error) => Err(TokenError::new(
                ErrorCode::Rejected,
                format!("the Azure CLI ({}) cannot be started: {error}", self.program.display()),
            )
            .with_hint("install the Azure CLI anew, or correct PATH")),
        }
    }
}

/// What the program is given: everything the agent was, so that it finds its login, its proxy and its roots; no colours, no
/// process left behind to report its use, and dates that do not depend on where the machine stands.
fn environment(given: &Environment) -> Environment {
    const OURS: [(&str, &str); 4] = [
        ("AZURE_CORE_COLLECT_TELEMETRY", "false"),
        ("AZURE_CORE_NO_COLOR", "true"),
        ("AZURE_CORE_ONLY_SHOW_ERRORS", "true"),
        ("TZ", "UTC"),
    ];
    given
        .iter()
        .filter(|(name, _)| !name.starts_with("JOBCRED_"))
        .chain(OURS)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Only what resources and tenants are made of: the program takes an argument's `@` for a file to read, whose content would
/// go out with the request. The SDKs, which call it too, allow the same characters.
fn plain<'a>(text: &'a str, what: &str) -> Result<&'a str, TokenError> {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte));
    if is_plain {
        return Ok(text);
    }
    Err(TokenError::new(
        ErrorCode::InvalidRequest,
        format!("the {what} has characters that the Azure CLI is not given"),
    )
    .with_hint("letters, digits and -_.:/ will do"))
}
