//! Where a checkpoint store is.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::Error;

/// The place of a checkpoint store: today a directory of a local file system.
///
/// Reads from a path (`/data/checkpoints`, or relative to the working directory) or a `file:///` URL, whose `%xx`
/// are decoded. Prints as the absolute path, which reads back to the same address.
///
/// ```
/// use larder_checkpoint::Address;
///
/// let address: Address = "file:///data/my%20checkpoints".parse()?;
/// assert_eq!(address.to_string(), "/data/my checkpoints");
/// assert_eq!(address, address.to_string().parse()?);
/// assert!("s3://bucket/checkpoints".parse::<Address>().is_err());
/// # Ok::<(), larder_checkpoint::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    path: Arc<str>,
}

impl Address {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(&*self.path)
    }

    /// What the file system calls the object that stands at `object` below this address.
    pub(crate) fn join(&self, object: &str) -> String {
        let root = self.path.trim_end_matches('/');
        if object.is_empty() { self.path.to_string() } else { format!("{root}/{object}") }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Address { address: text.to_owned(), reason };
        let path = match text.split_once("://") {
            None => text.to_owned(),
            Some(("file", rest)) => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                if !path.starts_with('/') {
                    return Err(invalid("a file URL names no host: write file:///path".to_owned()));
                }
                percent_decode(path).ok_or_else(|| invalid("bad %xx escape".to_owned()))?
            }
            Some((scheme, _)) => {
                return Err(Error::Scheme { address: text.to_owned(), scheme: scheme.to_owned() });
            }
        };
        if path.is_empty() || path.contains('\0') {
            return Err(invalid("a path is needed".to_owned()));
        }
        let absolute = std::path::absolute(&path).map_err(|e| invalid(e.to_string()))?;
        let absolute =
            absolute.to_str().ok_or_else(|| invalid("the working directory is not UTF-8".to_owned()))?;
        let trimmed = absolute.trim_end_matches('/');
        Ok(Self { path: if trimmed.is_empty() { "/" } else { trimmed }.into() })
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?].map(|digit| char::from(digit).to_digit(16));
            let [Some(high), Some(low)] = digits else { return None };
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.path)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.path, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_urls_are_addresses() {
        for (text, path) in [
            ("/a/b", "/a/b"),
            ("/a/b//", "/a/b"),
            ("/", "/"),
            ("file:///a/b%2fc%25", "/a/b/c%"),
            ("file://localhost/a", "/a"),
            ("/a%20b", "/a%20b"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), path, "{text}");
        }
        let relative: Address = "some/where".parse().unwrap();
        assert!(relative.path().is_absolute() && relative.path().ends_with("some/where"));
    }

    #[test]
    fn other_schemes_say_that_this_build_lacks_them() {
        for (text, words) in [
            ("s3://bucket/x", "s3:// is not supported by this build"),
            ("hdfs://node:9000/x", "hdfs:// is not supported by this build"),
            ("file://host/x", "names no host"),
            ("file:///a%2", "bad %xx escape"),
            ("", "a path is needed"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
