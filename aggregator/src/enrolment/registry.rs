//! The decisions of enrolment, made durable: who gets a certificate, for which key, and until when.
//!
//! The operator's verbs are in `operator`, the end of a device in `forget`. Time is an argument (seconds since 1970), so that tests run a certificate's life in no time.

mod forget;
mod operator;
mod recorded;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use starling_certs::{Authority, CertsError, Validity, inspect};
use starling_store::{Batch, Store, StoreError};
use starling_wire::enrol::CHANNEL_BYTES;
use starling_wire::{
    Credential, DeviceId, FromAuthority, Identity, JoinRequest, PublicKey, Refusal, RenewRequest, Role,
};

use super::acts::{self, Act};
use super::devices::{self, DeviceRecord, DeviceState, Gone};
use super::limiter::Limiter;
use super::standings::Standings;
use super::tokens::{self, Tokens};
use crate::config::EnrolmentSection;
use crate::worker::chain;

/// Devices that may wait for approval at once.
const PENDING_MAX: usize = 256;

/// Milliseconds after which a machine that waits for approval asks again.
const AGAIN_MS: u32 = 1_000;

/// The issuing key and what it is used for.
pub(super) struct Issuer {
    pub(super) authority: Authority,
    pub(super) section: EnrolmentSection,
}

impl Issuer {
    pub(super) fn open(section: &EnrolmentSection) -> Result<Self, CertsError> {
        Ok(Self { authority: Authority::open(&section.authority)?, section: section.clone() })
    }

    /// Takes a rolled issuing key: the folder is looked at before each use, which costs one small read.
    pub(super) fn refresh(&mut self) {
        let path = self.section.authority.join("issuing.pem");
        let unchanged = std::fs::read_to_string(path).is_ok_and(|text| text == self.authority.issuing_pem());
        if unchanged {
            return;
        }
        match Authority::open(&self.section.authority) {
            Ok(authority) => self.authority = authority,
            Err(error) => {
                tracing::error!(error = chain(&error), "the authority cannot be read; the old issuing key is used")
            }
        }
    }

    /// A certificate for `identity` and its end.
    pub(super) fn certify(&self, now_s: u64, identity: &Identity, key: PublicKey) -> Result<String, CertsError> {
        self.certify_for(now_s, identity, key, self.section.certificate_s)
    }

    /// The same for `life_s` seconds.
    fn certify_for(&self, now_s: u64, identity: &Identity, key: PublicKey, life_s: u64) -> Result<String, CertsError> {
        let end = self.authority.issuing_until_unix_s();
        self.authority.certify(identity, key, Validity::seconds(now_s, life_s, end))
    }
}

/// All devices and invitations.
pub(super) struct Registry {
    store: Arc<Store>,
    standings: Arc<Standings>,
    pub(super) issuer: Option<Issuer>,
    devices: BTreeMap<DeviceId, DeviceRecord>,
    /// Devices that were forgotten, or are about to be.
    gone: BTreeMap<DeviceId, Gone>,
    tokens: Tokens,
    limiter: Limiter,
    /// Records that were seen since the last write: only when and with which key, so they may wait.
    unwritten: std::collections::BTreeSet<DeviceId>,
    /// What devices have done, for the audit log to fetch after each task.
    pub(super) acts: Vec<Act>,
    /// Keys of devices that this process has told the audit log of, or found there.
    told: std::collections::BTreeSet<(DeviceId, PublicKey)>,
}

impl Registry {
    pub(super) fn load(
        store: Arc<Store>,
        standings: Arc<Standings>,
        issuer: Option<Issuer>,
    ) -> Result<Self, StoreError> {
        let gone: BTreeMap<_, _> = devices::gone(&store)?.into_iter().collect();
        let records = devices::all(&store)?.into_iter().filter(|record| !gone.contains_key(&record.id));
        let devices: BTreeMap<_, _> = records.map(|record| (record.id, record)).collect();
        for record in devices.values() {
            standings.set(record.id, record.standing());
            standings.tags.set(record.id, &record.tags);
        }
        gone.keys().for_each(|device| standings.bar(*device, Refusal::Revoked));
        let tokens = Tokens::load(&store)?;
        let (limiter, unwritten, acts, told) = Default::default();
        Ok(Self { store, standings, issuer, devices, gone, tokens, limiter, unwritten, acts, told })
    }

    /// Makes a record durable and known, in one batch with what else belongs to it.
    fn keep(&mut self, record: DeviceRecord, mut batch: Batch) -> Result<(), StoreError> {
        devices::put(&self.store, &record, &mut batch)?;
        self.store.commit(batch)?;
        self.standings.set(record.id, record.standing());
        self.standings.tags.set(record.id, &record.tags);
        self.unwritten.remove(&record.id);
        self.devices.insert(record.id, record);
        Ok(())
    }

    /// Writes what was only noted.
    pub(super) fn flush(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let mut batch = Batch::new();
        for record in self.unwritten.iter().filter_map(|id| self.devices.get(id)) {
            if let Err(error) = devices::put(&self.store, record, &mut batch) {
                tracing::error!(device = %record.id, error = chain(&error), "a device's record cannot be written");
            }
        }
        match self.store.commit(batch) {
            Ok(()) => self.unwritten.clear(),
            Err(error) => tracing::error!(error = chain(&error), "devices' records could not be written"),
        }
    }

    /// A machine asks for its first certificate. `proven` says that it has the key.
    pub(super) fn join(&mut self, now_s: u64, from: SocketAddr, request: &JoinRequest, proven: bool) -> FromAuthority {
        match self.try_join(now_s, from, request, proven) {
            Ok(answer) => answer,
            Err(refusal) => {
                self.note_failure(now_s, from, refusal);
                FromAuthority::Refused(refusal)
            }
        }
    }

    fn note_failure(&mut self, now_s: u64, from: SocketAddr, refusal: Refusal) {
        use Refusal::{BadProof, PendingApproval, TokenExpired, TokenUnknown, TokenUsed, UnknownDevice};
        if matches!(refusal, BadProof | TokenUnknown | TokenUsed | TokenExpired | UnknownDevice | PendingApproval) {
            self.limiter.note_failure(now_s, from.ip());
        }
    }

    fn try_join(
        &mut self,
        now_s: u64,
        from: SocketAddr,
        request: &JoinRequest,
        proven: bool,
    ) -> Result<FromAuthority, Refusal> {
        let approval = self.issuer.as_ref().ok_or(Refusal::EnrolmentOff)?.section.approval;
        if self.limiter.is_blocked(now_s, from.ip()) {
            return Err(Refusal::TooManyAttempts);
        }
        if !proven {
            return Err(Refusal::BadProof);
        }
        // The same machine again: an answer may be lost, and must not strand it.
        if let Some(known) = self.devices.values().find(|record| record.pinned && record.confirmed == Some(request.key))
        {
            let known = known.clone();
            return match known.state {
                DeviceState::Pending => Ok(FromAuthority::Pending { device: known.id, again_ms: AGAIN_MS }),
                DeviceState::Active if known.certificate_pem.is_empty() => {
                    self.issue_first(now_s, from, known, request.key, Batch::new())
                }
                DeviceState::Active => self.credential(now_s, &known).map(FromAuthority::Issued),
                state => Err(state.refusal().unwrap_or(Refusal::Internal)),
            };
        }
        let Some(token) = &request.token else {
            if !approval {
                return Err(Refusal::TokenUnknown);
            }
            let id = DeviceId(starling_certs::random().map_err(|_| Refusal::Internal)?);
            return self.apply(now_s, from, id, request);
        };
        let id = self.tokens.check(token, now_s)?;
        // It was written with the token, and goes with the device's key alone.
        let invitation = tokens::invitation(&self.store, id).map_err(internal)?.ok_or(Refusal::TokenUnknown)?;
        let name = if invitation.name.is_empty() { name_of(request, id) } else { invitation.name };
        let mut record = DeviceRecord::new(id, name, DeviceState::Active, now_s);
        record.tags = invitation.tags;
        let mut batch = Batch::new();
        self.tokens.put_used(token, &mut batch).map_err(internal)?;
        let answer = self.issue_first(now_s, from, record, request.key, batch)?;
        self.tokens.mark_used(token);
        Ok(answer)
    }

    /// Notes a machine for the operator to decide about.
    fn apply(
        &mut self,
        now_s: u64,
        from: SocketAddr,
        id: DeviceId,
        request: &JoinRequest,
    ) -> Result<FromAuthority, Refusal> {
        if self.devices.values().filter(|record| record.state == DeviceState::Pending).count() >= PENDING_MAX {
            return Err(Refusal::Busy);
        }
        let mut record = DeviceRecord::new(id, name_of(request, id), DeviceState::Pending, now_s);
        record.confirmed = Some(request.key);
        record.pinned = true;
        acts::applied(id, &record.name, from, &request.key);
        self.keep(record, Batch::new()).map_err(internal)?;
        // Each applicant costs a record: an address may make only so many.
        self.limiter.note_failure(now_s, from.ip());
        Ok(FromAuthority::Pending { device: id, again_ms: AGAIN_MS })
    }

    fn issue_first(
        &mut self,
        now_s: u64,
        from: SocketAddr,
        mut record: DeviceRecord,
        key: PublicKey,
        batch: Batch,
    ) -> Result<FromAuthority, Refusal> {
        record.confirmed = Some(key);
        record.pinned = true;
        self.certify(now_s, &mut record, key)?;
        let credential = self.credential(now_s, &record)?;
        let (id, name) = (record.id, record.name.clone());
        self.keep(record, batch).map_err(internal)?;
        self.tell(id, key);
        self.acts.push(acts::joined(id, &name, from, &key));
        Ok(FromAuthority::Issued(credential))
    }

    /// Puts the next certificate of a device into its record.
    fn certify(&mut self, now_s: u64, record: &mut DeviceRecord, key: PublicKey) -> Result<(), Refusal> {
        let issuer = self.issuer.as_mut().ok_or(Refusal::EnrolmentOff)?;
        issuer.refresh();
        let identity = Identity { id: record.id, role: Role::Device, name: record.name.clone() };
        let pem = issuer.certify(now_s, &identity, key).map_err(internal)?;
        note_certificate(now_s, record, pem).map_err(internal)
    }

    fn credential(&self, now_s: u64, record: &DeviceRecord) -> Result<Credential, Refusal> {
        let issuer = self.issuer.as_ref().ok_or(Refusal::EnrolmentOff)?;
        Ok(Credential {
            certificate_pem: record.certificate_pem.clone(),
            ca_pem: issuer.authority.ca_pem().to_owned(),
            now_unix_s: now_s,
        })
    }

    /// A device asks for its next certificate. `shown` is the key that its connection has proven, if it has one; `proven`
    /// is the channel of the connection that both keys have signed the request for.
    pub(super) fn renew(
        &mut self,
        now_s: u64,
        identity: (DeviceId, &str),
        from: SocketAddr,
        shown: Option<PublicKey>,
        request: &RenewRequest,
        proven: Option<[u8; CHANNEL_BYTES]>,
    ) -> Result<Credential, Refusal> {
        let answer = self.try_renew(now_s, identity, from, shown, request, proven);
        if let (Err(refusal), None) = (&answer, shown) {
            self.note_failure(now_s, from, *refusal);
        }
        answer
    }

    fn try_renew(
        &mut self,
        now_s: u64,
        (device, name): (DeviceId, &str),
        from: SocketAddr,
        shown: Option<PublicKey>,
        request: &RenewRequest,
        proven: Option<[u8; CHANNEL_BYTES]>,
    ) -> Result<Credential, Refusal> {
        let grace_s = self.issuer.as_ref().ok_or(Refusal::EnrolmentOff)?.section.grace_s;
        let late = shown.is_none();
        if late && self.limiter.is_blocked(now_s, from.ip()) {
            return Err(Refusal::TooManyAttempts);
        }
        let channel = proven.ok_or(Refusal::BadProof)?;
        if self.is_gone(device) {
            return Err(Refusal::Revoked);
        }
        let mut record = match self.devices.get(&device) {
            Some(record) => record.clone(),
            None if late => return Err(Refusal::UnknownDevice),
            None => DeviceRecord::new(device, name.to_owned(), DeviceState::Active, now_s),
        };
        if let Some(refusal) = record.state.refusal() {
            return Err(refusal);
        }
        let own = record.owns(&request.old_key) || !record.pinned && shown == Some(request.old_key);
        if !own {
            return Err(Refusal::ClonedKey);
        }
        if late && now_s > record.expires_unix_s.saturating_add(grace_s) {
            return Err(Refusal::GraceOver);
        }
        if record.issued_unix_s == now_s && record.offered.is_some_and(|offered| offered != request.new_key) {
            // A signature and an fsync each: one a second is enough for everybody.
            return Err(Refusal::TooManyAttempts);
        }
        record.confirm(&request.old_key);
        record.confirmed = Some(request.old_key);
        record.offered = Some(request.new_key);
        record.pinned = true;
        self.certify(now_s, &mut record, request.new_key)?;
        let credential = self.credential(now_s, &record)?;
        let until_unix_s = record.expires_unix_s;
        self.keep(record, Batch::new()).map_err(internal)?;
        self.tell(device, request.new_key);
        self.acts.push(acts::renewed(device, until_unix_s, &channel, request));
        Ok(credential)
    }

    /// A device was welcomed.
    pub(super) fn seen(&mut self, now_s: u64, identity: &Identity, leaf: &starling_net::Leaf) {
        if self.is_gone(identity.id) {
            // It was welcomed a moment before it was forgotten.
            return;
        }
        let record = self
            .devices
            .entry(identity.id)
            .or_insert_with(|| DeviceRecord::new(identity.id, identity.name.clone(), DeviceState::Active, now_s));
        record.last_seen_unix_s = now_s;
        record.role = identity.role;
        record.note_serial(&leaf.serial, leaf.not_after_unix_s, now_s);
        let confirmed = leaf.key.as_ref().is_some_and(|key| record.confirm(key));
        if !record.pinned {
            record.confirmed = leaf.key;
            record.expires_unix_s = leaf.not_after_unix_s;
            record.name.clone_from(&identity.name);
        }
        self.unwritten.insert(identity.id);
        if confirmed {
            // The key before it is nobody's from now on, also after a restart.
            self.standings.set(identity.id, record.standing());
            self.flush();
        }
        if let Some(key) = leaf.key.filter(|_| identity.role == Role::Device) {
            self.shown(identity.id, key);
        }
    }
}

/// Puts a certificate that was just issued into its holder's record.
fn note_certificate(now_s: u64, record: &mut DeviceRecord, pem: String) -> Result<(), CertsError> {
    let leaf = &inspect::parse(&pem)?[0];
    let serial: Vec<u8> = (0..leaf.serial.len() / 2)
        .filter_map(|at| u8::from_str_radix(leaf.serial.get(2 * at..2 * at + 2)?, 16).ok())
        .collect();
    record.expires_unix_s = leaf.not_after_unix_s();
    record.issued_unix_s = now_s;
    record.note_serial(&serial, record.expires_unix_s, now_s);
    record.certificate_pem = pem;
    Ok(())
}

pub(super) const OFF: &str =
    "enrolment is off: name the authority's folder in `[enrolment] authority` of the aggregator's configuration";

fn internal(error: impl std::error::Error + 'static) -> Refusal {
    tracing::error!(error = chain(&error), "a certificate could not be issued");
    Refusal::Internal
}

/// The name that a machine wishes for, if a certificate can carry it.
fn name_of(request: &JoinRequest, id: DeviceId) -> String {
    let wish = request.name.trim();
    let fits = !wish.is_empty()
        && wish.chars().count() <= starling_certs::NAME_CHARACTERS_MAX
        && !wish.chars().any(char::is_control);
    if fits { wish.to_owned() } else { format!("device-{}", &id.to_string()[..8]) }
}

#[cfg(test)]
mod cut_off;
#[cfg(test)]
mod tests;
