//! Servers that refuse, hang, lose answers or are not there. Most of them are played by the test itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use larder_checkpoint::{Builder, CheckpointStore, Error, Step};

use crate::backends::{self, Kind};
use crate::support::*;

const SECRET: &str = "wJalrXUtnFEMI-secret";

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

/// The error of beginning an attempt, and how long it took to come.
fn begin_fails(builder: Builder) -> (Error, Duration) {
    let started = Instant::now();
    let error = builder.open().unwrap().begin(NAME, spec(&numbers(1))).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(SECRET));
    (error, started.elapsed())
}

#[test]
fn secrets_are_printed_nowhere() {
    let builder = CheckpointStore::builder("memory://secrets").s3_credentials("AKIAKEY", SECRET, None);
    let printed = format!("{builder:?}");
    let printed = format!("{printed} {:?}", builder.open().unwrap());
    assert!(!printed.contains(SECRET) && !printed.contains("AKIAKEY"), "{printed}");
}

#[cfg(not(feature = "s3"))]
#[test]
fn without_its_feature_an_s3_address_says_which_to_enable() {
    let error = CheckpointStore::open("s3://bucket/x").unwrap_err();
    assert!(matches!(error, Error::Feature { feature: "s3", .. }), "{error}");
    assert!(error.to_string().contains("enable the cargo feature `s3`"), "{error}");
}

#[cfg(not(feature = "hdfs"))]
#[test]
fn without_its_feature_an_hdfs_address_says_which_to_enable() {
    let error = CheckpointStore::open("hdfs://node:8020/x").unwrap_err();
    assert!(error.to_string().contains("enable the cargo feature `hdfs`"), "{error}");
}

#[cfg(feature = "s3")]
mod on_s3 {
    use super::*;

    #[test]
    fn refused_credentials_are_said_at_once_and_not_tried_again() {
        for code in ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"] {
            let (endpoint, count) = server(move |_| error_answer("403 Forbidden", code));
            let (error, _) = begin_fails(s3(&endpoint));
            assert!(matches!(error, Error::Io { .. }) && !error.is_retryable(), "{error}");
            assert_eq!(error.place().unwrap().step, Step::ListCommits);
            let said = error.to_string();
            assert!(said.contains("s3://bucket/prefix/numbers/commits"), "{said}");
            assert!(said.contains("check the credentials") && said.contains(code), "{said}");
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
}

#[cfg(feature = "hdfs")]
mod on_hdfs {
    use super::*;

    #[test]
    fn a_name_node_that_does_not_answer_or_is_not_there_is_given_up_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let limit = Duration::from_millis(200);
        let silent = CheckpointStore::builder(format!("hdfs://{}/x", listener.local_addr().unwrap()));
        let (error, took) = begin_fails(silent.operation_timeout(limit).tries(2));
        assert!(error.to_string().contains("no answer in 0.2 s (gave up after 2 tries"), "{error}");
        assert!(error.is_retryable() && took < 20 * limit, "{took:?}");

        drop(listener);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for nodes in [port.to_string(), format!("{port},{port}")] {
            let address = format!("hdfs://{nodes}/x");
            let absent = CheckpointStore::builder(&address).retry_pause(Duration::from_millis(5)).tries(3);
            let (error, took) = begin_fails(absent);
            assert!(error.is_retryable() && error.to_string().contains("refused"), "{error}");
            assert!(error.to_string().contains(&format!("{address}/numbers/commits")), "{error}");
            assert!(took < Duration::from_secs(10), "{took:?}");
        }
    }

    #[test]
    fn a_name_service_comes_from_hadoop_s_configuration() {
        let Some(site) = Kind::Hdfs.fresh() else { return };
        write(&site.store(), &numbers(1)).unwrap();
        let (node, path) = site.address.strip_prefix("hdfs://").unwrap().split_once('/').unwrap();
        let conf = tempfile::tempdir().unwrap();
        let property = |name: &str, value: &str| {
            format!("<property><name>{name}</name><value>{value}</value></property>")
        };
        let core = property("fs.defaultFS", "hdfs://kitchen");
        let hdfs = property("dfs.ha.namenodes.kitchen", "n1")
            + &property("dfs.namenode.rpc-address.kitchen.n1", node);
        for (file, properties) in [("core-site.xml", core), ("hdfs-site.xml", hdfs)] {
            let xml = format!("<?xml version=\"1.0\"?><configuration>{properties}</configuration>");
            std::fs::write(conf.path().join(file), xml).unwrap();
        }
        for root in [
            format!("hdfs://kitchen/{path}"),
            format!("hdfs:///{path}"),
            format!("hdfs://{node},{node}/{path}"),
        ] {
            let store = CheckpointStore::builder(&root).hadoop_conf_dir(conf.path().to_str().unwrap());
            let opened = store.open().unwrap().latest(NAME).unwrap().unwrap();
            assert_eq!(read(&opened).unwrap(), numbers(1), "{root}");
            assert!(opened.address().starts_with(&root), "{}", opened.address());
        }
        let error = CheckpointStore::builder("hdfs:///x").hadoop_conf_dir("/nowhere").open().unwrap_err();
        assert!(matches!(error, Error::Configuration { .. }), "{error}");
    }

    #[test]
    fn a_user_without_permission_is_told_so() {
        let Some(site) = Kind::Hdfs.fresh() else { return };
        write(&site.store(), &numbers(1)).unwrap();
        let (error, _) = begin_fails(site.builder().hdfs_user("mallory"));
        assert!(
            error.to_string().contains("AccessControlException: Permission denied: user=mallory"),
            "{error}"
        );
        assert!(!error.is_retryable());
    }
}

#[cfg(any(feature = "s3", feature = "hdfs"))]
#[test]
fn what_a_hanging_server_interrupts_can_be_written_again() {
    for site in backends::each().into_iter().filter(|site| matches!(site.kind, Kind::S3 | Kind::Hdfs)) {
        let hung = Arc::new(AtomicBool::new(false));
        let hook = move |step, _: &str| match step == Step::ClosePart && !hung.swap(true, Ordering::Relaxed) {
            true => larder_checkpoint::HookAction::Hang(Duration::from_secs(3600)),
            false => larder_checkpoint::HookAction::Continue,
        };
        let store = site.builder().operation_timeout(Duration::from_secs(3)).hook(hook).open().unwrap();
        let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
        let error = write_part(&attempt, 0, &numbers(1)[0]).unwrap_err();
        assert!(error.is_retryable() && error.place().unwrap().step == Step::ClosePart, "{error}");
        write_parts(&attempt, &numbers(1)).unwrap();
        assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
    }
}
