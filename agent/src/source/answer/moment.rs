//! Points in time and lifetimes, in every form endpoints send them.

use std::time::Duration;

use serde_json::Value;
use time::{Date, Month, PrimitiveDateTime, Time, UtcOffset};

use crate::platform::UnixTime;

/// A point in time: unix seconds as a number or as text, or a date. Not positive is as good as absent.
pub(super) fn unix_time(value: &Value) -> Option<UnixTime> {
    let seconds = number(value).or_else(|| date(value.as_str()?.trim()))?;
    (seconds > 0).then(|| UnixTime::from_secs(seconds))
}

/// A lifetime: seconds as a number or as text; a negative one is none at all.
pub(super) fn life(value: Option<&Value>) -> Option<Duration> {
    number(value?).map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| {
                // `f64` would also take `nan`, `inf` and `1e9`.
                let plain = text
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
                whole(text.parse().ok().filter(|_| plain)?)
            })
        }
        _ => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the cast from f64 saturates, and what is out of range is refused or cut later"
)]
fn whole(number: f64) -> Option<i64> {
    number.is_finite().then(|| number.floor() as i64)
}

/// `06/20/2019 02:57:58 +00:00`, `1/16/2020 5:24:12 AM +00:00`, `2019-06-20 02:57:58`, `2019-06-20T02:57:58.123Z`.
/// Without an offset it is UTC.
fn date(text: &str) -> Option<i64> {
    if text.len() > 64 || !text.is_ascii() {
        return None;
    }
    let text = text.to_ascii_uppercase();
    let (day, rest) = text.split_once([' ', 'T'])?;
    let day = if day.contains('/') {
        let [month, day, year] = fields(day, '/')?;
        calendar(year, month, day)?
    } else {
        let [year, month, day] = fields(day, '-')?;
        calendar(year, month, day)?
    };
    let clock_end = rest
        .find(|character: char| !matches!(character, '0'..='9' | ':' | '.' | ','))
        .unwrap_or(rest.len());
    let (clock, rest) = rest.split_at(clock_end);
    let clock = clock.split(['.', ',']).next()?;
    let [hour, minute, second] = fields(clock, ':')?;
    let rest = rest.trim_start();
    let (hour, rest) = if let Some(rest) = rest.strip_prefix("AM") {
        (if hour == 12 { 0 } else { hour }, rest)
    } else if let Some(rest) = rest.strip_prefix("PM") {
        // Old documentation shows `00:00:00 PM`: hour 0 stays what it is, the earlier reading.
        (
            if (1..12).contains(&hour) {
                hour + 12
            } else {
                hour
            },
            rest,
        )
    } else {
        (hour, rest)
    };
    let time = Time::from_hms(
        u8::try_from(hour).ok()?,
        u8::try_from(minute).ok()?,
        u8::try_from(second).ok()?,
    )
    .ok()?;
    Some(
        PrimitiveDateTime::new(day, time)
            .assume_offset(offset(rest.trim())?)
            .unix_timestamp(),
    )
}

fn calendar(year: u16, month: u16, day: u16) -> Option<Date> {
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()
}

fn fields(text: &str, separator: char) -> Option<[u16; 3]> {
    let mut parts = text.split(separator).map(digits);
    let fields = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(fields)
}

fn digits(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn offset(text: &str) -> Option<UtcOffset> {
    if matches!(text, "" | "Z" | "UTC" | "GMT") {
        return Some(UtcOffset::UTC);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let rest = rest.replace(':', "");
    let (hours, minutes) = rest.split_at_checked(2)?;
    let hours = i8::try_from(digits(hours)?).ok()?;
    let minutes = if minutes.is_empty() {
        0
    } else {
        i8::try_from(digits(minutes)?).ok()?
    };
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{life, unix_time};

    fn seconds(value: &Value) -> Option<i64> {
        unix_time(value).map(crate::platform::UnixTime::as_secs)
    }

    #[test]
    fn every_form_of_a_point_in_time() {
        // 2019-06-20 02:57:58 UTC.
        let june = Some(1_560_999_478);
        for (value, expected) in [
            (json!(1_697_818_980), Some(1_697_818_980)),
            (json!("1697818980"), Some(1_697_818_980)),
            (json!(" 1697818980 "), Some(1_697_818_980)),
            (json!(1_697_818_980.9), Some(1_697_818_980)),
            (json!("1697818980.9"), Some(1_697_818_980)),
            (json!("06/20/2019 02:57:58 +00:00"), june),
            (json!("06/20/2019 02:57:58"), june),
            (json!("6/20/2019 2:57:58 AM +00:00"), june),
            (json!("1/16/2020 5:24:12 AM +00:00"), Some(1_579_152_252)),
            (json!("1/16/2020 5:24:12 PM +00:00"), Some(1_579_195_452)),
            (json!("1/16/2020 12:00:00 AM +00:00"), Some(1_579_132_800)),
            (json!("1/16/2020 12:00:00 PM +00:00"), Some(1_579_176_000)),
            (json!("09/14/2017 00:00:00 PM +00:00"), Some(1_505_347_200)),
            (json!("2019-06-20 02:57:58"), june),
            (json!("2019-06-20T02:57:58Z"), june),
            (json!("2019-06-20t02:57:58z"), june),
            (json!("2019-06-20T02:57:58.1234567Z"), june),
            (json!("2019-06-20T02:57:58.1234567+00:00"), june),
            (json!("2019-06-20T04:57:58+02:00"), june),
            (json!("2019-06-19T19:57:58-0700"), june),
            (json!("2019-06-20T02:57:58"), june),
            (json!("2019-06-20 02:57:58 UTC"), june),
            (json!(i64::MAX), Some(9_223_372_036_854_775)),
            (json!(""), None),
            (json!(0), None),
            (json!("0"), None),
            (json!(-5), None),
            (json!("-5"), None),
            (json!("NaN"), None),
            (json!("inf"), None),
            (json!("1e9"), None),
            (json!("tomorrow"), None),
            (json!("13/13/2019 02:57:58"), None),
            (json!("2019-06-20 25:57:58"), None),
            (json!("2019-06-20 02:57:58 PST"), None),
            (json!("2019-06-20T02:57:58+99:00"), None),
            (json!(null), None),
            (json!(true), None),
            (json!([1_697_818_980]), None),
            (json!({}), None),
        ] {
            assert_eq!(seconds(&value), expected, "{value}");
        }
    }

    #[test]
    fn every_form_of_a_lifetime() {
        for (value, expected) in [
            (json!(85702), Some(85_702)),
            (json!("86386"), Some(86_386)),
            (json!(3599.5), Some(3_599)),
            (json!(-1), Some(0)),
            (json!("-1"), Some(0)),
            (json!(""), None),
            (json!("NaN"), None),
            (json!(null), None),
            (json!([]), None),
        ] {
            assert_eq!(
                life(Some(&value)),
                expected.map(Duration::from_secs),
                "{value}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), number in any::<f64>()) {
            let _ = unix_time(&json!(text));
            let _ = unix_time(&json!(number));
            let _ = life(Some(&json!(number)));
        }

        #[test]
        fn nothing_like_a_date_panics(text in "[0-9]{1,5}[-/][0-9]{1,5}[-/][0-9]{1,5}[ T][0-9:.]{1,12} ?(AM|PM)? ?[-+Z0-9:]{0,8}") {
            let _ = unix_time(&json!(text));
        }
    }
}
