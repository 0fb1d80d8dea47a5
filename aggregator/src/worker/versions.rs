//! Versions that stay and versions that go: what is kept beyond the next one, and what goes when a device is forgotten.

use std::error::Error;
use std::sync::Arc;

use serde_json::json;
use starling_store::{Batch, StoreError};

use super::{State, chain};
use crate::erasure::{self, Erasure, Forgetting};
use crate::event::Event;
use crate::kept::{self, KeptVersion};
use crate::records::{self, RunRecord};

impl State {
    /// Keeps the version that `round` makes, if it is one of those, and drops those that are too close by now: their blobs.
    pub(super) fn keep_version(
        &self,
        record: &RunRecord,
        round: u32,
        batch: &mut Batch,
    ) -> Result<Vec<String>, StoreError> {
        let keep = &self.making.keep;
        if !keep.keeps(round, round) {
            return Ok(Vec::new());
        }
        let version =
            KeptVersion { run: record.run, round, version: record.version, master_blob: record.master_blob.clone() };
        kept::put(batch, &version)?;
        let mut dropped = Vec::new();
        for old in kept::of_run(&self.store, record.run)? {
            if !keep.keeps(old.round, round) {
                kept::remove(batch, &old);
                dropped.push(old.master_blob);
            }
        }
        Ok(dropped)
    }

    /// Reading the log may take seconds, and rounds go on meanwhile.
    pub(super) fn trace(&mut self, forgetting: Forgetting) {
        self.flush_audit(false);
        let (store, events, records) = (Arc::clone(&self.store), self.events.clone(), self.audit.size());
        let _ = std::thread::Builder::new().name("trace".into()).spawn(move || {
            match erasure::trace_or_certificate(&store, &forgetting, records) {
                Ok(Err(certificate)) => {
                    let device = forgetting.device.to_string();
                    forgetting.answer(Ok(json!({ "device": device, "certificate": certificate })));
                }
                found => {
                    let traced = found.map(|traced| traced.map(Box::new).expect("a certificate is answered above"));
                    if let Some(events) = events.upgrade() {
                        let _ = events.blocking_send(Event::Traced(Box::new(forgetting), traced));
                    }
                }
            }
        });
    }

    /// The record of the run first, then its blobs: none is named that is gone.
    pub(super) fn withdraw(&mut self, record: &RunRecord, first: u64) -> Result<(), Box<dyn Error>> {
        let before = records::runs(&self.store)?.into_iter().find(|before| before.run == record.run);
        let gone: Vec<KeptVersion> =
            kept::of_run(&self.store, record.run)?.into_iter().filter(|kept| kept.version >= first).collect();
        let mut batch = Batch::new();
        records::put(&mut batch, record, None)?;
        gone.iter().for_each(|kept| kept::remove(&mut batch, kept));
        self.audit.write_into(&mut batch, false)?;
        self.store.commit(batch)?;
        self.audit.settle()?;
        let named = before.iter().flat_map(|before| [&before.version_blob, &before.master_blob]);
        Ok(records::remove_unnamed(&self.store, named.chain(gone.iter().map(|kept| &kept.master_blob)))?)
    }

    /// Destroys what belongs to a device, and answers who waits for that.
    pub(super) fn erase(&mut self, erasure: Erasure) {
        let certificate = erasure::erase(&self.store, &mut self.audit, &erasure);
        self.back_decision_up();
        let Erasure { forgetting, unlearned, .. } = erasure;
        let unlearned = unlearned
            .iter()
            .map(|(run, new)| json!({ "run": run, "new_run": new.run, "from_version": new.version }))
            .collect::<Vec<_>>();
        let device = forgetting.device.to_string();
        let answer = certificate
            .map_err(|error| chain(&*error))
            .map(|certificate| json!({ "device": device, "certificate": certificate, "unlearned": unlearned }));
        forgetting.answer(answer);
    }
}
