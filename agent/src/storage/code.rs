//! The stable codes of `jobcred check`. As with those of `explain`, none is ever given another meaning.

/// Defines the codes as constants and lists them with their meanings.
macro_rules! codes {
    ($($name:ident = $code:literal: $meaning:literal;)+) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)+
        /// Every code with its meaning, which is its documentation.
        pub const CODES: &[(&str, &str)] = &[$(($name, $meaning),)+];
    };
}

codes! {
    NAME_NOT_FOUND = "name_not_found": "The host has no address: the account does not exist, or this network's DNS does not know it.";
    NAME_FAILED = "name_failed": "The name could not be looked up at all.";
    PRIVATE_ENDPOINT_BYPASSED = "private_endpoint_bypassed": "The account has a private endpoint, but its name leads to a public address here.";
    NO_CONNECTION = "no_connection": "Nothing accepts a connection at the host's address.";
    CONNECTION_TIMEOUT = "connection_timeout": "A connection, or an answer on it, did not come in time.";
    PROXY = "proxy": "The proxy that the environment names is set wrongly, cannot be reached, or refuses.";
    TLS_UNKNOWN_ISSUER = "tls_unknown_issuer": "The certificate is by an issuer that is not trusted here; a proxy that opens TLS is the usual one.";
    TLS_WRONG_NAME = "tls_wrong_name": "The certificate is for another host.";
    TLS_OUT_OF_DATE = "tls_out_of_date": "The certificate is not valid at the time that this machine's clock shows.";
    TLS_FAILED = "tls_failed": "TLS failed for another reason.";
    ROOTS_MISSING = "roots_missing": "There are no roots to check certificates with.";
    NO_IDENTITY = "no_identity": "No identity can be had here; `jobcred explain` says more.";
    TOKEN_REFUSED = "token_refused": "The identity endpoint, or the agent, gave no token.";
    PROMISE_BROKEN = "promise_broken": "The token belongs to somebody else than the strategy announced; an agent would refuse it.";
    OTHER_AUDIENCE = "other_audience": "The token is for another service than storage.";
    CLOCK_SKEW = "clock_skew": "This machine's clock and the service's differ by more than five minutes.";
    ROLE_MISSING = "role_missing": "The token is good, and its owner has no role that allows this.";
    ROLE_OR_ACL_MISSING = "role_or_acl_missing": "The token is good, and neither a role nor an access control list allows this.";
    NETWORK_RULES = "network_rules": "The account does not take requests from this network.";
    AUDIENCE = "audience": "The service says that the token is for another audience.";
    TENANT = "tenant": "The account trusts another tenant than the one that issued the token.";
    TOKEN_EXPIRED = "token_expired": "The service says that the token has ended.";
    TOKEN_LIFETIME = "token_lifetime": "The service says that the token is not valid at this time.";
    TOKEN_REJECTED = "token_rejected": "The service does not take the token, for a reason of its own.";
    TOKEN_NOT_RECEIVED = "token_not_received": "The service saw a request without a token, although one was sent.";
    SANDBOX_TOKEN = "sandbox_token": "The token is made up by the sandbox, and Azure takes none of those.";
    CONTAINER_NOT_FOUND = "container_not_found": "The account has no such container or file system.";
    PATH_NOT_FOUND = "path_not_found": "The container is there, and the path is not.";
    NOT_FOUND = "not_found": "The service does not know what was asked for.";
    NOTHING_THERE = "nothing_there": "The listing is allowed, and there is nothing under the path.";
    ACCOUNT_DISABLED = "account_disabled": "The account or its subscription is disabled.";
    KEYS_DISABLED = "keys_disabled": "The service saw an account key where a token was sent, and the account takes none.";
    DFS_UNSUPPORTED = "dfs_unsupported": "The account has a feature that the dfs endpoint does not work with.";
    BLOB_UNSUPPORTED = "blob_unsupported": "The account has a hierarchical namespace, and this is not supported on its blob endpoint.";
    IMMUTABLE = "immutable": "A retention policy or a legal hold forbids the change.";
    LEASED = "leased": "Somebody holds a lease on what was to be changed.";
    EXISTS = "exists": "Something of the probe's name was there already; it was left as it is.";
    BUSY = "busy": "The service is busy or has a fault of its own: try again.";
    BAD_REQUEST = "bad_request": "The service does not take the request as it is.";
    NOT_STORAGE = "not_storage": "What answered is not Azure Storage: a proxy or a portal, most likely.";
    REFUSED = "refused": "The service refused with a code that is not known to this version.";
    LEFT_BEHIND = "left_behind": "The probe's empty file could not be deleted again.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::CODES;

    #[test]
    fn codes_are_unique_and_snake_case() {
        let mut seen = BTreeSet::new();
        for (code, meaning) in CODES {
            assert!(seen.insert(code), "{code} is defined twice");
            assert!(
                code.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{code}"
            );
            assert!(meaning.ends_with('.'), "{code}: {meaning}");
        }
    }
}
