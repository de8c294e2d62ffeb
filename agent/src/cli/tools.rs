//! What a tool that is not an Azure SDK wants besides the identity endpoint, and why.

/// A tool that `jobcred env --for` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Tool {
    /// `AzCopy`
    Azcopy,
    /// adlfs and fsspec, and through them pandas, dask and others
    Adlfs,
    /// rclone
    Rclone,
    /// The Azure CLI
    Az,
    /// The Rust crate `object_store`, and what is built on it: delta-rs, polars, `DataFusion`
    ObjectStore,
}

impl Tool {
    /// Variables it wants besides those of the endpoint.
    pub(super) fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Azcopy => &[("AZCOPY_AUTO_LOGIN_TYPE", "MSI")],
            Self::Adlfs => &[("AZURE_STORAGE_ANON", "false")],
            Self::Rclone => &[("RCLONE_AZUREBLOB_USE_MSI", "true")],
            Self::Az => &[("AZURE_CORE_USE_MSAL_MANAGED_IDENTITY", "true")],
            Self::ObjectStore => &[],
        }
    }

    /// A name of its own for what `IDENTITY_ENDPOINT` says.
    pub(super) fn name_of_endpoint(self) -> Option<&'static str> {
        (self == Self::ObjectStore).then_some("AZURE_MSI_ENDPOINT")
    }

    /// Why, line by line.
    pub(super) fn why(self) -> &'static [&'static str] {
        match self {
            Self::Azcopy => &[
                "AZCOPY_AUTO_LOGIN_TYPE=MSI makes azcopy get tokens by itself, at IDENTITY_ENDPOINT; there is no `azcopy login`.",
                "An identity other than the job's own: AZCOPY_MSI_CLIENT_ID. azcopy 10.22 and later; 10.18 and before",
                "ask 169.254.169.254 and nobody else, and cannot be led here.",
            ],
            Self::Adlfs => &[
                "adlfs takes DefaultAzureCredential when it is given an account, no key, and AZURE_STORAGE_ANON=false",
                "(or anon=False). That one asks at IDENTITY_ENDPOINT.",
            ],
            Self::Rclone => &[
                "rclone 1.61 and later: use_msi of an azureblob remote asks at IDENTITY_ENDPOINT. Older ones ask",
                "169.254.169.254 and nobody else, and cannot be led here.",
            ],
            Self::Az => &[
                "Then: az login --identity --allow-no-subscriptions. An identity other than the job's own: --client-id.",
                "It lists subscriptions all the same, at management.azure.com with a token for https://management.core.windows.net/,",
                "and fails where that cannot be reached.",
                "Azure CLI 2.71 (April 2025) and later. 2.71 and 2.72 want the variable, and ask 169.254.169.254 without it; later",
                "ones ask at IDENTITY_ENDPOINT anyway.",
            ],
            Self::ObjectStore => &[
                "MicrosoftAzureBuilder::from_env() reads IDENTITY_ENDPOINT, delta-rs AZURE_MSI_ENDPOINT alone: without it, that one asks",
                "169.254.169.254. Both send IDENTITY_HEADER. No key, SAS or client secret may be set: each of them comes first.",
            ],
        }
    }
}
