//! The three requests of a check: a listing of one entry, a new empty file, and its end.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use jobcred_wire::Secret;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::{Location, Service};
use crate::platform::UnixTime;
use crate::transport::{InvalidSecret, Limits, Request, Route};

/// Any version since 2019-12-12 answers a missing or wrong token with a challenge that names the tenant.
const VERSION: &str = "2021-12-02";
/// The form of a date in HTTP (RFC 9110 section 5.6.7).
const HTTP_DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// How long and how much one request may take. Somebody is waiting at a terminal.
pub const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    total: Duration::from_secs(15),
    max_body: 256 * 1024,
};

/// What the probe's file is called; random digits follow.
pub const PROBE_PREFIX: &str = "jobcred-check-";

/// Lists one entry under the path.
pub fn list(location: &Location, token: &Secret, now: UnixTime) -> Result<Request, InvalidSecret> {
    let mut url = location.url("");
    {
        let mut query = url.query_pairs_mut();
        match location.service() {
            Service::Blob => {
                query
                    .append_pair("restype", "container")
                    .append_pair("comp", "list")
                    .append_pair("maxresults", "1");
                if !location.path().is_empty() {
                    query.append_pair("prefix", &location.plain_path());
                }
            }
            Service::Dfs => {
                query
                    .append_pair("resource", "filesystem")
                    .append_pair("recursive", "false")
                    .append_pair("maxResults", "1");
                let path = location.plain_path();
                let path = path.trim_matches('/');
                if !path.is_empty() {
                    query.append_pair("directory", path);
                }
            }
        }
    }
    prepared(Method::GET, url, token, now)
}

/// The path of a file that is the probe's own: under the location's path, with a name that nothing else has.
#[must_use]
pub fn probe_path(location: &Location, random: &[u8]) -> String {
    use std::fmt::Write as _;
    let folder = location.path().trim_matches('/');
    let mut path = String::new();
    if !folder.is_empty() {
        path.push_str(folder);
        path.push('/');
    }
    path.push_str(PROBE_PREFIX);
    for byte in random {
        // Writing to a String cannot fail.
        let _ = write!(path, "{byte:02x}");
    }
    path
}

/// Makes an empty file at `path`, and only if nothing is there.
pub fn create(
    location: &Location,
    path: &str,
    token: &Secret,
    now: UnixTime,
) -> Result<Request, InvalidSecret> {
    let mut url = location.url(path);
    if location.service() == Service::Dfs {
        url.query_pairs_mut().append_pair("resource", "file");
    }
    let request = prepared(Method::PUT, url, token, now)?
        .with_header(http::header::IF_NONE_MATCH, HeaderValue::from_static("*"))
        // The service wants to be told that there is nothing (411 else).
        .with_header(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(match location.service() {
        Service::Blob => request.with_header(
            HeaderName::from_static("x-ms-blob-type"),
            HeaderValue::from_static("BlockBlob"),
        ),
        Service::Dfs => request,
    })
}

/// Deletes the file at `path`; with an `etag`, only if it is still the one that was made.
pub fn delete(
    location: &Location,
    path: &str,
    etag: Option<&str>,
    token: &Secret,
    now: UnixTime,
) -> Result<Request, InvalidSecret> {
    let request = prepared(Method::DELETE, location.url(path), token, now)?;
    Ok(
        match etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            Some(etag) => request.with_header(http::header::IF_MATCH, etag),
            None => request,
        },
    )
}

fn prepared(
    method: Method,
    url: url::Url,
    token: &Secret,
    now: UnixTime,
) -> Result<Request, InvalidSecret> {
    let bearer = Secret::new(format!("Bearer {}", token.expose()));
    let date = OffsetDateTime::from_unix_timestamp(now.as_secs())
        .ok()
        .and_then(|date| date.format(HTTP_DATE).ok())
        .and_then(|date| HeaderValue::from_str(&date).ok());
    let request = Request::new(method, url, Route::Proxied)
        .with_limits(LIMITS)
        .with_secret_header(http::header::AUTHORIZATION, &bearer)?
        .with_header(
            HeaderName::from_static("x-ms-version"),
            HeaderValue::from_static(VERSION),
        );
    Ok(match date {
        Some(date) => request.with_header(HeaderName::from_static("x-ms-date"), date),
        None => request,
    })
}

#[cfg(test)]
mod tests {
    use super::probe_path;
    use crate::storage::{Hints, Location};

    #[test]
    fn the_probe_lies_under_the_path() {
        for (url, path) in [
            (
                "https://acct.blob.core.windows.net/data",
                "jobcred-check-01ff",
            ),
            (
                "https://acct.blob.core.windows.net/data/a%20b/",
                "a%20b/jobcred-check-01ff",
            ),
            (
                "https://acct.dfs.core.windows.net/data/a/b",
                "a/b/jobcred-check-01ff",
            ),
        ] {
            let location = Location::parse(url, &Hints::default()).unwrap();
            assert_eq!(probe_path(&location, &[1, 255]), path);
        }
    }
}
