//! Container registries: login servers, and the exchange of an Entra token for a registry credential.
