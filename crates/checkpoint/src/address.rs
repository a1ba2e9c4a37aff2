//! Where a checkpoint store is.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::Error;

/// The port of a name node whose address names none.
const HDFS_PORT: u16 = 8020;

/// The place of a checkpoint store.
///
/// | text | place |
/// |---|---|
/// | `/path`, `some/path` | a directory; relative to the working directory |
/// | `file:///path` | the same; its `%xx` are decoded |
/// | `s3://bucket/prefix` | objects below a prefix of a bucket; the prefix may be empty |
/// | `hdfs://node:8020/path` | a directory of HDFS; without a port a name service, or else port 8020 |
/// | `hdfs://node1:8020,node2:8020/path` | the same with several name nodes, of which one is active |
/// | `hdfs:///path` | the same at the `fs.defaultFS` of Hadoop's configuration |
/// | `memory://name` | this process' memory, one store a name: for tests |
///
/// Prints as a text that reads back to the same address. It never holds credentials: these come from the builder
/// or the environment.
///
/// ```
/// use larder_checkpoint::Address;
///
/// let address: Address = "file:///data/my%20checkpoints".parse()?;
/// assert_eq!(address.to_string(), "/data/my checkpoints");
/// assert_eq!(address, address.to_string().parse()?);
/// assert_eq!("s3://bucket/ranks/".parse::<Address>()?.to_string(), "s3://bucket/ranks");
/// assert!("ftp://host/checkpoints".parse::<Address>().is_err());
/// # Ok::<(), larder_checkpoint::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    backend: Backend,
}

/// The parts of an address, by backend.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Backend {
    /// An absolute path.
    Fs {
        path: Arc<str>,
    },
    /// The prefix has no slash at either end.
    S3 {
        bucket: Arc<str>,
        prefix: Arc<str>,
    },
    /// Name nodes, comma-separated; an absolute path.
    Hdfs {
        authority: Arc<str>,
        path: Arc<str>,
    },
    Memory {
        name: Arc<str>,
    },
}

impl Address {
    /// The directory, if it is one of a local file system.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.backend {
            Backend::Fs { path } => Some(Path::new(&**path)),
            _ => None,
        }
    }

    /// `file`, `s3`, `hdfs` or `memory`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match &self.backend {
            Backend::Fs { .. } => "file",
            Backend::S3 { .. } => "s3",
            Backend::Hdfs { .. } => "hdfs",
            Backend::Memory { .. } => "memory",
        }
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// What a user calls the object that stands at `object` below this address.
    pub(crate) fn join(&self, object: &str) -> String {
        let root = self.to_string();
        if object.is_empty() { root } else { format!("{}/{object}", root.trim_end_matches('/')) }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = match text.split_once("://") {
            None => local(text),
            Some(("file", rest)) => file_url(rest),
            Some(("s3" | "s3a", rest)) => s3(rest),
            Some(("hdfs", rest)) => hdfs(rest),
            Some(("memory", rest)) => memory(rest),
            Some((scheme, _)) => {
                let (address, scheme) = (redacted(text), scheme.to_owned());
                return Err(Error::Scheme { address, scheme });
            }
        };
        match parsed {
            Ok(backend) => Ok(Self { backend }),
            Err(reason) => Err(Error::Address { address: redacted(text), reason }),
        }
    }
}

fn local(path: &str) -> Result<Backend, String> {
    if path.is_empty() || path.contains('\0') {
        return Err("a path is needed".to_owned());
    }
    let absolute = std::path::absolute(path).map_err(|e| e.to_string())?;
    let absolute = absolute.to_str().ok_or_else(|| "the working directory is not UTF-8".to_owned())?;
    let trimmed = absolute.trim_end_matches('/');
    Ok(Backend::Fs { path: if trimmed.is_empty() { "/" } else { trimmed }.into() })
}

fn file_url(rest: &str) -> Result<Backend, String> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err("a file URL names no host: write file:///path".to_owned());
    }
    local(&percent_decode(path).ok_or_else(|| "bad %xx escape".to_owned())?)
}

fn s3(rest: &str) -> Result<Backend, String> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    no_user(bucket, "give credentials by the builder or by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if bucket.is_empty() || !bucket.chars().all(allowed) {
        return Err("a bucket is needed, of A-Z a-z 0-9 . _ -: write s3://bucket/prefix".to_owned());
    }
    Ok(Backend::S3 { bucket: bucket.into(), prefix: segments(prefix)?.into() })
}

fn hdfs(rest: &str) -> Result<Backend, String> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    no_user(authority, "give the user by the builder or by HADOOP_USER_NAME")?;
    let nodes: Vec<&str> = authority.split(',').collect();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    for node in nodes.iter().filter(|_| !authority.is_empty()) {
        let (host, port) = node.split_once(':').unwrap_or((node, "1"));
        if host.is_empty() || !host.chars().all(allowed) || !port.parse().is_ok_and(|port: u16| port > 0) {
            return Err(format!("`{node}` is no name node: write hdfs://node:8020/path"));
        }
    }
    let authority = match &nodes[..] {
        [_] => authority.to_owned(),
        _ => nodes.iter().map(|node| with_port(node)).collect::<Vec<_>>().join(","),
    };
    Ok(Backend::Hdfs { authority: authority.into(), path: format!("/{}", segments(path)?).into() })
}

/// A name node with its port, in full.
pub(crate) fn with_port(node: &str) -> String {
    if node.contains(':') { node.to_owned() } else { format!("{node}:{HDFS_PORT}") }
}

fn memory(rest: &str) -> Result<Backend, String> {
    let name = segments(rest)?;
    if name.is_empty() {
        return Err("a name is needed: write memory://name".to_owned());
    }
    Ok(Backend::Memory { name: name.into() })
}

fn no_user(authority: &str, instead: &str) -> Result<(), String> {
    if authority.contains('@') { Err(format!("an address holds no user: {instead}")) } else { Ok(()) }
}

/// A path below a root, without slashes at its ends. Backends differ in what they make of empty and dotted
/// segments, so there are none.
fn segments(path: &str) -> Result<String, String> {
    let trimmed = path.trim_matches('/');
    let odd = |segment: &str| matches!(segment, "" | "." | "..") || segment.contains(char::is_control);
    match trimmed.split('/').find(|segment| odd(segment)) {
        Some(segment) if !trimmed.is_empty() => Err(format!("{segment:?} cannot be part of a path")),
        _ => Ok(trimmed.to_owned()),
    }
}

/// The text without what may be a password in it.
fn redacted(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest.get(..end).and_then(|authority| authority.rfind('@')).and_then(|at| rest.get(at..)) {
        Some(shown) => format!("{scheme}://***{shown}"),
        None => text.to_owned(),
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
        match &self.backend {
            Backend::Fs { path } => f.pad(path),
            Backend::S3 { bucket, prefix } if prefix.is_empty() => f.pad(&format!("s3://{bucket}")),
            Backend::S3 { bucket, prefix } => f.pad(&format!("s3://{bucket}/{prefix}")),
            Backend::Hdfs { authority, path } => f.pad(&format!("hdfs://{authority}{path}")),
            Backend::Memory { name } => f.pad(&format!("memory://{name}")),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls_are_addresses_and_print_as_such() {
        for (text, printed) in [
            ("/a/b", "/a/b"),
            ("/a/b//", "/a/b"),
            ("/", "/"),
            ("file:///a/b%2fc%25", "/a/b/c%"),
            ("file://localhost/a", "/a"),
            ("/a%20b", "/a%20b"),
            ("s3://bucket", "s3://bucket"),
            ("s3a://bucket/a/b%20c/", "s3://bucket/a/b%20c"),
            ("hdfs://node:9000/a/", "hdfs://node:9000/a"),
            ("hdfs://node:9000", "hdfs://node:9000/"),
            ("hdfs://service/a", "hdfs://service/a"),
            ("hdfs:///a", "hdfs:///a"),
            ("hdfs://n1,n2:9000/a", "hdfs://n1:8020,n2:9000/a"),
            ("memory://name/", "memory://name"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), printed, "{text}");
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address, "{text}");
            assert!(address.join("x").ends_with("/x") && !address.join("x").contains("//x"), "{text}");
        }
        let relative: Address = "some/where".parse().unwrap();
        let path = relative.path().unwrap();
        assert!(path.is_absolute() && path.ends_with("some/where"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_to_write() {
        for (text, words) in [
            ("ftp://node/x", "ftp:// is not a backend"),
            ("file://host/x", "names no host"),
            ("file:///a%2", "bad %xx escape"),
            ("", "a path is needed"),
            ("s3://", "a bucket is needed"),
            ("s3://buc ket/x", "a bucket is needed"),
            ("s3://bucket/a/../b", "cannot be part of a path"),
            ("hdfs://node:x/a", "is no name node"),
            ("hdfs://a,,b/a", "is no name node"),
            ("memory:///", "a name is needed"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_without_repeating_it() {
        for text in ["s3://AKIA:hunter2@bucket/x", "hdfs://me:hunter2@node/x", "http://me:hunter2@host/x"] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
            assert!(error.to_string().contains("://***@"), "{error}");
        }
    }
}
