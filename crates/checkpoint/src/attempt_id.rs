//! The name of one try at writing a checkpoint.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Names one attempt at a checkpoint, in its data directory and its manifest. A version 7 UUID: never used twice,
/// and it tells when the attempt began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(Uuid);

impl AttemptId {
    pub(crate) fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// When the attempt began, to the millisecond, by the clock of the machine that wrote it.
    #[must_use]
    pub fn began(&self) -> SystemTime {
        let millis = self.0.as_bytes().iter().take(6).fold(0, |millis, &byte| millis << 8 | u64::from(byte));
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    /// How long ago that is, zero when it lies in the future.
    pub(crate) fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.began()).unwrap_or_default()
    }
}

/// The text is no attempt id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no attempt id: a version 7 UUID in lower case")]
pub struct AttemptIdError {
    /// What was read.
    pub text: String,
}

impl FromStr for AttemptId {
    type Err = AttemptIdError;

    fn from_str(text: &str) -> Result<Self, AttemptIdError> {
        let id = Uuid::try_parse(text).ok().filter(|id| id.get_version_num() == 7).map(Self);
        // One id has one spelling, so that a directory and a manifest agree by comparing text.
        id.filter(|id| id.to_string() == text).ok_or_else(|| AttemptIdError { text: text.to_owned() })
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_hyphenated(), f)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for AttemptId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AttemptId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_when_it_began_and_has_one_spelling() {
        let before = SystemTime::now() - Duration::from_millis(2);
        let id = AttemptId::new();
        assert!(id.began() >= before && id.age(SystemTime::now()) < Duration::from_secs(60));
        assert_eq!(id.age(UNIX_EPOCH), Duration::ZERO);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().to_uppercase().parse::<AttemptId>().is_err());
        assert!("6fa459ea-ee8a-4ca4-894e-db77e160355e".parse::<AttemptId>().is_err(), "version 4");
    }

    #[test]
    fn later_ids_are_greater() {
        let ids: Vec<_> = (0..100).map(|_| AttemptId::new()).collect();
        assert!(ids.is_sorted());
    }
}
