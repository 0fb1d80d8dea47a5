//! Plans that one of the owner's publishers has signed. What a fleet's root says of publishers is [`crate::trust`]'s business; this
//! list is the owner's own and needs no root.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use starling_trust::{Bundle, PublicKey, Statement, Subject};
use starling_wire::limits::TASKS_PER_DEVICE_MAX;
use starling_wire::{Digest, RunPlan, TaskId};

/// The keys, and the plans that one of them has signed.
pub(super) struct Publishers {
    keys: Vec<PublicKey>,
    /// Announced anew on each connection; as many as there may be runs.
    signed: Mutex<BTreeSet<TaskId>>,
}

impl Publishers {
    pub(super) fn new(keys: Vec<PublicKey>) -> Self {
        Self { keys, signed: Mutex::default() }
    }

    /// A plan is announced, with what was signed of it.
    pub(super) fn take_plan(&self, announced: &RunPlan) {
        if self.keys.is_empty() {
            return;
        }
        let signed = self.vouch_for(announced);
        let mut all = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if !signed {
            all.remove(&announced.task);
        } else if all.len() < TASKS_PER_DEVICE_MAX || all.pop_first().is_some() {
            all.insert(announced.task);
        }
    }

    /// Whether the rounds of this task are those of a plan that was signed, or no signature is asked for.
    pub(super) fn have_signed(&self, task: TaskId) -> bool {
        self.keys.is_empty() || self.signed.lock().unwrap_or_else(PoisonError::into_inner).contains(&task)
    }

    fn vouch_for(&self, announced: &RunPlan) -> bool {
        let Ok(bundle) = Bundle::parse(&announced.bundle) else { return false };
        bundle.of(Subject::Plan.kind()).any(|document| {
            let Statement::Artefact(stated) = document.statement() else { return false };
            stated.task == announced.name
                && stated.digest == Digest::of(&announced.plan)
                && self.keys.iter().any(|key| document.is_signed_by(key))
        })
    }
}

#[cfg(test)]
mod tests {
    use starling_trust::{Artefact, Document, Head, SigningKey};
    use starling_wire::RunId;

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed([seed; 32].into())
    }

    fn announced(signed: &[u8], signer: &SigningKey, plan: &[u8]) -> RunPlan {
        let head = Head { version: 1, issued_unix_s: 1, expires_unix_s: 1_000, origin: Digest([1; 32]) };
        let (length, digest) = (signed.len() as u64, Digest::of(signed));
        let stated = Artefact { head, subject: Subject::Plan, task: "digits".into(), length, digest };
        let mut document = Document::new(Statement::Artefact(stated)).expect("a statement");
        document.sign(signer).expect("signed");
        let bundle = Bundle { documents: vec![document] }.to_bytes().expect("a bundle");
        let (run, task) = (RunId(1), TaskId([7; 16]));
        RunPlan { run, owner_epoch: 1, task, name: "digits".into(), plan: plan.to_vec(), bundle }
    }

    #[test]
    fn a_plan_counts_with_the_signature_of_a_listed_key_over_these_bytes() {
        let publishers = Publishers::new(vec![key(1).public(), key(2).public()]);
        let heard = |announced: RunPlan| {
            publishers.take_plan(&announced);
            publishers.have_signed(announced.task)
        };
        assert!(heard(announced(b"plan", &key(2), b"plan")));
        assert!(!heard(announced(b"plan", &key(3), b"plan")), "another key");
        assert!(!heard(announced(b"plan", &key(1), b"nalp")), "other bytes");
        assert!(!heard(RunPlan { name: "steps".into(), ..announced(b"plan", &key(1), b"plan") }), "another task");
        assert!(!heard(RunPlan { bundle: vec![], ..announced(b"plan", &key(1), b"plan") }), "nothing signed");
    }

    #[test]
    fn without_a_list_nobody_has_to_sign() {
        assert!(Publishers::new(Vec::new()).have_signed(TaskId([7; 16])));
    }
}
