//! What the hub does about who belongs to the fleet: welcomes, clones, and the operator's word on a device.

use starling_audit::Who;
use starling_net::AdminLink;
use starling_protocol::run::Expelled;
use starling_wire::{DeviceId, Refusal};
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
                (Some((_, Expelled::Abandoned)), _) => {
                    tracing::warn!(run = id.0, device = %device, "its update is not in memory any more: the attempt is done again without it");
                }
                _ => {}
            }
            self.pump(id).await;
        }
    }
}
