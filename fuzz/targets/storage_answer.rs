//! What storage answers, or whatever is in its place.

#![no_main]

use jobcred::principal::is_guid;
use jobcred::storage::{Answer, Service};
use jobcred_fuzz::{Message, TOKEN};
use libfuzzer_sys::fuzz_target;

/// Shorter pieces of a token may be left: without its end it is worth nothing.
const PIECE: usize = 31;

fuzz_target!(|data: &[u8]| {
    let Some(response) = Message::read(data).and_then(Message::into_response) else {
        return;
    };
    for service in [Service::Blob, Service::Dfs] {
        let mut answer = Answer::read(service, &response);
        assert_eq!(answer.is_success(), response.status().is_success());
        answer.redact(TOKEN);
        let texts = [
            &answer.code,
            &answer.message,
            &answer.detail,
            &answer.etag,
            &answer.request_id,
        ];
        for text in texts.into_iter().flatten() {
            assert!(
                text.chars().count() <= 300 && !text.contains(char::is_control),
                "{text:?}"
            );
            let quotes = |part: &str| {
                let pieces = part.as_bytes().windows(PIECE);
                pieces
                    .map(|piece| std::str::from_utf8(piece).unwrap())
                    .any(|piece| text.contains(piece))
            };
            assert!(!TOKEN.split('.').any(quotes), "{text:?}");
        }
        assert!(answer.tenant.is_none_or(|tenant| is_guid(&tenant)));
    }
});
