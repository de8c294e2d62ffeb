//! What listens at the agent's socket answers a client. The first byte says in pieces of which length it comes.

#![no_main]

use jobcred_client::fuzz;
use jobcred_fuzz::assert_fit_to_show;
use jobcred_wire::MAX_ANSWER_BYTES;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((length, bytes)) = data.split_first() else {
        return;
    };
    let whole = fuzz::read([bytes].into_iter());
    let pieces = fuzz::read(bytes.chunks(usize::from(*length) + 1));
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => {
            assert_eq!(
                (whole.status, whole.retry_after),
                (pieces.status, pieces.retry_after)
            );
            assert_eq!(whole.body, pieces.body);
            // Whether more than the answer has come by its end is chance.
            assert!(pieces.keep || !whole.keep);
            assert!((200..600).contains(&whole.status) && whole.body.len() <= MAX_ANSWER_BYTES);
            assert!(
                bytes
                    .windows(whole.body.len().max(1))
                    .any(|part| part == whole.body)
                    || whole.body.is_empty()
            );
        }
        (Err(whole), Err(pieces)) => {
            for error in [whole, pieces] {
                assert_fit_to_show(&error);
            }
        }
        (whole, pieces) => panic!("{whole:?} {pieces:?}"),
    }
    const NOW: i64 = 1_697_815_380;
    match fuzz::token(bytes, NOW) {
        Ok(token) => {
            assert!(token.expires_on > NOW && !token.access_token.is_empty());
            let secret = token.access_token.expose();
            assert!(secret.len() < 8 || !format!("{:?}", token.access_token).contains(secret));
        }
        // The agent's own words, but on one line.
        Err(error) => {
            let shown = error.to_string();
            assert!(!shown.contains(char::is_control), "{shown:?}");
        }
    }
    if let Ok(path) = std::str::from_utf8(bytes)
        && let Ok(request) = fuzz::request(path)
    {
        let text = String::from_utf8(request).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert_eq!(text.split(' ').count(), 5);
    }
});
