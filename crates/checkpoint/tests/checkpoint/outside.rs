//! What tests see and change of a store past it, as other programs could.

use std::path::Path;

use crate::backends::{BUCKET, Kind, Site, http};

/// The objects of a store, from outside. What is in the memory of a process has none.
pub(crate) enum Outside<'a> {
    Files(&'a Path),
    Bucket { server: &'a str, name: &'a str },
    Hdfs(&'a str),
}

impl Site {
    pub(crate) fn outside(&self) -> Option<Outside<'_>> {
        match self.kind {
            Kind::Memory => None,
            Kind::Fs => Some(Outside::Files(self.address.as_ref())),
            Kind::S3 => Some(Outside::Bucket { server: &self.server, name: &self.name }),
            Kind::Hdfs => Some(Outside::Hdfs(&self.address)),
        }
    }

    /// What stands there, by path below the address; unknown for memory.
    pub(crate) fn objects(&self) -> Option<Vec<String>> {
        let mut objects = match self.outside()? {
            Outside::Files(dir) => crate::support::files(dir),
            Outside::Bucket { server, name } => keys(server, name),
            Outside::Hdfs(address) => hdfs::files(address),
        };
        objects.sort();
        Some(objects)
    }

    /// Whose a directory of HDFS is, and what they may do in it.
    pub(crate) fn give(&self, dir: &str, owner: &str, permission: u32) {
        hdfs::give(&format!("{}/{dir}", self.address), owner, permission);
    }
}

impl Outside<'_> {
    pub(crate) fn get(&self, object: &str) -> Vec<u8> {
        match self {
            Self::Files(dir) => std::fs::read(dir.join(object)).unwrap(),
            Self::Bucket { server, name } => http(server, "GET", &url_path(name, object), b"").1,
            Self::Hdfs(address) => hdfs::get(address, object),
        }
    }

    /// Replaces an object behind the store's back.
    pub(crate) fn put(&self, object: &str, bytes: &[u8]) {
        match self {
            Self::Files(dir) => std::fs::write(dir.join(object), bytes).unwrap(),
            Self::Bucket { server, name } => {
                assert_eq!(http(server, "PUT", &url_path(name, object), bytes).0, 200);
            }
            Self::Hdfs(address) => hdfs::put(address, object, bytes),
        }
    }

    pub(crate) fn remove(&self, object: &str) {
        match self {
            Self::Files(dir) => std::fs::remove_file(dir.join(object)).unwrap(),
            Self::Bucket { server, name } => {
                assert_eq!(http(server, "DELETE", &url_path(name, object), b"").0, 204);
            }
            Self::Hdfs(address) => hdfs::remove(address, object),
        }
    }
}

fn url_path(name: &str, object: &str) -> String {
    format!("/{BUCKET}/{name}/{object}")
}

fn keys(server: &str, name: &str) -> Vec<String> {
    let below = format!("{name}/");
    let mut keys: Vec<String> = Vec::new();
    loop {
        let after = keys.last().map(|key| format!("&start-after={below}{key}")).unwrap_or_default();
        let listed = http(server, "GET", &format!("/{BUCKET}?list-type=2&prefix={below}{after}"), b"").1;
        let listed = String::from_utf8(listed).unwrap();
        let page = listed.split("<Key>").skip(1).map(|rest| rest.split_once("</Key>").unwrap().0);
        keys.extend(page.map(|key| key.strip_prefix(&below).unwrap().to_owned()));
        if !listed.contains("<IsTruncated>true") {
            return keys;
        }
    }
}

#[cfg(feature = "hdfs")]
mod hdfs {
    use std::future::Future;

    use hdfs_native::{Client, ClientBuilder, WriteOptions};

    fn with<T, F: Future<Output = hdfs_native::Result<T>>>(
        address: &str,
        act: impl FnOnce(Client, String) -> F,
    ) -> T {
        let (nodes, path) = address.strip_prefix("hdfs://").unwrap().split_once('/').unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let client = ClientBuilder::new().with_url(format!("hdfs://{nodes}/")).build().unwrap();
            act(client, format!("/{path}")).await.unwrap()
        })
    }

    pub(super) fn files(address: &str) -> Vec<String> {
        let listed = with(address, |client, root| async move {
            match client.list_status(&root, true).await {
                Err(hdfs_native::HdfsError::FileNotFound(_)) => Ok(Vec::new()),
                listed => Ok(listed?.into_iter().filter(|file| !file.isdir).map(|file| file.path).collect()),
            }
        });
        let path = address.splitn(4, '/').nth(3).unwrap();
        listed.iter().map(|file| file.strip_prefix(&format!("/{path}/")).unwrap().to_owned()).collect()
    }

    pub(super) fn get(address: &str, object: &str) -> Vec<u8> {
        with(address, |client, root| async move {
            let file = client.read(&format!("{root}/{object}")).await?;
            Ok(file.read_range(0, file.file_length()).await?.to_vec())
        })
    }

    pub(super) fn put(address: &str, object: &str, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        with(address, |client, root| async move {
            let options = WriteOptions::default().overwrite(true);
            let mut file = client.create(&format!("{root}/{object}"), options).await?;
            file.write_bytes(bytes.into()).await?;
            file.close().await
        });
    }

    pub(super) fn give(dir: &str, owner: &str, permission: u32) {
        with(dir, |client, dir| async move {
            client.mkdirs(&dir, 0o755, true).await?;
            client.set_owner(&dir, Some(owner), None).await?;
            client.set_permission(&dir, permission).await
        });
    }

    pub(super) fn remove(address: &str, object: &str) {
        let removed =
            with(
                address,
                |client, root| async move { client.delete(&format!("{root}/{object}"), true).await },
            );
        assert!(removed);
    }
}

#[cfg(not(feature = "hdfs"))]
mod hdfs {
    pub(super) fn files(_: &str) -> Vec<String> {
        Vec::new()
    }

    pub(super) fn get(_: &str, _: &str) -> Vec<u8> {
        Vec::new()
    }

    pub(super) fn put(_: &str, _: &str, _: &[u8]) {}

    pub(super) fn give(_: &str, _: &str, _: u32) {}

    pub(super) fn remove(_: &str, _: &str) {}
}
