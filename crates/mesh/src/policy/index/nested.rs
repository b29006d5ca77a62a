//! Things that lie in each other, such as address blocks and prefixes: which of them lie around a
//! given one.

use std::borrow::Borrow;

/// A list in which the elements around a given one are found by a binary search and one step for
/// each.
///
/// It works for orders in which an element comes before what it covers, and in which what lies
/// between the two is covered by it too.
pub(super) struct Nested<K, V> {
    elements: Vec<Element<K, V>>,
}

struct Element<K, V> {
    key: K,
    /// The position of the smallest other element that covers this one.
    around: Option<usize>,
    value: V,
}

impl<K, V> Default for Nested<K, V> {
    fn default() -> Self {
        Self { elements: Vec::new() }
    }
}

impl<K: Ord, V> Nested<K, V> {
    /// Appends an element; it comes after all that are there.
    pub(super) fn push<Q: ?Sized>(&mut self, key: K, value: V, covers: fn(&Q, &Q) -> bool)
    where
        K: Borrow<Q>,
    {
        let mut around = self.elements.len().checked_sub(1);
        while let Some(at) = around.filter(|&at| !covers(self.elements[at].key.borrow(), key.borrow())) {
            around = self.elements[at].around;
        }
        self.elements.push(Element { key, around, value });
    }

    /// Those that cover `item`, the smallest first.
    pub(super) fn around<'a, Q: Ord + ?Sized>(
        &'a self,
        item: &'a Q,
        covers: fn(&Q, &Q) -> bool,
    ) -> impl Iterator<Item = &'a V>
    where
        K: Borrow<Q>,
    {
        let last = self.elements.partition_point(|element| element.key.borrow() <= item).checked_sub(1);
        let chain = std::iter::successors(last, |&at| self.elements[at].around);
        let elements = chain.map(|at| &self.elements[at]);
        elements.filter(move |element| covers(element.key.borrow(), item)).map(|element| &element.value)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}
