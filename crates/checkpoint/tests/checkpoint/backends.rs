//! The backends that can be tested here: always a directory and memory, S3 and HDFS where servers are said to be.

use std::collections::HashSet;
use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder_checkpoint::{Builder, CheckpointStore};
use tempfile::TempDir;

/// `http://host:port` of an S3 server that takes any credentials.
const S3: &str = "LARDER_TEST_S3";
/// `hdfs://host:port` of a name node.
const HDFS: &str = "LARDER_TEST_HDFS";
/// Scripts that run a server of one's own.
const S3_SERVE: &str = "LARDER_TEST_S3_SERVE";
const HDFS_SERVE: &str = "LARDER_TEST_HDFS_SERVE";
/// Set to 1, a server that is missing is a failure.
const REQUIRE: &str = "LARDER_TEST_REQUIRE_SERVERS";

pub(crate) const BUCKET: &str = "larder-test";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Fs,
    Memory,
    S3,
    Hdfs,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Fs, Self::Memory, Self::S3, Self::Hdfs];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fs => "fs",
            Self::Memory => "memory",
            Self::S3 => "s3",
            Self::Hdfs => "hdfs",
        }
    }

    /// An empty store of this kind, if it can be had here.
    pub(crate) fn fresh(self) -> Option<Site> {
        let server = match self {
            Self::Fs | Self::Memory => String::new(),
            Self::S3 => told(S3, cfg!(feature = "s3"), self)?,
            Self::Hdfs => told(HDFS, cfg!(feature = "hdfs"), self)?,
        };
        Some(self.at(&server))
    }

    /// The script that runs a server of this kind, if there is one.
    pub(crate) fn serve_script(self) -> Option<String> {
        match self {
            Self::Fs | Self::Memory => None,
            Self::S3 => told(S3_SERVE, cfg!(feature = "s3"), self),
            Self::Hdfs => told(HDFS_SERVE, cfg!(feature = "hdfs"), self),
        }
    }

    /// An empty store of this kind, on a server.
    pub(crate) fn at(self, server: &str) -> Site {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        let name = format!("t{}-{}-{nanos}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (address, dir) = match self {
            Self::Fs => {
                let dir = tempfile::tempdir().unwrap();
                (dir.path().to_str().unwrap().to_owned(), Some(dir))
            }
            Self::Memory => (format!("memory://{name}"), None),
            Self::S3 => {
                http(server, "PUT", &format!("/{BUCKET}"), b"");
                (format!("s3://{BUCKET}/{name}"), None)
            }
            Self::Hdfs => (format!("{server}/larder-test/{name}"), None),
        };
        Site { kind: self, address, name, server: server.to_owned(), _dir: dir }
    }
}

/// What a variable says of a server, or a loud word that it says nothing.
fn told(variable: &str, compiled: bool, kind: Kind) -> Option<String> {
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let why = match std::env::var(variable) {
        Ok(value) if compiled => return Some(value),
        Ok(_) => format!("feature {} is not compiled in", kind.name()),
        Err(_) => format!("{variable} is not set"),
    };
    let required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
    assert!(!required, "{REQUIRE} is set, but {why}");
    let first = SAID.lock().unwrap().get_or_insert_default().insert(variable.to_owned());
    if first {
        // Past the test harness, which keeps what passing tests print.
        let _ = writeln!(std::io::stderr().lock(), "SKIPPED: tests on {}: {why}", kind.name());
    }
    None
}

/// One empty store for each kind there is.
pub(crate) fn each() -> Vec<Site> {
    Kind::ALL.into_iter().filter_map(Kind::fresh).collect()
}

/// Settings that reach a test server, for any address.
pub(crate) fn builder(address: &str) -> Builder {
    let builder = CheckpointStore::builder(address);
    match (address.starts_with("s3://"), std::env::var(S3)) {
        (true, Ok(endpoint)) => on_s3(builder, &endpoint),
        _ => builder,
    }
}

fn on_s3(builder: Builder, endpoint: &str) -> Builder {
    builder.s3_endpoint(endpoint).s3_credentials("test", "test", None)
}

/// An empty place for a store.
pub(crate) struct Site {
    pub(crate) kind: Kind,
    pub(crate) address: String,
    pub(crate) name: String,
    pub(crate) server: String,
    _dir: Option<TempDir>,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl Site {
    pub(crate) fn builder(&self) -> Builder {
        let builder = CheckpointStore::builder(&self.address);
        if self.kind == Kind::S3 { on_s3(builder, &self.server) } else { builder }
    }

    pub(crate) fn store(&self) -> CheckpointStore {
        self.builder().open().unwrap()
    }

    /// Multipart uploads that are neither completed nor aborted; other backends have none.
    pub(crate) fn open_uploads(&self) -> usize {
        if self.kind != Kind::S3 {
            return 0;
        }
        let listed = http(&self.server, "GET", &format!("/{BUCKET}?uploads"), b"").1;
        let listed = String::from_utf8(listed).unwrap();
        listed.matches(&format!("<Key>{}/", self.name)).count()
    }

    /// Has the S3 server refuse requests by some methods in which a text occurs, with a status and an error code.
    pub(crate) fn refuse(&self, text: &str, status: u16, code: &str, methods: &str) {
        let rule = format!("{text} {status} {code} {methods}");
        assert_eq!(http(&self.server, "PUT", "/larder-refuse", rule.as_bytes()).0, 200);
    }

    /// Ends that.
    pub(crate) fn admit(&self, text: &str) {
        assert_eq!(http(&self.server, "DELETE", "/larder-refuse", text.as_bytes()).0, 200);
    }
}

/// A test server looks whether a request is signed, and not how.
const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
                      SignedHeaders=host, Signature=0";

/// A request to the S3 server: its status and its answer. One that the server stumbled over is made again: under load
/// it does.
pub(crate) fn http(endpoint: &str, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    (0..20)
        .map(|tries: u64| {
            std::thread::sleep(Duration::from_millis(20 * tries));
            http_once(endpoint, method, path, body)
        })
        .find(|(status, _)| *status < 500)
        .unwrap()
}

fn http_once(endpoint: &str, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let host = endpoint.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
    let mut stream = TcpStream::connect(&host).unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nAuthorization: {SIGNED}\r\n");
    let head = format!("{head}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let status = String::from_utf8_lossy(&answer[..end]).split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_off(end + 4))
}
