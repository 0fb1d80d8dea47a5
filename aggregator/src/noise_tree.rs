//! What a run with tree aggregation brings back after a restart: the key that its noise follows from, and who has had a turn in which round.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `trees` | run | [`Record`]; gone when the run is over |
//! | `turns` | run/device | count and last round of a [`Turn`] |
//!
//! A node's noise is in every version from the round that completes it to the one that a node above takes its place in, so it has to come
//! again, bit for bit. It follows from a key and the node's place in the tree. With that key and all versions the noise could be taken off:
//! it is sealed like everything in the state folder, in its backups too, and destroyed when the run is over.
//!
//! *After a restore* rounds may be made again with other updates. The same noise under them would cancel out between the two versions, so a
//! run does not go on in a state that was restored since it began.

use std::collections::BTreeMap;

use ring::hmac;
use serde::{Deserialize, Serialize};
use starling_daemon::entropy;
use starling_protocol::run::{Turn, Turns};
use starling_secagg::Keystream;
use starling_spec::TaskPlan;
use starling_store::{Batch, Store, StoreError};
use starling_update::Node;
use starling_wire::{DeviceId, RunId};
use zeroize::Zeroizing;

const TREES: &str = "trees";
const TURNS: &str = "turns";

/// Words that are made at once.
const WORDS: usize = 64;

#[derive(Serialize, Deserialize)]
struct Record {
    key: [u8; 32],
    /// The store's era when the run began.
    era: u64,
}

/// Why a run does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    /// It could make a round twice.
    #[error(
        "the state was restored after this run began, and noise with a memory must not come again for other updates; start a new run, from \
         this one's weights (run export, run start --weights)"
    )]
    Restored,
    /// The state folder.
    #[error("the run's noise cannot be read or written")]
    Store(#[from] StoreError),
}

/// The noise of one run.
#[derive(Debug)]
pub(crate) struct NoiseTree {
    run: RunId,
    key: hmac::Key,
}

impl NoiseTree {
    /// That of `run`, where its plan asks for one; for a run that begins, its key is in `batch` and has to be durable before the first round.
    ///
    /// # Errors
    /// [`TreeError`].
    pub(crate) fn open(
        store: &Store,
        batch: &mut Batch,
        run: RunId,
        plan: &TaskPlan,
    ) -> Result<Option<Self>, TreeError> {
        if Turns::of(plan).is_none() {
            return Ok(None);
        }
        let era = store.era()?;
        let record = match store.get::<Record>(TREES, &name(run))? {
            Some(record) if record.era != era => return Err(TreeError::Restored),
            Some(record) => record,
            None => {
                let record = Record { key: *entropy::key(), era };
                batch.put(TREES, &name(run), &record)?;
                record
            }
        };
        let key = Zeroizing::new(record.key);
        Ok(Some(Self { run, key: hmac::Key::new(hmac::HMAC_SHA256, &key[..]) }))
    }

    /// The random words of a node's noise: the same ones each time, and for each node others.
    pub(crate) fn words(&self, node: Node) -> impl FnMut() -> u64 + use<> {
        let Node { level, index } = node;
        let place = [&b"starling/1 tree noise\0"[..], &level.to_le_bytes(), &index.to_le_bytes()].concat();
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(hmac::sign(&self.key, &place).as_ref());
        let mut stream = Keystream::new(&key);
        let mut bytes = Zeroizing::new([0u8; WORDS * 8]);
        let mut used = WORDS;
        move || {
            if used == WORDS {
                stream.fill(&mut bytes[..]);
                used = 0;
            }
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[used * 8..][..8]);
            used += 1;
            u64::from_le_bytes(word)
        }
    }

    /// Notes in `batch` that these devices are in `round`, which is being committed.
    pub(crate) fn take_turns<'a>(
        &self,
        store: &Store,
        batch: &mut Batch,
        round: u32,
        devices: impl IntoIterator<Item = &'a DeviceId>,
    ) -> Result<(), StoreError> {
        for device in devices {
            let key = turn_name(self.run, device);
            let (count, last) = store.get(TURNS, &key)?.unwrap_or_default();
            let Turn { count, last } = Turn { count, last }.then(round);
            batch.put(TURNS, &key, &(count, last))?;
        }
        Ok(())
    }
}

/// Who has had turns in `run`.
pub(crate) fn turns(store: &Store, run: RunId) -> Result<BTreeMap<DeviceId, Turn>, StoreError> {
    let prefix = format!("{}/", name(run));
    let all = store.scan::<(u32, u32)>(TURNS)?;
    let own = all
        .into_iter()
        .filter_map(|(key, (count, last))| Some((key.strip_prefix(&prefix)?.parse().ok()?, Turn { count, last })));
    Ok(own.collect())
}

/// The run is over: its noise can never be made again.
pub(crate) fn end(batch: &mut Batch, run: RunId) {
    batch.remove(TREES, &name(run));
}

/// Takes out all records of a run that is removed.
pub(crate) fn remove(store: &Store, batch: &mut Batch, run: RunId) -> Result<(), StoreError> {
    end(batch, run);
    turns(store, run)?.keys().for_each(|device| batch.remove(TURNS, &turn_name(run, device)));
    Ok(())
}

/// Takes out what a device has had in any run: it is forgotten, and does not come back under its id.
pub(crate) fn forget(store: &Store, batch: &mut Batch, device: &DeviceId) -> Result<(), StoreError> {
    let end = format!("/{device}");
    for (key, _) in store.scan::<(u32, u32)>(TURNS)?.iter().filter(|(key, _)| key.ends_with(&end)) {
        batch.remove(TURNS, key);
    }
    Ok(())
}

fn name(run: RunId) -> String {
    format!("{:010}", run.0)
}

fn turn_name(run: RunId, device: &DeviceId) -> String {
    format!("{}/{device}", name(run))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use starling_store::KeySource;
    use starling_store::backup::Repository;

    use super::*;

    const RUN: RunId = RunId(4);

    fn plan() -> TaskPlan {
        starling_testkit::plan::small(
            r#"
            [federation]
            devices = 10
            [privacy]
            weights = "uniform"
            [privacy.dp]
            mode = "central"
            clip = 1.0
            noise_multiplier = 4.0
            delta = 1e-3
            mechanism = { tree = { participations_max = 2, separation_min = 3 } }
            "#,
        )
    }

    fn store(folder: &Path) -> Store {
        Store::open(folder, &KeySource::beside(folder)).expect("a store")
    }

    fn opened(store: &Store) -> Result<NoiseTree, TreeError> {
        let mut batch = Batch::new();
        let tree = NoiseTree::open(store, &mut batch, RUN, &plan())?.expect("the plan has a tree");
        store.commit(batch).expect("durable");
        Ok(tree)
    }

    fn first(tree: &NoiseTree, level: u32, index: u32) -> Vec<u64> {
        let mut words = tree.words(Node { level, index });
        (0..3 * WORDS).map(|_| words()).collect()
    }

    #[test]
    fn noise_and_turns_come_back_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let before = store(folder.path());
        let tree = opened(&before).expect("begun");
        let noise = [(0, 1), (0, 2), (1, 1)].map(|(level, index)| first(&tree, level, index));
        assert!(noise[0] != noise[1] && noise[1] != noise[2] && noise[0] != noise[2], "each node has its own");
        let (one, other) = (DeviceId([1; 16]), DeviceId([2; 16]));
        for (round, devices) in [(1, vec![&one]), (4, vec![&one, &other])] {
            let mut batch = Batch::new();
            tree.take_turns(&before, &mut batch, round, devices).expect("noted");
            before.commit(batch).expect("durable");
        }
        drop((tree, before));
        let after = store(folder.path());
        let tree = opened(&after).expect("it goes on");
        assert_eq!(first(&tree, 0, 1), noise[0]);
        let turn = |count, last| Turn { count, last };
        assert_eq!(turns(&after, RUN).expect("read"), BTreeMap::from([(one, turn(2, 4)), (other, turn(1, 4))]));
        assert_eq!(turns(&after, RunId(5)).expect("read"), BTreeMap::new());
        let mut batch = Batch::new();
        forget(&after, &mut batch, &one).expect("listed");
        end(&mut batch, RUN);
        after.commit(batch).expect("durable");
        assert_eq!(turns(&after, RUN).expect("read"), BTreeMap::from([(other, turn(1, 4))]));
        let mut batch = Batch::new();
        NoiseTree::open(&after, &mut batch, RUN, &plan()).expect("a new key");
        assert!(!batch.is_empty(), "the old key is gone");
    }

    #[test]
    fn a_restored_run_does_not_make_its_noise_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        let before = store(&state);
        opened(&before).expect("begun");
        let backups = Repository::open(&folder.path().join("backups")).expect("a folder");
        backups.create(&before, 1, 9).expect("a backup");
        drop(before);
        ["records", "blobs"].iter().for_each(|name| std::fs::remove_dir_all(state.join(name)).expect("lost"));
        backups.restore(None, &state, &KeySource::beside(&state)).expect("restored");
        assert!(matches!(opened(&store(&state)), Err(TreeError::Restored)));
    }
}
