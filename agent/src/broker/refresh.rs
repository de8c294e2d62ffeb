//! When a token is renewed and how long to wait after a try that brought nothing: functions of values alone, no clock.

use std::time::Duration;

use crate::platform::UnixTime;

/// From this life on, the half of it is the time to renew; the platforms' own tokens live 24 hours.
const LONG_LIFE: Duration = Duration::from_secs(2 * 3600);
/// Shorter ones are renewed this long before they end, which is what every SDK treats as "nearly expired".
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// No plan reaches further than this, so that an absurd expiry heals. Real ones stay below: a token of the longest life
/// known (28 hours) is renewed after 14.
const FURTHEST: Duration = Duration::from_secs(24 * 3600);
/// The broker renews earlier than it tells callers by a twentieth to a tenth of the way, at most by this, so that a
/// caller that asks again when told finds a new token and agents started together part.
const MOST_EARLY: Duration = Duration::from_secs(5 * 60);

/// The pause after a failed try is at least the smaller of this and a quarter of the life left.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// Pauses grow up to this, or a quarter of the life left.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// The shortest pause there is, also for a token in its last second.
pub(super) const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// Pauses without a valid token grow up to this.
const LONGEST_PAUSE_WITHOUT: Duration = Duration::from_secs(45);

/// How a token stands at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing to do.
    Fresh,
    /// Valid, and due for renewal.
    RefreshSoon,
    /// Not valid any more; never handed out.
    Expired,
}

/// When a token is to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshPlan {
    /// When the broker renews it: before `told`.
    pub refresh_on: UnixTime,
    /// When callers are told to ask again: what the server said, or the rule.
    pub told: UnixTime,
}

/// How a token that is to be renewed at `refresh_on` and ends at `expires_on` stands at `now`.
#[must_use]
pub fn freshness(now: UnixTime, refresh_on: UnixTime, expires_on: UnixTime) -> Freshness {
    if now >= expires_on {
        Freshness::Expired
    } else if now >= refresh_on {
        Freshness::RefreshSoon
    } else {
        Freshness::Fresh
    }
}

/// Plans the renewal of a token got at `obtained_on`: at the server's time if it gave a sensible one, else at half life
/// for lives of two hours and more, else at the later of five minutes before the end and three quarters of the life.
/// `jitter` is a fraction in 65536ths.
///
/// A server's time that is not between the two others says nothing (a platform that answers from its own cache may
/// repeat a time that has passed), so the rule decides then.
#[must_use]
pub fn refresh_plan(
    obtained_on: UnixTime,
    expires_on: UnixTime,
    server: Option<UnixTime>,
    jitter: u16,
) -> RefreshPlan {
    let life = expires_on.since(obtained_on);
    let planned = match server {
        Some(time) if time > obtained_on && time < expires_on => time.since(obtained_on),
        _ if life >= LONG_LIFE => life / 2,
        _ => life.saturating_sub(MARGIN).max(life / 4 * 3),
    }
    .min(FURTHEST);
    let base = (planned / 20).min(MOST_EARLY / 2);
    let early = base + share(base, jitter);
    RefreshPlan {
        refresh_on: obtained_on + planned.saturating_sub(early),
        told: obtained_on + planned,
    }
}

/// How long the background waits after the `tries`th try in a row that brought no newer token, with `left` of the life of
/// the one held: at least the smaller of 30 s and a quarter of it, doubling with every try. `jitter` is a fraction in
/// 65536ths and only ever lengthens the pause, by a quarter at most.
#[must_use]
pub fn back_off(left: Duration, tries: u32, jitter: u16) -> Duration {
    let first = first_pause(left);
    let longest = if left.is_zero() {
        LONGEST_PAUSE_WITHOUT
    } else {
        LONGEST_PAUSE.min(left / 4).max(first)
    };
    let doublings = tries.saturating_sub(1).min(16);
    let pause = first.saturating_mul(1 << doublings).min(longest);
    pause + share(pause / 4, jitter)
}

/// The smaller of 30 s and a quarter of `left`, and never less than a second: how long at least nobody, neither the
/// background nor a caller, asks upstream again while there is a valid token.
#[must_use]
pub fn first_pause(left: Duration) -> Duration {
    FIRST_PAUSE.min(left / 4).max(SHORTEST_PAUSE)
}

fn share(span: Duration, jitter: u16) -> Duration {
    // Spans are minutes at most, so neither step comes near the limits of its type.
    span / (1 << 16) * u32::from(jitter)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{
        FIRST_PAUSE, Freshness, LONGEST_PAUSE, back_off, first_pause, freshness, refresh_plan,
    };
    use crate::platform::UnixTime;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_secs(NOW + seconds)
    }

    #[test]
    fn the_rule_in_numbers() {
        for (life, server, told) in [
            (86_400, None, 43_200),
            (7_200, None, 3_600),
            (7_199, None, 6_899),
            (3_600, None, 3_300),
            (1_200, None, 900),
            (600, None, 450),
            (4, None, 3),
            (86_400, Some(1_000), 1_000),
            (3_600, Some(3_599), 3_599),
            // Times that say nothing: in the past, at once, at or after the end.
            (3_600, Some(-5), 3_300),
            (3_600, Some(0), 3_300),
            (3_600, Some(3_600), 3_300),
            (3_600, Some(9_999), 3_300),
            // Nothing is held for a century.
            (3_000_000_000, None, 86_400),
            (3_000_000_000, Some(2_000_000_000), 86_400),
            // Ended before it came.
            (-10, None, 0),
        ] {
            let plan = refresh_plan(at(0), at(life), server.map(at), 0);
            assert_eq!(plan.told, at(told), "{life} {server:?}");
        }
    }

    #[test]
    fn the_broker_is_earlier_than_its_callers() {
        let earliest = refresh_plan(at(0), at(3_600), None, u16::MAX).refresh_on;
        let latest = refresh_plan(at(0), at(3_600), None, 0).refresh_on;
        assert_eq!(latest, at(3_300 - 150));
        assert!(
            earliest < at(3_300 - 295) && earliest >= at(3_300 - 300),
            "{earliest:?}"
        );
    }

    #[test]
    fn freshness_at_the_edges() {
        for (now, expected) in [
            (9, Freshness::Fresh),
            (10, Freshness::RefreshSoon),
            (19, Freshness::RefreshSoon),
            (20, Freshness::Expired),
        ] {
            assert_eq!(freshness(at(now), at(10), at(20)), expected);
        }
    }

    #[test]
    fn back_off_in_numbers() {
        let pauses = |left: u64| -> Vec<u64> {
            (1..=6)
                .map(|tries| back_off(Duration::from_secs(left), tries, 0).as_secs())
                .collect()
        };
        assert_eq!(pauses(40_000), [30, 60, 120, 240, 300, 300]);
        assert_eq!(pauses(400), [30, 60, 100, 100, 100, 100]);
        assert_eq!(pauses(40), [10; 6]);
        assert_eq!(pauses(2), [1; 6]);
        assert_eq!(pauses(0), [1, 2, 4, 8, 16, 32]);
        assert_eq!(back_off(Duration::ZERO, u32::MAX, 0).as_secs(), 45);
    }

    fn any_time() -> impl Strategy<Value = UnixTime> {
        prop_oneof![
            any::<i64>().prop_map(UnixTime::from_millis),
            (-100_000_i64..200_000_000).prop_map(|m| UnixTime::from_millis(NOW * 1000 + m)),
        ]
    }

    proptest! {
        #[test]
        fn a_renewal_lies_between_arrival_and_end(
            obtained in any_time(),
            expires in any_time(),
            server in proptest::option::of(any_time()),
            jitter: u16,
        ) {
            let plan = refresh_plan(obtained, expires, server, jitter);
            prop_assert!(plan.refresh_on >= obtained);
            prop_assert!(plan.refresh_on <= plan.told);
            prop_assert!(plan.told <= expires.max(obtained));
        }

        #[test]
        fn tiny_lives_leave_time_to_renew(millis in 20_i64..10_000, jitter: u16) {
            let expires = at(0) + Duration::from_millis(millis.unsigned_abs());
            let plan = refresh_plan(at(0), expires, None, jitter);
            prop_assert!(plan.refresh_on > at(0));
            prop_assert!(plan.refresh_on < expires);
        }

        #[test]
        fn more_jitter_is_never_later_and_a_shift_of_all_times_shifts_the_plan(
            life in 0_i64..100_000_000,
            server in proptest::option::of(0_i64..100_000_000),
            jitter: u16,
            less: u16,
            shift in 0_i64..1_000_000_000,
        ) {
            let plan = |jitter, shift: i64| {
                let time = |millis: i64| UnixTime::from_millis(NOW * 1000 + millis + shift);
                refresh_plan(time(0), time(life), server.map(time), jitter)
            };
            prop_assert!(plan(jitter, 0).refresh_on <= plan(jitter.min(less), 0).refresh_on);
            let moved = plan(jitter, shift).refresh_on.as_millis();
            prop_assert_eq!(moved, plan(jitter, 0).refresh_on.as_millis() + shift);
        }

        #[test]
        fn a_longer_life_under_one_rule_is_never_renewed_earlier(
            a in 0_i64..200_000_000, b in 0_i64..200_000_000, jitter: u16,
        ) {
            let (short, long) = (a.min(b), a.max(b));
            // At two hours the rule changes from "nearly at the end" to "at half life", which is earlier on purpose.
            prop_assume!((short < 7_200_000) == (long < 7_200_000));
            let plan = |millis: i64| {
                refresh_plan(at(0), at(0) + Duration::from_millis(millis.unsigned_abs()), None, jitter)
            };
            prop_assert!(plan(short).told <= plan(long).told);
            // A millisecond of rounding in the jitter.
            let slack = Duration::from_millis(1);
            prop_assert!(plan(short).refresh_on <= plan(long).refresh_on + slack);
        }

        #[test]
        fn back_off_keeps_its_floor_grows_and_ends(
            left in any::<u32>(), tries: u32, jitter: u16,
        ) {
            let left = Duration::from_millis(u64::from(left));
            let pause = back_off(left, tries, jitter);
            prop_assert!(pause >= Duration::from_secs(30).min(left / 4));
            prop_assert!(pause >= Duration::from_secs(1));
            prop_assert!(pause >= first_pause(left));
            prop_assert!(pause <= LONGEST_PAUSE * 5 / 4);
            prop_assert!(back_off(left, tries.saturating_add(1), 0) >= back_off(left, tries, 0));
            // Four pauses of the floor always fit into what is left, so there is always another try.
            prop_assume!(left > FIRST_PAUSE);
            prop_assert!(pause < left);
        }
    }
}
