//! A wait in a test ends, and says what it was for.

use std::time::Duration;

use crate::waiting::{wait_at_most, wait_until};

#[test]
fn a_wait_ends_when_its_state_is_there() {
    let mut looks = 0;
    wait_until("three looks", || {
        looks += 1;
        looks == 3
    });
    assert_eq!(looks, 3);
}

#[test]
#[should_panic(expected = "not within 20ms: the impossible")]
fn a_wait_past_its_limit_fails_and_names_the_state() {
    wait_at_most(Duration::from_millis(20), "the impossible", || false);
}
