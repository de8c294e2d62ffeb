//! The C library as C programs use it: built by a C compiler from what `install` puts in place, run against a double of
//! the agent and against the agent itself, under valgrind, in threads and across forks.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

#[path = "../../../tests/double/mod.rs"]
mod double;
mod place;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::double::{Act, AgentDouble, error, json, token};
use crate::place::{Place, run, text};

/// Far away, so that the double's tokens never end.
const ENDS: i64 = 4_102_444_800;

const VALGRIND: [&str; 6] = [
    "valgrind",
    "--quiet",
    "--leak-check=full",
    "--show-leak-kinds=definite,indirect,possible",
    "--errors-for-leak-kinds=definite,indirect,possible",
    "--error-exitcode=99",
];

/// What a request for it gets by its name, as `contract.c` says.
fn answer(line: &str) -> Act {
    let (path, query) = line.split_once('?').unwrap();
    let value = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(&format!("{name}=")))
    };
    let wanted = value("resource")
        .or_else(|| value("server"))
        .or_else(|| value("scope"))
        .unwrap();
    match wanted {
        "invalid_request" => error(400, wanted),
        "denied" => error(403, wanted),
        "unavailable" | "transient" => error(503, wanted),
        "rejected" | "grant_ended" => error(502, wanted),
        "anonymous" => error(404, wanted),
        "internal" | "brand_new" => error(500, wanted),
        "garbage" => Act::SendAndClose(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()),
        "hang" => Act::Hang,
        "closing" | "closing-too" => {
            let Act::Send(bytes) = token("t0ken-of-the-double", 1, ENDS) else {
                unreachable!();
            };
            Act::SendAndClose(bytes)
        }
        _ if line.starts_with("DELETE") => json(204, ""),
        _ if path.ends_with("/registry") => json(
            200,
            &format!(
                r#"{{"server":"{wanted}","username":"u","secret":"s3cret-of-the-double","expires_on":{ENDS},"refresh_on":{}}}"#,
                ENDS - 3600
            ),
        ),
        _ => token("t0ken-of-the-double", ENDS - 3600, ENDS),
    }
}

fn agent(place: &Place) -> AgentDouble {
    AgentDouble::start(&place.socket(), |line, _| answer(line))
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let place = Place::new();
    let library = place.lib().join("libjobcred.so");
    let symbols = run(Command::new("nm")
        .args(["--dynamic", "--defined-only", "--format=posix"])
        .arg(&library));
    let exported: BTreeSet<String> = text(&symbols)
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect();
    let header = std::fs::read_to_string(place.include().join("jobcred.h")).unwrap();
    let (_, code) = header.split_once("#define JOBCRED_H").unwrap();
    let declared: BTreeSet<String> = code
        .lines()
        .filter(|line| !line.trim_start().starts_with(['*', '/']))
        .filter_map(|line| line.split_once('(').map(|(before, _)| before))
        .filter_map(|before| before.rsplit([' ', '*']).next())
        .map(str::to_owned)
        .collect();
    assert!(declared.len() > 30, "{declared:?}");
    assert_eq!(exported, declared);
    assert!(exported.iter().all(|name| name.starts_with("jobcred_")));
}

#[test]
fn the_library_names_its_abi_and_needs_little() {
    let place = Place::new();
    let dynamic = run(Command::new("readelf")
        .args(["--dynamic", "--wide"])
        .arg(place.lib().join("libjobcred.so")));
    let dynamic = text(&dynamic);
    let named = |kind: &str| -> BTreeSet<&str> {
        dynamic
            .lines()
            .filter(|line| line.contains(kind))
            .filter_map(|line| line.split(['[', ']']).nth(1))
            .collect()
    };
    assert_eq!(named("(SONAME)"), BTreeSet::from(["libjobcred.so.0"]));
    let loader = |name: &&str| name.starts_with("ld-linux");
    let needed: Vec<&str> = named("(NEEDED)")
        .into_iter()
        .filter(|name| !loader(name))
        .collect();
    assert_eq!(needed, ["libc.so.6", "libgcc_s.so.1"]);
}

#[test]
fn the_header_is_c_and_cpp_without_a_warning() {
    let place = Place::new();
    place.compile("example", "gcc -std=c99 -pedantic", &place::example());
    place.compile("newer", "gcc -std=c17 -pedantic", &place::example());
    place.compile("plus", "g++ -std=c++11 -pedantic -x c++", &place::example());
}

#[test]
fn the_example_gets_a_token_from_a_real_agent() {
    let place = Place::new();
    let shared = place.compile("shared", "gcc -std=c99", &place::example());
    let fixed = place.compile_static("fixed", &place::example());
    for (program, prefix) in [
        (&shared, &[][..]),
        (&shared, &VALGRIND[..]),
        (&fixed, &[][..]),
    ] {
        let done = run(place
            .sandbox()
            .args(prefix)
            .arg(program)
            .arg("https://storage.azure.com/"));
        let said = text(&done);
        assert!(
            said.starts_with("a Bearer token of ") && said.contains("https://storage.azure.com"),
            "{said}"
        );
    }
}

#[test]
fn the_example_says_what_is_wrong_and_whether_to_try_again() {
    let place = Place::new();
    let program = place.compile("example", "gcc -std=c99", &place::example());
    let fails = |socket: &Path, resource: &str| {
        let output = place
            .command(&program)
            .env("JOBCRED_SOCKET", socket)
            .arg(resource)
            .output()
            .unwrap();
        assert!(output.stdout.is_empty());
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let _agent = agent(&place);
    let (status, said) = fails(&place.socket(), "rejected");
    assert_eq!(status, Some(1));
    assert_eq!(
        said,
        "no token (rejected): it is rejected\nhint: look there\nin the agent's log: request r1\n"
    );
    let (status, said) = fails(Path::new("/nowhere/agent.sock"), "r");
    assert_eq!(status, Some(75), "{said}");
    assert!(said.starts_with("no token (transient): "), "{said}");
}

#[test]
fn errors_null_and_bad_text_are_as_the_header_says() {
    let place = Place::new();
    let agent = agent(&place);
    let program = place.compile_test("contract");
    run(place.command(&program).arg(place.socket()));
    let asked = agent.requests();
    assert!(
        asked.iter().any(|line| line == "GET /v1/token?scope=https%3A%2F%2Fvault.azure.net%2F.default&resource_id=%2Fsubscriptions%2Fs&min_validity=600&claims=%7B%22access_token%22%3A%7B%7D%7D&tenant_id=tenant"),
        "{asked:?}"
    );
    run(place.under(&VALGRIND, &program).arg(place.socket()));
}

#[test]
fn threads_share_a_client() {
    let place = Place::new();
    let agent = agent(&place);
    let program = place.compile_test("threads");
    run(place.command(&program).arg(place.socket()).arg("300"));
    let storage = agent
        .requests()
        .iter()
        .filter(|line| line.contains("storage"))
        .count();
    assert_eq!(storage, 1, "the others wait, or take it from memory");
    run(place
        .under(&VALGRIND, &program)
        .arg(place.socket())
        .arg("10"));
}

#[test]
fn a_client_works_on_both_sides_of_a_fork() {
    let place = Place::new();
    let _agent = agent(&place);
    let program = place.compile_test("forks");
    run(place
        .command(&program)
        .arg(place.socket())
        .args(["4", "200"]));
    // Without threads: what those of the parent held at the fork is nobody's in the child, and would count as lost. What
    // the child keeps of its parent's has tables in it whose only pointers are to their middle: "possibly lost".
    let mut valgrind = VALGRIND.to_vec();
    valgrind.push("--errors-for-leak-kinds=definite,indirect");
    run(place
        .under(&valgrind, &program)
        .arg(place.socket())
        .args(["0", "3"]));
}

#[test]
fn secrets_are_wiped_before_their_memory_is_given_back() {
    let place = Place::new();
    let _agent = agent(&place);
    let program = place.compile_test("wiped");
    run(place.command(&program).arg(place.socket()));
}
