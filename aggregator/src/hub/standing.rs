//! What the hub does about who belongs to the fleet: welcomes, clones, and the operator's word on a device.

use starling_audit::Who;
use starling_net::AdminLink;
use starling_protocol::run::Expelled;
use starling_spec::check_tags;
use starling_wire::{DeviceId, Refusal, RunId, ToClient};
use tokio::sync::oneshot;

use super::Hub;
use crate::enrolment::devices::DeviceState;
use crate::enrolment::{Verb, acts};
use crate::event::{AdminReply, Peer};
use crate::worker::Job;

impl Hub {
    pub(super) async fn connected(&mut self, peer: Peer) {
        // The operator may have spoken between the welcome and now.
        if let Err(refusal) = self.registrar.standings.admit(peer.device, peer.link.peer_leaf().key.as_ref()) {
            return peer.link.close(refusal);
        }
        self.recorder.connected(&peer).await;
        tracing::info!(device = %peer.device, name = peer.name, software = peer.software, "a device is here");
        let (device, now_at, now_ms) = (peer.device, peer.link.remote_addr(), self.now_ms());
        let name = peer.name.clone();
        let Some(before) = self.fleet.insert(peer) else { return };
        let before_at = before.link.remote_addr();
        before.link.close(Refusal::Superseded);
        if let Some((one, other)) = self.sightings.note(now_ms, device, before_at, now_at) {
            acts::cloned(device, one, other);
            let who = format!("device {name} at {one} and at {other}");
            self.turn_away(Some(device), who, Refusal::ClonedKey);
            self.bar(device, DeviceState::Cloned, false).await;
            let (reply, _) = oneshot::channel();
            let verb = Verb::Decide { device, state: DeviceState::Cloned, any_key: false, word: "device-suspend" };
            self.registrar.verb(verb, Who::System, reply);
        }
    }

    pub(super) fn administering(&mut self, link: AdminLink) {
        // An operator may have spoken between its welcome and now.
        match self.registrar.standings.admit(link.peer().id, link.peer_leaf().key.as_ref()) {
            Ok(()) => _ = self.administrators.insert(link.number(), link),
            Err(refusal) => link.close(refusal),
        }
    }

    /// The operator's word takes effect at once and is answered when it is durable.
    pub(super) async fn decide(
        &mut self,
        (word, text): (&'static str, String),
        state: DeviceState,
        any_key: bool,
        who: Who,
        reply: AdminReply,
    ) {
        let device = match self.registrar.find(text).await {
            Ok(device) => device,
            Err(error) => {
                self.recorder.could_not(who, word).await;
                let _ = reply.send(Err(error));
                return;
            }
        };
        if state != DeviceState::Active {
            self.bar(device, state, state == DeviceState::Revoked).await;
        }
        self.registrar.verb(Verb::Decide { device, state, any_key, word }, who, reply);
    }

    /// The operator's word on what a device may have: it counts at once and is answered when it is durable. Of runs whose tags it lost it
    /// hears no more, and of those that it may have now it hears; what it contributed stays.
    pub(super) async fn tag(&mut self, text: String, tags: Vec<String>, who: Who, reply: AdminReply) {
        let found = match check_tags("tags", &tags) {
            Ok(()) => self.registrar.find(text).await,
            Err(error) => Err(error.to_string()),
        };
        let device = match found {
            Ok(device) => device,
            Err(error) => {
                self.recorder.could_not(who, "device-tag").await;
                let _ = reply.send(Err(error));
                return;
            }
        };
        let may = |hub: &Self| -> Vec<RunId> {
            let open = hub.runs.iter().filter(|(_, run)| run.open.is_some());
            open.filter(|(_, run)| hub.may_take_part(device, run)).map(|(id, _)| *id).collect()
        };
        let before = may(self);
        self.registrar.standings.tags.set(device, &tags);
        let after = may(self);
        let now_ms = self.now_ms();
        for id in before.iter().copied().filter(|id| !after.contains(id)) {
            self.fleet.send(device, ToClient::RunEnd(id));
            self.with_machine(id, |machine| {
                let address = machine.address();
                machine.handle_out(now_ms, device, &address);
                machine.handle_gone(now_ms, device);
            })
            .await;
        }
        for id in after.into_iter().filter(|id| !before.contains(id)) {
            self.introduce(id, &[device]).await;
        }
        self.offer_releases(device);
        self.registrar.verb(Verb::Tag { device, tags }, who, reply);
    }

    /// Throws a device out now, ahead of the disk: its connection ends, no round waits for it, and with `take_out` what it
    /// has contributed to rounds that have not begun to commit counts no longer.
    pub(super) async fn bar(&mut self, device: DeviceId, state: DeviceState, take_out: bool) {
        let Some(refusal) = state.refusal() else { return };
        self.registrar.standings.bar(device, refusal);
        self.fleet.cut(device, refusal);
        self.administrators.values().filter(|link| link.peer().id == device).for_each(|link| link.close(refusal));
        let now_ms = self.now_ms();
        for id in self.runs.keys().copied().collect::<Vec<_>>() {
            if !take_out {
                self.with_machine(id, |machine| {
                    let address = machine.address();
                    machine.handle_out(now_ms, device, &address);
                    machine.handle_gone(now_ms, device);
                })
                .await;
                continue;
            }
            let kept = self.staging.take_kept(id, device);
            let separable = kept.is_some();
            let expelled = self.with_machine_now(id, |machine| {
                let address = machine.address();
                (address, machine.handle_expelled(now_ms, device, separable))
            });
            match (expelled, kept) {
                (Some((address, Expelled::TakeOut)), Some(staged)) => {
                    tracing::info!(run = id.0, device = %device, "its update is taken out of the round");
                    self.worker.queue(Job::TakeOut(address, staged)).await;
                }
                (Some((address, Expelled::DropOut)), _) => {
                    self.worker.queue(Job::DropOut(device, address)).await;
                }
                (Some((_, Expelled::Abandoned)), _) => {
                    tracing::warn!(run = id.0, device = %device, "its update cannot be taken out: the attempt is done again without it");
                }
                _ => {}
            }
            self.pump(id).await;
        }
    }
}
