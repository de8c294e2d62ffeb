//! Who may be named where, rule by rule.

use std::time::Duration;

use jobcred_wire::{ErrorCode, LoginServer, NamedIdentity, Target, TokenRequest};
use url::Url;

use super::{Decision, Policy};
use crate::broker::Key;
use crate::config::{Config, Dialect, Federated, RegistryConfig, UserDialects};
use crate::principal::{Pinned, Principal};
use crate::resource::Cloud;
use crate::strategy::{Choice, Strategy, Upstream};
use crate::token::Identity;

const OWN: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const OBJECT: &str = "aaaaaaaa-0000-0000-0000-000000000002";
const OTHER: &str = "bbbbbbbb-0000-0000-0000-000000000003";
const TENANT: &str = "cccccccc-0000-0000-0000-000000000004";
const FOREIGN: &str = "dddddddd-0000-0000-0000-000000000005";
const RESOURCE_ID: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n";

fn choice(strategy: Strategy) -> Choice {
    let upstream = match strategy {
        Strategy::ServicePrincipal => Upstream::ServicePrincipal {
            authority: Url::parse("https://login.microsoftonline.com").unwrap(),
            tenant: TENANT.to_uppercase(),
            client_id: OWN.to_uppercase(),
            secret: "s".into(),
        },
        _ => Upstream::AzureMl {
            endpoint: Url::parse("http://127.0.0.1:46808/MSI/auth").unwrap(),
            secret: None,
        },
    };
    Choice {
        strategy,
        upstream,
        client_id: (strategy == Strategy::ComputeIdentity).then(|| OWN.to_owned()),
    }
}

fn policy(strategy: Strategy) -> Policy {
    Policy::new(&choice(strategy), &Config::default())
}

fn known() -> Pinned {
    Pinned::Known(Principal {
        object_id: Some(OBJECT.to_owned()),
        app_id: Some(OWN.to_owned()),
        tenant_id: Some(TENANT.to_owned()),
        ..Principal::default()
    })
}

fn request() -> TokenRequest {
    TokenRequest::new(Target::Resource("https://storage.azure.com".to_owned()))
}

fn naming(identity: NamedIdentity) -> TokenRequest {
    TokenRequest {
        identity: Some(identity),
        ..request()
    }
}

fn client(id: &str) -> TokenRequest {
    naming(NamedIdentity::ClientId(id.to_owned()))
}

fn object(id: &str) -> TokenRequest {
    naming(NamedIdentity::ObjectId(id.to_owned()))
}

fn resource_id() -> TokenRequest {
    naming(NamedIdentity::ResourceId(RESOURCE_ID.to_owned()))
}

fn of_tenant(id: &str) -> TokenRequest {
    TokenRequest {
        tenant_id: Some(id.to_owned()),
        ..request()
    }
}

/// An outcome in short: whose token, or the rule.
fn outcome(policy: &Policy, request: &TokenRequest, own: Option<&Pinned>, honours: bool) -> String {
    match policy.authorize(request, own, honours) {
        Ok(Decision::Granted(granted)) => {
            let Key::Token {
                identity, tenant, ..
            } = granted.key()
            else {
                panic!("no token's key: {granted:?}");
            };
            match tenant {
                None => identity.to_string(),
                Some(tenant) => format!("{identity} of {tenant}"),
            }
        }
        Ok(Decision::NeedsPrincipal(first)) => {
            assert!(matches!(
                first.key(),
                Key::Token { identity: Identity::Job, tenant: None, resource } if *resource == Cloud::storage()
            ));
            "needs principal".to_owned()
        }
        Err(error) => match error.kind() {
            ErrorCode::Denied => {
                assert!(error.hint().is_some());
                let (_, rule) = error.message().rsplit_once("(rule ").unwrap();
                format!("denied by {}", rule.trim_end_matches(')'))
            }
            kind => kind.to_string(),
        },
    }
}

#[test]
fn a_request_without_a_name_is_the_jobs_own() {
    for strategy in [
        Strategy::UserIdentity,
        Strategy::ComputeIdentity,
        Strategy::Kubernetes,
        Strategy::SystemIdentity,
        Strategy::ComputeInstanceUser,
        Strategy::ServicePrincipal,
        Strategy::AzureCli,
        Strategy::Sandbox,
    ] {
        for own in [None, Some(&Pinned::Opaque), Some(&known())] {
            assert_eq!(
                outcome(&policy(strategy), &request(), own, false),
                "default"
            );
        }
    }
}

#[test]
fn a_cluster_serves_what_the_configuration_allows() {
    let allow = |list: Option<&[&str]>| {
        let config = Config {
            allow_identities: list.map(|ids| ids.iter().map(ToString::to_string).collect()),
            ..Config::default()
        };
        Policy::new(&choice(Strategy::ComputeIdentity), &config)
    };
    let upper = OTHER.to_uppercase();
    let other = format!("client_id {OTHER}");
    for (list, request, expected) in [
        (None, client(OWN), "default"),
        (None, client(&OWN.to_uppercase()), "default"),
        (None, client(&upper), other.as_str()),
        (None, resource_id(), &format!("resource_id {RESOURCE_ID}")),
        (Some(&[][..]), client(OWN), "default"),
        (Some(&[]), client(OTHER), "denied by allow-identities"),
        (Some(&[]), object(OTHER), "denied by allow-identities"),
        (Some(&[]), resource_id(), "denied by allow-identities"),
        (Some(&[OTHER]), client(&upper), &other),
        (Some(&[upper.as_str()]), client(OTHER), &other),
        (
            Some(&[OTHER]),
            client(FOREIGN),
            "denied by allow-identities",
        ),
        (
            Some(&[RESOURCE_ID]),
            resource_id(),
            &format!("resource_id {RESOURCE_ID}"),
        ),
    ] {
        assert_eq!(
            outcome(&allow(list), &request, None, false),
            expected,
            "{list:?} {request:?}"
        );
    }
    // Once the object id is known, it too is the job's own.
    assert_eq!(
        outcome(&allow(None), &object(OBJECT), Some(&known()), false),
        "default"
    );
}

#[test]
fn where_there_is_one_identity_only_its_own_name_is_served() {
    for strategy in [
        Strategy::Kubernetes,
        Strategy::SystemIdentity,
        Strategy::AzureCli,
        Strategy::Sandbox,
    ] {
        let policy = policy(strategy);
        let known = known();
        let nameless = Pinned::Known(Principal::default());
        for (request, own, expected) in [
            (client(OWN), None, "needs principal"),
            (client(OWN), Some(&known), "default"),
            (client(&OWN.to_uppercase()), Some(&known), "default"),
            (client(OTHER), None, "needs principal"),
            (client(OTHER), Some(&known), "denied by single-identity"),
            (
                client(OWN),
                Some(&Pinned::Opaque),
                "denied by single-identity",
            ),
            (client(OWN), Some(&nameless), "denied by single-identity"),
            (object(OBJECT), None, "needs principal"),
            (object(OBJECT), Some(&known), "default"),
            (object(OWN), Some(&known), "denied by single-identity"),
            (resource_id(), None, "denied by single-identity"),
            (resource_id(), Some(&known), "denied by single-identity"),
        ] {
            assert_eq!(
                outcome(&policy, &request, own, false),
                expected,
                "{strategy} {request:?}"
            );
        }
    }
}

#[test]
fn an_announced_client_id_needs_no_token_to_be_known() {
    let policy = policy(Strategy::ServicePrincipal);
    assert_eq!(outcome(&policy, &client(OWN), None, true), "default");
    assert_eq!(
        outcome(&policy, &client(OTHER), None, true),
        "denied by single-identity"
    );
}

#[test]
fn users_tokens_have_no_other_name() {
    for strategy in [Strategy::UserIdentity, Strategy::ComputeInstanceUser] {
        for request in [client(OWN), client(OTHER), object(OBJECT), resource_id()] {
            assert_eq!(
                outcome(&policy(strategy), &request, Some(&known()), false),
                "denied by named-identity",
            );
        }
    }
}

#[test]
fn names_that_are_none_never_go_upstream() {
    for strategy in [
        Strategy::ComputeIdentity,
        Strategy::SystemIdentity,
        Strategy::UserIdentity,
    ] {
        for request in [
            client("clientid"),
            client(""),
            object("me"),
            naming(NamedIdentity::ResourceId("name".to_owned())),
        ] {
            assert_eq!(
                outcome(&policy(strategy), &request, None, false),
                "invalid_request"
            );
        }
    }
}

#[test]
fn tenants() {
    let known = known();
    let own_tenant = TENANT.to_uppercase();
    let foreign = format!("default of {FOREIGN}");
    for (strategy, tenant, own, honours, expected) in [
        (
            Strategy::SystemIdentity,
            TENANT,
            None,
            false,
            "needs principal",
        ),
        (
            Strategy::SystemIdentity,
            &own_tenant,
            Some(&known),
            false,
            "default",
        ),
        (
            Strategy::SystemIdentity,
            FOREIGN,
            Some(&known),
            false,
            "denied by foreign-tenant",
        ),
        (
            Strategy::SystemIdentity,
            FOREIGN,
            Some(&Pinned::Opaque),
            false,
            "denied by foreign-tenant",
        ),
        (Strategy::ServicePrincipal, TENANT, None, true, "default"),
        (Strategy::ServicePrincipal, TENANT, None, false, "default"),
        (Strategy::ServicePrincipal, FOREIGN, None, true, &foreign),
        (
            Strategy::ServicePrincipal,
            "Other.Example",
            None,
            true,
            "default of other.example",
        ),
        (
            Strategy::ServicePrincipal,
            FOREIGN,
            None,
            false,
            "denied by foreign-tenant",
        ),
        (
            Strategy::SystemIdentity,
            "a/b",
            None,
            true,
            "invalid_request",
        ),
        (Strategy::SystemIdentity, "", None, true, "invalid_request"),
    ] {
        let decided = outcome(&policy(strategy), &of_tenant(tenant), own, honours);
        assert_eq!(decided, expected, "{strategy} {tenant} {honours}");
    }
}

#[test]
fn claims_and_validity_travel_along() {
    let policy = policy(Strategy::SystemIdentity);
    let grant = |request: &TokenRequest| match policy.authorize(request, None, false) {
        Ok(Decision::Granted(granted)) => Ok(granted),
        Ok(decision) => panic!("{decision:?}"),
        Err(error) => Err(error.kind()),
    };
    let granted = grant(&TokenRequest {
        claims: Some(r#"{"access_token":{}}"#.to_owned()),
        min_validity: Some(60),
        ..request()
    })
    .unwrap();
    assert_eq!(granted.claims(), Some(r#"{"access_token":{}}"#));
    assert_eq!(granted.min_validity(), Duration::from_secs(60));
    let granted = grant(&TokenRequest {
        min_validity: Some(u64::MAX),
        ..request()
    })
    .unwrap();
    assert_eq!(granted.min_validity(), Duration::from_secs(86_400));
    for claims in ["", "x", "[]", "\"x\"", "{"] {
        let refused = grant(&TokenRequest {
            claims: Some(claims.to_owned()),
            ..request()
        });
        assert_eq!(refused, Err(ErrorCode::InvalidRequest), "{claims}");
    }
}

#[test]
fn registries_use_the_jobs_identity_or_the_configured_one() {
    let server = LoginServer::parse("myreg.azurecr.io", &[]).unwrap();
    let decide = |strategy: Strategy, client_id: Option<&str>, own: Option<&Pinned>| {
        let mut config = Config {
            // What the configuration itself names needs no entry here.
            allow_identities: Some(Vec::new()),
            ..Config::default()
        };
        let registry = RegistryConfig {
            client_id: client_id.map(str::to_owned),
            ..RegistryConfig::default()
        };
        config
            .registries
            .insert("myreg.azurecr.io".to_owned(), registry);
        match Policy::new(&choice(strategy), &config).authorize_registry(&server, own) {
            Ok(Decision::Granted(granted)) => match granted.key() {
                Key::Registry { identity, server } => format!("{identity} at {server}"),
                key @ Key::Token { .. } => panic!("{key:?}"),
            },
            Ok(Decision::NeedsPrincipal(_)) => "needs principal".to_owned(),
            Err(error) => error.kind().to_string(),
        }
    };
    let own = "default at myreg.azurecr.io";
    let other = format!("client_id {OTHER} at myreg.azurecr.io");
    let known = known();
    for (strategy, client_id, pinned, expected) in [
        (Strategy::ComputeIdentity, None, None, own),
        (Strategy::ComputeIdentity, Some(OWN), None, own),
        (Strategy::ComputeIdentity, Some(OTHER), None, &other),
        (Strategy::UserIdentity, None, None, own),
        (Strategy::UserIdentity, Some(OTHER), None, "denied"),
        (Strategy::SystemIdentity, Some(OWN), None, "needs principal"),
        (Strategy::SystemIdentity, Some(OWN), Some(&known), own),
        (
            Strategy::SystemIdentity,
            Some(OTHER),
            Some(&known),
            "denied",
        ),
    ] {
        assert_eq!(
            decide(strategy, client_id, pinned),
            expected,
            "{strategy} {client_id:?}"
        );
    }
}

const APPLICATION: &str = "eeeeeeee-0000-0000-0000-000000000006";

fn federated(strategy: Strategy, resources: Option<&[&str]>) -> Policy {
    let config = Config {
        federated: Federated {
            client_id: Some(APPLICATION.to_owned()),
            tenant_id: Some(FOREIGN.to_owned()),
            resources: resources.map(|list| list.iter().map(|text| (*text).to_owned()).collect()),
        },
        ..Config::default()
    };
    Policy::new(&choice(strategy), &config)
}

fn application() -> Identity {
    Identity::Application {
        client_id: APPLICATION.to_owned(),
        tenant_id: FOREIGN.to_owned(),
    }
}

fn granted(policy: &Policy, request: &TokenRequest) -> Key {
    match policy.authorize(request, Some(&known()), false).unwrap() {
        Decision::Granted(granted) => granted.key().clone(),
        Decision::NeedsPrincipal(_) => panic!("it is known"),
    }
}

#[test]
fn a_request_that_names_nobody_is_the_applications_where_the_configuration_says_so() {
    let other = TokenRequest::new(Target::Scope("https://vault.azure.net/.default".to_owned()));
    for (resources, storage, vault) in [
        (None, application(), application()),
        (
            Some(&["https://storage.azure.com/.default"][..]),
            application(),
            Identity::Job,
        ),
        (Some(&[][..]), Identity::Job, Identity::Job),
    ] {
        let policy = federated(Strategy::ComputeIdentity, resources);
        let key = granted(&policy, &request());
        assert_eq!(*key.identity(), storage, "{resources:?}");
        assert!(matches!(key, Key::Token { tenant: None, .. }));
        assert_eq!(*granted(&policy, &other).identity(), vault, "{resources:?}");
        assert_eq!(
            *policy.authorize_own(Cloud::storage()).key().identity(),
            storage
        );
    }
}

#[test]
fn who_names_somebody_gets_just_that() {
    let in_tenant = |tenant: &str, mut request: TokenRequest| {
        request.tenant_id = Some(tenant.to_owned());
        request
    };
    let named = |id: &str| naming(NamedIdentity::ClientId(id.to_owned()));
    for resources in [None, Some(&[][..])] {
        let policy = federated(Strategy::ComputeIdentity, resources);
        for (request, expected) in [
            (named(&APPLICATION.to_uppercase()), application()),
            (in_tenant(&FOREIGN.to_uppercase(), request()), application()),
            (in_tenant(FOREIGN, named(APPLICATION)), application()),
            (named(OWN), Identity::Job),
            (in_tenant(TENANT, request()), Identity::Job),
            (named(OTHER), Identity::ClientId(OTHER.to_owned())),
        ] {
            assert_eq!(
                *granted(&policy, &request).identity(),
                expected,
                "{request:?}"
            );
        }
        for wrong in [
            in_tenant(TENANT, named(APPLICATION)),
            in_tenant(FOREIGN, named(OWN)),
        ] {
            let error = policy.authorize(&wrong, Some(&known()), false).unwrap_err();
            assert_eq!(error.kind(), ErrorCode::Denied, "{wrong:?}");
            assert!(error.message().contains("foreign-tenant"), "{error}");
        }
    }
}

#[test]
fn a_registry_is_asked_as_its_own_application_or_the_jobs() {
    let registries = |entries: &[(&str, RegistryConfig)]| {
        entries
            .iter()
            .map(|(host, registry)| ((*host).to_owned(), registry.clone()))
            .collect()
    };
    let own = RegistryConfig {
        client_id: Some(OTHER.to_owned()),
        tenant_id: Some(TENANT.to_owned()),
        federated: true,
        ..RegistryConfig::default()
    };
    let with_identity = RegistryConfig {
        client_id: Some(OTHER.to_owned()),
        ..RegistryConfig::default()
    };
    let in_tenant = |tenant: &str| RegistryConfig {
        tenant_id: Some(tenant.to_owned()),
        ..RegistryConfig::default()
    };
    let entries = [
        ("own.azurecr.io", own),
        ("named.azurecr.io", with_identity),
        ("there.azurecr.io", in_tenant(FOREIGN)),
        ("home.azurecr.io", in_tenant(TENANT)),
    ];
    let policy = |strategy, resources| {
        let mut policy = federated(strategy, resources);
        policy.config.registries = registries(&entries);
        policy
    };
    let ask = |policy: &Policy, host: &str| {
        let server = policy.config.login_server(host).unwrap();
        policy
            .authorize_registry(&server, Some(&known()))
            .map(|decision| match decision {
                Decision::Granted(granted) => granted.key().identity().clone(),
                Decision::NeedsPrincipal(_) => panic!("it is known"),
            })
    };
    let others = Identity::Application {
        client_id: OTHER.to_owned(),
        tenant_id: TENANT.to_owned(),
    };
    let all = policy(Strategy::ComputeIdentity, None);
    let none = policy(Strategy::ComputeIdentity, Some(&[]));
    let listed = policy(
        Strategy::ComputeIdentity,
        Some(&["https://containerregistry.azure.net"]),
    );
    for (host, with_all, with_none) in [
        ("own.azurecr.io", others.clone(), others),
        (
            "named.azurecr.io",
            Identity::ClientId(OTHER.to_owned()),
            Identity::ClientId(OTHER.to_owned()),
        ),
        ("there.azurecr.io", application(), Identity::Job),
        ("home.azurecr.io", Identity::Job, Identity::Job),
        ("any.azurecr.io", application(), Identity::Job),
    ] {
        assert_eq!(ask(&all, host).unwrap(), with_all, "{host}");
        assert_eq!(ask(&listed, host).unwrap(), with_all, "{host}");
        assert_eq!(ask(&none, host).unwrap(), with_none, "{host}");
    }
    let user = policy(Strategy::UserIdentity, Some(&[]));
    let error = ask(&user, "own.azurecr.io").unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Denied);
    assert!(error.message().contains("rule federation"), "{error}");
    assert_eq!(ask(&user, "any.azurecr.io").unwrap(), Identity::Job);
    // A sandbox acts as nobody.
    let sandbox = policy(Strategy::Sandbox, None);
    assert_eq!(ask(&sandbox, "any.azurecr.io").unwrap(), Identity::Job);
    assert_eq!(*granted(&sandbox, &request()).identity(), Identity::Job);
}

#[test]
fn a_name_that_is_none_comes_with_the_way_out() {
    let policy = policy(Strategy::ComputeIdentity);
    for (named, hint) in [
        (
            NamedIdentity::ClientId("clientid".to_owned()),
            "DEFAULT_IDENTITY_CLIENT_ID",
        ),
        (
            NamedIdentity::ClientId("my-identity".to_owned()),
            "AZURE_CLIENT_ID",
        ),
        (NamedIdentity::ObjectId("x".to_owned()), "principal"),
        (
            NamedIdentity::ResourceId("x".to_owned()),
            "az identity show",
        ),
    ] {
        let error = policy.authorize(&naming(named), None, false).unwrap_err();
        assert_eq!(error.kind(), ErrorCode::InvalidRequest);
        assert!(error.hint().unwrap().contains(hint), "{error:?}");
    }
}

#[test]
fn a_dialect_tells_whose_tokens_are_wanted() {
    const USERS: [Strategy; 2] = [Strategy::UserIdentity, Strategy::ComputeInstanceUser];
    const OTHERS: [Strategy; 5] = [
        Strategy::ComputeIdentity,
        Strategy::Kubernetes,
        Strategy::SystemIdentity,
        Strategy::ServicePrincipal,
        Strategy::AzureCli,
    ];
    let refusing = Config {
        user_dialects: UserDialects::Refuse,
        ..Config::default()
    };
    for (config, serves_users) in [(&Config::default(), true), (&refusing, false)] {
        for (strategies, is_users) in [(&USERS[..], true), (&OTHERS[..], false)] {
            for strategy in strategies {
                let policy = Policy::new(&choice(*strategy), config);
                for dialect in Dialect::ALL {
                    let expected = match dialect {
                        Dialect::OnBehalfOf => is_users,
                        _ => serves_users || !is_users,
                    };
                    let admitted = policy.admit_dialect(dialect);
                    assert_eq!(admitted.is_ok(), expected, "{strategy} {dialect:?}");
                    if let Err(error) = admitted {
                        assert_eq!(error.kind(), ErrorCode::Denied);
                    }
                }
            }
        }
    }
    let sandbox = Policy::new(&choice(Strategy::Sandbox), &refusing);
    assert!(
        Dialect::ALL
            .iter()
            .all(|dialect| sandbox.admit_dialect(*dialect).is_ok())
    );
}
