//! The control endpoint, as another process uses it.

use serde_json::{Value, json};

use super::client::{get, get_tls, parse, send};
use crate::{AcrOptions, Control, Doubles, DoublesConfig, TestCa};

struct Setting {
    control: Control,
    ready: Value,
    _directory: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = json!({
            "directory": directory.path(),
            "names": ["storage.example.org"],
            "azure_ml": {"without_client_id": "first_identity", "lifetime": 300},
            "imds": {}, "app_service": {}, "entra": {}, "acr": {},
        });
        let config: DoublesConfig = serde_json::from_value(config).unwrap();
        let control = Control::start(Doubles::start(config).unwrap()).unwrap();
        Self {
            ready: control.ready(),
            control,
            _directory: directory,
        }
    }

    fn read(&self, path: &str) -> Value {
        get(&(self.control.url() + path), &[]).json()
    }

    fn order(&self, path: &str, body: &str) -> (u16, Value) {
        let bytes = send(&(self.control.url() + path), None, "POST", &[], body).unwrap();
        let answer = parse(&bytes);
        (answer.status, answer.json())
    }

    fn do_well(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.order(path, &body.to_string());
        assert_eq!(status, 200, "{answer}");
        answer
    }

    fn ask_msi(&self) -> super::client::Answer {
        let endpoint = self.ready["azure_ml"]["msi_endpoint"].as_str().unwrap();
        let secret = self.ready["azure_ml"]["environment"]["MSI_SECRET"]
            .as_str()
            .unwrap();
        let url = format!("{endpoint}?api-version=2017-09-01&resource=https://example.org");
        get(&url, &[("secret", secret)])
    }
}

#[test]
fn what_is_printed_is_enough_to_go_by() {
    let setting = Setting::new();
    let answer = setting.ask_msi();
    assert_eq!(answer.json()["expires_in"], 300);
    let recorded = setting.read("/requests?endpoint=msi");
    assert_eq!(recorded["msi"]["requests"][0]["path"], "/MSI/auth");
    assert_eq!(
        recorded["msi"]["requests"][0]["outcome"],
        json!({"answered": 200})
    );
    assert_eq!(
        setting.read("/tokens")["azure_ml"][0]["token"],
        answer.json()["access_token"]
    );
    for file in ["ca", "certificate", "key"] {
        let pem = std::fs::read_to_string(setting.ready[file].as_str().unwrap()).unwrap();
        assert!(pem.starts_with("-----BEGIN "), "{file}");
    }
    for double in ["imds", "app_service", "entra", "acr"] {
        assert!(setting.ready[double].is_object(), "{double}");
    }
}

#[test]
fn orders_change_what_the_doubles_do() {
    let setting = Setting::new();
    let throttle = json!({"kind": "status", "status": 429, "retry_after": "2"});
    let left = setting.do_well(
        "/script",
        &json!({"endpoint": "msi", "behaviors": [throttle]}),
    );
    assert_eq!(left["left"], 1);
    assert_eq!(setting.ask_msi().status, 429);

    let impostor = json!({"object_id": "6f1f3c9a-0d5e-4f0b-9d63-3f2b8f6f7a10"});
    setting.do_well(
        "/mint",
        &json!({"mint": "azure_ml", "lifetime": 60, "impostor": impostor}),
    );
    assert_eq!(setting.ask_msi().json()["expires_in"], 60);
    let told = setting.read("/tokens")["azure_ml"][0]["principal"]["object_id"].clone();
    assert_eq!(told, impostor["object_id"]);

    setting.do_well(
        "/state",
        &json!({"user_grant_ended": true, "acr": {"firewalled": true}}),
    );
    let obo = setting.ready["azure_ml"]["obo_endpoint"].as_str().unwrap();
    assert_eq!(get(&format!("{obo}?resource=x"), &[]).status, 400);
    let options: AcrOptions = setting.control.doubles().acr.as_ref().unwrap().options();
    assert!(options.firewalled && options.arm_allowed);

    setting.do_well("/clear", &json!({}));
    assert_eq!(setting.read("/requests")["msi"]["requests"], json!([]));
}

#[test]
fn secrets_are_listed_and_found() {
    let setting = Setting::new();
    let token = setting.ask_msi().json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let assertion = setting.read("/assertion?lifetime=60")["assertion"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_, leaks) = setting.order("/scan", &format!("a log line with {token} and {assertion}"));
    let names: Vec<_> = leaks
        .as_array()
        .unwrap()
        .iter()
        .map(|leak| leak["name"].clone())
        .collect();
    assert_eq!(names, ["assertion token 1", "azure_ml token 1"]);
    assert_eq!(setting.order("/scan", "a clean one").1, json!([]));
    assert!(setting.read("/secrets").as_array().unwrap().len() >= 5);
}

#[test]
fn a_wrong_order_is_refused_with_the_reason() {
    let setting = Setting::new();
    for (path, body, reason) in [
        ("/script", "{\"endpoint\":\"nobody\"}", "nobody"),
        (
            "/script",
            "{\"endpoint\":\"msi\",\"behaviours\":[]}",
            "behaviours",
        ),
        ("/script", "nonsense", "expected"),
        ("/mint", "{\"mint\":\"nobody\"}", "nobody"),
        ("/clock", "{\"endpoint\":\"msi\"}", "skew"),
        ("/state", "{\"acr\":{\"denied\":3}}", "invalid type"),
    ] {
        let (status, answer) = setting.order(path, body);
        assert_eq!(status, 400);
        assert!(
            answer["error"].as_str().unwrap().contains(reason),
            "{answer}"
        );
    }
    assert!(serde_json::from_value::<DoublesConfig>(json!({"azure-ml": {}})).is_err());
}

#[test]
fn the_certificate_goes_by_the_names_that_were_asked_for() {
    let ca = TestCa::new().unwrap();
    let leaf = ca.leaf(&["localhost"]).unwrap();
    let entra = crate::Entra::start(crate::EntraOptions::default(), &leaf).unwrap();
    let by_name = entra.endpoint().url_as("localhost", "/");
    assert_eq!(get_tls(&ca, &by_name, &[]).status, 404);
    assert!(send(&entra.endpoint().url("/"), Some(&ca), "GET", &[], "").is_err());
}
