//! Making a backup beside the work of the daemon.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::manifest::{Entry, Manifest};
use super::{BackupError, Repository, copy, digest_of, remove_file, sync_folder};
use crate::blobs::{is_hex, list};
use crate::{Store, StoreError};

/// What a backup cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its manifest.
    pub manifest: Manifest,
    /// Files that were copied: the others were there.
    pub files_copied: usize,
    /// Their bytes.
    pub bytes_copied: u64,
    /// Older backups that were removed.
    pub removed: usize,
}

impl Repository {
    /// Backs an open store up, and keeps the newest `keep` backups (at least this one). `now_unix_s` goes into its name.
    ///
    /// # Errors
    /// The disk says no; what was there before is untouched then.
    pub fn create(&self, store: &Store, now_unix_s: u64, keep: usize) -> Result<Created, StoreError> {
        let scratch = tempfile::Builder::new()
            .prefix(super::LINKS_PREFIX)
            .tempdir_in(store.path())
            .map_err(BackupError::io("create a folder in", store.path()))?;
        let (pairs, links) = store.records.snapshot(|| link_blobs(store, scratch.path()))?;
        let commits = store.anchor_of(&pairs)?;
        let records_path = scratch.path().join("records");
        write_records(&records_path, &pairs).map_err(BackupError::io("write", &records_path))?;
        drop(pairs);

        let mut created = Created {
            manifest: Manifest::new(
                format!("{now_unix_s:012}-{commits:012}"),
                now_unix_s,
                store.ring.id,
                commits,
                Entry { path: String::new(), digest: String::new(), bytes: 0 },
            ),
            files_copied: 0,
            bytes_copied: 0,
            removed: 0,
        };
        created.manifest.records = self.keep_object(&records_path, String::new(), &mut created)?;
        for (path, name) in links {
            let entry = self.keep_object(&path, name, &mut created)?;
            created.manifest.blobs.push(entry);
        }
        sync_folder(&self.path.join("objects"))?;
        created.manifest = created.manifest.clone().sealed(&store.names);
        let path = self.manifest(&created.manifest.id);
        crate::keys::file::replace(&path, &created.manifest.to_bytes())?;
        created.removed = self.retire(keep.max(1))?;
        Ok(created)
    }

    /// Copies a file among the objects, unless it is there and whole.
    fn keep_object(&self, from: &Path, place: String, created: &mut Created) -> Result<Entry, StoreError> {
        let (digest, bytes) = digest_of(from).map_err(BackupError::io("read", from))?;
        let to = self.object(&digest);
        if !matches!(digest_of(&to), Ok((found, _)) if found == digest) {
            copy(from, &to)?;
            created.files_copied += 1;
            created.bytes_copied += bytes;
        }
        Ok(Entry { path: place, digest, bytes })
    }

    /// Removes a backup, if it is there, and what no other needs.
    ///
    /// # Errors
    /// The disk says no.
    pub fn remove(&self, id: &str) -> Result<(), StoreError> {
        if self.list()?.iter().any(|(there, _)| there == id) {
            remove_file(&self.manifest(id))?;
        }
        self.sweep()
    }

    /// Removes all but the newest `keep` backups.
    fn retire(&self, keep: usize) -> Result<usize, StoreError> {
        let all = self.list()?;
        let old = all.len().saturating_sub(keep);
        for (id, _) in &all[..old] {
            remove_file(&self.manifest(id))?;
        }
        self.sweep()?;
        Ok(old)
    }

    /// Removes the objects that no manifest names. While a manifest cannot be read, objects stay: it may name them.
    fn sweep(&self) -> Result<(), StoreError> {
        sync_folder(&self.path.join("backups"))?;
        let all = self.list()?;
        let kept: Result<Vec<&Manifest>, _> = all.iter().map(|(_, manifest)| manifest.as_ref()).collect();
        if let Ok(kept) = kept {
            let named: BTreeSet<&str> =
                kept.iter().flat_map(|manifest| manifest.entries().map(|entry| entry.digest.as_str())).collect();
            for name in list(&self.path.join("objects"))? {
                if !named.contains(name.as_str()) {
                    remove_file(&self.object(&name))?;
                }
            }
            sync_folder(&self.path.join("objects"))?;
        }
        Ok(())
    }
}

/// A second name for every blob, so that none of them goes while it is copied: (file, place in `blobs/`).
fn link_blobs(store: &Store, scratch: &Path) -> Result<Vec<(PathBuf, String)>, StoreError> {
    let _held = store.blobs.hold();
    let root = store.path().join("blobs");
    let mut links = Vec::new();
    for folder in store.blobs.folders()? {
        let prefix = folder.strip_prefix(&root).ok().and_then(Path::to_str).unwrap_or_default().to_owned();
        for name in list(&folder)?.into_iter().filter(|name| is_hex(name, 64)) {
            let place = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            let link = scratch.join(format!("{}", links.len()));
            match fs::hard_link(folder.join(&name), &link) {
                Ok(()) => links.push((link, place)),
                Err(error) => return Err(BackupError::io("link", &folder.join(&name))(error).into()),
            }
        }
    }
    links.sort_by(|(_, one), (_, other)| one.cmp(other));
    Ok(links)
}

/// Name and value of each record, each behind its length (u32).
fn write_records(path: &Path, pairs: &[(sled::IVec, sled::IVec)]) -> io::Result<()> {
    let mut out = BufWriter::new(fs::File::create(path)?);
    for part in pairs.iter().flat_map(|(name, value)| [name, value]) {
        let length = u32::try_from(part.len()).map_err(io::Error::other)?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(part)?;
    }
    out.flush()
}

/// What [`write_records`] wrote; `None` when it is something else.
pub(super) fn read_records(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut rest = bytes;
    let mut part = || -> Option<&[u8]> {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (part, behind) = behind.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        rest = behind;
        Some(part)
    };
    let mut pairs = Vec::new();
    let mut left = bytes.len();
    while left > 0 {
        let pair = (part()?, part()?);
        left -= 8 + pair.0.len() + pair.1.len();
        pairs.push(pair);
    }
    Some(pairs)
}
