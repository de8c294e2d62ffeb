//! `/readyz`: whether every declared token exists and the configured endpoint is open, and why not.

use std::time::Duration;

use jobcred_wire::{DeclaredResource, ErrorCode, Readiness, ResourceState};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::reply::{self, Reply, RequestId};
use crate::broker::Broker;
use crate::error::TokenError;

/// The longest a request may wait for readiness.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How many resources a message names.
const MOST_NAMED: usize = 3;

/// Answers once every declared token exists and the endpoint is open, or a token is refused for good, and after the time that
/// `query` allows at the latest; without one at once. `endpoint` is why the configured endpoint is not open, where it is not.
/// `trouble` is why a request that has not come to its end is being sent again, where one is.
pub(super) async fn answer(
    id: RequestId,
    broker: &Broker,
    mut endpoint: watch::Receiver<Option<String>>,
    query: &str,
    trouble: impl Fn() -> Option<String>,
) -> Reply {
    let wait = match wait(query) {
        Ok(wait) => wait,
        Err(error) => return reply::refuse(id, &error),
    };
    let deadline = Instant::now() + wait;
    loop {
        // Before the look: a fetch that ends in between is not missed.
        let landing = broker.landing();
        let closed = endpoint.borrow_and_update().clone();
        let resources = broker.declared();
        let has_tokens = broker.ready();
        if has_tokens && closed.is_none() {
            let ready = Readiness {
                status: Some("ready".to_owned()),
                error: None,
                resources,
            };
            return reply::json(id, &ready);
        }
        let error = |trouble: Option<&str>| match &closed {
            Some(why) if has_tokens => TokenError::new(ErrorCode::Transient, why.clone()),
            _ => missing(&resources, trouble),
        };
        // With nothing declared only an agent that is ending has no tokens.
        let is_ending = !has_tokens && resources.is_empty();
        let now = error(None);
        if !now.is_transient() || is_ending {
            return reply::not_ready(id, &now, resources);
        }
        let news = async {
            tokio::select! {
                () = landing => {}
                // Its sender lives as long as the agent.
                Ok(()) = endpoint.changed() => {}
            }
        };
        if timeout_at(deadline, news).await.is_err() {
            let late = error(trouble().as_deref());
            return reply::not_ready(id, &late, resources);
        }
    }
}

fn wait(query: &str) -> Result<Duration, TokenError> {
    let Some(text) = query.split('&').find_map(|pair| pair.strip_prefix("wait=")) else {
        return Ok(Duration::ZERO);
    };
    // `u64::from_str` takes a sign; a number of seconds has none.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse().map(Duration::from_secs) {
        Ok(wait) if digits && wait <= LONGEST_WAIT => Ok(wait),
        _ => Err(TokenError::new(
            ErrorCode::InvalidRequest,
            format!(
                "`wait` is no number of seconds up to {}",
                LONGEST_WAIT.as_secs()
            ),
        )),
    }
}

/// Why it is not ready: what was refused for good, else what is still tried, else what is blocked here, which is no reason to
/// keep a job from starting. `trouble` is what is known of those whose first fetch is still tried.
fn missing(resources: &[DeclaredResource], trouble: Option<&str>) -> TokenError {
    let (verb, kind, rest) = [
        (ResourceState::Refused, "was refused", ErrorCode::Rejected),
        (
            ResourceState::Trying,
            "is not there yet",
            ErrorCode::Transient,
        ),
        (
            ResourceState::Blocked,
            "is blocked here",
            ErrorCode::Internal,
        ),
    ]
    .map(|(state, verb, kind)| {
        let of: Vec<&DeclaredResource> = resources
            .iter()
            .filter(|resource| resource.state == state)
            .collect();
        (verb, kind, of)
    })
    .into_iter()
    .find(|(_, _, of)| !of.is_empty())
    .unwrap_or(("", ErrorCode::Transient, Vec::new()));
    let mut reasons: Vec<String> = rest
        .iter()
        .take(MOST_NAMED)
        .map(|resource| {
            let last = resource.last_error.as_ref().map(|error| &*error.message);
            match last.or(trouble) {
                Some(why) => format!("{} {verb}: {why}", resource.resource),
                None => format!("{} {verb}", resource.resource),
            }
        })
        .collect();
    if rest.len() > MOST_NAMED {
        reasons.push(format!("and {} more", rest.len() - MOST_NAMED));
    }
    let first = rest
        .iter()
        .find_map(|resource| resource.last_error.as_ref());
    let kind = first
        .map(|error| error.code)
        .filter(|code| kind.is_final() && code.is_final())
        .unwrap_or(kind);
    let message = if reasons.is_empty() {
        "the agent is ending".to_owned()
    } else {
        reasons.join("; ")
    };
    let error = TokenError::new(kind, message);
    match first.and_then(|error| error.hint.clone()) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use jobcred_wire::{DeclaredResource, ErrorCode, ResourceState, UpstreamError};

    use super::{missing, wait};

    fn resource(name: &str, state: ResourceState, code: Option<ErrorCode>) -> DeclaredResource {
        DeclaredResource {
            resource: name.to_owned(),
            state,
            last_error: code.map(|code| UpstreamError {
                code,
                message: format!("{name} says {code}"),
                at: 0,
                hint: Some(format!("look at {name}")),
                issuer_code: None,
                resource: None,
            }),
        }
    }

    #[test]
    fn a_refusal_comes_before_what_is_still_tried() {
        let trying = resource("a", ResourceState::Trying, Some(ErrorCode::Transient));
        let refused = resource("b", ResourceState::Refused, Some(ErrorCode::Rejected));
        let ready = resource("c", ResourceState::Ready, None);
        let error = missing(&[trying.clone(), refused, ready.clone()], None);
        assert_eq!(error.kind(), ErrorCode::Rejected);
        assert_eq!(error.message(), "b was refused: b says rejected");
        assert_eq!(error.hint(), Some("look at b"));
        let error = missing(&[trying, ready], Some("not this"));
        assert_eq!(error.kind(), ErrorCode::Transient);
        assert_eq!(error.message(), "a is not there yet: a says transient");
    }

    #[test]
    fn what_is_blocked_here_is_not_a_refusal_by_the_issuer() {
        let blocked = resource("a", ResourceState::Blocked, Some(ErrorCode::Rejected));
        let trying = resource("b", ResourceState::Trying, Some(ErrorCode::Transient));
        let refused = resource("c", ResourceState::Refused, Some(ErrorCode::Rejected));
        let error = missing(std::slice::from_ref(&blocked), None);
        assert_eq!(error.kind(), ErrorCode::Internal);
        assert_eq!(error.message(), "a is blocked here: a says rejected");
        assert_eq!(error.hint(), Some("look at a"));
        // What may still come, or be refused for good, decides.
        let error = missing(&[blocked.clone(), trying.clone()], None);
        assert_eq!(error.kind(), ErrorCode::Transient);
        let error = missing(&[blocked, trying, refused], None);
        assert_eq!(error.kind(), ErrorCode::Rejected);
    }

    #[test]
    fn a_long_list_is_cut_short() {
        let all: Vec<_> = (0..10)
            .map(|number| resource(&number.to_string(), ResourceState::Trying, None))
            .collect();
        let error = missing(&all, None);
        assert!(error.message().ends_with("; and 7 more"), "{error}");
        assert_eq!(error.kind(), ErrorCode::Transient);
    }

    #[test]
    fn only_a_bounded_number_of_seconds_is_a_wait() {
        assert_eq!(wait("").unwrap().as_secs(), 0);
        assert_eq!(wait("a=b&wait=30").unwrap().as_secs(), 30);
        for query in ["wait=", "wait=-1", "wait=+1", "wait=61", "wait=1s"] {
            assert!(wait(query).is_err(), "{query}");
        }
    }
}
