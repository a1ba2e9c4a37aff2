//! Directories of a local file system, made and kept durable.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes directory `below` in `root`, and `root` itself where it is missing. The names below `root` are not durable
/// before [`sync`].
pub(crate) fn create(root: &Path, below: &str) -> io::Result<()> {
    let missing: Vec<_> = root.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.iter().rev() {
        match fs::create_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            created => created?,
        }
        dir.parent().map_or(Ok(()), sync_one)?;
    }
    fs::create_dir_all(root.join(below))
}

/// Makes everything that stands directly in `below` durable, and the names that lead to it: `below` is synced, then
/// each directory above it, up to the parent of `root`.
pub(crate) fn sync(root: &Path, below: &str) -> io::Result<()> {
    let dir = root.join(below);
    dir.ancestors().take_while(|dir| *dir != root).try_for_each(sync_one)?;
    sync_one(root)?;
    match root.parent().map(sync_one) {
        // Whoever made the root in there synced it then; a directory we may only pass through is not ours.
        Some(Err(e)) if e.kind() != io::ErrorKind::PermissionDenied => Err(e),
        _ => Ok(()),
    }
}

fn sync_one(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_where_they_are_missing_and_only_below_directories() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        for _ in 0..2 {
            create(&root, "c/d").unwrap();
            sync(&root, "c/d").unwrap();
        }
        assert!(root.join("c/d").is_dir());
        assert_eq!(sync(&root, "c/missing").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(root.join("file"), b"").unwrap();
        assert!(create(&root, "file/below").is_err());
        assert!(create(&root.join("file"), "below").is_err());
    }
}
