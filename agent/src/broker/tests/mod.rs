//! What the rules come to: a broker on a paused clock, with an issuer that behaves.

mod any_order;
mod claims;
mod clock;
mod failure;
mod flood;
mod grant;
mod renewal;
mod single_flight;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jobcred_wire::{ErrorCode, Secret};
use tokio::time::{Instant, sleep};

use super::{Broker, BrokerOptions, CachedToken, Fetch, Key, Want};
use crate::error::TokenError;
use crate::platform::{Clock, UnixTime};
use crate::resource::{Cloud, Resource};
use crate::token::{AccessToken, Identity};

const HOUR: u64 = 3_600;

/// How the issuer behaves until told otherwise.
#[derive(Clone)]
struct Manner {
    life: Duration,
    latency: Duration,
    refresh_in: Option<Duration>,
    answer: Answer,
}

/// What the issuer answers.
#[derive(Clone)]
enum Answer {
    /// A new token each time.
    New,
    /// The token last issued for a key again while it is valid: a platform's cache.
    Again,
    /// Nothing for a token.
    Blank,
    Failure(TokenError),
    Panic,
    Never,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            life: Duration::from_secs(HOUR),
            latency: Duration::ZERO,
            refresh_in: None,
            answer: Answer::New,
        }
    }
}

/// A fetch as the issuer saw it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    key: Key,
    claims: Option<String>,
    at: Instant,
}

/// An issuer in memory. It numbers its tokens and notes what it was asked.
struct Issuer {
    clock: Clock,
    manner: Mutex<Manner>,
    seen: Mutex<Vec<Seen>>,
    issued: Mutex<HashMap<Key, AccessToken>>,
    /// Fetches under way by key, and the most there ever were of one key and of all.
    under_way: Mutex<HashMap<Key, usize>>,
    most: Mutex<(usize, usize)>,
}

/// Counts a fetch as under way until dropped, also when its task is aborted or panics.
struct UnderWay<'a>(&'a Issuer, Key);

impl<'a> UnderWay<'a> {
    fn new(issuer: &'a Issuer, key: &Key) -> Self {
        let mut under_way = issuer.under_way.lock().unwrap();
        *under_way.entry(key.clone()).or_default() += 1;
        let mut most = issuer.most.lock().unwrap();
        most.0 = most.0.max(under_way[key]);
        most.1 = most.1.max(under_way.values().sum());
        Self(issuer, key.clone())
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.under_way.lock().unwrap().get_mut(&self.1).unwrap() -= 1;
    }
}

#[async_trait]
impl Fetch for Issuer {
    async fn fetch(&self, key: &Key, claims: Option<&str>) -> Result<AccessToken, TokenError> {
        let _under_way = UnderWay::new(self, key);
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(Seen {
                key: key.clone(),
                claims: claims.map(str::to_owned),
                at: Instant::now(),
            });
            seen.len()
        };
        let manner = self.manner.lock().unwrap().clone();
        sleep(manner.latency).await;
        let now = self.clock.now();
        let last = self.issued.lock().unwrap().get(key).cloned();
        let secret = match manner.answer.clone() {
            Answer::Panic => panic!("scripted"),
            Answer::Never => std::future::pending().await,
            Answer::Failure(error) => return Err(error),
            Answer::Blank => String::new(),
            Answer::Again | Answer::New => format!("s3cret-{number}"),
        };
        if let (Answer::Again, Some(token)) = (manner.answer, last)
            && now < token.expires_on
        {
            return Ok(token);
        }
        let token = AccessToken {
            secret: Secret::new(secret),
            expires_on: now + manner.life,
            refresh_on: manner.refresh_in.map(|time| now + time),
            resource: key.subject().to_owned(),
            client_id: None,
        };
        self.issued
            .lock()
            .unwrap()
            .insert(key.clone(), token.clone());
        Ok(token)
    }
}

/// A broker with its issuer and its clock.
struct Lab {
    clock: Clock,
    issuer: Arc<Issuer>,
    broker: Arc<Broker>,
}

impl Lab {
    fn new() -> Self {
        Self::with(&BrokerOptions::default())
    }

    fn with(options: &BrokerOptions) -> Self {
        let clock = Clock::with_runtime(UnixTime::from_secs(1_800_000_000));
        let issuer = Arc::new(Issuer {
            clock: clock.clone(),
            manner: Mutex::default(),
            seen: Mutex::default(),
            issued: Mutex::default(),
            under_way: Mutex::default(),
            most: Mutex::default(),
        });
        let fetch: Arc<dyn Fetch> = Arc::<Issuer>::clone(&issuer);
        let broker = Broker::new(
            fetch,
            clock.clone(),
            BrokerOptions {
                jitter: || 0,
                ..options.clone()
            },
        );
        Self {
            clock,
            issuer,
            broker,
        }
    }

    /// Changes how the issuer behaves from now on.
    fn issuer(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.issuer.manner.lock().unwrap());
    }

    fn issuer_fails(&self, error: TokenError) {
        self.issuer(|manner| manner.answer = Answer::Failure(error));
    }

    fn issuer_works(&self) {
        self.issuer(|manner| *manner = Manner::default());
    }

    async fn get(&self, key: &Key) -> Result<Arc<CachedToken>, TokenError> {
        let result = self.broker.get(key, Want::default()).await;
        self.must_be_valid(&result);
        result
    }

    async fn get_with_life(&self, key: &Key, seconds: u64) -> Result<Arc<CachedToken>, TokenError> {
        let want = Want {
            min_validity: Duration::from_secs(seconds),
            claims: None,
        };
        let result = self.broker.get(key, want).await;
        self.must_be_valid(&result);
        result
    }

    async fn challenge(&self, key: &Key) -> Result<Arc<CachedToken>, TokenError> {
        let want = Want {
            min_validity: Duration::ZERO,
            claims: Some("{}"),
        };
        let result = self.broker.get(key, want).await;
        self.must_be_valid(&result);
        result
    }

    fn peek(&self, key: &Key) -> Option<Arc<CachedToken>> {
        self.broker.peek(key, Duration::ZERO)
    }

    /// How often the issuer was asked.
    fn fetches(&self) -> usize {
        self.issuer.seen.lock().unwrap().len()
    }

    /// The seconds between one fetch and the next.
    fn gaps(&self) -> Vec<u64> {
        let seen = self.issuer.seen.lock().unwrap();
        seen.windows(2)
            .map(|pair| (pair[1].at - pair[0].at).as_secs())
            .collect()
    }

    fn must_be_valid(&self, result: &Result<Arc<CachedToken>, TokenError>) {
        if let Ok(token) = result {
            assert!(self.clock.now() < token.expires_on(), "handed out expired");
            assert!(token.refresh_on <= token.expires_on());
            assert!(!token.token.secret.is_empty());
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let most = self.issuer.most.lock().unwrap().0;
            assert!(most <= 1, "{most} fetches of one key at once");
        }
    }
}

fn storage() -> Key {
    Key::Token {
        identity: Identity::Job,
        resource: Cloud::storage(),
        tenant: None,
    }
}

/// One of many keys.
fn numbered(number: usize) -> Key {
    Key::Token {
        identity: Identity::Job,
        resource: Resource::parse(&format!("api://{number}"), Cloud::Public),
        tenant: None,
    }
}

fn secret(token: &CachedToken) -> &str {
    token.token.secret.expose()
}

/// Lets so much time pass: every timer on the way fires in its turn.
async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn transient() -> TokenError {
    TokenError::new(ErrorCode::Transient, "busy")
}

fn rejected() -> TokenError {
    TokenError::new(ErrorCode::Rejected, "no such role")
}
