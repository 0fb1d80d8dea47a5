//! A publisher with its keys, and a device that has pinned its first root.

use starling_trust::{
    Artefact, Bundle, Current, Document, Entry, Head, Named, Outcome, PublicKey, Root, SigningKey, Statement, Subject,
    Trusted,
};
use starling_wire::{Digest, Distrust};

/// Noon of some day; the statements of this world are issued then.
pub(crate) const NOON: u64 = 1_800_000_000;
pub(crate) const DAY: u64 = 86_400;
pub(crate) const TASK: &str = "pump-wear";
pub(crate) const MODEL: &[u8] = b"the weights of a small network";

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32].into())
}

pub(crate) fn public(numbers: &[u8]) -> Vec<PublicKey> {
    numbers.iter().map(|number| key(*number).public()).collect()
}

/// Which keys a root gives which role: numbers and thresholds.
#[derive(Clone, Copy)]
pub(crate) struct Roles {
    pub(crate) root: (&'static [u8], u8),
    pub(crate) freshness: (&'static [u8], u8),
    pub(crate) publishers: (&'static [u8], u8),
}

/// Two of three for the root, one robot for freshness, two of three for pumps; key 30 alone for valves.
pub(crate) const ROLES: Roles = Roles { root: (&[1, 2, 3], 2), freshness: (&[10], 1), publishers: (&[20, 21, 22], 2) };

pub(crate) struct World {
    pub(crate) first: Document,
    pub(crate) device: Trusted,
}

pub(crate) fn root(version: u64, origin: Digest, roles: Roles, signers: &[u8]) -> Document {
    let head = Head { version, issued_unix_s: NOON, expires_unix_s: NOON + 365 * DAY, origin };
    let (keys, freshness, publishers, valves) =
        (public(roles.root.0), public(roles.freshness.0), public(roles.publishers.0), public(&[30]));
    let rules = [("pump-*", (&publishers[..], roles.publishers.1)), ("valve", (&valves[..], 1))];
    let root = Root::new(head, (&keys, roles.root.1), (&freshness, roles.freshness.1), &rules).expect("a good root");
    signed(Statement::Root(root), signers)
}

pub(crate) fn signed(statement: Statement, signers: &[u8]) -> Document {
    let mut document = Document::new(statement).expect("a good statement");
    signers.iter().for_each(|signer| document.sign(&key(*signer)).expect("there is room"));
    document
}

pub(crate) fn named(document: &Document) -> Named {
    Named { version: document.statement().head().version, digest: document.digest() }
}

pub(crate) fn bundle(documents: &[&Document]) -> Vec<u8> {
    let documents = documents.iter().map(|document| (*document).clone()).collect();
    Bundle { documents }.to_bytes().expect("a small bundle")
}

impl World {
    pub(crate) fn new() -> Self {
        let first = root(1, Digest([0; 32]), ROLES, &[1, 2]);
        Self { device: Trusted::pin(&first.to_bytes()).expect("a good root"), first }
    }

    pub(crate) fn head(&self, version: u64, days: u64) -> Head {
        Head { version, issued_unix_s: NOON, expires_unix_s: NOON + days * DAY, origin: self.device.origin() }
    }

    pub(crate) fn artefact(&self, subject: Subject, task: &str, version: u64, bytes: &[u8]) -> Artefact {
        let (length, digest) = (bytes.len() as u64, Digest::of(bytes));
        Artefact { head: self.head(version, 90), subject, task: task.into(), length, digest }
    }

    pub(crate) fn release(&self, version: u64, signers: &[u8]) -> Document {
        signed(Statement::Artefact(self.artefact(Subject::Release, TASK, version, MODEL)), signers)
    }

    pub(crate) fn current_of(&self, version: u64, release: &Document) -> Current {
        let entries = vec![Entry { task: TASK.into(), release: Some(named(release)), plan: None }];
        Current { head: self.head(version, 7), root_version: 1, entries }
    }

    pub(crate) fn current(&self, version: u64, release: &Document) -> Document {
        signed(Statement::Current(self.current_of(version, release)), &[10])
    }

    /// An honest delivery of a version.
    pub(crate) fn delivery(&self, version: u64) -> Vec<u8> {
        let release = self.release(version, &[20, 21]);
        bundle(&[&self.current(version, &release), &release])
    }

    /// A device that has taken in a version.
    pub(crate) fn device_at(&self, version: u64) -> Trusted {
        let Outcome { mut trusted, permit } =
            self.device.take(&self.delivery(version), Subject::Release, TASK, NOON + DAY);
        let verified = permit.expect("honest").verify(MODEL).expect("the bytes");
        trusted.hold(&verified).expect("there is room");
        trusted
    }
}

/// The reason for which a device refuses a bundle. What it holds has to go on serving (`held`).
#[track_caller]
pub(crate) fn reason(device: &Trusted, bundle: &[u8]) -> Distrust {
    reason_at(device, bundle, NOON + DAY)
}

#[track_caller]
pub(crate) fn reason_at(device: &Trusted, bundle: &[u8], clock: u64) -> Distrust {
    let outcome = device.take(bundle, Subject::Release, TASK, clock);
    if device.held(Subject::Release, TASK, MODEL).is_ok() {
        assert!(outcome.trusted.held(Subject::Release, TASK, MODEL).is_ok(), "the old model keeps serving");
    }
    outcome.permit.expect_err("an attack").reason()
}
