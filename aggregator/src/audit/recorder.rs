//! What the hub tells the audit log of what it sees: devices that come, peers and updates that are refused, operators who ask.
//!
//! What a peer or an operator's script can cause at will is counted instead of written down each time ([`Repeats`]); that a device is here is
//! recorded once a day.

use std::collections::BTreeSet;

use starling_audit::{About, Action, Entry, Who};
use starling_wire::{Address, DeviceId, Refusal, Role, RunId};

use super::{Field, Repeats, about, now_unix_ms};
use crate::access::{Denied, Verb};
use crate::event::{AdminReply, Peer};
use crate::worker::{Job, Worker};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Devices that are remembered for a day. Beyond that the day begins anew: some are recorded twice.
const SEEN_MAX: usize = 1 << 17;

/// The hub's pen.
#[derive(Debug)]
pub(crate) struct Recorder {
    worker: Worker,
    repeats: Repeats,
    /// Apart, so that no flood of refusals hides who looked.
    looks: Repeats,
    /// The day, in days since 1970, and who was recorded on it doing what.
    day: u64,
    seen: BTreeSet<(String, &'static str)>,
    /// Devices whose receipt is being made: one at a time each.
    receipts: BTreeSet<DeviceId>,
}

impl Recorder {
    pub(crate) fn new(worker: Worker) -> Self {
        let (repeats, looks, day, seen, receipts) = Default::default();
        Self { worker, repeats, looks, day, seen, receipts }
    }

    async fn write(&self, entry: Entry, field: Option<Field>) {
        self.worker.queue(Job::Audit(Box::new(entry), field, None)).await;
    }

    /// Whether this is the first time today (UTC).
    fn is_first_today(&mut self, who: Who, what: &'static str) -> bool {
        let day = now_unix_ms() / DAY_MS;
        if day != self.day || self.seen.len() >= SEEN_MAX {
            self.day = day;
            self.seen.clear();
        }
        self.seen.insert((who.to_string(), what))
    }

    pub(crate) async fn connected(&mut self, peer: &Peer) {
        let who = Who::Certificate(Role::Device, peer.device);
        if self.is_first_today(who, "connected") {
            let field = Field { device: Some(peer.device), value: peer.name.clone() };
            self.write(Entry::done(who, Action::DeviceConnected, About::default()), Some(field)).await;
        }
    }

    /// `name` is what it says of itself, and where it is: personal. `device` where its certificate is good.
    pub(crate) async fn turned_away(&mut self, device: Option<DeviceId>, name: &str, reason: Refusal) {
        let entry = self.repeats.take(now_unix_ms(), Who::Stranger, Action::PeerTurnedAway, reason);
        if let Some(entry) = entry {
            self.write(entry, Some(Field { device, value: name.to_owned() })).await;
        }
    }

    /// A machine was not let into the fleet; `name` is what it says of itself, and where it is.
    pub(crate) async fn not_enrolled(&mut self, name: &str, reason: Refusal) {
        let entry = self.repeats.take(now_unix_ms(), Who::Stranger, Action::EnrolmentRefused, reason);
        if let Some(entry) = entry {
            self.write(entry, Some(Field { device: None, value: name.to_owned() })).await;
        }
    }

    /// A known device was refused something without a round to it, or was cut off.
    pub(crate) async fn refused(&mut self, device: DeviceId, action: Action, reason: Refusal) {
        let who = Who::Certificate(Role::Device, device);
        if let Some(entry) = self.repeats.take(now_unix_ms(), who, action, reason) {
            self.write(entry, None).await;
        }
    }

    /// Somebody asked for what is not theirs to do.
    pub(crate) async fn denied(&mut self, denied: &Denied) {
        let (who, verb) = (denied.caller.who(), denied.verb.map(Verb::word));
        let entry = self.repeats.take_about(now_unix_ms(), who, Action::PermissionDenied, Some(denied.reason), verb);
        if let Some(entry) = entry {
            self.write(entry, None).await;
        }
    }

    /// At most four a device and round: a device that was refused is out of the round.
    pub(crate) async fn update_refused(&mut self, device: DeviceId, address: &Address, reason: Refusal) {
        let who = Who::Certificate(Role::Device, device);
        self.write(Entry::refused(who, Action::UpdateRefused, reason, about(address)), None).await;
    }

    /// A run that `who` wanted could not be opened.
    pub(crate) async fn never_began(&mut self, who: Who, run: RunId) {
        let about = About { run: Some(run.0), ..About::default() };
        self.write(Entry::failed(who, Action::RunFailed, about), None).await;
    }

    pub(crate) async fn run(&mut self, action: Action, run: RunId) {
        let about = About { run: Some(run.0), ..About::default() };
        let entry = if action == Action::RunFailed {
            Entry::failed(Who::System, action, about)
        } else {
            Entry::done(Who::System, action, about)
        };
        self.write(entry, None).await;
    }

    /// An operator's act, which is answered once its record is durable.
    pub(crate) async fn act(&mut self, entry: Entry, answer: serde_json::Value, reply: AdminReply) {
        self.worker.queue(Job::Audit(Box::new(entry), None, Some((answer, reply)))).await;
    }

    /// The daemon has made a backup of its own accord.
    pub(crate) async fn backed_up(&self) {
        self.write(Entry::done(Who::System, Action::BackupCreated, About::default()), None).await;
    }

    /// Somebody only looks: recorded the first time, then counted.
    pub(crate) async fn looked(&mut self, who: Who, verb: &'static str) {
        let entry = self.looks.take_about(now_unix_ms(), who, Action::AdminRequest, None, Some(verb));
        if let Some(entry) = entry {
            self.write(entry, None).await;
        }
    }

    /// An operator takes a model out.
    pub(crate) async fn exported(&mut self, who: Who, run: RunId, version: u64) {
        let word = Some("run-export".to_owned());
        let about = About { run: Some(run.0), version: Some(version), word, ..About::default() };
        self.write(Entry::done(who, Action::AdminRequest, about), None).await;
    }

    /// An operator asked for what cannot be done.
    pub(crate) async fn could_not(&mut self, who: Who, verb: &'static str) {
        let word = Some(verb.to_owned());
        self.write(Entry::failed(who, Action::AdminRequest, About { word, ..About::default() }), None).await;
    }

    /// Whether a receipt may be made for `device` now.
    pub(crate) fn begin_receipt(&mut self, device: DeviceId) -> bool {
        self.receipts.insert(device)
    }

    pub(crate) fn end_receipt(&mut self, device: DeviceId) {
        self.receipts.remove(&device);
    }

    /// Records the counts of intervals that are over; at the end, all of them.
    pub(crate) async fn count(&mut self, all: bool) {
        let now_unix_ms = now_unix_ms();
        let due = [self.repeats.due(now_unix_ms, all), self.looks.due(now_unix_ms, all)].concat();
        for entry in due {
            self.write(entry, None).await;
        }
    }
}
