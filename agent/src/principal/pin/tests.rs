//! Whose tokens pass, strategy by strategy, and which change is noticed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jobcred_wire::ErrorCode;
use serde_json::{Value, json};
use url::Url;

use super::{Pin, Pinned};
use crate::config::Expect;
use crate::platform::UnixTime;
use crate::strategy::{Choice, Strategy, Upstream};
use crate::token::{AccessToken, Identity};

const A: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const B: &str = "bbbbbbbb-0000-0000-0000-000000000002";
const TENANT: &str = "cccccccc-0000-0000-0000-000000000003";
const OTHER_TENANT: &str = "dddddddd-0000-0000-0000-000000000004";

fn token(claims: &Value) -> AccessToken {
    opaque(&format!(
        "e30.{}.c2ln",
        URL_SAFE_NO_PAD.encode(claims.to_string())
    ))
}

fn opaque(text: &str) -> AccessToken {
    AccessToken {
        secret: text.into(),
        expires_on: UnixTime::MAX,
        refresh_on: None,
        resource: "https://storage.azure.com/".to_owned(),
        client_id: None,
    }
}

fn choice(strategy: Strategy) -> Choice {
    let https = || Url::parse("https://login.microsoftonline.com").unwrap();
    let http = || Url::parse("http://127.0.0.1:46808/MSI/auth").unwrap();
    let upstream = match strategy {
        Strategy::UserIdentity => Upstream::OnBehalfOf {
            endpoint: http(),
            secret: None,
        },
        Strategy::Kubernetes => Upstream::WorkloadIdentity {
            authority: https(),
            tenant: TENANT.to_owned(),
            client_id: A.to_uppercase(),
            token_file: "/token".into(),
        },
        Strategy::ServicePrincipal => Upstream::ServicePrincipal {
            authority: https(),
            tenant: "contoso.example".to_owned(),
            client_id: A.to_owned(),
            secret: "s".into(),
        },
        Strategy::AzureCli => Upstream::AzureCli {
            program: "/usr/bin/az".into(),
            config_dir: None,
            tenant: None,
        },
        Strategy::Sandbox => Upstream::Sandbox,
        Strategy::ComputeIdentity | Strategy::SystemIdentity | Strategy::ComputeInstanceUser => {
            Upstream::AzureMl {
                endpoint: http(),
                secret: None,
            }
        }
    };
    Choice {
        strategy,
        upstream,
        client_id: (strategy == Strategy::ComputeIdentity).then(|| A.to_owned()),
    }
}

fn pin(strategy: Strategy) -> Pin {
    Pin::new(&choice(strategy), &Expect::default())
}

fn app(app_id: &str, object_id: &str) -> Value {
    json!({"appid": app_id, "oid": object_id, "tid": TENANT, "idtyp": "app"})
}

fn user() -> Value {
    json!({"appid": B, "oid": B, "tid": TENANT, "idtyp": "user"})
}

/// The first token of the job's own identity.
fn first(strategy: Strategy, claims: &Value) -> bool {
    pin(strategy)
        .check(&Identity::Job, None, &token(claims))
        .is_ok()
}

#[test]
fn the_first_token_must_be_of_whom_the_strategy_announced() {
    use Strategy::{
        AzureCli, ComputeIdentity, ComputeInstanceUser, Kubernetes, Sandbox, ServicePrincipal,
        SystemIdentity, UserIdentity,
    };
    let mut marked = app(A, A);
    marked["jobcred_sandbox"] = json!(true);
    let foreign = json!({"appid": A, "tid": OTHER_TENANT});
    for (strategy, own_app, other_app, a_user, sandbox, other_tenant) in [
        (ComputeIdentity, true, false, false, false, true),
        (Kubernetes, true, false, false, false, false),
        (ServicePrincipal, true, false, false, false, true),
        // Without a client id any managed identity may answer, a user-assigned one too.
        (SystemIdentity, true, true, false, false, true),
        (UserIdentity, false, false, true, false, true),
        (ComputeInstanceUser, false, false, true, false, true),
        (AzureCli, true, true, true, false, true),
        (Sandbox, false, false, false, true, false),
    ] {
        let name = strategy.name();
        assert_eq!(first(strategy, &app(A, A)), own_app, "{name}: own");
        assert_eq!(first(strategy, &app(B, B)), other_app, "{name}: other");
        assert_eq!(first(strategy, &user()), a_user, "{name}: user");
        assert_eq!(first(strategy, &marked), sandbox, "{name}: sandbox");
        assert_eq!(first(strategy, &foreign), other_tenant, "{name}: tenant");
        // Nothing is known of these.
        assert!(
            pin(strategy)
                .check(&Identity::Job, None, &opaque("x"))
                .is_ok()
        );
        assert_eq!(
            first(strategy, &json!({})),
            strategy != Sandbox,
            "{name}: empty"
        );
    }
}

#[test]
fn what_the_configuration_expects_must_be_told() {
    for expect in [
        Expect {
            object_id: Some(A.to_owned()),
            ..Expect::default()
        },
        Expect {
            client_id: Some(A.to_owned()),
            ..Expect::default()
        },
        Expect {
            tenant_id: Some(TENANT.to_owned()),
            ..Expect::default()
        },
    ] {
        let pin = Pin::new(&choice(Strategy::SystemIdentity), &expect);
        for silent in [opaque("x"), token(&json!({}))] {
            let error = pin.check(&Identity::Job, None, &silent).unwrap_err();
            assert_eq!(error.kind(), ErrorCode::Rejected);
            assert!(error.message().contains("not told"), "{error}");
        }
        pin.check(&Identity::Job, None, &token(&app(A, A))).unwrap();
    }
}

#[test]
fn expected_client_ids() {
    for (strategy, expected) in [
        (Strategy::ComputeIdentity, Some(A)),
        (Strategy::Kubernetes, Some(A)),
        (Strategy::ServicePrincipal, Some(A)),
        (Strategy::SystemIdentity, None),
        (Strategy::UserIdentity, None),
    ] {
        assert_eq!(pin(strategy).expected_client_id(), expected, "{strategy}");
    }
    let mut placeholder = choice(Strategy::ComputeIdentity);
    placeholder.client_id = Some("clientid".to_owned());
    let pin = Pin::new(&placeholder, &Expect::default());
    assert_eq!(pin.expected_client_id(), None);
}

#[test]
fn a_change_of_any_claim_is_refused_and_a_missing_one_is_none() {
    let full = json!({"appid": A, "oid": A, "tid": TENANT, "idtyp": "app"});
    for (next, passes) in [
        (full.clone(), true),
        (json!({"azp": A.to_uppercase(), "tid": TENANT}), true),
        (json!({"oid": A}), true),
        (json!({}), true),
        (json!({"azp": B, "tid": TENANT}), false),
        (json!({"oid": B}), false),
        (json!({"tid": OTHER_TENANT}), false),
        (json!({"idtyp": "user"}), false),
    ] {
        let pin = pin(Strategy::SystemIdentity);
        pin.check(&Identity::Job, None, &token(&full)).unwrap();
        let result = pin.check(&Identity::Job, None, &token(&next));
        assert_eq!(result.is_ok(), passes, "{next}");
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorCode::Rejected);
            assert!(error.hint().is_some());
        }
        // Whatever came in between, the first identity is still the one.
        pin.check(&Identity::Job, None, &token(&full)).unwrap();
    }
}

#[test]
fn claims_seen_one_by_one_are_all_held_to() {
    let pin = pin(Strategy::SystemIdentity);
    let check = |claims: &Value| pin.check(&Identity::Job, None, &token(claims));
    assert_eq!(pin.pinned(&Identity::Job), None);
    pin.check(&Identity::Job, None, &opaque("opaque")).unwrap();
    assert_eq!(pin.pinned(&Identity::Job), Some(Pinned::Opaque));
    check(&json!({"oid": A})).unwrap();
    check(&json!({"azp": B})).unwrap();
    check(&json!({"tid": TENANT})).unwrap();
    pin.check(&Identity::Job, None, &opaque("opaque")).unwrap();
    let Some(Pinned::Known(known)) = pin.pinned(&Identity::Job) else {
        panic!("nothing is pinned");
    };
    assert_eq!(known.object_id.as_deref(), Some(A));
    assert_eq!(known.app_id.as_deref(), Some(B));
    assert_eq!(known.tenant_id.as_deref(), Some(TENANT));
    check(&json!({"oid": B})).unwrap_err();
    check(&json!({"appid": A})).unwrap_err();
}

#[test]
fn a_refused_token_leaves_no_trace() {
    let pin = pin(Strategy::ComputeIdentity);
    pin.check(&Identity::Job, None, &token(&app(B, B)))
        .unwrap_err();
    assert_eq!(pin.pinned(&Identity::Job), None);
    pin.check(&Identity::Job, None, &token(&app(A, A))).unwrap();
}

#[test]
fn a_named_identity_is_held_to_its_name() {
    let by_client = Identity::ClientId(B.to_owned());
    let by_object = Identity::ObjectId(B.to_owned());
    let by_resource = Identity::ResourceId("/subscriptions/x".to_owned());
    for (identity, claims, passes) in [
        (&by_client, app(B, A), true),
        (&by_client, app(A, B), false),
        (&by_client, json!({"azp": B.to_uppercase()}), true),
        (&by_client, json!({"oid": A}), true),
        // The user's token, which a compute instance gives for a client id it does not know.
        (&by_client, json!({"oid": A, "idtyp": "user"}), false),
        (&by_object, app(A, B), true),
        (&by_object, app(B, A), false),
        (&by_resource, app(B, B), true),
    ] {
        let pin = pin(Strategy::ComputeIdentity);
        let result = pin.check(identity, None, &token(&claims));
        assert_eq!(result.is_ok(), passes, "{identity} {claims}");
    }
}

#[test]
fn a_refusal_of_what_the_request_named_speaks_of_the_request() {
    let pin = pin(Strategy::ComputeIdentity);
    let user = token(&json!({"oid": A, "idtyp": "user"}));
    let hint = |identity: &Identity| {
        let error = pin.check(identity, None, &user).unwrap_err();
        error.hint().unwrap().to_owned()
    };
    let named = hint(&Identity::ClientId(B.to_owned()));
    assert!(named.starts_with("The request names"), "{named}");
    assert!(!named.contains("strategy"), "{named}");
    assert!(hint(&Identity::Job).contains("set strategy"));
}

#[test]
fn only_what_earlier_tokens_said_is_a_matter_of_jobcreds_own() {
    let pin = pin(Strategy::SystemIdentity);
    let refused = |claims: &Value| pin.check(&Identity::Job, None, &token(claims)).unwrap_err();
    // What was announced is the platform's word.
    assert!(!refused(&json!({"oid": A, "idtyp": "user"})).is_blocked());
    pin.check(&Identity::Job, None, &token(&app(A, A))).unwrap();
    let error = refused(&app(A, B));
    assert_eq!(error.kind(), ErrorCode::Rejected);
    assert!(error.is_blocked(), "{error}");
}

#[test]
fn each_identity_has_a_pin_of_its_own() {
    let pin = pin(Strategy::ComputeIdentity);
    let named = Identity::ClientId(B.to_owned());
    pin.check(&Identity::Job, None, &token(&app(A, A))).unwrap();
    pin.check(&named, None, &token(&app(B, B))).unwrap();
    pin.check(&named, None, &token(&app(B, A))).unwrap_err();
    pin.check(&Identity::Job, None, &token(&app(A, A))).unwrap();
}

#[test]
fn expectations_of_the_configuration() {
    let expect = |tenant: Option<&str>, object: Option<&str>, client: Option<&str>| Expect {
        tenant_id: tenant.map(str::to_owned),
        object_id: object.map(str::to_owned),
        client_id: client.map(str::to_owned),
    };
    let named = Identity::ClientId(B.to_owned());
    for (expect, identity, claims, passes) in [
        (
            expect(Some(TENANT), Some(A), Some(A)),
            &Identity::Job,
            app(A, A),
            true,
        ),
        (
            expect(Some(OTHER_TENANT), None, None),
            &Identity::Job,
            app(A, A),
            false,
        ),
        (
            expect(None, Some(B), None),
            &Identity::Job,
            app(A, A),
            false,
        ),
        (
            expect(None, None, Some(B)),
            &Identity::Job,
            app(A, A),
            false,
        ),
        (
            expect(None, None, Some(&A.to_uppercase())),
            &Identity::Job,
            app(A, A),
            true,
        ),
        // A named identity is another one; its tenant is still the expected one.
        (
            expect(Some(TENANT), Some(A), Some(A)),
            &named,
            app(B, B),
            true,
        ),
        (
            expect(Some(OTHER_TENANT), None, None),
            &named,
            app(B, B),
            false,
        ),
    ] {
        let pin = Pin::new(&choice(Strategy::ComputeIdentity), &expect);
        let result = pin.check(identity, None, &token(&claims));
        assert_eq!(result.is_ok(), passes, "{expect:?} {identity} {claims}");
    }
}

#[test]
fn another_tenant_has_another_object_of_the_same_application() {
    let pin = pin(Strategy::ServicePrincipal);
    let foreign = |tenant: &str| json!({"appid": A, "oid": B, "tid": tenant});
    pin.check(&Identity::Job, None, &token(&app(A, A))).unwrap();
    let there = Some(OTHER_TENANT);
    pin.check(&Identity::Job, there, &token(&foreign(OTHER_TENANT)))
        .unwrap();
    pin.check(&Identity::Job, there, &token(&foreign(TENANT)))
        .unwrap_err();
    let by_domain = Some("other.example");
    pin.check(&Identity::Job, by_domain, &token(&foreign(OTHER_TENANT)))
        .unwrap();
}

#[test]
fn a_refusal_says_what_is_wrong_and_nothing_of_the_token() {
    let pin = pin(Strategy::ComputeIdentity);
    let token = token(&json!({"appid": B, "upn": "someone@example.org", "idtyp": "app"}));
    let error = pin.check(&Identity::Job, None, &token).unwrap_err();
    let text = format!("{error:?} {error}");
    assert!(
        error
            .message()
            .contains(&format!("its client id is {B}, not {A}")),
        "{text}"
    );
    assert!(!text.contains("someone"), "{text}");
    assert!(!text.contains(token.secret.expose()), "{text}");
}

#[test]
fn memory_is_bounded_and_the_jobs_own_identity_always_has_room() {
    let pin = pin(Strategy::ComputeIdentity);
    for number in 0..2 * super::MAX_IDENTITIES {
        let id = format!("eeeeeeee-0000-0000-0000-{number:012}");
        pin.check(
            &Identity::ClientId(id.clone()),
            None,
            &token(&app(&id, &id)),
        )
        .unwrap();
    }
    pin.check(&Identity::Job, None, &token(&app(A, A))).unwrap();
    assert!(pin.pinned(&Identity::Job).is_some());
    assert!(pin.lock().len() <= super::MAX_IDENTITIES + 1);
}

#[test]
fn an_applications_tokens_are_held_to_what_the_configuration_names() {
    const THERE: &str = "dddddddd-0000-4000-8000-00000000000d";
    let identity = Identity::Application {
        client_id: B.to_owned(),
        tenant_id: THERE.to_owned(),
    };
    let of = |app_id: &str, tenant: &str, kind: &str| json!({"appid": app_id, "oid": app_id, "tid": tenant, "idtyp": kind});
    // What is expected of the job's own identity does not hold for it.
    let expect = Expect {
        tenant_id: Some(TENANT.to_owned()),
        client_id: Some(A.to_owned()),
        object_id: Some(A.to_owned()),
    };
    let check = |pin: &Pin, claims: &Value| pin.check(&identity, None, &token(claims)).is_ok();
    let pin = Pin::new(&choice(Strategy::ComputeIdentity), &expect);
    assert!(check(&pin, &of(B, THERE, "app")));
    assert!(check(&pin, &of(B, THERE, "app")));
    for wrong in [
        of(A, THERE, "app"),
        of(B, TENANT, "app"),
        of(B, THERE, "user"),
    ] {
        assert!(!check(&pin, &wrong), "{wrong}");
    }
    // Its own are not the job's, nor another application's.
    assert!(pin.pinned(&Identity::Job).is_none());
    // Its object in the tenant must stay the same.
    let moved = json!({"appid": B, "oid": A, "tid": THERE, "idtyp": "app"});
    assert!(!check(&pin, &moved));
}
