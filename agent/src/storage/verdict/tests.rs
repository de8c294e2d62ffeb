//! One table: what the service says, and what is made of it.

use jobcred_wire::PrincipalClaims;

use super::{Operation, Situation, Way, clock, judge};
use crate::platform::UnixTime;
use crate::storage::{Answer, Finding, Hints, Location, Weight};

const OWN_TENANT: &str = "6f1f3c9a-0d5e-4f0b-9d63-3f2b8f6f7a10";
const OTHER_TENANT: &str = "0badc0de-0000-4000-8000-000000000000";
const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
const BLOB: &str = "https://acct.blob.core.windows.net/data/train";
const DFS: &str = "https://acct.dfs.core.windows.net/data/train";

struct Case {
    status: u16,
    code: &'static str,
    detail: &'static str,
    tenant: &'static str,
    operation: Operation,
    url: &'static str,
    way: Way,
    skew: i64,
    sandbox: bool,
}

const LIST: Case = Case {
    status: 403,
    code: "",
    detail: "",
    tenant: "",
    operation: Operation::List,
    url: BLOB,
    way: Way::Public,
    skew: 0,
    sandbox: false,
};

/// A listing by a public address that was answered so.
const fn on(status: u16, code: &'static str) -> Case {
    Case {
        status,
        code,
        ..LIST
    }
}

impl Case {
    const fn detail(self, detail: &'static str) -> Self {
        Self { detail, ..self }
    }

    const fn tenant(self, tenant: &'static str) -> Self {
        Self { tenant, ..self }
    }

    const fn doing(self, operation: Operation) -> Self {
        Self { operation, ..self }
    }

    const fn dfs(self) -> Self {
        Self { url: DFS, ..self }
    }

    const fn by(self, way: Way) -> Self {
        Self { way, ..self }
    }

    const fn skewed(self, skew: i64) -> Self {
        Self { skew, ..self }
    }

    const fn sandboxed(self) -> Self {
        Self {
            sandbox: true,
            ..self
        }
    }

    fn judged(&self) -> Finding {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let answer = Answer {
            status: self.status,
            code: some(self.code),
            detail: some(self.detail),
            tenant: some(self.tenant),
            request_id: Some("7f24e989-8003-0013-45a4-fdb72d000000".to_owned()),
            date: Some(UnixTime::from_secs(NOW.as_secs() - self.skew)),
            ..Answer::default()
        };
        let location = Location::parse(self.url, &Hints::default()).unwrap();
        let claims = PrincipalClaims {
            object_id: Some("11111111-2222-4333-8444-555555555555".to_owned()),
            tenant_id: Some(OWN_TENANT.to_owned()),
            audience: Some("https://vault.azure.net".to_owned()),
            kind: Some("app".to_owned()),
            sandbox: self.sandbox,
            ..PrincipalClaims::default()
        };
        let situation = Situation {
            operation: self.operation,
            location: &location,
            claims: &claims,
            way: self.way,
            now: NOW,
        };
        judge(&answer, &situation).unwrap()
    }
}

fn said(finding: &Finding) -> String {
    let mut lines = vec![finding.title.as_str(), finding.explanation.as_str()];
    for fix in &finding.fixes {
        lines.extend([
            fix.text.as_str(),
            fix.command.as_deref().unwrap_or_default(),
        ]);
    }
    lines.join("\n")
}

const MISMATCH: &str = "AuthorizationPermissionMismatch";
const INFO: &str = "InvalidAuthenticationInfo";
const FAILED: &str = "AuthenticationFailed";
const AUDIENCE: &str = "Audience validation failed. Audience did not match.";
const ISSUER: &str = "Issuer validation failed. Issuer did not match.";
const EXPIRED: &str = "Lifetime validation failed. The token is expired.";
const OID: &str = "11111111-2222-4333-8444-555555555555";

/// A case, the code of its finding, and what is said with it.
type Row = (Case, &'static str, &'static [&'static str]);

const AUTHORIZATION: &[Row] = &[
    (
        on(403, MISMATCH),
        "role_missing",
        &[
            "\"Storage Blob Data Reader\"",
            OID,
            "storageAccounts/acct/blobServices/default/containers/data",
            "24 hours",
        ],
    ),
    (
        on(403, MISMATCH).doing(Operation::Create),
        "role_missing",
        &["\"Storage Blob Data Contributor\"", "may not write"],
    ),
    (
        on(403, MISMATCH).doing(Operation::Delete),
        "role_missing",
        &["may not delete"],
    ),
    (
        on(403, MISMATCH).dfs(),
        "role_or_acl_missing",
        &[
            "\"Storage Blob Data Reader\"",
            "az storage fs access update-recursive",
            "--path train",
            ":r-x",
        ],
    ),
    (
        on(403, "AuthorizationFailure"),
        "network_rules",
        &["public address", "az storage account show --name acct"],
    ),
    (
        on(403, "AuthorizationFailure").by(Way::Private),
        "network_rules",
        &["private address", "perimeter"],
    ),
    (
        on(403, "AuthorizationFailure").by(Way::Proxy),
        "network_rules",
        &["proxy's address"],
    ),
    (
        on(403, "KeyBasedAuthenticationNotPermitted"),
        "keys_disabled",
        &[],
    ),
    (on(403, "AccountIsDisabled"), "account_disabled", &[]),
    (on(403, "SomethingNew"), "refused", &["request id"]),
];

const AUTHENTICATION: &[Row] = &[
    (
        on(401, INFO).detail(AUDIENCE),
        "audience",
        &["https://vault.azure.net"],
    ),
    (on(403, FAILED).detail(AUDIENCE), "audience", &[]),
    // Of the emulator.
    (
        on(403, FAILED).detail("Invalid token audience."),
        "audience",
        &[],
    ),
    (
        on(401, INFO).detail(ISSUER).tenant(OTHER_TENANT),
        "tenant",
        &[OWN_TENANT, OTHER_TENANT],
    ),
    (on(403, FAILED).detail(ISSUER), "tenant", &[OWN_TENANT]),
    (
        on(401, INFO).tenant(OTHER_TENANT),
        "tenant",
        &[OTHER_TENANT],
    ),
    (
        on(401, INFO).tenant(OWN_TENANT),
        "token_rejected",
        &["does not say why"],
    ),
    (on(403, FAILED).detail(EXPIRED), "token_expired", &["agree"]),
    (
        on(403, FAILED).detail(EXPIRED).skewed(-3_600),
        "token_expired",
        &["60 minutes behind"],
    ),
    (
        on(401, INFO)
            .detail("Lifetime validation failed.")
            .skewed(7_200),
        "token_lifetime",
        &["120 minutes ahead of"],
    ),
    (
        on(401, FAILED).detail("Signature validation failed."),
        "token_rejected",
        &[],
    ),
    (
        on(401, "NoAuthenticationInformation"),
        "token_not_received",
        &["proxy"],
    ),
    (
        on(409, "PublicAccessNotPermitted"),
        "token_not_received",
        &[],
    ),
    (
        on(401, INFO)
            .detail("Issuer validation failed.")
            .sandboxed(),
        "sandbox_token",
        &["--sandbox"],
    ),
];

const OTHERS: &[Row] = &[
    (
        on(404, "ContainerNotFound"),
        "container_not_found",
        &["data"],
    ),
    (
        on(404, "FilesystemNotFound").dfs(),
        "container_not_found",
        &[],
    ),
    // Emulators take sandbox tokens, and have containers.
    (
        on(404, "ContainerNotFound").sandboxed(),
        "container_not_found",
        &[],
    ),
    (on(404, "PathNotFound").dfs(), "path_not_found", &[]),
    (on(404, "ResourceNotFound"), "not_found", &[]),
    (on(404, ""), "not_found", &[]),
    (
        on(409, "EndpointUnsupportedAccountFeatures").dfs(),
        "dfs_unsupported",
        &["jobcred check https://acct.blob.core.windows.net/data/train"],
    ),
    (
        on(
            409,
            "FeatureNotYetSupportedForHierarchicalNamespaceAccounts",
        ),
        "blob_unsupported",
        &["jobcred check https://acct.dfs.core.windows.net/data/train"],
    ),
    (
        on(409, "BlobImmutableDueToPolicy").doing(Operation::Create),
        "immutable",
        &[],
    ),
    (
        on(412, "LeaseIdMissing").doing(Operation::Delete),
        "leased",
        &[],
    ),
    (
        on(409, "BlobAlreadyExists").doing(Operation::Create),
        "exists",
        &["left as it is"],
    ),
    (
        on(409, "PathAlreadyExists").doing(Operation::Create).dfs(),
        "exists",
        &[],
    ),
    (on(503, "ServerBusy"), "busy", &[]),
    (on(500, ""), "busy", &[]),
    (on(400, "InvalidUri"), "bad_request", &[]),
];

#[test]
fn every_refusal_has_its_finding() {
    let rows = [AUTHORIZATION, AUTHENTICATION, OTHERS];
    for (case, expected, parts) in rows.into_iter().flatten() {
        let finding = case.judged();
        let text = said(&finding);
        assert_eq!(
            finding.code, *expected,
            "{} {}: {text}",
            case.status, case.code
        );
        assert_eq!(finding.weight, Weight::Failure);
        for part in *parts {
            assert!(text.contains(part), "{expected}: no {part:?} in\n{text}");
        }
    }
}

#[test]
fn a_proxys_refusal_is_not_taken_for_the_services() {
    let location = Location::parse(BLOB, &Hints::default()).unwrap();
    let claims = PrincipalClaims::default();
    let situation = Situation {
        operation: Operation::List,
        location: &location,
        claims: &claims,
        way: Way::Proxy,
        now: NOW,
    };
    for status in [401, 403, 404, 503] {
        let answer = Answer {
            status,
            ..Answer::default()
        };
        assert_eq!(judge(&answer, &situation).unwrap().code, "not_storage");
    }
    let fine = Answer {
        status: 200,
        ..Answer::default()
    };
    assert_eq!(judge(&fine, &situation), None);
}

#[test]
fn clocks_more_than_five_minutes_apart_are_said() {
    let at = |offset: i64| {
        let answer = Answer {
            date: Some(UnixTime::from_secs(NOW.as_secs() + offset)),
            ..Answer::default()
        };
        clock(&answer, NOW).map(|finding| finding.title)
    };
    assert_eq!(at(0), None);
    assert_eq!(at(300), None);
    assert_eq!(at(-300), None);
    assert!(at(601).unwrap().contains("10 minutes behind"));
    assert!(at(-86_400).unwrap().contains("1440 minutes ahead of"));
    assert_eq!(clock(&Answer::default(), NOW), None);
}
