//! What a container tool tells the credential helper, and what an agent answers it. The first line is a word of the protocol and the
//! status of the answer, the second the answer's body, and the rest is what is on standard input.

#![no_main]

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, process, thread};

use jobcred_fuzz::SECRET;
use jobcred_wire::{
    LoginServer, LoginServerError, REGISTRY_USERNAME, RegistryAddress, RegistryRequest,
    SOCKET_VARIABLE,
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

// A program has no other door.
#[path = "../../client-lib/docker-credential/src/verb.rs"]
mod verb;

/// By the letter of the protocol: after this every tool goes on without a credential.
const NOT_FOUND: &str = "credentials not found in native keychain\n";

/// What the agent answers next, and the first lines of what it was sent.
static AGENT: Mutex<Agent> = Mutex::new(Agent {
    answer: String::new(),
    requests: Vec::new(),
});

struct Agent {
    answer: String,
    requests: Vec<String>,
}

fuzz_target!(init: start(), |data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let (Some(head), Some(body)) = (text(), text()) else {
        return;
    };
    let input = parts.next().unwrap_or_default();
    let Some((word, status)) = head.split_once(' ') else {
        return;
    };
    let Some(status) = status.parse::<u16>().ok().filter(|status| (200..600).contains(status))
    else {
        return;
    };
    let length = body.len();
    *AGENT.lock().unwrap() = Agent {
        answer: format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{body}"),
        requests: Vec::new(),
    };
    let reply = match word {
        "get" => verb::get(input),
        "store" => verb::store(input),
        "erase" => verb::erase(input),
        "list" => verb::list(),
        _ => return,
    };
    let requests = std::mem::take(&mut AGENT.lock().unwrap().requests);
    // This reader of JSON refuses more: numbers that are too large, in what the helper passes over.
    let json = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap_or_default();

    let stored = json(input);
    let address = match word {
        "store" => stored["ServerURL"].as_str().unwrap_or_default(),
        _ => std::str::from_utf8(input).unwrap_or_default(),
    };
    let address = address.trim();
    if word != "list" && !(word == "store" && stored.is_null()) {
        assert_asked(word, address, &requests);
    }

    let spoken = format!("{}{}{requests:?}", reply.stdout, reply.stderr);
    // What is to be stored goes nowhere, nor does what is before the `@` of an address. An agent's own words are its own.
    if !body.contains(SECRET) && (reply.status == 1 || word == "store") {
        let is_in_host = RegistryAddress::parse(address).is_ok_and(|it| it.host().contains(SECRET));
        assert!(is_in_host || !spoken.contains(SECRET), "{spoken}");
    }
    let answer = json(body.as_bytes());
    match (word, reply.status) {
        ("get", 0) => {
            let credential: BTreeMap<String, String> = serde_json::from_str(&reply.stdout).unwrap();
            assert_eq!(credential.len(), 3);
            assert_eq!(credential["ServerURL"], address);
            assert!(!credential["Secret"].is_empty());
            if !answer.is_null() {
                assert_eq!(answer["username"], credential["Username"]);
                assert_eq!(answer["secret"], credential["Secret"]);
            }
            assert_eq!((requests.len(), reply.stderr.as_str()), (1, ""));
            assert!([200, 204].contains(&status));
        }
        ("list", status) => {
            let held: BTreeMap<String, String> = serde_json::from_str(&reply.stdout).unwrap();
            assert!(held.values().all(|name| name == REGISTRY_USERNAME));
            assert_eq!((status, reply.stderr.as_str()), (0, ""));
        }
        (_, 0) => assert_eq!((reply.stdout.as_str(), reply.stderr.as_str()), ("", "")),
        // One line, on both streams unless it is no mistake.
        (_, 1) => {
            let line = reply.stdout.strip_suffix('\n').unwrap();
            assert!(!line.is_empty() && line.len() < 8000, "{line}");
            assert!(!line.contains(char::is_control), "{line:?}");
            if reply.stderr.is_empty() {
                assert_eq!((word, reply.stdout.as_str()), ("get", NOT_FOUND));
            } else {
                assert_eq!(reply.stdout, reply.stderr);
                assert_ne!(reply.stdout, NOT_FOUND);
            }
            // What is no credential all the same is not quoted.
            assert!(status != 200 || !line.contains("eyJ"), "{line}");
        }
        _ => panic!("{reply:?}"),
    }
});

/// The agent is asked once at most, and for a plain host: the one that is meant, if any.
fn assert_asked(word: &str, address: &str, requests: &[String]) {
    let [request] = requests else {
        assert!(requests.is_empty(), "{requests:?}");
        return;
    };
    let parts: Vec<&str> = request.trim_end().split(' ').collect();
    let method = if word == "erase" { "DELETE" } else { "GET" };
    assert_eq!((parts.len(), parts[0], parts[2]), (3, method, "HTTP/1.1"));
    let (_, query) = parts[1].split_once('?').unwrap();
    let server = RegistryRequest::from_query(query).unwrap().server;
    let meant = RegistryAddress::parse(address).unwrap();
    assert_eq!(server, meant.to_string());
    let never = [
        LoginServerError::DataEndpoint,
        LoginServerError::PublicRegistry,
        LoginServerError::NotAHost,
    ];
    assert!(
        LoginServer::parse(&server, &[]).map_or_else(|error| !never.contains(&error), |_| true),
        "{server}"
    );
    // Whatever is stored for one of Azure's needs no agent.
    assert!(word != "store" || LoginServer::parse(&server, &[]).is_err());
}

/// Starts an agent in this process. The helper finds it by its environment, which only another program's start can set; and
/// this way it never asks a real one.
#[expect(
    clippy::disallowed_methods,
    reason = "what is fuzzed reads the environment of this process"
)]
fn start() {
    let socket = env::temp_dir().join(format!("jobcred-fuzz-{}.sock", process::id()));
    if env::var_os(SOCKET_VARIABLE).as_deref() != Some(socket.as_os_str()) {
        let program = env::current_exe().unwrap();
        let error = Command::new(program)
            .args(env::args_os().skip(1))
            .env(SOCKET_VARIABLE, socket)
            .exec();
        panic!("{error}");
    }
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A caller that is gone is none.
            let _ = stream.and_then(|stream| answer(&stream));
        }
    });
}

fn answer(mut stream: &UnixStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut request = String::new();
    lines.read_line(&mut request)?;
    for header in lines.lines() {
        if header?.is_empty() {
            break;
        }
    }
    let mut agent = AGENT.lock().unwrap();
    agent.requests.push(request);
    let answer = agent.answer.clone();
    drop(agent);
    stream.write_all(answer.as_bytes())
}
