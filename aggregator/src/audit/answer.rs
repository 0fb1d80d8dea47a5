//! What the log answers: to its operator, and to a device that wants a receipt.

use serde_json::{Value, json};
use starling_audit::{About, Action, Entry, Note, Record, VerifierKey, Who, consistency_proof, inclusion_proof};
use starling_store::Batch;
use starling_wire::{DeviceId, Receipt, Refusal, Role, RunId, WantReceipt};

use super::AuditLog;
use super::storage::{self, AuditError, Span};
use crate::worker::chain;

/// Checkpoints of one answer, about 300 bytes each.
const CHECKPOINTS_PAGE: usize = 4096;

/// A question about the log.
#[derive(Debug, serde::Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum AuditAsk {
    /// Sign a checkpoint of all there is, and prove that it goes on from one of `held` records.
    Checkpoint {
        /// 0 for none.
        #[serde(default)]
        held: u64,
    },
    /// The records `from`.., to `end` or the end of a segment.
    Records {
        /// The first.
        from: u64,
        /// One past the last.
        end: u64,
    },
    /// The checkpoints of more than `from` records.
    Checkpoints {
        /// Not these.
        from: u64,
    },
    /// What is still known behind commitments.
    Personal,
    /// Keep a witness's signature.
    Cosign {
        /// The checkpoint, signed.
        note: String,
        /// The witness's public key.
        key: String,
    },
    /// That an update is in the log.
    Receipt {
        /// Which run.
        run: u32,
        /// Which round.
        round: u32,
        /// Whose.
        device: String,
        /// Records of the checkpoint that is known already.
        #[serde(default)]
        held: u64,
    },
}

impl AuditLog {
    /// Answers an operator; `who` asks.
    pub(crate) fn answer(&mut self, ask: AuditAsk, who: Who) -> Result<Value, String> {
        let said = |error: AuditError| chain(&error);
        match ask {
            AuditAsk::Checkpoint { held } => {
                self.flush(true).map_err(said)?;
                let (checkpoint, note) = self.newest.clone().ok_or("the log has no checkpoint yet")?;
                let consistency = self.consistency(held, checkpoint.size).map_err(said)?;
                let keys: Vec<String> = self.keys.iter().map(VerifierKey::to_string).collect();
                Ok(json!({
                    "origin": checkpoint.origin, "keys": keys, "size": checkpoint.size,
                    "root": checkpoint.root.to_string(), "note": note.to_string(), "consistency": consistency,
                }))
            }
            AuditAsk::Records { from, end } => {
                let segment_end = (from / storage::SEGMENT_RECORDS + 1) * storage::SEGMENT_RECORDS;
                let next = end.min(self.size()).min(segment_end).max(from);
                self.flush(false).map_err(said)?;
                match storage::lines(&self.store, from, next) {
                    Ok(lines) => {
                        let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
                        Ok(json!({ "lines": lines, "next": next, "problem": null }))
                    }
                    Err(error @ AuditError::Segment { .. }) => {
                        Ok(json!({ "lines": [], "next": next, "problem": error.to_string() }))
                    }
                    Err(error) => Err(said(error)),
                }
            }
            AuditAsk::Checkpoints { from } => {
                let all = self.store.scan::<String>(storage::CHECKPOINTS).map_err(|error| chain(&error))?;
                let sized = all.into_iter().filter_map(|(size, note)| Some((size.parse::<u64>().ok()?, note)));
                let page: Vec<(u64, String)> = sized.filter(|(size, _)| *size > from).take(CHECKPOINTS_PAGE).collect();
                let next = page.last().map(|(size, _)| *size);
                Ok(json!({ "notes": page.into_iter().map(|(_, note)| note).collect::<Vec<_>>(), "next": next }))
            }
            AuditAsk::Personal => {
                let word = Some("audit-personal".into());
                self.record(Entry::done(who, Action::AdminRequest, About { word, ..About::default() }), None);
                let all = self.all_personal().map_err(|error| chain(&error))?;
                let lines: Vec<String> = all.iter().map(starling_audit::export::personal_line).collect();
                Ok(json!({ "lines": lines }))
            }
            AuditAsk::Cosign { note, key } => self.keep_cosignature(&note, &key, who),
            AuditAsk::Receipt { run, round, device, held } => {
                let device = device.parse().map_err(|error: starling_wire::ParseIdError| format!("device: {error}"))?;
                let receipt = self.receipt(device, &WantReceipt { run: RunId(run), round, held });
                let receipt = receipt.map_err(|reason| match reason {
                    Refusal::Internal => "the log could not be read; see the daemon's log".into(),
                    _ => format!("no update of {device} is in a version of run {run} round {round}"),
                })?;
                Ok(json!({
                    "record": String::from_utf8_lossy(&receipt.record), "inclusion": texts(&receipt.inclusion),
                    "checkpoint": receipt.checkpoint, "consistency": texts(&receipt.consistency), "key": receipt.key,
                }))
            }
        }
    }

    fn consistency(&self, held: u64, size: u64) -> Result<Vec<String>, AuditError> {
        // A caller who knows a longer log learns from the sizes that this one was cut.
        let proof = if held <= size { consistency_proof(&self.nodes(), held, size)? } else { Vec::new() };
        Ok(texts(&proof))
    }

    fn keep_cosignature(&mut self, note: &str, key: &str, who: Who) -> Result<Value, String> {
        let key: VerifierKey = key.trim().parse().map_err(|error: starling_audit::KeyError| error.to_string())?;
        let signed = Note::parse(note).map_err(|error| error.to_string())?;
        let seen = signed.verify(&key).map_err(|error| error.to_string())?;
        seen.ok_or("this is no witness's key: a log's key does not co-sign")?;
        let checkpoint: starling_audit::Checkpoint =
            signed.text().parse().map_err(|error: starling_audit::CheckpointError| error.to_string())?;
        let place = storage::record_key(checkpoint.size);
        let stored = self.store.get::<String>(storage::CHECKPOINTS, &place).map_err(|error| chain(&error))?;
        let stored = stored.ok_or_else(|| format!("the log keeps no checkpoint of {} records", checkpoint.size))?;
        let mut stored = Note::parse(&stored).map_err(|error| error.to_string())?;
        stored.merge(signed).map_err(|_| "this is not the checkpoint that the log signed".to_owned())?;
        let about = About {
            digest: Some(starling_wire::Digest::of(key.to_string().as_bytes())),
            count: Some(checkpoint.size),
            ..About::default()
        };
        self.record(Entry::done(who, Action::CheckpointCosigned, about), None);
        let mut batch = Batch::new();
        let written = (|| {
            batch.put(storage::CHECKPOINTS, &place, &stored.to_string())?;
            self.write_into(&mut batch, false)?;
            self.store.commit(batch)?;
            self.settle()
        })();
        written.map_err(|error: AuditError| chain(&error))?;
        if let Some((newest, note)) = &mut self.newest
            && *newest == checkpoint
        {
            *note = stored.clone();
        }
        let by = (key.name().to_owned(), key.id());
        self.cosigned.take(by, checkpoint.clone(), stored.clone());
        Ok(json!({ "size": checkpoint.size, "signers": stored.signers().collect::<Vec<_>>() }))
    }

    /// That the update of `device` is in the log, under the newest checkpoint.
    ///
    /// # Errors
    /// [`Refusal::UnknownRun`] for a round that committed nothing, [`Refusal::NotInCohort`] where the device has no update in it.
    pub(crate) fn receipt(&self, device: DeviceId, want: &WantReceipt) -> Result<Receipt, Refusal> {
        let internal = |error: AuditError| {
            tracing::error!(error = chain(&error), "a receipt could not be made");
            Refusal::Internal
        };
        let (checkpoint, note) = self.newest.as_ref().ok_or(Refusal::UnknownRun)?;
        let seq = self.find(device, want.run, want.round).map_err(internal)??;
        let lines = storage::lines(&self.store, seq, seq + 1).map_err(internal)?;
        let (_, line) = lines.into_iter().next().ok_or(Refusal::Internal)?;
        let held = if want.held <= checkpoint.size { want.held } else { 0 };
        Ok(Receipt {
            run: want.run,
            round: want.round,
            key: self.key.verifier().to_string(),
            record: line.into_bytes(),
            inclusion: inclusion_proof(&self.nodes(), seq, checkpoint.size).map_err(internal)?,
            checkpoint: note.to_string(),
            consistency: consistency_proof(&self.nodes(), held, checkpoint.size).map_err(internal)?,
        })
    }

    fn find(&self, device: DeviceId, run: RunId, round: u32) -> Result<Result<u64, Refusal>, AuditError> {
        if let Some((.., records)) = self.committed.iter().find(|(of, number, _)| (*of, *number) == (run, round)) {
            return Ok(records.get(&device).copied().ok_or(Refusal::NotInCohort));
        }
        let Some(span) = self.store.get::<Span>(storage::ROUNDS, &storage::round_key(run, round))? else {
            return Ok(Err(Refusal::UnknownRun));
        };
        let mut from = span.first;
        while from < span.last {
            for (seq, line) in storage::lines(&self.store, from, span.last)? {
                let Ok(record) = Record::decode(line.as_bytes()) else { continue };
                let about = (record.about.run, record.about.round);
                if record.what == Action::UpdateAdmitted
                    && record.who == Who::Certificate(Role::Device, device)
                    && about == (Some(run.0), Some(round))
                {
                    return Ok(Ok(seq));
                }
            }
            from = (from / storage::SEGMENT_RECORDS + 1) * storage::SEGMENT_RECORDS;
        }
        Ok(Err(Refusal::NotInCohort))
    }
}

fn texts(digests: &[starling_wire::Digest]) -> Vec<String> {
    digests.iter().map(ToString::to_string).collect()
}
