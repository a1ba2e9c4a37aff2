//! How the partitions of a dataset depend on those of its parents.

use std::slice;
use std::sync::Arc;

use crate::error::MapError;
use crate::graph::NodeId;

/// One edge of the graph, from a dataset to one of its parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dependency {
    /// A child partition reads the few parent partitions that `map` names: both run in one task.
    Narrow {
        /// The dataset that is read.
        parent: NodeId,
        /// Which of its partitions a child partition reads.
        map: PartitionMap,
    },
    /// A child partition reads a slice of every parent partition, so that the parent's map tasks run in a
    /// stage of their own and leave one shuffle output each.
    Shuffle {
        /// The dataset that is shuffled.
        parent: NodeId,
    },
}

impl Dependency {
    /// The narrow dependency in which partition `p` reads partition `p`.
    pub fn one_to_one(parent: NodeId) -> Self {
        Self::Narrow { parent, map: PartitionMap::OneToOne }
    }

    /// The dataset this edge leads to.
    pub fn parent(&self) -> NodeId {
        match self {
            Self::Narrow { parent, .. } | Self::Shuffle { parent } => *parent,
        }
    }

    /// Whether a shuffle lies between parent and child.
    pub fn is_shuffle(&self) -> bool {
        matches!(self, Self::Shuffle { .. })
    }
}

/// Which parent partitions a child partition reads through a narrow dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionMap {
    /// Child `p` reads parent `p`.
    OneToOne,
    /// Child `child_start + i` reads parent `parent_start + i` for `i < len`; the other child partitions
    /// have no parent here. A union has one such dependency for each of its parents.
    Range {
        /// First parent partition of the range.
        parent_start: u32,
        /// First child partition of the range.
        child_start: u32,
        /// Length of the range.
        len: u32,
    },
    /// Child `p` reads the parent partitions `groups[p]`, in that order (coalesce).
    Groups(Arc<[Box<[u32]>]>),
    /// Child `p` reads parent `p / n` (the left side of a cartesian product, `n` the right side's partitions).
    Divide(u32),
    /// Child `p` reads parent `p % n` (the right side of a cartesian product of `n` partitions).
    Modulo(u32),
}

impl PartitionMap {
    /// The parent partitions that child partition `child` reads, in the order in which it reads them.
    pub fn parents_of(&self, child: u32) -> impl DoubleEndedIterator<Item = u32> + '_ {
        let (one, several): (Option<u32>, &[u32]) = match self {
            Self::OneToOne => (Some(child), &[]),
            Self::Range { parent_start, child_start, len } => {
                let offset = child.checked_sub(*child_start).filter(|offset| offset < len);
                (offset.and_then(|offset| parent_start.checked_add(offset)), &[])
            }
            Self::Groups(groups) => (None, groups.get(child as usize).map_or(&[], |group| group)),
            Self::Divide(n) => (child.checked_div(*n), &[]),
            Self::Modulo(n) => (child.checked_rem(*n), &[]),
        };
        one.into_iter().chain(several.iter().copied())
    }

    /// Appends what [`parents_of`](Self::parents_of) gives for each of `children`, which ascend.
    pub(crate) fn extend_parents_of(&self, children: &[u32], parents: &mut Vec<u32>) {
        match self {
            Self::OneToOne => parents.extend_from_slice(children),
            _ => {
                let within = self.within(children);
                parents.extend(within.iter().flat_map(|&child| self.parents_of(child)));
            }
        }
    }

    /// The part of the ascending `children` that can have a parent here, found without looking at the rest:
    /// a union of many datasets asks each of them about all of its partitions.
    fn within<'a>(&self, children: &'a [u32]) -> &'a [u32] {
        let Self::Range { child_start, len, .. } = self else { return children };
        let start = children.partition_point(|child| child < child_start);
        let rest = children.get(start..).unwrap_or_default();
        let end = rest.partition_point(|child| child - child_start < *len);
        rest.get(..end).unwrap_or_default()
    }

    /// Whether no two child partitions read the same parent partition.
    pub(crate) fn is_injective(&self) -> bool {
        matches!(self, Self::OneToOne | Self::Range { .. })
    }

    /// Checks that every partition the map names exists.
    pub(crate) fn check(&self, child: u32, parent: u32) -> Result<(), MapError> {
        match self {
            Self::OneToOne if child != parent => Err(MapError::NotOneToOne { child, parent }),
            Self::Range { child_start, len, .. } if end(*child_start, *len) > child.into() => {
                Err(MapError::BeyondChild { last: end(*child_start, *len) - 1, partitions: child })
            }
            Self::Groups(groups) if groups.len() != child as usize => {
                Err(MapError::GroupCount { groups: groups.len(), partitions: child })
            }
            Self::Divide(0) | Self::Modulo(0) if child > 0 => {
                Err(MapError::ZeroDivisor { partitions: child })
            }
            _ => match self.last_parent(child) {
                Some(last) if last >= parent.into() => {
                    Err(MapError::BeyondParent { last, partitions: parent })
                }
                _ => Ok(()),
            },
        }
    }

    /// The highest parent partition that a child of `children` partitions reads.
    fn last_parent(&self, children: u32) -> Option<u64> {
        let last_child = children.checked_sub(1)?;
        match self {
            Self::OneToOne => Some(last_child.into()),
            Self::Range { len: 0, .. } => None,
            Self::Range { parent_start, len, .. } => Some(end(*parent_start, *len) - 1),
            Self::Groups(groups) => groups.iter().flatten().max().map(|&last| last.into()),
            Self::Divide(n) => last_child.checked_div(*n).map(u64::from),
            Self::Modulo(n) => n.checked_sub(1).map(|rest| rest.min(last_child).into()),
        }
    }
}

/// The end of the range `start..start + len`; a length of zero ends nowhere.
fn end(start: u32, len: u32) -> u64 {
    if len == 0 { 0 } else { u64::from(start) + u64::from(len) }
}

/// The dependencies of one node. Nearly all nodes of a long lineage have exactly one, kept without a
/// heap allocation of its own.
#[derive(Debug)]
pub(crate) enum Dependencies {
    None,
    One(Dependency),
    Many(Box<[Dependency]>),
}

impl Dependencies {
    pub(crate) fn as_slice(&self) -> &[Dependency] {
        match self {
            Self::None => &[],
            Self::One(dependency) => slice::from_ref(dependency),
            Self::Many(dependencies) => dependencies,
        }
    }
}

impl From<Vec<Dependency>> for Dependencies {
    fn from(mut dependencies: Vec<Dependency>) -> Self {
        match (dependencies.len(), dependencies.pop()) {
            (_, None) => Self::None,
            (1, Some(only)) => Self::One(only),
            (_, Some(last)) => {
                dependencies.push(last);
                Self::Many(dependencies.into_boxed_slice())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parents(map: &PartitionMap, child: u32) -> Vec<u32> {
        map.parents_of(child).collect()
    }

    fn groups(groups: &[&[u32]]) -> PartitionMap {
        PartitionMap::Groups(groups.iter().map(|&group| group.into()).collect())
    }

    #[test]
    fn each_map_names_the_parents_of_a_child_partition() {
        assert_eq!(parents(&PartitionMap::OneToOne, 3), [3]);

        let union = PartitionMap::Range { parent_start: 1, child_start: 4, len: 2 };
        assert_eq!(
            (3..7).map(|child| parents(&union, child)).collect::<Vec<_>>(),
            [vec![], vec![1], vec![2], vec![]]
        );

        let coalesce = groups(&[&[2, 0], &[], &[1]]);
        assert_eq!(
            (0..4).map(|child| parents(&coalesce, child)).collect::<Vec<_>>(),
            [vec![2, 0], vec![], vec![1], vec![]]
        );

        assert_eq!(
            (0..6).flat_map(|p| parents(&PartitionMap::Divide(3), p)).collect::<Vec<_>>(),
            [0, 0, 0, 1, 1, 1]
        );
        assert_eq!(
            (0..6).flat_map(|p| parents(&PartitionMap::Modulo(3), p)).collect::<Vec<_>>(),
            [0, 1, 2, 0, 1, 2]
        );
    }

    #[test]
    fn many_children_at_once_give_the_same_parents_as_one_by_one() {
        let maps = [
            PartitionMap::OneToOne,
            PartitionMap::Range { parent_start: 3, child_start: 2, len: 5 },
            PartitionMap::Range { parent_start: 0, child_start: 9, len: 1 },
            PartitionMap::Range { parent_start: 0, child_start: 0, len: 0 },
            groups(&[&[1], &[0, 2], &[], &[4, 3, 2]]),
            PartitionMap::Divide(4),
            PartitionMap::Modulo(4),
        ];
        for map in maps {
            for children in [&[][..], &[0], &[1, 3], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[6, 7]] {
                let mut together = Vec::new();
                map.extend_parents_of(children, &mut together);
                let one_by_one: Vec<u32> = children.iter().flat_map(|&child| map.parents_of(child)).collect();
                assert_eq!(together, one_by_one, "{map:?} of {children:?}");
            }
        }
    }

    #[test]
    fn maps_that_leave_the_partitions_of_child_or_parent_are_refused() {
        let range = |parent_start, child_start, len| PartitionMap::Range { parent_start, child_start, len };
        assert_eq!(PartitionMap::OneToOne.check(2, 2), Ok(()));
        assert_eq!(PartitionMap::OneToOne.check(2, 3), Err(MapError::NotOneToOne { child: 2, parent: 3 }));

        assert_eq!(range(1, 2, 2).check(4, 3), Ok(()));
        assert_eq!(range(9, 9, 0).check(4, 3), Ok(()));
        assert_eq!(range(1, 3, 2).check(4, 3), Err(MapError::BeyondChild { last: 4, partitions: 4 }));
        assert_eq!(range(2, 2, 2).check(4, 3), Err(MapError::BeyondParent { last: 3, partitions: 3 }));
        assert_eq!(
            range(0, u32::MAX, u32::MAX).check(4, 3),
            Err(MapError::BeyondChild { last: 2 * u64::from(u32::MAX) - 1, partitions: 4 })
        );

        assert_eq!(groups(&[&[0, 2], &[]]).check(2, 3), Ok(()));
        assert_eq!(groups(&[&[0, 2]]).check(2, 3), Err(MapError::GroupCount { groups: 1, partitions: 2 }));
        assert_eq!(groups(&[&[0, 3]]).check(1, 3), Err(MapError::BeyondParent { last: 3, partitions: 3 }));

        assert_eq!(PartitionMap::Divide(3).check(6, 2), Ok(()));
        assert_eq!(
            PartitionMap::Divide(3).check(7, 2),
            Err(MapError::BeyondParent { last: 2, partitions: 2 })
        );
        assert_eq!(PartitionMap::Modulo(3).check(6, 3), Ok(()));
        assert_eq!(
            PartitionMap::Modulo(3).check(6, 2),
            Err(MapError::BeyondParent { last: 2, partitions: 2 })
        );
        assert_eq!(PartitionMap::Modulo(3).check(2, 2), Ok(()), "partition 2 is never read");
        assert_eq!(PartitionMap::Divide(0).check(1, 1), Err(MapError::ZeroDivisor { partitions: 1 }));
        assert_eq!(PartitionMap::Modulo(0).check(0, 0), Ok(()), "a product with an empty side");
    }
}
