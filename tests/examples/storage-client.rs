//! A job's program in Rust that keeps something in blob storage, with the Azure SDK and the job's own credential.
//!
//! Its arguments are the account's URL and a number of tokens (one when left out). It writes and reads until it has used
//! as many different ones, and prints one line of JSON: whose they were, and every status that the service answered. It
//! never prints a token.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::http::headers::{AUTHORIZATION, Headers};
use azure_core::http::{
    AsyncRawResponse, Body, ClientOptions, HttpClient, Request, RequestContent, RetryOptions,
    StatusCode, Transport, Url,
};
use azure_storage_blob::{BlobServiceClient, BlobServiceClientOptions};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jobcred_client::JobCredential;
use jobcred_tests::decode_claims;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How often it writes.
const PAUSE: Duration = Duration::from_millis(300);
/// When it gives up, should the tokens not change.
const LONGEST: Duration = Duration::from_secs(90);
/// What is told of a token.
const CLAIMS: [&str; 6] = ["oid", "tid", "appid", "aud", "idtyp", "jobcred_sandbox"];

type Failure = Box<dyn Error + Send + Sync>;

/// The SDK's way out: the workspace builds it without one of its own. Notes what goes over the wire.
#[derive(Debug)]
struct Wire {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    tokens: BTreeMap<String, Value>,
    statuses: BTreeMap<u16, usize>,
}

impl Wire {
    fn new() -> Result<Self, Failure> {
        let mut roots = rustls::RootCertStore::empty();
        // The system's, or those of SSL_CERT_FILE.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            seen: Mutex::default(),
        })
    }

    fn tokens_seen(&self) -> usize {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tokens
            .len()
    }

    fn note(&self, token: &str, status: u16) {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let name = digest
            .as_ref()
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let claims = decode_claims(token).unwrap_or_default();
        let told: Value = CLAIMS
            .into_iter()
            .map(|name| {
                (
                    name.to_owned(),
                    claims.get(name).cloned().unwrap_or_default(),
                )
            })
            .collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.tokens.insert(name, told);
        *seen.statuses.entry(status).or_default() += 1;
    }

    async fn exchange(&self, request: &Request) -> Result<AsyncRawResponse, Failure> {
        let mut outgoing = http::Request::builder()
            .method(request.method().as_ref())
            .uri(request.url().as_str());
        for (name, value) in request.headers().iter() {
            outgoing = outgoing.header(name.as_str(), value.as_str());
        }
        let body = match request.body() {
            Body::Bytes(bytes) => bytes.clone(),
            Body::SeekableStream(_) => return Err("streams are not sent here".into()),
        };
        let response = self.client.request(outgoing.body(Full::new(body))?).await?;
        let (head, body) = response.into_parts();
        let token = request
            .headers()
            .get_optional_str(&AUTHORIZATION)
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or("a request without a token")?;
        self.note(token, head.status.as_u16());
        let mut headers = Headers::new();
        for (name, value) in &head.headers {
            headers.insert(name.as_str().to_owned(), value.to_str()?.to_owned());
        }
        Ok(AsyncRawResponse::from_bytes(
            StatusCode::from(head.status.as_u16()),
            headers,
            body.collect().await?.to_bytes(),
        ))
    }
}

#[async_trait]
impl HttpClient for Wire {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.exchange(request)
            .await
            .map_err(|error| azure_core::Error::new(azure_core::error::ErrorKind::Io, error))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let url = Url::parse(&arguments.next().ok_or("the account's URL is wanted")?)?;
    let wanted: usize = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let wire = Arc::new(Wire::new()?);
    let options = BlobServiceClientOptions {
        client_options: ClientOptions {
            transport: Some(Transport::new(Arc::clone(&wire) as Arc<dyn HttpClient>)),
            retry: RetryOptions::none(),
            ..ClientOptions::default()
        },
        ..BlobServiceClientOptions::default()
    };
    let service = BlobServiceClient::new(url, Some(JobCredential::new()), Some(options))?;
    let container = service.blob_container_client(&format!("rust-{}", std::process::id()));
    container.create(None).await?;
    let blob = container.blob_client("checkpoint");
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < LONGEST {
        let text = format!("round {rounds}").into_bytes();
        blob.upload(RequestContent::from(text.clone()), None)
            .await?;
        let read = blob.download(None).await?.body.collect().await?;
        if read.as_ref() != text {
            return Err("the blob is not what was written".into());
        }
        rounds += 1;
        if wire.tokens_seen() >= wanted {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let seen = wire.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let report = json!({
        "client": "rust",
        "rounds": rounds,
        "statuses": seen.statuses,
        "tokens": seen.tokens,
    });
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}
