//! The balancer picks only what it may, by weight, and the same again from the same seed.
