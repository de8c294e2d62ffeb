//! The committed header is what the sources say.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "UPDATE_DOCS is for the person who changed the sources"
)]
fn the_header_is_in_step_with_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    // File by file, in the order of the crate: by the crate itself it would ask cargo for the metadata of every package
    // of the workspace, on whatever system, and those may not have been downloaded.
    let crate_root = std::fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for line in crate_root.lines() {
        if let Some(module) = line
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        {
            builder = builder.with_src(root.join("src").join(format!("{module}.rs")));
        }
    }
    let mut written = Vec::new();
    builder.generate().unwrap().write(&mut written);
    let path = root.join("include/jobcred.h");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    let committed = std::fs::read(&path).unwrap_or_default();
    assert!(
        committed == written,
        "include/jobcred.h: run this test with UPDATE_DOCS=1"
    );
}
