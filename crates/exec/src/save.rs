//! Saving as text.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::data::Data;
use crate::dataset::Dataset;
use crate::error::{Error, TaskError};

impl<T: Data + Display> Dataset<T> {
    /// Writes each partition as a file of lines, `part-00000` and so on, into a new directory. The directory appears
    /// under its name when all is written; a job that fails leaves nothing.
    ///
    /// # Errors
    /// [`Error::OutputExists`] when there is something of that name, [`Error::Io`]; as
    /// [`collect`](Self::collect) otherwise.
    pub fn save_as_text(&self, directory: impl AsRef<Path>) -> Result<(), Error> {
        let target = directory.as_ref();
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action, path, source }
        };
        if target.try_exists().map_err(failed("look for the directory", target))? {
            return Err(Error::OutputExists { path: target.to_owned() });
        }
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(failed("create the directory", parent))?;
        let hidden = tempfile::Builder::new().prefix(".larder-save-").tempdir_in(parent);
        let hidden = hidden.map_err(failed("create a directory in", parent))?;
        let parts = hidden.path().join("parts");
        fs::create_dir(&parts).map_err(failed("create the directory", &parts))?;
        self.run(&|partition, mut pipeline| {
            let path = parts.join(format!("part-{partition:05}"));
            let failed = |e| TaskError::io("write the file", &path, e);
            let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
            pipeline.for_each_batch::<T>(|batch| {
                batch.as_slice().iter().try_for_each(|record| writeln!(file, "{record}")).map_err(failed)
            })?;
            file.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)
        })?;
        publish(&parts, target)
    }
}

/// Gives the finished directory its name, unless something took it meanwhile.
fn publish(parts: &Path, target: &Path) -> Result<(), Error> {
    // Renaming onto an empty directory would succeed.
    if target.try_exists().unwrap_or(true) {
        return Err(Error::OutputExists { path: target.to_owned() });
    }
    let path: PathBuf = target.to_owned();
    fs::rename(parts, target).map_err(|source| Error::Io { action: "give the output its name", path, source })
}
