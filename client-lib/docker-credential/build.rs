//! Links GCC's unwinder into the program instead of loading `libgcc_s.so.1`.
//!
//! The helper runs once per `docker` command and is done in a millisecond, a tenth of which went into finding, mapping
//! and relocating that one library.

#![expect(
    clippy::disallowed_methods,
    reason = "Cargo tells a build script about its target by the environment"
)]

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, wanted: &str| env::var(name).is_ok_and(|value| value == wanted);
    let is_static = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|features| features.split(',').any(|feature| feature == "crt-static"));
    // Elsewhere the unwinder is another one, and in a static program it is linked in already.
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") && !is_static {
        // It comes with every GCC, next to the shared one. Whole, so that what std wants of it is there first.
        println!("cargo::rustc-link-lib=static:-bundle,+whole-archive=gcc_eh");
    }
}
