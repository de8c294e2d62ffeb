//! Names of log fields, spans and metrics.
