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
    let mut written = Vec::new();
    cbindgen::Builder::new()
        .with_crate(root)
        .with_config(config)
        .generate()
        .unwrap()
        .write(&mut written);
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
