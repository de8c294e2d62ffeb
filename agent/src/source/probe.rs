//! The one bounded question whether the metadata service is there at all.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use url::Url;

use crate::strategy::ProbeResult;
use crate::transport::{Limits, Request, Route, Transport};

/// The token path without the header that a token needs: the service answers 400 at once, nobody gets a token, and any answer
/// shows that something is there. This is how the official SDKs probe.
const ADDRESS: &str = "http://169.254.169.254/metadata/identity/oauth2/token";

/// Asks once. Takes a second at most, which is what SDKs allow too.
pub async fn probe(transport: &Transport) -> ProbeResult {
    let Ok(url) = Url::parse(ADDRESS) else {
        return ProbeResult::NotMade {
            why: "its address cannot be read".to_owned(),
        };
    };
    let request = Request::get(url, Route::Direct).with_limits(Limits {
        connect: Duration::from_secs(1),
        total: Duration::from_secs(1),
        max_body: 64 * 1024,
    });
    let start = Instant::now();
    match transport.send(&request).await {
        // Docker Desktop answers in place of a service that is not there.
        Ok(response)
            if response.status() == StatusCode::FORBIDDEN
                && String::from_utf8_lossy(response.body()).contains("unreachable") =>
        {
            ProbeResult::NoAnswer {
                reason: "the container runtime's proxy answered that it is unreachable".to_owned(),
            }
        }
        Ok(response) => ProbeResult::Answered {
            status: response.status().as_u16(),
            ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        },
        Err(error) => ProbeResult::NoAnswer {
            reason: error.to_string(),
        },
    }
}
