//! What happened to the job's tokens, as one JSON object a line, for whoever looks for the reason after the job has ended.
//!
//! Only this module says what a line can hold: ids, resources, endpoints, kinds and messages that are fit for a reader
//! outside. Tokens, secrets, user names and addresses have no place in it; what comes from elsewhere is tamed once more.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jobcred_wire::{Explanation, PrincipalClaims, Status};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::broker::Key;
use crate::error::TokenError;
use crate::platform::{Clock, UnixTime};

/// The longest text of a line's field, in characters.
const MAX_TEXT: usize = 600;
/// Unbroken runs of this length are keys or tokens, never words; a GUID is 36.
const TOO_LONG_FOR_A_WORD: usize = 64;
/// Lines of one kind that may come at once.
const BURST: u32 = 64;
/// After that, one line of a kind in so many seconds: an outage must not wash away its own beginning.
const SECONDS_EACH: i64 = 5;

/// Takes events. Cheap to clone; the default one keeps nothing.
#[derive(Clone, Default)]
pub struct Journal(Option<Arc<Inner>>);

/// Takes whole lines.
type Sink = dyn Fn(&[u8]) + Send + Sync;

struct Inner {
    clock: Clock,
    agent: String,
    write: Box<Sink>,
    /// By [`Event::kind`].
    allowances: Mutex<[Allowance; KINDS]>,
}

/// How many more lines of a kind may come, and how many did not.
#[derive(Clone, Copy, Debug, Default)]
struct Allowance {
    used: u32,
    since: i64,
    skipped: u64,
}

/// Kinds of events that can repeat without end.
const KINDS: usize = 4;

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The agent began to answer, for the `restarts`th time after the first.
    Start {
        /// What was chosen and why.
        explanation: &'a Explanation,
        /// How often the job's agent died before.
        restarts: u32,
    },
    /// Whose tokens they are became known.
    Principal(&'a PrincipalClaims),
    /// A token or a credential came.
    Token {
        /// What for.
        key: &'a Key,
        /// When it ends.
        expires_on: UnixTime,
        /// Whether there was one before.
        is_renewal: bool,
        /// Whether the platform gave the one held before once more.
        is_unchanged: bool,
    },
    /// None came.
    Failure {
        /// What for.
        key: &'a Key,
        /// Why.
        error: &'a TokenError,
        /// Seconds of life that the token held has left.
        life_left: u64,
    },
    /// A request was denied.
    Denied {
        /// Whose.
        uid: u32,
        /// Whose, where it can be seen.
        pid: Option<u32>,
        /// Why.
        error: &'a TokenError,
    },
    /// Upstream said "too many requests".
    Throttled {
        /// Who.
        endpoint: &'a str,
        /// How long it wants to be left alone, in seconds, where it said so.
        retry_after: Option<u64>,
    },
    /// The agent ends.
    End(&'a Status),
}

/// An event as it is written.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    agent: &'a str,
    #[serde(flatten)]
    body: Body<'a>,
    /// Events of this kind that were not written since the last one that was.
    #[serde(skip_serializing_if = "is_zero")]
    skipped: u64,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Body<'a> {
    Start {
        version: &'a str,
        pid: u32,
        restarts: u32,
        strategy: &'a str,
        reason: &'a str,
        message: String,
        notices: Vec<&'a str>,
    },
    Principal {
        #[serde(skip_serializing_if = "Option::is_none")]
        object_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        app_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tenant_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<&'a str>,
        sandbox: bool,
    },
    Token {
        kind: &'a str,
        identity: String,
        resource: String,
        expires_on: i64,
        renewed: bool,
        unchanged: bool,
    },
    Failure {
        kind: &'a str,
        identity: String,
        resource: String,
        code: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        issuer_code: Option<String>,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        life_left: u64,
    },
    Denied {
        uid: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
        message: String,
    },
    Throttled {
        endpoint: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
    End {
        pid: u32,
        up: i64,
        tokens: usize,
        hits: u64,
        fetches: u64,
        failures: u64,
        throttles: u64,
        denials: u64,
        restarts: u32,
    },
    Gap {
        lines: u64,
    },
}

impl Journal {
    /// A journal whose lines go to `write`, which must not wait. Each says that it is `agent`'s: others may write beside it.
    #[must_use]
    pub fn new(clock: Clock, agent: String, write: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Inner {
            clock,
            agent,
            write: Box::new(write),
            allowances: Mutex::default(),
        })))
    }

    /// Writes an event down, unless there were too many of its kind lately.
    pub fn note(&self, event: &Event<'_>) {
        let Some(inner) = &self.0 else { return };
        let now = inner.clock.now();
        let skipped = match event.kind() {
            None => 0,
            Some(kind) => {
                let mut allowances = inner
                    .allowances
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                match allowances
                    .get_mut(kind)
                    .and_then(|allowance| allowance.take(now.as_secs()))
                {
                    Some(skipped) => skipped,
                    None => return,
                }
            }
        };
        if let Some(text) = line(now, &inner.agent, event.body(now), skipped) {
            (inner.write)(&text);
        }
    }
}

/// The line in place of `lines` of them that were lost.
#[must_use]
pub fn gap(clock: &Clock, agent: &str, lines: u64) -> Vec<u8> {
    line(clock.now(), agent, Body::Gap { lines }, 0).unwrap_or_default()
}

fn line(now: UnixTime, agent: &str, body: Body<'_>, skipped: u64) -> Option<Vec<u8>> {
    let line = Line {
        time: rfc3339(now),
        agent,
        body,
        skipped,
    };
    let mut text = serde_json::to_vec(&line).ok()?;
    text.push(b'\n');
    Some(text)
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Journal").field(&self.0.is_some()).finish()
    }
}

impl Allowance {
    /// Takes one; inside, how many were refused since the last one.
    fn take(&mut self, now: i64) -> Option<u64> {
        // A clock that was set back starts a new count.
        let passed = now.saturating_sub(self.since);
        let earned = u32::try_from(passed / SECONDS_EACH).unwrap_or(BURST);
        if self.used == 0 || earned > 0 {
            self.used = self.used.saturating_sub(earned);
            self.since = now;
        }
        if self.used >= BURST {
            self.skipped += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.skipped))
    }
}

impl<'a> Event<'a> {
    /// Which allowance it takes from; `None` for what comes once.
    fn kind(&self) -> Option<usize> {
        match self {
            Self::Start { .. } | Self::Principal(_) | Self::End(_) => None,
            Self::Token { .. } => Some(0),
            Self::Failure { .. } => Some(1),
            Self::Denied { .. } => Some(2),
            Self::Throttled { .. } => Some(3),
        }
    }

    fn body(&self, now: UnixTime) -> Body<'a> {
        match *self {
            Self::Start {
                explanation,
                restarts,
            } => Body::Start {
                version: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                restarts,
                strategy: &explanation.strategy,
                reason: &explanation.reason,
                message: tame(&explanation.message),
                notices: explanation
                    .notices
                    .iter()
                    .map(|notice| notice.code.as_str())
                    .collect(),
            },
            Self::Principal(claims) => Body::Principal {
                object_id: claims.object_id.as_deref(),
                app_id: claims.app_id.as_deref(),
                tenant_id: claims.tenant_id.as_deref(),
                kind: claims.kind.as_deref(),
                sandbox: claims.sandbox,
            },
            Self::Token {
                key,
                expires_on,
                is_renewal,
                is_unchanged,
            } => Body::Token {
                kind: key.kind(),
                identity: tame(&key.identity().to_string()),
                resource: tame(key.subject()),
                expires_on: expires_on.as_secs(),
                renewed: is_renewal,
                unchanged: is_unchanged,
            },
            Self::Failure {
                key,
                error,
                life_left,
            } => Body::Failure {
                kind: key.kind(),
                identity: tame(&key.identity().to_string()),
                resource: tame(key.subject()),
                code: error.kind().as_str(),
                issuer_code: error.issuer_code().map(tame),
                message: tame(error.message()),
                hint: error.hint().map(tame),
                life_left,
            },
            Self::Denied { uid, pid, error } => Body::Denied {
                uid,
                pid,
                message: tame(error.message()),
            },
            Self::Throttled {
                endpoint,
                retry_after,
            } => Body::Throttled {
                endpoint: tame(endpoint),
                retry_after,
            },
            Self::End(status) => {
                let sum = |count: fn(&jobcred_wire::TokenStatus) -> u64| {
                    status.tokens.iter().map(count).sum()
                };
                Body::End {
                    pid: status.pid,
                    up: now.as_secs().saturating_sub(status.started_on),
                    tokens: status
                        .tokens
                        .iter()
                        .filter(|token| token.expires_on.is_some())
                        .count(),
                    hits: sum(|token| token.hits),
                    fetches: sum(|token| token.fetches),
                    failures: sum(|token| token.failures),
                    throttles: status.throttles,
                    denials: status.denials,
                    restarts: status.restarts,
                }
            }
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A point in time as people and log viewers read it; the epoch for one that no calendar has.
fn rfc3339(time: UnixTime) -> String {
    OffsetDateTime::from_unix_timestamp(time.as_secs())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// Text from elsewhere without what looks like an address, a token or a key: callers spell resources and ids, issuers
/// messages, and neither can be trusted with a file that is uploaded.
#[must_use]
pub fn tame(text: &str) -> String {
    let mut out = String::new();
    for word in text.split(|character: char| character.is_whitespace() || character.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        let in_word =
            |character: char| character.is_ascii_alphanumeric() || "-_+=%~.".contains(character);
        let longest = word
            .split(|character| !in_word(character))
            .map(str::len)
            .max()
            .unwrap_or(0);
        if word.contains('@') || word.contains("%40") {
            out.push_str("[address]");
        } else if word.contains("eyJ") || longest >= TOO_LONG_FOR_A_WORD {
            out.push_str("[...]");
        } else {
            out.push_str(word);
        }
        if out.chars().count() > MAX_TEXT {
            out = out.chars().take(MAX_TEXT).collect();
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use jobcred_wire::{ErrorCode, Explanation, Status};
    use serde_json::Value;

    use super::{Allowance, BURST, Event, Journal, SECONDS_EACH, gap, tame};
    use crate::broker::Key;
    use crate::error::TokenError;
    use crate::platform::{Clock, UnixTime};
    use crate::resource::Resource;
    use crate::token::Identity;

    fn journal() -> (Journal, Arc<Mutex<Vec<u8>>>) {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let journal = Journal::new(
            Clock::with_runtime(UnixTime::from_secs(1_800_000_000)),
            "a1".to_owned(),
            move |line| sink.lock().unwrap().extend_from_slice(line),
        );
        (journal, written)
    }

    fn lines(written: &Mutex<Vec<u8>>) -> Vec<Value> {
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(written.is_empty() || written.ends_with('\n'));
        written
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn key(resource: &str) -> Key {
        Key::Token {
            identity: Identity::Job,
            resource: Resource::verbatim(resource),
            tenant: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_event_is_one_line_that_says_what_and_when() {
        let (journal, written) = journal();
        let explanation = Explanation {
            strategy: "compute-identity".to_owned(),
            reason: "default_identity_client_id".to_owned(),
            ..Explanation::default()
        };
        let storage = key("https://storage.azure.com");
        let error = TokenError::new(ErrorCode::Rejected, "no\nsuch identity")
            .with_issuer_code("AADSTS1")
            .with_hint("assign it");
        journal.note(&Event::Start {
            explanation: &explanation,
            restarts: 2,
        });
        journal.note(&Event::Token {
            key: &storage,
            expires_on: UnixTime::from_secs(7),
            is_renewal: true,
            is_unchanged: false,
        });
        journal.note(&Event::Failure {
            key: &storage,
            error: &error,
            life_left: 3,
        });
        journal.note(&Event::Denied {
            uid: 5,
            pid: None,
            error: &error,
        });
        journal.note(&Event::Throttled {
            endpoint: "http://127.0.0.1:1/",
            retry_after: Some(9),
        });
        journal.note(&Event::End(&Status::default()));
        let lines = lines(&written);
        let events: Vec<_> = lines.iter().map(|line| line["event"].clone()).collect();
        assert_eq!(
            events,
            ["start", "token", "failure", "denied", "throttled", "end"]
        );
        assert!(
            lines
                .iter()
                .all(|line| line["time"] == "2027-01-15T08:00:00Z" && line["agent"] == "a1")
        );
        assert_eq!(lines[0]["restarts"], 2);
        assert_eq!(lines[1]["renewed"], true);
        assert_eq!(lines[2]["message"], "no such identity");
        assert_eq!(lines[2]["issuer_code"], "AADSTS1");
        assert_eq!(lines[4]["retry_after"], 9);
    }

    #[test]
    fn a_gap_is_a_line_like_any_other() {
        let clock = Clock::with_runtime(UnixTime::from_secs(1_800_000_000));
        let text = String::from_utf8(gap(&clock, "a1", 7)).unwrap();
        assert_eq!(
            text,
            "{\"time\":\"2027-01-15T08:00:00Z\",\"agent\":\"a1\",\"event\":\"gap\",\"lines\":7}\n"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_repeats_without_end_is_thinned_out_and_counted() {
        let (journal, written) = journal();
        let event = Event::Throttled {
            endpoint: "x",
            retry_after: None,
        };
        for _ in 0..10 * BURST {
            journal.note(&event);
        }
        assert_eq!(lines(&written).len(), BURST as usize);
        tokio::time::advance(std::time::Duration::from_secs(
            SECONDS_EACH.unsigned_abs() + 1,
        ))
        .await;
        journal.note(&event);
        let lines = lines(&written);
        assert_eq!(lines.len(), BURST as usize + 1);
        assert_eq!(lines.last().unwrap()["skipped"], 9 * BURST);
        // Another kind is none the poorer.
        let error = TokenError::new(ErrorCode::Denied, "no");
        journal.note(&Event::Denied {
            uid: 0,
            pid: None,
            error: &error,
        });
        assert_eq!(super::tests::lines(&written).len(), BURST as usize + 2);
    }

    #[test]
    fn an_allowance_comes_back_with_time_and_no_faster() {
        let mut allowance = Allowance::default();
        let taken = |allowance: &mut Allowance, now| allowance.take(now).is_some();
        assert_eq!((0..1000).filter(|_| taken(&mut allowance, 0)).count(), 64);
        assert_eq!(
            (0..1000)
                .filter(|second| taken(&mut allowance, *second))
                .count(),
            999 / 5
        );
        // A clock that is set back must not silence it for as long.
        assert!(taken(&mut allowance, -1_000_000));
    }

    #[test]
    fn addresses_tokens_and_keys_are_not_written() {
        for (text, written) in [
            (
                "https://storage.azure.com/ is fine",
                "https://storage.azure.com/ is fine",
            ),
            (
                "user 'jane.doe@contoso.com' has no role",
                "user [address] has no role",
            ),
            ("jane%40contoso.com", "[address]"),
            ("got eyJhbGciOiJub25lIn0.e30.x", "got [...]"),
            ("line\r\nbreak\u{1b}[2J", "line break [2J"),
            (
                "11111111-2222-3333-4444-555555555555",
                "11111111-2222-3333-4444-555555555555",
            ),
        ] {
            assert_eq!(tame(text), written);
        }
        assert_eq!(tame(&format!("key={}", "k".repeat(70))), "[...]");
        assert!(tame(&"word ".repeat(1000)).chars().count() < 700);
    }
}
