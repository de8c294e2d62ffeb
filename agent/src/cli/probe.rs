//! One token for storage, got as an agent started here and now would get it.

use std::sync::Arc;

use jobcred_wire::ErrorCode;

use super::setup::Setup;
use crate::agent::reach;
use crate::config::Application;
use crate::error::TokenError;
use crate::policy::Policy;
use crate::resource::Cloud;
use crate::source::{self, Federated, SourceRequest};
use crate::strategy::{Choice, federation_issuer};
use crate::token::{AccessToken, Identity};
use crate::transport::Transport;

/// Asks the chosen source itself, past the pin: whose token it is shall be seen above all when it is the wrong one's. It goes no
/// further than this process.
pub(super) async fn storage_token(
    setup: &Setup,
    choice: &Choice,
    transport: &Arc<Transport>,
) -> Result<(Identity, AccessToken), TokenError> {
    let outside = reach(&setup.config, &setup.outside, transport);
    let source = source::build(choice, &outside)
        .map_err(|error| TokenError::new(ErrorCode::Denied, error.message).with_hint(error.hint))?;
    let own = |resource| SourceRequest {
        identity: Identity::Job,
        resource,
        tenant: None,
        claims: None,
    };
    let asked = Policy::new(choice, &setup.config).authorize_own(Cloud::storage());
    let identity = asked.key().identity().clone();
    let token = if let Identity::Application {
        client_id,
        tenant_id,
    } = &identity
    {
        let issuer = federation_issuer(&setup.outside.environment, &setup.config)
            .map_err(|error| TokenError::new(ErrorCode::Denied, error.to_string()))?;
        let application = Application {
            client_id,
            tenant_id,
        };
        let assertion = source
            .fetch(&own(setup.config.cloud.token_exchange()))
            .await?;
        Federated::new(issuer, &outside)
            .fetch(application, &assertion, &Cloud::storage(), None)
            .await?
    } else {
        source.fetch(&own(Cloud::storage())).await?
    };
    Ok((identity, token))
}
