//! Backups of a small store: what they copy, what verification names, what comes back and what does not.

use std::fs;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use tempfile::TempDir;

use super::*;
use crate::{Batch, ESCROW_TTL_S, KeyError, KeySource, Store, recover, recovery_init};

struct World(TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn source(&self) -> KeySource {
        KeySource::beside(&self.path("state"))
    }

    fn open(&self) -> Store {
        Store::open(&self.path("state"), &self.source()).expect("opens")
    }

    fn repository(&self) -> Repository {
        Repository::open(&self.path("backups")).expect("opens")
    }

    fn restore(&self, id: Option<&str>) -> Result<Restored, StoreError> {
        self.repository().restore(id, &self.path("state"), &self.source())
    }

    /// The disk is lost, but for the keys.
    fn lose_data(&self) {
        fs::remove_dir_all(self.path("state/records")).expect("removed");
        fs::remove_dir_all(self.path("state/blobs")).expect("removed");
    }
}

fn name_of(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn write(store: &Store, round: u64) {
    let bytes = format!("model {round}").repeat(1000).into_bytes();
    store.put_blob(&name_of(&bytes), &bytes).expect("stored");
    let device = store.compartment("pump-4").expect("a compartment");
    let mut batch = Batch::new();
    batch.put("runs", "1", &round).expect("a record");
    batch.put_in(&device, "staged", "last", &round).expect("a record");
    store.commit(batch).expect("committed");
}

fn round(store: &Store) -> u64 {
    store.get("runs", "1").expect("read").expect("there")
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(all_files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_backup_copies_what_is_new_and_keeps_as_many_as_it_is_told() {
    let world = World::new();
    let store = world.open();
    let repository = world.repository();
    for time in 1..=4 {
        write(&store, time);
        let created = repository.create(&store, time, 2).expect("made");
        assert_eq!(created.manifest.blobs.len() as u64, time);
        assert_eq!(created.files_copied, 2, "the records and the new blob");
    }
    assert_eq!(repository.list().expect("listed").len(), 2);
    assert_eq!(list_objects(&world).len(), 2 + 4, "two of records, four blobs that the newest names");
    let whole = repository.verify(Some((&world.path("state"), &world.source()))).expect("verified");
    assert!(whole.iter().all(|one| one.restored && one.faults.is_empty()), "{whole:?}");
    assert!(matches!(Repository::open(&world.path("backups")), Err(StoreError::Backup(BackupError::InUse(_)))));
}

fn list_objects(world: &World) -> Vec<String> {
    blobs::list(&world.path("backups/objects")).expect("listed")
}

#[test]
fn verify_names_the_file_of_any_flipped_byte() {
    let world = World::new();
    let store = world.open();
    write(&store, 1);
    world.repository().create(&store, 1, 3).expect("made");
    let files = all_files(&world.path("backups"));
    for file in files.iter().filter(|file| !file.ends_with("lock")) {
        let whole = fs::read(file).expect("read");
        for at in (0..whole.len()).step_by((whole.len() / 40).max(1)).chain([whole.len() - 1]) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            fs::write(file, bytes).expect("damaged");
            let verified = world.repository().verify(None).expect("verified");
            assert_eq!(verified[0].faults.len(), 1, "byte {at}");
            assert_eq!(&verified[0].faults[0].file, file);
        }
        fs::write(file, whole).expect("mended");
    }
    assert!(world.repository().verify(None).expect("verified")[0].faults.is_empty());
}

#[test]
fn a_restored_store_goes_on_in_a_new_era_and_a_rotten_backup_gives_way_to_the_older_one() {
    let world = World::new();
    let store = world.open();
    write(&store, 1);
    world.repository().create(&store, 1, 3).expect("made");
    write(&store, 2);
    let newest = world.repository().create(&store, 2, 3).expect("made").manifest;
    let epochs: Vec<u64> = (0..3).map(|_| store.next_epoch().expect("an epoch")).collect();
    drop(store);
    assert!(matches!(world.restore(None), Err(StoreError::Backup(BackupError::Occupied(_)))));
    world.lose_data();

    let object = world.path("backups/objects").join(&newest.records.digest);
    let whole = fs::read(&object).expect("read");
    fs::write(&object, &whole[1..]).expect("damaged");
    let refused = world.restore(Some(&newest.id)).expect_err("rotten");
    assert!(matches!(&refused, StoreError::Backup(BackupError::Rotten { fault, .. }) if fault.file == object));
    let restored = world.restore(None).expect("the older one");
    assert_eq!(restored.skipped.len(), 1);
    assert_eq!(restored.skipped[0].1[0].file, object);

    let store = world.open();
    assert_eq!(round(&store), 1);
    assert_eq!(store.era().expect("read"), 1);
    assert!(store.next_epoch().expect("an epoch") > epochs[2] + 1000, "no epoch of the lost time comes again");
    store.verify().expect("whole");
}

#[test]
fn a_device_that_was_forgotten_does_not_come_back_with_an_earlier_backup() {
    let world = World::new();
    let store = world.open();
    write(&store, 1);
    world.repository().create(&store, 1, 3).expect("made");
    store.forget("pump-4").expect("forgotten");
    drop(store);
    world.lose_data();
    assert_eq!(world.restore(None).expect("restored").forgotten, 1);
    let store = world.open();
    store.verify().expect("whole");
    assert_eq!(round(&store), 1);
    assert!(store.compartment_ids().expect("listed").is_empty());
}

#[test]
fn everything_comes_back_with_the_recovery_key_and_nothing_without_it() {
    let world = World::new();
    let store = world.open();
    write(&store, 1);
    world.repository().create(&store, 1, 3).expect("made");
    let (secret, public) = recovery_init(&world.path("recovery")).expect("made");
    let (other, _) = recovery_init(&world.path("other")).expect("made");
    store.compartment("gone").expect("a device");
    let key_files = [("audit.key", &b"a key of the daemon's own"[..]), ("audit.pub", b"its public half")];
    for (name, content) in key_files.into_iter().chain([("status.json", &b"no key"[..])]) {
        fs::write(world.path("state").join(name), content).expect("written");
    }
    let copy = store.escrow(&public, &world.path("escrow"), 100, ESCROW_TTL_S).expect("escrowed");
    assert_eq!(store.erasure_final_unix_s(200).expect("read"), Some(100 + ESCROW_TTL_S));
    assert_eq!(store.erasure_final_unix_s(100 + ESCROW_TTL_S).expect("read"), None);
    store.forget("gone").expect("forgotten");
    drop(store);
    fs::remove_dir_all(world.path("state")).expect("rm -rf");
    fs::remove_file(world.path("state.key")).expect("rm");

    let refused = world.restore(None).expect_err("there are no keys");
    assert!(matches!(refused, StoreError::Backup(BackupError::NoKeys(_))), "{refused}");
    let recovered = |key: &Path, now| recover(&world.path("escrow"), key, &world.path("state"), &world.source(), now);
    assert!(matches!(recovered(&other, 200), Err(StoreError::Key(KeyError::NoEscrow(_)))));
    assert!(matches!(recovered(&secret, 101 + ESCROW_TTL_S), Err(StoreError::Key(KeyError::Expired { .. }))));
    recovered(&secret, 200).expect("the keys are back");
    for (name, content) in key_files {
        assert_eq!(fs::read(world.path("state").join(name)).expect("it is back"), content, "{name}");
    }
    assert!(!world.path("state").join("status.json").exists());
    world.restore(None).expect("the data are back");
    let store = world.open();
    assert_eq!(round(&store), 1);
    assert_eq!(store.compartment("pump-4").expect("there").get::<u64>("staged", "last").expect("read"), Some(1));

    // The next copy is made without those whose time is over.
    let next = store.escrow(&public, &world.path("escrow"), 200 + ESCROW_TTL_S, ESCROW_TTL_S).expect("escrowed");
    assert!(!copy.exists() && next.exists());
}
