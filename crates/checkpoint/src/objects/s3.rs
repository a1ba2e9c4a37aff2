//! Objects of a bucket, through OpenDAL: parts by concurrent multipart uploads, everything else by single requests.
//!
//! Three operators stand on one service. Single requests go through the plain one and are repeated by [`Patience`]; so
//! are calls of many requests, through one that gives each its time-out. Uploads go through the one that also retries, because only OpenDAL can repeat one piece of an upload: time-outs inside,
//! retries outside, in the order its documentation asks for.

mod uploads;

use std::error::Error as _;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use opendal::layers::{RetryLayer, TimeoutLayer};
use opendal::options::WriteOptions;
use opendal::{ErrorKind, Operator};

use self::uploads::Uploads;
use super::{Closing, Entry, ObjectReader, ObjectWriter, Objects, ReadAhead, Unfinished, entries_of};
use crate::retry::{Failure, PAUSE_MAX, Patience};
use crate::runtime::{Background, block_on};
use crate::settings::{CHUNK_BYTES_MIN, Settings, from_environment};

/// Any region will do where an endpoint is given; AWS itself answers requests for another with its name.
const REGION_DEFAULT: &str = "us-east-1";

/// Pieces of an upload that are not on their way: one waits, one is being filled.
const PIECES_BESIDES: usize = 2;

/// How servers other than AWS say that there is no room: their disks are finite. Whatever status comes with it, it will
/// not pass by itself.
const FULL: [&str; 4] =
    ["InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"];

/// Statuses of answers after which the same request may succeed.
const PASSING: [u16; 6] = [429, 499, 500, 502, 503, 504];

/// One prefix of a bucket. Cheap to clone.
#[derive(Clone)]
pub(crate) struct S3 {
    plain: Operator,
    timed: Operator,
    streaming: Operator,
    pub(crate) patience: Patience,
    concurrency: usize,
    chunk_bytes: usize,
    bucket: Arc<str>,
    uploads: Uploads,
}

impl S3 {
    /// Makes no request.
    pub(crate) fn new(bucket: &Arc<str>, prefix: &str, settings: &Settings) -> io::Result<Self> {
        opendal::install_default();
        let plain = block_on(async { Operator::new(service(bucket, prefix, settings)).map_err(into_io) })?;
        let patience = settings.patience;
        let timeouts =
            TimeoutLayer::new().with_timeout(patience.operation).with_io_timeout(patience.operation);
        let retries = RetryLayer::new()
            .with_max_times(usize::try_from(patience.tries.saturating_sub(1)).unwrap_or(usize::MAX))
            .with_min_delay(patience.pause)
            .with_max_delay(PAUSE_MAX)
            .with_jitter();
        let timed = plain.clone().layer(timeouts);
        Ok(Self {
            streaming: timed.clone().layer(retries),
            timed,
            plain,
            patience,
            concurrency: settings.concurrency.max(1),
            chunk_bytes: settings.chunk_bytes.max(CHUNK_BYTES_MIN),
            bucket: Arc::clone(bucket),
            uploads: Uploads::new(bucket, prefix, settings),
        })
    }

    pub(crate) fn brief(&self) -> Self {
        Self { patience: self.patience.brief(), ..self.clone() }
    }

    /// Writes an object by one request, which is not repeated; fails with [`io::ErrorKind::AlreadyExists`] if it
    /// must be `new` and is not.
    pub(crate) fn put_once(&self, path: &str, bytes: Bytes, new: bool) -> io::Result<()> {
        self.patience.once(self.put(path, bytes, new))
    }

    async fn put(&self, path: &str, bytes: Bytes, new: bool) -> Result<(), Failure> {
        let options = WriteOptions { if_not_exists: new, ..WriteOptions::default() };
        let written = self.plain.write_options(path, bytes, options).await;
        written.map(drop).map_err(|e| self.failure(&e))
    }

    /// All of an object.
    pub(crate) fn get(&self, path: &str) -> io::Result<Bytes> {
        self.patience.retry(|| async {
            self.plain.read(path).await.map(|buffer| buffer.to_bytes()).map_err(|e| self.failure(&e))
        })
    }

    pub(crate) fn exists(&self, path: &str) -> io::Result<bool> {
        match self.stat(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn stat(&self, path: &str) -> io::Result<u64> {
        self.patience.retry(|| async {
            let metadata = self.plain.stat(path).await.map_err(|e| self.failure(&e))?;
            Ok(metadata.content_length())
        })
    }

    pub(crate) fn delete(&self, path: &str) -> io::Result<()> {
        self.patience.retry(|| async { self.plain.delete(path).await.map_err(|e| self.failure(&e)) })
    }

    pub(crate) fn list_dir(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let dir = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let listed = self
            .patience
            .of_many_requests()
            .retry(|| async { self.timed.list(&dir).await.map_err(|e| self.failure(&e)) })?;
        Ok(entries_of(listed, &dir))
    }

    /// The pieces on their way, the one that waits for them and the one that is being filled.
    fn upload_bytes(&self, concurrency: usize) -> usize {
        (concurrency + PIECES_BESIDES).saturating_mul(self.chunk_bytes)
    }

    /// How many pieces of one upload may be on their way at once so that it holds so many bytes: as many as set, or
    /// fewer, but one. They are no smaller: their size bounds that of the part.
    fn concurrency_within(&self, bytes_max: usize) -> usize {
        let fitting = (bytes_max / self.chunk_bytes).saturating_sub(PIECES_BESIDES);
        fitting.clamp(1, self.concurrency)
    }

    /// What went wrong, in words for people: OpenDAL's own have the request's headers in them.
    fn failure(&self, error: &opendal::Error) -> Failure {
        // The one is a request's of its own, the other that of a piece in the background.
        let timed_out = ["timeout reached", "write part timeout"];
        if timed_out.iter().any(|words| error.message().ends_with(words)) {
            return Failure::timed_out(self.patience.operation);
        }
        let kind = io_kind(error.kind());
        let mut message = said(error.message());
        let mut source = error.source();
        while let Some(cause) = source {
            let words = cause.to_string();
            if !message.contains(&words) {
                message = format!("{message}: {words}");
            }
            source = cause.source();
        }
        match error.kind() {
            ErrorKind::ConfigInvalid if error.message().contains("NoSuchBucket") => {
                message = format!("there is no bucket `{}`: create it, or correct the address", self.bucket);
            }
            ErrorKind::PermissionDenied => {
                message = format!("access denied ({message})");
            }
            _ => {}
        }
        if FULL.iter().any(|code| message.starts_with(code)) {
            return Failure { kind: io::ErrorKind::StorageFull, message, retryable: false };
        }
        Failure { kind, message, retryable: may_pass(error) }
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

fn endpoint(settings: &Settings) -> Option<String> {
    let endpoint = settings.endpoint.clone();
    endpoint.or_else(|| from_environment(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]))
}

fn region(settings: &Settings) -> String {
    let region = settings.region.clone();
    let region = region.or_else(|| from_environment(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
    region.unwrap_or_else(|| REGION_DEFAULT.to_owned())
}

fn service(bucket: &str, prefix: &str, settings: &Settings) -> opendal::services::S3 {
    let mut service = opendal::services::S3::default().bucket(bucket).root(&format!("/{prefix}"));
    if let Some(endpoint) = &endpoint(settings) {
        service = service.endpoint(endpoint);
    }
    service = service.region(&region(settings));
    // Without these OpenDAL looks where all AWS tools do: the environment, profiles, roles.
    if let Some((key, secret, token)) = &settings.credentials {
        service = service.access_key_id(&key.0).secret_access_key(&secret.0);
        service = service.disable_config_load().disable_ec2_metadata();
        if let Some(token) = token {
            service = service.session_token(&token.0);
        }
    }
    service
}

/// Whether the same request may succeed later. OpenDAL's retry layer calls every error persistent, one that it has tried
/// again as well as one that it would not: the answer has to tell them apart, which the error has only in its text.
fn may_pass(error: &opendal::Error) -> bool {
    if !error.is_persistent() {
        return error.is_temporary();
    }
    match error.kind() {
        ErrorKind::RateLimited | ErrorKind::Conflict => true,
        ErrorKind::Unexpected => {
            let text = error.to_string();
            let status = text.split_once("status: ").and_then(|(_, rest)| rest.get(..3)?.parse().ok());
            // Without an answer it was the connection.
            status.is_none_or(|status: u16| PASSING.contains(&status))
        }
        _ => false,
    }
}

fn io_kind(kind: ErrorKind) -> io::ErrorKind {
    match kind {
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        ErrorKind::AlreadyExists | ErrorKind::ConditionNotMatch => io::ErrorKind::AlreadyExists,
        ErrorKind::RangeNotSatisfied => io::ErrorKind::UnexpectedEof,
        ErrorKind::Unsupported => io::ErrorKind::Unsupported,
        ErrorKind::RateLimited | ErrorKind::Conflict => io::ErrorKind::ResourceBusy,
        ErrorKind::ConfigInvalid => io::ErrorKind::InvalidInput,
        _ => io::ErrorKind::Other,
    }
}

/// OpenDAL gives S3's answers as `S3Error { code: "..", message: "..", ... }`.
fn said(message: &str) -> String {
    let field = |name: &str| {
        let rest = message.split_once(&format!("{name}: \""))?.1;
        Some(rest.split_once('"')?.0.trim_end_matches('\\')).filter(|text| !text.is_empty())
    };
    match (message.starts_with("S3Error"), field("code"), field("message")) {
        (true, Some(code), Some(words)) => format!("{code}: {words}"),
        (true, Some(words), None) | (true, None, Some(words)) => words.to_owned(),
        _ => message.to_owned(),
    }
}

fn into_io(error: opendal::Error) -> io::Error {
    io::Error::new(io_kind(error.kind()), error.message().to_owned())
}

#[derive(Debug)]
pub(crate) struct S3Objects(pub(crate) S3);

impl Objects for S3Objects {
    fn writer(&self, path: &str, bytes_max: usize) -> io::Result<Box<dyn ObjectWriter>> {
        let s3 = &self.0;
        let concurrency = s3.concurrency_within(bytes_max);
        let options =
            WriteOptions { concurrent: concurrency, chunk: Some(s3.chunk_bytes), ..WriteOptions::default() };
        let writer = s3.patience.in_total(async {
            s3.streaming.writer_options(path, options).await.map_err(|e| s3.failure(&e))
        })?;
        Ok(Box::new(Upload { s3: s3.clone(), writer, concurrency }))
    }

    fn write(&self, path: &str, bytes: Bytes) -> io::Result<()> {
        self.0.patience.retry(|| self.0.put(path, bytes.clone(), false))
    }

    fn len(&self, path: &str) -> io::Result<u64> {
        self.0.stat(path)
    }

    fn reader(&self, path: &str) -> io::Result<Box<dyn ObjectReader>> {
        Ok(Box::new(Download { s3: self.0.clone(), path: path.to_owned() }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.0.list_dir(dir)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.delete(path)
    }

    fn remove_all(&self, dir: &str) -> io::Result<()> {
        let (s3, dir) = (&self.0, format!("{dir}/"));
        s3.patience
            .of_many_requests()
            .retry(|| async { s3.timed.delete_with(&dir).recursive(true).await.map_err(|e| s3.failure(&e)) })
    }

    fn unfinished(&self) -> io::Result<Vec<Unfinished>> {
        self.0.unfinished_uploads()
    }

    fn give_up(&self, unfinished: &Unfinished) -> io::Result<()> {
        self.0.abort_upload(unfinished)
    }

    fn discard(&self, path: &str) -> io::Result<()> {
        self.0.brief().delete(path)
    }

    fn discard_all(&self, dir: &str) -> io::Result<()> {
        Self(self.0.brief()).remove_all(dir)
    }

    fn writer_bytes_max(&self) -> usize {
        self.0.upload_bytes(self.0.concurrency)
    }

    fn batch_bytes(&self) -> u64 {
        self.0.chunk_bytes as u64
    }

    fn reads_ahead(&self) -> bool {
        true
    }
}

/// A multipart upload, or a single request for what fits in one piece.
struct Upload {
    s3: S3,
    writer: opendal::Writer,
    concurrency: usize,
}

impl ObjectWriter for Upload {
    fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let Self { s3, writer, .. } = self;
        s3.patience.in_total(async { writer.write(bytes).await.map_err(|e| s3.failure(&e)) })
    }

    fn close(&mut self) -> io::Result<Option<Box<dyn Closing>>> {
        let Self { s3, writer, .. } = self;
        s3.patience.in_total(async { writer.close().await.map(|_| None).map_err(|e| s3.failure(&e)) })
    }

    fn abort(&mut self) -> io::Result<()> {
        let Self { s3, writer, .. } = self;
        s3.patience.once(async { writer.abort().await.map_err(|e| s3.failure(&e)) })
    }

    fn bytes_max(&self) -> usize {
        self.s3.upload_bytes(self.concurrency)
    }
}

#[derive(Clone)]
struct Download {
    s3: S3,
    path: String,
}

impl Download {
    async fn get(self, range: Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let Self { s3, path } = &self;
        let request = || async {
            let read = s3.plain.read_with(path).range(range.clone()).await;
            read.map(|buffer| buffer.to_bytes()).map_err(|e| s3.failure(&e))
        };
        let bytes = s3.patience.retrying(request).await?;
        let complete = bytes.len() as u64 == range.end - range.start;
        if complete { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl ObjectReader for Download {
    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        block_on(self.clone().get(range))
    }

    fn read_ahead(&self, range: Range<u64>) -> Option<Box<dyn ReadAhead>> {
        let started = Background::start(self.clone().get(range));
        started.ok().map(|read| Box::new(read) as Box<dyn ReadAhead>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_has_as_many_pieces_on_their_way_as_fit_but_one() {
        const MIB: usize = 1 << 20;
        let settings = Settings { concurrency: 4, chunk_bytes: 8 * MIB, ..Settings::default() };
        let s3 = S3::new(&"bucket".into(), "", &settings).unwrap();
        for (bytes_max, concurrency, held) in [
            (usize::MAX, 4, 48),
            (48 * MIB, 4, 48),
            (48 * MIB - 1, 3, 40),
            (24 * MIB, 1, 24),
            (24 * MIB - 1, 1, 24),
            (0, 1, 24),
        ] {
            let found = s3.concurrency_within(bytes_max);
            assert_eq!((found, s3.upload_bytes(found)), (concurrency, held * MIB), "{bytes_max}");
        }
    }
}
