//! What the rules come to: a broker on a paused clock with an issuer that behaves.
