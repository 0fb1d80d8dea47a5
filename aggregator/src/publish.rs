//! Publishing a release: the file is checked, given a version and made durable before the first device hears of it.
//!
//! The order is that of model versions (invariant 4): blob, then the record that names it, then the shelf, then the offers;
//! the file that it replaces goes last. A crash in between leaves the old release, or the new one, and at most a blob that
//! nothing names.

use std::path::PathBuf;

use bytes::Bytes;
use starling_compress::Release;
use starling_compress::release::ReleaseError;
use starling_daemon::{ReadError, read_at_most};
use starling_spec::{SpecError, check_tags};
use starling_store::{Batch, Store, StoreError};
use starling_trust::Subject;
use starling_wire::Digest;
use starling_wire::limits::{NAME_BYTES_MAX, RELEASE_BYTES_MAX};

use crate::audit::AuditError;
use crate::bundles::{self, BundleError};
use crate::records::{self, ReleaseRecord};
use crate::shelf::Shelf;

/// Tasks that may have a release: as many files are in memory.
const RELEASES_MAX: usize = 64;

/// What an operator wants published.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) task: String,
    pub(crate) file: ReleaseFile,
    /// One more than the last when not given, or the one that was signed.
    pub(crate) version: Option<u64>,
    /// Only devices with all of these tags are offered it.
    pub(crate) tags: Vec<String>,
    /// What publishers signed of it; empty where nobody did.
    pub(crate) bundle: Vec<u8>,
}

/// A release's file, still to be checked.
#[derive(Debug)]
pub(crate) enum ReleaseFile {
    /// On the aggregator's machine.
    Path(PathBuf),
    /// As it was sent, at most [`RELEASE_BYTES_MAX`].
    Bytes(Bytes),
}

impl ReleaseFile {
    /// What messages call it.
    fn name(&self) -> PathBuf {
        match self {
            ReleaseFile::Path(path) => path.clone(),
            ReleaseFile::Bytes(_) => "the file".into(),
        }
    }

    /// Its bytes, not more than a release may have.
    fn read(&self) -> Result<Bytes, PublishError> {
        let path = match self {
            ReleaseFile::Bytes(bytes) => return Ok(bytes.clone()),
            ReleaseFile::Path(path) => path,
        };
        let bytes = read_at_most(path, "a release", RELEASE_BYTES_MAX)?;
        Ok(Bytes::from(bytes))
    }
}

/// Why a file is not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// No name of a task.
    #[error("a task's name has 1 to {NAME_BYTES_MAX} bytes")]
    Name,
    /// The file, as the aggregator finds it.
    #[error(transparent)]
    File(#[from] ReadError),
    /// The file's content.
    #[error("{path} is no release that can be published")]
    Release {
        path: PathBuf,
        #[source]
        source: ReleaseError,
    },
    /// The file is another task's.
    #[error("{path} is a release of task {found:?}, not of {task:?}; name that one with --task")]
    Task { path: PathBuf, found: String, task: String },
    /// The same file again.
    #[error("this file is version {0} already: devices are offered it whenever they connect")]
    Same(u64),
    /// A version that devices would take for old.
    #[error(
        "version {wanted} is not above the last, {last}: devices never go back; publish the older file as a newer version"
    )]
    Version { wanted: u64, last: u64 },
    /// Tags that no device can have.
    #[error("the release's tags cannot be those of a device")]
    Tags(#[from] SpecError),
    /// Another version than was signed.
    #[error("version {wanted} is asked for, and version {signed} was signed; leave --version out")]
    Signed { wanted: u64, signed: u64 },
    /// What was signed of it.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Too many tasks.
    #[error("{RELEASES_MAX} tasks have a release already, and no more may")]
    Full,
    /// The state folder.
    #[error("the release could not be written to the state folder")]
    Store(#[from] StoreError),
    /// The audit log.
    #[error("the release could not be recorded in the audit log")]
    Audit(#[from] AuditError),
}

/// Reads, checks, numbers and stores what `wanted` names, and puts it on the shelf. `write` makes the record durable, together with what
/// has to be durable with it. The file that is published already is published again where a newer bundle vouches for it. Blocks.
pub(crate) fn publish(
    store: &Store,
    shelf: &Shelf,
    wanted: &Publication,
    write: impl FnOnce(&ReleaseRecord, Batch) -> Result<(), PublishError>,
) -> Result<ReleaseRecord, PublishError> {
    let Publication { task, file, bundle, .. } = wanted;
    if task.is_empty() || task.len() > NAME_BYTES_MAX {
        return Err(PublishError::Name);
    }
    check_tags("tags", &wanted.tags)?;
    let path = file.name();
    let bytes = file.read()?;
    let length = bytes.len() as u64;
    let release = Release::from_bytes(&bytes).map_err(|source| PublishError::Release { path: path.clone(), source })?;
    if release.name != *task {
        return Err(PublishError::Task { path: path.clone(), found: release.name, task: task.clone() });
    }
    let releases = records::releases(store)?;
    let last = releases.iter().find(|release| release.task == *task);
    if last.is_none() && releases.len() >= RELEASES_MAX {
        return Err(PublishError::Full);
    }
    let digest = Digest::of(&bytes);
    let number = last.map_or(0, |last| last.version);
    let signed = match bundle.is_empty() {
        true => None,
        false => Some(bundles::check(bundle, Subject::Release, task, &bytes)?),
    };
    if let (Some(wanted), Some(signed)) = (wanted.version, signed)
        && wanted != signed
    {
        return Err(PublishError::Signed { wanted, signed });
    }
    let asked = signed.or(wanted.version);
    if last.is_some_and(|last| last.digest == digest) && asked.is_none() {
        return Err(PublishError::Same(number));
    }
    // The same file, version and all, with another word for it.
    let vouched_anew = signed == Some(number) && last.is_some_and(|last| last.digest == digest);
    let version = match asked {
        Some(version) if version <= number && !vouched_anew => {
            return Err(PublishError::Version { wanted: version, last: number });
        }
        Some(version) => version,
        None => number + 1,
    };
    let record = ReleaseRecord { task: task.clone(), version, digest, length, tags: wanted.tags.clone() };
    store.put_blob(&digest.to_string(), &bytes)?;
    let key = bundles::of_release(task);
    let before = bundles::load(store, &key)?;
    let mut batch = Batch::new();
    bundles::put(store, &mut batch, &key, bundle)?;
    write(&record, batch)?;
    shelf.put_release(task, digest, bytes, &record.tags);
    if let Some(last) = last.filter(|last| last.digest != digest) {
        store.remove_blob(&last.digest.to_string())?;
    }
    bundles::remove_unnamed(store, &before)?;
    Ok(record)
}

/// Puts the release of each task on the shelf at the start. One whose file is damaged or gone is not offered: what devices
/// hold they keep.
pub(crate) fn put_on_shelf(store: &Store, shelf: &Shelf) -> Result<Vec<ReleaseRecord>, StoreError> {
    let mut releases = records::releases(store)?;
    releases.retain(|release| match store.get_blob(&release.digest.to_string()) {
        Ok(Some(bytes)) => {
            shelf.put_release(&release.task, release.digest, Bytes::from(bytes), &release.tags);
            true
        }
        Ok(None) => {
            tracing::error!(task = release.task, version = release.version, "a release's file is gone; publish it again");
            false
        }
        Err(error) => {
            tracing::error!(task = release.task, version = release.version, %error, "a release cannot be read; publish it again");
            false
        }
    });
    Ok(releases)
}

#[cfg(test)]
mod tests {
    use starling_compress::Compressed;
    use starling_spec::layer::Linear;
    use starling_spec::{Layer, Scale, TaskKind};
    use starling_wire::RELEASE_RUN;

    use super::*;

    fn release(weight: f32) -> Vec<u8> {
        let release = Release {
            name: "sums".into(),
            kind: TaskKind::Classification,
            shape: vec![2],
            scale: Scale::None,
            standardise: None,
            layers: vec![Layer::Linear(Linear { out: 2, bias: false, binary: false })],
            tensors: vec![Compressed::dense(vec![1.0, weight, 1.0, -1.0])],
            inputs: vec![None],
        };
        release.to_bytes()
    }

    struct Place {
        folder: tempfile::TempDir,
        store: Store,
        shelf: Shelf,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let state = folder.path().join("state");
            let store = Store::open(&state, &starling_store::KeySource::beside(&state)).expect("a store");
            Self { folder, store, shelf: Shelf::default() }
        }

        fn publish(&self, bytes: &[u8], version: Option<u64>) -> Result<ReleaseRecord, PublishError> {
            let path = self.folder.path().join("file");
            std::fs::write(&path, bytes).expect("the folder can be written");
            publish(
                &self.store,
                &self.shelf,
                &Publication {
                    task: "sums".into(),
                    file: ReleaseFile::Path(path),
                    version,
                    tags: vec![],
                    bundle: vec![],
                },
                write(&self.store),
            )
        }
    }

    #[test]
    fn inv4_a_release_is_durable_and_on_the_shelf_and_its_predecessor_is_gone() {
        let place = Place::new();
        let first = place.publish(&release(1.0), None).expect("published");
        let second = place.publish(&release(2.0), None).expect("published");
        assert_eq!((first.version, second.version), (1, 2));
        assert_eq!(place.store.blobs().expect("a list"), [second.digest.to_string()]);
        assert!(place.shelf.find(RELEASE_RUN, first.digest, None).is_none());
        let again = Shelf::default();
        assert_eq!(put_on_shelf(&place.store, &again).expect("read"), std::slice::from_ref(&second));
        assert_eq!(again.find(RELEASE_RUN, second.digest, None).expect("offered").bytes, release(2.0));
    }

    #[test]
    fn what_no_device_should_be_offered_is_refused_with_the_reason() {
        let place = Place::new();
        let mut damaged = release(1.0);
        damaged[20] ^= 1;
        assert!(matches!(place.publish(&damaged, None), Err(PublishError::Release { .. })));
        place.publish(&release(1.0), Some(7)).expect("published");
        assert!(matches!(place.publish(&release(1.0), None), Err(PublishError::Same(7))));
        assert!(matches!(place.publish(&release(2.0), Some(7)), Err(PublishError::Version { wanted: 7, last: 7 })));
        let path = place.folder.path().join("file");
        let wanted = Publication {
            task: "other".into(),
            file: ReleaseFile::Path(path),
            version: None,
            tags: vec![],
            bundle: vec![],
        };
        assert!(matches!(
            publish(&place.store, &place.shelf, &wanted, write(&place.store)),
            Err(PublishError::Task { .. })
        ));
    }

    /// The record alone.
    fn write(store: &Store) -> impl FnOnce(&ReleaseRecord, Batch) -> Result<(), PublishError> {
        |release, mut batch| {
            records::put_release(&mut batch, release)?;
            Ok(store.commit(batch)?)
        }
    }
}
