//! A snapshot depends on what it holds and never on how it came to hold it.
