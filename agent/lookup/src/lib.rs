//! Lookups of host and user names in a statically linked program.
//!
//! The GNU C library looks names up through modules that `/etc/nsswitch.conf` lists, and loads the host's: `myhostname`,
//! `mdns4_minimal`, `resolve`, `systemd`. A statically linked program has a C library of its own, and a module that was made
//! for another version of it aborts the whole process. The agent would die of its first question for a name, on hosts that
//! have nothing wrong with them. The ways that every libc has built in, files and DNS, need no module, and are what a
//! container has.

/// Lets this process look names up by the built-in ways alone, whatever `/etc/nsswitch.conf` says: hosts in `/etc/hosts` and
/// DNS, users and groups in their files. To be called first of all, before there is a second thread.
///
/// Does nothing in a dynamically linked program, whose modules are made for its C library.
pub fn use_built_in_ways() {
    #[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
    built_in::choose();
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
mod built_in {
    use std::ffi::{CStr, c_char, c_int};

    unsafe extern "C" {
        /// `<nss.h>`: replaces what `/etc/nsswitch.conf` says of one database. 0, or -1 where it can't.
        fn __nss_configure_lookup(database: *const c_char, ways: *const c_char) -> c_int;
    }

    const WAYS: [(&CStr, &CStr); 3] = [
        (c"hosts", c"files dns"),
        (c"passwd", c"files"),
        (c"group", c"files"),
    ];

    pub(super) fn choose() {
        for (database, ways) in WAYS {
            // It fails without memory, or for a database that is unknown: then all stays as it was.
            // SAFETY: both are strings that end in NUL and live as long as the program, it copies what it keeps, and there
            // is one thread yet.
            let _ = unsafe { __nss_configure_lookup(database.as_ptr(), ways.as_ptr()) };
        }
    }
}
