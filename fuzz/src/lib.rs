//! What the targets share: input that looks as it does on the wire, so that a person can read and write it, and what must hold of
//! every error.

use std::fmt::Debug;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jobcred::platform::UnixTime;
use jobcred::transport::Response;

/// What must not come back in an error. It is in the seeds and the dictionary, where secrets are and where none belong.
pub const SECRET: &str = "hunter2hunter2";
/// A token for the same use.
pub const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL3N0b3JhZ2UuYXp1cmUuY29tIn0.c2lnbmF0dXJlLW9mLTMyLWJ5dGVzLWF0LWxlYXN0";
/// When answers come: 2023-10-20 15:23:00 UTC.
pub const NOW: UnixTime = UnixTime::from_secs(1_697_815_380);

/// A line, headers, an empty line, and bytes. Lines end as they do in a text file.
#[derive(Debug)]
pub struct Message<'a> {
    /// The first line.
    pub line: &'a str,
    /// The headers.
    pub headers: HeaderMap,
    /// What follows.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// `None` where no HTTP library would have let it through.
    #[must_use]
    pub fn read(data: &'a [u8]) -> Option<Self> {
        let end = data.windows(2).position(|pair| pair == b"\n\n");
        let (head, body) = match end {
            Some(end) => (&data[..end], &data[end + 2..]),
            None => (data, &[][..]),
        };
        let mut lines = head.split(|byte| *byte == b'\n');
        let line = std::str::from_utf8(lines.next()?).ok()?;
        let mut headers = HeaderMap::new();
        for header in lines {
            let colon = header.iter().position(|byte| *byte == b':')?;
            let (name, value) = (&header[..colon], &header[colon + 1..]);
            headers.append(
                HeaderName::from_bytes(name).ok()?,
                HeaderValue::from_bytes(value.trim_ascii()).ok()?,
            );
        }
        Some(Self {
            line,
            headers,
            body,
        })
    }

    /// The same as an answer whose first line is a status. Redirects are never read.
    #[must_use]
    pub fn into_response(self) -> Option<Response> {
        let status = StatusCode::from_bytes(self.line.as_bytes()).ok()?;
        let is_read = (200..600).contains(&status.as_u16()) && !status.is_redirection();
        is_read.then(|| Response::new(status, self.headers, Bytes::copy_from_slice(self.body), NOW))
    }
}

/// Holds an error to what may be shown: one line, not long, and no secret, in words or in a log.
pub fn assert_fit_to_show(error: &(impl ToString + Debug)) {
    let text = error.to_string();
    assert!(!text.contains(char::is_control), "{text:?}");
    let both = format!("{text} {error:?}");
    assert!(both.len() < 4000, "{both}");
    assert!(!both.contains(SECRET), "{both}");
}

/// Whether eight characters of `secret` in a row are in `text`.
#[must_use]
pub fn quotes(text: &str, secret: &str) -> bool {
    let pieces = secret.as_bytes().windows(8);
    pieces
        .filter_map(|piece| std::str::from_utf8(piece).ok())
        .any(|piece| text.contains(piece))
}
