//! The keeper over restarts of the daemon and words of the owner. What it refuses is `tests/trust`'s.

use std::path::Path;

use starling_trust::{Artefact, Bundle, Current, Document, Entry, Head, Named, PublicKey, Root, SigningKey, Statement};

use super::*;
use crate::serving::model::tests::{binding, offer, release_bytes};
use crate::serving::releases::{NoModel, Releases};

const NOON: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
const TASK: &str = "digits";

/// A publisher whose one key does everything.
struct Publisher {
    key: SigningKey,
    root: Document,
    origin: Digest,
}

impl Publisher {
    fn new(seed: u8) -> Self {
        let key = SigningKey::from_seed([seed; 32].into());
        let keys: &[PublicKey] = &[key.public()];
        let head = head(1, 365 * DAY, Digest([0; 32]));
        let root = Root::new(head, (keys, 1), (keys, 1), &[("*", (keys, 1))]).expect("a root");
        let root = signed(Statement::Root(root), &key);
        let origin = root.digest();
        Self { key, root, origin }
    }

    /// What vouches for version `version` of the release `bytes`, for a week.
    fn bundle(&self, version: u64, bytes: &[u8]) -> Vec<u8> {
        let (length, digest) = (bytes.len() as u64, Digest::of(bytes));
        let head_of = |expires_s| head(version, expires_s, self.origin);
        let subject = Subject::Release;
        let artefact = Artefact { head: head_of(90 * DAY), subject, task: TASK.into(), length, digest };
        let artefact = signed(Statement::Artefact(artefact), &self.key);
        let named = Named { version, digest: artefact.digest() };
        let entries = vec![Entry { task: TASK.into(), release: Some(named), plan: None }];
        let current = Statement::Current(Current { head: head_of(7 * DAY), root_version: 1, entries });
        Bundle { documents: vec![signed(current, &self.key), artefact] }.to_bytes().expect("small")
    }
}

fn head(version: u64, expires_s: u64, origin: Digest) -> Head {
    Head { version, issued_unix_s: NOON, expires_unix_s: NOON + expires_s, origin }
}

fn signed(statement: Statement, key: &SigningKey) -> Document {
    let mut document = Document::new(statement).expect("a statement");
    document.sign(key).expect("there is room");
    document
}

struct Device {
    folder: tempfile::TempDir,
    clock: Arc<Clock>,
}

impl Device {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), clock: Clock::standing(NOON + DAY) }
    }

    /// Starts as the daemon does, with the root of `publisher` pinned, or none.
    fn start(&self, publisher: Option<&Publisher>, on_expiry: OnExpiry) -> (Option<Arc<Keeper>>, Releases) {
        let store = Arc::new(crate::state::tests::open_store(self.folder.path()).expect("a store"));
        let keeper = publisher.map(|publisher| {
            let root = self.folder.path().join("root.bundle");
            std::fs::write(&root, publisher.root.to_bytes()).expect("written");
            let settings = TrustSettings { root, on_expiry };
            Arc::new(Keeper::open(Arc::clone(&store), Arc::clone(&self.clock), &settings).expect("a keeper"))
        });
        let releases = Releases::open(store, vec![binding("embedded:optdigits")], keeper.clone()).expect("releases");
        (keeper, releases)
    }
}

#[test]
fn inv5_what_was_seen_is_durable_before_it_permits_anything() {
    let (device, publisher) = (Device::new(), Publisher::new(1));
    let bytes = release_bytes(1.0);
    {
        let (keeper, _) = device.start(Some(&publisher), OnExpiry::Keep);
        keeper.expect("pinned").take(&publisher.bundle(4, &bytes), Subject::Release, TASK).expect("permitted");
        // The daemon is gone before a byte was fetched.
    }
    let (keeper, releases) = device.start(Some(&publisher), OnExpiry::Keep);
    let keeper = keeper.expect("pinned");
    let reason = |bundle: &[u8]| keeper.take(bundle, Subject::Release, TASK).expect_err("refused").parts().0;
    assert_eq!(reason(&publisher.bundle(3, &bytes)), Distrust::Rollback);
    assert_eq!(reason(&[]), Distrust::Unsigned);
    assert!(!keeper.has_verified(&offer(4, &bytes)), "seen, not held");
    let permit = keeper.take(&publisher.bundle(4, &bytes), Subject::Release, TASK).expect("permitted again");
    releases.install(&offer(4, &bytes), &bytes, Some(&permit)).expect("installed");
    assert_eq!(releases.serves(TASK), Some(4));
    assert!(releases.model(TASK).is_ok());
    drop((keeper, releases));
    let (_, releases) = device.start(Some(&publisher), OnExpiry::Keep);
    assert!(releases.model(TASK).is_ok(), "from the disk, without another word of anybody");
}

#[test]
fn a_release_that_nobody_signed_stops_when_its_owner_begins_to_ask_for_signatures() {
    let (device, publisher) = (Device::new(), Publisher::new(1));
    let bytes = release_bytes(1.0);
    {
        let (_, releases) = device.start(None, OnExpiry::Keep);
        releases.install(&offer(1, &bytes), &bytes, None).expect("no signature is asked for");
    }
    let (_, releases) = device.start(Some(&publisher), OnExpiry::Keep);
    assert_eq!((releases.held(TASK), releases.serves(TASK)), (None, None));
    assert!(matches!(releases.model(TASK), Err(NoModel::Unreadable(_))));
    assert!(releases.install(&offer(2, &bytes), &bytes, None).is_err(), "nor is it taken in without a permit");
    drop(releases);
    let (_, releases) = device.start(None, OnExpiry::Keep);
    assert!(releases.model(TASK).is_ok(), "the owner may change that again: nothing was thrown away");
}

#[test]
fn another_fleets_root_begins_anew() {
    let (device, publisher, other) = (Device::new(), Publisher::new(1), Publisher::new(2));
    let bytes = release_bytes(1.0);
    {
        let (keeper, releases) = device.start(Some(&publisher), OnExpiry::Keep);
        let permit = keeper.expect("pinned").take(&publisher.bundle(9, &bytes), Subject::Release, TASK);
        releases.install(&offer(9, &bytes), &bytes, Some(&permit.expect("permitted"))).expect("installed");
    }
    let (keeper, releases) = device.start(Some(&other), OnExpiry::Keep);
    let keeper = keeper.expect("pinned");
    assert!(releases.model(TASK).is_err(), "nobody of this fleet signed it");
    let refused = keeper.take(&publisher.bundle(10, &bytes), Subject::Release, TASK).expect_err("another fleet's");
    assert_eq!(refused.parts().0, Distrust::OtherOrigin);
    let permit = keeper.take(&other.bundle(1, &bytes), Subject::Release, TASK).expect("permitted");
    releases.install(&offer(1, &bytes), &bytes, Some(&permit)).expect("numbers begin anew, too");
    assert_eq!(releases.serves(TASK), Some(1));
}

#[test]
fn the_owner_decides_what_happens_when_nothing_says_any_more_what_is_newest() {
    for (on_expiry, stops) in [(OnExpiry::Keep, false), (OnExpiry::Stop, true)] {
        let (device, publisher) = (Device::new(), Publisher::new(1));
        let bytes = release_bytes(1.0);
        let (keeper, releases) = device.start(Some(&publisher), on_expiry);
        let keeper = keeper.expect("pinned");
        assert_eq!((keeper.expires_in_s(), keeper.has_expired()), (None, false), "nothing was stated yet");
        let permit = keeper.take(&publisher.bundle(1, &bytes), Subject::Release, TASK).expect("permitted");
        releases.install(&offer(1, &bytes), &bytes, Some(&permit)).expect("installed");
        assert_eq!(keeper.expires_in_s(), Some(6 * DAY));
        // The aggregator's word for the time ends nothing.
        device.clock.raise_floor(NOON + 30 * DAY);
        assert!(!keeper.has_expired());
        device.clock.set(NOON + 7 * DAY);
        assert_eq!((keeper.expires_in_s(), keeper.has_expired(), keeper.stops()), (None, true, stops));
        assert_eq!(releases.model(TASK).is_err(), stops);
        assert_eq!(releases.serves(TASK), (!stops).then_some(1));
        assert_eq!(releases.held(TASK).map(|held| held.version), Some(1), "it is held all the same");
        let status = keeper.status();
        assert_eq!((status.expired, status.stopped, status.freshness_version), (true, stops, Some(1)));
    }
}

#[test]
fn a_file_that_is_no_root_is_named() {
    let device = Device::new();
    let path = device.folder.path().join("root.bundle");
    let why = |path: &Path| pinned(path).expect_err("no root").to_string();
    assert!(why(&path).contains("root.bundle cannot be read"));
    std::fs::write(&path, b"-----BEGIN CERTIFICATE-----").expect("written");
    assert!(why(&path).contains("root.bundle is no root of trust"));
}
