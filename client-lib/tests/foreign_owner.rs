//! A listener that runs as somebody else is refused before anything is sent to it.
//!
//! Needs root, to start such a listener. This binary is its own listener: run with `listen PATH` it accepts one
//! connection and prints how many bytes came.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops at the first surprise, and talks to its listener over standard output"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use jobcred_client::{Client, ErrorKind};

const FOREIGN_UID: u32 = 54_321;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, verb, path] = arguments.as_slice()
        && verb == "listen"
    {
        return listen(path);
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs root, to run a listener as another user"
    );
    a_foreign_listener_is_refused_and_gets_no_byte();
    the_configured_uid_is_accepted();
    #[cfg(feature = "async")]
    the_async_client_has_the_same_rule();
    println!("foreign_owner: passed");
}

fn a_foreign_listener_is_refused_and_gets_no_byte() {
    let listener = Listener::start();
    let error = Client::builder()
        .socket(&listener.path)
        .build()
        .get("/healthz")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    let text = error.to_string();
    assert!(text.contains("uid 54321"), "{text}");
    assert!(text.contains("JOBCRED_AGENT_UID"), "{text}");
    assert_eq!(listener.bytes(), 0);
}

#[cfg(feature = "async")]
fn the_async_client_has_the_same_rule() {
    let listener = Listener::start();
    let client = Client::builder().socket(&listener.path).build_async();
    let error = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(client.get("/healthz"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    assert_eq!(listener.bytes(), 0);
}

fn the_configured_uid_is_accepted() {
    let listener = Listener::start();
    let error = Client::builder()
        .socket(&listener.path)
        .agent_uid(FOREIGN_UID)
        .build()
        .get("/healthz")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection, "the listener hangs up");
    assert!(listener.bytes() > 0);
}

struct Listener {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    child: std::process::Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Listener {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let path = dir.path().join("agent.sock");
        // The other user may not be able to reach this binary where it was built.
        let program = dir.path().join("listener");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let mut child = Command::new(&program)
            .arg("listen")
            .arg(&path)
            .uid(FOREIGN_UID)
            .gid(FOREIGN_UID)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n");
        Self {
            _dir: dir,
            path,
            child,
            output,
        }
    }

    fn bytes(mut self) -> usize {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(self.child.wait().unwrap().success());
        line.trim().parse().unwrap()
    }
}

fn listen(path: &str) {
    let listener = UnixListener::bind(path).unwrap();
    println!("listening");
    std::io::stdout().flush().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = [0; 4096];
    println!("{}", stream.read(&mut buffer).unwrap());
}
