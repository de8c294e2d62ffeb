//! Credentials for container registries.

use std::ffi::{CString, c_char};
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr;

use crate::boundary::call;
use crate::client::Client;
use crate::error::Error;
use crate::text::{self, SecretText};

/// A user name and password for a container registry.
pub struct RegistryCredential {
    server: CString,
    username: CString,
    secret: SecretText,
    expires_on: i64,
    refresh_on: i64,
}

/// A credential for a container registry, by its login server, for example `myregistry.azurecr.io`. Errors as for
/// `jobcred_get_token`; a registry that needs no credential is one, of the kind `JOBCRED_KIND_ANONYMOUS`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jobcred_get_registry_credential(
    client: Option<&Client>,
    server: *const c_char,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Option<Box<RegistryCredential>> {
    call(error, || {
        // SAFETY: by the rules of the header.
        let server = unsafe { text::required("server", server) }?;
        let answer = Client::of(client)?.registry(&server)?;
        Ok(RegistryCredential {
            server: text::owned(&answer.server),
            username: text::owned(&answer.username),
            secret: SecretText::new("registry's password", &answer.secret)?,
            expires_on: answer.expires_on,
            refresh_on: answer.refresh_on,
        })
    })
}

/// Makes the agent drop the credential that it holds for a registry, after the registry has refused it. Returns whether it
/// did; errors as for `jobcred_get_token`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jobcred_erase_registry_credential(
    client: Option<&Client>,
    server: *const c_char,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> bool {
    call(error, || {
        // SAFETY: by the rules of the header.
        let server = unsafe { text::required("server", server) }?;
        Ok::<(), Error>(Client::of(client)?.erase_registry(&server)?)
    })
    .is_some()
}

/// The login server, lower case. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_registry_credential_server(
    credential: Option<&RegistryCredential>,
) -> *const c_char {
    text::pointer(credential.map(|credential| &credential.server))
}

/// The user name that container clients must send. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_registry_credential_username(
    credential: Option<&RegistryCredential>,
) -> *const c_char {
    text::pointer(credential.map(|credential| &credential.username))
}

/// The password. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_registry_credential_secret(
    credential: Option<&RegistryCredential>,
) -> *const c_char {
    credential.map_or(ptr::null(), |credential| credential.secret.as_ptr())
}

/// When the credential ends, in unix seconds. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_registry_credential_expires_on(
    credential: Option<&RegistryCredential>,
) -> i64 {
    credential.map_or(0, |credential| credential.expires_on)
}

/// When to ask again, in unix seconds; never after the end. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_registry_credential_refresh_on(
    credential: Option<&RegistryCredential>,
) -> i64 {
    credential.map_or(0, |credential| credential.refresh_on)
}

/// Frees a credential and wipes it. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_registry_credential_free(credential: Option<Box<RegistryCredential>>) {
    drop(credential);
}

impl fmt::Debug for RegistryCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryCredential")
            .field("server", &self.server)
            .field("expires_on", &self.expires_on)
            .finish_non_exhaustive()
    }
}
