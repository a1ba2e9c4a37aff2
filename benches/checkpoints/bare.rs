//! What a programmer would write who needs no manifest, no recovery and no other writers.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::PathBuf;

use opendal::services::{HdfsNative, S3};
use opendal::{Builder, Operator};
use tokio::runtime::Runtime;
use twox_hash::XxHash3_64;

use crate::parts::{CHUNK_BYTES, Parts, for_each_part, sum};

pub(crate) trait Bare: Sync {
    fn write(&self, parts: &Parts);
    fn read(&self) -> u64;
    fn clear(&self);
}

/// Files, written and synced, read and hashed.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new(directory: PathBuf) -> Self {
        fs::create_dir_all(&directory).expect("a scratch directory");
        Self(directory)
    }
}

impl Bare for Files {
    fn write(&self, parts: &Parts) {
        for_each_part(|part| {
            let mut file = File::create_new(self.0.join(part.to_string())).expect("a new file");
            for _ in 0..parts.chunks_a_part {
                file.write_all(&parts.chunk.stored().expect("a chunk in memory")).expect("space");
            }
            file.sync_all().expect("a disk that writes");
            0
        });
    }

    fn read(&self) -> u64 {
        for_each_part(|part| {
            let mut file = File::open(self.0.join(part.to_string())).expect("the file that was written");
            let (mut buffer, mut total) = (vec![0; CHUNK_BYTES], 0_u64);
            let chunks = file.metadata().expect("a file").len() / CHUNK_BYTES as u64;
            for _ in 0..chunks {
                file.read_exact(&mut buffer).expect("a file of whole chunks");
                black_box(XxHash3_64::oneshot(&buffer));
                total = total.wrapping_add(sum(&buffer));
            }
            total
        })
    }

    fn clear(&self) {
        for entry in fs::read_dir(&self.0).expect("the directory") {
            fs::remove_file(entry.expect("an entry").path()).expect("a file");
        }
    }
}

/// Objects of a server: uploads in concurrent pieces where it has them, ranged reads.
pub(crate) struct Remote {
    operator: Operator,
    runtime: Runtime,
    /// Pieces of one object that are under way at the same time.
    concurrency: usize,
}

impl Remote {
    pub(crate) fn s3(endpoint: &str) -> Self {
        let service = S3::default()
            .endpoint(endpoint)
            .region("us-east-1")
            .bucket("larder-test")
            .root("/bench-bare")
            .access_key_id("bench")
            .secret_access_key("bench")
            .disable_config_load();
        Self::new(service, 4)
    }

    pub(crate) fn hdfs(name_node: &str) -> Self {
        Self::new(HdfsNative::default().name_node(name_node).root("/bench-bare"), 1)
    }

    fn new(service: impl Builder, concurrency: usize) -> Self {
        opendal::install_default();
        let runtime = Runtime::new().expect("a runtime");
        let operator = runtime.block_on(async { Operator::new(service).expect("a service") });
        Self { operator, runtime, concurrency }
    }
}

const PIECE_BYTES: usize = 8 << 20;

impl Bare for Remote {
    fn write(&self, parts: &Parts) {
        for_each_part(|part| {
            self.runtime.block_on(async {
                let path = part.to_string();
                let writer = self.operator.writer_with(&path).concurrent(self.concurrency);
                let writer = if self.concurrency > 1 { writer.chunk(PIECE_BYTES) } else { writer };
                let mut writer = writer.await.expect("a server that answers");
                for _ in 0..parts.chunks_a_part {
                    writer.write(parts.chunk.stored().expect("a chunk in memory")).await.expect("space");
                }
                writer.close().await.expect("a server that answers");
            });
            0
        });
    }

    fn read(&self) -> u64 {
        for_each_part(|part| {
            self.runtime.block_on(async {
                let path = part.to_string();
                let bytes = self.operator.stat(&path).await.expect("the object").content_length();
                let reader = self.operator.reader(&path).await.expect("the object");
                let mut total = 0_u64;
                for start in (0..bytes).step_by(PIECE_BYTES) {
                    let piece = reader.read(start..bytes.min(start + PIECE_BYTES as u64)).await;
                    let piece = piece.expect("a server that answers").to_bytes();
                    black_box(XxHash3_64::oneshot(&piece));
                    total = total.wrapping_add(sum(&piece));
                }
                total
            })
        })
    }

    fn clear(&self) {
        for_each_part(|part| {
            let path = part.to_string();
            self.runtime.block_on(self.operator.delete(&path)).expect("a server that answers");
            0
        });
    }
}
