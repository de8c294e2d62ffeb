//! Where data lies: the URLs that people have for containers and file systems, read into one form.
//!
//! A token goes to the host that is read here, so a host is only taken when it is one of Azure Storage's, or when the caller
//! says what kind of endpoint it is ([`Hints::service`]).

use std::fmt;

use url::{Host, Url};

#[cfg(test)]
mod tests;

/// The longest URL that is read, in bytes.
const MAX_URL_BYTES: usize = 4096;

/// The storage suffixes of Azure's clouds. Source: the environments of the Azure CLI and the SDKs.
const SUFFIXES: [&str; 3] = [
    "core.windows.net",
    "core.usgovcloudapi.net",
    "core.chinacloudapi.cn",
];
/// The suffix of accounts with a DNS zone of their own: `ACCOUNT.z01.blob.storage.azure.net`.
const ZONED_SUFFIX: &str = "storage.azure.net";

/// Which of an account's endpoints is asked. Each speaks a protocol of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The blob endpoint.
    Blob,
    /// The endpoint of Data Lake Storage Gen2.
    Dfs,
}

impl Service {
    /// `blob` or `dfs`, as in host names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Dfs => "dfs",
        }
    }
}

/// What a URL may leave open.
#[derive(Clone, Debug, Default)]
pub struct Hints<'a> {
    /// The account, for URLs that do not name it (`az://CONTAINER/...`, custom domains).
    pub account: Option<&'a str>,
    /// The URL's host is a storage endpoint of this kind, whatever it is called: a custom domain or an emulator.
    pub service: Option<Service>,
}

/// A container or file system, and a path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    service: Service,
    account: Option<String>,
    container: String,
    path: String,
    /// Scheme, host, port and, with emulators, the account's segment; ends without a slash.
    base: Url,
    is_azure: bool,
}

/// Why a text is no location. Its message never repeats a query, a user or a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LocationError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

fn wrong(message: impl Into<String>, hint: impl Into<String>) -> LocationError {
    LocationError {
        message: message.into(),
        hint: hint.into(),
    }
}

const FORMS: &str = "Write https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH, \
    https://ACCOUNT.dfs.core.windows.net/FILESYSTEM/PATH, or abfss://FILESYSTEM@ACCOUNT.dfs.core.windows.net/PATH.";

impl Location {
    /// Reads a URL in any of the forms that SDKs, fsspec, Hadoop and the portal use.
    ///
    /// # Errors
    /// With the form to use instead. Signatures and passwords are refused, and not repeated.
    pub fn parse(text: &str, hints: &Hints<'_>) -> Result<Self, LocationError> {
        let text = text.trim();
        if text.len() > MAX_URL_BYTES {
            return Err(wrong("the URL is too long to be one of storage", FORMS));
        }
        // Before anything can fail in a way that repeats the text.
        refuse_secrets(text)?;
        let Ok(url) = Url::parse(text) else {
            return Err(wrong("this is no URL", FORMS));
        };
        // The parser forgives slashes that are missing or too many, and so finds more than was looked at above.
        if url.password().is_some() {
            return Err(password());
        }
        if url.fragment().is_some() {
            return Err(wrong(
                "the URL has a fragment (#...)",
                "Write %23 for a # in a name.",
            ));
        }
        if url.query().is_some() {
            return Err(wrong(
                "the URL has a query (?...)",
                "Leave it away: what is checked is the container and the path.",
            ));
        }
        match url.scheme() {
            "https" => Self::from_https(&url, hints),
            "abfss" | "abfs" => Self::from_hadoop(&url, Service::Dfs, hints),
            "wasbs" | "wasb" | "az" => Self::from_hadoop(&url, Service::Blob, hints),
            "http" => Err(wrong(
                "Azure Storage takes tokens over https only",
                "Write https://. An emulator needs a certificate too (azurite --cert --key --oauth basic).",
            )),
            "azureml" => Err(azureml(&url)),
            "adl" => Err(wrong(
                "adl:// is Data Lake Storage Gen1, which has been retired",
                FORMS,
            )),
            other => Err(wrong(format!("{other}:// is no URL of storage"), FORMS)),
        }
    }

    fn from_https(url: &Url, hints: &Hints<'_>) -> Result<Self, LocationError> {
        if !url.username().is_empty() {
            return Err(wrong(
                "the URL has a user in front of its host",
                "https URLs of storage have none: the container is the first part of the path. The form with an @ is abfss://.",
            ));
        }
        let host = url.host_str().unwrap_or_default();
        if let Some(known) = azure_host(host)? {
            let base = base_of(url, "");
            return Self::assemble(known.service, Some(known.account), base, url.path(), true);
        }
        let Some(service) = hints.service else {
            return Err(wrong(
                format!("{host} is no host of Azure Storage"),
                "A token is sent only where it belongs. If this is a custom domain or an emulator that you trust with the job's \
                 token, say what it is: --service blob, or --service dfs.",
            ));
        };
        if !is_path_style(url) {
            let account = hints.account.map(account_name).transpose()?;
            return Self::assemble(service, account, base_of(url, ""), url.path(), false);
        }
        // Emulators have the account in front of the container.
        let path = url.path().trim_start_matches('/');
        let (account, rest) = path.split_once('/').unwrap_or((path, ""));
        if account.is_empty() {
            return Err(wrong(
                "the URL of an emulator begins with the account",
                "Write https://127.0.0.1:10000/devstoreaccount1/CONTAINER.",
            ));
        }
        let base = base_of(url, account);
        Self::assemble(service, Some(account_name(account)?), base, rest, false)
    }

    /// `scheme://CONTAINER@HOST/PATH`, and fsspec's `scheme://CONTAINER/PATH`, which leaves the account to other settings.
    fn from_hadoop(url: &Url, default: Service, hints: &Hints<'_>) -> Result<Self, LocationError> {
        let scheme = url.scheme();
        if url.cannot_be_a_base() {
            return Err(wrong(format!("{scheme}: is not followed by //"), FORMS));
        }
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        // Part of a name here, and a slash in an https URL.
        let path = url.path().trim_start_matches('/').replace('\\', "%5C");
        let endpoint = |host: &str| {
            let mut endpoint = Url::parse(&format!("https://{host}")).ok()?;
            endpoint.set_port(url.port()).ok()?;
            Some(endpoint)
        };
        if !url.username().is_empty() {
            let Some(known) = azure_host(&host)? else {
                return Err(wrong(
                    format!("{host} is no host of Azure Storage"),
                    format!(
                        "Write {scheme}://CONTAINER@ACCOUNT.{}.core.windows.net/PATH.",
                        default.as_str()
                    ),
                ));
            };
            let base = endpoint(&host).ok_or_else(|| wrong("this is no URL", FORMS))?;
            let path = format!("{}/{path}", url.username());
            return Self::assemble(known.service, Some(known.account), base, &path, true);
        }
        // az://ACCOUNT.blob.core.windows.net/CONTAINER is somebody's form too.
        if let Some(known) = azure_host(&host)? {
            let base = endpoint(&host).ok_or_else(|| wrong("this is no URL", FORMS))?;
            return Self::assemble(known.service, Some(known.account), base, &path, true);
        }
        let Some(account) = hints.account else {
            return Err(wrong(
                format!(
                    "{scheme}://{host}/... does not say which account the container {host} is in"
                ),
                "Say --account ACCOUNT, set AZURE_STORAGE_ACCOUNT_NAME, or write the https:// URL.",
            ));
        };
        let account = account_name(account)?;
        let base = endpoint(&format!("{account}.{}.core.windows.net", default.as_str()))
            .ok_or_else(|| wrong("this is no URL", FORMS))?;
        let path = format!("{host}/{path}");
        Self::assemble(default, Some(account), base, &path, true)
    }

    fn assemble(
        service: Service,
        account: Option<String>,
        base: Url,
        path: &str,
        is_azure: bool,
    ) -> Result<Self, LocationError> {
        let path = path.trim_start_matches('/');
        let (container, path) = path.split_once('/').unwrap_or((path, ""));
        if container.is_empty() {
            return Err(wrong(
                "the URL names an account, but no container",
                "Add the container: roles are given, and listings made, container by container.",
            ));
        }
        container_name(container)?;
        Ok(Self {
            service,
            account,
            container: container.to_owned(),
            path: path.to_owned(),
            base,
            is_azure,
        })
    }

    /// The endpoint that is asked.
    #[must_use]
    pub fn service(&self) -> Service {
        self.service
    }

    /// The account's name, where it is known.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// The container, which Data Lake Storage calls a file system.
    #[must_use]
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The path in it, percent-encoded as in a URL, without a leading slash; may be empty.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path as people write it.
    #[must_use]
    pub fn plain_path(&self) -> String {
        percent_encoding::percent_decode_str(&self.path)
            .decode_utf8_lossy()
            .into_owned()
    }

    /// The host, without port.
    #[must_use]
    pub fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.base.port_or_known_default().unwrap_or(443)
    }

    /// Whether the host is one of Azure's own, and no custom domain or emulator.
    #[must_use]
    pub fn is_azure(&self) -> bool {
        self.is_azure
    }

    /// The host by which Azure's public DNS says that the account has a private endpoint, where there is such a name.
    ///
    /// Source: "DNS changes for private endpoints" in Azure Storage's documentation: the account's name becomes an alias for the
    /// same name in the subdomain `privatelink`.
    #[must_use]
    pub fn private_link_host(&self) -> Option<String> {
        let (account, rest) = self.host().split_once('.')?;
        let known = SUFFIXES
            .iter()
            .any(|suffix| rest == format!("{}.{suffix}", self.service.as_str()));
        (self.is_azure && known).then(|| format!("{account}.privatelink.{rest}"))
    }

    /// The URL of the container, or of `path` in it (percent-encoded).
    #[must_use]
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let root = url.path().trim_end_matches('/').to_owned();
        let separator = if path.is_empty() { "" } else { "/" };
        url.set_path(&format!("{root}/{}{separator}{path}", self.container));
        url
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url(&self.path).as_str())
    }
}

struct AzureHost {
    account: String,
    service: Service,
}

/// Reads a host of Azure Storage; `None` for any other.
fn azure_host(host: &str) -> Result<Option<AzureHost>, LocationError> {
    let host = host.to_ascii_lowercase();
    let labels: Vec<&str> = host.split('.').collect();
    let suffixed = SUFFIXES
        .iter()
        .find(|suffix| host.ends_with(&format!(".{suffix}")))
        .map(|suffix| suffix.split('.').count())
        .or_else(|| {
            host.ends_with(&format!(".{ZONED_SUFFIX}"))
                .then(|| ZONED_SUFFIX.split('.').count())
        });
    let Some(count) = suffixed else {
        return Ok(None);
    };
    let own = labels
        .get(..labels.len().saturating_sub(count))
        .unwrap_or_default();
    let (account, service) = match own {
        [account, service] => (*account, *service),
        [account, zone, service] if host.ends_with(ZONED_SUFFIX) && zone.starts_with('z') => {
            (*account, *service)
        }
        [account, "privatelink", service] => {
            return Err(wrong(
                "the host is the alias behind a private endpoint, which no certificate is made for",
                format!(
                    "Write {account}.{service}.{}: inside the virtual network that name leads to the private endpoint.",
                    labels.get(3..).unwrap_or_default().join(".")
                ),
            ));
        }
        _ => {
            return Err(wrong(format!("{host} is no endpoint of an account"), FORMS));
        }
    };
    let service = match service {
        "blob" => Service::Blob,
        "dfs" => Service::Dfs,
        "file" | "queue" | "table" | "web" => {
            return Err(wrong(
                format!("{host} is the account's {service} endpoint, which is not checked"),
                "Blob and Data Lake Storage are: write the host with .blob. or .dfs.",
            ));
        }
        _ => {
            return Err(wrong(format!("{host} is no endpoint of an account"), FORMS));
        }
    };
    // The read-only copy in another region has the account's name and `-secondary`.
    let account = account_name(account.strip_suffix("-secondary").unwrap_or(account))?;
    Ok(Some(AzureHost { account, service }))
}

fn account_name(name: &str) -> Result<String, LocationError> {
    let fits = (3..=24).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if fits {
        Ok(name.to_owned())
    } else {
        Err(wrong(
            "no account can have this name: names have 3 to 24 lower-case letters and digits",
            "Look the account up: az storage account list --query \"[].name\" --output tsv",
        ))
    }
}

fn container_name(name: &str) -> Result<(), LocationError> {
    if ["$root", "$logs", "$web"].contains(&name) {
        return Ok(());
    }
    let fits = (3..=63).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fits {
        Ok(())
    } else {
        Err(wrong(
            "no container can have this name: names have 3 to 63 lower-case letters, digits and single hyphens",
            "The first part of the path, or the part in front of the @, is the container.",
        ))
    }
}

/// Refuses what must be in no command line: anybody on the machine can read it there.
fn refuse_secrets(text: &str) -> Result<(), LocationError> {
    const SIGNED: [&str; 4] = ["?sig=", "&sig=", "sig%3d", "sharedaccesssignature="];
    let lower = text.to_ascii_lowercase();
    // However often it was encoded on its way here, beyond what anybody does by accident.
    let mut forms = vec![lower.clone()];
    for _ in 0..3 {
        let last = forms.last().map_or("", String::as_str);
        forms.push(
            percent_encoding::percent_decode_str(last)
                .decode_utf8_lossy()
                .into_owned(),
        );
    }
    if forms
        .iter()
        .any(|form| SIGNED.iter().any(|part| form.contains(part)))
    {
        return Err(wrong(
            "the URL holds a shared access signature, which is a secret; it is not used, and not repeated here",
            "Leave the query (from the ? on) away: what is checked is what the job's identity may do. The signature has been on a \
             command line: consider it known, and revoke it.",
        ));
    }
    if lower.contains("accountkey=") {
        return Err(wrong(
            "this is a connection string, and holds the account's key; it is not used, and not repeated here",
            FORMS,
        ));
    }
    let authority = text
        .split_once("://")
        .map_or(text, |(_, rest)| rest)
        .split(['/', '?', '#'])
        .next()
        .unwrap_or_default();
    if let Some((user, _)) = authority.rsplit_once('@')
        && user.contains(':')
    {
        return Err(password());
    }
    Ok(())
}

fn password() -> LocationError {
    wrong(
        "the URL holds a password, which is not used, and not repeated here",
        FORMS,
    )
}

/// Emulators are reached by address and have the account in the path; names are custom domains.
fn is_path_style(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        Some(Host::Domain(name)) => !name.contains('.'),
        None => false,
    }
}

fn base_of(url: &Url, path: &str) -> Url {
    let mut base = url.clone();
    base.set_path(path);
    base
}

/// A datastore's name means something to the workspace only.
fn azureml(url: &Url) -> LocationError {
    let whole = format!("{}{}", url.host_str().unwrap_or_default(), url.path());
    let mut parts = whole.split('/').skip_while(|part| *part != "datastores");
    let name = parts
        .nth(1)
        .filter(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        })
        .unwrap_or("NAME");
    wrong(
        "azureml:// names a datastore, and only the workspace knows which account that is",
        format!(
            "Ask it: az ml datastore show --name {name} --query \"[account_name, container_name, filesystem]\" \
             (with --workspace-name and --resource-group), then check https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH."
        ),
    )
}
