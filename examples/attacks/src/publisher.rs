//! A device that has pinned a fleet's root, and what it says to a plan: what `starling-client` does before each round of one
//! (`client/src/trust.rs`; with real processes in `tests/trust/plans.rs`).

use anyhow::Result;
use starling_spec::TaskPlan;
use starling_trust::{
    Artefact, Bundle, Current, Document, Entry, Head, Named, Root, SigningKey, Statement, Subject, Trusted,
};
use starling_wire::{Digest, Distrust};
use zeroize::Zeroizing;

/// When all of this takes place, and how long signatures last.
const NOW_UNIX_S: u64 = 1_800_000_000;
const DAY_S: u64 = 86_400;

/// A publisher with a key that is not on the aggregator.
pub struct Publisher {
    key: SigningKey,
    root: Document,
    origin: Digest,
}

impl Publisher {
    /// A publisher whose key follows from a seed.
    ///
    /// # Errors
    /// None, for a root that is well formed.
    pub fn new(seed: u64) -> Result<Self> {
        let key =
            SigningKey::from_seed(Zeroizing::new(Digest::of_parts(&[b"attacks publisher", &seed.to_le_bytes()]).0));
        let keys = [key.public()];
        let one = (&keys[..], 1);
        let root = Root::new(head(1, Digest([0; 32])), one, one, &[("*", one)])?;
        let root = signed(Statement::Root(root), &key)?;
        let origin = Trusted::pin(&root.to_bytes())?.origin();
        Ok(Self { key, root, origin })
    }

    /// What a device's owner pins.
    pub fn root(&self) -> Vec<u8> {
        self.root.to_bytes()
    }

    /// The publisher's word for a plan, and that it is the newest.
    ///
    /// # Errors
    /// A name that no statement can hold.
    pub fn sign(&self, plan: &TaskPlan) -> Result<Vec<u8>> {
        let json = plan.to_json();
        let artefact = Artefact {
            head: head(1, self.origin),
            subject: Subject::Plan,
            task: plan.name.clone(),
            length: json.len() as u64,
            digest: Digest::of(&json),
        };
        let document = signed(Statement::Artefact(artefact), &self.key)?;
        let named = Named { version: 1, digest: document.digest() };
        let entries = vec![Entry { task: plan.name.clone(), release: None, plan: Some(named) }];
        let current = Current { head: head(1, self.origin), root_version: 1, entries };
        let current = signed(Statement::Current(current), &self.key)?;
        Ok(Bundle { documents: vec![current, document] }.to_bytes()?)
    }
}

/// Whether a device that has pinned `root` trains by `plan` when it comes with `bundle`.
///
/// # Errors
/// Why not: what the aggregator is told.
pub fn consent(root: &[u8], plan: &TaskPlan, bundle: &[u8]) -> Result<(), Distrust> {
    if bundle.is_empty() {
        return Err(Distrust::Unsigned);
    }
    let pinned = Trusted::pin(root).map_err(|refused| refused.reason())?;
    let taken = pinned.take(bundle, Subject::Plan, &plan.name, NOW_UNIX_S);
    let verified = taken.permit.and_then(|permit| permit.verify(&plan.to_json()));
    verified.map(drop).map_err(|refused| refused.reason())
}

fn head(version: u64, origin: Digest) -> Head {
    Head { version, issued_unix_s: NOW_UNIX_S - DAY_S, expires_unix_s: NOW_UNIX_S + DAY_S, origin }
}

fn signed(statement: Statement, key: &SigningKey) -> Result<Document> {
    let mut document = Document::new(statement)?;
    document.sign(key)?;
    Ok(document)
}
