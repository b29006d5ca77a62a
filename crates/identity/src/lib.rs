//! SPIFFE certificates and TLS configurations.
