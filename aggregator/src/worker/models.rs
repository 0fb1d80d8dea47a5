//! A run's model in the worker's memory: loaded from what is stored, and one version further with each commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use starling_audit::{About, Action, Entry};
use starling_daemon::entropy;
use starling_protocol::run::cohort_max;
use starling_spec::{CodecSpec, TaskPlan};
use starling_store::Batch;
use starling_trust::Subject;
use starling_update::{Fold, RoundNumbers, SummedFigures, Version, difference};
use starling_wire::{Address, Digest};

use super::{Budget, Committed, Loaded, Model, NewRun, State};
use crate::bundles;
use crate::export;
use crate::kept::{self, KeptVersion};
use crate::ledger::Ledger;
use crate::noise_tree::{self, NoiseTree};
use crate::records::{self, RoundRecord, RunRecord};

impl State {
    pub(super) fn load(
        &mut self,
        mut record: RunRecord,
        new: Option<NewRun>,
    ) -> Result<Loaded, Box<dyn std::error::Error>> {
        let starter = new.as_ref().map(|new| new.who);
        let (mut weights, mut begin) = (None, None);
        let mut bundle = bundles::load(&self.store, &bundles::of_run(record.run))?;
        let task = match new {
            Some(NewRun { task, weights: given, kept, bundle: signed, who: _ }) => {
                weights = given;
                begin = kept;
                bundle = match record.origin {
                    // The same plan again: what was signed of it holds for it.
                    Some((from, _)) => bundles::load(&self.store, &bundles::of_run(from))?,
                    None => Bytes::from(signed),
                };
                let json = serde_json::to_vec(&task)?;
                record.task_blob = Digest::of(&json).to_string();
                self.store.put_blob(&record.task_blob, &json)?;
                task
            }
            None => serde_json::from_slice(&export::blob(&self.store, &record.task_blob)?)?,
        };
        let plan = Arc::new(TaskPlan::new(&task, record.seed)?);
        if starter.is_some() && record.origin.is_none() && !bundle.is_empty() {
            bundles::check(&bundle, Subject::Plan, &plan.name, &plan.to_json())?;
        }
        let manifest = plan.manifest()?;
        let count = manifest.len();
        record.clip = record.clip.or(plan.adaptive_clip());
        let numbers = RoundNumbers::of(&plan, record.clip, cohort_max(&task.federation))?;
        let master = match (&weights, record.master_blob.is_empty()) {
            (_, false) => export::master(&self.store, &record.master_blob, count)?,
            (None, true) if let Some(kept) = &begin => export::master(&self.store, &kept.master_blob, count)?,
            (None, true) => starling_spec::init::initial_parameters(&manifest, plan.seed),
            (Some(file), true) => export::start_weights(file, &manifest, &task.name)?,
        };
        let given = weights.is_some();
        drop(weights);
        let version = Version::publish(record.version, master, plan.update.down)?;
        let mut batch = Batch::new();
        let ledger = Ledger::open(&self.store, &mut batch, record.run, &plan)?;
        let tree = NoiseTree::open(&self.store, &mut batch, record.run, &plan)?;
        let turns =
            Arc::new(if tree.is_some() { noise_tree::turns(&self.store, record.run)? } else { BTreeMap::new() });
        if record.master_blob.is_empty() {
            self.store_version(&mut record, &version)?;
            if let Some(who) = starter {
                let digest = record.task_blob.parse().ok();
                let about = About { run: Some(record.run.0), digest, ..About::default() };
                self.audit.record(Entry::done(who, Action::RunStarted, about), None);
            }
            if given {
                // No seed brings them back.
                let master_blob = record.master_blob.clone();
                kept::put(&mut batch, &KeptVersion { run: record.run, round: 0, version: 0, master_blob })?;
            }
            bundles::put(&self.store, &mut batch, &bundles::of_run(record.run), &bundle)?;
            self.write(batch, &record, None, false)?;
        } else if record.version_blob != version.digest().to_string() {
            return Err("the stored model does not encode to the version that was published".into());
        } else if !batch.is_empty() {
            self.store.commit(batch)?;
        }
        let budget = ledger.as_ref().map(Budget::of);
        let reference = version.reference();
        let attempt_first = attempt_first(self.store.era()?);
        let tensors = manifest.tensors.len();
        let loaded = Loaded {
            record,
            plan,
            task: Arc::new(task),
            numbers,
            reference,
            tensors,
            turns,
            attempt_first,
            bundle,
            budget,
        };
        let whole = (reference.codec, reference.digest, version.encoded().clone());
        self.shelf.put(loaded.record.run, whole, None, &loaded.record.tags);
        let model = Model {
            loaded: loaded.clone(),
            version,
            ledger,
            tree,
            fold: None,
            summing: None,
            loss_sum: 0.0,
            loss_weight: 0.0,
        };
        self.models.insert(loaded.record.run, model);
        Ok(loaded)
    }

    /// Writes the version's blobs and names them in the record; the record itself is written by the caller, after.
    fn store_version(&self, record: &mut RunRecord, version: &Version) -> Result<(), Box<dyn std::error::Error>> {
        let digest = version.digest().to_string();
        self.store.put_blob(&digest, version.encoded())?;
        record.version = version.number();
        record.version_blob = digest;
        // In f32 the published bytes are the master's: one file serves both.
        record.master_blob = if version.codec() == CodecSpec::F32 {
            record.version_blob.clone()
        } else {
            let master: Vec<u8> = version.master().iter().flat_map(|value| value.to_le_bytes()).collect();
            let digest = Digest::of(&master).to_string();
            self.store.put_blob(&digest, &master)?;
            digest
        };
        Ok(())
    }

    /// Blobs first, then the record that names them (invariant 4), then the shelf; the old blobs go last.
    pub(super) fn commit(
        &mut self,
        address: Address,
        mut round: RoundRecord,
        started: Instant,
    ) -> Result<Committed, Box<dyn std::error::Error>> {
        let run = address.run;
        let mut model = self.models.remove(&run).ok_or("the run is not in memory")?;
        let summed = model.take_sum()?;
        let mut fold = model.fold.take();
        if model.loaded.numbers.noisy.is_some() {
            // A round in which nobody was is a version too, of noise alone.
            fold.get_or_insert_with(|| Fold::new(&model.loaded.numbers.numerics));
        }
        if let Some((summed, sessions)) = &summed {
            round.sessions = sessions.iter().map(Digest::to_string).collect();
            (round.weight, round.train_loss) = (summed.weight, summed.train_loss);
        } else {
            let fold = fold.as_ref().ok_or("nothing was folded")?;
            round.weight = fold.weight_sum();
            round.contributors = u32::try_from(fold.contributors().len()).unwrap_or(u32::MAX);
            // Not a number where nobody says it.
            round.train_loss = model.loss_sum / model.loss_weight;
        }
        (model.loss_sum, model.loss_weight) = (0.0, 0.0);

        let plan = Arc::clone(&model.loaded.plan);
        let mut batch = Batch::new();
        let sums = model.loaded.numbers.secure.as_ref();
        let figures =
            summed.as_ref().zip(sums).and_then(|((summed, _), sums)| sums.judged(summed, model.version.number()));
        let judged = self.judged(&address, figures, &mut batch)?;
        if let Some(ledger) = &mut model.ledger {
            // With the version's record, and so before anybody can see it.
            ledger.charge(&mut batch, &address)?;
            model.loaded.budget = Some(Budget::of(ledger));
        }
        let old = (model.version.digest(), model.version.encoded().clone());
        let number = model.version.number() + 1;
        let mut master = model.version.into_master();
        let rate = model.loaded.task.federation.server_rate(round.round);
        let RoundNumbers { noisy, secure, .. } = &model.loaded.numbers;
        round.clip = model.loaded.record.clip;
        let next_clip = match (fold, noisy, summed.zip(secure.as_ref())) {
            (Some(fold), Some(noisy), _) => {
                if let Some(tree) = &model.tree {
                    tree.take_turns(&self.store, &mut batch, round.round, fold.contributors())?;
                }
                let words = |node| -> Box<dyn FnMut() -> u64> {
                    match &model.tree {
                        Some(tree) => Box::new(tree.words(node)),
                        None => Box::new(entropy::words()),
                    }
                };
                noisy.apply(fold, round.round, rate, words, &mut master)
            }
            (Some(fold), None, _) => {
                fold.apply_step(rate, &mut master);
                None
            }
            (None, _, Some(((summed, _), secure))) => {
                summed.apply_step(rate, &mut master);
                secure.next_clip(&summed)
            }
            (None, ..) => None,
        };
        if next_clip.is_some() {
            model.loaded.numbers = RoundNumbers::of(&plan, next_clip, cohort_max(&model.loaded.task.federation))?;
        }
        let version = Version::publish(number, master, plan.update.down)?;
        round.version = number;
        if let Some(evaluator) = &self.making.evaluator {
            match evaluator.evaluate(&plan, &version.decoded()) {
                Ok(figures) => {
                    round.test_accuracy = figures.and_then(|figures| figures.accuracy);
                    round.test_loss = figures.map(|figures| figures.loss);
                }
                Err(problem) => tracing::warn!(run = run.0, problem, "a version could not be tested"),
            }
        }

        let before = model.loaded.record.clone();
        let record = &mut model.loaded.record;
        self.store_version(record, &version)?;
        record.rounds_committed = round.round;
        record.attempt = model.loaded.attempt_first;
        record.clip = next_clip.or(record.clip);
        round.wall_s = started.elapsed().as_secs_f64();
        self.audit.committed(&address, number, version.digest(), round.weight);
        let record = model.loaded.record.clone();
        let dropped = self.keep_version(&record, round.round, &mut batch)?;
        self.write(batch, &record, Some(&round), true)?;
        round.wall_s = started.elapsed().as_secs_f64();
        // A run that began with another one's model, or with the same weights, names the same file.
        let old_blobs = [&before.version_blob, &before.master_blob].into_iter().chain(&dropped);
        records::remove_unnamed(&self.store, old_blobs)?;

        let reference = version.reference();
        let wanted = model.loaded.task.update.difference && plan.update.down != CodecSpec::F32;
        let difference = wanted.then(|| difference::encode(&old.1, version.encoded())).flatten();
        let whole = (reference.codec, reference.digest, version.encoded().clone());
        let difference = difference.map(|bytes| (old.0, Bytes::from(bytes)));
        self.shelf.put(run, whole, difference, &model.loaded.record.tags);
        model.loaded.reference = reference;
        model.version = version;
        let loaded = model.loaded.clone();
        self.models.insert(run, model);
        Ok(Committed { loaded, round, judged })
    }

    /// The record of the round before `address`, with what this round's devices say of its version: written in `batch`.
    fn judged(
        &self,
        address: &Address,
        figures: Option<SummedFigures>,
        batch: &mut Batch,
    ) -> Result<Option<RoundRecord>, Box<dyn std::error::Error>> {
        let Some(figures) = figures else { return Ok(None) };
        let Some(mut before) = records::round(&self.store, address.run, address.round.saturating_sub(1))? else {
            return Ok(None);
        };
        before.note_figures(&figures);
        records::put_round(batch, address.run, &before)?;
        Ok(Some(before))
    }
}

/// Where attempts begin in a state that was restored `era` times: no address of a round that was lost comes again. A round gets by with
/// a thousand attempts, and a folder with 64 restores.
fn attempt_first(era: u64) -> u16 {
    1 + 1000 * u16::try_from(era.min(64)).unwrap_or(64)
}
