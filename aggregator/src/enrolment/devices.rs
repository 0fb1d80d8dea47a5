//! The record of a device, or of an administrator. It lies in a compartment of its own, so that its key's end is the end of it; what stays of
//! one that was forgotten is its [`Gone`].
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `device`, in the device's compartment | – | [`DeviceRecord`] |
//! | `forgotten` | device id | [`Gone`] |
//!
//! ```text
//!             approve                suspend                 a copy is seen
//!  Pending ───────────▶ Active ◀───────────────▶ Suspended   Active ──▶ Cloned
//!     │ reject             │        resume                       resume ◀─┘
//!     ▼                    ▼ revoke (from any state)
//!  Rejected             Revoked
//! ```

use serde::{Deserialize, Serialize};
use starling_store::{Batch, Store, StoreError};
use starling_wire::{DeviceId, PublicKey, Refusal, Role};

use super::standings::Standing;

const TABLE: &str = "device";
const GONE: &str = "forgotten";

/// Serial numbers that are kept for the revocation list: those of certificates that may be valid still. A device that
/// is renewed at a third of its certificate's life has three of them; older ones go first.
const SERIALS_MAX: usize = 16;

/// What the operator and the aggregator have decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DeviceState {
    /// It asks to be let in.
    Pending,
    /// It belongs to the fleet.
    Active,
    /// Out until it is resumed.
    Suspended,
    /// Out, because its key was seen in two places.
    Cloned,
    /// Out for good.
    Revoked,
    /// Never let in.
    Rejected,
}

impl DeviceState {
    /// The word that people and programs read.
    pub(crate) fn word(self) -> &'static str {
        match self {
            DeviceState::Pending => "pending",
            DeviceState::Active => "active",
            DeviceState::Suspended => "suspended",
            DeviceState::Cloned => "cloned",
            DeviceState::Revoked => "revoked",
            DeviceState::Rejected => "rejected",
        }
    }

    /// What a device in this state is refused with.
    pub(crate) fn refusal(self) -> Option<Refusal> {
        match self {
            DeviceState::Active => None,
            DeviceState::Pending => Some(Refusal::PendingApproval),
            DeviceState::Suspended => Some(Refusal::Suspended),
            DeviceState::Cloned => Some(Refusal::ClonedKey),
            DeviceState::Revoked => Some(Refusal::Revoked),
            DeviceState::Rejected => Some(Refusal::Rejected),
        }
    }
}

/// A certificate's serial number, for the revocation list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Serial {
    pub(crate) number: Vec<u8>,
    pub(crate) until_unix_s: u64,
}

/// What is known of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceRecord {
    pub(crate) id: DeviceId,
    /// What its certificate lets it be. Of one that was thrown out before it was ever seen, it is not known and says `Device`.
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) state: DeviceState,
    /// Since when it is in this state.
    pub(crate) since_unix_s: u64,
    /// The key that it is known to use.
    pub(crate) confirmed: Option<PublicKey>,
    /// The key of the certificate that was issued last, while nobody has been seen using it: the answer may be lost.
    pub(crate) offered: Option<PublicKey>,
    /// Whether those two are its only keys. Not so for a device whose certificates are issued by hand.
    pub(crate) pinned: bool,
    /// The certificate that was issued last, with its chain; empty where it was issued by hand.
    pub(crate) certificate_pem: String,
    /// The end of its newest certificate.
    pub(crate) expires_unix_s: u64,
    /// When its certificate was last issued here; 0 when never.
    pub(crate) issued_unix_s: u64,
    pub(crate) last_seen_unix_s: u64,
    pub(crate) serials: Vec<Serial>,
}

impl DeviceRecord {
    /// A device that nothing is known of but its name.
    pub(crate) fn new(id: DeviceId, name: String, state: DeviceState, now_unix_s: u64) -> Self {
        Self {
            id,
            role: Role::Device,
            name,
            tags: Vec::new(),
            state,
            since_unix_s: now_unix_s,
            confirmed: None,
            offered: None,
            pinned: false,
            certificate_pem: String::new(),
            expires_unix_s: 0,
            issued_unix_s: 0,
            last_seen_unix_s: 0,
            serials: Vec::new(),
        }
    }

    /// Whether `key` is one of its own.
    pub(crate) fn owns(&self, key: &PublicKey) -> bool {
        self.confirmed.as_ref() == Some(key) || self.offered.as_ref() == Some(key)
    }

    /// The device was seen using `key`: if that is the one offered last, the one before it is its own no longer. Returns
    /// whether that is news.
    pub(crate) fn confirm(&mut self, key: &PublicKey) -> bool {
        if self.offered.as_ref() != Some(key) {
            return false;
        }
        self.confirmed = self.offered.take();
        true
    }

    /// Notes a certificate for the revocation list.
    pub(crate) fn note_serial(&mut self, number: &[u8], until_unix_s: u64, now_unix_s: u64) {
        if self.serials.iter().any(|serial| serial.number == number) {
            return;
        }
        self.serials.retain(|serial| serial.until_unix_s >= now_unix_s);
        if self.serials.len() >= SERIALS_MAX {
            self.serials.remove(0);
        }
        // A serial number has 20 bytes at most (RFC 5280).
        self.serials.push(Serial { number: number.iter().copied().take(20).collect(), until_unix_s });
    }

    /// What the rest of the daemon has to know.
    pub(crate) fn standing(&self) -> Standing {
        let keys = self.pinned.then_some([self.confirmed, self.offered]);
        Standing { refusal: self.state.refusal(), keys }
    }
}

/// A device that was forgotten, or is about to be. It names nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gone {
    pub(crate) since_unix_s: u64,
    /// Of certificates that may be valid still, for the revocation list.
    pub(crate) serials: Vec<Serial>,
    /// The blob of the certificate of erasure; nothing while the erasure is not complete.
    pub(crate) certificate: Option<String>,
    /// Whether what it taught is to be unlearned.
    pub(crate) unlearn: bool,
}

/// Every device that there is a record of.
pub(super) fn all(store: &Store) -> Result<Vec<DeviceRecord>, StoreError> {
    let mut found = Vec::new();
    for id in store.compartment_ids()? {
        if let Some(record) = record(store, &id)? {
            found.push(record);
        }
    }
    Ok(found)
}

/// The record in the compartment of this name.
pub(crate) fn record(store: &Store, id: &str) -> Result<Option<DeviceRecord>, StoreError> {
    match store.known_compartment(id)? {
        Some(compartment) => compartment.get(TABLE, ""),
        None => Ok(None),
    }
}

/// Puts a device's record into a batch.
pub(super) fn put(store: &Store, record: &DeviceRecord, batch: &mut Batch) -> Result<(), StoreError> {
    batch.put_in(&store.compartment(&record.id.to_string())?, TABLE, "", record)
}

/// The devices that were forgotten.
pub(crate) fn gone(store: &Store) -> Result<Vec<(DeviceId, Gone)>, StoreError> {
    let records = store.scan::<Gone>(GONE)?;
    Ok(records.into_iter().filter_map(|(id, gone)| Some((id.parse().ok()?, gone))).collect())
}

/// What stays of a device that was forgotten.
pub(crate) fn gone_of(store: &Store, device: DeviceId) -> Result<Option<Gone>, StoreError> {
    store.get(GONE, &device.to_string())
}

/// Puts what stays of a device into a batch.
pub(crate) fn put_gone(device: DeviceId, gone: &Gone, batch: &mut Batch) -> Result<(), StoreError> {
    batch.put(GONE, &device.to_string(), gone)
}
