//! Encodes header blocks with the static table and plain literals: no dynamic table, no Huffman.
//!
//! A CONNECT and its answer are a few fields that differ from stream to stream; a table would cost
//! more than the octets it saves, and a peer's table size can then never be exceeded.

use super::integer;

/// The encoder of one connection.
#[derive(Debug, Default)]
pub struct Encoder {
    table_declined: bool,
}

/// Names of the static table (RFC 7541 Appendix A) that an endpoint of CONNECT sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaticName {
    /// `:authority`
    Authority = 1,
    /// `:method`
    Method = 2,
    /// `:status`
    Status = 8,
}

/// A header block that is being written.
#[derive(Debug)]
pub struct Block<'o>(&'o mut Vec<u8>);

impl Encoder {
    /// Begins a block behind what `out` holds. It has to be sent, and in the order of the calls.
    pub fn begin<'o>(&mut self, out: &'o mut Vec<u8>) -> Block<'o> {
        // RFC 7541 §4.2: the encoder chooses any size up to what the peer allows. Zero, said once
        // and first, stays right whatever the peer's SETTINGS say later, and lets it free its table.
        if !self.table_declined {
            integer::encode(0, 5, 0x20, out);
            self.table_declined = true;
        }
        Block(out)
    }
}

impl Block<'_> {
    /// Appends a field whose name is in the static table.
    pub fn known(&mut self, name: StaticName, value: &[u8]) {
        integer::encode(name as usize, 4, 0, self.0);
        self.string(value);
    }

    /// Appends a field whose name is spelled out, in lower case (RFC 9113 §8.2).
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        integer::encode(0, 4, 0, self.0);
        self.string(name);
        self.string(value);
    }

    /// Appends `:status: 200`, which the static table has as a whole.
    pub fn status_ok(&mut self) {
        const STATUS_200: usize = 8;
        integer::encode(STATUS_200, 7, 0x80, self.0);
    }

    fn string(&mut self, octets: &[u8]) {
        integer::encode(octets.len(), 7, 0, self.0);
        self.0.extend_from_slice(octets);
    }
}
