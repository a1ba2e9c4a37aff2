//! `larder checkpoint cat`.

use std::sync::Arc;

use larder_blockstore::codec::{Bincode, CodecId};
use larder_blockstore::format::Chunk;
use larder_checkpoint::{Checkpoint, Error, Manifest, PartReader};
use serde_json::json;

use crate::cli::Cat;
use crate::failure::{DAMAGED, Failure};
use crate::out::Out;

/// How much of a record that is not text is shown.
const HEX_BYTES_MAX: usize = 32;

pub(crate) fn run(options: &Cat, out: &mut Out) -> Result<(), Failure> {
    let checkpoint = options.selected.open()?;
    let partitions = match options.part {
        None => 0..checkpoint.partitions(),
        Some(part) if part < checkpoint.partitions() => part..part.saturating_add(1),
        Some(part) => {
            let (name, parts) = (&checkpoint.manifest().dataset, checkpoint.partitions());
            return Err(Failure::NotFound(format!(
                "{name} has {parts} parts, counted from 0: no part {part}"
            )));
        }
    };
    let print = match Form::of(checkpoint.manifest()) {
        Form::Text => print_text,
        Form::FixedSize => print_fixed_size,
        Form::Other => print_chunks,
    };
    let mut left = options.limit.unwrap_or(u64::MAX);
    for partition in partitions {
        if left == 0 || out.is_closed() {
            break;
        }
        let mut printer = Printer { out: &mut *out, json: options.json, partition, left: &mut left };
        print(&checkpoint, &mut printer)?;
    }
    Ok(())
}

/// What can be shown of records.
enum Form {
    Text,
    /// All records of a chunk take the same number of bytes.
    FixedSize,
    Other,
}

impl Form {
    fn of(manifest: &Manifest) -> Self {
        let is_string =
            matches!(&*manifest.record_type, "String" | "alloc::string::String" | "std::string::String");
        match manifest.codec {
            CodecId::BINCODE if is_string => Self::Text,
            CodecId::POD => Self::FixedSize,
            _ => Self::Other,
        }
    }
}

struct Printer<'a> {
    out: &'a mut Out,
    json: bool,
    partition: u32,
    /// How many records may still be printed.
    left: &'a mut u64,
}

impl Printer<'_> {
    fn is_done(&self) -> bool {
        *self.left == 0 || self.out.is_closed()
    }

    fn text(&mut self, record: u64, text: &str) -> Result<(), Failure> {
        *self.left = self.left.saturating_sub(1);
        if self.json {
            return self.out.json(&json!({"partition": self.partition, "record": record, "text": text}));
        }
        self.out.line(text)
    }

    /// Bytes of `records` records, from `first` on.
    fn bytes(&mut self, first: u64, records: u64, bytes: &[u8]) -> Result<(), Failure> {
        *self.left = self.left.saturating_sub(records);
        let (partition, begin) = (self.partition, hex(bytes));
        if self.json {
            let len = bytes.len();
            return self.out.json(&json!({
                "partition": partition, "record": first, "records": records, "bytes": len, "hex": begin,
            }));
        }
        let more = if bytes.len() > HEX_BYTES_MAX { " ..." } else { "" };
        let which = match records {
            1 => format!("record {first}"),
            _ => format!("records {first} to {}", first + records.saturating_sub(1)),
        };
        self.out.line(&format!("partition {partition} {which}, {} bytes: {begin}{more}", bytes.len()))
    }
}

fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().take(HEX_BYTES_MAX).map(|byte| format!("{byte:02x}")).collect();
    pairs.join(" ")
}

fn print_text(checkpoint: &Checkpoint, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let part = checkpoint.read_part(printer.partition)?;
    for (record, text) in (0..).zip(part.records::<String>(Arc::new(Bincode))?) {
        if printer.is_done() {
            break;
        }
        printer.text(record, &text?)?;
    }
    Ok(())
}

fn print_fixed_size(checkpoint: &Checkpoint, printer: &mut Printer<'_>) -> Result<(), Failure> {
    for_each_chunk(checkpoint, printer, |printer, first, chunk, raw| {
        let records = usize::try_from(chunk.records()).unwrap_or(usize::MAX);
        match raw.len().checked_div(records) {
            Some(len) if len > 0 && len * records == raw.len() => {
                for (record, bytes) in (first..).zip(raw.chunks_exact(len)) {
                    if printer.is_done() {
                        break;
                    }
                    printer.bytes(record, 1, bytes)?;
                }
                Ok(())
            }
            _ => printer.bytes(first, u64::from(chunk.records()), raw),
        }
    })
}

fn print_chunks(checkpoint: &Checkpoint, printer: &mut Printer<'_>) -> Result<(), Failure> {
    for_each_chunk(checkpoint, printer, |printer, first, chunk, raw| {
        printer.bytes(first, u64::from(chunk.records()), raw)
    })
}

/// The chunks of a partition, until nothing more may be printed: the number of its first record, itself, its bytes.
fn for_each_chunk(
    checkpoint: &Checkpoint,
    printer: &mut Printer<'_>,
    print: impl Fn(&mut Printer<'_>, u64, &Chunk, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let part: PartReader = checkpoint.read_part(printer.partition)?;
    let mut first = 0;
    for (index, chunk) in part.enumerate() {
        if printer.is_done() {
            break;
        }
        let chunk: Result<Chunk, Error> = chunk;
        let chunk = chunk?;
        let raw = chunk.raw().map_err(|e| Failure::Reported {
            summary: format!("part {} of {}, chunk {index}: {e}", printer.partition, checkpoint.address()),
            code: DAMAGED,
        })?;
        print(printer, first, &chunk, &raw)?;
        first += u64::from(chunk.records());
    }
    Ok(())
}
