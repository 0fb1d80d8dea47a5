//! Checking backups: every digest, then a whole restore into a scratch folder where the keys are at hand.

use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::{Repository, digest_of};
use crate::{KeySource, StoreError};

/// A file of a backup that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// A backup that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The backup.
    pub id: String,
    /// What is wrong; nothing when it is whole.
    pub faults: Vec<Fault>,
    /// Whether it was restored into a scratch folder and every record and blob opened.
    pub restored: bool,
}

impl Repository {
    /// Checks all backups. `keys` is the state folder whose key ring opens them and its master key; without it digests are checked
    /// and nothing is opened.
    ///
    /// # Errors
    /// The repository cannot be listed.
    pub fn verify(&self, keys: Option<(&Path, &KeySource)>) -> Result<Vec<Verified>, StoreError> {
        let all = self.list()?;
        let verified = all.into_iter().map(|(id, manifest)| {
            let mut faults = match &manifest {
                Ok(manifest) => self.faults(manifest),
                Err(error) => vec![Fault { file: self.manifest(&id), problem: error.to_string() }],
            };
            let mut restored = false;
            if let (Ok(manifest), Some((state, source)), true) = (&manifest, keys, faults.is_empty()) {
                match self.drill(manifest, state, source) {
                    Ok(()) => restored = true,
                    Err(error) => {
                        faults
                            .push(Fault { file: self.manifest(&id), problem: format!("it does not restore: {error}") });
                    }
                }
            }
            Verified { id, faults, restored }
        });
        Ok(verified.collect())
    }

    /// The files of a backup that are not what the manifest says.
    pub(super) fn faults(&self, manifest: &Manifest) -> Vec<Fault> {
        let check = |entry: &super::manifest::Entry| {
            let file = self.object(&entry.digest);
            let problem = match digest_of(&file) {
                Ok((digest, bytes)) if digest == entry.digest && bytes == entry.bytes => return None,
                Ok((digest, _)) => format!("changed: its digest is {digest}"),
                Err(error) => format!("cannot be read: {error}"),
            };
            Some(Fault { file, problem })
        };
        manifest.entries().filter_map(check).collect()
    }
}
