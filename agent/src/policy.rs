//! Whether a request is allowed: peer and request in, an authorised request or the rule that denied it out.
