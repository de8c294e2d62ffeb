//! `jobcred token`: whose token it is, what for, and how long it lives.

use jobcred_wire::{NamedIdentity, PrincipalClaims, Target, TokenRequest, TokenResponse};
use serde_json::json;

use super::arguments::{GlobalOptions, TokenOptions};
use super::output::{aligned, plain, print, span};
use super::{exit, seek};
use crate::platform::Clock;
use crate::principal::Principal;

pub(super) fn token(global: &GlobalOptions, options: TokenOptions) -> i32 {
    let (raw, as_json) = (options.raw, options.json);
    let token = match seek::client(global).token(&request(options)) {
        Ok(token) => token,
        Err(error) => return seek::report(&error),
    };
    if raw {
        print(&format!("{}\n", token.access_token.expose()));
        return exit::OK;
    }
    let claims = Principal::from_token(token.access_token.expose())
        .map(|principal| principal.to_wire())
        .unwrap_or_default();
    let left = token.expires_on - Clock::system().now().as_secs();
    if as_json {
        let value = json!({
            "resource": token.resource,
            "expires_on": token.expires_on,
            "expires_in": left,
            "refresh_on": token.refresh_on,
            "claims": claims,
        });
        print(&format!("{value:#}\n"));
    } else {
        print(&aligned(&rows(&token, &claims, left)));
    }
    exit::OK
}

fn request(options: TokenOptions) -> TokenRequest {
    let target = options
        .scope
        .map_or(Target::Resource(options.resource), Target::Scope);
    let identity = options
        .client_id
        .map(NamedIdentity::ClientId)
        .or(options.object_id.map(NamedIdentity::ObjectId))
        .or(options.resource_id.map(NamedIdentity::ResourceId));
    let mut request = TokenRequest::new(target);
    request.identity = identity;
    request.tenant_id = options.tenant_id;
    request.min_validity = options.min_validity;
    request
}

fn rows(token: &TokenResponse, claims: &PrincipalClaims, left: i64) -> Vec<(&'static str, String)> {
    let text = |value: &Option<String>| {
        value
            .as_deref()
            .map_or_else(|| "(the token does not say)".to_owned(), plain)
    };
    let kind = match claims.kind.as_deref() {
        Some("user") => "a user",
        Some("app") => "an application or managed identity",
        _ => "(the token does not say)",
    };
    let mut rows = vec![
        ("object id", text(&claims.object_id)),
        ("client id", text(&claims.app_id)),
        ("tenant", text(&claims.tenant_id)),
        ("speaks for", kind.to_owned()),
        ("audience", text(&claims.audience)),
        ("resource", plain(&token.resource)),
        ("life left", span(left)),
    ];
    if claims.sandbox {
        rows.push((
            "sandbox",
            "made by jobcred itself, worth nothing outside the sandbox".to_owned(),
        ));
    }
    rows
}
