//! Forgetting a device: from the operator's word to a signed certificate.
//!
//! ```text
//!  operator ── device forget ──▶ hub: bar it, cut it, take its update out of open rounds
//!                                 ├──▶ registrar: retire it (durable; a crash from here on is followed by the rest)
//!                                 └─ Job::Trace ─▶ worker, on a thread of its own: what has learnt from it?
//!                                ┌◀─ Event::Traced
//!                               hub: with --unlearn, runs begin anew without it (`hub/forget.rs`)
//!                                └─ Job::Erase ─▶ worker: its key and all that it seals, the certificate, the record
//! ```
//!
//! The order is what makes the certificate true: the device is out before its contributions are counted, they are counted before its
//! key goes, and the certificate is signed when the key is gone.

mod medium;

use std::collections::BTreeMap;
use std::error::Error;

use starling_audit::erasure::{Certificate, Destroyed, Unlearned};
use starling_audit::{About, Action, Entry, Who};
use starling_daemon::now_unix_s;
use starling_spec::TaskFile;
use starling_store::{Batch, Store};
use starling_wire::{DeviceId, Digest, RunId};

use crate::audit::AuditLog;
use crate::audit::influence::{self, Influence};
use crate::enrolment::devices::{self, DeviceRecord};
use crate::event::AdminReply;
use crate::export;
use crate::kept::{self, KeptVersion};
use crate::noise_tree;
use crate::records;
use crate::worker::chain;

/// A device that is being forgotten, or would be.
#[derive(Debug)]
pub(crate) struct Forgetting {
    pub(crate) device: DeviceId,
    /// What was known of it.
    pub(crate) record: Option<DeviceRecord>,
    /// Devices that belong to the fleet without it.
    pub(crate) devices_left: u32,
    pub(crate) who: Who,
    /// Only say what would be done.
    pub(crate) plan: bool,
    pub(crate) unlearn: bool,
    /// Who waits; nobody where a crash interrupted it.
    pub(crate) reply: Option<AdminReply>,
}

impl Forgetting {
    pub(crate) fn answer(self, answer: Result<serde_json::Value, String>) {
        match (self.reply, answer) {
            // The operator may have gone away.
            (Some(reply), answer) => drop(reply.send(answer.map(Into::into))),
            (None, Err(error)) => tracing::error!(device = %self.device, error, "a device could not be forgotten"),
            (None, Ok(_)) => {}
        }
    }
}

/// Where a run would begin anew.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) task: TaskFile,
    /// The newest version that is kept from before the device's first round; without one, the run's first version.
    pub(crate) kept: Option<KeptVersion>,
}

/// What was found about a device.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) influence: Influence,
    /// The runs that can be unlearned.
    pub(crate) starts: BTreeMap<RunId, Start>,
    /// When the erasure would be final if it were done now.
    pub(crate) final_unix_s: u64,
}

/// A device's end.
#[derive(Debug)]
pub(crate) struct Erasure {
    pub(crate) forgetting: Forgetting,
    pub(crate) influence: Influence,
    /// The runs that take the place of others.
    pub(crate) unlearned: BTreeMap<RunId, Unlearned>,
}

/// The certificate of a device that was forgotten before, if it was.
pub(crate) fn certificate(store: &Store, device: DeviceId) -> Result<Option<String>, Box<dyn Error>> {
    let gone = devices::gone_of(store, device)?;
    let Some(blob) = gone.and_then(|gone| gone.certificate) else { return Ok(None) };
    Ok(Some(String::from_utf8(export::blob(store, &blob)?)?))
}

/// Looks for what has learnt from a device. Blocks.
pub(crate) fn trace(store: &Store, device: DeviceId, log_records: u64) -> Result<Traced, Box<dyn Error>> {
    let influence = influence::trace(store, device, log_records)?;
    let mut starts = BTreeMap::new();
    for record in records::runs(store)?.iter().filter(|record| record.replaced_by.is_none()) {
        let Some(contributions) = influence.runs.get(&record.run) else { continue };
        let first = contributions.rounds.first().copied().unwrap_or(0);
        let kept = kept::of_run(store, record.run)?.into_iter().rfind(|kept| kept.round < first);
        let task = serde_json::from_slice(&export::blob(store, &record.task_blob)?)?;
        starts.insert(record.run, Start { task, kept });
    }
    let now = now_unix_s();
    let final_unix_s = store.erasure_final_unix_s(now)?.unwrap_or(now);
    Ok(Traced { influence, starts, final_unix_s })
}

/// Destroys what belongs to a device, and signs that. Returns the certificate.
pub(crate) fn erase(store: &Store, audit: &mut AuditLog, erasure: &Erasure) -> Result<String, Box<dyn Error>> {
    let Erasure { forgetting, influence, unlearned } = erasure;
    let device = forgetting.device;
    let id = device.to_string();
    // After a crash the name is where it was, until the key goes.
    let record = match &forgetting.record {
        Some(record) => Some(record.clone()),
        None => devices::record(store, &id)?,
    };
    let strangers_fields = audit.forget(device, record.as_ref().map(|record| &*record.name))?;
    let mut turns = Batch::new();
    noise_tree::forget(store, &mut turns, &device)?;
    store.commit(turns)?;
    let forgotten = store.forget(&id)?;
    let erased_unix_s = now_unix_s();
    let mut runs: Vec<_> = influence.runs.iter().map(|(run, found)| found.stated(*run)).collect();
    runs.iter_mut().for_each(|run| run.unlearned = unlearned.get(&RunId(run.run)).copied());
    let certificate = Certificate {
        device,
        erased_unix_s,
        final_unix_s: store.erasure_final_unix_s(erased_unix_s)?.unwrap_or(erased_unix_s),
        method: "cryptographic erase (NIST SP 800-88): the device's data key and its wraps were overwritten and removed".into(),
        file_system: medium::file_system(store.path()),
        destroyed: Destroyed {
            key: forgotten.key_destroyed,
            records: forgotten.records,
            blobs: forgotten.blobs,
            strangers_fields: strangers_fields as u64,
        },
        runs,
        releases: influence.releases.clone(),
        log_records: influence.log_records,
        unreadable: influence.unreadable.clone(),
        kept: vec![
            "the device's id, a random number, in the audit log: with digests and weights of its updates".into(),
            "serial numbers of its certificates, for the revocation list".into(),
        ],
        not_reached: vec![
            "models and releases that are listed here: what they learnt cannot be subtracted".into(),
            "copies that were carried elsewhere: escrow copies with the recovery key, exports of the audit log with names, the daemon's own log".into(),
            "old blocks of flash and of file systems that copy on write, for whoever has an old key ring and its master key: rotate the keys".into(),
        ],
    };
    let note = audit.sign(&certificate);
    let digest = Digest::of(note.as_bytes());
    store.put_blob(&digest.to_string(), note.as_bytes())?;
    let mut gone = devices::gone_of(store, device)?.unwrap_or_default();
    gone.certificate = Some(digest.to_string());
    let mut batch = Batch::new();
    devices::put_gone(device, &gone, &mut batch)?;
    let about = About { device: Some(device), digest: Some(digest), ..About::default() };
    audit.record(Entry::done(forgetting.who, Action::DeviceErased, about), None);
    audit.write_into(&mut batch, true)?;
    store.commit(batch)?;
    audit.settle()?;
    tracing::warn!(%device, final_unix_s = certificate.final_unix_s, "a device was forgotten");
    Ok(note)
}

/// What the worker's thread answers a trace with: the certificate where the device was forgotten before.
pub(crate) fn trace_or_certificate(
    store: &Store,
    forgetting: &Forgetting,
    log_records: u64,
) -> Result<Result<Traced, String>, String> {
    let said = |error: Box<dyn Error>| chain(&*error);
    match certificate(store, forgetting.device).map_err(said)? {
        Some(certificate) => Ok(Err(certificate)),
        None => Ok(Ok(trace(store, forgetting.device, log_records).map_err(said)?)),
    }
}
