//! What a checkpoint is called.

use std::any::type_name;

/// Under which name a checkpoint is written and found, and what its records are called.
///
/// A text is a name whose records are called what the compiler calls their type. With it a checkpoint keeps the shape
/// of its records: the names of types, fields and variants as serde has them, and what they are made of. A type of
/// the same shape opens it, also after it moved to another module; another is refused rather than misread.
///
/// Records may be called something else, for good: for what shall be opened by later programs that rename fields, or
/// where the shape does not tell all (seconds or milliseconds?). Who opens it must then say so too; names of types
/// and fields do not matter any more, only that the bytes are those of the type.
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
/// [`CheckpointInfo`](crate::CheckpointInfo). Whether they mean the same is then yours to know; that they are built
/// the same is always checked, unless the shape of the type cannot be found out: where its `Deserialize` refuses
/// sample values. Then what the compiler calls the type has to agree.
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

    /// What the records were called by hand, if they were.
    pub(super) fn declared(&self) -> Option<&str> {
        self.records.as_deref()
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
