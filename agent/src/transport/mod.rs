//! The one outbound HTTP seam (hyper and rustls), the one owner of retries, and the gate in front of identity endpoints.
