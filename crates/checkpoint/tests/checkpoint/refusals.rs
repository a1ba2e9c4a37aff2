//! Servers that refuse to go on in the middle of a checkpoint: credentials that were taken away, and no room left.

use std::io::ErrorKind;
use std::time::Duration;

use larder_checkpoint::{CheckpointStore, Error, Step};

use crate::backends::Kind;
use crate::outages::{chunks_of_noise, commit_first, impatient, in_the_middle, interrupted, recovers};
use crate::own_server::OwnServer;
use crate::support::*;

const ALL_METHODS: &str = "GET HEAD PUT POST DELETE";
const WRITING_METHODS: &str = "PUT POST";

/// What is not tried again is over at once, on a busy machine too.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Says what was refused, where and to whom, and that only they can do something about it.
fn is_denied(error: &Error, steps: &[Step], object: &str, words: &str) {
    let Error::Io { source, .. } = error else { panic!("{error}") };
    assert!(source.kind() == ErrorKind::PermissionDenied && !error.is_retryable(), "{error}");
    let place = error.place().unwrap();
    assert!(steps.contains(&place.step), "{error}");
    let said = error.to_string();
    assert!(said.contains(&place.address.to_string()) && said.contains(object), "{said}");
    assert!(said.contains(words), "{said}");
    assert!(
        said.contains("trying again cannot help until the credentials, or what they permit, are mended"),
        "{said}"
    );
}

/// A store whose credentials are nobody else's, and what is to be refused to take them away.
fn with_own_credentials(site: &crate::backends::Site) -> (CheckpointStore, String) {
    let key = format!("key-of-{}", site.name);
    let store = impatient(site).s3_credentials(&key, "secret", None).open().unwrap();
    (store, format!("Credential={key}/"))
}

#[test]
fn credentials_revoked_in_the_middle_of_a_part_on_s3_are_named_and_cost_that_attempt_alone() {
    let Some(site) = Kind::S3.fresh() else { return };
    let chunks = chunks_of_noise();
    commit_first(&site.store());
    let (store, theirs) = with_own_credentials(&site);
    let (attempt, part) = in_the_middle(&store, &chunks);
    assert_eq!(site.open_uploads(), 1, "it is in the middle");

    site.refuse(&theirs, 403, "InvalidAccessKeyId", ALL_METHODS);
    let (error, took) = interrupted(part, &chunks);
    let part_name = format!("noise/data/{}/part-00000", attempt.id());
    is_denied(&error, &[Step::WriteChunk, Step::ClosePart], &part_name, "InvalidAccessKeyId");
    assert!(took < AT_ONCE, "{took:?}");
    is_denied(
        &store.latest("noise").unwrap_err(),
        &[Step::ListCommits],
        "noise/commits",
        "InvalidAccessKeyId",
    );
    drop(attempt);

    let mended = impatient(&site).open().unwrap();
    let again = begin_noise(&mended);
    recovers(&site, &mended, &again, &chunks);
    site.admit(&theirs);
}

#[test]
fn credentials_revoked_before_the_commit_on_s3_leave_it_to_be_repeated() {
    let Some(site) = Kind::S3.fresh() else { return };
    write(&site.store(), &numbers(1)).unwrap();
    let (store, theirs) = with_own_credentials(&site);
    let attempt = store.begin(NAME, spec(&numbers(2))).unwrap();
    write_parts(&attempt, &numbers(2)).unwrap();

    site.refuse(&theirs, 403, "AccessDenied", ALL_METHODS);
    is_denied(&attempt.commit().unwrap_err(), &[Step::CheckPart], "numbers/data", "AccessDenied");
    assert_eq!(site.store().generations(NAME).unwrap(), [1]);
    site.admit(&theirs);

    // Only what was permitted is taken away now: it may look and not write.
    site.refuse(&theirs, 403, "AccessDenied", WRITING_METHODS);
    is_denied(&attempt.commit().unwrap_err(), &[Step::PublishManifest], "numbers/commits", "AccessDenied");
    assert_eq!(read(&store.latest(NAME).unwrap().unwrap()).unwrap(), numbers(1));
    site.admit(&theirs);

    assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(2));
    site.store().cleanup(&at_once()).unwrap();
    assert_eq!(site.objects().unwrap(), committed_files(&store));
}

#[test]
fn an_s3_server_without_room_or_out_of_order_costs_the_part_alone() {
    for (status, code, is_full) in [(507, "XMinioStorageFull", true), (500, "InternalError", false)] {
        let Some(site) = Kind::S3.fresh() else { return };
        let chunks = chunks_of_noise();
        commit_first(&site.store());
        let store = impatient(&site).open().unwrap();
        let (attempt, part) = in_the_middle(&store, &chunks);

        site.refuse(&site.name, status, code, WRITING_METHODS);
        let (error, took) = interrupted(part, &chunks);
        match &error {
            Error::StorageFull { .. } => {
                assert!(is_full && !error.is_retryable() && took < AT_ONCE, "{took:?}")
            }
            Error::Io { .. } => assert!(!is_full && error.is_retryable(), "{error}"),
            _ => panic!("{error}"),
        }
        let part_name = format!("{}/noise/data/{}/part-00000", site.address, attempt.id());
        assert!(error.to_string().contains(&part_name) && error.to_string().contains(code), "{error}");
        assert!(matches!(error.place().unwrap().step, Step::WriteChunk | Step::ClosePart), "{error}");
        assert_eq!(site.open_uploads(), 0, "a full server lets go of what it has");
        site.admit(&site.name);

        recovers(&site, &store, &attempt, &chunks);
    }
}

#[test]
fn permission_taken_away_between_parts_on_hdfs_is_named_and_the_attempt_goes_on_when_it_is_back() {
    let Some(site) = Kind::Hdfs.fresh() else { return };
    site.give("", "ada", 0o755);
    let store = site.builder().hdfs_user("ada").open().unwrap();
    write(&store, &numbers(1)).unwrap();
    let records = numbers(2);
    let attempt = store.begin(NAME, spec(&records)).unwrap();
    let given_up = store.begin(NAME, spec(&records)).unwrap();
    [&attempt, &given_up].iter().for_each(|attempt| write_part(attempt, 0, &records[0]).unwrap());
    let dirs = [
        format!("{NAME}/data/{}", attempt.id()),
        format!("{NAME}/data/{}", given_up.id()),
        format!("{NAME}/data"),
        format!("{NAME}/commits"),
        NAME.to_owned(),
    ];
    // What was opened before is not refused.
    let mut open = attempt.part(1).unwrap();
    dirs.iter().for_each(|dir| site.give(dir, "ada", 0o555));
    chunks(&records[1]).iter().for_each(|chunk| open.write(chunk).unwrap());
    open.finish().unwrap();

    let error = write_part(&attempt, 2, &records[2]).unwrap_err();
    is_denied(
        &error,
        &[Step::CreatePart],
        "part-00002",
        "AccessControlException: Permission denied: user=ada",
    );
    drop(given_up);
    assert_eq!(store.generations(NAME).unwrap(), [1]);
    assert_eq!(read(&store.latest(NAME).unwrap().unwrap()).unwrap(), numbers(1));
    dirs[..2].iter().for_each(|dir| site.give(dir, "ada", 0o755));
    write_part(&attempt, 2, &records[2]).unwrap();
    let error = attempt.commit().unwrap_err();
    is_denied(&error, &[Step::WriteManifest], "numbers/commits", "AccessControlException");
    assert_eq!(store.generations(NAME).unwrap(), [1]);

    dirs.iter().for_each(|dir| site.give(dir, "ada", 0o755));
    assert_eq!(read(&attempt.commit().unwrap()).unwrap(), records);
    let orphans = store.cleanup(&at_once()).unwrap().orphans;
    assert_eq!(orphans.len(), 1, "what was given up could not be removed: {orphans:?}");
    assert_eq!(site.objects().unwrap(), committed_files(&store));
}

#[test]
fn a_quota_that_is_reached_in_the_middle_of_a_part_on_hdfs_costs_the_part_alone() {
    let Some(mut server) = OwnServer::start(Kind::Hdfs) else { return };
    let (site, chunks) = (server.site(), chunks_of_noise());
    commit_first(&site.store());
    let store = impatient(&site).open().unwrap();
    let (attempt, part) = in_the_middle(&store, &chunks);
    let dir = format!("/larder-test/{}", site.name);
    server.set_quota(&dir, 1 << 20);

    let (error, took) = interrupted(part, &chunks);
    assert!(matches!(error, Error::StorageFull { .. }) && !error.is_retryable(), "{error}");
    assert!(took < AT_ONCE, "{took:?}");
    let part_name = format!("{}/noise/data/{}/part-00000", site.address, attempt.id());
    assert!(error.to_string().contains(&part_name) && error.to_string().contains("quota"), "{error}");
    assert!(matches!(error.place().unwrap().step, Step::WriteChunk | Step::ClosePart), "{error}");
    let error = begin_noise(&store).part(0).and_then(|mut part| {
        part.write(&chunks[0])?;
        part.finish()
    });
    assert!(matches!(error, Err(Error::StorageFull { .. })), "{error:?}");

    server.set_quota(&dir, -1);
    recovers(&site, &store, &attempt, &chunks);
}
