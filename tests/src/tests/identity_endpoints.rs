//! Azure ML, IMDS and App Service.

use std::thread;

use super::client::{Answer, PATIENCE, get};
use crate::{
    AppService, AppServiceOptions, AzureMl, AzureMlOptions, Behavior, ExpiryForm, GrantEnd,
    Identities, Imds, ImdsOptions, Outcome, Principal, WithoutClientId, decode_claims,
};

const STORAGE: &str = "https://storage.azure.com/";

fn msi(aml: &AzureMl, more: &str) -> Answer {
    let url = format!(
        "{}?api-version=2017-09-01&resource={STORAGE}{more}",
        aml.msi_endpoint()
    );
    get(&url, &[("Secret", aml.secret())])
}

fn claims(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    decode_claims(answer.json()["access_token"].as_str().unwrap()).unwrap()
}

#[test]
fn azure_ml_answers_with_integers_and_the_named_identity() {
    let aml = AzureMl::start(AzureMlOptions {
        identities: Identities::user_assigned(2),
        ..AzureMlOptions::default()
    })
    .unwrap();
    let second = &aml.options().identities.user_assigned[1];
    let answer = msi(&aml, &format!("&clientid={}", second.client_id));
    let body = answer.json();
    assert!(
        body["expires_on"].is_i64() && body["expires_in"].is_i64(),
        "{body}"
    );
    assert_eq!(body["resource"], STORAGE);
    assert_eq!(claims(&answer)["oid"], second.object_id);
    assert_eq!(claims(&answer)["aud"], STORAGE);
    assert_eq!(aml.tokens()[0].token, body["access_token"]);
}

#[test]
fn azure_ml_says_in_text_that_the_secret_is_wrong() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let url = format!(
        "{}?api-version=2017-09-01&resource={STORAGE}",
        aml.msi_endpoint()
    );
    for headers in [
        &[][..],
        &[("secret", "not-this-one")][..],
        &[("X-IDENTITY-HEADER", aml.secret())][..],
    ] {
        let answer = get(&url, headers);
        assert_eq!(answer.status, 400);
        assert_eq!(answer.text(), "Invalid secret token header: .");
        assert!(
            answer
                .header("content-type")
                .unwrap()
                .starts_with("text/plain")
        );
    }
    assert!(aml.tokens().is_empty());
}

#[test]
fn a_cluster_with_user_assigned_identities_refuses_a_nameless_request() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    for more in [
        "",
        "&clientid=",
        "&clientid=clientid",
        "&client_id=6f1f3c9a-0d5e-4f0b-9d63-3f2b8f6f7a10",
    ] {
        assert_eq!(msi(&aml, more).status, 400, "{more}");
    }
    assert!(aml.tokens().is_empty());
}

#[test]
fn a_system_identity_may_want_an_empty_client_id() {
    let aml = AzureMl::start(AzureMlOptions {
        identities: Identities::system(),
        without_client_id: WithoutClientId::RefuseUnlessEmpty,
        ..AzureMlOptions::default()
    })
    .unwrap();
    assert_eq!(msi(&aml, "").status, 400);
    let system = aml.options().identities.system.clone().unwrap();
    assert_eq!(claims(&msi(&aml, "&clientid="))["oid"], system.object_id);
}

#[test]
fn single_sign_on_answers_with_the_user_and_a_200() {
    let aml = AzureMl::start(AzureMlOptions {
        without_client_id: WithoutClientId::SignedInUser,
        ..AzureMlOptions::default()
    })
    .unwrap();
    let user = aml.options().user.object_id.clone();
    for more in ["", "&clientid=", "&clientid=clientid"] {
        let claims = claims(&msi(&aml, more));
        assert_eq!(
            (&claims["oid"], &claims["idtyp"]),
            (&user.clone().into(), &"user".into()),
            "{more}"
        );
    }
    let named = aml.options().identities.first().unwrap().client_id.clone();
    assert_eq!(
        claims(&msi(&aml, &format!("&clientid={named}")))["idtyp"],
        "app"
    );
}

#[test]
fn azure_ml_has_no_token_for_some_audiences() {
    let aml = AzureMl::start(AzureMlOptions {
        refused_resources: vec![STORAGE.trim_end_matches('/').to_owned()],
        without_client_id: WithoutClientId::FirstIdentity,
        ..AzureMlOptions::default()
    })
    .unwrap();
    let answer = msi(&aml, "");
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .text()
            .starts_with("SSO failure: unable to retrieve a token.")
    );
}

#[test]
fn on_behalf_of_wants_a_resource_and_no_secret() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    assert_ne!(aml.msi().address().port(), aml.obo().address().port());
    let answer = get(&format!("{}?resource={STORAGE}", aml.obo_endpoint()), &[]);
    assert_eq!(claims(&answer)["oid"], aml.options().user.object_id);
    assert_eq!(get(&aml.obo_endpoint(), &[]).status, 400);
    assert_eq!(aml.obo().requests().len(), 2);
    assert!(aml.requests().is_empty());
}

#[test]
fn on_behalf_of_on_a_compute_instance_wants_the_secret() {
    let aml = AzureMl::start(AzureMlOptions {
        obo_requires_secret: true,
        ..AzureMlOptions::default()
    })
    .unwrap();
    let url = format!("{}?resource={STORAGE}", aml.obo_endpoint());
    assert_eq!(get(&url, &[]).text(), "Invalid secret token header: .");
    assert_eq!(get(&url, &[("secret", aml.secret())]).status, 200);
}

#[test]
fn a_grant_ends_and_is_restored() {
    for (form, expected) in [
        (GrantEnd::Json, "invalid_grant"),
        (GrantEnd::Text, "AADSTS70008"),
        (GrantEnd::Failure, "Token not found"),
        (GrantEnd::Empty, ""),
    ] {
        let aml = AzureMl::start(AzureMlOptions {
            grant_end: form,
            ..AzureMlOptions::default()
        })
        .unwrap();
        let url = format!("{}?resource={STORAGE}", aml.obo_endpoint());
        aml.end_user_grant(true);
        let answer = get(&url, &[]);
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(expected), "{answer:?}");
        aml.end_user_grant(false);
        assert_eq!(get(&url, &[]).status, 200);
    }
}

#[test]
fn an_endpoint_can_lie_and_repeat_itself() {
    let aml = AzureMl::start(AzureMlOptions {
        without_client_id: WithoutClientId::FirstIdentity,
        ..AzureMlOptions::default()
    })
    .unwrap();
    let impostor = Principal::application();
    aml.mint().set_impostor(Some(impostor.clone()));
    aml.mint().set_repeat(true);
    let (first, second) = (msi(&aml, ""), msi(&aml, ""));
    assert_eq!(claims(&first)["oid"], impostor.object_id);
    assert_eq!(first.json()["access_token"], second.json()["access_token"]);
    assert_eq!(aml.tokens().len(), 1);
}

#[test]
fn a_skewed_machine_is_wrong_in_its_date_and_its_tokens() {
    let aml = AzureMl::start(AzureMlOptions {
        without_client_id: WithoutClientId::FirstIdentity,
        lifetime: 100,
        ..AzureMlOptions::default()
    })
    .unwrap();
    let straight = claims(&msi(&aml, ""))["exp"].as_i64().unwrap();
    aml.msi().clock().set_skew(-1_000_000);
    let answer = msi(&aml, "");
    let skewed = claims(&answer)["exp"].as_i64().unwrap();
    assert!((990_000..=1_000_000).contains(&(straight - skewed)));
    assert_eq!(answer.json()["expires_in"], 100);
    assert_ne!(
        answer.header("date"),
        Some(crate::Clock::new().http_date(0).as_str())
    );
}

fn imds(double: &Imds, more: &str) -> Answer {
    let url = format!(
        "{}?api-version=2018-02-01&resource={STORAGE}{more}",
        double.url()
    );
    get(&url, &[("Metadata", "true")])
}

#[test]
fn imds_answers_with_strings() {
    let double = Imds::start(ImdsOptions::default()).unwrap();
    let answer = imds(&double, "");
    let body = answer.json();
    assert!(
        body["expires_on"].is_string() && body["expires_in"].is_string(),
        "{body}"
    );
    assert_eq!(claims(&answer)["appid"], body["client_id"]);
    let slash =
        double.url() + "/?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com%2F";
    assert_eq!(get(&slash, &[("metadata", "True")]).status, 200);
}

#[test]
fn imds_wants_its_header() {
    let double = Imds::start(ImdsOptions::default()).unwrap();
    for url in [
        double.url(),
        format!("{}?api-version=2018-02-01&resource={STORAGE}", double.url()),
    ] {
        let answer = get(&url, &[]);
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (400, Some("bad_request_102"))
        );
    }
}

#[test]
fn imds_chooses_as_the_platform_does() {
    let start = |identities| {
        Imds::start(ImdsOptions {
            identities,
            ..ImdsOptions::default()
        })
        .unwrap()
    };
    let several = start(Identities::user_assigned(2));
    let words = imds(&several, "").json()["error_description"].to_string();
    assert!(
        words.contains("Multiple user assigned identities exist"),
        "{words}"
    );
    let second = several.options().identities.user_assigned[1].clone();
    for more in [
        format!("&client_id={}", second.client_id.to_uppercase()),
        format!("&object_id={}", second.object_id),
        format!("&msi_res_id={}", Identities::resource_id(&second)),
    ] {
        assert_eq!(
            claims(&imds(&several, &more))["oid"],
            second.object_id,
            "{more}"
        );
    }
    let unknown = imds(&several, "&client_id=6f1f3c9a-0d5e-4f0b-9d63-3f2b8f6f7a10");
    assert_eq!(
        (unknown.status, unknown.json()["error_description"].as_str()),
        (400, Some("Identity not found"))
    );
    assert_eq!(imds(&start(Identities::user_assigned(0)), "").status, 400);
    let both = start(Identities {
        system: Some(Principal::application()),
        ..Identities::user_assigned(3)
    });
    let system = both.options().identities.system.clone().unwrap();
    assert_eq!(claims(&imds(&both, ""))["oid"], system.object_id);
}

#[test]
fn imds_throttles_the_sixth_request_at_once() {
    let double = Imds::start(ImdsOptions::default()).unwrap();
    double.script().push_times(Behavior::hold("busy"), 5);
    thread::scope(|scope| {
        let held: Vec<_> = (0..5)
            .map(|_| scope.spawn(|| imds(&double, "").status))
            .collect();
        assert!(double.endpoint().recorder().wait_for(5, PATIENCE));
        assert_eq!(imds(&double, "").status, 429);
        double.script().release("busy");
        for held in held {
            assert_eq!(held.join().unwrap(), 200);
        }
    });
    assert_eq!(double.endpoint().recorder().most_in_flight(), 6);
}

#[test]
fn imds_throttles_a_hasty_client() {
    let double = Imds::start(ImdsOptions {
        requests_per_second: 2,
        ..ImdsOptions::default()
    })
    .unwrap();
    // On a slow machine three requests may take more than their second, so there are many tries.
    assert!((0..200).any(|_| imds(&double, "").status == 429));
    let free = Imds::start(ImdsOptions {
        requests_per_second: 0,
        ..ImdsOptions::default()
    })
    .unwrap();
    assert!((0..50).all(|_| imds(&free, "").status == 200));
}

#[test]
fn imds_is_updated_and_comes_back() {
    let double = Imds::start(ImdsOptions {
        refused_resources: vec!["https://example.org".to_owned()],
        ..ImdsOptions::default()
    })
    .unwrap();
    double.update_for(2);
    let statuses: Vec<_> = (0..3).map(|_| imds(&double, "").status).collect();
    assert_eq!(statuses, [410, 410, 200]);
    let url = format!(
        "{}?api-version=2018-02-01&resource=https://example.org",
        double.url()
    );
    let answer = get(&url, &[("metadata", "true")]);
    assert_eq!(
        (answer.status, answer.json()["error"].as_str()),
        (400, Some("invalid_resource"))
    );
}

#[test]
fn app_service_has_its_header_its_strings_and_its_errors() {
    let double = AppService::start(AppServiceOptions {
        refused_resources: vec!["https://example.org".to_owned()],
        ..AppServiceOptions::default()
    })
    .unwrap();
    let ask = |resource: &str, header: &str| {
        let url = format!(
            "{}?resource={resource}&api-version=2019-08-01",
            double.url()
        );
        get(&url, &[("X-IDENTITY-HEADER", header)])
    };
    let body = ask(STORAGE, double.header()).json();
    assert!(
        body["expires_on"].is_string() && body["expires_in"].is_null(),
        "{body}"
    );
    assert_eq!(ask(STORAGE, "other").status, 401);
    let vague = ask("https://example.org", double.header());
    assert_eq!(
        (vague.status, vague.json()["statusCode"].as_i64()),
        (500, Some(500))
    );
}

#[test]
fn dates_can_stand_for_seconds() {
    let double = AppService::start(AppServiceOptions {
        expiry: ExpiryForm::LinuxDate,
        ..AppServiceOptions::default()
    })
    .unwrap();
    let url = format!("{}?resource={STORAGE}&api-version=2019-08-01", double.url());
    let body = get(&url, &[("x-identity-header", double.header())]).json();
    assert!(
        body["expires_on"].as_str().unwrap().ends_with(" +00:00"),
        "{body}"
    );
}

#[test]
fn every_request_is_recorded_as_it_came() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    msi(&aml, "&clientid=a%20b");
    let [request] = &aml.requests()[..] else {
        panic!()
    };
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("GET", "/MSI/auth")
    );
    assert_eq!(request.parameter("clientid").as_deref(), Some("a b"));
    assert!(request.query.ends_with("&clientid=a%20b"));
    assert_eq!(request.header("SECRET"), Some(aml.secret()));
    assert_eq!(request.outcome, Outcome::Answered(400));
    assert_eq!(request.peer.ip().to_string(), "127.0.0.1");
    assert_eq!((request.number, request.in_flight), (1, 1));
}
