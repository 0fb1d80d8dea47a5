//! What the operator asks of the registry: invitations, decisions about devices, the revocation list.

use std::net::SocketAddr;

use starling_audit::Who;
use starling_spec::check_tags;
use starling_store::Batch;
use starling_wire::{DeviceId, Identity, JoinString, ParseIdError, PublicKey, Role, Token};

use super::{OFF, Registry};
use crate::enrolment::acts;
use crate::enrolment::devices::{DeviceRecord, DeviceState};
use crate::enrolment::tokens::Invitation;
use crate::event::IssueRequest;
use crate::worker::chain;

/// Seconds for which an invitation is good unless the operator says otherwise.
const INVITATION_S: u64 = 15 * 60;

/// The longest invitation.
const INVITATION_S_MAX: u64 = 30 * 24 * 3600;

/// Seconds for which an administrator's certificate is good: it is not renewed by itself, and a lost one is worth more than a device's.
const CERTIFICATE_S_MIN: u64 = 2;
const CERTIFICATE_S_MAX: u64 = 366 * 24 * 3600;

/// Seconds until a reader of the revocation list should look for a newer one.
const LIST_S: u64 = 24 * 3600;

impl Registry {
    /// Makes an invitation.
    pub(in crate::enrolment) fn invite(
        &mut self,
        now_s: u64,
        name: Option<String>,
        tags: Vec<String>,
        expires_s: Option<u64>,
        address: SocketAddr,
    ) -> Result<(JoinString, u64, DeviceId), String> {
        let issuer = self.issuer.as_ref().ok_or(OFF)?;
        let fingerprint = issuer.authority.fingerprint().map_err(|error| chain(&error))?;
        let ca_fingerprint = *fingerprint.0.first_chunk().expect("a digest has 32 bytes");
        let address = issuer.section.address.unwrap_or(address);
        if address.ip().is_unspecified() {
            return Err(
                "the aggregator listens on every address: say in `[enrolment] address` which one devices dial".into()
            );
        }
        check_tags("tags", &tags).map_err(|error| error.to_string())?;
        let expires_s = expires_s.unwrap_or(INVITATION_S);
        if expires_s == 0 || expires_s > INVITATION_S_MAX {
            return Err(format!("an invitation is good for 1 to {INVITATION_S_MAX} seconds, not {expires_s}"));
        }
        let name = name.unwrap_or_default();
        if name.chars().count() > starling_certs::NAME_CHARACTERS_MAX || name.chars().any(char::is_control) {
            return Err("a name has at most 64 characters, none of them a control character".into());
        }
        let token = Token(starling_certs::random().map_err(|error| chain(&error))?);
        let device = DeviceId(starling_certs::random().map_err(|error| chain(&error))?);
        let expires_unix_s = now_s.saturating_add(expires_s);
        let invitation = Invitation { name: name.clone(), tags };
        let inserted = self.tokens.insert(&self.store, &token, (device, expires_unix_s), &invitation, now_s);
        if !inserted.map_err(|error| chain(&error))? {
            return Err("10,000 invitations are open; wait until some have expired".into());
        }
        acts::invited(&name, expires_unix_s);
        Ok((JoinString { address, ca_fingerprint, token: Some(token) }, expires_unix_s, device))
    }

    /// A certificate for an administrator's key, whose other half never comes here: the new id, the certificate and the CA.
    pub(in crate::enrolment) fn issue(
        &mut self,
        now_s: u64,
        request: &IssueRequest,
        who: Who,
    ) -> Result<(DeviceId, String, String), String> {
        let IssueRequest { role, name, public_key, certificate_s } = request;
        if !matches!(role, Role::Operator | Role::Publisher | Role::Auditor) {
            return Err(format!(
                "certificates of operators, publishers and auditors are issued here, not of a {role}: devices join, see `device invite`"
            ));
        }
        let key: PublicKey = public_key.parse().map_err(|error: ParseIdError| format!("public_key: {error}"))?;
        if self.devices.values().any(|record| record.owns(&key)) {
            return Err(
                "this key has a certificate already: a holder has one identity, and a new one needs a new key".into()
            );
        }
        let issuer = self.issuer.as_mut().ok_or(OFF)?;
        let life_s = certificate_s.unwrap_or(issuer.section.certificate_s);
        if !(CERTIFICATE_S_MIN..=CERTIFICATE_S_MAX).contains(&life_s) {
            return Err(format!(
                "a certificate is good for {CERTIFICATE_S_MIN} to {CERTIFICATE_S_MAX} seconds, not {life_s}"
            ));
        }
        issuer.refresh();
        let id = DeviceId(starling_certs::random().map_err(|error| chain(&error))?);
        let identity = Identity { id, role: *role, name: name.clone() };
        let pem = issuer.certify_for(now_s, &identity, key, life_s).map_err(|error| chain(&error))?;
        let ca_pem = issuer.authority.ca_pem().to_owned();
        let mut record = DeviceRecord::new(id, name.clone(), DeviceState::Active, now_s);
        record.role = *role;
        record.confirmed = Some(key);
        record.pinned = true;
        super::note_certificate(now_s, &mut record, pem.clone()).map_err(|error| chain(&error))?;
        let act = acts::issued(who, &identity, record.expires_unix_s);
        self.keep(record, Batch::new()).map_err(|error| chain(&error))?;
        self.acts.push(act);
        Ok((id, pem, ca_pem))
    }

    /// The join string of a fleet whose devices are approved one by one.
    pub(in crate::enrolment) fn open_invitation(&self, address: SocketAddr) -> Result<JoinString, String> {
        let issuer = self.issuer.as_ref().ok_or(OFF)?;
        if !issuer.section.approval {
            return Err("a join string without a token needs `[enrolment] approval = true`".into());
        }
        let fingerprint = issuer.authority.fingerprint().map_err(|error| chain(&error))?;
        let ca_fingerprint = *fingerprint.0.first_chunk().expect("a digest has 32 bytes");
        Ok(JoinString { address: issuer.section.address.unwrap_or(address), ca_fingerprint, token: None })
    }

    /// The operator's word, or a clone seen.
    pub(in crate::enrolment) fn decide(
        &mut self,
        now_s: u64,
        device: DeviceId,
        wanted: DeviceState,
        any_key: bool,
    ) -> Result<DeviceRecord, String> {
        let decided = self.try_decide(now_s, device, wanted, any_key);
        if decided.is_err() {
            // The device may have been barred ahead of this.
            let standing = self.devices.get(&device).map(DeviceRecord::standing).unwrap_or_default();
            self.standings.set(device, standing);
            if self.is_gone(device) {
                self.standings.bar(device, starling_wire::Refusal::Revoked);
            }
        }
        decided
    }

    fn try_decide(
        &mut self,
        now_s: u64,
        device: DeviceId,
        wanted: DeviceState,
        any_key: bool,
    ) -> Result<DeviceRecord, String> {
        if self.is_gone(device) {
            return Err(format!("{device} was forgotten; invite it anew"));
        }
        let known = self.devices.get(&device).cloned();
        let mut record = match (known, wanted) {
            (Some(record), _) => record,
            // A certificate that was issued by hand and never came here can still be thrown out ahead.
            (None, DeviceState::Revoked) => DeviceRecord::new(device, String::new(), DeviceState::Active, now_s),
            (None, _) => return Err(format!("no device {device} is known here; `device list` names them")),
        };
        let allowed = match wanted {
            DeviceState::Rejected => record.state == DeviceState::Pending,
            DeviceState::Active => {
                matches!(record.state, DeviceState::Pending | DeviceState::Suspended | DeviceState::Cloned)
                    || any_key && record.state == DeviceState::Active
            }
            DeviceState::Suspended | DeviceState::Cloned => {
                matches!(record.state, DeviceState::Active | DeviceState::Cloned)
            }
            _ => true,
        };
        if !allowed {
            return Err(format!("{} is {}: it cannot become {}", record.id, record.state.word(), wanted.word()));
        }
        if record.state != wanted {
            record.since_unix_s = now_s;
        }
        record.state = wanted;
        if any_key {
            record.pinned = false;
        }
        self.keep(record.clone(), Batch::new()).map_err(|error| chain(&error))?;
        acts::decided(device, wanted.word());
        Ok(record)
    }

    /// The tags of a device, in place of those that it had.
    pub(in crate::enrolment) fn tag(&mut self, device: DeviceId, tags: Vec<String>) -> Result<DeviceRecord, String> {
        let tagged = check_tags("tags", &tags).map_err(|error| error.to_string()).and_then(|()| {
            let known = self.devices.get(&device).cloned();
            let mut record =
                known.ok_or_else(|| format!("no device {device} is known here; `device list` names them"))?;
            record.tags = tags;
            self.keep(record.clone(), Batch::new()).map_err(|error| chain(&error))?;
            Ok(record)
        });
        if tagged.is_err() {
            // They may have counted ahead of this.
            let before = self.devices.get(&device).map_or(&[][..], |record| &record.tags);
            self.standings.tags.set(device, before);
        }
        tagged
    }

    /// The device that `text` means: an id, the beginning of one, or a name that only one device has.
    pub(in crate::enrolment) fn find(&self, text: &str) -> Result<DeviceId, String> {
        let text = text.trim();
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let fits =
            |record: &&DeviceRecord| record.name == text || text.len() >= 4 && record.id.to_string().starts_with(text);
        let found: Vec<DeviceId> = self.devices.values().filter(fits).map(|record| record.id).collect();
        match found[..] {
            [one] => Ok(one),
            [] => Err(format!("no device is called {text:?}; `device list` names them")),
            _ => Err(format!("{} devices are called {text:?}: give the id", found.len())),
        }
    }

    /// Where a device stands.
    pub(in crate::enrolment) fn state_of(&self, device: DeviceId) -> Option<DeviceState> {
        self.devices.get(&device).map(|record| record.state)
    }

    /// Every device, or those that wait.
    pub(in crate::enrolment) fn records(&self) -> impl Iterator<Item = &DeviceRecord> {
        self.devices.values()
    }

    /// The revocation list, in PEM.
    pub(in crate::enrolment) fn revocation_list(&mut self, now_s: u64) -> Result<String, String> {
        use starling_certs::{Reason, Revoked};
        let issuer = self.issuer.as_mut().ok_or(OFF)?;
        issuer.refresh();
        let reason = |state| match state {
            DeviceState::Revoked | DeviceState::Rejected => Some(Reason::Revoked),
            DeviceState::Suspended => Some(Reason::Suspended),
            DeviceState::Cloned => Some(Reason::KeyCompromise),
            DeviceState::Active | DeviceState::Pending => None,
        };
        let mut revoked = Vec::new();
        for record in self.devices.values() {
            let Some(reason) = reason(record.state) else { continue };
            let since_unix_s = record.since_unix_s;
            revoked.extend(record.serials.iter().map(|serial| Revoked {
                serial: serial.number.clone(),
                since_unix_s,
                reason,
            }));
        }
        for gone in self.gone.values() {
            revoked.extend(gone.serials.iter().map(|serial| Revoked {
                serial: serial.number.clone(),
                since_unix_s: gone.since_unix_s,
                reason: Reason::Revoked,
            }));
        }
        issuer.authority.revocation_list(&revoked, now_s, LIST_S).map_err(|error| chain(&error))
    }
}
