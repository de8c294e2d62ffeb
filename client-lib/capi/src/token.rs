//! Tokens.

use std::ffi::{CString, c_char};
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr;

use jobcred_client::{Target, TokenResponse};

use crate::boundary::call;
use crate::client::Client;
use crate::error::Error;
use crate::options::Options;
use crate::text::{self, SecretText};

/// A token.
pub struct Token {
    secret: SecretText,
    kind: CString,
    resource: CString,
    client_id: Option<CString>,
    expires_on: i64,
    refresh_on: i64,
}

/// A token for a resource, for example `https://storage.azure.com/`; `options` may be NULL.
///
/// It comes from memory when there is a good one, so call this for every use. Threads that want the same token at the same
/// time make one request between them. Returns NULL for an error, which is left in `*error` unless `error` is NULL; without
/// one, `*error` is NULL afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jobcred_get_token(
    client: Option<&Client>,
    resource: *const c_char,
    options: Option<&Options>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Option<Box<Token>> {
    call(error, || {
        // SAFETY: by the rules of the header.
        let resource = unsafe { text::required("resource", resource) }?;
        Token::get(client, Target::Resource(resource), options)
    })
}

/// The same for a scope, for example `https://storage.azure.com/.default`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jobcred_get_token_for_scope(
    client: Option<&Client>,
    scope: *const c_char,
    options: Option<&Options>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Option<Box<Token>> {
    call(error, || {
        // SAFETY: by the rules of the header.
        let scope = unsafe { text::required("scope", scope) }?;
        Token::get(client, Target::Scope(scope), options)
    })
}

/// The bearer token itself: what goes behind `Authorization: Bearer `. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_token_access_token(token: Option<&Token>) -> *const c_char {
    token.map_or(ptr::null(), |token| token.secret.as_ptr())
}

/// The token's type; always `Bearer` today. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_token_type(token: Option<&Token>) -> *const c_char {
    text::pointer(token.map(|token| &token.kind))
}

/// The resource the token is for, as the issuer was asked for it. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_token_resource(token: Option<&Token>) -> *const c_char {
    text::pointer(token.map(|token| &token.resource))
}

/// The client id that the token was said to belong to; NULL when nobody said so.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_token_client_id(token: Option<&Token>) -> *const c_char {
    text::pointer(token.and_then(|token| token.client_id.as_ref()))
}

/// When the token ends, in unix seconds. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_token_expires_on(token: Option<&Token>) -> i64 {
    token.map_or(0, |token| token.expires_on)
}

/// From when on the library will ask for a newer one, in unix seconds; never after the end. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_token_refresh_on(token: Option<&Token>) -> i64 {
    token.map_or(0, |token| token.refresh_on)
}

/// Frees a token and wipes it. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_token_free(token: Option<Box<Token>>) {
    drop(token);
}

impl Token {
    fn get(
        client: Option<&Client>,
        target: Target,
        options: Option<&Options>,
    ) -> Result<Self, Error> {
        let request = Options::request(options, target)?;
        Self::new(&*Client::of(client)?.token(&request)?)
    }

    fn new(answer: &TokenResponse) -> Result<Self, Error> {
        Ok(Self {
            secret: SecretText::new("token", &answer.access_token)?,
            kind: text::owned(&answer.token_type),
            resource: text::owned(&answer.resource),
            client_id: answer.client_id.as_deref().map(text::owned),
            expires_on: answer.expires_on,
            refresh_on: answer.refresh_on,
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("resource", &self.resource)
            .field("expires_on", &self.expires_on)
            .finish_non_exhaustive()
    }
}
