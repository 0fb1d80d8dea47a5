//! A new master key, a new data key and a new wrapping key, while the daemon is stopped.
//!
//! No blob and no record is written anew: the old data keys stay in the ring and open what they sealed. Device keys are wrapped
//! anew, so that remnants of old wraps on the disk open with nothing that is left.
//!
//! Each step leaves a folder that opens: (1) the new master key waits in `KEY.new`; (2) the ring is sealed with it; (3) it takes the
//! old one's name; (4) the device keys are wrapped under the new wrapping key; (5) the ring forgets the old one. `Store::open` goes
//! on from whichever step a crash came after.

use std::path::Path;

use super::error::KeyError;
use super::file;
use super::ring::{self, Master, waiting};
use super::source::{Found, KeySource};
use super::{compartment, ring::path_in};
use crate::{Store, StoreError};

/// What a rotation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// The generation of the data key that seals from now on.
    pub generation: u32,
    /// Device keys that were wrapped anew.
    pub devices: usize,
}

/// Rotates the keys of a state folder that nobody has open. Without `old` the master key at `source`, a file, is replaced by a
/// new one; with it the folder is sealed with the key at `old`, and with that at `source` afterwards.
///
/// # Errors
/// The folder is in use, a key is missing or wrong, or the disk says no. The folder opens with one of the two keys in each case.
pub fn rotate(state: &Path, source: &KeySource, old: Option<&KeySource>) -> Result<Rotated, StoreError> {
    let before = old.unwrap_or(source);
    if !path_in(state).exists() {
        return Err(KeyError::NoRing(state.to_owned()).into());
    }
    let store = Store::open(state, before)?;
    let path = path_in(state);
    let (mut ring, _) = ring::open(state, before, false)?;
    ring.add_wrap(&path)?;
    ring.add_data_key(&path, store.records.seals())?;
    match (source, old) {
        (KeySource::File(key), None) => {
            let new = waiting(key);
            file::destroy(&new)?;
            let master = Master::of(&Found::Key(KeySource::create(&new)?))?;
            ring.save(&path, &master)?;
            ring::take_place(&new, key)?;
            finish(state, ring, &master)
        }
        (_, None) => Err(KeyError::NotOurs(source.name()).into()),
        (_, Some(_)) => {
            let found = match (source.find()?, source) {
                (Some(found), _) => found,
                (None, KeySource::File(key)) => Found::Key(KeySource::create(key)?),
                (None, _) => return Err(KeyError::Missing { key: source.path()?, state: state.to_owned() }.into()),
            };
            let master = Master::of(&found)?;
            ring.save(&path, &master)?;
            finish(state, ring, &master)
        }
    }
}

fn finish(state: &Path, mut ring: ring::Ring, master: &Master) -> Result<Rotated, StoreError> {
    compartment::rewrap_all(state, &mut ring)?;
    ring.save(&path_in(state), master)?;
    let devices = compartment::all(state, &ring)?.len();
    let generation = ring.data.last_key_value().map_or(0, |(number, _)| *number);
    Ok(Rotated { generation, devices })
}
