//! The list of what a backup holds: JSON, then a line with the SHA-256 of everything in front of it.

use std::fs;
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::BackupError;
use crate::blobs::is_hex;
use crate::keys::secret::hex;
use crate::names::Names;

/// The largest manifest, in bytes: 250,000 blobs.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
const FORMAT: u32 = 1;

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The file's place in `blobs/` of the state folder; empty for the records.
    pub path: String,
    /// The SHA-256 of the sealed file, and its name among the objects.
    pub digest: String,
    /// Its length.
    pub bytes: u64,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of this file.
    pub format: u32,
    /// The backup's name: when it was made, then the number of commits.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub made_unix_s: u64,
    /// Of which store: its public id, in hex.
    pub store: String,
    /// The commits that are in it.
    pub commits: u64,
    /// The records.
    pub records: Entry,
    /// The blobs.
    pub blobs: Vec<Entry>,
    /// HMAC of the rest by a key of the store, in hex: a manifest that somebody made up does not have it.
    pub seal: String,
}

impl Manifest {
    pub(super) fn new(id: String, made_unix_s: u64, store: [u8; 16], commits: u64, records: Entry) -> Self {
        let store = hex(&store);
        Self { format: FORMAT, id, made_unix_s, store, commits, records, blobs: Vec::new(), seal: String::new() }
    }

    /// All files of the backup.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        std::iter::once(&self.records).chain(&self.blobs)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.entries().map(|entry| entry.bytes).sum()
    }

    fn seal_of(&self, names: &Names) -> String {
        let unsealed = Self { seal: String::new(), ..self.clone() };
        hex(&names.manifest(&json(&unsealed)))
    }

    pub(super) fn sealed(mut self, names: &Names) -> Self {
        self.seal = self.seal_of(names);
        self
    }

    pub(super) fn is_sealed_by(&self, names: &Names) -> bool {
        // Whoever can time this comparison can read the manifest.
        self.seal == self.seal_of(names)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut text = json(self);
        text.push(b'\n');
        let own = hex(digest(&SHA256, &text).as_ref());
        text.extend_from_slice(own.as_bytes());
        text.push(b'\n');
        text
    }

    pub(super) fn read(path: &Path, id: &str) -> Result<Self, BackupError> {
        let refuse = |problem: &str| BackupError::Manifest { path: path.to_owned(), problem: problem.to_owned() };
        let length = fs::metadata(path).map_err(BackupError::io("read", path))?.len();
        if length > MANIFEST_BYTES_MAX {
            return Err(refuse("too large for a manifest"));
        }
        let text = fs::read(path).map_err(BackupError::io("read", path))?;
        let damaged = || refuse("the manifest was changed or truncated");
        let (content, own) = text.split_at_checked(text.len().wrapping_sub(65)).ok_or_else(damaged)?;
        if own != format!("{}\n", hex(digest(&SHA256, content).as_ref())).as_bytes() {
            return Err(damaged());
        }
        let manifest: Self = serde_json::from_slice(content).map_err(|error| refuse(&error.to_string()))?;
        if manifest.format != FORMAT || manifest.id != id {
            return Err(refuse("a manifest of another version, or under another's name"));
        }
        // Names become paths: none may lead out of its folder.
        let place = |path: &str| match path.split_once('/') {
            Some((folder, name)) => is_hex(folder, 32) && is_hex(name, 64),
            None => is_hex(path, 64),
        };
        let sound = manifest.entries().all(|entry| is_hex(&entry.digest, 64))
            && manifest.blobs.iter().all(|entry| place(&entry.path));
        if sound { Ok(manifest) } else { Err(refuse("a name in it is none of ours")) }
    }
}

fn json(manifest: &Manifest) -> Vec<u8> {
    serde_json::to_vec_pretty(manifest).expect("it holds numbers and texts only")
}
