//! A medium that keeps what was synced, and of the rest whatever a power cut leaves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files::Change;

/// Files with their bytes, directories with none, by path.
pub(super) type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// What becomes of one change that was not synced. Names come or go whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Kept,
    /// Half of the bytes.
    Torn,
    /// The length, and zeros for bytes.
    Zeros,
}

#[derive(Clone)]
enum Inode {
    Dir(BTreeMap<String, usize>),
    File(Vec<u8>),
}

#[derive(Clone)]
enum Pending {
    /// Gives a name to an inode, or takes it away.
    Name {
        dir: usize,
        name: String,
        inode: Option<usize>,
    },
    Empty {
        file: usize,
    },
    Write {
        file: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
}

impl Pending {
    /// The inode whose sync makes it durable.
    fn inode(&self) -> usize {
        match *self {
            Self::Name { dir, .. } => dir,
            Self::Empty { file } | Self::Write { file, .. } => file,
        }
    }
}

#[derive(Clone)]
pub(super) struct Medium {
    /// Where inode 0 is.
    root: PathBuf,
    /// As they are durable.
    inodes: Vec<Inode>,
    /// Not durable, in the order in which it was done.
    pending: Vec<Pending>,
}

impl Medium {
    /// An empty directory, itself durable.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), inodes: vec![Inode::Dir(BTreeMap::new())], pending: Vec::new() }
    }

    pub(super) fn change(&mut self, change: Change<'_>) {
        match change {
            Change::CreateDir(path) => self.create(path, Inode::Dir(BTreeMap::new())),
            Change::CreateFile(path) => match self.find(path) {
                Some(file) => self.pending.push(Pending::Empty { file }),
                None => self.create(path, Inode::File(Vec::new())),
            },
            Change::Append(path, bytes) => {
                let file = self.find(path).unwrap();
                let Inode::File(before) = &self.now()[file] else { unreachable!("{path:?} is a directory") };
                self.pending.push(Pending::Write { file, offset: before.len(), bytes: bytes.to_vec() });
            }
            Change::SyncFile(path) | Change::SyncDir(path) => self.sync(self.find(path).unwrap()),
            Change::Link { from, to } => self.name(to, self.find(from)),
            Change::RemoveFile(path) => self.remove(path),
            Change::RemoveDir(path) => {
                let below = self.tree(self.now()).into_keys();
                let dir = path.strip_prefix(&self.root).unwrap().to_owned();
                let inside: Vec<_> = below.filter(|path| path.starts_with(&dir)).collect();
                inside.iter().rev().for_each(|path| self.remove(&self.root.join(path)));
            }
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What is there, as long as the power stays on.
    pub(super) fn seen(&self) -> Tree {
        self.tree(self.now())
    }

    /// What is left when the power goes, and this becomes of each pending change.
    pub(super) fn after_cut(&self, fate: impl Fn(usize) -> Fate) -> Tree {
        let mut inodes = self.inodes.clone();
        for (index, change) in self.pending.iter().enumerate() {
            apply(&mut inodes, change, fate(index));
        }
        self.tree(inodes)
    }

    fn create(&mut self, path: &Path, inode: Inode) {
        self.inodes.push(inode);
        self.name(path, Some(self.inodes.len() - 1));
    }

    fn remove(&mut self, path: &Path) {
        if self.find(path).is_some() {
            self.name(path, None);
        }
    }

    fn name(&mut self, path: &Path, inode: Option<usize>) {
        let dir = self.find(path.parent().unwrap()).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        self.pending.push(Pending::Name { dir, name, inode });
    }

    fn sync(&mut self, inode: usize) {
        let (durable, pending) =
            std::mem::take(&mut self.pending).into_iter().partition(|change| change.inode() == inode);
        self.pending = pending;
        let durable: Vec<_> = durable;
        durable.iter().for_each(|change| apply(&mut self.inodes, change, Fate::Kept));
    }

    fn now(&self) -> Vec<Inode> {
        let mut inodes = self.inodes.clone();
        self.pending.iter().for_each(|change| apply(&mut inodes, change, Fate::Kept));
        inodes
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let inodes = self.now();
        let path = path.strip_prefix(&self.root).unwrap();
        path.iter().try_fold(0, |inode, name| match &inodes[inode] {
            Inode::Dir(names) => names.get(name.to_str()?).copied(),
            Inode::File(_) => None,
        })
    }

    fn tree(&self, inodes: Vec<Inode>) -> Tree {
        let mut tree = Tree::new();
        let mut dirs = vec![(PathBuf::new(), 0)];
        while let Some((path, dir)) = dirs.pop() {
            let Inode::Dir(names) = &inodes[dir] else { unreachable!() };
            for (name, &inode) in names {
                let path = path.join(name);
                let content = match &inodes[inode] {
                    Inode::File(bytes) => Some(bytes.clone()),
                    Inode::Dir(_) => {
                        dirs.push((path.clone(), inode));
                        None
                    }
                };
                tree.insert(path, content);
            }
        }
        tree
    }
}

fn apply(inodes: &mut [Inode], change: &Pending, fate: Fate) {
    if fate == Fate::Lost {
        return;
    }
    match (change, &mut inodes[change.inode()]) {
        (Pending::Name { name, inode: Some(inode), .. }, Inode::Dir(names)) => {
            names.insert(name.clone(), *inode);
        }
        (Pending::Name { name, inode: None, .. }, Inode::Dir(names)) => {
            names.remove(name);
        }
        (Pending::Empty { .. }, Inode::File(content)) => content.clear(),
        (Pending::Write { offset, bytes, .. }, Inode::File(content)) => {
            let len = if fate == Fate::Torn { bytes.len() / 2 } else { bytes.len() };
            content.resize(content.len().max(offset + len), 0);
            if fate != Fate::Zeros {
                content[*offset..offset + len].copy_from_slice(&bytes[..len]);
            }
        }
        _ => unreachable!("a file where a directory was, or the other way round"),
    }
}
