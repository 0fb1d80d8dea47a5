//! Invitations. Only a token's digest is kept.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `tokens` | digest of the token | [`TokenRecord`] |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use starling_store::{Batch, Store, StoreError};
use starling_wire::{DeviceId, Digest, Refusal, Token};

const TABLE: &str = "tokens";

/// Invitations that may be open or remembered at once.
const TOKENS_MAX: usize = 10_000;

/// How long one that is over is remembered, so that its user learns why: then it is as unknown as any.
const REMEMBERED_S: u64 = 7 * 24 * 3600;

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    /// The name that the device gets; its own wish when empty.
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    pub(super) expires_unix_s: u64,
    /// Who used it.
    pub(super) used_by: Option<DeviceId>,
}

/// All invitations.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    known: BTreeMap<Digest, TokenRecord>,
}

impl Tokens {
    pub(super) fn load(store: &Store) -> Result<Self, StoreError> {
        let records = store.scan::<TokenRecord>(TABLE)?;
        let known = records.into_iter().filter_map(|(key, record)| Some((key.parse().ok()?, record))).collect();
        Ok(Self { known })
    }

    /// Notes a new invitation in `batch`, and forgets old ones. `false` when there are too many.
    pub(super) fn insert(
        &mut self,
        token: &Token,
        record: TokenRecord,
        now_unix_s: u64,
        batch: &mut Batch,
    ) -> Result<bool, StoreError> {
        let over = |record: &TokenRecord| record.expires_unix_s.saturating_add(REMEMBERED_S) < now_unix_s;
        self.known.retain(|digest, record| {
            let keep = !over(record);
            if !keep {
                batch.remove(TABLE, &digest.to_string());
            }
            keep
        });
        if self.known.len() >= TOKENS_MAX {
            return Ok(false);
        }
        batch.put(TABLE, &token.digest().to_string(), &record)?;
        self.known.insert(token.digest(), record);
        Ok(true)
    }

    /// The invitation that `token` opens.
    ///
    /// # Errors
    /// Why it opens none.
    pub(super) fn check(&self, token: &Token, now_unix_s: u64) -> Result<TokenRecord, Refusal> {
        // The map is searched by a digest: how long that takes says nothing of the tokens.
        let record = self.known.get(&token.digest()).ok_or(Refusal::TokenUnknown)?;
        if record.used_by.is_some() {
            return Err(Refusal::TokenUsed);
        }
        if record.expires_unix_s < now_unix_s {
            return Err(Refusal::TokenExpired);
        }
        Ok(record.clone())
    }

    /// Binds an invitation to the device that used it: in `batch` now, and here by [`Tokens::mark_used`] once it is durable.
    pub(super) fn put_used(&self, token: &Token, device: DeviceId, batch: &mut Batch) -> Result<(), StoreError> {
        match self.known.get(&token.digest()) {
            Some(record) => {
                let used = TokenRecord { used_by: Some(device), ..record.clone() };
                batch.put(TABLE, &token.digest().to_string(), &used)
            }
            None => Ok(()),
        }
    }

    pub(super) fn mark_used(&mut self, token: &Token, device: DeviceId) {
        if let Some(record) = self.known.get_mut(&token.digest()) {
            record.used_by = Some(device);
        }
    }
}
