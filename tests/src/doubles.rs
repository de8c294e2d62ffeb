//! A set of doubles made from one configuration, with the certificates they need.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::acr::{Acr, AcrOptions};
use crate::app_service::{AppService, AppServiceOptions};
use crate::azure_ml::{AzureMl, AzureMlOptions};
use crate::ca::{TestCa, USUAL_NAMES};
use crate::entra::{Entra, EntraOptions};
use crate::imds::{Imds, ImdsOptions};
use crate::secrets::Secrets;
use crate::server::Endpoint;
use crate::storage::{Storage, StorageOptions};
use crate::token::Mint;

/// Which doubles to start. One that is left out isn't started; `{}` starts it with its usual options.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoublesConfig {
    /// Where certificates and files for other processes are written; it has to exist.
    pub directory: PathBuf,
    /// Names on the certificate besides [`USUAL_NAMES`].
    pub names: Vec<String>,
    /// The Azure ML responder.
    pub azure_ml: Option<AzureMlOptions>,
    /// The metadata service.
    pub imds: Option<ImdsOptions>,
    /// The App Service endpoint.
    pub app_service: Option<AppServiceOptions>,
    /// The authority.
    pub entra: Option<EntraOptions>,
    /// The registry.
    pub acr: Option<AcrOptions>,
    /// The storage account.
    pub storage: Option<StorageOptions>,
}

/// A running set of doubles.
#[derive(Debug)]
pub struct Doubles {
    /// The Azure ML responder, if configured.
    pub azure_ml: Option<AzureMl>,
    /// The metadata service, if configured.
    pub imds: Option<Imds>,
    /// The App Service endpoint, if configured.
    pub app_service: Option<AppService>,
    /// The authority, if configured.
    pub entra: Option<Entra>,
    /// The registry, if configured.
    pub acr: Option<Acr>,
    /// The storage account, if configured.
    pub storage: Option<Storage>,
    files: Files,
}

#[derive(Debug)]
struct Files {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Doubles {
    /// Makes a CA, writes `ca.pem`, `leaf.pem` and `leaf.key` into the directory, and starts what is configured.
    pub fn start(config: DoublesConfig) -> io::Result<Self> {
        let ca = TestCa::new()?;
        let names = config.names.iter().map(String::as_str);
        let leaf = ca.leaf(&USUAL_NAMES.into_iter().chain(names).collect::<Vec<_>>())?;
        let (certificate, key) = leaf.write_to(&config.directory)?;
        Ok(Self {
            azure_ml: config.azure_ml.map(AzureMl::start).transpose()?,
            imds: config.imds.map(Imds::start).transpose()?,
            app_service: config.app_service.map(AppService::start).transpose()?,
            entra: config
                .entra
                .map(|options| Entra::start(options, &leaf))
                .transpose()?,
            acr: config
                .acr
                .map(|options| Acr::start(options, &leaf))
                .transpose()?,
            storage: config
                .storage
                .map(|options| Storage::start(options, &leaf))
                .transpose()?,
            files: Files {
                ca: ca.write_to(&config.directory)?,
                certificate,
                key,
            },
        })
    }

    /// The CA's certificate, for clients.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.files.ca
    }

    /// Every endpoint that listens.
    #[must_use]
    pub fn endpoints(&self) -> Vec<&Endpoint> {
        let azure_ml = self
            .azure_ml
            .iter()
            .flat_map(|double| [double.msi(), double.obo()]);
        azure_ml
            .chain(self.imds.as_ref().map(Imds::endpoint))
            .chain(self.app_service.as_ref().map(AppService::endpoint))
            .chain(self.entra.as_ref().map(Entra::endpoint))
            .chain(self.acr.as_ref().map(Acr::endpoint))
            .chain(self.storage.as_ref().map(Storage::endpoint))
            .collect()
    }

    /// Every mint, by name.
    #[must_use]
    pub fn mints(&self) -> Vec<(&'static str, &Mint)> {
        let azure_ml = self
            .azure_ml
            .iter()
            .flat_map(|double| [("azure_ml", double.mint()), ("user", double.user_mint())]);
        azure_ml
            .chain(self.imds.as_ref().map(|double| ("imds", double.mint())))
            .chain(
                self.app_service
                    .as_ref()
                    .map(|double| ("app_service", double.mint())),
            )
            .chain(self.entra.as_ref().map(|double| ("entra", double.mint())))
            .collect()
    }

    /// Every secret in play at this moment.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        let all = Secrets::new();
        let parts = [
            self.azure_ml.as_ref().map(AzureMl::secrets),
            self.imds.as_ref().map(Imds::secrets),
            self.app_service.as_ref().map(AppService::secrets),
            self.entra.as_ref().map(Entra::secrets),
            self.acr.as_ref().map(Acr::secrets),
        ];
        for part in parts.into_iter().flatten() {
            all.extend(part);
        }
        all
    }

    /// Addresses, secrets, ids and files: what another process needs to know.
    #[must_use]
    pub fn ready(&self) -> Value {
        let mut ready = Map::new();
        let files = &self.files;
        ready.insert("ca".into(), json!(files.ca));
        ready.insert("certificate".into(), json!(files.certificate));
        ready.insert("key".into(), json!(files.key));
        if let Some(double) = &self.azure_ml {
            let value = json!({
                "msi_endpoint": double.msi_endpoint(),
                "obo_endpoint": double.obo_endpoint(),
                "secret": double.secret(),
                "identities": double.options().identities,
                "user": double.options().user,
                "environment": object(double.environment()),
                "user_environment": object(double.user_environment()),
            });
            ready.insert("azure_ml".into(), value);
        }
        if let Some(double) = &self.imds {
            let value = json!({"url": double.url(), "identities": double.options().identities});
            ready.insert("imds".into(), value);
        }
        if let Some(double) = &self.app_service {
            let value = json!({
                "url": double.url(),
                "header": double.header(),
                "identities": double.options().identities,
                "environment": object(double.environment()),
            });
            ready.insert("app_service".into(), value);
        }
        if let Some(double) = &self.entra {
            let value = json!({
                "authority": double.authority(),
                "application": double.options().application,
                "client_secret": double.client_secret(),
            });
            ready.insert("entra".into(), value);
        }
        if let Some(double) = &self.acr {
            let value = json!({
                "url": double.endpoint().url(""),
                "port": double.endpoint().address().port(),
                "login_server": double.options().login_server,
            });
            ready.insert("acr".into(), value);
        }
        if let Some(double) = &self.storage {
            let value = json!({"url": double.endpoint().url("")});
            ready.insert("storage".into(), value);
        }
        Value::Object(ready)
    }
}

fn object(pairs: Vec<(String, String)>) -> Value {
    pairs
        .into_iter()
        .map(|(name, value)| (name, Value::String(value)))
        .collect()
}
