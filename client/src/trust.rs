//! What this device believes of publishers: [`Trusted`] on the disk, and the questions that the daemon asks it.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `trust` | `state` | digest of the trusted state; its bytes are the blob of that digest |
//!
//! Without `[trust]` in the configuration there is no keeper, and whatever an aggregator offers is believed. With it, nothing is
//! fetched before a statement permits it, nothing serves or trains before its bytes are those that were stated, and the state
//! is durable before what it permits is used: versions seen, roots and the latest time only increase, also over restarts.
//!
//! Expiry is compared with the machine's clock, not with the time that an aggregator tells: it must not be able to end what it
//! cannot begin. The later of that clock and of what signed statements vouch for counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use starling_daemon::{ReadError, read_at_most};
use starling_net::Clock;
use starling_spec::TaskPlan;
use starling_store::{Batch, Store, StoreError};
use starling_trust::{Permit, Refused, Subject, Trusted, Verified, limits::BUNDLE_BYTES_MAX};
use starling_wire::{Decline, Digest, Distrust, ReleaseOffer, ReleaseRefusal, RunPlan};

use crate::learner::with_causes;
use crate::status::TrustStatus;

const TRUST: &str = "trust";
const STATE: &str = "state";

/// Nothing runs out.
const NEVER: u64 = u64::MAX;

/// Whose signatures this device asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustSettings {
    /// The fleet's root, as `starling publish root` wrote it; roots that follow it may be in the same file. Releases and plans that
    /// it does not lead to are refused.
    pub root: PathBuf,
    /// What to do when what says what is newest has run out and no newer one came.
    #[serde(default)]
    pub on_expiry: OnExpiry,
}

/// What to do when the freshness statement, or the root, has run out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExpiry {
    /// Say so and go on with the release and the plan that are held. Nothing new is taken in.
    #[default]
    Keep,
    /// Say so, answer no predictions and take part in no round until a newer statement comes.
    Stop,
}

/// Why the state of trust cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The pinned root cannot be read.
    #[error("{} cannot be read; [trust] root names the file that `starling publish root` wrote", .0.path().display())]
    File(#[from] ReadError),
    /// The pinned root is none.
    #[error("{} is no root of trust", .path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Refused,
    },
    /// What an earlier start has left cannot be read.
    #[error("what the state folder remembers of publishers cannot be read; restore the folder from a backup")]
    State(#[source] Refused),
    /// The bytes are gone.
    #[error("what the state folder remembers of publishers is gone; restore the folder from a backup")]
    Gone,
    /// The state folder.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why something is not taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It is not believed; the words have the figures.
    Distrusted(Distrust, String),
    /// What is believed could not be written down.
    NotStored,
}

/// The trusted state of this device, shared by the agent, the threads that install and those that answer.
pub(crate) struct Keeper {
    store: Arc<Store>,
    clock: Arc<Clock>,
    on_expiry: OnExpiry,
    state: Mutex<State>,
    /// When what is known runs out, to be asked without a lock; 0 when a signed statement vouches for a later time already.
    ends_unix_s: AtomicU64,
}

struct State {
    trusted: Trusted,
    blob: Option<Digest>,
    /// Why the newest plan of a task was not believed; no more than there are bound tasks.
    plans: BTreeMap<String, (Distrust, String)>,
}

/// The root in the file at `path`.
///
/// # Errors
/// [`TrustError::File`], [`TrustError::Root`].
pub(crate) fn pinned(path: &Path) -> Result<Trusted, TrustError> {
    let bytes = read_at_most(path, "a root of trust", BUNDLE_BYTES_MAX as u64)?;
    Trusted::pin(&bytes).map_err(|source| TrustError::Root { path: path.to_owned(), source })
}

impl Keeper {
    /// What an earlier start has left, under the root that is pinned now.
    pub(crate) fn open(store: Arc<Store>, clock: Arc<Clock>, settings: &TrustSettings) -> Result<Self, TrustError> {
        let pinned = pinned(&settings.root)?;
        let blob: Option<Digest> = store.get(TRUST, STATE)?;
        let (trusted, changed) = match blob {
            None => (pinned, true),
            Some(digest) => {
                let bytes = store.get_blob(&digest.to_string())?.ok_or(TrustError::Gone)?;
                let before = Trusted::from_bytes(&bytes).map_err(TrustError::State)?;
                let trusted = before.clone().under(pinned);
                let changed = trusted != before;
                (trusted, changed)
            }
        };
        let state = State { trusted: trusted.clone(), blob, plans: BTreeMap::new() };
        let (on_expiry, ends_unix_s) = (settings.on_expiry, AtomicU64::new(NEVER));
        let keeper = Self { store, clock, on_expiry, state: Mutex::new(state), ends_unix_s };
        if changed {
            keeper.write(&mut keeper.lock(), trusted, Batch::new())?;
        } else {
            keeper.note_end(&keeper.lock());
        }
        Ok(keeper)
    }

    /// The blob that belongs to the state.
    pub(crate) fn named(store: &Store) -> Result<Option<String>, StoreError> {
        Ok(store.get::<Digest>(TRUST, STATE)?.map(|digest| digest.to_string()))
    }

    /// Judges what came along with a release or plan of `task`. What is believed of it is durable when this returns. Blocks.
    pub(crate) fn take(&self, bundle: &[u8], subject: Subject, task: &str) -> Result<Permit, NotTaken> {
        if bundle.is_empty() {
            return Err(Distrust::Unsigned.into());
        }
        let mut state = self.lock();
        let outcome = state.trusted.take(bundle, subject, task, self.clock.unfloored_unix_s());
        if outcome.trusted != state.trusted {
            let (before, after) = (state.trusted.root().head().version, outcome.trusted.root().head().version);
            self.write(&mut state, outcome.trusted, Batch::new())?;
            if after != before {
                tracing::info!(before, after, "a newer root of trust");
            }
        }
        Ok(outcome.permit?)
    }

    /// Remembers what was verified, in one batch with the record that lets it be used. Blocks.
    pub(crate) fn hold(&self, verified: &Verified, batch: Batch) -> Result<(), NotTaken> {
        let mut state = self.lock();
        let mut trusted = state.trusted.clone();
        trusted.hold(verified)?;
        Ok(self.write(&mut state, trusted, batch)?)
    }

    /// Judges a plan that was announced. Rounds by it are allowed, or not, by [`Keeper::consent`]. Blocks.
    pub(crate) fn take_plan(&self, announced: &RunPlan) {
        let taken = self.take(&announced.bundle, Subject::Plan, &announced.name).and_then(|permit| {
            let verified = permit.verify(&announced.plan)?;
            self.hold(&verified, Batch::new())
        });
        let mut state = self.lock();
        match taken {
            Ok(()) => {
                state.plans.remove(&announced.name);
            }
            Err(why) => {
                let (reason, text) = why.parts();
                tracing::warn!(run = %announced.run, task = announced.name, reason = text, "a plan is not believed");
                state.plans.insert(announced.name.clone(), (reason, text));
            }
        }
    }

    /// Whether the device may train by this plan now: it is the one that was verified, none newer is known, and what says so has not
    /// run out where the owner wants to stop then.
    pub(crate) fn consent(&self, plan: &TaskPlan) -> Result<(), Decline> {
        let json = plan.to_json();
        let state = self.lock();
        let held = state.trusted.held_as(Subject::Plan, &plan.name, json.len() as u64, Digest::of(&json));
        let reason = match held {
            Err(_) => state.plans.get(&plan.name).map_or(Distrust::NotHeld, |(reason, _)| *reason),
            Ok(held) if state.trusted.is_superseded(&held) => Distrust::NotCurrent,
            Ok(_) if self.stops() => Distrust::Expired,
            Ok(_) => return Ok(()),
        };
        tracing::warn!(task = plan.name, reason = reason.text(), "declined: the plan is not believed");
        Err(Decline::Untrusted(reason))
    }

    /// Whether this is a release that the device has verified.
    pub(crate) fn has_verified(&self, offer: &ReleaseOffer) -> bool {
        self.lock().trusted.held_as(Subject::Release, &offer.task, offer.length, offer.digest).is_ok()
    }

    /// The proof that bytes from the disk are those of a release that the device has verified.
    pub(crate) fn held(&self, task: &str, bytes: &[u8]) -> Result<Verified, NotTaken> {
        Ok(self.lock().trusted.held(Subject::Release, task, bytes)?)
    }

    /// Whether what says what is newest has run out.
    pub(crate) fn has_expired(&self) -> bool {
        self.clock.unfloored_unix_s() >= self.ends_unix_s.load(Ordering::SeqCst)
    }

    /// Whether predictions and rounds are to stop.
    pub(crate) fn stops(&self) -> bool {
        self.on_expiry == OnExpiry::Stop && self.has_expired()
    }

    /// Seconds until [`Keeper::has_expired`] becomes true, if it is not and ever will.
    pub(crate) fn expires_in_s(&self) -> Option<u64> {
        let ends = self.ends_unix_s.load(Ordering::SeqCst);
        ends.checked_sub(self.clock.unfloored_unix_s()).filter(|left| *left > 0 && ends != NEVER)
    }

    /// For the status file.
    pub(crate) fn status(&self) -> TrustStatus {
        let state = self.lock();
        let (root, current) = (state.trusted.root().head(), state.trusted.current());
        TrustStatus {
            origin: state.trusted.origin().to_string(),
            root_version: root.version,
            root_expires_unix_s: root.expires_unix_s,
            freshness_version: current.map(|current| current.head.version),
            freshness_expires_unix_s: current.map(|current| current.head.expires_unix_s),
            expired: self.has_expired(),
            stopped: self.stops(),
            plans: state.plans.iter().map(|(task, (_, text))| (task.clone(), text.clone())).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes, then the record that names them together with `batch`, then the memory; the bytes before go last.
    fn write(&self, state: &mut State, trusted: Trusted, mut batch: Batch) -> Result<(), StoreError> {
        let bytes = trusted.to_bytes();
        let digest = Digest::of(&bytes);
        self.store.put_blob(&digest.to_string(), &bytes)?;
        batch.put(TRUST, STATE, &digest)?;
        self.store.commit(batch)?;
        state.trusted = trusted;
        self.note_end(state);
        if let Some(before) = state.blob.replace(digest).filter(|before| *before != digest)
            && let Err(error) = self.store.remove_blob(&before.to_string())
        {
            // The next start finds that nothing names it.
            tracing::warn!(%error, "an old state of trust could not be removed");
        }
        Ok(())
    }

    fn note_end(&self, state: &State) {
        let ends = match state.trusted.expires_unix_s() {
            Some(ends) if state.trusted.now_unix_s(0) >= ends => 0,
            Some(ends) => ends,
            None => NEVER,
        };
        self.ends_unix_s.store(ends, Ordering::SeqCst);
    }
}

impl NotTaken {
    /// What the aggregator is told of a release.
    pub(crate) fn release(&self) -> ReleaseRefusal {
        match self {
            Self::Distrusted(reason, _) => ReleaseRefusal::Untrusted(*reason),
            Self::NotStored => ReleaseRefusal::NotStored,
        }
    }

    /// Reason and words, with the stable code. What could not be written down is not held either.
    pub(crate) fn parts(self) -> (Distrust, String) {
        match self {
            Self::Distrusted(reason, text) => (reason, format!("{text} (code {} {})", reason.code(), reason.name())),
            Self::NotStored => (Distrust::NotHeld, ReleaseRefusal::NotStored.text().to_owned()),
        }
    }
}

impl From<Distrust> for NotTaken {
    fn from(reason: Distrust) -> Self {
        Self::Distrusted(reason, reason.text().to_owned())
    }
}

impl From<Refused> for NotTaken {
    fn from(refused: Refused) -> Self {
        Self::Distrusted(refused.reason(), refused.to_string())
    }
}

impl From<StoreError> for NotTaken {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = with_causes(&error), "what this device believes could not be written down");
        Self::NotStored
    }
}

#[cfg(test)]
mod tests;
