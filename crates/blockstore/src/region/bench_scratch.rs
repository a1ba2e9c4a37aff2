use super::extents::ExtentAllocator;
use super::test_support::Random;
use super::*;
use std::time::Instant;
const CH: usize = 4 << 20;
fn gbs(bytes: usize, t: std::time::Duration) -> f64 {
    bytes as f64 / 1e9 / t.as_secs_f64()
}
#[test]
fn bench() {
    let src = Random::new(1).bytes(CH);
    let mut dst = vec![1u8; CH];
    for _ in 0..2 {
        let n = 500;
        let t = Instant::now();
        for _ in 0..n {
            dst.copy_from_slice(std::hint::black_box(&src));
            std::hint::black_box(&dst);
        }
        let base = t.elapsed();
        let arena = Arena::new(256 << 20).unwrap();
        let _keep = arena.allocate(100).unwrap();
        let t = Instant::now();
        for _ in 0..n {
            let mut e = arena.allocate(CH).unwrap();
            e.copy_from_slice(std::hint::black_box(&src));
            drop(std::hint::black_box(e.freeze(CH - 1000, ())));
        }
        let a = t.elapsed();
        println!(
            "memcpy {:.2} GB/s {:?}/op; arena {:.2} GB/s {:?}/op",
            gbs(n * CH, base),
            base / n as u32,
            gbs(n * CH, a),
            a / n as u32
        );
        // without memcpy, touched
        let t = Instant::now();
        for _ in 0..n {
            let mut e = arena.allocate(CH).unwrap();
            e[0] = 1;
            drop(std::hint::black_box(e.freeze(CH - 1000, ())));
        }
        println!("arena alloc+touch 1 byte+free {:?}/op", t.elapsed() / n as u32);
        let t = Instant::now();
        for _ in 0..n * 10 {
            drop(std::hint::black_box(arena.allocate(4096).unwrap().freeze(4000, ())));
        }
        println!("arena 4 KiB untouched {:?}/op", t.elapsed() / (10 * n) as u32);
        // steady state: 40 live, replace
        let mut live: Vec<_> = (0..40)
            .map(|_| {
                let mut e = arena.allocate(CH).unwrap();
                e.copy_from_slice(&src);
                e.freeze(CH - 1000, ())
            })
            .collect();
        let mut r = Random::new(4);
        let t = Instant::now();
        for _ in 0..n {
            let i = r.index(live.len());
            live.swap_remove(i);
            let mut e = arena.allocate(CH).unwrap();
            e.copy_from_slice(&src);
            live.push(e.freeze(CH - 1000 - r.index(1 << 20), ()));
        }
        let a = t.elapsed();
        println!(
            "arena steady {:.2} GB/s {:?}/op; used {} resident max {}",
            gbs(n * CH, a),
            a / n as u32,
            arena.used_bytes(),
            arena.resident_bytes_max()
        );
    }
    // allocator
    let mut al = ExtentAllocator::new(1 << 40, 2 << 20);
    let mut r = Random::new(5);
    let mut live: Vec<_> = (0..200_000).map(|_| al.allocate(64 + r.below(1 << 20)).unwrap()).collect();
    for _ in 0..100_000 {
        let i = r.index(live.len());
        al.free(live.swap_remove(i));
    }
    let n = 1_000_000;
    let t = Instant::now();
    for _ in 0..n {
        let i = r.index(live.len());
        al.free(live.swap_remove(i));
        live.push(al.allocate(64 + r.below(1 << 20)).unwrap());
    }
    println!("allocator: {} live, free+allocate {:?}", live.len(), t.elapsed() / n);
}
#[test]
fn bench_disk() {
    use std::os::unix::fs::FileExt;
    let src = Random::new(1).bytes(CH);
    let home = tempfile::tempdir_in("/tmp").unwrap();
    for round in 0..3 {
        let sync = || {
            let t = Instant::now();
            rustix::fs::sync();
            t.elapsed()
        };
        sync();
        let f = tempfile::tempfile_in(home.path()).unwrap();
        f.set_len(1 << 30).unwrap();
        let t = Instant::now();
        for i in 0..256 {
            f.write_all_at(&src, i * CH as u64).unwrap();
        }
        let bare = t.elapsed();
        let t = Instant::now();
        drop(f);
        let bare_drop = t.elapsed();
        sync();
        let f = tempfile::tempfile_in(home.path()).unwrap();
        f.set_len(1 << 30).unwrap();
        let t = Instant::now();
        for i in 0..256 {
            rustix::fs::fallocate(&f, rustix::fs::FallocateFlags::KEEP_SIZE, i * CH as u64, CH as u64)
                .unwrap();
            f.write_all_at(&src, i * CH as u64).unwrap();
        }
        let fal = t.elapsed();
        drop(f);
        sync();
        let store = DiskStore::open(DiskOptions {
            directories: vec![home.path().into()],
            limit_bytes: None,
            segment_bytes: 1 << 30,
        })
        .unwrap();
        let t = Instant::now();
        let stored: Vec<_> = (0..256).map(|_| store.write(&src).unwrap()).collect();
        let st = t.elapsed();
        let mut sum = 0u64;
        let t = Instant::now();
        for b in &stored {
            if round != 1 {
                store.prefetch(b).unwrap();
            }
            sum = sum.wrapping_add(xxhash_rust::xxh3::xxh3_64(b));
            if round != 1 {
                store.release(b);
            }
        }
        let rd = t.elapsed();
        let t = Instant::now();
        for b in &stored {
            sum = sum.wrapping_add(xxhash_rust::xxh3::xxh3_64(b));
        }
        let rd2 = t.elapsed();
        let t = Instant::now();
        for b in &stored {
            store.prefetch(b).unwrap();
        }
        let pf = t.elapsed() / 256;
        let t = Instant::now();
        drop(stored);
        let dr = t.elapsed();
        println!(
            "pwrite {:?} ({:.2} GB/s, drop {bare_drop:?}); +fallocate {:?}; store {:?} ({:.2} GB/s); read+xxh3 {rd:?} (prefetch {}), then plain {rd2:?}; resident prefetch {pf:?}; drop 256 {dr:?} {sum}",
            bare,
            gbs(1 << 30, bare),
            fal,
            st,
            gbs(1 << 30, st),
            round != 1
        );
    }
}
