//! Entra.

use super::client::{Answer, get_tls, post_tls, send};
use crate::{Entra, EntraOptions, TestCa, decode_claims};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

struct Setting {
    ca: TestCa,
    entra: Entra,
}

impl Setting {
    fn new(options: EntraOptions) -> Self {
        let ca = TestCa::new().unwrap();
        let entra = Entra::start(options, &ca.usual_leaf().unwrap()).unwrap();
        Self { ca, entra }
    }

    fn ask(&self, form: &[(&str, &str)]) -> Answer {
        let application = &self.entra.options().application;
        let url = format!(
            "{}/{}/oauth2/v2.0/token",
            self.entra.authority(),
            application.tenant_id
        );
        let mut whole = vec![
            ("grant_type", "client_credentials"),
            ("client_id", application.client_id.as_str()),
            ("scope", "https://storage.azure.com/.default"),
        ];
        whole.retain(|(name, _)| !form.iter().any(|(other, _)| other == name));
        whole.extend_from_slice(form);
        post_tls(&self.ca, &url, &whole)
    }

    fn federated(&self, assertion: &str) -> Answer {
        self.ask(&[
            ("client_assertion", assertion),
            ("client_assertion_type", JWT_BEARER),
        ])
    }
}

fn code(answer: &Answer) -> i64 {
    let body = answer.json();
    let code = body["error_codes"][0].as_i64().unwrap();
    let words = body["error_description"].as_str().unwrap();
    assert!(words.starts_with(&format!("AADSTS{code}: ")), "{words}");
    for field in [
        "error",
        "timestamp",
        "trace_id",
        "correlation_id",
        "error_uri",
    ] {
        assert!(body[field].is_string(), "{field}");
    }
    code
}

#[test]
fn a_fresh_assertion_gets_a_token_of_the_application() {
    let setting = Setting::new(EntraOptions::default());
    let answer = setting.federated(&setting.entra.new_assertion(3600));
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert!(body["expires_in"].is_i64() && body["ext_expires_in"].is_i64());
    let claims = decode_claims(body["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(
        claims["appid"],
        setting.entra.options().application.client_id
    );
    assert_eq!(claims["aud"], "https://storage.azure.com");
    let request = &setting.entra.requests()[0];
    assert_eq!(
        request.field("client_assertion_type").as_deref(),
        Some(JWT_BEARER)
    );
}

#[test]
fn a_stale_assertion_is_refused_until_it_is_read_anew() {
    let setting = Setting::new(EntraOptions::default());
    let assertion = setting.entra.new_assertion(3600);
    assert_eq!(setting.federated(&assertion).status, 200);
    setting.entra.expire_seen_assertions();
    let stale = setting.federated(&assertion);
    assert_eq!((stale.status, code(&stale)), (401, 700_024));
    assert_eq!(
        setting.federated(&setting.entra.new_assertion(3600)).status,
        200
    );
    assert_eq!(
        code(&setting.federated(&setting.entra.new_assertion(-1))),
        700_024
    );
}

#[test]
fn an_assertion_has_to_be_the_right_one() {
    let setting = Setting::new(EntraOptions {
        assertion_subject: Some("system:serviceaccount:a:b".to_owned()),
        ..EntraOptions::default()
    });
    let other = Setting::new(EntraOptions::default());
    assert_eq!(
        code(&setting.federated(&other.entra.new_assertion(60))),
        700_213
    );
    assert_eq!(code(&setting.federated("nonsense")), 50_027);
    setting.entra.remove_federated_credential(true);
    let assertion = setting.entra.new_assertion(60);
    assert_eq!(code(&setting.federated(&assertion)), 70_021);
    let untyped = setting.ask(&[("client_assertion", &assertion)]);
    assert_eq!((untyped.status, code(&untyped)), (400, 900_144));
}

#[test]
fn a_client_secret_is_the_other_way() {
    let setting = Setting::new(EntraOptions::default());
    let secret = setting.entra.client_secret().to_owned();
    assert_eq!(setting.ask(&[("client_secret", &secret)]).status, 200);
    let wrong = setting.ask(&[("client_secret", "wrong")]);
    assert_eq!((wrong.status, code(&wrong)), (401, 7_000_215));
    assert_eq!(code(&setting.ask(&[])), 7_000_218);
}

#[test]
fn msal_finds_the_authority_and_gets_a_token_with_openid_scopes() {
    let setting = Setting::new(EntraOptions::default());
    let (ca, authority) = (&setting.ca, setting.entra.authority());
    let instances = get_tls(ca, &format!("{authority}/common/discovery/instance"), &[]).json();
    let host = instances["metadata"][0]["preferred_network"]
        .as_str()
        .unwrap();
    assert_eq!(authority, format!("https://{host}"));
    let next = instances["tenant_discovery_endpoint"].as_str().unwrap();
    let metadata = get_tls(ca, next, &[]).json();
    let tenant = &setting.entra.options().application.tenant_id;
    assert_eq!(metadata["issuer"], format!("{authority}/{tenant}/v2.0"));

    let secret = setting.entra.client_secret().to_owned();
    let scope = "openid https://storage.azure.com/.default offline_access profile";
    let answer = setting.ask(&[("client_secret", &secret), ("scope", scope)]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let claims = decode_claims(answer.json()["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(claims["aud"], "https://storage.azure.com");
}

#[test]
fn every_field_is_looked_at() {
    let setting = Setting::new(EntraOptions {
        refused_resources: vec!["https://example.org".to_owned()],
        ..EntraOptions::default()
    });
    let secret = setting.entra.client_secret().to_owned();
    for (name, value, expected) in [
        ("grant_type", "", 900_144),
        ("grant_type", "password", 70_003),
        ("client_id", "6f1f3c9a-0d5e-4f0b-9d63-3f2b8f6f7a10", 700_016),
        ("scope", "", 900_144),
        ("scope", "https://storage.azure.com", 1_002_012),
        ("scope", "openid profile", 1_002_012),
        (
            "scope",
            "https://storage.azure.com/.default https://vault.azure.net/.default",
            1_002_012,
        ),
        ("scope", "https://example.org/.default", 500_011),
    ] {
        let answer = setting.ask(&[("client_secret", &secret), (name, value)]);
        assert_eq!(code(&answer), expected, "{name}={value}");
    }
    let url = format!(
        "{}/other.example/oauth2/v2.0/token",
        setting.entra.authority()
    );
    assert_eq!(code(&post_tls(&setting.ca, &url, &[])), 90_002);
}

#[test]
fn every_secret_it_saw_is_known() {
    let setting = Setting::new(EntraOptions::default());
    let assertion = setting.entra.new_assertion(60);
    let token = setting.federated(&assertion).json()["access_token"].to_string();
    for secret in [assertion.as_str(), setting.entra.client_secret(), &token] {
        assert_eq!(setting.entra.secrets().leaks(secret).len(), 1);
    }
}

#[test]
fn only_its_own_authority_is_trusted() {
    let setting = Setting::new(EntraOptions::default());
    let stranger = TestCa::new().unwrap();
    let url = setting.entra.authority() + "/";
    assert!(send(&url, Some(&stranger), "GET", &[], "").is_err());
    assert_eq!(get_tls(&setting.ca, &url, &[]).status, 404);
}
