//! Changes of a local file system.
//!
//! Whatever creates, writes, syncs, names or removes a file of a store does it here or tells it here. So tests see
//! every change in order, and know what a power cut between two of them may leave.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// A change that was made.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "only tests look at what was changed"))]
pub(crate) enum Change<'a> {
    CreateDir(&'a Path),
    /// An empty file: a new one, or what stood there was emptied.
    CreateFile(&'a Path),
    Append(&'a Path, &'a [u8]),
    /// The bytes of the file became durable.
    SyncFile(&'a Path),
    /// The names in the directory became durable.
    SyncDir(&'a Path),
    /// A second name for a file.
    Link {
        from: &'a Path,
        to: &'a Path,
    },
    RemoveFile(&'a Path),
    /// A directory with all that was in it.
    RemoveDir(&'a Path),
}

type Watcher = dyn Fn(Change<'_>) + Send + Sync;

/// Changes files, past the watcher if there is one.
#[derive(Clone, Default)]
pub(crate) struct Files(Option<Arc<Watcher>>);

impl Files {
    #[cfg(test)]
    pub(crate) fn watched(watcher: impl Fn(Change<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(watcher)))
    }

    /// Tells of a change that was made elsewhere.
    pub(crate) fn tell(&self, change: Change<'_>) {
        if let Some(watcher) = &self.0 {
            watcher(change);
        }
    }

    /// Makes directory `below` in `root`, and `root` itself where it is missing. The names below `root` are not
    /// durable before [`sync_dirs`](Self::sync_dirs).
    pub(crate) fn create_dirs(&self, root: &Path, below: &str) -> io::Result<()> {
        for dir in missing_dirs(root) {
            self.create_dir(dir)?;
            dir.parent().map_or(Ok(()), |parent| self.sync_dir(parent))?;
        }
        missing_dirs(&root.join(below)).into_iter().try_for_each(|dir| self.create_dir(dir))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::create_dir(dir) {
            // Someone else was faster.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => return Ok(()),
            created => created?,
        }
        self.tell(Change::CreateDir(dir));
        Ok(())
    }

    /// Makes everything that stands directly in `below` durable, and the names that lead to it: `below` is synced,
    /// then each directory above it, up to the parent of `root`.
    pub(crate) fn sync_dirs(&self, root: &Path, below: &str) -> io::Result<()> {
        let dir = root.join(below);
        dir.ancestors().take_while(|dir| *dir != root).try_for_each(|dir| self.sync_dir(dir))?;
        self.sync_dir(root)?;
        match root.parent().map(|parent| self.sync_dir(parent)) {
            // Whoever made the root in there synced it then; a directory we may only pass through is not ours.
            Some(Err(e)) if e.kind() != io::ErrorKind::PermissionDenied => Err(e),
            _ => Ok(()),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()?;
        self.tell(Change::SyncDir(dir));
        Ok(())
    }

    /// Writes a new file; an error if there is one.
    pub(crate) fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<File> {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        self.tell(Change::CreateFile(path));
        file.write_all(bytes)?;
        self.tell(Change::Append(path, bytes));
        Ok(file)
    }

    /// Makes the bytes of a file durable.
    pub(crate) fn sync(&self, path: &Path, file: &File) -> io::Result<()> {
        file.sync_all()?;
        self.tell(Change::SyncFile(path));
        Ok(())
    }

    /// Gives a file a second name; an error if something has that name.
    pub(crate) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)?;
        self.tell(Change::Link { from, to });
        Ok(())
    }

    /// Removes a file's name.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        self.tell(Change::RemoveFile(path));
        Ok(())
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "watched" } else { "not watched" })
    }
}

/// The directories on the way to `dir` that are not there, the uppermost first.
fn missing_dirs(dir: &Path) -> Vec<&Path> {
    let mut missing: Vec<_> = dir.ancestors().take_while(|dir| !dir.is_dir()).collect();
    missing.reverse();
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_where_they_are_missing_and_only_below_directories() {
        let (dir, files) = (tempfile::tempdir().unwrap(), Files::default());
        let root = dir.path().join("a/b");
        for _ in 0..2 {
            files.create_dirs(&root, "c/d").unwrap();
            files.sync_dirs(&root, "c/d").unwrap();
        }
        assert!(root.join("c/d").is_dir());
        assert_eq!(files.sync_dirs(&root, "c/missing").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(root.join("file"), b"").unwrap();
        for (root, below) in
            [(root.clone(), "file"), (root.clone(), "file/below"), (root.join("file"), "below")]
        {
            assert!(files.create_dirs(&root, below).is_err());
        }
    }

    /// Linux refuses to sync what has nothing to sync, so that refusal shows that it was asked.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_sync_is_one() {
        let files = Files::default();
        let null = File::options().write(true).open("/dev/null").unwrap();
        let refused = [
            files.sync(Path::new("/dev/null"), &null),
            files.sync_dir(Path::new("/proc/self")),
            files.sync_dirs(Path::new("/proc/self"), "fd"),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
