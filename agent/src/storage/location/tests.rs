//! The forms people have, and what must never be repeated.

use proptest::prelude::*;

use super::Service::{self, Blob, Dfs};
use super::{Hints, Location};
use crate::mutation::near_text;

const NO_HINTS: Hints<'_> = Hints {
    account: None,
    service: None,
};

/// What people write, the endpoint it means, and the URL that is asked there.
const FORMS: &[(&str, Service, &str)] = &[
    (
        "https://acct.blob.core.windows.net/data",
        Blob,
        "https://acct.blob.core.windows.net/data",
    ),
    (
        "https://acct.blob.core.windows.net/data/a%20b/",
        Blob,
        "https://acct.blob.core.windows.net/data/a%20b/",
    ),
    (
        "HTTPS://Acct.Blob.core.windows.net:443/data",
        Blob,
        "https://acct.blob.core.windows.net/data",
    ),
    (
        r"abfss://data@acct.dfs.core.windows.net/\a\b/c",
        Dfs,
        "https://acct.dfs.core.windows.net/data/%5Ca%5Cb/c",
    ),
    (
        "https://acct.dfs.core.windows.net/fs1/x",
        Dfs,
        "https://acct.dfs.core.windows.net/fs1/x",
    ),
    (
        "https://acct-secondary.blob.core.windows.net/data",
        Blob,
        "https://acct-secondary.blob.core.windows.net/data",
    ),
    (
        "https://acct.blob.core.usgovcloudapi.net/data",
        Blob,
        "https://acct.blob.core.usgovcloudapi.net/data",
    ),
    (
        "https://acct.dfs.core.chinacloudapi.cn/data",
        Dfs,
        "https://acct.dfs.core.chinacloudapi.cn/data",
    ),
    (
        "https://acct.z12.blob.storage.azure.net/data",
        Blob,
        "https://acct.z12.blob.storage.azure.net/data",
    ),
    (
        "abfss://data@acct.dfs.core.windows.net/p/q",
        Dfs,
        "https://acct.dfs.core.windows.net/data/p/q",
    ),
    (
        "abfss://data@acct.dfs.core.windows.net:8443/p",
        Dfs,
        "https://acct.dfs.core.windows.net:8443/data/p",
    ),
    (
        "abfs://data@acct.dfs.core.windows.net",
        Dfs,
        "https://acct.dfs.core.windows.net/data",
    ),
    // fsspec takes a blob host in this form too.
    (
        "abfs://data@acct.blob.core.windows.net/p",
        Blob,
        "https://acct.blob.core.windows.net/data/p",
    ),
    (
        "wasbs://data@acct.blob.core.windows.net/p",
        Blob,
        "https://acct.blob.core.windows.net/data/p",
    ),
    (
        "wasb://$root@acct.blob.core.windows.net/",
        Blob,
        "https://acct.blob.core.windows.net/$root",
    ),
    (
        "az://data/p/q",
        Blob,
        "https://acct.blob.core.windows.net/data/p/q",
    ),
    (
        "abfs://data/p",
        Dfs,
        "https://acct.dfs.core.windows.net/data/p",
    ),
    (
        "az://acct.blob.core.windows.net/data/p",
        Blob,
        "https://acct.blob.core.windows.net/data/p",
    ),
    (
        "https://acct.blob.core.windows.net/data/../data/x",
        Blob,
        "https://acct.blob.core.windows.net/data/x",
    ),
];

#[test]
fn every_form_leads_to_one_endpoint() {
    // Only the forms that do not name the account look at it.
    let hints = Hints {
        account: Some("acct"),
        service: None,
    };
    for (text, service, url) in FORMS {
        let location =
            Location::parse(text, &hints).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(location.service(), *service, "{text}");
        assert_eq!(location.to_string(), *url, "{text}");
        assert_eq!(location.account(), Some("acct"), "{text}");
        assert!(location.is_azure(), "{text}");
    }
}

#[test]
fn other_hosts_get_a_token_only_when_told() {
    let blob = Hints {
        account: Some("acct"),
        service: Some(Service::Blob),
    };
    for text in [
        "https://data.example.com/data",
        "https://127.0.0.1:10000/devstoreaccount1/data",
        "https://acct.blob.core.windows.net.example.com/data",
        "https://blob.core.windows.net.example/data",
    ] {
        let error = Location::parse(text, &NO_HINTS).unwrap_err();
        assert!(error.hint.contains("--service"), "{text}: {error}");
    }
    let custom = Location::parse("https://data.example.com/data/p", &blob).unwrap();
    assert_eq!(custom.to_string(), "https://data.example.com/data/p");
    assert_eq!(
        (custom.account(), custom.container()),
        (Some("acct"), "data")
    );
    assert!(!custom.is_azure());
    let emulator =
        Location::parse("https://127.0.0.1:10000/devstoreaccount1/data/p/", &blob).unwrap();
    assert_eq!(emulator.account(), Some("devstoreaccount1"));
    assert_eq!((emulator.container(), emulator.path()), ("data", "p/"));
    assert_eq!(
        emulator.url("p/x").as_str(),
        "https://127.0.0.1:10000/devstoreaccount1/data/p/x"
    );
    assert_eq!(emulator.private_link_host(), None);
}

#[test]
fn what_cannot_be_checked_is_refused_with_the_form_to_use() {
    for (text, part) in [
        ("data/train", "no URL"),
        ("https://acct.blob.core.windows.net", "no container"),
        ("https://acct.blob.core.windows.net/", "no container"),
        (
            "https://acct.blob.core.windows.net/Data",
            "no container can have this name",
        ),
        (
            "https://acct.blob.core.windows.net/d",
            "no container can have this name",
        ),
        (
            "https://ac_ct.blob.core.windows.net/data",
            "no account can have this name",
        ),
        ("https://acct.file.core.windows.net/share", "file endpoint"),
        ("https://core.windows.net/data", "no host of Azure Storage"),
        (
            "https://acct.core.windows.net/data",
            "no endpoint of an account",
        ),
        ("http://acct.blob.core.windows.net/data", "https only"),
        (
            "https://acct.privatelink.blob.core.windows.net/data",
            "alias behind a private endpoint",
        ),
        ("https://data@acct.blob.core.windows.net/x", "user in front"),
        ("abfss://data@example.com/x", "no host of Azure Storage"),
        ("az://data/x", "does not say which account"),
        ("az:data/x", "is not followed by //"),
        ("adl://acct.azuredatalakestore.net/x", "Gen1"),
        ("s3://bucket/x", "s3:// is no URL of storage"),
        (
            "https://acct.blob.core.windows.net/data?restype=container",
            "query",
        ),
        ("https://acct.blob.core.windows.net/data#x", "fragment"),
        (
            "azureml://datastores/workspaceblobstore/paths/x",
            "datastore",
        ),
    ] {
        let error = Location::parse(text, &NO_HINTS).unwrap_err();
        assert!(error.message.contains(part), "{text}: {error}");
        assert!(!error.hint.is_empty(), "{text}");
    }
    let error = Location::parse(
        "https://acct.privatelink.blob.core.windows.net/data",
        &NO_HINTS,
    )
    .unwrap_err();
    assert!(
        error.hint.contains("acct.blob.core.windows.net"),
        "{}",
        error.hint
    );
    let long =
        "azureml://subscriptions/s/resourcegroups/r/workspaces/w/datastores/my_store/paths/p";
    let error = Location::parse(long, &NO_HINTS).unwrap_err();
    assert!(error.hint.contains("--name my_store"), "{}", error.hint);
}

#[test]
fn secrets_are_refused_and_not_repeated() {
    for text in [
        "https://acct.blob.core.windows.net/data?sv=2022-11-02&sig=S3CRET%3D",
        "https://acct.blob.core.windows.net/data?sig=S3CRET",
        "https://acct.blob.core.windows.net/data?SIG=S3CRET",
        "acct.blob.core.windows.net/data?sig=S3CRET",
        "https://me:S3CRET@acct.blob.core.windows.net/data",
        "abfss://data:S3CRET@acct.dfs.core.windows.net/x",
        "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=S3CRET==;EndpointSuffix=core.windows.net",
        "BlobEndpoint=https://acct.blob.core.windows.net/;SharedAccessSignature=sv=1&x=S3CRET",
        "https://acct.blob.core.windows.net/data?x=S3CRET",
        // Forms that a URL parser makes https:// of.
        "https:/me:S3CRET@acct.blob.core.windows.net/data",
        "https:///:S3CRET@acct.blob.core.windows.net/data",
        "https:/:S3CRET@acct.blob.core.windows.net/data",
        "https:\\\\:S3CRET@acct.blob.core.windows.net/data",
        // A query whose marks were encoded on the way is a name to a URL parser.
        "https://acct.blob.core.windows.net/data/x%3Fsv=1%26sig=S3CRET",
        "https://acct.blob.core.windows.net/data/x%253Fsv%253D1%2526sig%253DS3CRET",
        "https://acct.blob.core.windows.net/data#S3CRET",
    ] {
        let error = Location::parse(text, &NO_HINTS).unwrap_err();
        let said = format!("{error:?}");
        assert!(!said.contains("S3CRET"), "{text}: {said}");
    }
}

#[test]
fn the_alias_of_a_private_endpoint_is_known_for_azures_own_hosts() {
    let of = |text| {
        Location::parse(text, &NO_HINTS)
            .unwrap()
            .private_link_host()
    };
    assert_eq!(
        of("https://acct.dfs.core.windows.net/data").as_deref(),
        Some("acct.privatelink.dfs.core.windows.net")
    );
    assert_eq!(of("https://acct.z1.blob.storage.azure.net/data"), None);
}

proptest! {
    #[test]
    fn nearly_a_url_is_a_plain_place_or_an_error_without_its_secrets(
        text in near_text(
            FORMS.iter().map(|(text, ..)| (*text).to_owned())
                .chain([
                    "https://acct.blob.core.windows.net/data/a?sv=2022&sig=hunter2hunter2%3D".to_owned(),
                    "https://user:hunter2hunter2@acct.blob.core.windows.net/data".to_owned(),
                    "abfss://fs@acct.dfs.core.windows.net/a#hunter2hunter2".to_owned(),
                    "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=hunter2hunter2==".to_owned(),
                ])
                .collect()
        ),
    ) {
        match Location::parse(&text, &NO_HINTS) {
            Ok(location) => {
                let url = location.to_string();
                prop_assert!(url.starts_with("https://") && !url.contains(['?', '#']), "{}", url);
                prop_assert!(!url.split('/').nth(2).unwrap().contains('@'), "{}", url);
                prop_assert_eq!(Location::parse(&url, &NO_HINTS), Ok(location));
            }
            Err(error) => {
                let shown = format!("{} {}", error.message, error.hint);
                prop_assert!(!shown.contains("hunter2hunter2") && !shown.contains(char::is_control), "{}", shown);
            }
        }
    }
}
