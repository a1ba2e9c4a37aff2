//! S3 servers, most of them played by the test itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use larder_checkpoint::{Builder, CheckpointStore, CleanupOptions, Error, Step};
use parking_lot::Mutex;

use super::{SECRET, begin_fails};
use crate::backends::Kind;
use crate::support::*;

/// A server that gives every request the same answer, or none; its endpoint, and how many requests came.
fn server(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let head = read_request(&mut stream);
            counted.fetch_add(1, Ordering::Relaxed);
            match answer(&head) {
                Some(answer) => drop(stream.write_all(answer.as_bytes())),
                None => open.push(stream),
            }
        }
    });
    (endpoint, count)
}

/// Reads a request to its end; gives its head.
fn read_request(stream: &mut TcpStream) -> String {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase();
            let length = length
                .split_once("content-length: ")
                .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().trim().parse::<usize>().unwrap());
            if body.len() >= length {
                return head.to_owned();
            }
        }
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
            _ => return text,
        }
    }
}

fn answer(status: &str, body: &str) -> Option<String> {
    let length = body.len();
    Some(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"))
}

fn error_answer(status: &str, code: &str) -> Option<String> {
    let body = format!("<Error><Code>{code}</Code><Message>it says {code}</Message></Error>");
    answer(status, &body)
}

fn s3(endpoint: &str) -> Builder {
    let builder = CheckpointStore::builder("s3://bucket/prefix").s3_endpoint(endpoint);
    builder.s3_credentials("AKIAKEY", SECRET, Some(SECRET.to_owned())).retry_pause(Duration::from_millis(5))
}

#[test]
fn refused_credentials_are_said_at_once_and_not_tried_again() {
    for code in ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"] {
        let (endpoint, count) = server(move |_| error_answer("403 Forbidden", code));
        let (error, _) = begin_fails(s3(&endpoint));
        assert!(matches!(error, Error::Io { .. }) && !error.is_retryable(), "{error}");
        assert_eq!(error.place().unwrap().step, Step::ListCommits);
        let said = error.to_string();
        assert!(said.contains("s3://bucket/prefix/numbers/commits"), "{said}");
        assert!(
            said.contains("trying again cannot help until the credentials, or what they permit, are mended")
                && said.contains(code),
            "{said}"
        );
        assert_eq!(count.load(Ordering::Relaxed), 1, "{code}");
    }
}

#[test]
fn a_missing_bucket_is_named() {
    let (endpoint, count) = server(|_| error_answer("404 Not Found", "NoSuchBucket"));
    let (error, _) = begin_fails(s3(&endpoint));
    assert!(error.to_string().contains("there is no bucket `bucket`"), "{error}");
    assert!(!error.is_retryable() && count.load(Ordering::Relaxed) == 1, "{error}");
}

#[test]
fn a_busy_server_is_asked_as_often_as_set_and_no_more() {
    let (endpoint, count) = server(|_| error_answer("503 Slow Down", "SlowDown"));
    let (error, _) = begin_fails(s3(&endpoint).tries(4));
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains("gave up after 4 tries"), "{error}");
    assert_eq!(count.load(Ordering::Relaxed), 4);
}

#[test]
fn a_server_that_does_not_answer_or_is_not_there_is_given_up_in_time() {
    let (endpoint, count) = server(|_| None);
    let limit = Duration::from_millis(200);
    let (error, took) = begin_fails(s3(&endpoint).operation_timeout(limit).tries(2));
    assert!(error.to_string().contains("no answer in 0.2 s (gave up after 2 tries"), "{error}");
    assert!(error.is_retryable() && took >= 2 * limit && took < 20 * limit, "{took:?}");
    assert_eq!(count.load(Ordering::Relaxed), 2);
    let (error, took) = begin_fails(s3(&endpoint).operation_timeout(limit).deadline(3 * limit).tries(99));
    assert!(error.is_retryable() && took < 20 * limit, "{error} after {took:?}");

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (error, took) = begin_fails(s3(&format!("http://{port}")).tries(3));
    assert!(error.is_retryable() && error.to_string().contains("refused"), "{error}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// One of long ago.
const ATTEMPT: &str = "01900000-0000-7000-8000-000000000000";

/// Takes every PUT, whatever it asks for, and has nothing in its lists.
fn careless(head: &str) -> Option<String> {
    let list = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    match head.split(' ').next() {
        Some("PUT") => answer("200 OK", ""),
        Some("DELETE") => answer("204 No Content", ""),
        Some("GET") if head.contains("list-type") => answer("200 OK", list),
        _ => error_answer("404 Not Found", "NoSuchKey"),
    }
}

#[test]
fn a_server_that_ignores_conditions_is_refused_unless_there_is_a_single_writer() {
    let (endpoint, _) = server(careless);
    let (error, _) = begin_fails(s3(&endpoint));
    assert_eq!(error.place().unwrap().step, Step::CreateDirectories, "{error}");
    let said = error.to_string();
    assert!(said.contains("ignores If-None-Match") && said.contains("single_writer"), "{said}");
    assert!(!error.is_retryable(), "{said}");
    for builder in [s3(&endpoint).single_writer(true), s3(&endpoint).probe(false)] {
        builder.open().unwrap().begin(NAME, spec(&numbers(1))).unwrap();
    }
}

#[test]
fn the_probe_is_made_once_a_store_and_leaves_nothing() {
    let Some(site) = Kind::S3.fresh() else { return };
    let probes = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&probes);
    let store = site.builder().hook(move |step, _| {
        counted.fetch_add(u32::from(step == Step::Probe), Ordering::Relaxed);
        larder_checkpoint::HookAction::Continue
    });
    let store = store.open().unwrap();
    (1..=3).for_each(|seed| drop(write(&store, &numbers(seed)).unwrap()));
    assert_eq!(probes.load(Ordering::Relaxed), 1);
    assert_eq!(site.objects().unwrap(), committed_files(&store));
}

#[test]
fn a_single_writer_still_overwrites_nothing() {
    let Some(site) = Kind::S3.fresh() else { return };
    let store = site.builder().single_writer(true).open().unwrap();
    let attempts = [1, 2].map(|seed| {
        let attempt = store.begin(NAME, spec(&numbers(seed))).unwrap();
        write_parts(&attempt, &numbers(seed)).unwrap();
        attempt
    });
    attempts[0].commit().unwrap();
    assert!(matches!(attempts[1].commit(), Err(Error::Conflict { .. })));
    assert_eq!(read(&store.latest(NAME).unwrap().unwrap()).unwrap(), numbers(1));
}

/// Stands before the test server and swallows the answer to the first request that puts a manifest.
fn answer_loser(server: String) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let lost = Arc::new(AtomicBool::new(false));
    let losing = Arc::clone(&lost);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, lost) = (client.unwrap(), Arc::clone(&losing));
            let mut server = TcpStream::connect(server.strip_prefix("http://").unwrap()).unwrap();
            let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let swallow = Arc::new(AtomicBool::new(false));
            let swallowing = Arc::clone(&swallow);
            std::thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(read @ 1..) = answers.read(&mut buffer) {
                    if swallowing.load(Ordering::SeqCst) {
                        let _ = to_client.shutdown(std::net::Shutdown::Both);
                        return;
                    }
                    let _ = to_client.write_all(&buffer[..read]);
                }
                let _ = to_client.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                    let manifest =
                        request.starts_with("PUT") && request.contains("/commits/00000000000000000001");
                    if manifest && !lost.swap(true, Ordering::SeqCst) {
                        swallow.store(true, Ordering::SeqCst);
                    }
                    let _ = server.write_all(&buffer[..read]);
                }
            });
        }
    });
    (endpoint, lost)
}

#[test]
fn a_commit_whose_answer_is_lost_is_found_by_reading_back() {
    let Some(site) = Kind::S3.fresh() else { return };
    let (endpoint, lost) = answer_loser(std::env::var("LARDER_TEST_S3").unwrap());
    let store = site.builder().s3_endpoint(endpoint).open().unwrap();
    let written = write(&store, &numbers(1)).unwrap();
    assert!(lost.load(Ordering::SeqCst), "the test lost an answer");
    assert_eq!(site.store().latest(NAME).unwrap().unwrap().manifest(), written.manifest());
    assert_eq!(site.objects().unwrap(), committed_files(&site.store()));
}

#[test]
fn all_unfinished_uploads_of_a_store_are_ended_however_many_pages_list_them() {
    let upload = |name: &str| {
        let key = format!("prefix/{NAME}/data/{ATTEMPT}/part-00000-of-00001.blk");
        format!("<Upload><Key>{key}</Key><UploadId>{name}</UploadId></Upload>")
    };
    let foreign = "<Upload><Key>prefix/else</Key><UploadId>foreign</UploadId></Upload>";
    let more = "<IsTruncated>true</IsTruncated><NextKeyMarker>k/1</NextKeyMarker>\
                <NextUploadIdMarker>first</NextUploadIdMarker>";
    let pages = [format!("{more}{}", upload("first")), format!("{foreign}{}", upload("second"))];
    let pages = pages.map(|page| format!("<ListMultipartUploadsResult>{page}</ListMultipartUploadsResult>"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let (endpoint, _) = server(move |head| {
        let line = head.lines().next().unwrap();
        let signed = head.to_lowercase().contains("authorization: aws4-hmac-sha256 credential=akiakey/");
        match line.split(' ').nth(1).unwrap() {
            listed if listed.starts_with("/bucket?uploads&prefix=prefix%2F") && signed => {
                let next = listed.ends_with("&key-marker=k%2F1&upload-id-marker=first");
                answer("200 OK", &pages[usize::from(next)])
            }
            object if line.starts_with("DELETE") && signed => {
                noted.lock().push(object.rsplit_once('?').unwrap().1.to_owned());
                // One that somebody else has ended.
                if object.ends_with("first") {
                    error_answer("404 Not Found", "NoSuchUpload")
                } else {
                    answer("204 No Content", "")
                }
            }
            _ => careless(head),
        }
    });
    let store = s3(&endpoint).open().unwrap();
    let report = store.cleanup(&at_once()).unwrap();
    assert!(report.skipped.is_empty() && report.orphans.len() == 2, "{report:?}");
    assert_eq!(*seen.lock(), ["uploadId=first", "uploadId=second"]);
    let grace = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let spared = store.cleanup(&CleanupOptions::default().orphan_grace(grace)).unwrap();
    assert!(spared.orphans.is_empty(), "{spared:?}");
}

#[test]
fn uploads_that_may_not_be_listed_are_told_and_the_rest_is_cleaned_up() {
    let Some(site) = Kind::S3.fresh() else { return };
    let store = site.store();
    write(&store, &numbers(1)).unwrap();
    let attempt = store.begin(NAME, spec(&numbers(2))).unwrap();
    write_part(&attempt, 0, &numbers(2)[0]).unwrap();
    let listing = format!("uploads&prefix={}", site.name);
    site.refuse(&listing, 403, "AccessDenied", "GET");
    let report = site.store().cleanup(&at_once()).unwrap();
    site.admit(&listing);
    assert_eq!((report.orphans.len(), report.skipped.len()), (1, 1), "{report:?}");
    let (what, error) = &report.skipped[0];
    assert!(what == "unfinished uploads" && !error.is_retryable(), "{error}");
    let said = error.to_string();
    assert!(said.contains(&format!("list the unfinished uploads in {}", site.address)), "{said}");
    assert!(said.contains("access denied (AccessDenied: "), "{said}");
    assert_eq!(site.objects().unwrap(), committed_files(&store));
}
