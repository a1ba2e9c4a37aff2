//! The manifest: what a checkpoint consists of.

use larder_blockstore::codec::CodecId;
use larder_blockstore::format::Compression;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::error::ManifestError;
use crate::{AttemptId, Error, layout};

const FORMAT: &str = "larder-checkpoint";
const VERSION: u32 = 1;

/// The end of every manifest, in every version: this, 16 hexadecimal digits, and [`CHECKSUM_TAIL`].
const CHECKSUM_HEAD: &str = ",\n  \"checksum\": \"";
const CHECKSUM_TAIL: &str = "\"\n}\n";
const CHECKSUM_DIGITS: usize = 16;

/// The most partitions a checkpoint may have.
pub const PARTITIONS_MAX: u32 = 100_000;

/// What a checkpoint consists of. Readers trust this alone: what no manifest names is not there.
///
/// `docs/formats.md` shows one as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The dataset's name.
    pub dataset: String,
    /// Which checkpoint of the dataset this is. They count up.
    pub generation: u64,
    /// The newest generation when this one was begun.
    pub parent: Option<u64>,
    /// Who wrote it. Its data lies in the directory of this name.
    pub attempt: AttemptId,
    /// When it was committed, in milliseconds since 1970 by the writer's clock.
    pub created_unix_ms: u64,
    /// What the writer calls the type of its records.
    pub record_type: String,
    /// What its records are made of, if the writer said so. Manifests of before there were schemas have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<RecordSchema>,
    /// The codec of the records.
    #[serde(with = "codec_json")]
    pub codec: CodecId,
    /// The compression that was asked for.
    #[serde(with = "compression_json")]
    pub compression: Compression,
    /// How records were assigned to partitions, if the writer knew.
    pub partitioner: Option<Partitioner>,
    /// One part a partition, in their order.
    pub parts: Vec<Part>,
}

/// How records were assigned to partitions. Larder stores it and does not look into it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Partitioner {
    /// Which function of the key, such as `hash` or `range`.
    pub kind: String,
    /// Into how many partitions.
    pub partitions: u32,
}

/// What records are made of. Larder stores it and does not look into it: whoever reads the records compares it with
/// what they expect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordSchema {
    /// What the writer's compiler calls the type.
    pub rust_type: String,
    /// The shape of a record, for people. A long one is cut.
    pub description: String,
    /// A hash of that shape, uncut: with the names of types, fields and variants.
    #[serde(with = "hex")]
    pub fingerprint: u64,
    /// A hash of the shape without the names: of what decides the bytes of a record.
    #[serde(with = "hex")]
    pub layout: u64,
}

/// One partition's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Part {
    /// Its path below the dataset's directory.
    pub path: String,
    /// Its exact length.
    pub bytes: u64,
    /// The records it holds.
    pub records: u64,
    /// xxh3-64 of the whole file.
    #[serde(with = "hex")]
    pub checksum: u64,
    /// xxh3-64 of the block header that ends it. The header holds the checksum of each chunk, so this alone tells
    /// one part from any other before a chunk is read.
    #[serde(with = "hex")]
    pub header_checksum: u64,
}

#[derive(Serialize)]
struct Written<'a> {
    format: &'static str,
    version: u32,
    #[serde(flatten)]
    manifest: &'a Manifest,
}

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

impl Manifest {
    /// Records in all parts.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.records))
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    /// The bytes of a manifest: JSON whose last member is the checksum of all before it.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        let written = Written { format: FORMAT, version: VERSION, manifest: self };
        let json = serde_json::to_string_pretty(&written)
            .map_err(|e| Error::Invalid { reason: format!("the manifest cannot be written: {e}") })?;
        let mut text = json.strip_suffix("\n}").unwrap_or(&json).to_owned();
        text.push_str(CHECKSUM_HEAD);
        let checksum = XxHash3_64::oneshot(text.as_bytes());
        text.push_str(&format!("{checksum:016x}"));
        text.push_str(CHECKSUM_TAIL);
        Ok(text.into_bytes())
    }

    /// Reads the manifest of a generation; nothing is believed that its checksum does not vouch for.
    pub(crate) fn decode(bytes: &[u8], dataset: &str, generation: u64) -> Result<Self, ManifestError> {
        verify_checksum(bytes)?;
        let head: Head = serde_json::from_slice(bytes)?;
        let misplaced = |what, found: &dyn ToString, expected: &dyn ToString| {
            let (found, expected) = (found.to_string(), expected.to_string());
            if found == expected { Ok(()) } else { Err(ManifestError::Misplaced { what, found, expected }) }
        };
        misplaced("format", &head.format, &FORMAT)?;
        if head.version != VERSION {
            return Err(ManifestError::Version { found: head.version, supported: VERSION });
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        misplaced("dataset", &manifest.dataset, &dataset)?;
        misplaced("generation", &manifest.generation, &generation)?;
        let partitions = u32::try_from(manifest.parts.len()).unwrap_or(u32::MAX);
        for (partition, part) in (0..).zip(&manifest.parts) {
            misplaced("part", &part.path, &layout::part(manifest.attempt, partition, partitions))?;
        }
        Ok(manifest)
    }
}

fn verify_checksum(bytes: &[u8]) -> Result<(), ManifestError> {
    let without_tail = bytes.strip_suffix(CHECKSUM_TAIL.as_bytes()).ok_or(ManifestError::NoChecksum)?;
    let digits_at = without_tail.len().checked_sub(CHECKSUM_DIGITS).ok_or(ManifestError::NoChecksum)?;
    let (vouched_for, digits) = without_tail.split_at(digits_at);
    if !vouched_for.ends_with(CHECKSUM_HEAD.as_bytes()) {
        return Err(ManifestError::NoChecksum);
    }
    let expected = str::from_utf8(digits).ok().and_then(hex::parse).ok_or(ManifestError::NoChecksum)?;
    let actual = XxHash3_64::oneshot(vouched_for);
    if actual == expected { Ok(()) } else { Err(ManifestError::Checksum { expected, actual }) }
}

/// 64-bit checksums as text: a JSON number is a double to many readers.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn parse(text: &str) -> Option<u64> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let whole = text.len() == super::CHECKSUM_DIGITS && text.bytes().all(digits);
        whole.then(|| u64::from_str_radix(text, 16).ok()).flatten()
    }

    pub(super) fn serialize<S: Serializer>(checksum: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{checksum:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is no checksum of 16 hex digits")))
    }
}

mod codec_json {
    use larder_blockstore::codec::CodecId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Json {
        id: u16,
        version: u16,
    }

    pub(super) fn serialize<S: Serializer>(codec: &CodecId, serializer: S) -> Result<S::Ok, S::Error> {
        Json { id: codec.id, version: codec.version }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CodecId, D::Error> {
        Json::deserialize(deserializer).map(|json| CodecId { id: json.id, version: json.version })
    }
}

mod compression_json {
    use larder_blockstore::format::Compression;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(compression: &Compression, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(compression)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Compression, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let attempt = AttemptId::new();
        let part = |partition| Part {
            path: layout::part(attempt, partition, 2),
            bytes: 164,
            records: u64::from(partition) + 1,
            checksum: u64::MAX - 1,
            header_checksum: 7,
        };
        Manifest {
            dataset: "ranks".to_owned(),
            generation: 3,
            parent: Some(2),
            attempt,
            created_unix_ms: 1_795_000_000_000,
            record_type: "(String, f64) \"quoted\n}".to_owned(),
            schema: Some(RecordSchema {
                rust_type: "(alloc::string::String, f64)".to_owned(),
                description: "(text, f64)".to_owned(),
                fingerprint: u64::MAX - 2,
                layout: 3,
            }),
            codec: CodecId::BINCODE,
            compression: Compression::Lz4,
            partitioner: Some(Partitioner { kind: "hash".to_owned(), partitions: 2 }),
            parts: vec![part(0), part(1)],
        }
    }

    #[test]
    fn it_round_trips_and_is_plain_json() {
        let bare = Manifest { parts: Vec::new(), partitioner: None, schema: None, ..manifest() };
        for manifest in [manifest(), bare] {
            let bytes = manifest.encode().unwrap();
            assert_eq!(Manifest::decode(&bytes, "ranks", 3).unwrap(), manifest);
            let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(json["format"], "larder-checkpoint");
            assert_eq!(json["checksum"].as_str().unwrap().len(), 16);
        }
        assert_eq!((manifest().records(), manifest().bytes()), (3, 328));
    }

    /// As it was written before there were schemas.
    const WITHOUT_SCHEMA: &str = include_str!("manifest/without_schema.json");

    #[test]
    fn a_manifest_of_before_there_were_schemas_is_read() {
        let manifest = Manifest::decode(WITHOUT_SCHEMA.as_bytes(), "ranks", 2).unwrap();
        assert_eq!((manifest.schema.as_ref(), manifest.parts.len()), (None, 2));
        assert_eq!(manifest.encode().unwrap(), WITHOUT_SCHEMA.as_bytes());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = manifest().encode().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&damaged, "ranks", 3).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len], "ranks", 3).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_manifest_in_the_wrong_place_or_of_a_later_version_says_so() {
        let bytes = manifest().encode().unwrap();
        let error = Manifest::decode(&bytes, "ranks", 4).unwrap_err().to_string();
        assert_eq!(error, "its generation is 3, where 4 belongs");
        let error = Manifest::decode(&bytes, "links", 3).unwrap_err().to_string();
        assert_eq!(error, "its dataset is ranks, where links belongs");

        let mut stray = manifest();
        stray.parts[1].path = "../../etc/passwd".to_owned();
        let error = Manifest::decode(&stray.encode().unwrap(), "ranks", 3).unwrap_err().to_string();
        assert!(error.starts_with("its part is ../../etc/passwd"), "{error}");

        let later = String::from_utf8(bytes).unwrap().replace("\"version\": 1", "\"version\": 2");
        let end = later.len() - CHECKSUM_TAIL.len() - CHECKSUM_DIGITS;
        let later =
            format!("{}{:016x}{CHECKSUM_TAIL}", &later[..end], XxHash3_64::oneshot(&later.as_bytes()[..end]));
        let error = Manifest::decode(later.as_bytes(), "ranks", 3).unwrap_err().to_string();
        assert_eq!(error, "manifest version 2; this version reads up to 1");
    }
}
