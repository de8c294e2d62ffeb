//! The rules of ARCHITECTURE.md that a compiler does not keep: who may depend on whom, and that what it names exists.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What opens or is a socket; addresses are values.
const SOCKETS: [&str; 8] = [
    "tokio::net",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "nix::sys::socket",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Names of the packages that each member of the workspace needs at run time.
fn needs() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new("cargo")
        .args([
            "metadata",
            "--offline",
            "--locked",
            "--no-deps",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let names = dependencies
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| text(&dependency["name"]))
                .collect();
            (text(&package["name"]), names)
        })
        .collect()
}

/// Rust files below `path` (or `path` itself), those of tests left out.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            found.extend(sources(&path));
        } else if Path::new(name).extension().is_some_and(|kind| kind == "rs") && name != "tests.rs"
        {
            found.push(path);
        }
    }
    found
}

/// A module: its file and its folder, whichever there are.
fn module(name: &str) -> Vec<PathBuf> {
    let src = root().join("agent/src");
    let places = [src.join(format!("{name}.rs")), src.join(name)];
    let found: Vec<PathBuf> = places
        .iter()
        .filter(|place| place.exists())
        .flat_map(|place| sources(place))
        .collect();
    assert!(!found.is_empty(), "there is no module {name}");
    found
}

/// The code of a file: without comments, and without the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |code, line| code + line + "\n")
}

fn mentions(files: &[PathBuf], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let code = code(file);
        for word in words.iter().filter(|word| code.contains(**word)) {
            found.push(format!(
                "{}: {word}",
                file.strip_prefix(root()).unwrap().display()
            ));
        }
    }
    found
}

#[test]
fn packages_depend_on_each_other_in_one_direction() {
    let needs = needs();
    let forbidden = [
        ("jobcred-client", vec!["jobcred", "jobcred-tests"]),
        (
            "jobcred-wire",
            vec!["jobcred", "jobcred-client", "jobcred-tests"],
        ),
        (
            "docker-credential-jobcred",
            vec!["jobcred", "jobcred-tests"],
        ),
        ("jobcred-capi", vec!["jobcred", "jobcred-tests"]),
        ("jobcred", vec!["jobcred-tests"]),
        // The doubles share no code with what they test.
        (
            "jobcred-tests",
            vec!["jobcred", "jobcred-wire", "jobcred-client"],
        ),
    ];
    for (package, others) in forbidden {
        let needed = needs
            .get(package)
            .unwrap_or_else(|| panic!("there is no package {package}"));
        for other in others {
            assert!(!needed.contains(other), "{package} depends on {other}");
        }
    }
}

#[test]
fn the_wire_types_do_no_io() {
    let allowed = [
        "percent-encoding",
        "serde",
        "serde_json",
        "thiserror",
        "zeroize",
    ];
    let wire = &needs()["jobcred-wire"];
    let more: Vec<&String> = wire
        .iter()
        .filter(|name| !allowed.contains(&name.as_str()))
        .collect();
    assert!(
        more.is_empty(),
        "jobcred-wire needs {more:?}: is that free of I/O?"
    );
    let files = sources(&root().join("client-lib/wire/src"));
    let io = [
        &SOCKETS[..],
        &["std::fs", "std::process", "std::env", "std::io"],
    ]
    .concat();
    assert_eq!(mentions(&files, &io), Vec::<String>::new());
}

/// The lines of a section of a Cargo.toml, without comments.
fn section(text: &str, name: &str) -> BTreeSet<String> {
    let (_, rest) = text
        .split_once(&format!("[{name}]\n"))
        .unwrap_or_else(|| panic!("no section {name}"));
    rest.lines()
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn unsafe_code_is_for_the_edge_with_c_alone() {
    // What C calls, and one call into C.
    let exceptions = ["client-lib/capi", "agent/lookup"];
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let workspace = read("Cargo.toml");
    let members = workspace
        .lines()
        .find_map(|line| line.strip_prefix("members = "))
        .unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    for exception in exceptions {
        assert!(members.contains(&exception), "{members:?}");
    }
    for member in members {
        let own = read(&format!("{member}/Cargo.toml"));
        if !exceptions.contains(&member) {
            let lints = section(&own, "lints");
            assert!(lints.contains("workspace = true"), "{member}");
            continue;
        }
        for tool in ["rust", "clippy"] {
            let shared = section(&workspace, &format!("workspace.lints.{tool}"));
            let own = section(&own, &format!("lints.{tool}"));
            let missing: Vec<&String> = shared.difference(&own).collect();
            let expected: &[&str] = match tool {
                "rust" => &["unsafe_code = \"forbid\""],
                _ => &[],
            };
            assert_eq!(missing, expected, "{member}: {tool}");
        }
        for line in ["unsafe_op_in_unsafe_fn", "undocumented_unsafe_blocks"] {
            let line = format!("{line} = \"deny\"");
            assert!(own.contains(&line), "{member}: {line}");
        }
    }
}

#[test]
fn in_the_agent_only_the_commands_use_the_client() {
    let src = root().join("agent/src");
    let files: Vec<PathBuf> = sources(&src)
        .into_iter()
        .filter(|file| !file.starts_with(src.join("cli")))
        .collect();
    assert!(files.len() > 30, "only {} files", files.len());
    assert_eq!(mentions(&files, &["jobcred_client"]), Vec::<String>::new());
}

#[test]
fn the_domain_knows_no_http_and_no_socket() {
    let http = [
        "hyper",
        "http::",
        "use http",
        "rustls",
        "crate::front",
        "crate::transport",
        "crate::source",
        "crate::registry",
    ];
    let edges = [&SOCKETS[..], &http].concat();
    for name in ["peer", "policy", "broker", "strategy", "principal"] {
        let found = mentions(&module(name), &edges);
        assert_eq!(found, Vec::<String>::new(), "{name}");
    }
}

/// Relative targets of a Markdown file's links.
fn links(text: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#', ' ']).next())
        .filter(|target| {
            !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")
        })
        .map(str::to_owned)
        .collect()
}

/// What stands in backquotes and is a path of this repository: it has a slash and a known first part.
fn quoted_paths(text: &str) -> Vec<String> {
    let first = [
        "agent",
        "client-lib",
        "python-shim",
        "tests",
        "docs",
        "deploy",
        "target",
    ];
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| {
            quoted
                .split_once('/')
                .is_some_and(|(head, _)| first.contains(&head))
                && quoted
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte))
                && !quoted.starts_with("target/")
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_file_that_the_documents_name_exists() {
    let root = root();
    let mut documents = vec![
        root.join("ARCHITECTURE.md"),
        root.join("README.md"),
        root.join("tests/README.md"),
        root.join("python-shim/README.md"),
    ];
    let docs = fs::read_dir(root.join("docs")).unwrap();
    documents.extend(
        docs.map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "md")),
    );
    let mut missing = Vec::new();
    let mut checked = 0;
    for document in documents {
        let text = fs::read_to_string(&document)
            .unwrap_or_else(|error| panic!("{}: {error}", document.display()));
        let folder = document.parent().unwrap();
        let named = links(&text)
            .into_iter()
            .map(|link| (folder.join(&link), link))
            .chain(
                quoted_paths(&text)
                    .into_iter()
                    .map(|path| (root.join(&path), path)),
            );
        for (path, name) in named {
            checked += 1;
            if !path.exists() {
                missing.push(format!(
                    "{}: {name}",
                    document.strip_prefix(&root).unwrap().display()
                ));
            }
        }
    }
    assert!(checked > 0, "no document names a file");
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_layout_in_the_architecture_is_the_layout() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, layout) = text
        .split_once("## Layout")
        .expect("it has a section Layout");
    let (tree, modules) = layout
        .split_once("Agent modules")
        .expect("and a table of modules");
    let mut folder = PathBuf::new();
    let mut named = Vec::new();
    for line in tree.lines() {
        let Some(name) = line
            .split_whitespace()
            .next()
            .filter(|name| name.ends_with('/'))
        else {
            continue;
        };
        let path = if line.starts_with(' ') {
            folder.join(name)
        } else {
            folder = root().join(name);
            folder.clone()
        };
        named.push(path);
    }
    let rows = modules.lines().filter(|line| line.starts_with("| `"));
    for cell in rows.filter_map(|row| row.split('|').nth(1)) {
        let quoted = cell.split('`').skip(1).step_by(2);
        named.extend(quoted.map(|name| root().join("agent/src").join(name)));
    }
    assert!(named.len() > 15, "{named:?}");
    let missing: Vec<&PathBuf> = named.iter().filter(|path| !path.exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
