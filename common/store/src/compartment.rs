//! A device's compartment: records and blobs that one key seals, so that they can be forgotten at once.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::seal::scope::Scope;
use crate::{Store, StoreError};

/// What belongs to one device. Records go in with [`Batch::put_in`](crate::Batch::put_in), in the same batch as others.
///
/// After [`Store::forget`] every call is refused with [`StoreError::Forgotten`].
pub struct Compartment<'a> {
    store: &'a Store,
    scope: Arc<Scope>,
}

impl<'a> Compartment<'a> {
    pub(crate) fn new(store: &'a Store, scope: Arc<Scope>) -> Self {
        Self { store, scope }
    }

    pub(crate) fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// The device's id.
    pub fn id(&self) -> &str {
        &self.scope.id
    }

    /// Reads a record of the compartment.
    pub fn get<T: DeserializeOwned>(&self, table: &str, key: &str) -> Result<Option<T>, StoreError> {
        self.store.records.get(&self.scope, table, key)
    }

    /// Reads all records of a table of the compartment, in the byte order of their keys.
    pub fn scan<T: DeserializeOwned>(&self, table: &str) -> Result<Vec<(String, T)>, StoreError> {
        self.store.records.scan(&self.scope, table)
    }

    /// As [`Store::put_blob`].
    pub fn put_blob(&self, digest_hex: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.store.blobs.put(&self.scope, digest_hex, bytes)
    }

    /// As [`Store::get_blob`].
    pub fn get_blob(&self, digest_hex: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.blobs.get(&self.scope, digest_hex)
    }

    /// As [`Store::remove_blob`].
    pub fn remove_blob(&self, digest_hex: &str) -> Result<(), StoreError> {
        self.store.blobs.remove(&self.scope, digest_hex)
    }

    /// As [`Store::blobs`].
    pub fn blobs(&self) -> Result<Vec<String>, StoreError> {
        self.store.blobs.list(&self.scope)
    }
}
