//! Names the shared library by the version of its ABI, so that a program never loads one that it was not built for.

#![expect(
    clippy::disallowed_methods,
    reason = "Cargo tells a build script about its target by the environment"
)]

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libjobcred.so.0");
        // Every symbol is there when the library is loaded, or it is not loaded: none goes missing in the middle of a job.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,now,-z,defs");
    }
}
