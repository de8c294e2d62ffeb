//! What a registry answers to an exchange.

#![no_main]

use jobcred::registry::fuzz;
use jobcred_fuzz::{Message, TOKEN, assert_fit_to_show, quotes};
use jobcred_wire::LoginServer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(response) = Message::read(data).and_then(Message::into_response) else {
        return;
    };
    let server = LoginServer::parse("myreg.azurecr.io", &[]).unwrap();
    let read = fuzz::read_token(&server, &response);
    if let Ok(token) = &read {
        let token = token.expose();
        assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        let fields: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(fields["refresh_token"].as_str(), Some(token));
    }
    for error in read
        .err()
        .into_iter()
        .chain(fuzz::refusals(&server, &response))
    {
        assert_fit_to_show(&error);
        let shown = format!("{error} {error:?}");
        assert!(!quotes(&shown, TOKEN), "{shown}");
    }
    if let Some(id) = fuzz::correlation_id(&response) {
        assert!(
            id.len() <= 100
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        );
    }
});
