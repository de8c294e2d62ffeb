//! From an answer of storage to what it means: pure, and no network in it.
//!
//! The codes and their causes are those of Microsoft's documentation ("Common REST API error codes", "Troubleshoot 403 errors in
//! Azure Blob Storage", "Access control model in Azure Data Lake Storage") and of recorded answers of the service. What is not
//! established there is said with care, or not at all.

use jobcred_wire::PrincipalClaims;

use super::finding::{self, Access, Finding};
use super::{Answer, Location, Service, code};
use crate::platform::UnixTime;

#[cfg(test)]
mod tests;

/// A larger difference between two clocks than this is said, in seconds. Issuers and services allow five minutes.
const SKEW_SECONDS: i64 = 300;

/// What was asked of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A listing of one entry.
    List,
    /// A new, empty file.
    Create,
    /// The end of that file.
    Delete,
}

/// How the service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// By an address of a private network: a private endpoint.
    Private,
    /// By a public address.
    Public,
    /// Through a proxy, whose address is what the account sees.
    Proxy,
    /// Not known.
    #[default]
    Unknown,
}

/// What is known besides the answer.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// What was asked.
    pub operation: Operation,
    /// Where.
    pub location: &'a Location,
    /// Whose token was sent.
    pub claims: &'a PrincipalClaims,
    /// How the service is reached.
    pub way: Way,
    /// The time here when the answer came.
    pub now: UnixTime,
}

impl Situation<'_> {
    fn access(&self) -> Access {
        match self.operation {
            Operation::List => Access::Read,
            Operation::Create | Operation::Delete => Access::Write,
        }
    }

    fn what(&self) -> &'static str {
        match self.operation {
            Operation::List => "list",
            Operation::Create => "write",
            Operation::Delete => "delete",
        }
    }
}

/// How far this machine's clock is ahead of the service's, in seconds; negative when it is behind.
#[must_use]
pub fn skew(answer: &Answer, now: UnixTime) -> Option<i64> {
    Some(now.as_secs().saturating_sub(answer.date?.as_secs()))
}

/// A finding where the two clocks are too far apart, whatever the answer is.
#[must_use]
pub fn clock(answer: &Answer, now: UnixTime) -> Option<Finding> {
    let skew = skew(answer, now).filter(|skew| skew.abs() > SKEW_SECONDS)?;
    let (side, minutes) = (
        if skew > 0 { "ahead of" } else { "behind" },
        (skew.abs() + 30) / 60,
    );
    Some(
        Finding::warning(
            code::CLOCK_SKEW,
            format!("this machine's clock is {minutes} minutes {side} the service's"),
            "Tokens are valid between two points in time, so a wrong clock makes good tokens look ended, or not yet begun.",
        )
        .fix("Set the clock of the node; a container has no clock of its own."),
    )
}

/// What a refusal means. `None` for an answer that is none.
#[must_use]
pub fn judge(answer: &Answer, situation: &Situation<'_>) -> Option<Finding> {
    if answer.is_success() {
        return None;
    }
    let found = if answer.is_from_storage() {
        by_code(answer, situation)
    } else {
        not_storage(answer)
    };
    if situation.claims.sandbox && is_about_the_token(found.code) {
        return Some(
            Finding::failure(
                code::SANDBOX_TOKEN,
                "a sandbox token was refused",
                "The sandbox makes its tokens itself; only emulators take them.",
            )
            .fix("Leave --sandbox away, or check an emulator (--service blob https://127.0.0.1:10000/devstoreaccount1/CONTAINER)."),
        );
    }
    Some(found)
}

fn is_about_the_token(found: &str) -> bool {
    [
        code::AUDIENCE,
        code::TENANT,
        code::TOKEN_EXPIRED,
        code::TOKEN_LIFETIME,
        code::TOKEN_REJECTED,
    ]
    .contains(&found)
}

fn by_code(answer: &Answer, situation: &Situation<'_>) -> Finding {
    let container = situation.location.container();
    match answer.code.as_deref().unwrap_or_default() {
        "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions" => no_right(situation),
        "AuthorizationFailure" | "AuthorizationSourceIPMismatch" => network_rules(situation),
        "InvalidAuthenticationInfo" | "AuthenticationFailed" => token(answer, situation),
        "NoAuthenticationInformation" | "PublicAccessNotPermitted" => Finding::failure(
            code::TOKEN_NOT_RECEIVED,
            "the service saw no token, although one was sent",
            "Something between here and the service has taken the Authorization header out of the request.",
        )
        .fix("Look at the proxy on the way, or let this host pass it by: add it to NO_PROXY."),
        "KeyBasedAuthenticationNotPermitted" => Finding::failure(
            code::KEYS_DISABLED,
            "the account takes no keys",
            "A token was sent, so the Authorization header must have been replaced on the way. (Programs of the job that use an \
             account key or a signature made with one are refused in the same words.)",
        )
        .fix("Use the identity and no key: take AZURE_STORAGE_KEY and connection strings out of the job."),
        "AccountIsDisabled" => Finding::failure(
            code::ACCOUNT_DISABLED,
            "the account is disabled",
            "The storage account, or the subscription that it is in, has been disabled.",
        )
        .fix("Ask the owner of the subscription."),
        "ContainerNotFound" | "FilesystemNotFound" => Finding::failure(
            code::CONTAINER_NOT_FOUND,
            format!("there is no container {container}"),
            "The account is there and took the token, and has no container (file system) of this name.",
        )
        .fix("Look for the right name; a container that was just deleted takes a while to be gone."),
        "ContainerBeingDeleted" | "FilesystemBeingDeleted" => Finding::failure(
            code::CONTAINER_NOT_FOUND,
            format!("the container {container} is being deleted"),
            "The service is in the middle of deleting it.",
        ),
        "PathNotFound" | "BlobNotFound" => Finding::failure(
            code::PATH_NOT_FOUND,
            "the path is not there",
            "The identity may ask, and the container is there; nothing has this path.",
        )
        .fix("Compare the path with a listing of the container. Upper and lower case differ."),
        "ResourceNotFound" => Finding::failure(
            code::NOT_FOUND,
            "the service does not know what was asked for",
            "It does not say whether the account, the container or the path is missing.",
        )
        .fix("Check the names in the URL one by one."),
        "EndpointUnsupportedAccountFeatures" => Finding::failure(
            code::DFS_UNSUPPORTED,
            "the dfs endpoint does not work with a feature of this account",
            "The service's message names the feature. Accounts without a hierarchical namespace are known for this.",
        )
        .fix_by("Use the blob endpoint:", finding::by_other_endpoint(situation.location)),
        "BlobApiNotYetSupportedForHierarchicalNamespaceAccounts"
        | "FeatureNotYetSupportedForHierarchicalNamespaceAccounts" => Finding::failure(
            code::BLOB_UNSUPPORTED,
            "the blob endpoint does not do this for an account with a hierarchical namespace",
            "The account is one of Data Lake Storage.",
        )
        .fix_by("Use the dfs endpoint:", finding::by_other_endpoint(situation.location)),
        "BlobImmutableDueToPolicy" => Finding::failure(
            code::IMMUTABLE,
            "a retention policy or a legal hold forbids it",
            "The rights are there: an immutability policy of the container, the account or the file says no.",
        )
        .fix("Write to another container, or ask whoever keeps the policy."),
        "LeaseIdMissing" | "LeaseAlreadyPresent" | "LeaseIdMismatchWithBlobOperation"
        | "LeaseIdMismatchWithContainerOperation" => Finding::failure(
            code::LEASED,
            "somebody holds a lease on it",
            "A lease lets its holder alone change a file, or delete a container.",
        )
        .fix("Wait until the lease ends, or ask its holder to end it."),
        "BlobAlreadyExists" | "PathAlreadyExists" => Finding::failure(
            code::EXISTS,
            "something has the probe's name already",
            "It was left as it is. The name is made of random digits, so this should not happen.",
        )
        .fix("Try again."),
        "ServerBusy" | "InternalError" | "OperationTimedOut" => busy(answer),
        _ => by_status(answer, situation),
    }
}

fn by_status(answer: &Answer, situation: &Situation<'_>) -> Finding {
    match answer.status {
        401 => token(answer, situation),
        400 => Finding::failure(
            code::BAD_REQUEST,
            "the service does not take the request",
            "Its own words are above. A name in the URL that cannot be is the usual reason.",
        )
        .fix("Check the names in the URL."),
        404 => Finding::failure(
            code::NOT_FOUND,
            "the service does not know what was asked for",
            "It gives no code that would say what is missing.",
        )
        .fix("Check the names in the URL one by one."),
        429 | 500..=599 => busy(answer),
        status => Finding::failure(
            code::REFUSED,
            format!("the service refused with status {status}"),
            "Its code is not one that this version can explain.",
        )
        .fix("Look the code up in \"Common REST API error codes\" of Azure Storage, and give the request id to Azure's support."),
    }
}

fn busy(answer: &Answer) -> Finding {
    Finding::failure(
        code::BUSY,
        "the service is busy or has a fault",
        format!(
            "It answered {}. Nothing has to be changed for that, and nothing is said about rights.",
            answer.status
        ),
    )
    .fix("Try again in a minute.")
}

fn not_storage(answer: &Answer) -> Finding {
    Finding::failure(
        code::NOT_STORAGE,
        format!("something else than Azure Storage answered {}", answer.status),
        "The answer has neither the request id nor the error code that the service always sends.",
    )
    .fix("A proxy, a firewall or a portal sits in between: ask for this host to be let through, or add it to NO_PROXY.")
}

/// 403 with the token accepted: the identity is known, and may not.
fn no_right(situation: &Situation<'_>) -> Finding {
    let (location, claims, access) = (situation.location, situation.claims, situation.access());
    let role = access.role();
    let what = situation.what();
    let container = location.container();
    let who = if claims.kind.as_deref() == Some("user") {
        "the user"
    } else {
        "the identity"
    };
    let is_dfs = location.service() == Service::Dfs;
    let found = if is_dfs {
        Finding::failure(
            code::ROLE_OR_ACL_MISSING,
            format!("{who} may not {what} here: no role, and no access control list allows it"),
            "The token is good and the service knows whose it is. It looks for a role first, then at the access control lists of the \
             path and of every directory above it; neither allows this.",
        )
    } else {
        Finding::failure(
            code::ROLE_MISSING,
            format!("{who} may not {what} in {container}: no role allows it"),
            "The token is good and the service knows whose it is. Owner, Contributor and Reader are no roles on data: it takes one \
             whose name begins with \"Storage Blob Data\".",
        )
    };
    let mut found = found
        .fix_by(
            format!(
                "Have somebody who may assign roles (an Owner, User Access Administrator or Role Based Access Control Administrator of \
                 the account) give it {role}:"
            ),
            finding::role_assignment(location, claims, access),
        )
        .fix_by(
            "What is in angle brackets cannot be known from here. This shows it:",
            finding::scope_of_account(location),
        );
    if is_dfs {
        found = found.fix_by(
            "Or give this path alone, by access control list; every directory above it, up to the root, needs --x for it too:",
            finding::access_control_entry(location, claims, access),
        );
    }
    found.fix(
        "A new role takes up to ten minutes to work. Through a group it may take a day: a managed identity's token, and the groups \
         in it, are kept by the platform for up to 24 hours, and nobody can renew it sooner. Give the role to the identity itself.",
    )
}

/// `AuthorizationFailure`: documented as the words of the firewall, where a token is used.
fn network_rules(situation: &Situation<'_>) -> Finding {
    let way = match situation.way {
        Way::Private => {
            "The request came by a private address, so this may be a private endpoint of another account or of the account's other \
             endpoint (blob and dfs have one each), or a network security perimeter around the account."
        }
        Way::Public => {
            "The request came by a public address. If the account has a private endpoint, this network's DNS does not lead to it."
        }
        Way::Proxy => "The request came through a proxy, and the account sees the proxy's address.",
        Way::Unknown => "How the request reached the account is not known.",
    };
    Finding::failure(
        code::NETWORK_RULES,
        "the account does not take requests from this network",
        format!("Whether the identity has the right role is not said yet: check again once this is mended. {way}"),
    )
    .fix_by(
        "See what the account allows:",
        finding::network_rules(situation.location),
    )
    .fix(
        "Then have its owner allow this compute's subnet or address, or give its network a private endpoint of the account. On \
         Azure ML with a managed network, add an outbound rule to the account.",
    )
}

/// The service does not take the token: for whom, from whom, or when.
fn token(answer: &Answer, situation: &Situation<'_>) -> Finding {
    let detail = answer.detail.as_deref().unwrap_or_default();
    let has = |part: &str| detail.to_ascii_lowercase().contains(part);
    let claims = situation.claims;
    if has("audience") {
        return Finding::failure(
            code::AUDIENCE,
            "the token is for another service",
            format!(
                "Storage wants a token for https://storage.azure.com; this one is for {}.",
                claims.audience.as_deref().unwrap_or("something that it does not say")
            ),
        )
        .fix("Ask for a token for https://storage.azure.com, whatever the account and the cloud are.");
    }
    if has("lifetime") || has("expired") {
        return lifetime(answer, situation, has("expired"));
    }
    let other_tenant = match (&answer.tenant, &claims.tenant_id) {
        (Some(wanted), Some(own)) => !wanted.eq_ignore_ascii_case(own),
        _ => false,
    };
    if other_tenant || has("issuer") {
        return tenant(answer, claims);
    }
    Finding::failure(
        code::TOKEN_REJECTED,
        "the service does not take the token",
        if detail.is_empty() {
            "It does not say why.".to_owned()
        } else {
            "Its own words are above.".to_owned()
        },
    )
    .fix("See whose token it is, and for what, above; give the request id to Azure's support when that is right.")
}

fn tenant(answer: &Answer, claims: &PrincipalClaims) -> Finding {
    let own = claims.tenant_id.as_deref().unwrap_or("an unknown one");
    let wanted = answer.tenant.as_deref().map_or_else(String::new, |tenant| {
        format!(" The account trusts the tenant {tenant}.")
    });
    Finding::failure(
        code::TENANT,
        "the account is in another tenant",
        format!("The token was issued by the tenant {own}.{wanted} An account takes tokens of its own tenant only."),
    )
    .fix(
        "A managed identity has tokens of its own tenant and no other. Use storage of that tenant, or have the job act as an \
         application of the account's tenant that trusts the identity: `federated` in the configuration, for an identity that is \
         user-assigned.",
    )
}

fn lifetime(answer: &Answer, situation: &Situation<'_>, has_ended: bool) -> Finding {
    let skew = skew(answer, situation.now).filter(|skew| skew.abs() > SKEW_SECONDS);
    let clocks = match skew {
        Some(skew) => format!(
            " This machine's clock is {} minutes {} the service's.",
            (skew.abs() + 30) / 60,
            if skew > 0 { "ahead of" } else { "behind" }
        ),
        None if answer.date.is_some() => {
            " This machine's clock and the service's agree, to within five minutes.".to_owned()
        }
        None => String::new(),
    };
    if has_ended {
        return Finding::failure(
            code::TOKEN_EXPIRED,
            "the token has ended",
            format!("The service's clock is past the end of the token.{clocks}"),
        )
        .fix("If the clocks agree, the platform keeps giving out an old token: try again in a few minutes.");
    }
    Finding::failure(
        code::TOKEN_LIFETIME,
        "the token is not valid at this time",
        format!("The service's clock is outside the token's life, and the service does not say that it has ended: it may not have begun.{clocks}"),
    )
    .fix("If the clocks differ, set the node's. If they agree, try again in a minute.")
}
