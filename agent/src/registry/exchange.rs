//! `POST https://<login server>/oauth2/exchange`: Entra token in, registry token out.
//!
//! The registry is not asked for its challenge first. That saves a round trip, and no answer of the network's can name
//! another host for the token to go to.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use jobcred_wire::{ErrorCode, LoginServer};
use url::Url;
use url::form_urlencoded::Serializer;

use super::EntraTokens;
use super::answer::{self, Audience};
use crate::config::{Config, RegistryConfig};
use crate::error::TokenError;
use crate::platform::Clock;
use crate::principal::{Principal, jwt_expiry};
use crate::resource::{Cloud, Resource};
use crate::token::{AccessToken, Identity};
use crate::transport::{Request, RetryPolicy, Route, Transport};

/// How long a registry token is kept whose own end can't be read. Real ones live about three hours.
const UNREADABLE_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Gets registry credentials. Holds no credential itself: caching is the broker's.
pub struct Registry {
    tokens: Arc<dyn EntraTokens>,
    transport: Arc<Transport>,
    clock: Clock,
    config: Config,
}

/// An Entra token and what it is for.
struct Entra {
    token: AccessToken,
    audience: Audience,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// An exchange over `transport` with the settings of `config`.
    #[must_use]
    pub fn new(
        tokens: Arc<dyn EntraTokens>,
        transport: Arc<Transport>,
        clock: Clock,
        config: &Config,
    ) -> Self {
        Self {
            tokens,
            transport,
            clock,
            config: config.clone(),
        }
    }

    /// Gets a credential of `identity` for `server`: the secret is the registry's refresh token, the resource the server.
    ///
    /// # Errors
    /// The Entra token's, or what the registry said; `issuer_code` has the Azure CLI's name of the failure.
    pub async fn credential(
        &self,
        identity: &Identity,
        server: &LoginServer,
    ) -> Result<AccessToken, TokenError> {
        // Whoever made the login server has asked this already; a token that goes to the wrong host is lost for good.
        if self.config.login_server(&server.to_string()).as_ref() != Ok(server) {
            return Err(TokenError::new(
                ErrorCode::Denied,
                format!(
                    "{server} is neither one of Azure's registries nor listed in the configuration"
                ),
            ));
        }
        let settings = self.config.registry(server).cloned().unwrap_or_default();
        let entra = self.entra_token(identity, server, &settings).await?;
        self.exchange(server, &settings, entra).await
    }

    /// The token to exchange: of the pinned audience, else of the registry's own, else of Azure Resource Manager's, but
    /// only when the registry's can't be *had*: a hiccup is no reason to hand out a token that opens more.
    async fn entra_token(
        &self,
        identity: &Identity,
        server: &LoginServer,
        settings: &RegistryConfig,
    ) -> Result<Entra, TokenError> {
        // An application's tenant is part of who it is.
        let is_application = matches!(identity, Identity::Application { .. });
        let tenant = settings.tenant_id.as_deref().filter(|_| !is_application);
        let own = Cloud::container_registry();
        let arm = self.config.cloud.resource_manager();
        if let Some(pinned) = &settings.audience {
            let resource = Resource::parse(pinned, self.config.cloud);
            let audience = match &resource {
                resource if *resource == own => Audience::Registry,
                resource if *resource == arm => Audience::ResourceManager,
                _ => Audience::Other,
            };
            let token = self.issued_by(tenant, identity, &resource).await?;
            return Ok(Entra { token, audience });
        }
        let error = match self.issued_by(tenant, identity, &own).await {
            Ok(token) => {
                return Ok(Entra {
                    token,
                    audience: Audience::Registry,
                });
            }
            Err(error) => error,
        };
        // Entra itself has the registry's audience: what it refuses there, it refuses for what it says.
        if is_application || !is_audience_refused(&error) {
            return Err(error);
        }
        if !self.config.registry_arm_fallback {
            return Err(error.with_hint("No token for the registry's own audience can be had here, and `registry_arm_fallback` forbids one of Azure Resource Manager: allow it, or pin `audience` for this registry."));
        }
        tracing::warn!(
            %server,
            %identity,
            refused = %own,
            instead = %arm,
            reason = %error,
            "no token for the registry's own audience can be had; it gets one of Azure Resource Manager, which is good for more than this registry (registry_arm_fallback)"
        );
        match self.issued_by(tenant, identity, &arm).await {
            Ok(token) => Ok(Entra {
                token,
                audience: Audience::ResourceManager,
            }),
            // Worth another try; a second refusal adds nothing to the first one.
            Err(second) if second.is_transient() => Err(second),
            Err(_) => Err(error),
        }
    }

    /// A token issued by the configured tenant. A managed identity can't be asked for one, but its own may be the one.
    async fn issued_by(
        &self,
        tenant: Option<&str>,
        identity: &Identity,
        resource: &Resource,
    ) -> Result<AccessToken, TokenError> {
        let error = match self.tokens.entra_token(identity, resource, tenant).await {
            Err(error) if error.kind() == ErrorCode::Denied => error,
            result => return result,
        };
        let Some(tenant) = tenant else {
            return Err(error);
        };
        let token = self.tokens.entra_token(identity, resource, None).await?;
        let own =
            Principal::from_token(token.secret.expose()).and_then(|principal| principal.tenant_id);
        match own {
            Some(own) if own.eq_ignore_ascii_case(tenant) => Ok(token),
            _ => Err(error.with_hint(
                "This registry's `tenant_id` is not the tenant of the job's identity, which can't leave its own: correct it, or set `federated = true` and the `client_id` of an application that trusts the job's identity.",
            )),
        }
    }

    async fn exchange(
        &self,
        server: &LoginServer,
        settings: &RegistryConfig,
        entra: Entra,
    ) -> Result<AccessToken, TokenError> {
        let Entra { token, audience } = entra;
        let request = Request::post_form(
            exchange_url(server)?,
            Route::Proxied,
            form(server, settings, &token),
        );
        // An exchange changes nothing, so it can be repeated as the policy says.
        let response = self
            .transport
            .send_with_retries(&request, &RetryPolicy::REMOTE)
            .await
            .map_err(|error| answer::no_answer(&error))?;
        let status = response.status();
        let correlation_id = answer::correlation_id(&response);
        if status != StatusCode::OK {
            tracing::warn!(%server, status = status.as_u16(), correlation_id, ?audience, "the registry refused the exchange");
            let refusal =
                answer::refusal(server, &response, audience, settings.tenant_id.as_deref());
            let is_denied = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            return Err(if is_denied && settings.anonymous_when_denied {
                answer::anonymous(server, &refusal)
            } else {
                refusal
            });
        }
        let secret = answer::read_token(server, &response)?;
        let now = self.clock.now();
        let expires_on = jwt_expiry(secret.expose(), now).unwrap_or_else(|| {
            tracing::debug!(%server, "the registry's token does not say when it ends; it is kept for ten minutes");
            now + UNREADABLE_LIFETIME
        });
        if expires_on <= now {
            return Err(TokenError::new(
                ErrorCode::Transient,
                format!("https://{server}/oauth2/exchange gave a token that has ended already"),
            )
            .with_issuer_code(answer::name::REFRESH_TOKEN)
            .with_hint("See whether this machine's clock is right."));
        }
        tracing::info!(%server, status = status.as_u16(), correlation_id, ?audience, expires_on = expires_on.as_secs(), "exchanged a token for a registry credential");
        Ok(AccessToken {
            secret,
            expires_on,
            refresh_on: None,
            resource: server.to_string(),
            client_id: None,
        })
    }
}

/// Whether the issuer does not issue for this audience: then, and only then, another one is worth asking for.
fn is_audience_refused(error: &TokenError) -> bool {
    // Azure ML's endpoints say "SSO failure" of an audience they do not issue and of a session that has ended alike. In the
    // second case the other audience is refused too, and the first refusal is what the caller sees.
    matches!(
        error.kind(),
        ErrorCode::Rejected | ErrorCode::InvalidRequest | ErrorCode::GrantEnded
    )
}

fn exchange_url(server: &LoginServer) -> Result<Url, TokenError> {
    Url::parse(&format!("https://{server}/oauth2/exchange")).map_err(|_| {
        TokenError::new(
            ErrorCode::InvalidRequest,
            format!("{server} is no host that can be asked"),
        )
    })
}

/// `tenant` changes nothing about the token, but the registry looks there first, and the Azure CLI sends it too.
fn form(server: &LoginServer, settings: &RegistryConfig, token: &AccessToken) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "access_token")
        .append_pair("service", &server.to_string());
    if let Some(tenant) = &settings.tenant_id {
        form.append_pair("tenant", tenant);
    }
    form.append_pair("access_token", token.secret.expose());
    form.finish()
}
