//! The static table and the dynamic table (RFC 7541 §2.3): what an index stands for.

use std::collections::VecDeque;

use super::ENTRY_OVERHEAD;

/// The dynamic table of a decoder: the fields it was told to remember, the newest first.
#[derive(Debug, Default)]
pub(super) struct DynamicTable {
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
}

#[derive(Debug)]
struct Entry {
    /// Name and value, one behind the other.
    octets: Box<[u8]>,
    name_length: usize,
}

impl DynamicTable {
    pub(super) fn new(max_size: usize) -> Self {
        Self { max_size, ..Self::default() }
    }

    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The field that `index` stands for in the common address space (RFC 7541 §2.3.3): the static
    /// table from 1, the dynamic table behind it.
    pub(super) fn field(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let index = index.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(index - STATIC.len())?;
        Some(entry.octets.split_at(entry.name_length))
    }

    /// RFC 7541 §4.4: entries are evicted from the end until the new one fits; one that is larger
    /// than the table empties it and is not an error.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.shrink(self.max_size.saturating_sub(size));
        if size <= self.max_size {
            let octets = [name, value].concat().into_boxed_slice();
            self.entries.push_front(Entry { octets, name_length: name.len() });
            self.size += size;
        }
    }

    /// RFC 7541 §4.3: a smaller size evicts at once.
    pub(super) fn resize(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.shrink(max_size);
    }

    fn shrink(&mut self, size: usize) {
        while self.size > size
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.octets.len() + ENTRY_OVERHEAD;
        }
    }
}

/// RFC 7541 Appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entry_has_the_lowest_index() {
        let mut table = DynamicTable::new(200);
        table.insert(b"a", b"1");
        table.insert(b"b", b"2");
        assert_eq!(table.field(62), Some((&b"b"[..], &b"2"[..])));
        assert_eq!(table.field(63), Some((&b"a"[..], &b"1"[..])));
        assert_eq!(table.field(64), None);
        assert_eq!(table.field(0), None);
        assert_eq!(table.field(1), Some((&b":authority"[..], &b""[..])));
        assert_eq!(table.field(61), Some((&b"www-authenticate"[..], &b""[..])));
    }

    #[test]
    fn entries_leave_from_the_end_when_room_is_needed() {
        // Each entry counts 34 octets.
        let mut table = DynamicTable::new(3 * 34);
        for name in [b"a", b"b", b"c", b"d"] {
            table.insert(name, b"1");
        }
        assert_eq!(table.field(62), Some((&b"d"[..], &b"1"[..])));
        assert_eq!(table.field(64), Some((&b"b"[..], &b"1"[..])));
        assert_eq!(table.field(65), None);

        table.resize(40);
        assert_eq!(table.field(62), Some((&b"d"[..], &b"1"[..])));
        assert_eq!(table.field(63), None);
    }

    #[test]
    fn an_entry_larger_than_the_table_empties_it() {
        let mut table = DynamicTable::new(64);
        table.insert(b"a", b"1");
        table.insert(&[b'x'; 40], b"");
        assert_eq!(table.field(62), None);
        assert_eq!(table.size, 0);
    }
}
