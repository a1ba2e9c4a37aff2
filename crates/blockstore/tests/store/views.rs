//! Records that are looked at and not made.

use larder_blockstore::codec::{Bincode, ChunkBuffer, ChunkReader, Codec, CodecError, CodecId};
use larder_blockstore::format::Compression;
use larder_blockstore::{Block, Error, HeapSize, Mark, StorageLevel, Viewed};
use serde::{Deserialize, Serialize};

use crate::corruption::flip;
use crate::support::{World, all_levels, finish, keep, put, vacant};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Named { name: String, rank: Option<u16> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sale {
    id: i64,
    products: (String, u8),
    kind: Kind,
    tag: char,
    note: Option<String>,
}

impl HeapSize for Sale {
    fn heap_bytes(&self) -> usize {
        self.products.0.heap_bytes() + self.note.heap_bytes()
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
enum KindView<'a> {
    Plain,
    Named { name: &'a str, rank: Option<u16> },
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct SaleView<'a> {
    id: i64,
    #[serde(borrow)]
    products: (&'a str, u8),
    #[serde(borrow)]
    kind: KindView<'a>,
    tag: char,
    note: Option<&'a str>,
}

impl Viewed for Sale {
    type View<'a> = SaleView<'a>;

    fn view(&self) -> SaleView<'_> {
        let kind = match &self.kind {
            Kind::Plain => KindView::Plain,
            Kind::Named { name, rank } => KindView::Named { name, rank: *rank },
        };
        SaleView { id: self.id, products: self.products.view(), kind, tag: self.tag, note: self.note.view() }
    }
}

fn sale(id: i64) -> Sale {
    let kind = match id % 3 {
        0 => Kind::Plain,
        1 => Kind::Named { name: format!("kind {id}"), rank: None },
        _ => Kind::Named { name: String::new(), rank: Some(7) },
    };
    let note = (id % 2 == 0).then(|| "äöü".repeat((id % 5) as usize));
    Sale { id, products: (format!("product {id}"), 3), kind, tag: 'ß', note }
}

const SALES: i64 = 2_500;

fn sales() -> Vec<Sale> {
    (0..SALES).map(sale).collect()
}

/// The views are those of the records, in order.
fn check(block: &Block<Sale>) {
    let next = block.fold_views(0, |id, view| {
        assert_eq!(view, sale(id).view());
        id + 1
    });
    assert_eq!(next.unwrap(), SALES);
    let mut batches = block.clone().into_batches();
    let mut ids = Vec::new();
    while batches.visit_views(7, |view| ids.push(view.id)).unwrap() > 0 {
        // Views and records by turns.
        let Some(batch) = batches.next_owned(3).unwrap() else { break };
        ids.extend(batch.iter().map(|sale| sale.id));
    }
    assert_eq!(ids, (0..SALES).collect::<Vec<_>>());
    assert_eq!(batches.visit_views(7, |_| ()).unwrap(), 0);
}

#[test]
fn views_are_those_of_the_records_at_every_level() {
    for level in all_levels() {
        for compression in [Compression::None, Compression::Lz4] {
            let world = World::with(4 << 20, |builder| builder.chunk_bytes(16 << 10));
            let dataset = world.store.dataset::<Sale>("sales").level(level).compression(compression);
            let dataset = dataset.build().unwrap();
            drop(put(&dataset, 0, sales()).unwrap());
            check(&dataset.get(0).unwrap().unwrap());
            if level.uses_disk() && level.uses_memory() {
                dataset.evict(0).unwrap();
                check(&dataset.get(0).unwrap().unwrap());
            }
        }
    }
}

#[test]
fn texts_are_borrowed_from_the_stored_bytes() {
    for level in [StorageLevel::MEMORY_ONLY_SER, StorageLevel::OFF_HEAP, StorageLevel::DISK_ONLY] {
        let world = World::new(1 << 20);
        let dataset = world.store.dataset::<(u32, String)>("texts").level(level).build().unwrap();
        let block = put(&dataset, 0, (0..100).map(|n| (n, n.to_string()))).unwrap();
        let stored = block.serialized().unwrap().chunks()[0].stored().unwrap();
        let views = block.fold_views(0, |seen, (n, text)| {
            assert_eq!(n.to_string(), text);
            assert!(stored.as_ptr_range().contains(&text.as_ptr()), "{level}");
            seen + 1
        });
        assert_eq!(views.unwrap(), 100);
    }
}

#[test]
fn a_range_is_looked_at_from_its_mark_on() {
    let world = World::with(1 << 20, |builder| builder.chunk_bytes(4 << 10));
    let dataset = world.store.dataset::<Sale>("sales").level(StorageLevel::MEMORY_ONLY_SER).build().unwrap();
    let mut writer = vacant(&dataset, 0);
    let mut marks = Vec::new();
    for sale in sales() {
        if sale.id % 331 == 0 {
            marks.push(writer.mark().unwrap());
        }
        keep(&mut writer, sale);
    }
    drop(finish(writer));
    for mark in marks.into_iter().chain([Mark::START]) {
        let mut batches = dataset.get_range(0, mark, 400).unwrap().unwrap();
        let mut ids = Vec::new();
        while batches.visit_views(90, |view| ids.push(view.id)).unwrap() > 0 {}
        let from = mark.record() as i64;
        assert_eq!(ids, (from..SALES.min(from + 400)).collect::<Vec<_>>());
    }
}

/// Writes the text backwards.
struct Backwards;

impl Codec<String> for Backwards {
    fn id(&self) -> CodecId {
        CodecId { id: 300, version: 1 }
    }

    fn encode(&self, text: &String, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        Bincode.encode(&text.chars().rev().collect::<String>(), out)
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<String, CodecError> {
        let text: String = Bincode.decode(input)?;
        Ok(text.chars().rev().collect())
    }
}

#[test]
fn what_another_codec_has_written_is_decoded_by_it() {
    let world = World::new(1 << 20);
    let dataset = world.store.dataset_with("texts", Backwards, |_: &String| 0);
    let dataset = dataset.level(StorageLevel::MEMORY_ONLY_SER).build().unwrap();
    let block = put(&dataset, 0, vec!["abc".to_owned(), "de".to_owned()]).unwrap();
    let all = block.fold_views(String::new(), |all, text| all + text).unwrap();
    assert_eq!(all, "abcde");
}

/// A view that has not the record's fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Long(u8);

impl HeapSize for Long {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Viewed for Long {
    type View<'a> = u64;

    fn view(&self) -> u64 {
        self.0.into()
    }
}

#[test]
fn a_view_that_reads_on_fails_at_the_end_of_the_chunk() {
    let world = World::new(1 << 20);
    let dataset = world.store.dataset::<Long>("long").level(StorageLevel::MEMORY_ONLY_SER).build().unwrap();
    let block = put(&dataset, 0, vec![Long(1); 20]).unwrap();
    let error = block.fold_views(0, |seen, _| seen + 1).unwrap_err();
    let Error::Decode { source: CodecError::Decode { codec: CodecId::BINCODE, offset: 16, .. }, .. } = error
    else {
        panic!("{error:?}")
    };
}

#[test]
fn a_damaged_chunk_is_not_looked_at() {
    let world = World::with(1 << 20, |builder| builder.chunk_bytes(4 << 10));
    let dataset = world.store.dataset::<Sale>("sales").level(StorageLevel::DISK_ONLY).build().unwrap();
    // A handle from the writer compares chunks as it reads them.
    let block = put(&dataset, 0, sales()).unwrap();
    assert!(flip(world.scratch.path(), b"product 1000", 3));
    let mut seen = 0;
    let error = block.fold_views((), |(), view| seen = view.id).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!((1..1_000).contains(&seen), "{seen}");
    assert!(!dataset.contains(0));
}
