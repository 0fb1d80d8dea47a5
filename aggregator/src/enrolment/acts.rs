//! What happened to the fleet, one function an act: each says it in the daemon's log, with fields that can be searched, and makes its
//! record for the audit log. Names and addresses are personal: the record has only a commitment to them.
//!
//! Refusals that a stranger can repeat at will are no acts: the hub counts them.

use std::net::SocketAddr;

use starling_audit::enrolment::key_digest;
use starling_audit::{About, Action, Entry, RenewalProof, Who};
use starling_wire::enrol::CHANNEL_BYTES;
use starling_wire::{DeviceId, Identity, PublicKey, Refusal, RenewRequest, Role};

use super::devices::DeviceState;
use crate::audit::Field;

const TARGET: &str = "starling::enrolment";

/// A record to be.
#[derive(Debug)]
pub(crate) struct Act {
    pub(crate) entry: Entry,
    pub(crate) field: Option<Field>,
}

fn worded(who: Who, action: Action, word: &str) -> Entry {
    Entry::done(who, action, About { word: Some(word.to_owned()), ..About::default() })
}

/// The operator has made a join string.
pub(crate) fn invited(name: &str, expires_unix_s: u64) {
    tracing::info!(target: TARGET, act = "invited", name, expires_unix_s, "an invitation");
}

/// The record of a join string. `name` is empty where the device may choose one.
pub(crate) fn invitation(who: Who, name: String) -> Act {
    let field = (!name.is_empty()).then_some(Field { device: None, value: name });
    Act { entry: Entry::done(who, Action::InviteIssued, About::default()), field }
}

/// A machine has got its first certificate.
pub(crate) fn joined(device: DeviceId, name: &str, from: SocketAddr, key: &PublicKey) -> Act {
    tracing::info!(target: TARGET, act = "joined", %device, name, %from, key = %key.fingerprint(), "a device has joined");
    let field = Field { device: Some(device), value: format!("{name} at {from}") };
    Act { entry: enrolled(device, "joined", key), field: Some(field) }
}

fn enrolled(device: DeviceId, word: &str, key: &PublicKey) -> Entry {
    let about = About { word: Some(word.to_owned()), digest: Some(key_digest(key)), ..About::default() };
    Entry::done(Who::Certificate(Role::Device, device), Action::DeviceEnrolled, about)
}

/// A device was seen using a key that the log does not know: its certificate was issued by hand, or before the log held keys.
pub(crate) fn shown(device: DeviceId, key: &PublicKey) -> Act {
    tracing::info!(target: TARGET, act = "shown", %device, key = %key.fingerprint(), "a device uses a key that the audit log did not know");
    Act { entry: enrolled(device, "shown", key), field: None }
}

/// The operator has given a device other tags.
pub(crate) fn tagged(who: Who, device: DeviceId, tags: usize) -> Act {
    let about = About { device: Some(device), count: u64::try_from(tags).ok(), ..About::default() };
    Act { entry: Entry::done(who, Action::DeviceTagged, about), field: None }
}

/// An administrator has a certificate.
pub(crate) fn issued(who: Who, identity: &Identity, until_unix_s: u64) -> Act {
    let Identity { id, role, name } = identity;
    tracing::info!(target: TARGET, act = "issued", %id, %role, name, until_unix_s, by = %who, "an administrator's certificate was issued");
    let about = About { device: Some(*id), word: Some(role.word().to_owned()), ..About::default() };
    let field = Field { device: Some(*id), value: name.clone() };
    Act { entry: Entry::done(who, Action::CertificateIssued, about), field: Some(field) }
}

/// A machine waits for the operator.
pub(crate) fn applied(device: DeviceId, name: &str, from: SocketAddr, key: &PublicKey) {
    let key = key.fingerprint();
    tracing::info!(target: TARGET, act = "applied", %device, name, %from, %key, "a device asks to be approved");
}

/// A machine was not let in, or not renewed.
pub(crate) fn turned_away(who: &str, reason: Refusal) {
    tracing::warn!(target: TARGET, act = "turned-away", who, code = reason.code(), reason = reason.text(), "an enrolment was refused");
}

/// A device has its next certificate.
pub(crate) fn renewed(
    device: DeviceId,
    until_unix_s: u64,
    channel: &[u8; CHANNEL_BYTES],
    request: &RenewRequest,
) -> Act {
    let key = &request.new_key;
    tracing::info!(target: TARGET, act = "renewed", %device, until_unix_s, key = %key.fingerprint(), "a certificate was renewed");
    // Whoever reads the log can see that the key before has asked for this one.
    let (digest, proof) = (Some(key_digest(key)), RenewalProof::of(channel, request));
    let about = About { digest, proof, ..About::default() };
    Act { entry: Entry::done(Who::Certificate(Role::Device, device), Action::CertificateRenewed, about), field: None }
}

/// The operator has decided something about a device.
pub(crate) fn decided(device: DeviceId, state: &str) {
    tracing::warn!(target: TARGET, act = "decided", %device, state, "the operator has decided about a device");
}

/// The record of a decision: of the operator's, or of the system's about a clone.
pub(crate) fn decision(who: Who, device: DeviceId, before: Option<DeviceState>, now: DeviceState) -> Act {
    let entry = match now {
        DeviceState::Active if before == Some(DeviceState::Pending) => worded(who, Action::DeviceEnrolled, "approved"),
        DeviceState::Active | DeviceState::Pending => Entry::done(who, Action::DeviceResumed, About::default()),
        DeviceState::Suspended => Entry::done(who, Action::DeviceSuspended, About::default()),
        DeviceState::Cloned => worded(who, Action::DeviceSuspended, "cloned-key"),
        DeviceState::Revoked => Entry::done(who, Action::DeviceRevoked, About::default()),
        DeviceState::Rejected => Entry::refused(who, Action::EnrolmentRefused, Refusal::Rejected, About::default()),
    };
    Act { entry: Entry { about: About { device: Some(device), ..entry.about }, ..entry }, field: None }
}

/// The operator asked for what cannot be done.
pub(crate) fn could_not(who: Who, word: &str) -> Act {
    let about = About { word: Some(word.to_owned()), ..About::default() };
    Act { entry: Entry::failed(who, Action::AdminRequest, about), field: None }
}

/// Two holders of one key.
pub(crate) fn cloned(device: DeviceId, one: SocketAddr, other: SocketAddr) {
    tracing::error!(
        target: TARGET, act = "cloned", %device, %one, %other,
        "one identity is in use in two places at once: it is refused until `device resume` or `device revoke`"
    );
}

/// The aggregator has its own next certificate.
pub(crate) fn own_renewed(until_unix_s: u64) -> Act {
    tracing::info!(target: TARGET, act = "own-renewed", until_unix_s, "the aggregator's own certificate was renewed");
    Act { entry: worded(Who::System, Action::CertificateRenewed, "own"), field: None }
}
