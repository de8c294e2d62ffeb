//! What others say the time is, and how far this machine's clock is from that.

use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use super::UnixTime;

/// Clocks further apart than this are worth a word: Azure's services allow for five minutes.
const NOTABLE: Duration = Duration::from_secs(5 * 60);
/// 2025-01-01. No clock of a machine that runs this program can rightly show less.
const EARLIEST: UnixTime = UnixTime::from_secs(1_735_689_600);
/// 2060-01-01. Nobody will run this program then.
const LATEST: UnixTime = UnixTime::from_secs(2_840_140_800);

/// What is wrong with this machine's clock. Its text is one sentence for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockFault {
    /// What the clock shows.
    now: UnixTime,
    off: Option<Off>,
}

/// By how much, and to which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Off {
    Behind(Duration),
    /// By the age of a token that may have been issued a while ago.
    BehindAtLeast(Duration),
    Ahead(Duration),
}

/// What was said of the time, and when that was.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// By a server, of its own clock.
    date: Option<(UnixTime, Instant)>,
    /// By a token, of when it was issued: it is not earlier now.
    issued: Option<(UnixTime, Instant)>,
    /// Whether the fault has been said.
    pub(super) is_said: bool,
}

impl Told {
    pub(super) fn note_date(&mut self, date: UnixTime, at: Instant) {
        self.date = Some((date, at));
    }

    pub(super) fn note_issued(&mut self, issued: UnixTime, at: Instant) {
        if self.issued.is_none_or(|known| ago(known, at) < issued) {
            self.issued = Some((issued, at));
        }
    }

    /// What is wrong with a clock that shows `now`.
    pub(super) fn fault(&self, now: UnixTime, at: Instant) -> Option<ClockFault> {
        let date = self.date.map(|date| ago(date, at));
        let issued = self.issued.map(|issued| ago(issued, at));
        let is_notable = |off: &Duration| *off > NOTABLE;
        let behind = date.map(|date| date.since(now)).filter(is_notable);
        let ahead = date.map(|date| now.since(date)).filter(is_notable);
        // A server on this machine has the same clock; whoever issued the token has not.
        let at_least = issued.map(|issued| issued.since(now)).filter(is_notable);
        let off = match (behind, at_least) {
            (Some(behind), at_least) if at_least.is_none_or(|least| least <= behind + NOTABLE) => {
                Some(Off::Behind(behind))
            }
            (_, Some(least)) => Some(Off::BehindAtLeast(least)),
            _ => ahead.map(Off::Ahead),
        };
        let is_impossible = now < EARLIEST || now >= LATEST;
        (off.is_some() || is_impossible).then_some(ClockFault { now, off })
    }
}

/// A time that was told a while ago, as of `at`.
fn ago((time, told): (UnixTime, Instant), at: Instant) -> UnixTime {
    time + at.saturating_duration_since(told)
}

impl fmt::Display for ClockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this machine's clock says ")?;
        match OffsetDateTime::from_unix_timestamp(self.now.as_secs()) {
            Ok(now) => write!(
                f,
                "{}-{:02}-{:02} {:02}:{:02} UTC",
                now.year(),
                u8::from(now.month()),
                now.day(),
                now.hour(),
                now.minute()
            )?,
            Err(_) => write!(f, "{} s since 1970", self.now.as_secs())?,
        }
        match self.off {
            None => {}
            Some(Off::Behind(off)) => write!(f, ", {} behind the issuer's", Span(off))?,
            Some(Off::BehindAtLeast(off)) => {
                write!(f, ", at least {} behind the issuer's", Span(off))?;
            }
            Some(Off::Ahead(off)) => write!(f, ", {} ahead of the issuer's", Span(off))?,
        }
        f.write_str(": the life of tokens cannot be judged by it, and TLS may fail; set the clock")
    }
}

/// A time in its largest unit.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..7_200 => write!(f, "{} min", seconds / 60),
            7_200..172_800 => write!(f, "{} h", seconds / 3_600),
            _ => write!(f, "{} days", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Told;
    use crate::platform::UnixTime;

    /// 2026-07-01.
    const NOW: i64 = 1_782_864_000;

    fn said(told: &Told, clock: i64, at: Instant) -> Option<String> {
        let fault = told.fault(UnixTime::from_secs(clock), at)?;
        Some(fault.to_string().split_once(": ").unwrap().0.to_owned())
    }

    #[test]
    fn an_impossible_time_needs_no_witness() {
        let (told, at) = (Told::default(), Instant::now());
        assert_eq!(said(&told, NOW, at), None);
        for (clock, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (4_102_444_800, "2100-01-01 00:00 UTC"),
            (i64::MAX / 1000, "9223372036854775 s since 1970"),
        ] {
            let text = format!("this machine's clock says {text}");
            assert_eq!(said(&told, clock, at), Some(text));
        }
    }

    #[test]
    fn a_server_tells_how_far_off_the_clock_is_until_it_is_set() {
        let (mut told, at) = (Told::default(), Instant::now());
        told.note_date(UnixTime::from_secs(NOW), at);
        for (off, text) in [
            (-300, None),
            (300, None),
            (-360, Some("6 min behind")),
            (86_400, Some("24 h ahead of")),
            (-NOW, Some("20635 days behind")),
        ] {
            let said = said(&told, NOW + off, at);
            let text = text.map(|text| format!(", {text} the issuer's"));
            assert!(
                match (&said, &text) {
                    (Some(said), Some(text)) => said.ends_with(text),
                    (None, None) => true,
                    _ => false,
                },
                "{off}: {said:?}"
            );
        }
        // An hour later, by both clocks.
        let later = at + Duration::from_secs(3_600);
        assert_eq!(said(&told, NOW + 3_600, later), None);
        assert!(said(&told, NOW, later).is_some());
    }

    #[test]
    fn a_token_that_was_issued_later_than_now_tells_how_much_at_least() {
        let (mut told, at) = (Told::default(), Instant::now());
        let day = 86_400;
        told.note_issued(UnixTime::from_secs(NOW), at);
        // An older one tells less.
        told.note_issued(UnixTime::from_secs(NOW - day), at);
        assert_eq!(said(&told, NOW + 2 * day, at), None);
        // A server on this machine knows no better.
        told.note_date(UnixTime::from_secs(NOW - 3 * day), at);
        let text = said(&told, NOW - 3 * day, at).unwrap();
        assert!(
            text.ends_with(", at least 3 days behind the issuer's"),
            "{text}"
        );
        told.note_date(UnixTime::from_secs(NOW + day), at);
        let text = said(&told, NOW - 3 * day, at).unwrap();
        assert!(text.ends_with(", 4 days behind the issuer's"), "{text}");
    }
}
