//! What sealing costs: a blob of 6.6 MB (1.66 M parameters in f32) and a record of 1 KB, beside the same bytes written and synced without
//! it. `cargo bench -p starling-store`.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;

use criterion::{Criterion, Throughput};
use ring::digest::{SHA256, digest};
use starling_store::{Batch, KeySource, Store};

/// 1.66 M parameters in f32.
const BLOB_BYTES: usize = 6_640_000;
const RECORD_BYTES: usize = 1_000;

fn blob(seed: u8) -> (String, Vec<u8>) {
    let bytes: Vec<u8> = (0..BLOB_BYTES).map(|index| u8::try_from(index % 251).expect("below 251") ^ seed).collect();
    let name = digest(&SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    (name, bytes)
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let store = Store::open(&state, &KeySource::beside(&state)).expect("a store");
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let (name, bytes) = blob(0);

    let mut group = criterion.benchmark_group("blob of 6.6 MB");
    group.throughput(Throughput::Bytes(BLOB_BYTES as u64));
    group.bench_function("plain: write, fsync, rename", |bencher| {
        bencher.iter(|| {
            let mut file = tempfile::NamedTempFile::new_in(folder.path()).expect("a file");
            file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).expect("written");
            file.persist(folder.path().join("plain")).expect("renamed");
            File::open(folder.path()).and_then(|folder| folder.sync_all()).expect("synced");
        });
    });
    group.bench_function("put (sealed, durable)", |bencher| {
        bencher.iter(|| {
            store.remove_blob(&name).expect("removed");
            store.put_blob(&name, &bytes).expect("stored");
        });
    });
    group.bench_function("get (opened, SHA-256 checked)", |bencher| {
        bencher.iter(|| black_box(store.get_blob(&name).expect("read")));
    });
    group.bench_function("SHA-256 alone", |bencher| bencher.iter(|| black_box(digest(&SHA256, &bytes))));
    group.finish();

    let mut group = criterion.benchmark_group("record of 1 KB");
    let text = "x".repeat(RECORD_BYTES);
    group.bench_function("commit (sealed, durable)", |bencher| {
        bencher.iter(|| {
            let mut batch = Batch::new();
            batch.put("t", "k", &text).expect("a record");
            store.commit(batch).expect("committed");
        });
    });
    group.bench_function("get", |bencher| bencher.iter(|| black_box(store.get::<String>("t", "k").expect("read"))));
    group.finish();
    criterion.final_summary();
}
