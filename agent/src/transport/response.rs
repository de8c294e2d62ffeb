//! What came back.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::platform::UnixTime;

/// The date form every HTTP sender must use (RFC 9110 section 5.6.7).
const HTTP_DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);
/// No wait is believed beyond this.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// An answer that is no redirect. Its `Debug` shows neither headers nor body.
#[derive(Clone)]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    date: Option<UnixTime>,
    retry_after: Option<Duration>,
}

impl Response {
    /// `now` turns a date in `Retry-After` into a wait when the answer has no `Date` of its own.
    #[must_use]
    pub fn new(status: StatusCode, headers: HeaderMap, body: Bytes, now: UnixTime) -> Self {
        let date = text(&headers, http::header::DATE.as_str()).and_then(read_date);
        let retry_after = read_retry_after(&headers, date.unwrap_or(now));
        Self {
            status,
            headers,
            body,
            date,
            retry_after,
        }
    }

    /// The status; never 3xx when it came from the transport.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers. They may hold secrets.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The whole body. It may hold secrets.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The sender's wall time, where it told.
    #[must_use]
    pub fn date(&self) -> Option<UnixTime> {
        self.date
    }

    /// How long the sender asks to wait, at most a day.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The standard header in both of its forms, and the two in milliseconds that Azure services send.
fn read_retry_after(headers: &HeaderMap, now: UnixTime) -> Option<Duration> {
    let millis = ["retry-after-ms", "x-ms-retry-after-ms"]
        .iter()
        .find_map(|name| text(headers, name)?.parse().ok())
        .map(Duration::from_millis);
    let standard = || {
        let value = text(headers, "retry-after")?;
        value
            .parse()
            .ok()
            .map(Duration::from_secs)
            .or_else(|| read_date(value).map(|until| until.since(now)))
    };
    millis.or_else(standard).map(|wait| wait.min(LONGEST_WAIT))
}

fn read_date(text: &str) -> Option<UnixTime> {
    let date = PrimitiveDateTime::parse(text, HTTP_DATE).ok()?;
    Some(UnixTime::from_secs(date.assume_utc().unix_timestamp()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

    use super::Response;
    use crate::platform::UnixTime;

    fn answer(headers: &[(&'static str, &'static str)]) -> Response {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        // 1994-11-06 08:49:37 UTC.
        let now = UnixTime::from_secs(784_111_777);
        Response::new(StatusCode::TOO_MANY_REQUESTS, headers, Bytes::new(), now)
    }

    #[test]
    fn every_form_of_retry_after() {
        for (headers, wait) in [
            (&[("retry-after", "7")][..], Some(7_000)),
            (&[("retry-after", " 7 ")], Some(7_000)),
            (&[("retry-after", "0")], Some(0)),
            (
                &[("retry-after-ms", "250"), ("retry-after", "9")],
                Some(250),
            ),
            (&[("x-ms-retry-after-ms", "1500")], Some(1_500)),
            (
                &[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")],
                Some(10_000),
            ),
            (&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")], Some(0)),
            // The sender's own clock counts when it is given.
            (
                &[
                    ("date", "Sun, 06 Nov 1994 07:00:00 GMT"),
                    ("retry-after", "Sun, 06 Nov 1994 07:00:05 GMT"),
                ],
                Some(5_000),
            ),
            (&[("retry-after", "99999999999999")], Some(86_400_000)),
            (&[("retry-after", "-3")], None),
            (&[("retry-after", "soon")], None),
            (&[("retry-after", "1.5")], None),
            (&[], None),
        ] {
            assert_eq!(
                answer(headers).retry_after(),
                wait.map(Duration::from_millis),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn debug_shows_neither_headers_nor_body() {
        let response = Response::new(
            StatusCode::OK,
            HeaderMap::from_iter([(
                HeaderName::from_static("x"),
                HeaderValue::from_static("hidden"),
            )]),
            Bytes::from_static(b"hidden"),
            UnixTime::default(),
        );
        assert!(!format!("{response:?}").contains("hidden"));
    }
}
