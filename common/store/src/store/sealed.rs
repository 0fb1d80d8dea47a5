//! What sealing promises: nothing in the clear, nothing changed or older unnoticed, nothing left of a forgotten device.

use std::fs;

use ring::digest::{SHA256, digest};
use tempfile::TempDir;

use super::*;
use crate::{KeyError, rotate};

const PLAINTEXT: &str = "the pressure of pump four on a Tuesday";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open(&self.state(), &KeySource::beside(&self.state()))
    }

    /// A store with a record and a blob of its own, and the same of a device.
    fn filled(&self) -> Store {
        let store = self.open().expect("opens");
        let mut batch = Batch::new();
        batch.put("secret-table", "secret-key", PLAINTEXT).expect("a record");
        let device = store.compartment("pump-4").expect("a compartment");
        batch.put_in(&device, "staged", "1", PLAINTEXT).expect("a record");
        store.commit(batch).expect("committed");
        let blob = blob();
        store.put_blob(&name_of(&blob), &blob).expect("stored");
        device.put_blob(&name_of(&blob), &blob).expect("stored");
        store
    }
}

/// More than two chunks of the known text.
fn blob() -> Vec<u8> {
    PLAINTEXT.as_bytes().iter().copied().cycle().take(150_000).collect()
}

fn name_of(bytes: &[u8]) -> String {
    crate::keys::secret::hex(digest(&SHA256, bytes).as_ref())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

fn read_all(store: &Store) -> Result<(), StoreError> {
    assert_eq!(store.get::<String>("secret-table", "secret-key")?.as_deref(), Some(PLAINTEXT));
    let device = store.compartment("pump-4")?;
    assert_eq!(device.get::<String>("staged", "1")?.as_deref(), Some(PLAINTEXT));
    for found in [store.get_blob(&name_of(&blob()))?, device.get_blob(&name_of(&blob()))?] {
        assert_eq!(found, Some(blob()));
    }
    store.verify()
}

#[test]
fn nothing_of_a_plaintext_a_name_or_a_digest_is_found_in_the_folder() {
    let folder = Folder::new();
    drop(folder.filled());
    let digest = name_of(&blob());
    let mut seen = 0;
    for file in files(&folder.state()) {
        let bytes = fs::read(&file).expect("read");
        seen += bytes.len();
        for text in [&PLAINTEXT[..12], "secret-table", "secret-key", "pump-4", &digest[..12]] {
            assert!(!holds(&bytes, text.as_bytes()), "{}: {text}", file.display());
            assert!(!file.to_string_lossy().contains(text), "{}", file.display());
        }
    }
    assert!(seen > 300_000, "the folder holds what was written");
    read_all(&folder.open().expect("opens")).expect("everything is read back");
}

#[test]
fn a_flipped_bit_of_a_blob_or_key_is_an_error_and_never_another_value() {
    let folder = Folder::new();
    drop(folder.filled());
    for part in ["blobs", "keys"] {
        for file in files(&folder.state().join(part)) {
            let whole = fs::read(&file).expect("read");
            let step = (whole.len() / 60).max(1);
            for at in (0..whole.len()).step_by(step).chain([whole.len() - 1]) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                fs::write(&file, bytes).expect("damaged");
                let opened = folder.open().and_then(|store| read_all(&store));
                let error = opened.expect_err("a flipped bit is noticed").to_string();
                assert!(
                    error.contains("blob")
                        || error.contains("keys")
                        || error.contains("sealed with another")
                        || error.contains("format"),
                    "{}, byte {at}: {error}",
                    file.display()
                );
            }
            fs::write(&file, whole).expect("mended");
        }
    }
    read_all(&folder.open().expect("opens")).expect("mended");
}

#[test]
fn a_changed_swapped_older_doubled_or_missing_record_is_noticed() {
    let folder = Folder::new();
    let store = folder.filled();
    let own = store.scope.tag;
    let name = store.names.record(&own, "secret-table", "secret-key");
    let other = store.names.record(&own, "secret-table", "other");
    drop(store);
    let tamper = |with: &dyn Fn(&sled::Db)| {
        let database = crate::records::open_database(&folder.state().join("records")).expect("sled opens");
        with(&database);
        database.flush().expect("flushed");
    };
    let get = |database: &sled::Db| database.get(name).expect("read").expect("there");
    let mut old = None;
    tamper(&|_| ());
    {
        let database = crate::records::open_database(&folder.state().join("records")).expect("sled opens");
        old.replace(get(&database));
    }
    let old = old.expect("read");
    let store = folder.open().expect("untouched");
    let mut batch = Batch::new();
    batch.put("secret-table", "secret-key", PLAINTEXT).expect("the same value again");
    store.commit(batch).expect("committed");
    drop(store);
    let mut new = None;
    {
        let database = crate::records::open_database(&folder.state().join("records")).expect("sled opens");
        new.replace(get(&database));
    }
    let new = new.expect("read");
    let put = |key: [u8; 48], value: &[u8]| {
        let value = value.to_vec();
        tamper(&|database| drop(database.insert(key, value.clone()).expect("written")));
    };

    put(name, &old);
    assert!(matches!(folder.open(), Err(StoreError::Stale(_))), "an older record");
    put(name, &new);
    folder.open().expect("mended");
    put(other, &new);
    assert!(matches!(folder.open(), Err(StoreError::Stale(_))), "a copy under another name");
    tamper(&|database| drop(database.remove(other).expect("removed")));
    folder.open().expect("mended");
    tamper(&|database| drop(database.remove(name).expect("removed")));
    assert!(matches!(folder.open(), Err(StoreError::Stale(_))), "a missing record");
    put(name, &new);
    tamper(&|database| database.clear().expect("cleared"));
    assert!(matches!(folder.open(), Err(StoreError::Stale(_))), "no records at all");
}

#[test]
fn every_bit_of_a_sealed_record_counts() {
    let folder = Folder::new();
    let store = folder.filled();
    let name = store.names.record(&store.scope.tag, "t", "k");
    let sealed = crate::seal::record::seal(&store.scope, &name, 7, b"t\0k", b"value").expect("sealed");
    assert!(crate::seal::record::open(&store.scope, &name, &sealed).is_some());
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut bytes = sealed.clone();
            bytes[at] ^= 1 << bit;
            assert!(crate::seal::record::open(&store.scope, &name, &bytes).is_none(), "byte {at}, bit {bit}");
        }
        assert!(crate::seal::record::open(&store.scope, &name, &sealed[..at]).is_none(), "{at} bytes of it");
    }
}

#[test]
fn an_older_copy_of_the_whole_folder_shows_against_an_anchor_only() {
    let folder = Folder::new();
    let store = folder.filled();
    let seen = store.anchor();
    store.check_anchor(seen).expect("the same");
    let later = Anchor { commits: seen.commits + 1 };
    assert!(matches!(store.check_anchor(later), Err(StoreError::RolledBack { .. })));
}

#[test]
fn a_missing_wrong_or_lost_key_is_named_and_nothing_is_made_in_its_place() {
    let folder = Folder::new();
    drop(folder.filled());
    let key = folder.0.path().join("state.key");
    let text = fs::read(&key).expect("the key is beside the folder");
    fs::remove_file(&key).expect("lost");
    assert!(matches!(folder.open(), Err(StoreError::Key(KeyError::Missing { .. }))));
    assert!(!key.exists(), "no new key is made");
    KeySource::create(&key).expect("another key");
    assert!(matches!(folder.open(), Err(StoreError::Key(KeyError::Wrong { .. }))));
    fs::write(&key, text).expect("brought back");
    read_all(&folder.open().expect("opens")).expect("reads");
    fs::remove_dir_all(folder.state().join("keys")).expect("the ring is lost");
    assert!(matches!(folder.open(), Err(StoreError::Key(KeyError::NoRing(_)))));
    assert!(!folder.state().join("keys").exists());
}

#[test]
fn a_forgotten_device_is_unreadable_at_once_and_stays_so() {
    let folder = Folder::new();
    let store = folder.filled();
    store.compartment("pump-5").expect("a neighbour").put_blob(&name_of(b"5"), b"5").expect("stored");
    let device = store.compartment("pump-4").expect("known");
    let mut pending = Batch::new();
    pending.put_in(&device, "staged", "2", PLAINTEXT).expect("a record");
    let done = store.forget("pump-4").expect("forgotten");
    assert_eq!(done, Forgotten { key_destroyed: true, records: 1, blobs: 1 });
    assert!(matches!(device.get::<String>("staged", "1"), Err(StoreError::Forgotten(_))));
    assert!(matches!(device.put_blob(&name_of(b"x"), b"x"), Err(StoreError::Forgotten(_))));
    assert!(matches!(store.commit(pending), Err(StoreError::Forgotten(_))), "what was under way is refused too");
    assert_eq!(store.forget("pump-4").expect("again"), Forgotten { key_destroyed: false, records: 0, blobs: 0 });
    assert_eq!(store.compartment_ids().expect("listed"), ["pump-5"]);
    drop(store);
    let store = folder.open().expect("opens");
    assert_eq!(
        store.compartment("pump-5").expect("there").get_blob(&name_of(b"5")).expect("read").as_deref(),
        Some(&b"5"[..])
    );
    assert!(store.is_forgotten("pump-4") && !store.is_forgotten("pump-5"));
    assert!(matches!(store.compartment("pump-4"), Err(StoreError::Forgotten(_))), "it gets no key again");
    assert!(store.known_compartment("pump-4").expect("read").is_none());
    store.compartment("guest").expect("a key");
    store.discard("guest").expect("discarded");
    store.compartment("guest").expect("another key: it was not forgotten for good");
    store.verify().expect("whole");
}

#[test]
fn keys_are_rotated_without_writing_a_blob_anew_and_the_old_one_opens_nothing() {
    let folder = Folder::new();
    drop(folder.filled());
    let blobs = files(&folder.state().join("blobs"));
    let before: Vec<_> = blobs.iter().map(|path| fs::read(path).expect("read")).collect();
    let key = folder.0.path().join("state.key");
    let old = fs::read(&key).expect("read");
    let source = KeySource::beside(&folder.state());
    let rotated = rotate(&folder.state(), &source, None).expect("rotated");
    assert_eq!((rotated.generation, rotated.devices), (2, 1));
    assert_ne!(fs::read(&key).expect("read"), old);
    let after: Vec<_> = blobs.iter().map(|path| fs::read(path).expect("read")).collect();
    assert!(before == after);
    let store = folder.open().expect("opens");
    read_all(&store).expect("reads");
    let mut batch = Batch::new();
    batch.put("t", "new", &1_u8).expect("a record");
    store.commit(batch).expect("sealed with the new data key");
    drop(store);
    read_all(&folder.open().expect("opens")).expect("reads");

    let elsewhere = folder.0.path().join("old.key");
    crate::keys::file::create(&elsewhere, &old).expect("kept by somebody");
    let opened = Store::open(&folder.state(), &KeySource::File(elsewhere.clone()));
    assert!(matches!(opened, Err(StoreError::Key(KeyError::Wrong { .. }))));

    let phrase = folder.0.path().join("passphrase");
    crate::keys::file::create(&phrase, b"a horse, a staple, a battery\n").expect("written");
    let phrase = KeySource::PassphraseFile(phrase);
    rotate(&folder.state(), &phrase, Some(&source)).expect("to a passphrase");
    assert!(matches!(folder.open(), Err(StoreError::Key(KeyError::Wrong { .. }))));
    read_all(&Store::open(&folder.state(), &phrase).expect("opens")).expect("reads");
}

#[test]
fn inv5_a_rotation_that_a_crash_ended_is_finished_by_the_next_start() {
    let folder = Folder::new();
    drop(folder.filled());
    let (state, key) = (folder.state(), folder.0.path().join("state.key"));
    let source = KeySource::beside(&state);
    // The crash comes after the ring was sealed with the new key and before that has its name.
    let (mut ring, _) = keys::ring::open(&state, &source, false).expect("the ring");
    ring.add_wrap(&keys::ring::path_in(&state)).expect("a key");
    let new = keys::ring::waiting(&key);
    let master = KeySource::create(&new).map(keys::source::Found::Key).expect("a key");
    ring.save(&keys::ring::path_in(&state), &keys::ring::Master::of(&master).expect("a key")).expect("saved");
    let store = folder.open().expect("goes on");
    read_all(&store).expect("reads");
    assert_eq!(store.ring.wraps.len(), 1, "the old wrapping key is gone");
    assert!(!new.exists() && key.exists());
}
