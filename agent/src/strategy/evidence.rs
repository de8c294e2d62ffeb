//! Facts in words. The one place that decides how much of a variable a person may see.

use url::Url;

use crate::platform::Environment;

/// The longest value shown, in characters. Ids have 36, endpoints about 40.
const MAX_SHOWN_CHARS: usize = 96;

/// Variables whose value is no secret and is shown, made safe for a terminal.
const SHOWN: [&str; 13] = [
    "AZUREML_DATAPREP_TOKEN_PROVIDER",
    "AZUREML_IDENTITY_CLIENT_ID",
    "AZUREML_IDENTITY_IN_USE",
    "AZUREML_OBO_ENABLED",
    "AZURE_CLIENT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_TENANT_ID",
    "AZURE_TOKEN_CREDENTIALS",
    "AZCOPY_AUTO_LOGIN_TYPE",
    "DEFAULT_IDENTITY_CLIENT_ID",
    "ENABLE_SAI_AUTH",
    "KUBERNETES_SERVICE_HOST",
    "REGISTRY_AUTH_FILE",
];

/// Variables that hold an address: shown without user information, query and fragment.
const ADDRESSES: [&str; 6] = [
    "AZURE_AUTHORITY_HOST",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "IDENTITY_ENDPOINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "OBO_ENDPOINT",
];

/// A variable as evidence: `NAME is unset`, `NAME is empty`, `NAME = value`, or `NAME is set` for every variable that is
/// not listed here as fit to be shown.
pub(super) fn variable(environment: &Environment, name: &str) -> String {
    match environment.get(name) {
        None if environment.is_set(name) => format!("{name} is empty"),
        None => format!("{name} is unset"),
        Some(value) if SHOWN.contains(&name) => match plain(value) {
            Some(text) => format!("{name} = {text}"),
            None => format!("{name} is set"),
        },
        Some(value) if ADDRESSES.contains(&name) => format!("{name} = {}", address(value)),
        Some(_) => format!("{name} is set"),
    }
}

/// The same for several variables.
pub(super) fn variables(environment: &Environment, names: &[&str]) -> Vec<String> {
    names
        .iter()
        .map(|name| variable(environment, name))
        .collect()
}

/// A value fit for a terminal; `None` when it could be a token that got into the wrong variable.
pub(super) fn plain(value: &str) -> Option<String> {
    let looks_like_a_token = value.starts_with("eyJ") || value.chars().count() > MAX_SHOWN_CHARS;
    (!looks_like_a_token).then(|| printable(value))
}

/// An address without the parts that may hold a secret.
pub(super) fn address(value: &str) -> String {
    match Url::parse(value) {
        Ok(url) if url.has_host() => url_in_words(&url),
        // No URL: cut by hand what would be user information and query in one.
        _ => {
            let front = value.split(['?', '#']).next().unwrap_or_default();
            let back = front.rsplit('@').next().unwrap_or_default();
            plain(back).unwrap_or_else(|| "(not shown)".to_owned())
        }
    }
}

/// A URL as people may see it: scheme, host, port and path.
pub(super) fn url_in_words(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}"));
    let path = Some(url.path()).filter(|path| *path != "/");
    let text = format!(
        "{}://{}{}{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        port.as_deref().unwrap_or_default(),
        path.unwrap_or_default()
    );
    printable(&text.chars().take(MAX_SHOWN_CHARS).collect::<String>())
}

/// Control characters and all that could reorder or hide text on a terminal become question marks.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{address, variable};
    use crate::platform::Environment;

    #[test]
    fn secrets_are_only_set_and_empty_is_not_unset() {
        let environment = Environment::from([("MSI_SECRET", "s3cr3t"), ("OBO_ENDPOINT", "")]);
        assert_eq!(variable(&environment, "MSI_SECRET"), "MSI_SECRET is set");
        assert_eq!(
            variable(&environment, "OBO_ENDPOINT"),
            "OBO_ENDPOINT is empty"
        );
        assert_eq!(
            variable(&environment, "MSI_ENDPOINT"),
            "MSI_ENDPOINT is unset"
        );
    }

    #[test]
    fn a_variable_nobody_listed_shows_no_value() {
        let environment = Environment::from([("SOMETHING_NEW", "s3cr3t")]);
        assert_eq!(
            variable(&environment, "SOMETHING_NEW"),
            "SOMETHING_NEW is set"
        );
    }

    #[test]
    fn a_token_in_the_wrong_variable_is_not_shown() {
        let environment = Environment::from([("AZURE_CLIENT_ID", "eyJ0eXAiOiJKV1Qi")]);
        assert_eq!(
            variable(&environment, "AZURE_CLIENT_ID"),
            "AZURE_CLIENT_ID is set"
        );
    }

    #[test]
    fn addresses_lose_user_information_query_and_fragment() {
        for value in [
            "http://me:s3cr3t@127.0.0.1:46808/MSI/auth?sig=s3cr3t#s3cr3t",
            "me:s3cr3t@127.0.0.1:46808/MSI/auth?sig=s3cr3t",
        ] {
            assert!(!address(value).contains("s3cr3t"), "{}", address(value));
            assert!(address(value).contains("127.0.0.1:46808/MSI/auth"));
        }
    }

    #[test]
    fn nothing_that_moves_a_cursor_gets_through() {
        let environment = Environment::from([("AZUREML_OBO_ENABLED", "\u{1b}[2J\u{202e}True\n")]);
        assert_eq!(
            variable(&environment, "AZUREML_OBO_ENABLED"),
            "AZUREML_OBO_ENABLED = ?[2J?True?"
        );
    }
}
