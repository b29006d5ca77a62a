//! HPACK, the header compression of HTTP/2 (RFC 7541): a complete decoder and a plain encoder.
//!
//! It knows octets and tables only; what a header field means, and which are allowed, is decided
//! in [`crate::codec`].

mod decoder;
mod encoder;
mod huffman;
mod integer;
mod table;

pub use decoder::{Decoder, HpackError};
pub use encoder::{Block, Encoder, StaticName};

/// RFC 9113 §6.5.2: the size of the dynamic table before any SETTINGS; octets.
pub const DEFAULT_TABLE_SIZE: u32 = 4096;

/// RFC 7541 §4.1: what an entry counts beyond its name and value; octets.
pub const ENTRY_OVERHEAD: usize = 32;
