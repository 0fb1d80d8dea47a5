//! The store as its users see it, and the durable writes that they do not.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ring::digest::{SHA256, digest};
use tempfile::TempDir;

use super::*;
use crate::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn key(folder: &TempDir) -> KeySource {
    KeySource::beside(&folder.path().join("state"))
}

/// The only file in a folder of blobs.
fn only_file(store: &Store) -> PathBuf {
    let mut files = list(&store.path().join("blobs")).expect("listed");
    assert_eq!(files.len(), 1);
    store.path().join("blobs").join(files.remove(0))
}

fn open(folder: &TempDir) -> Store {
    Store::open(&folder.path().join("state"), &key(folder)).expect("the store opens")
}

fn put<T: serde::Serialize + ?Sized>(store: &Store, table: &str, key: &str, value: &T) {
    let mut batch = Batch::new();
    batch.put(table, key, value).expect("a record");
    store.commit(batch).expect("committed");
}

fn name_of(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How many files sled has spilled.
fn spilled(store: &Store) -> usize {
    fs::read_dir(store.path().join("records/blobs")).expect("sled's spill folder").count()
}

#[test]
fn records_are_read_back_removed_and_listed_by_table() {
    let folder = folder();
    let store = open(&folder);
    put(&store, "runs", "2", &("two", 2_u64));
    put(&store, "runs", "1", &("one", 1_u64));
    put(&store, "runs-old", "3", &("three", 3_u64));
    assert_eq!(store.get("runs", "2").expect("read"), Some(("two".to_owned(), 2_u64)));
    assert_eq!(store.get::<(String, u64)>("runs", "3").expect("read"), None);
    let runs = store.scan::<(String, u64)>("runs").expect("scanned");
    assert_eq!(runs, [("1".to_owned(), ("one".to_owned(), 1)), ("2".to_owned(), ("two".to_owned(), 2))]);

    let mut batch = Batch::new();
    batch.remove("runs", "1");
    batch.remove("runs", "not there");
    assert_eq!(batch.len(), 2);
    store.commit(batch).expect("committed");
    assert_eq!(store.scan::<(String, u64)>("runs").expect("scanned").len(), 1);
}

#[test]
fn a_record_of_another_type_is_an_error_and_not_a_wrong_value() {
    let folder = folder();
    let store = open(&folder);
    put(&store, "runs", "1", &(1_u8, 2_u8));
    let error = store.get::<u8>("runs", "1").expect_err("one byte is left over");
    assert!(error.to_string().contains("table runs, key 1") && error.to_string().contains("left over"), "{error}");
    put(&store, "runs", "2", &1_u8);
    assert!(matches!(store.get::<String>("runs", "2"), Err(StoreError::Decode { .. })));
}

#[test]
fn values_over_4_kib_and_impossible_names_are_refused() {
    let folder = folder();
    let store = open(&folder);
    let mut batch = Batch::new();
    // The length takes three bytes of the encoding.
    batch.put("t", "fits", &"x".repeat(VALUE_BYTES_MAX - 3)).expect("4,096 bytes fit");
    let error = batch.put("t", "over", &"x".repeat(VALUE_BYTES_MAX - 2)).expect_err("4,097 bytes do not");
    assert!(matches!(error, StoreError::TooLarge { bytes: 4097, .. }), "{error}");
    assert!(matches!(
        batch.put("t", "vast", &vec![0_u64; 1 << 21]),
        Err(StoreError::Encode { .. } | StoreError::TooLarge { .. })
    ));
    assert!(matches!(batch.put("", "k", &1), Err(StoreError::Name { .. })));
    assert!(matches!(batch.put("a\0b", "k", &1), Err(StoreError::Name { .. })));
    assert!(matches!(batch.put("t", &"k".repeat(KEY_BYTES_MAX), &1), Err(StoreError::Name { .. })));
    store.commit(batch).expect("what was accepted is committed");
    assert_eq!(store.scan::<String>("t").expect("scanned").len(), 1);

    let mut batch = Batch::new();
    batch.put("t", "new", "value").expect("a record");
    batch.remove("", "k");
    assert!(matches!(store.commit(batch), Err(StoreError::Name { .. })));
    assert_eq!(store.get::<String>("t", "new").expect("read"), None, "nothing of a refused batch is applied");
}

#[test]
fn inv5_sled_spills_nothing_to_files_that_it_never_syncs() {
    let folder = folder();
    let store = open(&folder);
    let value = "x".repeat(VALUE_BYTES_MAX - 3);
    // The longest keys and values, in one batch, over each other, and with gaps so that leaves are merged as well.
    for pass in 0..4 {
        let mut batch = Batch::new();
        for index in 0..120 {
            batch.put("t", &format!("{index:0width$}", width = KEY_BYTES_MAX - 1), &value).expect("a record");
        }
        store.commit(batch).expect("committed");
        let mut batch = Batch::new();
        for index in (0..120).filter(|index| index % 7 != pass) {
            batch.remove("t", &format!("{index:0width$}", width = KEY_BYTES_MAX - 1));
        }
        store.commit(batch).expect("committed");
    }
    assert_eq!(spilled(&store), 0);
    drop(store);
    assert_eq!(spilled(&open(&folder)), 0);
}

#[test]
fn inv4_inv5_a_commit_flushes_and_syncs_the_log_and_its_folder() {
    let folder = folder();
    let store = open(&folder);
    let (flushes, files, folders) = store.syncs.counts();
    assert!(flushes >= 1 && files >= 2 && folders >= 3, "opening makes the new files and their names durable");
    for commit in 1..=3 {
        put(&store, "t", "k", &commit);
        assert_eq!(store.syncs.counts(), (flushes + commit, files + commit, folders + commit));
    }
    store.next_epoch().expect("an epoch");
    assert_eq!(store.syncs.counts(), (flushes + 4, files + 4, folders + 4));
}

#[test]
fn inv4_inv5_a_blob_is_synced_before_its_name_and_its_name_before_the_return() {
    let folder = folder();
    let store = open(&folder);
    let (flushes, files, folders) = store.syncs.counts();
    let name = name_of(b"model");
    store.put_blob(&name, b"model").expect("stored");
    assert_eq!(store.syncs.counts(), (flushes, files + 1, folders + 1));
    store.put_blob(&name, b"model").expect("again");
    assert_eq!(
        store.syncs.counts(),
        (flushes, files + 1, folders + 2),
        "the content is there, the name is synced again"
    );
    store.remove_blob(&name).expect("removed");
    assert_eq!(store.syncs.counts(), (flushes, files + 1, folders + 3));
}

#[test]
fn blobs_are_read_back_listed_and_removed() {
    let folder = folder();
    let store = open(&folder);
    let (first, second) = (name_of(b"first"), name_of(b""));
    store.put_blob(&first, b"first").expect("stored");
    store.put_blob(&second, b"").expect("an empty one as well");
    let mut names = vec![first.clone(), second.clone()];
    names.sort();
    assert_eq!(store.blobs().expect("listed"), names);
    assert_eq!(store.get_blob(&first).expect("read").as_deref(), Some(&b"first"[..]));
    store.remove_blob(&first).expect("removed");
    store.remove_blob(&first).expect("removing twice is no error");
    assert_eq!(store.get_blob(&first).expect("read"), None);
    for name in ["", "../../escape", &"A".repeat(64), &"0".repeat(63)] {
        assert!(matches!(store.put_blob(name, b"x"), Err(StoreError::BlobName(_))), "{name}");
        assert!(matches!(store.get_blob(name), Err(StoreError::BlobName(_))), "{name}");
    }
}

#[test]
fn a_damaged_blob_is_detected_and_repaired_by_storing_it_again() {
    let folder = folder();
    let store = open(&folder);
    let name = name_of(b"weights");
    store.put_blob(&name, b"weights").expect("stored");
    let file = only_file(&store);
    let whole = fs::read(&file).expect("read");
    for damaged in [&whole[..whole.len() - 1], &whole[..60], b"weights", b""] {
        fs::write(&file, damaged).expect("damaged");
        let error = store.get_blob(&name).expect_err("the digest is checked");
        assert!(matches!(&error, StoreError::Corrupt { digest, .. } if *digest == name), "{error}");
    }
    store.put_blob(&name, b"weights").expect("stored again");
    assert_eq!(store.get_blob(&name).expect("read").as_deref(), Some(&b"weights"[..]));
}

#[test]
fn inv5_unfinished_blobs_are_removed_at_open() {
    let folder = folder();
    let store = open(&folder);
    let name = name_of(b"whole");
    store.put_blob(&name, b"whole").expect("stored");
    let unfinished = store.path().join("blobs/.tmp-a1b2c3");
    drop(store);
    fs::write(&unfinished, b"hal").expect("what a crash in a write leaves");
    let store = open(&folder);
    assert!(!unfinished.exists());
    assert_eq!(store.blobs().expect("listed"), [name]);
}

#[test]
fn a_second_opener_is_told_so_and_the_folder_is_private() {
    let folder = folder();
    let store = open(&folder);
    let error = Store::open(store.path(), &KeySource::beside(store.path())).err().expect("in use");
    assert!(matches!(error, StoreError::InUse(_)));
    assert!(error.to_string().contains("in use by another process"), "{error}");
    let mode = fs::metadata(store.path()).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn inv5_everything_is_there_after_reopening() {
    let folder = folder();
    let name = name_of(b"model");
    for round in 1..=20_u64 {
        let store = open(&folder);
        assert_eq!(store.next_epoch().expect("an epoch"), round, "epochs increase over restarts");
        assert_eq!(store.get::<u64>("t", "round").expect("read").unwrap_or(0), round - 1);
        put(&store, "t", "round", &round);
        store.put_blob(&name, b"model").expect("stored");
    }
    assert_eq!(open(&folder).blobs().expect("listed"), [name]);
}

#[test]
fn epochs_are_distinct_over_threads() {
    let folder = folder();
    let store = open(&folder);
    let mut epochs: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..5).map(|_| store.next_epoch().expect("an epoch")).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=20).collect::<Vec<_>>());
}
