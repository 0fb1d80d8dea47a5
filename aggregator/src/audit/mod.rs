//! The aggregator's audit log: who did what, when and with what outcome, in records that nobody can change unseen.
//!
//! ```text
//!  hub, worker ── Entry ──▶ AuditLog ── pending ──┬── the batch of a commit (with the run's record: both or neither)
//!                            │ Chain, tree        └── a flush, a second later at most
//!                            └─ every 1,024 records: one blob, and the records leave the small store
//! ```
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `audit` | number | the line of a record that is in no segment yet |
//! | `audit-segments` | index | [`storage::Segment`]: the blob of 1,024 lines, and their root |
//! | `audit-checkpoints` | size | a signed checkpoint, with its co-signatures |
//! | `audit-rounds` | run/round | [`storage::Span`]: where a round's records are |
//! | `audit-enrolments`, in the compartment of the device | digest of a key | [`rolls::Enrolled`]: the record that says that the device has this key |
//! | `audit-personal`, in the compartment of the device, or in that of all strangers | number | salt and value behind a commitment |
//!
//! It lives on the worker's thread, for which it blocks on the disk. Everything goes through the store, so what the store does for
//! its records and blobs (one batch, durable; sealed at rest) holds for the log. Memory: 32 bytes a segment and a record of the tail,
//! 8 segments of leaf hashes, and who contributed to the last rounds.

mod answer;
mod check;
pub(crate) mod influence;
pub(crate) mod key;
mod personal;
mod recorder;
mod repeats;
mod rolls;
mod storage;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use starling_audit::erasure::Certificate;
use starling_audit::{
    About, Action, Chain, Checkpoint, Contribution, Entry, Frontier, Note, Personal, SigningKey, VerifierKey, Who,
    contributors_root,
};
use starling_store::{Batch, Store};
use starling_wire::{Address, DeviceId, Digest, Role, RunId};

pub(crate) use answer::AuditAsk;
pub use key::public_file;
pub(crate) use recorder::Recorder;
use repeats::Repeats;
pub(crate) use rolls::is_enrolled;
use rolls::{Cosigned, Rolls};
pub(crate) use storage::AuditError;
use storage::{SEGMENT_RECORDS, Span};

/// Records that may wait for a batch: then they get one of their own. A commit's batch stays small enough for the store.
const PENDING_MAX: usize = 256;

/// Records after which a checkpoint is signed where no commit asks for one.
const CHECKPOINT_RECORDS: u64 = 256;

/// Rounds whose contributors are looked up in memory, and how many contributors they may have together (24 bytes each).
const ROUNDS_KEPT: usize = 32;
const CONTRIBUTORS_KEPT: usize = 1 << 17;

/// A personal field that goes with an entry.
#[derive(Debug)]
pub(crate) struct Field {
    /// Whose; a stranger has no id.
    pub(crate) device: Option<DeviceId>,
    /// A name, an address.
    pub(crate) value: String,
}

#[derive(Debug)]
struct Pending {
    seq: u64,
    line: String,
    personal: Option<(Option<DeviceId>, Personal)>,
    /// The device that it makes known, and the digest of its key.
    enrols: Option<(DeviceId, Digest)>,
}

/// The updates of one round, by their records.
#[derive(Debug, Default)]
struct Round {
    address: Option<Address>,
    records: BTreeMap<DeviceId, (u64, Digest)>,
}

/// The log.
pub(crate) struct AuditLog {
    store: Arc<Store>,
    key: SigningKey,
    keys: Vec<VerifierKey>,
    chain: Chain,
    /// The roots of full segments, and the leaf hashes after them.
    segments: Vec<Digest>,
    tail: Vec<Digest>,
    pending: Vec<Pending>,
    spans: Vec<(String, Span)>,
    newest: Option<(Checkpoint, Note)>,
    unsaved: bool,
    /// What witnesses have co-signed, and proofs under it.
    cosigned: Cosigned,
    rolls: Rolls,
    open: BTreeMap<RunId, Round>,
    committed: VecDeque<(RunId, u32, BTreeMap<DeviceId, u64>)>,
    leaves: storage::LeafCache,
    /// The number of the compartment in which what belongs to strangers lies.
    strangers: u64,
}

impl AuditLog {
    /// Opens the log of the state folder, or begins it. `log` is the aggregator's id: the log's name. Damage that shows at once is
    /// logged and recorded; the whole log is read by [`check::in_background`], which the caller starts.
    pub(crate) fn open(store: Arc<Store>, log: DeviceId, epoch: u64) -> Result<Self, AuditError> {
        let name = format!("starling-audit/{log}");
        let loaded = storage::load(&store)?;
        let begun = loaded.size() > 0;
        let (key, keys, is_new) = key::open(store.path(), &name, begun)?;
        let mut frontier = Frontier::new();
        loaded.segments.iter().for_each(|root| frontier.push_subtree(*root, SEGMENT_RECORDS.trailing_zeros()));
        loaded.tail.iter().for_each(|leaf| frontier.push(*leaf));
        let last = loaded.tail.last().copied().or(loaded.last);
        let chain = Chain::continuing(frontier, last.unwrap_or(Digest([0; 32])));
        let newest = storage::newest_checkpoint(&store, &keys)?;
        let cosigned = Cosigned::load(&store, &keys)?;
        let mut log = Self {
            key,
            keys,
            chain,
            segments: loaded.segments,
            tail: loaded.tail,
            pending: Vec::new(),
            spans: Vec::new(),
            newest,
            unsaved: false,
            cosigned,
            rolls: Rolls::default(),
            open: BTreeMap::new(),
            committed: VecDeque::new(),
            leaves: storage::LeafCache::default(),
            strangers: personal::strangers(&store)?,
            store,
        };
        if is_new {
            let digest = Some(Digest::of(log.key.verifier().to_string().as_bytes()));
            log.record(Entry::done(Who::System, Action::LogOpened, About { digest, ..About::default() }), None);
        }
        let mut damage = loaded.damage;
        if damage.is_none()
            && let Some((checkpoint, _)) = log.newest.clone()
        {
            let shorter = checkpoint.size > log.size();
            if shorter || log.root_at(checkpoint.size)? != checkpoint.root {
                damage = Some(if shorter { log.size() } else { checkpoint.size.saturating_sub(1) });
            }
        }
        if let Some(record) = damage {
            log.note_damage(record);
        }
        log.record(
            Entry::done(Who::System, Action::DaemonStarted, About { count: Some(epoch), ..About::default() }),
            None,
        );
        log.flush(true)?;
        Ok(log)
    }

    /// Says, and records, that the log is damaged from about `record` on.
    pub(crate) fn note_damage(&mut self, record: u64) {
        tracing::error!(record, "the audit log was changed from outside; `audit verify` shows where");
        self.record(
            Entry::failed(Who::System, Action::DamageFound, About { count: Some(record), ..About::default() }),
            None,
        );
    }

    /// Records so far, those that wait included.
    pub(crate) fn size(&self) -> u64 {
        self.chain.frontier().size()
    }

    /// Appends an entry; it is on the disk with the next batch. Returns its number.
    pub(crate) fn record(&mut self, mut entry: Entry, field: Option<Field>) -> Option<u64> {
        let seq = self.size();
        let personal = field.and_then(|Field { device, value }| {
            if device.is_some_and(|device| self.store.is_forgotten(&device.to_string())) {
                return None;
            }
            let personal = Personal { salt: random()?, value };
            entry.personal = Some(personal.commitment());
            Some((device, personal))
        });
        let enrols = entry.enrols();
        let sealed = match self.chain.append(now_unix_ms(), entry) {
            Ok(sealed) => sealed,
            Err(error) => {
                tracing::error!(error = %error, "an entry could not be written to the audit log");
                return None;
            }
        };
        let line = String::from_utf8(sealed.line).expect("a record is written as JSON");
        self.tail.push(sealed.leaf);
        self.pending.push(Pending { seq, line, personal, enrols });
        Some(seq)
    }

    /// An update was folded. Too many that wait get a batch of their own.
    pub(crate) fn admitted(
        &mut self,
        address: Address,
        contribution: Contribution,
        weight: Option<u32>,
    ) -> Result<(), AuditError> {
        let Contribution { device, digest } = contribution;
        let about = About { digest: Some(digest), weight: weight.map(Into::into), ..about(&address) };
        let who = Who::Certificate(Role::Device, device);
        let seq = self.record(Entry::done(who, Action::UpdateAdmitted, about), None);
        let round = self.open.entry(address.run).or_default();
        if round.address != Some(address) {
            *round = Round { address: Some(address), ..Round::default() };
        }
        round.records.extend(seq.map(|seq| (device, (seq, digest))));
        if self.pending.len() >= PENDING_MAX { self.flush(false) } else { Ok(()) }
    }

    /// A folded update was taken out again: the device is no contributor.
    pub(crate) fn taken_out(&mut self, address: &Address, Contribution { device, digest }: Contribution) {
        if let Some(round) = self.open.get_mut(&address.run).filter(|round| round.address == Some(*address)) {
            round.records.remove(&device);
        }
        let about = About { device: Some(device), digest: Some(digest), ..about(address) };
        self.record(Entry::done(Who::System, Action::UpdateWithdrawn, about), None);
    }

    /// What was folded since the last commit is in no version.
    pub(crate) fn abandoned(&mut self, address: &Address) {
        self.open.remove(&address.run);
        self.record(Entry::done(Who::System, Action::AttemptAbandoned, about(address)), None);
    }

    /// A version is about to be durable: its record goes into the same batch as the run's ([`AuditLog::write_into`]).
    pub(crate) fn committed(&mut self, address: &Address, version: u64, digest: Digest, weight: u64) {
        let round = self.open.remove(&address.run).filter(|round| round.address == Some(*address)).unwrap_or_default();
        let contributions: Vec<Contribution> = round
            .records
            .iter()
            .map(|(device, (_, digest))| Contribution { device: *device, digest: *digest })
            .collect();
        let about = About {
            version: Some(version),
            digest: Some(digest),
            weight: Some(weight),
            contributors: u32::try_from(contributions.len()).ok(),
            contributors_root: Some(contributors_root(&contributions)),
            ..about(address)
        };
        let Some(last) = self.record(Entry::done(Who::System, Action::VersionCommitted, about), None) else { return };
        let records: BTreeMap<DeviceId, u64> = round.records.iter().map(|(device, (seq, _))| (*device, *seq)).collect();
        let first = records.values().copied().min().unwrap_or(last);
        self.spans.push((storage::round_key(address.run, address.round), Span { first, last }));
        self.committed.push_front((address.run, address.round, records));
        let mut kept = 0;
        self.committed.retain(|(.., records)| {
            kept += records.len();
            kept <= CONTRIBUTORS_KEPT
        });
        self.committed.truncate(ROUNDS_KEPT);
    }

    /// Puts what waits into a batch. After the batch is committed the caller says so with [`AuditLog::settle`]; after a failed one
    /// the store takes no more, and the process has to start again.
    pub(crate) fn write_into(&mut self, batch: &mut Batch, sign: bool) -> Result<(), AuditError> {
        for Pending { seq, line, personal, enrols } in &self.pending {
            batch.put(storage::RECORDS, &storage::record_key(*seq), line)?;
            if let Some((device, key)) = enrols {
                self.put_enrolled(*device, key, (*seq, line), batch)?;
            }
            if let Some((device, personal)) = personal {
                self.put_personal(*device, *seq, personal, batch)?;
            }
        }
        for (key, span) in &self.spans {
            batch.put(storage::ROUNDS, key, span)?;
        }
        let signed = self.newest.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size);
        let due = if sign { 1 } else { CHECKPOINT_RECORDS };
        if self.size() - signed.min(self.size()) >= due {
            let origin = self.key.verifier().name().to_owned();
            let checkpoint = Checkpoint { origin, size: self.size(), root: self.chain.frontier().root() };
            let note = self.key.sign(&checkpoint.to_string());
            self.newest = Some((checkpoint, note));
            self.unsaved = true;
        }
        if let Some((checkpoint, note)) = self.newest.as_ref().filter(|_| self.unsaved) {
            batch.put(storage::CHECKPOINTS, &storage::record_key(checkpoint.size), &note.to_string())?;
        }
        Ok(())
    }

    /// The batch is durable.
    pub(crate) fn settle(&mut self) -> Result<(), AuditError> {
        self.pending.clear();
        self.spans.clear();
        self.unsaved = false;
        while self.tail.len() as u64 >= SEGMENT_RECORDS {
            let segment = self.segments.len() as u64;
            let root = storage::roll(&self.store, segment, &mut self.tail)?;
            self.segments.push(root);
        }
        Ok(())
    }

    /// Makes what waits durable; with `sign`, under a checkpoint.
    pub(crate) fn flush(&mut self, sign: bool) -> Result<(), AuditError> {
        let mut batch = Batch::new();
        self.write_into(&mut batch, sign)?;
        if !batch.is_empty() {
            self.store.commit(batch)?;
            self.settle()?;
        }
        Ok(())
    }

    /// A certificate of erasure with the log's signature.
    pub(crate) fn sign(&self, certificate: &Certificate) -> String {
        certificate.sign(&self.key).to_string()
    }

    fn root_at(&self, size: u64) -> Result<Digest, AuditError> {
        starling_audit::range_root(&self.nodes(), 0, size)
    }

    fn nodes(&self) -> storage::LogNodes<'_> {
        storage::LogNodes { store: &self.store, segments: &self.segments, tail: &self.tail, leaves: &self.leaves }
    }
}

/// The fields that say which round.
pub(crate) fn about(address: &Address) -> About {
    let Address { run, round, attempt, .. } = address;
    About { run: Some(run.0), round: Some(*round), attempt: Some(*attempt), ..About::default() }
}

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `N` bytes of the system's entropy; nothing where it has none. A name is then not recorded at all rather than badly hidden.
fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok().map(|()| bytes)
}

pub(crate) use check::in_background;

#[cfg(test)]
mod tests;
