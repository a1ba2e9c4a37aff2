//! Overhead that is counted and not budgeted.

use std::fmt;

use super::shell::Shell;
use crate::sync::Arc;

/// Bytes of overhead outside the budgets, counted until dropped. See
/// [`MemoryManager::scratch`](super::MemoryManager::scratch).
#[must_use = "the bytes are counted until this is dropped"]
pub struct Scratch {
    shell: Arc<Shell>,
    bytes: u64,
}

impl Scratch {
    pub(super) fn new(shell: Arc<Shell>, bytes: u64) -> Self {
        shell.add_scratch(bytes);
        Self { shell, bytes }
    }

    /// Bytes counted.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.shell.sub_scratch(self.bytes);
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("bytes", &self.bytes).finish()
    }
}
