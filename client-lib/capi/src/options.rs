//! What a token request may say besides its resource.

use std::ffi::c_char;

use jobcred_client::{NamedIdentity, Target, TokenRequest};

use crate::boundary::guard;
use crate::error::Error;
use crate::text;

/// Options of a token request. One object may serve any number of requests.
///
/// A setter takes a copy; NULL takes the option back. A mistake is reported by the request that uses the options.
#[derive(Clone, Debug, Default)]
pub struct Options {
    client_id: Option<String>,
    object_id: Option<String>,
    resource_id: Option<String>,
    tenant_id: Option<String>,
    claims: Option<String>,
    min_validity: Option<u64>,
    /// The names of the options whose text could not be read, with the reason.
    mistakes: Vec<(&'static str, String)>,
}

/// Options that ask for nothing special.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_options_new() -> Option<Box<Options>> {
    guard(Box::default)
}

/// Asks for the identity with this application (client) id instead of the job's own, where the agent's policy allows it. At
/// most one of client id, object id and resource id may be set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jobcred_options_set_client_id(
    options: Option<&mut Options>,
    client_id: *const c_char,
) {
    // SAFETY: by the rules of the header.
    unsafe { set(options, "client id", client_id, |all| &mut all.client_id) }
}

/// The same by the object id of the identity's service principal.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jobcred_options_set_object_id(
    options: Option<&mut Options>,
    object_id: *const c_char,
) {
    // SAFETY: by the rules of the header.
    unsafe { set(options, "object id", object_id, |all| &mut all.object_id) }
}

/// The same by the identity's Azure resource id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jobcred_options_set_resource_id(
    options: Option<&mut Options>,
    resource_id: *const c_char,
) {
    // SAFETY: by the rules of the header.
    unsafe {
        set(options, "resource id", resource_id, |all| {
            &mut all.resource_id
        });
    }
}

/// The tenant that should issue the token; refused where the identity cannot leave its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jobcred_options_set_tenant_id(
    options: Option<&mut Options>,
    tenant_id: *const c_char,
) {
    // SAFETY: by the rules of the header.
    unsafe { set(options, "tenant id", tenant_id, |all| &mut all.tenant_id) }
}

/// A claims challenge from a resource, as JSON text. Such a request always goes to the agent, and past its memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jobcred_options_set_claims(
    options: Option<&mut Options>,
    claims: *const c_char,
) {
    // SAFETY: by the rules of the header.
    unsafe { set(options, "claims", claims, |all| &mut all.claims) }
}

/// The shortest life left that the caller can use, in seconds; 0 takes it back.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_options_set_min_validity(options: Option<&mut Options>, seconds: u64) {
    if let Some(options) = options {
        options.min_validity = (seconds > 0).then_some(seconds);
    }
}

/// Frees options. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_options_free(options: Option<Box<Options>>) {
    drop(options);
}

/// # Safety
///
/// `value` is NULL or text that ends with a zero byte.
unsafe fn set(
    options: Option<&mut Options>,
    name: &'static str,
    value: *const c_char,
    field: impl FnOnce(&mut Options) -> &mut Option<String>,
) {
    guard(|| {
        let Some(options) = options else { return };
        options.mistakes.retain(|(wrong, _)| *wrong != name);
        // SAFETY: the same condition.
        match unsafe { text::optional(name, value) } {
            Ok(value) => *field(options) = value,
            Err(error) => options.mistakes.push((name, error.into_text())),
        }
    });
}

impl Options {
    /// The request for `target`.
    pub(crate) fn request(options: Option<&Self>, target: Target) -> Result<TokenRequest, Error> {
        let mut request = TokenRequest::new(target);
        if let Some(options) = options {
            if let Some((_, reason)) = options.mistakes.first() {
                return Err(Error::invalid(reason));
            }
            request.identity = options.identity()?;
            request.tenant_id.clone_from(&options.tenant_id);
            request.claims.clone_from(&options.claims);
            request.min_validity = options.min_validity;
        }
        Ok(request)
    }

    fn identity(&self) -> Result<Option<NamedIdentity>, Error> {
        let mut named = [
            self.client_id.clone().map(NamedIdentity::ClientId),
            self.object_id.clone().map(NamedIdentity::ObjectId),
            self.resource_id.clone().map(NamedIdentity::ResourceId),
        ]
        .into_iter()
        .flatten();
        match (named.next(), named.next()) {
            (_, Some(_)) => Err(Error::invalid(
                "name one identity: client id, object id or resource id",
            )),
            (identity, None) => Ok(identity),
        }
    }
}
