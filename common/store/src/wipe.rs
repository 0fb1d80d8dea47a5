//! The end of a state folder on purpose: its keys first, then everything.

use std::fs;
use std::path::Path;

use crate::backup::SCRATCH_PREFIX;
use crate::blobs::list;
use crate::keys::{compartment, file, ring};
use crate::{KeySource, StoreError};

/// What [`wipe`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wiped {
    /// Whether there was a master key in a file of its own, which was overwritten. A credential or a passphrase is not ours to destroy.
    pub master_key: bool,
    /// Files of keys that it sealed: the ring and wraps.
    pub key_files: usize,
    /// Whether there was a folder.
    pub folder: bool,
}

/// Destroys the master key (if it lies in a file), the key ring and all wraps of the state folder `state`, then the folder. What was sealed, here
/// and in every backup, opens with nothing then, but for escrow copies and their recovery key.
///
/// # Errors
/// [`StoreError::InUse`] while a daemon has it open; the disk says no. Calling it again goes on.
pub fn wipe(state: &Path, source: &KeySource) -> Result<Wiped, StoreError> {
    let mut done = Wiped { master_key: false, key_files: 0, folder: state.exists() };
    let _lock = if done.folder { Some(crate::store::lock(state)?) } else { None };
    if let KeySource::File(key) = source {
        done.master_key = key.exists();
        file::destroy(key)?;
        file::destroy(&ring::waiting(key))?;
    }
    let mut folders = vec![state.to_owned()];
    let beside = file::parent(state);
    let scratches = list(beside)?.into_iter().filter(|name| name.starts_with(SCRATCH_PREFIX));
    folders.extend(scratches.map(|name| beside.join(name)));
    for folder in &folders {
        let devices = compartment::folder_in(folder);
        let wraps = list(&devices)?.into_iter().map(|name| devices.join(name));
        for key in [ring::path_in(folder)].into_iter().chain(wraps) {
            done.key_files += usize::from(key.exists());
            file::destroy(&key)?;
        }
    }
    for folder in folders.iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder).map_err(StoreError::io("remove the folder", folder))?;
    }
    Ok(done)
}

/// Overwrites a file of secrets and removes it, durably; returns whether there was one.
///
/// # Errors
/// The disk says no.
pub fn destroy_file(path: &Path) -> Result<bool, StoreError> {
    let there = path.exists();
    file::destroy(path)?;
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn nothing_is_left_and_a_folder_in_use_is_let_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        let source = KeySource::beside(&state);
        let store = Store::open(&state, &source).expect("opens");
        store.compartment("pump-4").expect("a device");
        assert!(matches!(wipe(&state, &source), Err(StoreError::InUse(_))));
        drop(store);
        assert_eq!(wipe(&state, &source).expect("wiped"), Wiped { master_key: true, key_files: 2, folder: true });
        assert_eq!(list(folder.path()).expect("listed"), Vec::<String>::new());
        assert_eq!(wipe(&state, &source).expect("again"), Wiped { master_key: false, key_files: 0, folder: false });
    }
}
