//! Name nodes.

use std::net::TcpListener;
use std::time::Duration;

use larder_checkpoint::{CheckpointStore, Error};

use super::begin_fails;
use crate::backends::Kind;
use crate::support::*;

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
    let property =
        |name: &str, value: &str| format!("<property><name>{name}</name><value>{value}</value></property>");
    let core = property("fs.defaultFS", "hdfs://kitchen");
    let hdfs =
        property("dfs.ha.namenodes.kitchen", "n1") + &property("dfs.namenode.rpc-address.kitchen.n1", node);
    for (file, properties) in [("core-site.xml", core), ("hdfs-site.xml", hdfs)] {
        let xml = format!("<?xml version=\"1.0\"?><configuration>{properties}</configuration>");
        std::fs::write(conf.path().join(file), xml).unwrap();
    }
    for root in
        [format!("hdfs://kitchen/{path}"), format!("hdfs:///{path}"), format!("hdfs://{node},{node}/{path}")]
    {
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
    assert!(error.to_string().contains("AccessControlException: Permission denied: user=mallory"), "{error}");
    assert!(!error.is_retryable() && error.to_string().contains("trying again cannot help"), "{error}");
}
