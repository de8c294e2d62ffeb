//! The claims of a token: as the payload of one that is well formed, and as the token itself.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jobcred::platform::UnixTime;
use jobcred::principal::{Principal, jwt_expiry, jwt_issued};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    read(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(data)));
    if let Ok(text) = std::str::from_utf8(data) {
        read(text);
    }
});

fn read(token: &str) {
    let principal = Principal::from_token(token);
    if let Some(principal) = &principal {
        let ids = [
            &principal.object_id,
            &principal.app_id,
            &principal.tenant_id,
        ];
        for id in ids.into_iter().flatten() {
            let is_plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(
                (1..=64).contains(&id.len()) && id.bytes().all(is_plain),
                "{id}"
            );
        }
        if let Some(audience) = &principal.audience {
            assert!(
                audience.len() <= 512 && !audience.contains(char::is_control),
                "{audience:?}"
            );
        }
        assert!(principal.is_same_as(principal));
        // The wire has seconds, so that the last moment there is comes back as its second.
        let wire = principal.to_wire();
        assert_eq!(Principal::from_wire(&wire).to_wire(), wire);
    }
    let issued = jwt_issued(token);
    for now in [0, 1_697_815_380, 1_800_000_000, 4_000_000_000].map(UnixTime::from_secs) {
        let end = jwt_expiry(token, now);
        // There is an end where the claims have one, and it is never beyond it.
        let stated = principal
            .as_ref()
            .and_then(|principal| principal.expires_on);
        assert_eq!(end.is_some(), stated.is_some());
        assert!(end <= stated);
        if let (Some(end), Some(issued)) = (end, issued.filter(|issued| now < *issued)) {
            let life = jwt_expiry(token, issued).unwrap().since(issued);
            assert!(end <= now + life);
        }
    }
}
