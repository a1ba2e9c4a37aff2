//! Doubly linked lists over one vector of slots: `u32` links, no pointers.
#![expect(
    clippy::indexing_slicing,
    reason = "links are set in this file alone, to slots that are in a list; `check` proves it"
)]

/// No slot, no list.
pub(super) const NONE: u32 = u32::MAX;

/// The links of all slots, and when each was last used.
#[derive(Debug, Default)]
pub(super) struct Links {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    stamp: u64,
    colder: u32,
    hotter: u32,
    /// The list the slot is in, or `NONE`.
    list: u32,
}

const VACANT: Entry = Entry { stamp: 0, colder: NONE, hotter: NONE, list: NONE };

/// The two ends of a list. Empty when both are `NONE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) coldest: u32,
    pub(super) hottest: u32,
}

impl Ends {
    pub(super) const EMPTY: Self = Self { coldest: NONE, hottest: NONE };
}

impl Links {
    /// The list a slot is in.
    pub(super) fn list_of(&self, slot: u32) -> Option<u32> {
        self.entries.get(slot as usize).map(|entry| entry.list).filter(|list| *list != NONE)
    }

    /// When a slot that is in a list was last used.
    pub(super) fn stamp(&self, slot: u32) -> u64 {
        self.entries[slot as usize].stamp
    }

    /// The slot used next after this one in its list.
    pub(super) fn hotter(&self, slot: u32) -> Option<u32> {
        Some(self.entries[slot as usize].hotter).filter(|slot| *slot != NONE)
    }

    /// Appends a slot that is in no list at the hot end.
    pub(super) fn push_hottest(&mut self, ends: &mut Ends, list: u32, slot: u32, stamp: u64) {
        let index = slot as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, VACANT);
        }
        self.entries[index] = Entry { stamp, colder: ends.hottest, hotter: NONE, list };
        match ends.hottest {
            NONE => ends.coldest = slot,
            hottest => self.entries[hottest as usize].hotter = slot,
        }
        ends.hottest = slot;
    }

    /// Takes a slot out of the list whose ends these are.
    pub(super) fn unlink(&mut self, ends: &mut Ends, slot: u32) {
        let Entry { colder, hotter, .. } = std::mem::replace(&mut self.entries[slot as usize], VACANT);
        match colder {
            NONE => ends.coldest = hotter,
            colder => self.entries[colder as usize].hotter = hotter,
        }
        match hotter {
            NONE => ends.hottest = colder,
            hotter => self.entries[hotter as usize].colder = colder,
        }
    }

    /// Slots in any list.
    pub(super) fn occupied(&self) -> usize {
        self.entries.iter().filter(|entry| entry.list != NONE).count()
    }

    /// Walks one list; gives its length.
    pub(super) fn check(&self, ends: Ends, list: u32) -> Result<usize, String> {
        let (mut at, mut before, mut length) = (ends.coldest, NONE, 0);
        while at != NONE {
            let entry =
                self.entries.get(at as usize).ok_or(format!("slot {at} is linked and does not exist"))?;
            if entry.list != list || entry.colder != before {
                return Err(format!("slot {at} after {before} in list {list} is linked wrongly: {entry:?}"));
            }
            if before != NONE && self.entries[before as usize].stamp >= entry.stamp {
                return Err(format!("slot {at} is hotter than {before} in list {list} and was used earlier"));
            }
            length += 1;
            if length > self.entries.len() {
                return Err(format!("list {list} is a ring"));
            }
            (before, at) = (at, entry.hotter);
        }
        if ends.hottest != before {
            return Err(format!("list {list} ends with slot {before}, and not with {}", ends.hottest));
        }
        Ok(length)
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn allocated_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }
}
