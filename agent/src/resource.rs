//! Resources and scopes: one canonical form for the cache, one spelling for the issuer.

use std::fmt;

use jobcred_wire::Target;
use serde::Deserialize;

/// Which Azure cloud the job runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cloud {
    /// Azure, `login.microsoftonline.com`.
    #[default]
    Public,
    /// Azure Government, `login.microsoftonline.us`.
    Government,
    /// Azure operated by 21Vianet, `login.chinacloudapi.cn`.
    China,
}

/// What a token is for. Two spellings of one well-known resource are equal; any other resource is kept exactly as asked,
/// because a slash matters to some services (Azure Data Lake Gen1 wants its own).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource(String);

/// The resources whose spellings `x`, `x/` and `x/.default` mean the same, in the spelling sent upstream.
///
/// Sources: the SDKs' default scopes. Storage has one audience in every cloud; so has the container registry, whose
/// owners asked SDKs to use it for all of them.
const EVERY_CLOUD: [&str; 2] = [
    "https://storage.azure.com/",
    "https://containerregistry.azure.net",
];
const PUBLIC: [&str; 4] = [
    "https://management.azure.com/",
    "https://management.core.windows.net/",
    "https://vault.azure.net",
    "https://ml.azure.com",
];
const GOVERNMENT: [&str; 4] = [
    "https://management.usgovcloudapi.net/",
    "https://management.core.usgovcloudapi.net/",
    "https://vault.usgovcloudapi.net",
    "https://ml.azure.us",
];
const CHINA: [&str; 4] = [
    "https://management.chinacloudapi.cn/",
    "https://management.core.chinacloudapi.cn/",
    "https://vault.azure.cn",
    "https://ml.azure.cn",
];

impl Cloud {
    /// The cloud that Azure ML names in `AZUREML_CURRENT_CLOUD`.
    ///
    /// Source: the names of Azure's environments in the Azure CLI, which Azure ML's SDK uses.
    #[must_use]
    pub fn from_azure_ml(name: &str) -> Option<Self> {
        [
            ("AzureCloud", Self::Public),
            ("AzureUSGovernment", Self::Government),
            ("AzureChinaCloud", Self::China),
        ]
        .into_iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, cloud)| cloud)
    }

    fn well_known(self) -> [&'static str; 4] {
        match self {
            Self::Public => PUBLIC,
            Self::Government => GOVERNMENT,
            Self::China => CHINA,
        }
    }

    /// The issuer's base URL.
    #[must_use]
    pub fn authority(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::Government => "https://login.microsoftonline.us",
            Self::China => "https://login.chinacloudapi.cn",
        }
    }

    /// The audience of Azure Resource Manager, which most registries accept too.
    #[must_use]
    pub fn resource_manager(self) -> Resource {
        Resource(self.well_known()[0].to_owned())
    }

    /// The audience of the container registry, the same in every cloud.
    #[must_use]
    pub fn container_registry() -> Resource {
        Resource(EVERY_CLOUD[1].to_owned())
    }

    /// The audience of a token that an application accepts in place of a secret of its own.
    ///
    /// Source: Entra's documentation of applications that trust a managed identity.
    #[must_use]
    pub fn token_exchange(self) -> Resource {
        Resource(
            match self {
                Self::Public => "api://AzureADTokenExchange",
                Self::Government => "api://AzureADTokenExchangeUSGov",
                Self::China => "api://AzureADTokenExchangeChina",
            }
            .to_owned(),
        )
    }

    /// The audience of Azure Storage, the same in every cloud.
    #[must_use]
    pub fn storage() -> Resource {
        Resource(EVERY_CLOUD[0].to_owned())
    }
}

impl Resource {
    /// Reads what a caller asked for. `target` is already free of white space, control characters and excess length.
    #[must_use]
    pub fn from_target(target: &Target, cloud: Cloud) -> Self {
        let text = match target {
            Target::Resource(text) => text.as_str(),
            // A scope is a resource and one `/.default`; a plain resource sent as a scope is accepted unchanged.
            Target::Scope(text) => text.strip_suffix("/.default").unwrap_or(text),
        };
        Self::parse(text, cloud)
    }

    /// Reads a resource URI; a trailing `/.default` of a well-known one is dropped too.
    #[must_use]
    pub fn parse(text: &str, cloud: Cloud) -> Self {
        let bare = text.strip_suffix("/.default").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        EVERY_CLOUD
            .into_iter()
            .chain(cloud.well_known())
            .find(|known| known.trim_end_matches('/').eq_ignore_ascii_case(bare))
            .map_or_else(|| Self(text.to_owned()), |known| Self(known.to_owned()))
    }

    /// A resource kept exactly as given, of whatever meaning.
    #[must_use]
    pub fn verbatim(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The spelling sent upstream, which is also the canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The v2 scope of this resource: the resource and `/.default`.
    ///
    /// A resource that ends in a slash keeps it, as the issuer demands (`https://datalake.azure.net/` is
    /// `https://datalake.azure.net//.default`); storage and Resource Manager are sent as every SDK spells them.
    #[must_use]
    pub fn to_scope(&self) -> String {
        let sdk_spelling = self.0 == EVERY_CLOUD[0]
            || [PUBLIC[0], GOVERNMENT[0], CHINA[0]].contains(&self.0.as_str());
        let base = if sdk_spelling {
            self.0.trim_end_matches('/')
        } else {
            &self.0
        };
        format!("{base}/.default")
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use jobcred_wire::Target;

    use super::{Cloud, Resource};

    fn scope(text: &str) -> Resource {
        Resource::from_target(&Target::Scope(text.to_owned()), Cloud::Public)
    }

    fn resource(text: &str) -> Resource {
        Resource::from_target(&Target::Resource(text.to_owned()), Cloud::Public)
    }

    #[test]
    fn spellings_of_a_well_known_resource_are_one() {
        let storage = Cloud::storage();
        for text in [
            "https://storage.azure.com",
            "https://storage.azure.com/",
            "https://storage.azure.com/.default",
            "https://storage.azure.com//.default",
            "https://Storage.azure.com/",
        ] {
            assert_eq!(resource(text), storage, "{text}");
            assert_eq!(scope(text), storage, "{text}");
        }
        assert_eq!(
            scope("https://vault.azure.net/.default").as_str(),
            "https://vault.azure.net"
        );
    }

    #[test]
    fn any_other_resource_is_kept_as_asked() {
        assert_eq!(
            scope("https://datalake.azure.net//.default").as_str(),
            "https://datalake.azure.net/"
        );
        assert_eq!(
            resource("https://datalake.azure.net").as_str(),
            "https://datalake.azure.net"
        );
        assert_ne!(
            resource("https://a.example"),
            resource("https://a.example/")
        );
        assert_eq!(resource("api://x/.default").as_str(), "api://x/.default");
    }

    #[test]
    fn a_cloud_knows_its_own_resources_only() {
        let china = Resource::parse("https://vault.azure.cn/", Cloud::China);
        assert_eq!(china.as_str(), "https://vault.azure.cn");
        let foreign = Resource::parse("https://vault.azure.cn/", Cloud::Public);
        assert_eq!(foreign.as_str(), "https://vault.azure.cn/");
    }

    #[test]
    fn scope_keeps_a_slash_of_the_resource() {
        assert_eq!(
            resource("https://datalake.azure.net/").to_scope(),
            "https://datalake.azure.net//.default"
        );
        assert_eq!(
            Cloud::storage().to_scope(),
            "https://storage.azure.com/.default"
        );
        assert_eq!(
            resource("https://management.core.windows.net").to_scope(),
            "https://management.core.windows.net//.default"
        );
        assert_eq!(
            Cloud::container_registry().to_scope(),
            "https://containerregistry.azure.net/.default"
        );
    }
}
