//! Invitations. Only a token's digest is kept, and the name and tags that go with it lie in the compartment of the device that it is for:
//! a device's id is drawn with its invitation.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `tokens` | digest of the token | [`TokenRecord`] |
//! | `invitation`, in the device's compartment | – | [`Invitation`] |
//!
//! A token belongs to the **era** of the store: after a restore from a backup nobody knows which ones were used in the time that was lost, so
//! none of an earlier era is good any more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use starling_store::{Batch, Store, StoreError};
use starling_wire::{DeviceId, Digest, Refusal, Token};

const TABLE: &str = "tokens";
const INVITATION: &str = "invitation";

/// Invitations that may be open or remembered at once.
const TOKENS_MAX: usize = 10_000;

/// How long one that is over is remembered, so that its user learns why: then it is as unknown as any.
const REMEMBERED_S: u64 = 7 * 24 * 3600;

/// A token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    /// The device that it makes.
    pub(super) device: DeviceId,
    pub(super) expires_unix_s: u64,
    pub(super) used: bool,
    /// The store's, when it was issued.
    pub(super) era: u64,
}

/// What the operator has said of the device to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Invitation {
    /// The name that the device gets; its own wish when empty.
    pub(super) name: String,
    pub(super) tags: Vec<String>,
}

/// All invitations.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    era: u64,
    known: BTreeMap<Digest, TokenRecord>,
}

impl Tokens {
    pub(super) fn load(store: &Store) -> Result<Self, StoreError> {
        let records = store.scan::<TokenRecord>(TABLE)?;
        let known = records.into_iter().filter_map(|(key, record)| Some((key.parse().ok()?, record))).collect();
        Ok(Self { era: store.era()?, known })
    }

    /// Makes a new invitation durable, and forgets old ones, with the names of those that nobody used. `false` when there are too many.
    pub(super) fn insert(
        &mut self,
        store: &Store,
        token: &Token,
        (device, expires_unix_s): (DeviceId, u64),
        invitation: &Invitation,
        now_unix_s: u64,
    ) -> Result<bool, StoreError> {
        let mut batch = Batch::new();
        let over: Vec<Digest> = self
            .known
            .iter()
            .filter(|(_, record)| record.expires_unix_s.saturating_add(REMEMBERED_S) < now_unix_s)
            .map(|(digest, _)| *digest)
            .collect();
        for digest in over {
            batch.remove(TABLE, &digest.to_string());
            if let Some(record) = self.known.remove(&digest).filter(|record| !record.used) {
                store.discard(&record.device.to_string())?;
            }
        }
        if self.known.len() >= TOKENS_MAX {
            return Ok(false);
        }
        let record = TokenRecord { device, expires_unix_s, used: false, era: self.era };
        batch.put(TABLE, &token.digest().to_string(), &record)?;
        batch.put_in(&store.compartment(&device.to_string())?, INVITATION, "", invitation)?;
        store.commit(batch)?;
        self.known.insert(token.digest(), record);
        Ok(true)
    }

    /// The device that `token` makes.
    ///
    /// # Errors
    /// Why it makes none.
    pub(super) fn check(&self, token: &Token, now_unix_s: u64) -> Result<DeviceId, Refusal> {
        // The map is searched by a digest: how long that takes says nothing of the tokens.
        let record = self.known.get(&token.digest()).ok_or(Refusal::TokenUnknown)?;
        if record.used {
            return Err(Refusal::TokenUsed);
        }
        if record.era != self.era {
            tracing::warn!("a join string from before the state was restored was shown; it is not good any more");
            return Err(Refusal::TokenExpired);
        }
        if record.expires_unix_s < now_unix_s {
            return Err(Refusal::TokenExpired);
        }
        Ok(record.device)
    }

    /// Binds a token to the device that used it: in `batch` now, and here by [`Tokens::mark_used`] once it is durable.
    pub(super) fn put_used(&self, token: &Token, batch: &mut Batch) -> Result<(), StoreError> {
        match self.known.get(&token.digest()) {
            Some(record) => batch.put(TABLE, &token.digest().to_string(), &TokenRecord { used: true, ..*record }),
            None => Ok(()),
        }
    }

    pub(super) fn mark_used(&mut self, token: &Token) {
        if let Some(record) = self.known.get_mut(&token.digest()) {
            record.used = true;
        }
    }

    /// Removes the tokens of a device that is forgotten: in `batch` and here.
    pub(super) fn forget(&mut self, device: DeviceId, batch: &mut Batch) {
        self.known.retain(|digest, record| {
            let keep = record.device != device;
            if !keep {
                batch.remove(TABLE, &digest.to_string());
            }
            keep
        });
    }
}

/// What was said of the device of a token.
pub(super) fn invitation(store: &Store, device: DeviceId) -> Result<Option<Invitation>, StoreError> {
    match store.known_compartment(&device.to_string())? {
        Some(compartment) => compartment.get(INVITATION, ""),
        None => Ok(None),
    }
}
