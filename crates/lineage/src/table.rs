//! Where nodes are kept: pages of consecutive ids, so that a long lineage costs little more than its nodes.

use hashbrown::HashMap;

/// Ids a page covers. A page is freed when its last node is, so one survivor keeps at most this many slots.
const PAGE_SLOTS: u64 = 32;

struct Page<T> {
    slots: Box<[Option<T>]>,
    live: usize,
}

/// A map from ascending ids, never reused, to values.
pub(crate) struct Table<T> {
    pages: HashMap<u64, Page<T>>,
    len: usize,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self { pages: HashMap::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, id: u64) -> Option<&T> {
        self.pages.get(&page(id))?.slots.get(slot(id))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        self.pages.get_mut(&page(id))?.slots.get_mut(slot(id))?.as_mut()
    }

    /// Puts a value under an id that has none.
    pub(crate) fn insert(&mut self, id: u64, value: T) {
        let page = self
            .pages
            .entry(page(id))
            .or_insert_with(|| Page { slots: (0..PAGE_SLOTS).map(|_| None).collect(), live: 0 });
        if let Some(slot) = page.slots.get_mut(slot(id)) {
            debug_assert!(slot.is_none(), "id {id} is reused");
            *slot = Some(value);
            page.live += 1;
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<T> {
        let page_of_id = self.pages.get_mut(&page(id))?;
        let value = page_of_id.slots.get_mut(slot(id))?.take()?;
        page_of_id.live -= 1;
        self.len -= 1;
        if page_of_id.live == 0 {
            self.pages.remove(&page(id));
        }
        Some(value)
    }
}

fn page(id: u64) -> u64 {
    id / PAGE_SLOTS
}

fn slot(id: u64) -> usize {
    (id % PAGE_SLOTS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_under_their_ids_alone_and_empty_pages_are_freed() {
        let mut table = Table::new();
        for id in 0..100 {
            table.insert(id, id * 10);
        }
        assert_eq!((table.len(), table.pages.len()), (100, 4));
        assert_eq!(table.get(99), Some(&990));
        assert_eq!(table.get(100), None, "a free slot of a page");
        assert_eq!(table.get(u64::MAX), None);

        for id in 0..99 {
            assert_eq!(table.remove(id), Some(id * 10));
            assert_eq!(table.remove(id), None);
        }
        assert_eq!((table.len(), table.pages.len()), (1, 1));
        *table.get_mut(99).unwrap() += 1;
        assert_eq!(table.remove(99), Some(991));
        assert_eq!((table.len(), table.pages.len()), (0, 0));
    }
}
