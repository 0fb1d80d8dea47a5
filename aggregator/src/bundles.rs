//! What publishers signed, on its way through: bundles are stored and forwarded with releases and plans. The aggregator holds no
//! key, so it can neither make nor change one; it looks into them only to tell the operator early what devices would refuse.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `bundles` | `run/…` or `release/…` | digest of the bundle; its bytes are the blob of that digest |

use bytes::Bytes;
use starling_daemon::now_unix_s;
use starling_store::{Batch, Store, StoreError};
use starling_trust::{Bundle, Kind, Refused, Subject};
use starling_wire::limits::PLAN_BYTES_MAX;
use starling_wire::{Digest, RunId};

const BUNDLES: &str = "bundles";

/// Why a bundle is not forwarded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// Devices would not believe it.
    #[error("devices would refuse this bundle")]
    Refused(#[from] Refused),
    /// It is about other bytes.
    #[error(
        "the bundle was made for other bytes ({stated_length} bytes, SHA-256 {stated}); this {what} has {length} bytes, SHA-256 {digest}. \
         A plan is the same only with the same task file, overrides and seed"
    )]
    OtherBytes { what: &'static str, stated: Digest, stated_length: u64, digest: Digest, length: u64 },
    /// A plan and its bundle are one frame.
    #[error(
        "plan and bundle have {0} bytes together, at most {PLAN_BYTES_MAX} fit in one frame; leave older roots out of the bundle"
    )]
    TooLarge(usize),
    /// There is nothing to renew with.
    #[error("the bundle holds no freshness statement; `starling publish freshness` makes one")]
    NoFreshness,
    /// The state folder.
    #[error("the bundle could not be written to the state folder")]
    Store(#[from] StoreError),
}

/// The key of a run's bundle.
pub(crate) fn of_run(run: RunId) -> String {
    format!("run/{:010}", run.0)
}

/// The key of the bundle of a task's release.
pub(crate) fn of_release(task: &str) -> String {
    // A name may be longer than a key.
    format!("release/{}", Digest::of(task.as_bytes()))
}

/// The version that `bundle` states of `bytes`, if devices will believe it as far as can be foreseen here.
pub(crate) fn check(bundle: &[u8], subject: Subject, task: &str, bytes: &[u8]) -> Result<u64, BundleError> {
    let permit = Bundle::parse(bundle)?.foresee(subject, task, now_unix_s())?;
    let (digest, length) = (Digest::of(bytes), bytes.len() as u64);
    if (permit.digest(), permit.length()) != (digest, length) {
        let what = subject.kind().word();
        return Err(BundleError::OtherBytes {
            what,
            stated: permit.digest(),
            stated_length: permit.length(),
            digest,
            length,
        });
    }
    if subject == Subject::Plan && bundle.len() + bytes.len() > PLAN_BYTES_MAX {
        return Err(BundleError::TooLarge(bundle.len() + bytes.len()));
    }
    Ok(permit.artefact().head.version)
}

/// The bundle that is stored under `key`; empty when there is none.
pub(crate) fn load(store: &Store, key: &str) -> Result<Bytes, StoreError> {
    let Some(digest) = store.get::<Digest>(BUNDLES, key)? else { return Ok(Bytes::new()) };
    let bytes = store.get_blob(&digest.to_string())?;
    if bytes.is_none() {
        tracing::error!(key, "a bundle of signatures is gone; publish it again");
    }
    Ok(bytes.map(Bytes::from).unwrap_or_default())
}

/// Writes a bundle, and puts that it belongs to `key` into `batch`; an empty one belongs to nobody.
pub(crate) fn put(store: &Store, batch: &mut Batch, key: &str, bundle: &[u8]) -> Result<(), StoreError> {
    if bundle.is_empty() {
        batch.remove(BUNDLES, key);
        return Ok(());
    }
    let digest = Digest::of(bundle);
    store.put_blob(&digest.to_string(), bundle)?;
    batch.put(BUNDLES, key, &digest)
}

/// Removes a bundle that was replaced, unless another run has the same.
pub(crate) fn remove_unnamed(store: &Store, old: &[u8]) -> Result<(), StoreError> {
    let digest = Digest::of(old);
    if old.is_empty() || store.scan::<Digest>(BUNDLES)?.iter().any(|(_, named)| *named == digest) {
        return Ok(());
    }
    store.remove_blob(&digest.to_string())
}

/// `old` with the roots and the freshness statement of `newer`, if devices will believe that.
pub(crate) fn renew(old: &[u8], newer: &Bundle, subject: Subject) -> Result<Vec<u8>, BundleError> {
    let old = Bundle::parse(old)?;
    let version = |bundle: &Bundle| bundle.of(Kind::Current).map(|document| document.statement().head().version).max();
    let got = version(newer).ok_or(BundleError::NoFreshness)?;
    if let Some(seen) = version(&old).filter(|seen| *seen > got) {
        return Err(Refused::Rollback { what: "freshness statement", got, seen }.into());
    }
    let task = old.artefact(subject).map(|artefact| artefact.task.clone()).unwrap_or_default();
    let renewed = old.renewed(newer);
    renewed.foresee(subject, &task, now_unix_s())?;
    Ok(renewed.to_bytes()?)
}

/// When the freshness statement in a bundle runs out, in seconds since 1970.
pub(crate) fn fresh_until_unix_s(bundle: &[u8]) -> Option<u64> {
    let bundle = Bundle::parse(bundle).ok()?;
    bundle.of(Kind::Current).map(|document| document.statement().head().expires_unix_s).max()
}
