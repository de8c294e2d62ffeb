//! The registry, alone and in front of a real one.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::client::{Answer, get_tls, post_tls, send};
use crate::waiting::wait_until;
use crate::{
    Acr, AcrOptions, Behavior, Clock, Mint, NULL_GUID, Principal, Secrets, TestCa, decode_claims,
};

const ACR: &str = "https://containerregistry.azure.net";
const ARM: &str = "https://management.azure.com/";

struct Setting {
    ca: TestCa,
    acr: Acr,
    mint: Mint,
}

impl Setting {
    fn new(options: AcrOptions) -> Self {
        let ca = TestCa::new().unwrap();
        let acr = Acr::start(options, &ca.usual_leaf().unwrap()).unwrap();
        Self {
            ca,
            acr,
            mint: Mint::new("entra", 3600, Clock::new(), Secrets::new()),
        }
    }

    fn url(&self, path: &str) -> String {
        self.acr.endpoint().url(path)
    }

    fn exchange(&self, audience: &str) -> Answer {
        let token = self.mint.issue(&Principal::application(), audience).token;
        let form = [
            ("grant_type", "access_token"),
            ("service", "myreg.azurecr.io"),
            ("access_token", &token),
        ];
        post_tls(&self.ca, &self.url("/oauth2/exchange"), &form)
    }

    fn refresh_token(&self) -> String {
        self.exchange(ACR).json()["refresh_token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn basic(&self, user: &str, password: &str, scope: &str) -> Answer {
        let url = self.url(&format!(
            "/oauth2/token?service=myreg.azurecr.io&scope={scope}&account={user}"
        ));
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        get_tls(&self.ca, &url, &[("authorization", &basic)])
    }
}

fn error_code(answer: &Answer) -> String {
    answer.json()["errors"][0]["code"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn the_challenge_names_realm_and_service() {
    let setting = Setting::new(AcrOptions::default());
    let answer = get_tls(&setting.ca, &setting.url("/v2/"), &[]);
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.header("www-authenticate").unwrap(),
        "Bearer realm=\"https://myreg.azurecr.io/oauth2/token\",service=\"myreg.azurecr.io\""
    );
    assert_eq!(error_code(&answer), "UNAUTHORIZED");
}

#[test]
fn an_entra_token_is_exchanged_and_nothing_else_is_said() {
    let setting = Setting::new(AcrOptions::default());
    let answer = setting.exchange(ACR);
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().len(), 1);
    assert!(answer.header("x-ms-correlation-request-id").is_some());
    let claims = decode_claims(body["refresh_token"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&claims["aud"], &claims["grant_type"]),
        (&"myreg.azurecr.io".into(), &"refresh_token".into())
    );
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        10_800
    );
    assert!(claims.get("aad_identity").is_none());
}

#[test]
fn the_arm_audience_is_taken_only_while_it_is_allowed() {
    let setting = Setting::new(AcrOptions::default());
    assert_eq!(setting.exchange(ARM).status, 200);
    setting.acr.update(|options| options.arm_allowed = false);
    let refused = setting.exchange(ARM);
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.json()["errors"][0]["message"],
        "token validation failed"
    );
    assert_eq!(setting.exchange(ACR).status, 200);
    assert_eq!(setting.exchange("https://storage.azure.com").status, 401);
    setting.mint.set_lifetime(-1);
    assert_eq!(setting.exchange(ACR).status, 401);
}

#[test]
fn a_registry_denies_throttles_and_keeps_out() {
    let setting = Setting::new(AcrOptions {
        denied: true,
        ..AcrOptions::default()
    });
    assert_eq!(error_code(&setting.exchange(ACR)), "DENIED");
    setting
        .acr
        .script()
        .push_on("/oauth2/exchange", Behavior::throttle(3));
    assert_eq!(get_tls(&setting.ca, &setting.url("/v2/"), &[]).status, 401);
    assert_eq!(setting.exchange(ACR).header("retry-after"), Some("3"));
    setting.acr.update(|options| options.firewalled = true);
    for answer in [
        setting.exchange(ACR),
        get_tls(&setting.ca, &setting.url("/v2/"), &[]),
    ] {
        assert_eq!(
            (answer.status, error_code(&answer).as_str()),
            (403, "DENIED")
        );
        assert!(answer.text().contains("127.0.0.1"));
    }
}

#[test]
fn access_tokens_are_had_in_every_documented_way() {
    let setting = Setting::new(AcrOptions {
        actions: vec!["pull".to_owned()],
        ..AcrOptions::default()
    });
    let refresh = setting.refresh_token();
    let url = setting.url("/oauth2/token");
    let scope = "repository:team/app:pull,push";
    let common = [("service", "myreg.azurecr.io"), ("scope", scope)];
    let posted = [
        vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.as_str()),
        ],
        vec![
            ("grant_type", "password"),
            ("username", NULL_GUID),
            ("password", &refresh),
        ],
    ]
    .map(|form| post_tls(&setting.ca, &url, &[&form[..], &common].concat()));
    for answer in posted
        .into_iter()
        .chain([setting.basic(NULL_GUID, &refresh, scope)])
    {
        assert_eq!(answer.status, 200, "{answer:?}");
        let claims = decode_claims(answer.json()["access_token"].as_str().unwrap()).unwrap();
        assert_eq!(claims["access"][0]["name"], "team/app");
        assert_eq!(claims["access"][0]["actions"], serde_json::json!(["pull"]));
        assert_eq!(
            claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
            4500
        );
    }
    assert_eq!(setting.basic("someone", &refresh, scope).status, 401);
    assert_eq!(setting.basic(NULL_GUID, "wrong", scope).status, 401);
}

#[test]
fn anybody_may_pull_where_the_registry_says_so() {
    let setting = Setting::new(AcrOptions::default());
    let form = [
        ("grant_type", "password"),
        ("service", "myreg.azurecr.io"),
        ("scope", "repository:a:pull,push"),
    ];
    let ask = || post_tls(&setting.ca, &setting.url("/oauth2/token"), &form);
    assert_eq!(ask().status, 401);
    setting.acr.update(|options| options.anonymous_pull = true);
    let claims = decode_claims(ask().json()["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(claims["access"][0]["actions"], serde_json::json!(["pull"]));
}

#[test]
fn an_abac_registry_marks_its_tokens_and_ignores_wildcards() {
    let setting = Setting::new(AcrOptions {
        abac: true,
        ..AcrOptions::default()
    });
    let refresh = setting.refresh_token();
    assert!(
        decode_claims(&refresh)
            .unwrap()
            .get("aad_identity")
            .is_some()
    );
    let answer = setting.basic(NULL_GUID, &refresh, "repository:*:*");
    let claims = decode_claims(answer.json()["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(claims["access"], serde_json::json!([]));
}

/// A distribution registry (Debian's `docker-registry`) behind the double, ended with the test.
struct RealRegistry(Child);

impl RealRegistry {
    fn start(acr: &Acr, directory: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = acr.write_registry_config(directory, port).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry is needed for this test: {error}"));
        let mut registry = Self(child);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait_until("docker-registry accepts connections", || {
            let ended = registry.0.try_wait().unwrap();
            assert_eq!(ended, None, "docker-registry has ended");
            TcpStream::connect(address).is_ok()
        });
        acr.update(|options| options.upstream = Some(address));
        registry
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_registry_takes_its_tokens_and_keeps_blobs() {
    let setting = Setting::new(AcrOptions::default());
    let directory = tempfile::tempdir().unwrap();
    let _registry = RealRegistry::start(&setting.acr, directory.path());
    let refused = get_tls(&setting.ca, &setting.url("/v2/team/app/tags/list"), &[]);
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(
        challenge.contains("realm=\"https://myreg.azurecr.io/oauth2/token\""),
        "{challenge}"
    );
    assert!(
        challenge.contains("scope=\"repository:team/app:pull\""),
        "{challenge}"
    );

    let refresh = setting.refresh_token();
    let answer = setting.basic(NULL_GUID, &refresh, "repository:team/app:pull,push");
    let bearer = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/octet-stream"),
    ];
    let call = |method: &str, url: &str, body: &str| {
        super::client::parse(&send(url, Some(&setting.ca), method, &headers, body).unwrap())
    };
    let started = call("POST", &setting.url("/v2/team/app/blobs/uploads/"), "");
    assert_eq!(started.status, 202, "{started:?}");
    let location = started.header("location").unwrap();
    assert!(location.starts_with(&setting.url("/v2/")), "{location}");
    let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let stored = call("PUT", &format!("{location}&digest={digest}"), "hello");
    assert_eq!(stored.status, 201, "{stored:?}");
    let blob = call(
        "GET",
        &setting.url(&format!("/v2/team/app/blobs/{digest}")),
        "",
    );
    assert_eq!((blob.status, blob.text().as_str()), (200, "hello"));
    assert_eq!(
        call("GET", &setting.url("/v2/other/app/tags/list"), "").status,
        401
    );
    assert_eq!(setting.acr.requests().len(), 7);
}
