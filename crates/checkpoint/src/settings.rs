//! What a builder and the environment say of a server.

#[cfg(feature = "s3")]
use std::env;
use std::fmt;

use crate::retry::Patience;

/// Something that is printed nowhere.
#[derive(Clone, Default)]
pub(crate) struct Secret(
    #[cfg_attr(not(feature = "s3"), expect(dead_code, reason = "nothing else has a secret"))]
    pub(crate)  String,
);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The least size of a piece of a multipart upload, by S3's rules.
#[cfg(feature = "s3")]
pub(crate) const CHUNK_BYTES_MIN: usize = 5 << 20;

/// Settings for a server.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) patience: Patience,
    /// Pieces of one part that are uploaded at the same time.
    pub(crate) concurrency: usize,
    /// Bytes of such a piece.
    pub(crate) chunk_bytes: usize,
    pub(crate) single_writer: bool,
    pub(crate) probe: bool,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    /// Key id, secret, session token.
    pub(crate) credentials: Option<(Secret, Secret, Option<Secret>)>,
    pub(crate) hdfs_user: Option<String>,
    pub(crate) hadoop_conf_dir: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            patience: Patience::default(),
            concurrency: 4,
            chunk_bytes: 8 << 20,
            single_writer: false,
            probe: true,
            endpoint: None,
            region: None,
            credentials: None,
            hdfs_user: None,
            hadoop_conf_dir: None,
        }
    }
}

/// The first of some variables of the environment that says anything.
#[cfg(feature = "s3")]
pub(crate) fn from_environment(names: &[&str]) -> Option<String> {
    names.iter().filter_map(|name| env::var(name).ok()).find(|value| !value.is_empty())
}
