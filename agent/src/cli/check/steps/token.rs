//! The step in which a token is got, and looked at.

use std::time::Duration;

use jobcred_client::ErrorKind;
use jobcred_wire::{Secret, Target, TokenRequest};
use tokio::time::Instant;

use super::super::report::{Outcome, Step};
use super::{Check, Token};
use crate::agent::{Chosen, choose};
use crate::cli::arguments::GlobalOptions;
use crate::cli::output::span;
use crate::cli::probe::storage_token;
use crate::cli::setup::Setup;
use crate::cli::{exit, seek};
use crate::principal::{Pin, Principal, jwt_issued};
use crate::resource::Cloud;
use crate::storage::{Finding, code};
use crate::strategy::promise_broken;
use crate::token::Identity;

/// For the agent's answer; its own patience with the identity endpoint is shorter.
const AGENT_LIMIT: Duration = Duration::from_secs(30);
/// A token of this age comes from a cache of the platform's.
const OLD: Duration = Duration::from_secs(3600);
/// The audiences of storage tokens. The last one is the id of the Azure Storage application.
const AUDIENCES: [&str; 2] = [
    "https://storage.azure.com",
    "e406a681-f3d4-42a8-90b6-c2b029497af1",
];

impl Check<'_> {
    /// The token of the agent that runs here, else the one that an agent started here would get. `None` when there is one that
    /// must not be used.
    pub(super) async fn token(
        &mut self,
        global: &GlobalOptions,
        setup: &Setup,
    ) -> Result<Option<Token>, i32> {
        let start = Instant::now();
        // Whoever names a strategy does not mean the agent's.
        let own = global.strategy.is_some() || global.sandbox;
        let mut note = "";
        if !own {
            let client = seek::impatient_client(global, AGENT_LIMIT);
            let resource = Cloud::storage().as_str().to_owned();
            match client.token(&TokenRequest::new(Target::Resource(resource))) {
                Ok(token) => {
                    let strategy = client.explain().map(|it| it.strategy).unwrap_or_default();
                    let secret = Secret::new(token.access_token.expose().to_owned());
                    let how = format!("from the agent that runs here ({strategy})");
                    return Ok(Some(self.got(secret, &how, start)));
                }
                Err(error) => match error.kind() {
                    ErrorKind::AgentNotFound => {}
                    ErrorKind::AgentGone => note = "; no agent answers at the socket that is named",
                    _ => {
                        self.no_token(error.message(), error.hint(), start);
                        return Err(seek::code(error.kind()));
                    }
                },
            }
        }
        self.own_token(setup, note, start).await
    }

    async fn own_token(
        &mut self,
        setup: &Setup,
        note: &str,
        start: Instant,
    ) -> Result<Option<Token>, i32> {
        let Chosen {
            selection,
            transport,
            ..
        } = choose(&setup.config, &setup.outside, None).await;
        let explanation = &selection.explanation;
        let (choice, transport) = match (&selection.outcome, transport) {
            (Ok(choice), Some(transport)) => (choice, transport),
            (Err(error), _) => {
                self.report.step(
                    Step::new("token", Outcome::Failed, error.message.clone())
                        .took(start.elapsed()),
                );
                self.report.finding(
                    Finding::failure(
                        code::NO_IDENTITY,
                        "no identity can be had here",
                        "Without one there is no token, and without a token storage cannot be asked.",
                    )
                    .fix("See what was looked for, and the fix for each platform: jobcred explain"),
                );
                return Err(exit::NO_IDENTITY);
            }
            (Ok(_), None) => return Err(exit::INTERNAL),
        };
        let (identity, token) = match storage_token(setup, choice, &transport).await {
            Ok(got) => got,
            Err(error) => {
                self.no_token(error.message(), error.hint(), start);
                return Err(exit::of(error.kind()));
            }
        };
        let how = format!(
            "as an agent would get it: {} ({}){note}",
            explanation.strategy, explanation.reason
        );
        let pinned = Pin::new(choice, &setup.config.expect).check(&identity, None, &token);
        let got = self.got(token.secret, &how, start);
        // An application is promised by the configuration, and the pin holds its tokens to that.
        if identity == Identity::Job
            && let Some(notice) = promise_broken(choice, &got.claims)
        {
            let finding = Finding::failure(
                code::PROMISE_BROKEN,
                "the token is somebody else's",
                notice.message,
            );
            self.report
                .finding(finding.fix(notice.hint.unwrap_or_default()));
            return Ok(None);
        }
        if let Err(error) = pinned {
            let finding = Finding::failure(
                code::PROMISE_BROKEN,
                "the token is somebody else's",
                error.message(),
            );
            self.report
                .finding(finding.fix(error.hint().unwrap_or("See jobcred explain --probe.")));
            return Ok(None);
        }
        Ok(Some(got))
    }

    fn no_token(&mut self, message: &str, hint: Option<&str>, start: Instant) {
        self.report
            .step(Step::new("token", Outcome::Failed, message).took(start.elapsed()));
        self.report.finding(
            Finding::failure(
                code::TOKEN_REFUSED,
                "there is no token",
                "Storage has not been asked yet: the identity endpoint, or the agent, gave no token.",
            )
            .fix(hint.unwrap_or("See jobcred explain --probe.")),
        );
    }

    fn got(&mut self, secret: Secret, how: &str, start: Instant) -> Token {
        let claims = Principal::from_token(secret.expose())
            .map(|principal| principal.to_wire())
            .unwrap_or_default();
        let kind = match claims.kind.as_deref() {
            _ if claims.sandbox => "the sandbox's own, worth nothing outside it",
            Some("user") => "a user's",
            Some("app") => "an application's (a managed identity is one)",
            _ => "the token does not say whether a user's or an application's",
        };
        let mut step = Step::new("token", Outcome::Ok, how)
            .took(start.elapsed())
            .with("belongs to", kind);
        for (name, value) in [
            ("object id", &claims.object_id),
            ("client id", &claims.app_id),
            ("tenant", &claims.tenant_id),
            ("audience", &claims.audience),
        ] {
            if let Some(value) = value {
                step = step.with(name, value.clone());
            }
        }
        if let Some(end) = claims.expires_on {
            let left = end.saturating_sub(self.clock.now().as_secs());
            let left = if left > 0 {
                span(left)
            } else {
                "none".to_owned()
            };
            step = step.with("life left", left);
        }
        let issued = jwt_issued(secret.expose());
        issued.inspect(|issued| self.clock.hear_issued(*issued));
        let age = issued.map(|issued| self.clock.now().since(issued));
        if let Some(age) = age.filter(|age| *age >= OLD) {
            let ago = span(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
            step = step.with(
                "issued",
                format!("{ago} ago; the groups in it are those of then"),
            );
        }
        self.report.step(step);
        self.report.claims(claims.clone());
        if let Some(audience) = claims.audience.as_deref()
            && !self.is_for_storage(audience)
        {
            self.report.finding(
                Finding::warning(
                    code::OTHER_AUDIENCE,
                    "the token is for another service",
                    format!("It was asked for https://storage.azure.com, and is for {audience}."),
                )
                .fix("The identity endpoint does not honour the resource it is asked for: report it to the platform."),
            );
        }
        Token { secret, claims }
    }

    fn is_for_storage(&self, audience: &str) -> bool {
        let audience = audience.trim_end_matches('/');
        let own = format!("https://{}", self.location.host());
        AUDIENCES
            .iter()
            .any(|known| known.eq_ignore_ascii_case(audience))
            || own.eq_ignore_ascii_case(audience)
    }
}
