//! A fleet's publishers, with all keys in one hand: what they would sign, and what they would never.

use std::time::{SystemTime, UNIX_EPOCH};

use starling_compress::{Compressed, Release};
use starling_spec::layer::Linear;
use starling_spec::{Layer, Scale, TaskKind};
use starling_trust::{
    Artefact, Bundle, Current, Document, Entry, Head, Named, PublicKey, Root, SigningKey, Statement, Subject, Trusted,
};
use starling_wire::Digest;

pub(crate) const DAY_S: u64 = 86_400;
pub(crate) const TASK: &str = "digits";

/// The keys of the roles: two of three publishers have to sign.
const ROOT: &[u8] = &[1, 2];
const FRESHNESS: &[u8] = &[10];
pub(crate) const PUBLISHERS: &[u8] = &[20, 21, 22];
/// A threshold of them.
pub(crate) const ENOUGH: &[u8] = &[20, 21];
/// Who publishes after the rotation.
pub(crate) const ROTATED: &[u8] = &[21, 22, 23];

pub(crate) struct Publisher {
    /// The first root.
    pub(crate) root: Document,
    origin: Digest,
}

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32].into())
}

fn public(numbers: &[u8]) -> Vec<PublicKey> {
    numbers.iter().map(|number| key(*number).public()).collect()
}

pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

pub(crate) fn signed(statement: Statement, signers: &[u8]) -> Document {
    let mut document = Document::new(statement).expect("a good statement");
    signers.iter().for_each(|signer| document.sign(&key(*signer)).expect("there is room"));
    document
}

pub(crate) fn bundle(documents: &[&Document]) -> Vec<u8> {
    let documents = documents.iter().map(|document| (*document).clone()).collect();
    Bundle { documents }.to_bytes().expect("a small bundle")
}

/// A release of the digits: ten outputs, each a sum of pixels times `weight`, so that two weights answer differently.
pub(crate) fn release_bytes(weight: f32) -> Vec<u8> {
    #[allow(clippy::cast_precision_loss, reason = "640 is a small number")]
    let weights = (0..640).map(|index| weight * (index % 7) as f32 - 1.0);
    let release = Release {
        name: TASK.into(),
        kind: TaskKind::Classification,
        shape: vec![64],
        scale: Scale::Unit,
        standardise: None,
        layers: vec![Layer::Linear(Linear { out: 10, bias: false, binary: false })],
        tensors: vec![Compressed::dense(weights.collect())],
        inputs: vec![None],
    };
    release.to_bytes()
}

impl Publisher {
    pub(crate) fn new() -> Self {
        let root = root_document(1, Digest([0; 32]), PUBLISHERS);
        let origin = Trusted::pin(&root.to_bytes()).expect("a good root").origin();
        Self { root, origin }
    }

    /// The root that gives the publishing to other keys.
    pub(crate) fn rotated(&self) -> Document {
        root_document(2, self.origin, ROTATED)
    }

    pub(crate) fn head(&self, version: u64, expires_s: u64) -> Head {
        let now = now_unix_s();
        Head { version, issued_unix_s: now, expires_unix_s: now + expires_s, origin: self.origin }
    }

    pub(crate) fn artefact(&self, subject: Subject, task: &str, version: u64, bytes: &[u8]) -> Artefact {
        let (length, digest) = (bytes.len() as u64, Digest::of(bytes));
        Artefact { head: self.head(version, 90 * DAY_S), subject, task: task.into(), length, digest }
    }

    /// The statement about a release of the digits.
    pub(crate) fn release(&self, version: u64, bytes: &[u8], signers: &[u8]) -> Document {
        signed(Statement::Artefact(self.artefact(Subject::Release, TASK, version, bytes)), signers)
    }

    /// The statement about a plan.
    pub(crate) fn plan(&self, version: u64, bytes: &[u8], signers: &[u8]) -> Document {
        signed(Statement::Artefact(self.artefact(Subject::Plan, TASK, version, bytes)), signers)
    }

    /// What is newest, for a week.
    pub(crate) fn current(&self, version: u64, named: &Document) -> Document {
        self.current_for(version, 7 * DAY_S, 1, named)
    }

    pub(crate) fn current_for(&self, version: u64, expires_s: u64, root_version: u64, named: &Document) -> Document {
        let Statement::Artefact(artefact) = named.statement() else { panic!("a release or plan") };
        let name = Named { version: artefact.head.version, digest: named.digest() };
        let (release, plan) = match artefact.subject {
            Subject::Release => (Some(name), None),
            Subject::Plan => (None, Some(name)),
        };
        let entries = vec![Entry { task: artefact.task.clone(), release, plan }];
        signed(Statement::Current(Current { head: self.head(version, expires_s), root_version, entries }), FRESHNESS)
    }
}

fn root_document(version: u64, origin: Digest, publishers: &[u8]) -> Document {
    let now = now_unix_s();
    let head = Head { version, issued_unix_s: now, expires_unix_s: now + 365 * DAY_S, origin };
    let (root, freshness, publishers) = (public(ROOT), public(FRESHNESS), public(publishers));
    let rules = [(TASK, (&publishers[..], 2)), ("valve", (&publishers[..], 2))];
    signed(Statement::Root(Root::new(head, (&root, 2), (&freshness, 1), &rules).expect("a good root")), ROOT)
}
