//! Tokens this process holds, and who may ask the agent for the next one.
//!
//! The decision is pure (see [`decide`]); the clock comes in as a value. One slot per identity, target and tenant; at
//! most one request per slot is under way in the process. No lock here is held over I/O.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jobcred_wire::{NamedIdentity, Target, TokenRequest, TokenResponse};

use crate::Error;

/// What came of one request to the agent, as everybody who waited for it gets it.
pub(crate) type Outcome = Result<Arc<TokenResponse>, Error>;

/// All slots. `S` is what waiters of a slot are woken by: it differs between threads and tasks.
#[derive(Debug, Default)]
pub(crate) struct Cache<S> {
    slots: RwLock<HashMap<u64, Vec<Arc<Slot<S>>>>>,
    hasher: RandomState,
}

/// What is known about one token.
#[derive(Debug)]
pub(crate) struct Slot<S> {
    target: Target,
    identity: Option<NamedIdentity>,
    tenant_id: Option<String>,
    state: Mutex<State>,
    pub(crate) signal: S,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    held: Option<Arc<TokenResponse>>,
    /// When the agent was last asked, in unix seconds.
    asked_on: Option<i64>,
    /// The process that has a request under way. A forked child inherits the note, but not the thread behind it.
    flight: Option<u32>,
    /// Counts the requests that have ended, so that a waiter knows which outcome is the one it waited for.
    pub(crate) landed: u64,
    outcome: Option<Outcome>,
}

/// What a held token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Hand it out.
    Fresh,
    /// Ask for a newer one, and hand this one out when none is to be had.
    RefreshSoon,
    /// Of no use for this request.
    Unusable,
}

/// What the caller has to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing: here it is.
    Use(Arc<TokenResponse>),
    /// Ask the agent, then report with [`Slot::land`]. The token is what to fall back on.
    Lead(Option<Arc<TokenResponse>>),
    /// Wait until `landed` is beyond this number.
    Wait(u64),
}

/// Whether a token can be handed out at `now`.
///
/// Never an expired one, and none with less life left than the caller needs. `asked_on` bounds the requests for a newer
/// token while the agent has none, or does not answer.
pub(crate) fn decide(
    token: &TokenResponse,
    asked_on: Option<i64>,
    min_validity: Option<u64>,
    now: i64,
) -> Freshness {
    let left = token.expires_on.saturating_sub(now);
    let needed = i64::try_from(min_validity.unwrap_or(0)).unwrap_or(i64::MAX);
    if left <= 0 || left < needed {
        return Freshness::Unusable;
    }
    let is_recent =
        asked_on.is_some_and(|asked| now.saturating_sub(asked).saturating_abs() < REFRESH_PAUSE);
    if now < token.refresh_on || is_recent {
        Freshness::Fresh
    } else {
        Freshness::RefreshSoon
    }
}

impl<S: Default> Cache<S> {
    /// The token for `request`, when it needs no thought. This is the path of nearly every call: no allocation, no I/O.
    pub(crate) fn hit(&self, request: &TokenRequest, now: i64) -> Option<Arc<TokenResponse>> {
        let hash = self.hash(request);
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(&hash)?.iter().find(|slot| slot.is_for(request))?;
        let state = slot.lock();
        let held = state.held.as_ref()?;
        match decide(held, state.asked_on, request.min_validity, now) {
            Freshness::Fresh => Some(Arc::clone(held)),
            Freshness::RefreshSoon | Freshness::Unusable => None,
        }
    }

    /// The slot of `request`, made when there is none.
    pub(crate) fn slot(&self, request: &TokenRequest, now: i64) -> Arc<Slot<S>> {
        let hash = self.hash(request);
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots
            .get(&hash)
            .and_then(|bucket| bucket.iter().find(|slot| slot.is_for(request)))
        {
            return Arc::clone(slot);
        }
        if slots.values().map(Vec::len).sum::<usize>() >= MAX_SLOTS {
            evict(&mut slots, now);
        }
        let slot = Arc::new(Slot {
            target: request.target.clone(),
            identity: request.identity.clone(),
            tenant_id: request.tenant_id.clone(),
            state: Mutex::default(),
            signal: S::default(),
        });
        slots.entry(hash).or_default().push(Arc::clone(&slot));
        slot
    }

    fn hash(&self, request: &TokenRequest) -> u64 {
        self.hasher
            .hash_one((&request.target, &request.identity, &request.tenant_id))
    }
}

impl<S> Slot<S> {
    /// What a caller has to do now. [`Step::Lead`] is given to one caller at a time.
    pub(crate) fn enter(&self, min_validity: Option<u64>, now: i64, pid: u32) -> Step {
        let mut state = self.lock();
        let freshness = state.held.as_ref().map_or(Freshness::Unusable, |held| {
            decide(held, state.asked_on, min_validity, now)
        });
        let is_under_way = state.flight == Some(pid);
        match (freshness, state.held.clone()) {
            (Freshness::Fresh, Some(held)) => Step::Use(held),
            // Somebody asks already, and there is a good one: nobody has to wait.
            (Freshness::RefreshSoon, Some(held)) if is_under_way => Step::Use(held),
            _ if is_under_way => Step::Wait(state.landed),
            (freshness, held) => {
                state.flight = Some(pid);
                Step::Lead(held.filter(|_| freshness == Freshness::RefreshSoon))
            }
        }
    }

    /// The end of the request that [`Slot::enter`] let this caller make.
    pub(crate) fn land(&self, outcome: Outcome, now: i64) {
        let mut state = self.lock();
        if let Ok(token) = &outcome {
            state.held = Some(Arc::clone(token));
        }
        state.asked_on = Some(now);
        state.flight = None;
        state.landed = state.landed.wrapping_add(1);
        state.outcome = Some(outcome);
    }

    /// Keeps a token that came outside the usual way, by a claims challenge.
    pub(crate) fn keep(&self, token: &Arc<TokenResponse>) {
        self.lock().held = Some(Arc::clone(token));
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in a locked section panics; were it to, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_for(&self, request: &TokenRequest) -> bool {
        self.target == request.target
            && self.identity == request.identity
            && self.tenant_id == request.tenant_id
    }
}

impl State {
    /// The outcome of the request a caller waited for, once it has ended.
    pub(crate) fn outcome_after(&self, landed: u64) -> Option<Outcome> {
        if self.landed == landed {
            return None;
        }
        self.outcome.clone()
    }
}

/// Makes room: what has no valid token goes first, then what ends first. A request under way keeps its slot alive by
/// itself.
fn evict<S>(slots: &mut HashMap<u64, Vec<Arc<Slot<S>>>>, now: i64) {
    let ends = |slot: &Slot<S>| {
        slot.lock()
            .held
            .as_ref()
            .map_or(i64::MIN, |held| held.expires_on)
    };
    for bucket in slots.values_mut() {
        bucket.retain(|slot| ends(slot) > now);
    }
    slots.retain(|_, bucket| !bucket.is_empty());
    if slots.values().map(Vec::len).sum::<usize>() < MAX_SLOTS {
        return;
    }
    let first = slots
        .iter()
        .flat_map(|(hash, bucket)| bucket.iter().map(move |slot| (ends(slot), *hash)))
        .min();
    if let Some((end, hash)) = first
        && let Some(bucket) = slots.get_mut(&hash)
    {
        bucket.retain(|slot| ends(slot) != end);
    }
}

/// Seconds between two requests for a newer token while the held one is still valid.
const REFRESH_PAUSE: i64 = 5;

/// More distinct tokens than any job has; beyond it something makes up resources.
const MAX_SLOTS: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jobcred_wire::{NamedIdentity, Secret, Target, TokenRequest, TokenResponse};
    use proptest::prelude::*;

    use super::{Cache, Freshness, MAX_SLOTS, Step, decide};
    use crate::Error;

    fn token(refresh_on: i64, expires_on: i64) -> TokenResponse {
        TokenResponse {
            access_token: Secret::from("t"),
            token_type: "Bearer".to_owned(),
            expires_on,
            refresh_on,
            resource: "r".to_owned(),
            client_id: None,
        }
    }

    fn request(resource: &str) -> TokenRequest {
        TokenRequest::new(Target::Resource(resource.to_owned()))
    }

    #[test]
    fn when_a_held_token_is_handed_out() {
        use Freshness::{Fresh, RefreshSoon, Unusable};
        for (now, asked_on, min_validity, expected) in [
            (0, None, None, Fresh),
            (99, None, None, Fresh),
            (100, None, None, RefreshSoon),
            (100, Some(96), None, Fresh),
            (100, Some(95), None, RefreshSoon),
            // A clock that was set back must not stop refreshing.
            (100, Some(5_000), None, RefreshSoon),
            (199, None, None, RefreshSoon),
            (200, Some(200), None, Unusable),
            (0, None, Some(200), Fresh),
            (1, None, Some(200), Unusable),
            (0, None, Some(u64::MAX), Unusable),
            (i64::MAX, None, None, Unusable),
            (i64::MIN, Some(i64::MAX), None, Fresh),
        ] {
            assert_eq!(
                decide(&token(100, 200), asked_on, min_validity, now),
                expected,
                "now {now}, asked {asked_on:?}, needs {min_validity:?}"
            );
        }
    }

    #[test]
    fn one_caller_leads_and_the_others_wait_for_its_outcome() {
        let cache = Cache::<()>::default();
        let slot = cache.slot(&request("r"), 0);
        assert!(matches!(slot.enter(None, 0, 1), Step::Lead(None)));
        let Step::Wait(landed) = slot.enter(None, 0, 1) else {
            panic!("a second caller leads");
        };
        assert!(slot.lock().outcome_after(landed).is_none());
        slot.land(Err(Error::timeout()), 0);
        assert!(slot.lock().outcome_after(landed).unwrap().is_err());
        assert!(
            matches!(slot.enter(None, 0, 1), Step::Lead(None)),
            "an error is not remembered"
        );
        slot.land(Ok(Arc::new(token(100, 200))), 0);
        assert!(matches!(slot.enter(None, 0, 1), Step::Use(_)));
        assert!(cache.hit(&request("r"), 0).is_some());
        assert!(cache.hit(&request("other"), 0).is_none());
    }

    #[test]
    fn nobody_waits_for_a_refresh_and_a_failed_one_takes_nothing_away() {
        let slot = Cache::<()>::default().slot(&request("r"), 0);
        slot.enter(None, 0, 1);
        slot.land(Ok(Arc::new(token(100, 200))), 0);
        assert!(matches!(slot.enter(None, 100, 1), Step::Lead(Some(_))));
        assert!(matches!(slot.enter(None, 100, 1), Step::Use(_)));
        slot.land(Err(Error::timeout()), 100);
        assert!(matches!(slot.enter(None, 104, 1), Step::Use(_)));
        assert!(matches!(slot.enter(None, 105, 1), Step::Lead(Some(_))));
    }

    #[test]
    fn a_forked_child_does_not_wait_for_its_parents_request() {
        let slot = Cache::<()>::default().slot(&request("r"), 0);
        assert!(matches!(slot.enter(None, 0, 1), Step::Lead(None)));
        assert!(matches!(slot.enter(None, 0, 2), Step::Lead(None)));
    }

    #[test]
    fn identity_target_and_tenant_are_told_apart() {
        let cache = Cache::<()>::default();
        let mut requests = vec![
            request("r"),
            TokenRequest::new(Target::Scope("r".to_owned())),
        ];
        for identity in [
            NamedIdentity::ClientId("r".to_owned()),
            NamedIdentity::ObjectId("r".to_owned()),
            NamedIdentity::ResourceId("r".to_owned()),
        ] {
            requests.push(TokenRequest {
                identity: Some(identity),
                ..request("r")
            });
        }
        requests.push(TokenRequest {
            tenant_id: Some("r".to_owned()),
            ..request("r")
        });
        for (number, request) in (1i64..).zip(&requests) {
            cache
                .slot(request, 0)
                .land(Ok(Arc::new(token(100, 1000 + number))), 0);
        }
        for (number, request) in (1i64..).zip(&requests) {
            assert_eq!(cache.hit(request, 0).unwrap().expires_on, 1000 + number);
        }
    }

    #[test]
    fn a_flood_of_resources_is_bounded_and_spares_the_longest_lived() {
        let cache = Cache::<()>::default();
        cache
            .slot(&request("good"), 0)
            .land(Ok(Arc::new(token(9_000_000, 9_999_999))), 0);
        for number in 0..1000i64 {
            let slot = cache.slot(&request(&number.to_string()), 0);
            if number % 2 == 0 {
                slot.land(Ok(Arc::new(token(500, 1000 + number))), 0);
            }
        }
        let count: usize = cache.slots.read().unwrap().values().map(Vec::len).sum();
        assert!(count <= MAX_SLOTS, "{count}");
        assert!(cache.hit(&request("good"), 0).is_some());
    }

    proptest! {
        #[test]
        fn never_an_expired_token(
            refresh_on in any::<i64>(),
            expires_on in any::<i64>(),
            asked_on in proptest::option::of(any::<i64>()),
            needed in proptest::option::of(any::<u64>()),
            now in any::<i64>(),
        ) {
            let freshness = decide(&token(refresh_on, expires_on), asked_on, needed, now);
            if freshness != Freshness::Unusable {
                prop_assert!(expires_on > now);
                prop_assert!(i128::from(expires_on) - i128::from(now) >= i128::from(needed.unwrap_or(0)) || expires_on.saturating_sub(now) == i64::MAX);
            }
        }
    }
}
