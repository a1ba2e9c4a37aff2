//! Storage levels: where a dataset's blocks may live, and in which form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::memory::MemoryMode;

/// How a dataset is kept: five facts, and the field's names for the usual combinations of them.
///
/// Levels with equal facts are equal. The named levels print and parse as their names, in any case; a custom
/// combination prints and parses as its facts, `disk+memory+deserialized x2`.
///
/// ```
/// use larder_blockstore::StorageLevel;
///
/// let level: StorageLevel = "memory_and_disk_ser_2".parse()?;
/// assert_eq!(level, StorageLevel::MEMORY_AND_DISK_SER_2);
/// assert!(level.uses_memory() && level.uses_disk() && !level.is_deserialized());
/// assert_eq!(level.replication(), 2);
/// assert_eq!(level.to_string(), "MEMORY_AND_DISK_SER_2");
/// # Ok::<(), larder_blockstore::LevelError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StorageLevel {
    disk: bool,
    memory: bool,
    off_heap: bool,
    deserialized: bool,
    replication: u8,
}

/// The most copies of a block a level may ask for.
pub const REPLICATION_MAX: u8 = 39;

const fn level(
    disk: bool,
    memory: bool,
    off_heap: bool,
    deserialized: bool,
    replication: u8,
) -> StorageLevel {
    StorageLevel { disk, memory, off_heap, deserialized, replication }
}

impl StorageLevel {
    /// Not stored at all.
    pub const NONE: Self = level(false, false, false, false, 1);
    /// Serialized, on disk, never in memory.
    pub const DISK_ONLY: Self = level(true, false, false, false, 1);
    /// [`DISK_ONLY`](Self::DISK_ONLY), two copies.
    pub const DISK_ONLY_2: Self = level(true, false, false, false, 2);
    /// [`DISK_ONLY`](Self::DISK_ONLY), three copies.
    pub const DISK_ONLY_3: Self = level(true, false, false, false, 3);
    /// Values on the heap; what does not fit is recomputed when it is needed.
    pub const MEMORY_ONLY: Self = level(false, true, false, true, 1);
    /// [`MEMORY_ONLY`](Self::MEMORY_ONLY), two copies.
    pub const MEMORY_ONLY_2: Self = level(false, true, false, true, 2);
    /// Serialized on the heap; what does not fit is recomputed when it is needed.
    pub const MEMORY_ONLY_SER: Self = level(false, true, false, false, 1);
    /// [`MEMORY_ONLY_SER`](Self::MEMORY_ONLY_SER), two copies.
    pub const MEMORY_ONLY_SER_2: Self = level(false, true, false, false, 2);
    /// Values on the heap; what does not fit is serialized to disk.
    pub const MEMORY_AND_DISK: Self = level(true, true, false, true, 1);
    /// [`MEMORY_AND_DISK`](Self::MEMORY_AND_DISK), two copies.
    pub const MEMORY_AND_DISK_2: Self = level(true, true, false, true, 2);
    /// Serialized on the heap; what does not fit is copied to disk.
    pub const MEMORY_AND_DISK_SER: Self = level(true, true, false, false, 1);
    /// [`MEMORY_AND_DISK_SER`](Self::MEMORY_AND_DISK_SER), two copies.
    pub const MEMORY_AND_DISK_SER_2: Self = level(true, true, false, false, 2);
    /// Serialized in an off-heap arena; what does not fit is copied to disk.
    pub const OFF_HEAP: Self = level(true, true, true, false, 1);

    /// Every named level with its name.
    pub const NAMED: [(&'static str, Self); 13] = [
        ("NONE", Self::NONE),
        ("DISK_ONLY", Self::DISK_ONLY),
        ("DISK_ONLY_2", Self::DISK_ONLY_2),
        ("DISK_ONLY_3", Self::DISK_ONLY_3),
        ("MEMORY_ONLY", Self::MEMORY_ONLY),
        ("MEMORY_ONLY_2", Self::MEMORY_ONLY_2),
        ("MEMORY_ONLY_SER", Self::MEMORY_ONLY_SER),
        ("MEMORY_ONLY_SER_2", Self::MEMORY_ONLY_SER_2),
        ("MEMORY_AND_DISK", Self::MEMORY_AND_DISK),
        ("MEMORY_AND_DISK_2", Self::MEMORY_AND_DISK_2),
        ("MEMORY_AND_DISK_SER", Self::MEMORY_AND_DISK_SER),
        ("MEMORY_AND_DISK_SER_2", Self::MEMORY_AND_DISK_SER_2),
        ("OFF_HEAP", Self::OFF_HEAP),
    ];

    /// A level of one's own.
    ///
    /// # Errors
    /// Off-heap without memory, off-heap with deserialized values, deserialized without memory, neither memory
    /// nor disk, or a replication outside `1..=REPLICATION_MAX`.
    pub fn custom(facts: LevelFacts) -> Result<Self, LevelError> {
        let LevelFacts { disk, memory, off_heap, deserialized, replication } = facts;
        if !memory && !disk {
            return Err(LevelError::Nowhere);
        }
        if off_heap && deserialized {
            return Err(LevelError::OffHeapDeserialized);
        }
        if off_heap && !memory {
            return Err(LevelError::OffHeapWithoutMemory);
        }
        if deserialized && !memory {
            return Err(LevelError::DeserializedWithoutMemory);
        }
        if replication == 0 || replication > REPLICATION_MAX {
            return Err(LevelError::Replication { replication });
        }
        Ok(level(disk, memory, off_heap, deserialized, replication))
    }

    /// May a block live on disk?
    #[must_use]
    pub const fn uses_disk(self) -> bool {
        self.disk
    }

    /// May a block live in memory, on the heap or off it?
    #[must_use]
    pub const fn uses_memory(self) -> bool {
        self.memory
    }

    /// The budget that its blocks in memory are charged to.
    pub(crate) const fn memory_mode(self) -> MemoryMode {
        if self.off_heap { MemoryMode::OffHeap } else { MemoryMode::Heap }
    }

    /// Is the memory an arena outside the heap?
    #[must_use]
    pub const fn uses_off_heap(self) -> bool {
        self.off_heap
    }

    /// Are blocks in memory kept as values rather than bytes?
    #[must_use]
    pub const fn is_deserialized(self) -> bool {
        self.deserialized
    }

    /// How many copies of each block are asked for.
    #[must_use]
    pub const fn replication(self) -> u8 {
        self.replication
    }

    /// Is anything stored at all?
    #[must_use]
    pub const fn is_stored(self) -> bool {
        self.memory || self.disk
    }

    /// The same level that also uses the disk; `NONE` becomes `DISK_ONLY`. What a local checkpoint needs.
    #[must_use]
    pub const fn with_disk(self) -> Self {
        level(true, self.memory, self.off_heap, self.deserialized, self.replication)
    }

    fn name(self) -> Option<&'static str> {
        Self::NAMED.iter().find(|(_, named)| *named == self).map(|(name, _)| *name)
    }
}

/// The five facts of a [`StorageLevel::custom`] level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelFacts {
    /// May a block live on disk?
    pub disk: bool,
    /// May a block live in memory?
    pub memory: bool,
    /// Is that memory an arena outside the heap?
    pub off_heap: bool,
    /// Are blocks in memory kept as values?
    pub deserialized: bool,
    /// Copies of each block, `1..=`[`REPLICATION_MAX`].
    pub replication: u8,
}

/// Why a storage level was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LevelError {
    /// No named level and no list of facts.
    #[error("unknown storage level `{name}`; the known ones are {}", known_names())]
    Unknown {
        /// What was given.
        name: String,
    },
    /// Values cannot be kept in an arena.
    #[error("an off-heap level keeps bytes; it cannot be deserialized")]
    OffHeapDeserialized,
    /// Off-heap is a kind of memory.
    #[error("an off-heap level must use memory")]
    OffHeapWithoutMemory,
    /// Values can only live in memory.
    #[error("a deserialized level must use memory")]
    DeserializedWithoutMemory,
    /// A level must store somewhere; `NONE` is the one exception.
    #[error("a storage level must use memory or disk (or be NONE)")]
    Nowhere,
    /// Too few or too many copies.
    #[error("replication must be 1 to {REPLICATION_MAX}, not {replication}")]
    Replication {
        /// What was asked for.
        replication: u8,
    },
}

fn known_names() -> String {
    StorageLevel::NAMED.map(|(name, _)| name).join(", ")
}

impl fmt::Display for StorageLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            return f.pad(name);
        }
        let facts = [
            (self.disk, "disk"),
            (self.memory, "memory"),
            (self.off_heap, "off_heap"),
            (self.deserialized, "deserialized"),
        ];
        let mut text =
            facts.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect::<Vec<_>>().join("+");
        if self.replication != 1 {
            text.push_str(&format!(" x{}", self.replication));
        }
        f.pad(&text)
    }
}

impl fmt::Debug for StorageLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for StorageLevel {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        let text = text.trim();
        if let Some((_, level)) = Self::NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            return Ok(*level);
        }
        let unknown = || LevelError::Unknown { name: text.to_owned() };
        let (words, replication) = match text.split_once(" x") {
            Some((words, copies)) => (words, copies.trim().parse().map_err(|_| unknown())?),
            None => (text, 1),
        };
        let mut facts =
            LevelFacts { disk: false, memory: false, off_heap: false, deserialized: false, replication };
        for word in words.split('+') {
            match word.trim().to_ascii_lowercase().as_str() {
                "disk" => facts.disk = true,
                "memory" => facts.memory = true,
                "off_heap" => facts.off_heap = true,
                "deserialized" => facts.deserialized = true,
                _ => return Err(unknown()),
            }
        }
        Self::custom(facts)
    }
}

impl Serialize for StorageLevel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StorageLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_levels_print_and_parse_as_their_names_in_any_case() {
        for (name, level) in StorageLevel::NAMED {
            assert_eq!(level.to_string(), name);
            assert_eq!(name.parse::<StorageLevel>(), Ok(level));
            assert_eq!(name.to_lowercase().parse::<StorageLevel>(), Ok(level));
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let message = "MEMORY_MAYBE".parse::<StorageLevel>().unwrap_err().to_string();
        assert!(message.contains("MEMORY_MAYBE") && message.contains("MEMORY_AND_DISK_SER_2"), "{message}");
    }

    #[test]
    fn levels_with_equal_facts_are_equal_and_custom_ones_round_trip() {
        let facts =
            LevelFacts { disk: true, memory: true, off_heap: true, deserialized: false, replication: 1 };
        assert_eq!(StorageLevel::custom(facts), Ok(StorageLevel::OFF_HEAP));
        let twice = StorageLevel::custom(LevelFacts { replication: 2, ..facts }).unwrap();
        assert_eq!(twice.to_string(), "disk+memory+off_heap x2");
        assert_eq!(twice.to_string().parse(), Ok(twice));
    }

    #[test]
    fn contradictions_are_refused() {
        let facts =
            LevelFacts { disk: false, memory: true, off_heap: false, deserialized: true, replication: 1 };
        let refused = |facts| StorageLevel::custom(facts).unwrap_err();
        assert_eq!(refused(LevelFacts { off_heap: true, ..facts }), LevelError::OffHeapDeserialized);
        assert_eq!(refused(LevelFacts { memory: false, ..facts }), LevelError::Nowhere);
        assert_eq!(
            refused(LevelFacts { memory: false, disk: true, ..facts }),
            LevelError::DeserializedWithoutMemory
        );
        assert_eq!(
            refused(LevelFacts { replication: 0, ..facts }),
            LevelError::Replication { replication: 0 }
        );
        assert_eq!(
            "memory+off_heap+deserialized".parse::<StorageLevel>(),
            Err(LevelError::OffHeapDeserialized)
        );
    }
}
