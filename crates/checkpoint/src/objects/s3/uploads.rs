//! Multipart uploads that were begun, and neither completed nor aborted: by a process that was killed, or while the
//! server did not answer.
//!
//! OpenDAL can neither list them nor abort one that it has not begun itself, so these two requests are made here, by
//! the same transport and signed by the same crate.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use opendal::{Buffer, HttpTransporter};
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, OsEnv, ProvideCredentialChain, Signer};
use reqsign_file_read_tokio::TokioFileRead;
use serde::Deserialize;

use super::{PASSING, S3, Unfinished, endpoint, region};
use crate::retry::Failure;
use crate::settings::Settings;

/// Where uploads of one prefix of a bucket are asked for. Cheap to clone.
#[derive(Clone)]
pub(super) struct Uploads {
    signer: Signer<Credential>,
    transport: HttpTransporter,
    /// Without a slash at its end.
    bucket_url: Arc<str>,
    /// What the keys of the store begin with.
    below: Arc<str>,
}

/// One answer of many.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Page {
    is_truncated: bool,
    next_key_marker: String,
    next_upload_id_marker: String,
    upload: Vec<Upload>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
}

/// Why a request was refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Refusal {
    code: String,
    message: String,
}

impl Uploads {
    pub(super) fn new(bucket: &str, prefix: &str, settings: &Settings) -> Self {
        let region = region(settings);
        let endpoint = endpoint(settings).unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let endpoint = if endpoint.starts_with("http") { endpoint } else { format!("https://{endpoint}") };
        let transport = HttpTransporter::default();
        let context = Context::new().with_file_read(TokioFileRead).with_env(OsEnv);
        // In the order in which OpenDAL looks.
        let credentials = match &settings.credentials {
            Some((key, secret, token)) => {
                let given = StaticCredentialProvider::new(&key.0, &secret.0);
                ProvideCredentialChain::new().push(match token {
                    Some(token) => given.with_session_token(&token.0),
                    None => given,
                })
            }
            None => ProvideCredentialChain::new().push(DefaultCredentialProvider::new()),
        };
        let context = context.with_http_send(transport.clone());
        Self {
            signer: Signer::new(context, credentials, RequestSigner::new("s3", &region)),
            transport,
            bucket_url: format!("{}/{bucket}", endpoint.trim_end_matches('/')).into(),
            below: if prefix.is_empty() { "".into() } else { format!("{prefix}/").into() },
        }
    }
}

impl S3 {
    /// All uploads of the store that are under way or were left, of whomever.
    pub(super) fn unfinished_uploads(&self) -> io::Result<Vec<Unfinished>> {
        let below = &*self.uploads.below;
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let query = format!("?uploads&prefix={}{after}", encoded(below, false));
            let answer = self.patience.retry(|| self.request(Method::GET, &query))?;
            let page: Page = quick_xml::de::from_reader(&*answer).map_err(|e| {
                io::Error::new(io::ErrorKind::InvalidData, format!("its answer does not parse: {e}"))
            })?;
            found.extend(page.upload.into_iter().filter_map(|Upload { key, upload_id }| {
                Some(Unfinished { path: key.strip_prefix(below)?.to_owned(), id: upload_id })
            }));
            if !page.is_truncated || page.next_key_marker.is_empty() {
                return Ok(found);
            }
            let markers = [page.next_key_marker, page.next_upload_id_marker];
            let [key, upload] = markers.map(|marker| encoded(&marker, false).into_owned());
            after = format!("&key-marker={key}&upload-id-marker={upload}");
        }
    }

    pub(super) fn abort_upload(&self, upload: &Unfinished) -> io::Result<()> {
        let key = format!("{}{}", self.uploads.below, upload.path);
        let object = format!("/{}?uploadId={}", encoded(&key, true), encoded(&upload.id, false));
        match self.patience.retry(|| self.request(Method::DELETE, &object)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            aborted => aborted.map(drop),
        }
    }

    /// Makes a request without a body, to something below the bucket.
    async fn request(&self, method: Method, below_bucket: &str) -> Result<Bytes, Failure> {
        let Uploads { signer, transport, bucket_url, .. } = &self.uploads;
        let invalid = |e: &dyn std::fmt::Display| Failure::new(io::ErrorKind::InvalidInput, e.to_string());
        let request = Request::builder().method(method).uri(format!("{bucket_url}{below_bucket}"));
        let request = request.body(Buffer::new()).map_err(|e| invalid(&e))?;
        let (mut parts, body) = request.into_parts();
        signer.sign(&mut parts, None).await.map_err(|e| {
            let (kind, message) =
                (io::ErrorKind::PermissionDenied, format!("no credentials to sign with: {e}"));
            Failure { kind, message, retryable: e.is_retryable() }
        })?;
        // It is signed, and the client sets it as its version of HTTP has it.
        parts.headers.remove(HOST);
        let answer = transport.send(Request::from_parts(parts, body)).await.map_err(|e| self.failure(&e))?;
        let (status, answer) = (answer.status(), answer.into_body().to_bytes());
        if status.is_success() { Ok(answer) } else { Err(refused(status, &answer)) }
    }
}

fn refused(status: StatusCode, answer: &[u8]) -> Failure {
    let Refusal { code, message } = quick_xml::de::from_reader(answer).unwrap_or_default();
    let words = match (code.is_empty(), message.is_empty()) {
        (true, _) => status.to_string(),
        (false, true) => code,
        (false, false) => format!("{code}: {message}"),
    };
    match status.as_u16() {
        403 => Failure::new(io::ErrorKind::PermissionDenied, format!("access denied ({words})")),
        404 => Failure::new(io::ErrorKind::NotFound, words),
        405 | 501 => Failure::new(io::ErrorKind::Unsupported, words),
        status if PASSING.contains(&status) => Failure::passing(io::ErrorKind::ResourceBusy, words),
        _ => Failure::new(io::ErrorKind::Other, words),
    }
}

/// Percent-encoded as S3 signs it; a path keeps its slashes.
fn encoded(text: &str, is_path: bool) -> Cow<'_, str> {
    let stays = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || is_path && byte == b'/';
    if text.bytes().all(stays) {
        return text.into();
    }
    let mut encoded = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        if stays(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_as_they_are_signed() {
        assert_eq!(encoded("a-b_c.d~e/0", true), "a-b_c.d~e/0");
        assert_eq!(encoded("a b/\u{e4}+=", false), "a%20b%2F%C3%A4%2B%3D");
        assert_eq!(encoded("a b/", true), "a%20b/");
    }

    #[test]
    fn a_page_has_uploads_and_where_the_next_begins() {
        let page = "<?xml version=\"1.0\"?><ListMultipartUploadsResult><Bucket>b</Bucket><KeyMarker/>\
            <NextKeyMarker>k2</NextKeyMarker><NextUploadIdMarker>i2</NextUploadIdMarker><IsTruncated>true</IsTruncated>\
            <Upload><Key>k&amp;1</Key><UploadId>i1</UploadId><Initiator><ID>x</ID></Initiator></Upload>\
            <Upload><Key>k2</Key><UploadId>i2</UploadId></Upload></ListMultipartUploadsResult>";
        let page: Page = quick_xml::de::from_reader(page.as_bytes()).unwrap();
        assert!(page.is_truncated && page.next_key_marker == "k2" && page.next_upload_id_marker == "i2");
        let uploads: Vec<_> = page.upload.iter().map(|upload| (&*upload.key, &*upload.upload_id)).collect();
        assert_eq!(uploads, [("k&1", "i1"), ("k2", "i2")]);
    }
}
