//! The Azure CLI, played by scripts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobcred_wire::ErrorCode;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::json;

use super::{GUID, fetch, jwt, outside};
use crate::error::TokenError;
use crate::platform::Environment;
use crate::resource::{Cloud, Resource};
use crate::source::{AzureCli, Outside, Source, SourceRequest};
use crate::token::{AccessToken, Identity};
use crate::transport::testing::NOW;

const TENANT: &str = "cccccccc-0000-4000-8000-00000000000c";

/// A directory with a program that does what `script` says.
struct Cli {
    directory: tempfile::TempDir,
    program: PathBuf,
}

impl Cli {
    fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("az");
        let text = format!("#!/bin/sh\ncd {}\n{script}\n", directory.path().display());
        // Written under another name, so that no other test's child has the program open for writing when it is started.
        let draft = directory.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, Permissions::from_mode(0o755)).unwrap();
        assert!(
            std::process::Command::new("/bin/cp")
                .args([&draft, &program])
                .status()
                .unwrap()
                .success()
        );
        Self { directory, program }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn source(&self, tenant: Option<&str>) -> AzureCli {
        let outside = Outside {
            environment: Environment::from([
                ("HOME", "/home/ann"),
                ("AZURE_CONFIG_DIR", "/work/.azure"),
                ("PATH", "/usr/bin:/bin"),
                ("TZ", "America/New_York"),
                ("JOBCRED_LOG", "debug"),
            ]),
            ..outside()
        };
        AzureCli::new(self.program.clone(), tenant.map(str::to_owned), &outside)
    }

    async fn ask(&self) -> Result<AccessToken, TokenError> {
        fetch(&self.source(None), Identity::Job).await
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }
}

/// A script that answers with this.
fn says(answer: &serde_json::Value) -> String {
    format!("cat <<'EOF'\n{answer}\nEOF")
}

#[tokio::test]
async fn it_is_called_without_a_shell_and_its_answer_is_read() {
    let token = jwt(&json!({"oid": GUID}));
    let expires_on = NOW.as_secs() + 3_000;
    let answer = json!({
        "accessToken": token,
        "expiresOn": "2020-01-01 00:00:00.000000",
        "expires_on": expires_on,
        "subscription": GUID,
        "tenant": TENANT,
        "tokenType": "Bearer",
    });
    let cli = Cli::new(&format!(
        "for word in \"$@\"; do echo \"$word\"; done > arguments\nenv > environment\ncat > input\n{}",
        says(&answer)
    ));
    let got = cli.ask().await.unwrap();
    assert_eq!(got.secret.expose(), token);
    assert_eq!(got.expires_on.as_secs(), expires_on);
    assert_eq!(
        cli.file("arguments"),
        "account\nget-access-token\n--output\njson\n--resource=https://vault.azure.net\n"
    );
    assert_eq!(cli.file("input"), "");
    let environment = cli.file("environment");
    let lines: Vec<&str> = environment.lines().collect();
    for line in [
        "HOME=/home/ann",
        "AZURE_CONFIG_DIR=/work/.azure",
        "TZ=UTC",
        "AZURE_CORE_COLLECT_TELEMETRY=false",
    ] {
        assert!(lines.contains(&line), "{line} is not in {environment}");
    }
    assert!(!environment.contains("JOBCRED_"), "{environment}");
}

#[tokio::test]
async fn the_tenant_is_the_requests_else_the_configured_one() {
    let answer = json!({"accessToken": "opaque", "expires_on": NOW.as_secs() + 3_000});
    let cli = Cli::new(&format!("echo \"$@\" > arguments\n{}", says(&answer)));
    let source = cli.source(Some("contoso.example"));
    fetch(&source, Identity::Job).await.unwrap();
    assert!(
        cli.file("arguments")
            .ends_with("--tenant=contoso.example\n")
    );
    let named = SourceRequest {
        tenant: Some(TENANT.to_owned()),
        ..super::ask_as(Identity::Job)
    };
    source.fetch(&named).await.unwrap();
    assert!(
        cli.file("arguments")
            .ends_with(&format!("--tenant={TENANT}\n"))
    );
}

#[tokio::test]
async fn no_argument_can_be_an_option_or_a_file() {
    let cli = Cli::new("touch called");
    let source = cli.source(None);
    for resource in [
        "@/etc/passwd",
        "-x",
        "https://a b",
        "https://a\n",
        "$(id)",
        "",
    ] {
        let request = SourceRequest {
            resource: Resource::verbatim(resource),
            ..super::ask_as(Identity::Job)
        };
        let error = source.fetch(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorCode::InvalidRequest, "{resource}");
    }
    for tenant in ["@/etc/passwd", "-x", ""] {
        let request = SourceRequest {
            tenant: Some(tenant.to_owned()),
            ..super::ask_as(Identity::Job)
        };
        let error = source.fetch(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorCode::InvalidRequest, "{tenant}");
    }
    let named = fetch(&source, Identity::ClientId(GUID.to_owned())).await;
    assert_eq!(named.unwrap_err().kind(), ErrorCode::Denied);
    assert!(!cli.path().join("called").exists());
    for resource in [Cloud::storage(), Resource::verbatim("api://x_y.z-1")] {
        let request = SourceRequest {
            resource,
            ..super::ask_as(Identity::Job)
        };
        let _ = source.fetch(&request).await;
        assert!(cli.path().join("called").exists());
    }
}

#[tokio::test]
async fn old_versions_say_local_time_which_the_call_makes_utc() {
    // An hour after the test's own moment.
    let moment = "2023-11-14 23:13:20.000000";
    let answer = json!({"accessToken": "opaque", "expiresOn": moment});
    let token = Cli::new(&says(&answer)).ask().await.unwrap();
    assert_eq!(token.expires_on.as_secs(), NOW.as_secs() + 3600);
}

#[tokio::test]
async fn no_date_keeps_a_dead_token_for_years() {
    let answer = json!({"accessToken": "opaque", "expires_on": 4_102_444_800_i64});
    let token = Cli::new(&says(&answer)).ask().await.unwrap();
    assert_eq!(token.expires_on.as_secs(), NOW.as_secs() + 48 * 3600);
}

#[tokio::test]
async fn answers_that_are_none() {
    for (script, words) in [
        ("true", "something else than a JSON object"),
        ("echo []", "something else than a JSON object"),
        ("echo '{}'", "without a token"),
        ("echo '{\"accessToken\":\"\"}'", "without a token"),
        ("echo '{\"accessToken\":\"a b\"}'", "without a token"),
        ("echo '{\"accessToken\":\"opaque\"}'", "no readable expiry"),
        (
            "echo '{\"accessToken\":\"opaque\",\"expires_on\":1}'",
            "already expired",
        ),
        // More than is kept, and more than a pipe holds.
        (
            "head -c 3000000 /dev/zero | tr '\\0' a",
            "something else than a JSON object",
        ),
    ] {
        let error = Cli::new(script).ask().await.unwrap_err();
        assert!(error.message().contains(words), "{script}: {error}");
        assert!(!error.message().contains("opaque"), "{error}");
        assert!(error.hint().is_some());
    }
}

#[tokio::test]
async fn refusals_have_a_kind_and_a_next_step() {
    for (said, kind, code, hint) in [
        (
            "ERROR: Please run 'az login' to setup account.",
            ErrorCode::Rejected,
            None,
            "az login",
        ),
        (
            "ERROR: AADSTS700082: The refresh token has expired due to inactivity. Trace ID: t\nInteractive authentication is needed. Please run:\naz login --scope https://storage.azure.com/.default",
            ErrorCode::GrantEnded,
            Some("AADSTS700082"),
            "az login",
        ),
        (
            "ERROR: AADSTS500011: The resource principal named x was not found.\nInteractive authentication is needed. Please run:\naz login",
            ErrorCode::Rejected,
            Some("AADSTS500011"),
            "az login",
        ),
        (
            "ERROR: AADSTS50196: The server found a loop. Trace ID: t\nInteractive authentication is needed. Please run:\naz login",
            ErrorCode::Transient,
            Some("AADSTS50196"),
            "by itself",
        ),
        (
            "ERROR: HTTPSConnectionPool(host='login.microsoftonline.com', port=443): Max retries exceeded with url: /x",
            ErrorCode::Transient,
            None,
            "network",
        ),
        (
            "ERROR: No subscription found. Run 'az account set' to select a subscription.",
            ErrorCode::Rejected,
            None,
            "az account set",
        ),
        ("Traceback\nboom", ErrorCode::Rejected, None, "in a shell"),
        ("", ErrorCode::Rejected, None, "in a shell"),
    ] {
        let cli = Cli::new(&format!("cat >&2 <<'EOF'\n{said}\nEOF\nexit 1"));
        let error = cli.ask().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{said}: {error}");
        assert_eq!(error.issuer_code(), code, "{said}");
        assert!(error.hint().unwrap().contains(hint), "{error:?}");
        assert!(error.message().contains("ended with code 1"), "{error}");
    }
    // The end of what it says is what counts, however much comes before.
    let chatty = "yes 'WARNING: this is old' | head -c 100000 >&2; echo 'ERROR: Please run az login' >&2; exit 1";
    let error = Cli::new(chatty).ask().await.unwrap_err();
    assert!(error.message().ends_with("Please run az login"), "{error}");
    let error = Cli::new("kill -9 $$").ask().await.unwrap_err();
    assert!(error.message().contains("signal"), "{error}");
}

#[tokio::test]
async fn what_it_says_shows_no_token_and_no_address() {
    let token = jwt(&json!({"oid": GUID}));
    let cli = Cli::new(&format!(
        "echo \"ERROR: ann@contoso.example has {token}\" >&2\nexit 3"
    ));
    let error = cli.ask().await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(
        !shown.contains("eyJ") && !shown.contains("contoso"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_program_that_is_gone() {
    let cli = Cli::new("true");
    fs::remove_file(&cli.program).unwrap();
    let error = cli.ask().await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Rejected);
    assert!(error.message().contains("cannot be started"), "{error}");
}

/// Waits until the process is gone, as it is once it was ended.
async fn is_ended(id: &str) {
    let id = Pid::from_raw(id.trim().parse().unwrap());
    for _ in 0..2_000 {
        // An ended one that nobody has waited for yet has no program any more.
        let state = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        if kill(id, None).is_err() || state.contains(") Z ") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{id} still runs");
}

#[tokio::test]
async fn one_that_hangs_is_ended_with_all_that_it_started() {
    let cli = Cli::new("sleep 1000 &\necho $! > child\necho $$ > self\nmv self ready\nwait");
    let source = cli.source(None).patient_for(Duration::from_secs(2));
    let error = fetch(&source, Identity::Job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Transient);
    assert!(error.message().contains("no answer within 2 s"), "{error}");
    is_ended(&cli.file("child")).await;
    is_ended(&cli.file("ready")).await;
}

#[tokio::test]
async fn a_call_that_is_let_go_of_leaves_nothing_behind() {
    let cli = Cli::new("sleep 1000 &\necho $! > child\necho $$ > self\nmv self ready\nwait");
    let source = cli.source(None);
    let call = tokio::spawn(async move { fetch(&source, Identity::Job).await });
    while !cli.path().join("ready").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    is_ended(&cli.file("child")).await;
    is_ended(&cli.file("ready")).await;
}
