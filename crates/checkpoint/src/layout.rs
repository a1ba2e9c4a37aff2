//! Names and places of everything in a checkpoint store.
//!
//! Paths are relative to the store's address and use `/`, on every backend.

use crate::{AttemptId, Error};

/// The most bytes a dataset's name may have.
pub const NAME_BYTES_MAX: usize = 128;

const MANIFEST_SUFFIX: &str = ".json";
const TEMPORARY_SUFFIX: &str = ".tmp";
const GENERATION_DIGITS: usize = 20;

/// A name becomes a path segment on every backend: only what all of them take unchanged.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::Name { name: name.to_owned(), reason });
    if name.is_empty() {
        return refuse("it is empty".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return refuse(format!("it has {} bytes, more than {NAME_BYTES_MAX}", name.len()));
    }
    if name.starts_with('.') {
        return refuse("it starts with a dot".to_owned());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.chars().find(|&c| !allowed(c)) {
        Some(c) => refuse(format!("it contains {c:?}")),
        None => Ok(()),
    }
}

pub(crate) fn data_dir(dataset: &str) -> String {
    format!("{dataset}/data")
}

pub(crate) fn attempt_dir(dataset: &str, attempt: AttemptId) -> String {
    format!("{dataset}/data/{attempt}")
}

pub(crate) fn commits_dir(dataset: &str) -> String {
    format!("{dataset}/commits")
}

pub(crate) fn latest(dataset: &str) -> String {
    format!("{dataset}/LATEST")
}

pub(crate) fn pins_dir(dataset: &str) -> String {
    format!("{dataset}/pins")
}

/// What names a generation that retention spares.
pub(crate) fn pin(dataset: &str, name: &str) -> String {
    format!("{dataset}/pins/{name}")
}

/// What [`latest`] and [`pin`] hold.
pub(crate) fn encode_generation(generation: u64) -> String {
    format!("{generation:020}\n")
}

/// Reads what [`encode_generation`] wrote.
pub(crate) fn decode_generation(text: &[u8]) -> Option<u64> {
    str::from_utf8(text)
        .ok()?
        .strip_suffix('\n')
        .filter(|digits| digits.len() == GENERATION_DIGITS)?
        .parse()
        .ok()
}

/// A part's place below its dataset, as manifests name it.
pub(crate) fn part(attempt: AttemptId, partition: u32, partitions: u32) -> String {
    format!("data/{attempt}/part-{partition:05}-of-{partitions:05}.blk")
}

pub(crate) fn manifest(dataset: &str, generation: u64) -> String {
    format!("{dataset}/commits/{generation:020}{MANIFEST_SUFFIX}")
}

/// Where an attempt's manifest is written before it is published.
pub(crate) fn temporary_manifest(dataset: &str, generation: u64, attempt: AttemptId) -> String {
    format!("{dataset}/commits/{generation:020}.{attempt}{TEMPORARY_SUFFIX}")
}

/// The generation whose manifest has this file name.
pub(crate) fn generation_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(MANIFEST_SUFFIX)?;
    let all_digits = digits.len() == GENERATION_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten()
}

/// The attempt whose temporary manifest has this file name.
pub(crate) fn attempt_of_temporary(file_name: &str) -> Option<AttemptId> {
    let (digits, attempt) = file_name.strip_suffix(TEMPORARY_SUFFIX)?.split_once('.')?;
    generation_of(&format!("{digits}{MANIFEST_SUFFIX}"))?;
    attempt.parse().ok()
}

/// The attempt that a part is of, by the part's path.
pub(crate) fn attempt_of_part(path: &str) -> Option<AttemptId> {
    let (dataset, rest) = path.split_once('/')?;
    let (attempt, part) = rest.strip_prefix("data/")?.split_once('/')?;
    let is_part = part.starts_with("part-") && part.ends_with(".blk") && !part.contains('/');
    (is_part && check_name(dataset).is_ok()).then(|| attempt.parse().ok()).flatten()
}

/// Splits the address of a checkpoint, `{root}/{dataset}/commits/{generation}.json`.
pub(crate) fn split_checkpoint_address(address: &str) -> Option<(&str, &str, u64)> {
    let (commits, file_name) = address.rsplit_once('/')?;
    let (root, dataset) = commits.strip_suffix("/commits")?.rsplit_once('/')?;
    let root = if root.is_empty() { "/" } else { root };
    Some((root, dataset, generation_of(file_name)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_some_backend_would_change_are_refused() {
        for name in ["ranks", "ranks-3", "a.b_C", "0"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "ü", "a:b", "a%b", "a\0", &long] {
            let error = check_name(name).unwrap_err().to_string();
            assert!(error.contains("dataset name"), "{error}");
        }
    }

    #[test]
    fn file_names_read_back() {
        let attempt = AttemptId::new();
        let name = |path: String| path.rsplit_once('/').unwrap().1.to_owned();
        assert_eq!(generation_of(&name(manifest("d", 7))), Some(7));
        assert_eq!(generation_of(&name(manifest("d", u64::MAX))), Some(u64::MAX));
        assert_eq!(attempt_of_temporary(&name(temporary_manifest("d", 7, attempt))), Some(attempt));
        for foreign in ["7.json", "99999999999999999999.json", "+0000000000000000007.json", "x.tmp", "LATEST"]
        {
            assert_eq!(generation_of(foreign), None, "{foreign}");
            assert_eq!(attempt_of_temporary(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_part_s_path_tells_its_attempt() {
        let attempt = AttemptId::new();
        let path = format!("d/{}", part(attempt, 3, 7));
        assert_eq!(attempt_of_part(&path), Some(attempt));
        for foreign in [
            "d/data/x/part-00003-of-00007.blk",
            "part-00003-of-00007.blk",
            "d/data",
            "",
            ".h/data/x/part-0.blk",
        ] {
            assert_eq!(attempt_of_part(foreign), None, "{foreign}");
        }
        assert_eq!(attempt_of_part(&path.replace("data", "other")), None);
        assert_eq!(attempt_of_part(&format!("{path}/x")), None);
    }

    #[test]
    fn a_checkpoint_address_splits_into_store_dataset_and_generation() {
        let address = format!("/a/b/{}", manifest("ranks", 12));
        assert_eq!(split_checkpoint_address(&address), Some(("/a/b", "ranks", 12)));
        assert_eq!(split_checkpoint_address(&format!("/{}", manifest("r", 1))), Some(("/", "r", 1)));
        assert_eq!(split_checkpoint_address("/a/b/ranks"), None);
        assert_eq!(split_checkpoint_address("/a/ranks/data/00000000000000000001.json"), None);
    }
}
