//! The steps of a check, in the order a request takes them.

mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jobcred_wire::{PrincipalClaims, Secret};
use tokio::time::Instant;

use super::report::{Outcome, Report, Step};
use super::way::{bad_certificate, bypassed, listed, no_address, unreached};
use crate::cli::arguments::{CheckOptions, GlobalOptions};
use crate::cli::exit;
use crate::cli::setup::Setup;
use crate::platform::Clock;
use crate::storage::address::is_private;
use crate::storage::{
    Answer, Finding, Location, Operation, Situation, Way, clock, code, judge, request,
};
use crate::transport::{Request, Route, Transport, TransportConfig, addresses};

/// For a name, in all.
const NAME_LIMIT: Duration = Duration::from_secs(10);
/// For a name that need not exist.
const OTHER_NAME_LIMIT: Duration = Duration::from_secs(2);

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
        outside.clock.clone(),
    );
    let mut check = Check {
        transport: Arc::new(Transport::new(way_out)),
        location,
        clock: outside.clock.clone(),
        report,
        way: Way::Unknown,
    };
    check.clock();
    let is_reached = check.network().await;
    let token = check.token(global, setup).await;
    // The issuer's answer may have told by how much.
    check.clock();
    let token = match token {
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

    /// Whether this machine's clock can be right. The service's own answer tells more exactly, later.
    fn clock(&mut self) {
        if let Some(fault) = self.clock.fault() {
            self.report.finding(
                Finding::warning(
                    code::CLOCK_SKEW,
                    "this machine's clock is wrong",
                    format!("{fault}."),
                )
                .fix("Set the clock of the node; a container has no clock of its own."),
            );
        }
    }

    /// Name, connection and TLS. Whether the service is reached.
    async fn network(&mut self) -> bool {
        let request =
            Request::get(self.location.url(""), Route::Proxied).with_limits(request::LIMITS);
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
            self.take_back(&path, token).await;
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

    /// Deletes a file that may have been made, although no answer said so.
    async fn take_back(&mut self, path: &str, token: &Token) {
        let ending = request::delete(self.location, path, None, &token.secret, self.clock.now());
        let is_gone = match ending {
            Ok(request) => {
                let answer = self.transport.send(&request).await;
                answer.is_ok_and(|it| it.status().is_success() || it.status() == 404)
            }
            Err(_) => false,
        };
        if !is_gone {
            self.report.finding(
                Finding::warning(
                    code::LEFT_BEHIND,
                    "an empty file may have been made",
                    "No answer came, neither to the request that makes it nor to the one that deletes it.",
                )
                .fix(format!("If it is there, delete it: {}", self.location.url(path))),
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
