//! Where there is one identity only, a request may name it, but its name is never sent upstream.

use std::sync::Arc;

use async_trait::async_trait;
use jobcred_wire::ErrorCode;

use super::ask::refuse_identity;
use super::jwt::Claims;
use super::{Source, SourceRequest};
use crate::error::TokenError;
use crate::strategy::Strategy;
use crate::token::{AccessToken, Identity};

/// Serves a request that names the one identity there is, as its own token tells it, and refuses any other name.
///
/// On Kubernetes a client id sent upstream would choose among the *node's* identities; without one the platform answers
/// with the compute's.
#[derive(Debug)]
pub struct SoleIdentity {
    inner: Arc<dyn Source>,
    strategy: Strategy,
}

impl SoleIdentity {
    /// `inner` is asked for the job's identity whatever the request names.
    #[must_use]
    pub fn new(inner: Arc<dyn Source>, strategy: Strategy) -> Self {
        Self { inner, strategy }
    }
}

#[async_trait]
impl Source for SoleIdentity {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn honours_tenant(&self) -> bool {
        self.inner.honours_tenant()
    }

    async fn fetch(&self, request: &SourceRequest) -> Result<AccessToken, TokenError> {
        let named = match &request.identity {
            Identity::Job => return self.inner.fetch(request).await,
            Identity::ClientId(id) if self.strategy != Strategy::ComputeInstanceUser => id,
            _ => {
                return Err(refuse_identity(
                    request,
                    &format!("{} has one identity only", self.strategy),
                )
                .with_hint("ask without naming an identity"));
            }
        };
        let request = SourceRequest {
            identity: Identity::Job,
            ..request.clone()
        };
        let token = self.inner.fetch(&request).await?;
        let claims = Claims::read(token.secret.expose());
        let own = claims
            .as_ref()
            .and_then(Claims::app_id)
            .or(token.client_id.as_deref());
        match own {
            Some(own) if own.eq_ignore_ascii_case(named) => Ok(token),
            own => Err(TokenError::new(
                ErrorCode::Denied,
                format!(
                    "no token as client_id {named}: {} has one identity only, and its client id is {}",
                    self.strategy,
                    own.filter(|own| own.len() <= 64).unwrap_or("not told by its token")
                ),
            )
            .with_hint("ask without naming an identity")),
        }
    }
}
