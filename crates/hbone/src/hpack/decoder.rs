//! Decodes header blocks (RFC 7541 §3 and §6) and owns the decoder's dynamic table.

use std::borrow::Cow;

use super::table::DynamicTable;
use super::{DEFAULT_TABLE_SIZE, huffman, integer};

/// The decoder of one connection. Every block has to go through it, in order, also those of
/// requests that are refused: the table depends on all of them.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
    /// What a dynamic table size update may ask for at most.
    limit: usize,
    /// The limit was lowered below the table's size: the next block has to begin with an update.
    update_required: bool,
}

/// Why a header block cannot be decoded. The table is lost with it, and so is the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// The block ends within a field.
    #[error("the header block ends within a field")]
    Truncated,
    /// An integer is larger than any index or length can be.
    #[error("an integer is too large")]
    IntegerTooLarge,
    /// An index stands for no entry.
    #[error("index {index} is in neither table")]
    UnknownIndex {
        /// The index.
        index: usize,
    },
    /// A Huffman string ends with something else than the beginning of EOS.
    #[error("a Huffman string is padded wrongly")]
    HuffmanPadding,
    /// A Huffman string contains the end-of-string symbol.
    #[error("a Huffman string contains EOS")]
    EosInString,
    /// A dynamic table size update asks for more than was allowed.
    #[error("a table size update to {size} exceeds the limit of {limit}")]
    TableTooLarge {
        /// The size asked for, in octets.
        size: usize,
        /// The size allowed, in octets.
        limit: usize,
    },
    /// A dynamic table size update stands behind a field.
    #[error("a table size update does not stand at the beginning of the block")]
    LateTableUpdate,
    /// The table size was lowered, and the block does not acknowledge it.
    #[error("the block does not begin with the table size update that SETTINGS demand")]
    MissingTableUpdate,
}

impl Decoder {
    /// A decoder whose peer may use a dynamic table of up to `limit` octets.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        let default = DEFAULT_TABLE_SIZE.min(limit) as usize;
        Self { table: DynamicTable::new(default), limit: limit as usize, update_required: false }
    }

    /// The peer has acknowledged SETTINGS_HEADER_TABLE_SIZE = `limit`.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit as usize;
        // RFC 9113 §4.3.1: a block that follows an acknowledgement of a reduction has to start
        // with a conformant update, otherwise it is a COMPRESSION_ERROR.
        self.update_required = self.table.max_size() > self.limit;
    }

    /// What the dynamic table counts at present (RFC 7541 §4.1); octets.
    #[must_use]
    pub fn table_size(&self) -> usize {
        self.table.size()
    }

    /// Decodes one whole block and hands name and value of each field to `field`.
    ///
    /// # Errors
    /// Any [`HpackError`] is a connection error COMPRESSION_ERROR (RFC 9113 §4.3).
    pub fn decode(&mut self, block: &[u8], mut field: impl FnMut(&[u8], &[u8])) -> Result<(), HpackError> {
        let mut input = block;
        // RFC 7541 §4.2: updates stand at the beginning of the block.
        while let Some(0x20..=0x3f) = input.first() {
            self.update_table(integer::decode(&mut input, 5)?)?;
        }
        if self.update_required {
            return Err(HpackError::MissingTableUpdate);
        }
        while let Some(first) = input.first() {
            self.field(*first, &mut input, &mut field)?;
        }
        Ok(())
    }

    fn update_table(&mut self, size: usize) -> Result<(), HpackError> {
        if size > self.limit {
            return Err(HpackError::TableTooLarge { size, limit: self.limit });
        }
        self.table.resize(size);
        self.update_required = false;
        Ok(())
    }

    /// One field representation (RFC 7541 §6): the first bits of its first octet say which.
    fn field(
        &mut self,
        first: u8,
        input: &mut &[u8],
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        match first {
            // §6.1 Indexed.
            0x80.. => {
                let (name, value) = self.known(integer::decode(input, 7)?)?;
                field(name, value);
            }
            // §6.2.1 Literal with incremental indexing.
            0x40..=0x7f => {
                let (name, value) = self.literal(input, 6)?;
                field(&name, &value);
                // The name may be borrowed from an entry that the insertion evicts.
                let name = name.into_owned();
                self.table.insert(&name, &value);
            }
            0x20..=0x3f => return Err(HpackError::LateTableUpdate),
            // §6.2.2 Literal without indexing, §6.2.3 never indexed.
            0x00..=0x1f => {
                let (name, value) = self.literal(input, 4)?;
                field(&name, &value);
            }
        }
        Ok(())
    }

    fn literal<'s, 'b: 's>(
        &'s self,
        input: &mut &'b [u8],
        prefix: u32,
    ) -> Result<Literal<'s, 'b>, HpackError> {
        let name = match integer::decode(input, prefix)? {
            0 => string(input)?,
            index => Cow::Borrowed(self.known(index)?.0),
        };
        Ok((name, string(input)?))
    }

    fn known(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        self.table.field(index).ok_or(HpackError::UnknownIndex { index })
    }
}

/// Name and value of a literal; the name may stand in a table.
type Literal<'s, 'b> = (Cow<'s, [u8]>, Cow<'b, [u8]>);

/// A string literal (RFC 7541 §5.2).
fn string<'b>(input: &mut &'b [u8]) -> Result<Cow<'b, [u8]>, HpackError> {
    let huffman_coded = input.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer::decode(input, 7)?;
    let (octets, rest) = input.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *input = rest;
    if !huffman_coded {
        return Ok(Cow::Borrowed(octets));
    }
    let mut decoded = Vec::with_capacity(octets.len() * 2);
    huffman::decode(octets, &mut decoded)?;
    Ok(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests;
