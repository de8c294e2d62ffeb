//! Where the built programs are.

use std::path::PathBuf;

/// The program of that name from the same build as this test: `target/<profile>/deps/test` -> `target/<profile>/name`.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path is known");
    let directory = test
        .ancestors()
        .find(|directory| directory.file_name().is_some_and(|name| name == "deps"))
        .and_then(|deps| deps.parent())
        .expect("tests are run from a directory `deps`");
    let path = directory.join(name);
    assert!(
        path.is_file(),
        "{} is not there: build the whole workspace, as `make test` does",
        path.display()
    );
    path
}
