//! What a checkpoint is called.

use std::any::type_name;

/// Under which name a checkpoint is written and found, and what its records are called.
///
/// A text is a name whose records are called what the compiler calls their type. So records of another type are
/// refused rather than misread; but that name changes when the type moves to another module, and may with another
/// compiler. What shall be opened by later programs had better be given a name of its own: one for each layout of the
/// records, for good.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// use larder_exec::{CheckpointName, Context};
///
/// let context = Context::builder().checkpoints(directory.path()).build()?;
/// let totals = CheckpointName::new("totals").records("name and count, 1");
/// context.parallelize(vec![("a".to_owned(), 1_u64)], 1)?.checkpoint_as(totals.clone())?;
///
/// // in a later program, whatever it calls the type
/// type Total = (String, u64);
/// assert_eq!(context.open_checkpoint::<Total>(totals)?.count()?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// To open a checkpoint whose records go by another name, give the one it has: the error says it, and
/// [`CheckpointInfo`](crate::CheckpointInfo). Whether they are the same is then yours to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckpointName {
    name: String,
    records: Option<String>,
}

impl CheckpointName {
    /// A name whose records are called what the compiler calls their type.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), records: None }
    }

    /// Calls the records something else.
    #[must_use]
    pub fn records(mut self, name: impl Into<String>) -> Self {
        self.records = Some(name.into());
        self
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }

    /// What records of type `T` are called.
    pub(crate) fn record_type<T>(&self) -> &str {
        self.records.as_deref().unwrap_or_else(|| type_name::<T>())
    }
}

impl From<String> for CheckpointName {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<&String> for CheckpointName {
    fn from(name: &String) -> Self {
        Self::new(name)
    }
}

impl From<&str> for CheckpointName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}
