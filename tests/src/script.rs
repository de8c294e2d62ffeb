//! What a double does with a request instead of answering it well: a queue of behaviours, then a default.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;

/// How one request is treated. *The answer* is what the double would say by itself.
///
/// In JSON (the control endpoint): `{"kind":"status","status":429,"retry_after":"2"}`; durations are `"ms": 1500`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Behavior {
    /// The answer.
    #[default]
    Ok,
    /// Waits, then does something else.
    Delay {
        /// How long.
        #[serde(rename = "ms", with = "milliseconds")]
        time: Duration,
        /// What then; the answer, when left out.
        #[serde(default)]
        then: Box<Behavior>,
    },
    /// Waits until the gate is opened with [`Script::release`], then does something else.
    Hold {
        /// The gate's name.
        gate: String,
        /// What then; the answer, when left out.
        #[serde(default)]
        then: Box<Behavior>,
    },
    /// Reads the request and says nothing until the client leaves.
    Hang,
    /// The answer's head at once, its body a few bytes at a time.
    Drip {
        /// Bytes in each piece, at least 1.
        bytes: usize,
        /// The pause before each piece.
        #[serde(rename = "ms", with = "milliseconds")]
        every: Duration,
    },
    /// The answer's head with its true length, some of its body, then the connection is closed.
    Truncate {
        /// How much of the body is sent.
        bytes: usize,
    },
    /// The connection is reset (a TCP RST) without an answer.
    Reset,
    /// The connection is closed in order, without an answer.
    Close,
    /// These bytes in place of an HTTP response, then the connection is closed.
    Raw {
        /// What is sent.
        text: String,
    },
    /// A response of another status.
    Status {
        /// The status, 200 to 599.
        status: u16,
        /// The body; empty unless given.
        #[serde(default)]
        body: String,
        /// `Content-Type`; without one the header is left out.
        #[serde(default)]
        content_type: Option<String>,
        /// `Retry-After`, in seconds or as an HTTP date.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// The answer, wrongly typed.
    WrongType {
        /// In which way.
        form: WrongForm,
    },
    /// The answer with fields of its JSON object put or taken away.
    Edit {
        /// Fields put into the object.
        #[serde(default)]
        set: Map<String, Value>,
        /// Fields taken away.
        #[serde(default)]
        remove: Vec<String>,
    },
    /// A 200 whose JSON body is an access token of about this many bytes.
    Huge {
        /// The size of the body.
        bytes: u64,
        /// Whether a `Content-Length` says so beforehand; otherwise the body is chunked.
        #[serde(default)]
        declared: bool,
    },
    /// The answer behind a head with a header of this many bytes.
    HugeHead {
        /// The size of the header's value.
        bytes: usize,
    },
    /// A redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// Where to.
        location: String,
    },
    /// The answer with a `Date` that is this far off, the token's times being right.
    SkewedDate {
        /// Seconds ahead of the double's clock; negative is behind.
        seconds: i64,
    },
}

/// Ways for a 200 to be of the wrong type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongForm {
    /// The object inside a JSON array.
    JsonArray,
    /// The object written out as a JSON string.
    JsonString,
    /// `null`.
    JsonNull,
    /// Every integer as a numeric string.
    NumbersAsStrings,
    /// Every numeric string as an integer.
    StringsAsNumbers,
    /// Every integer, or numeric string, as a number with a fraction.
    Floats,
    /// A sign-in page, `text/html`.
    Html,
    /// The right body, called `text/plain`.
    PlainText,
    /// Words that aren't JSON, `text/plain`.
    Words,
    /// Nothing at all.
    Empty,
    /// Bytes that are neither JSON nor UTF-8.
    Bytes,
    /// A hundred thousand opening brackets.
    DeepNesting,
}

impl Behavior {
    /// The answer, after `time`.
    #[must_use]
    pub fn delay(time: Duration) -> Self {
        Self::Delay {
            time,
            then: Box::default(),
        }
    }

    /// The answer, once `gate` is opened.
    #[must_use]
    pub fn hold(gate: &str) -> Self {
        Self::Hold {
            gate: gate.to_owned(),
            then: Box::default(),
        }
    }

    /// A status with an empty body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            body: String::new(),
            content_type: None,
            retry_after: None,
        }
    }

    /// A status with a `text/plain` body.
    #[must_use]
    pub fn text(status: u16, body: &str) -> Self {
        Self::Status {
            status,
            body: body.to_owned(),
            content_type: Some("text/plain; charset=utf-8".to_owned()),
            retry_after: None,
        }
    }

    /// A status with a JSON body.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self::Status {
            status,
            body: body.to_string(),
            content_type: Some("application/json".to_owned()),
            retry_after: None,
        }
    }

    /// 429 with `Retry-After` in seconds.
    #[must_use]
    pub fn throttle(retry_after: u32) -> Self {
        Self::Status {
            status: 429,
            body: String::new(),
            content_type: None,
            retry_after: Some(retry_after.to_string()),
        }
    }

    /// The answer in a wrong form.
    #[must_use]
    pub fn wrong(form: WrongForm) -> Self {
        Self::WrongType { form }
    }
}

/// A double's instructions. Clones share them.
#[derive(Clone, Debug)]
pub struct Script {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    open: watch::Sender<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Option<String>, Behavior)>,
    default: Behavior,
    on_connect: OnConnect,
}

/// What happens to a connection before any byte of it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConnect {
    /// It is served.
    #[default]
    Serve,
    /// It is left open and never read, so that a TLS handshake never ends.
    Hang,
    /// It is reset.
    Reset,
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(
    clippy::must_use_candidate,
    reason = "the orders return the script so that they may be chained, or not"
)]
impl Script {
    /// A script under which every request gets the answer.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                open: watch::Sender::new(BTreeSet::new()),
            }),
        }
    }

    /// Treats one coming request in this way; behaviours pushed earlier come first.
    pub fn push(&self, behavior: Behavior) -> &Self {
        self.push_times(behavior, 1)
    }

    /// Treats the next `times` requests in this way.
    pub fn push_times(&self, behavior: Behavior, times: usize) -> &Self {
        self.lock()
            .queue
            .extend(std::iter::repeat_n((None, behavior), times));
        self
    }

    /// Treats one coming request for exactly this path in this way; requests for other paths leave it in the queue.
    pub fn push_on(&self, path: &str, behavior: Behavior) -> &Self {
        self.lock()
            .queue
            .push_back((Some(path.to_owned()), behavior));
        self
    }

    /// What happens once the queue has nothing for a request. [`Behavior::Ok`] at first.
    pub fn set_default(&self, behavior: Behavior) -> &Self {
        self.lock().default = behavior;
        self
    }

    /// What happens to new connections.
    pub fn set_on_connect(&self, on_connect: OnConnect) -> &Self {
        self.lock().on_connect = on_connect;
        self
    }

    /// Back to answering well: queue emptied, default and connections as at first. Gates stay as they are.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    /// How many behaviours are still in the queue.
    #[must_use]
    pub fn left(&self) -> usize {
        self.lock().queue.len()
    }

    /// Opens a gate for every request that waits at it, now or later.
    pub fn release(&self, gate: &str) {
        self.shared.open.send_modify(|open| {
            open.insert(gate.to_owned());
        });
    }

    /// Closes a gate again.
    pub fn close(&self, gate: &str) {
        self.shared.open.send_modify(|open| {
            open.remove(gate);
        });
    }

    pub(crate) async fn pass(&self, gate: &str) {
        let mut open = self.shared.open.subscribe();
        let _ = open.wait_for(|open| open.contains(gate)).await;
    }

    pub(crate) fn on_connect(&self) -> OnConnect {
        self.lock().on_connect
    }

    pub(crate) fn next(&self, path: &str) -> Behavior {
        let mut state = self.lock();
        let matching = state
            .queue
            .iter()
            .position(|(wanted, _)| wanted.as_deref().is_none_or(|wanted| wanted == path));
        match matching.and_then(|index| state.queue.remove(index)) {
            Some((_, behavior)) => behavior,
            None => state.default.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_queue_comes_before_the_default() {
        let script = Script::new();
        script
            .set_default(Behavior::Hang)
            .push(Behavior::Reset)
            .push_times(Behavior::Close, 2);
        let taken: Vec<_> = (0..4).map(|_| script.next("/")).collect();
        assert_eq!(
            taken,
            [
                Behavior::Reset,
                Behavior::Close,
                Behavior::Close,
                Behavior::Hang
            ]
        );
        script.clear();
        assert_eq!(script.next("/"), Behavior::Ok);
    }

    #[test]
    fn a_behaviour_for_one_path_waits_for_it() {
        let script = Script::new();
        script.push_on("/a", Behavior::Reset);
        assert_eq!(script.next("/b"), Behavior::Ok);
        assert_eq!(script.next("/a"), Behavior::Reset);
    }

    #[test]
    fn behaviours_have_a_json_form() {
        let text = json!([
            {"kind": "ok"},
            {"kind": "delay", "ms": 1500, "then": {"kind": "status", "status": 429, "retry_after": "2"}},
            {"kind": "wrong_type", "form": "json_array"},
            {"kind": "edit", "set": {"expires_on": ""}, "remove": ["expires_in"]},
        ]);
        let parsed: Vec<Behavior> = serde_json::from_value(text).unwrap();
        let Behavior::Delay { time, then } = &parsed[1] else {
            panic!("{parsed:?}")
        };
        assert_eq!(*time, Duration::from_millis(1500));
        assert_eq!(**then, Behavior::throttle(2));
        let unknown = json!({"kind": "status", "status": 429, "retryafter": "1"});
        assert!(serde_json::from_value::<Behavior>(unknown).is_err());
    }
}
