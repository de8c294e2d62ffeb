//! The steps of a check, in the order a request takes them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jobcred_client::ErrorKind;
use jobcred_wire::{PrincipalClaims, Secret, Target, TokenRequest};
use tokio::time::Instant;

use super::report::{Outcome, Report, Step};
use crate::agent::{Chosen, choose};
use crate::cli::arguments::{CheckOptions, GlobalOptions};
use crate::cli::output::span;
use crate::cli::probe::storage_token;
use crate::cli::setup::Setup;
use crate::cli::{exit, seek};
use crate::platform::Clock;
use crate::principal::{Pin, Principal, jwt_issued};
use crate::resource::Cloud;
use crate::storage::address::is_private;
use crate::storage::{
    Answer, Finding, Location, Operation, Situation, Way, clock, code, judge, request,
};
use crate::strategy::promise_broken;
use crate::supervisor::say;
use crate::token::Identity;
use crate::transport::{
    FailureKind, NoAddress, Request, TlsProblem, Transport, TransportConfig, TransportError,
    addresses,
};

/// For a name, in all.
const NAME_LIMIT: Duration = Duration::from_secs(10);
/// For a name that need not exist.
const OTHER_NAME_LIMIT: Duration = Duration::from_secs(2);
/// For the agent's answer; its own patience with the identity endpoint is shorter.
const AGENT_LIMIT: Duration = Duration::from_secs(30);
/// A token of this age comes from a cache of the platform's.
const OLD: Duration = Duration::from_secs(3600);
/// The audiences of storage tokens. The last one is the id of the Azure Storage application.
const AUDIENCES: [&str; 2] = [
    "https://storage.azure.com",
    "e406a681-f3d4-42a8-90b6-c2b029497af1",
];

struct Check<'a> {
    transport: Arc<Transport>,
    location: &'a Location,
    clock: Clock,
    report: &'a mut Report,
    way: Way,
}

struct Token {
    secret: Secret,
    claims: PrincipalClaims,
}

/// Takes every step that can be taken. The exit code.
pub(super) async fn take(
    global: &GlobalOptions,
    options: &CheckOptions,
    setup: &Setup,
    location: &Location,
    report: &mut Report,
) -> i32 {
    let outside = &setup.outside;
    let way_out = TransportConfig::from_environment(
        &outside.environment,
        setup.config.ca_file.clone(),
        outside.files.clone(),
        outside.clock.clone(),
    );
    let transport = match Transport::new(way_out) {
        Ok(transport) => Arc::new(transport),
        Err(error) => {
            say(&error.to_string());
            return exit::USAGE;
        }
    };
    let mut check = Check {
        transport,
        location,
        clock: outside.clock.clone(),
        report,
        way: Way::Unknown,
    };
    let is_reached = check.network().await;
    let token = match check.token(global, setup).await {
        Ok(token) => token,
        Err(exit_code) => {
            check.skip("list", "there is no token to ask with");
            return exit_code;
        }
    };
    match token {
        Some(token) if is_reached => {
            check.data(&token, options.write).await;
        }
        Some(_) => check.skip("list", "the service is not reached"),
        None => check.skip("list", "there is no token that may be used"),
    }
    if check.report.has_failure() {
        exit::REFUSED
    } else {
        exit::OK
    }
}

impl Check<'_> {
    fn skip(&mut self, name: &'static str, why: &str) {
        self.report.step(Step::new(name, Outcome::Skipped, why));
    }

    /// Name, connection and TLS. Whether the service is reached.
    async fn network(&mut self) -> bool {
        let request = Request::get(self.location.url(""), crate::transport::Route::Proxied)
            .with_limits(request::LIMITS);
        let proxy = match self.transport.proxy_for(&request) {
            Ok(proxy) => proxy,
            Err(error) => {
                self.report
                    .step(Step::new("proxy", Outcome::Failed, error.to_string()));
                self.report.finding(unreached(&error));
                return false;
            }
        };
        self.report.proxy(proxy.clone());
        if !self.name(proxy.as_deref()).await {
            self.skip("connection", "the name leads nowhere");
            self.skip("tls", "there is no connection");
            return false;
        }
        let start = Instant::now();
        let reached = match self.transport.reach(&request).await {
            Ok(reached) => reached,
            Err(error) => {
                self.report.step(
                    Step::new("connection", Outcome::Failed, error.to_string())
                        .took(start.elapsed()),
                );
                self.report.finding(unreached(&error));
                self.skip("tls", "there is no connection");
                return false;
            }
        };
        let text = match &proxy {
            Some(proxy) => format!("through the proxy {proxy}"),
            None => format!("port {}", self.location.port()),
        };
        self.report
            .step(Step::new("connection", Outcome::Ok, text).took(start.elapsed()));
        let start = Instant::now();
        match self.transport.greet(&request, reached).await {
            Ok(()) => {
                self.report.step(
                    Step::new("tls", Outcome::Ok, "the certificate is trusted")
                        .took(start.elapsed()),
                );
                true
            }
            Err((error, problem)) => {
                self.report.step(
                    Step::new("tls", Outcome::Failed, error.to_string()).took(start.elapsed()),
                );
                self.report
                    .finding(bad_certificate(&error, problem, self.location.host()));
                false
            }
        }
    }

    async fn name(&mut self, proxy: Option<&str>) -> bool {
        let host = self.location.host();
        let start = Instant::now();
        let found = addresses(host, NAME_LIMIT).await;
        let took = start.elapsed();
        if proxy.is_some() {
            self.way = Way::Proxy;
            let text = match found {
                Ok(found) => format!("left to the proxy; here {host} is {}", listed(&found)),
                Err(_) => format!("left to the proxy; {host} has no address here"),
            };
            self.report
                .step(Step::new("name", Outcome::Ok, text).took(took));
            return true;
        }
        let found = match found {
            Ok(found) => found,
            Err(why) => {
                let (text, finding) = no_address(self.location, &why);
                self.report
                    .step(Step::new("name", Outcome::Failed, text).took(took));
                self.report.finding(finding);
                return false;
            }
        };
        let all_private = found.iter().all(|address| is_private(*address));
        self.way = if all_private {
            Way::Private
        } else {
            Way::Public
        };
        let is_here = found
            .iter()
            .all(|address| address.to_canonical().is_loopback());
        let kind = match (all_private, self.location.is_azure()) {
            _ if is_here => "this machine itself",
            (true, true) => "private: a private endpoint",
            (true, false) => "private",
            (false, true) => "public: no private endpoint",
            (false, false) => "public",
        };
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let text = if is_address {
            format!("{host} is an address ({kind})")
        } else {
            format!("{host} is {} ({kind})", listed(&found))
        };
        self.report
            .step(Step::new("name", Outcome::Ok, text).took(took));
        if !all_private
            && let Some(alias) = self.location.private_link_host()
            && addresses(&alias, OTHER_NAME_LIMIT).await.is_ok()
        {
            self.report.finding(bypassed(&alias));
        }
        true
    }

    /// The token of the agent that runs here, else the one that an agent started here would get. `None` when there is one that
    /// must not be used.
    async fn token(&mut self, global: &GlobalOptions, setup: &Setup) -> Result<Option<Token>, i32> {
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
        let age = jwt_issued(secret.expose()).map(|issued| self.clock.now().since(issued));
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

    /// The listing, and the writing where it is asked for.
    async fn data(&mut self, token: &Token, write: bool) {
        let listing = request::list(self.location, &token.secret, self.clock.now());
        let Some(answer) = self.ask("list", listing.ok(), token).await else {
            if write {
                self.skip("write", "the listing got no answer");
            }
            return;
        };
        if answer.is_success() {
            let text = if answer.has_entries {
                "allowed; there is something"
            } else {
                "allowed; there is nothing"
            };
            self.report.step(Step::new("list", Outcome::Ok, text));
            if !answer.has_entries && !self.location.path().is_empty() {
                self.report.finding(
                    Finding::warning(
                        code::NOTHING_THERE,
                        format!("there is nothing under {}", self.location.plain_path()),
                        "The listing is allowed, and empty.",
                    )
                    .fix("See whether the path is spelt as it is in the container. Upper and lower case differ."),
                );
            }
        }
        if !write {
            return;
        }
        // Who may not list may still write; whose token is not taken may do nothing.
        let goes_on = answer.is_success()
            || matches!(
                answer.code.as_deref(),
                Some("AuthorizationPermissionMismatch" | "PathNotFound")
            );
        if goes_on {
            self.write(token).await;
        } else {
            self.skip(
                "write",
                "the listing was refused for a reason that holds for both",
            );
        }
    }

    async fn write(&mut self, token: &Token) {
        let mut random = [0; 12];
        if getrandom::fill(&mut random).is_err() {
            self.skip("write", "there is no randomness to make a name of");
            return;
        }
        let path = request::probe_path(self.location, &random);
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let making = request::create(self.location, &path, &token.secret, self.clock.now());
        let Some(made) = self.ask("write", making.ok(), token).await else {
            return;
        };
        if !made.is_success() {
            return;
        }
        let text = format!("an empty file was made: {name}");
        self.report.step(Step::new("write", Outcome::Ok, text));
        let etag = made.etag.as_deref();
        let ending = request::delete(self.location, &path, etag, &token.secret, self.clock.now());
        let ended = self.ask("delete", ending.ok(), token).await;
        if ended.is_some_and(|answer| answer.is_success()) {
            self.report
                .step(Step::new("delete", Outcome::Ok, "and deleted again"));
            self.report.works("list, write and delete");
        } else {
            self.report.finding(
                Finding::failure(
                    code::LEFT_BEHIND,
                    format!("the empty file {name} is still there"),
                    "It was made by this check, and could not be deleted.",
                )
                .fix(format!("Delete it: {}", self.location.url(&path))),
            );
        }
    }

    /// Asks the service. Reports a refusal, and what keeps an answer from coming; `None` then.
    async fn ask(
        &mut self,
        name: &'static str,
        request: Option<Request>,
        token: &Token,
    ) -> Option<Answer> {
        let start = Instant::now();
        let Some(request) = request else {
            self.report.step(Step::new(
                name,
                Outcome::Failed,
                "the token cannot be sent in a header",
            ));
            self.report.finding(Finding::failure(
                code::TOKEN_REJECTED,
                "the token cannot be sent",
                "It holds a character that no HTTP header may.",
            ));
            return None;
        };
        let response = match self.transport.send(&request).await {
            Ok(response) => response,
            Err(error) => {
                self.report.step(
                    Step::new(name, Outcome::Failed, error.to_string()).took(start.elapsed()),
                );
                self.report.finding(unreached(&error));
                return None;
            }
        };
        let took = start.elapsed();
        let mut answer = Answer::read(self.location.service(), &response);
        answer.redact(token.secret.expose());
        let now = self.clock.now();
        if let Some(finding) = clock(&answer, now) {
            self.report.finding(finding);
        }
        let situation = Situation {
            operation: match name {
                "write" => Operation::Create,
                "delete" => Operation::Delete,
                _ => Operation::List,
            },
            location: self.location,
            claims: &token.claims,
            way: self.way,
            now,
        };
        if let Some(finding) = judge(&answer, &situation) {
            let text = match &answer.code {
                Some(code) => format!("{} {code}", answer.status),
                None => format!("status {}", answer.status),
            };
            self.report.step(
                Step::new(name, Outcome::Failed, text)
                    .took(took)
                    .with_answer(&answer),
            );
            self.report.finding(finding);
        }
        Some(answer)
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().take(4).map(ToString::to_string).collect();
    texts.join(", ")
}

fn no_address(location: &Location, why: &NoAddress) -> (String, Finding) {
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

fn bypassed(alias: &str) -> Finding {
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
fn unreached(error: &TransportError) -> Finding {
    let (code, title) = match error.kind() {
        FailureKind::Proxy => (code::PROXY, "the proxy is in the way"),
        FailureKind::Timeout => (code::CONNECTION_TIMEOUT, "no answer in time"),
        FailureKind::Tls => (code::TLS_FAILED, "TLS failed"),
        FailureKind::Roots => (code::ROOTS_MISSING, "no certificate can be checked"),
        FailureKind::Redirect | FailureKind::TooLarge | FailureKind::Broken => {
            (code::NOT_STORAGE, "what answered is not Azure Storage")
        }
        FailureKind::Connect | FailureKind::BadUrl => (code::NO_CONNECTION, "no connection"),
    };
    Finding::failure(code, title, format!("{error}.")).fix(error.hint())
}

fn bad_certificate(error: &TransportError, problem: TlsProblem, host: &str) -> Finding {
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
