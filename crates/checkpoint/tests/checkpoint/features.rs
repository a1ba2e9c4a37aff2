//! What a store says of itself, and of what was not compiled in.

use larder_checkpoint::CheckpointStore;
#[cfg(not(feature = "s3"))]
use larder_checkpoint::Error;

pub(crate) const SECRET: &str = "wJalrXUtnFEMI-secret";

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
