//! The devices that are connected now, and what each has offered.

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_net::Link;
use starling_wire::{DeviceId, Refusal, ReleaseReport, ToClient};

use crate::event::{Peer, SessionId};

#[derive(Debug)]
struct Member {
    peer: Peer,
    tasks: Vec<String>,
    /// What it last said of the release of each of its tasks.
    releases: BTreeMap<String, ReleaseReport>,
}

/// Every connected device, by its id. Its size is bounded by `connections_max`.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    members: BTreeMap<DeviceId, Member>,
}

/// A connection that a newer one has replaced.
#[derive(Debug)]
pub(crate) struct Superseded {
    pub(crate) link: Arc<Link>,
}

impl Fleet {
    /// Takes a connection in; the newest of a device counts.
    pub(crate) fn insert(&mut self, peer: Peer) -> Option<Superseded> {
        let before = self.members.insert(peer.device, Member { peer, tasks: Vec::new(), releases: BTreeMap::new() });
        before.map(|member| Superseded { link: member.peer.link })
    }

    /// Forgets a connection, unless a newer one of the same device has replaced it.
    pub(crate) fn remove(&mut self, device: DeviceId, session: SessionId) -> bool {
        self.is_current(device, session) && self.members.remove(&device).is_some()
    }

    /// Whether `session` is the device's newest connection.
    pub(crate) fn is_current(&self, device: DeviceId, session: SessionId) -> bool {
        self.members.get(&device).is_some_and(|member| member.peer.session == session)
    }

    /// Notes the tasks that a device offers itself for.
    pub(crate) fn offer(&mut self, device: DeviceId, tasks: Vec<String>) {
        if let Some(member) = self.members.get_mut(&device) {
            member.releases.retain(|task, _| tasks.contains(task));
            member.tasks = tasks;
        }
    }

    /// Notes where a device stands with a release, if that is of a task that it offers itself for: so its tasks bound what is
    /// remembered.
    pub(crate) fn note_release(&mut self, device: DeviceId, report: ReleaseReport) {
        if let Some(member) = self.members.get_mut(&device)
            && member.tasks.contains(&report.task)
        {
            member.releases.insert(report.task.clone(), report);
        }
    }

    /// For each device that offers itself for `task`, what it last said of its release.
    pub(crate) fn releases<'a>(&'a self, task: &'a str) -> impl Iterator<Item = (DeviceId, Option<&'a ReleaseReport>)> {
        let offers = move |member: &Member| member.tasks.iter().any(|offered| offered == task);
        let members = self.members.iter().filter(move |(_, member)| offers(member));
        members.map(move |(device, member)| (*device, member.releases.get(task)))
    }

    /// Whether `device` offers itself for `task`.
    pub(crate) fn offers(&self, device: DeviceId, task: &str) -> bool {
        self.members.get(&device).is_some_and(|member| member.tasks.iter().any(|offered| offered == task))
    }

    /// Queues a message for a device. One that has not read hundreds of them is cut off instead of remembered.
    pub(crate) fn send(&self, device: DeviceId, message: ToClient) {
        if let Some(member) = self.members.get(&device)
            && member.peer.outbound.try_send(message).is_err()
        {
            member.peer.link.close(Refusal::Stalled);
        }
    }

    /// Ends a device's connection.
    pub(crate) fn cut(&self, device: DeviceId, reason: Refusal) {
        if let Some(member) = self.members.get(&device) {
            tracing::warn!(device = %device, code = reason.code(), reason = reason.text(), "a device was cut off");
            member.peer.link.close(reason);
        }
    }

    /// Ends every connection.
    pub(crate) fn close_all(&self, reason: Refusal) {
        self.members.values().for_each(|member| member.peer.link.close(reason));
    }

    /// The ids of all.
    pub(crate) fn devices(&self) -> Vec<DeviceId> {
        self.members.keys().copied().collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// A line each, for the operator.
    pub(crate) fn summaries(&self) -> Vec<serde_json::Value> {
        let summary = |(device, member): (&DeviceId, &Member)| {
            serde_json::json!({
                "device": device.to_string(),
                "name": member.peer.name,
                "software": member.peer.software,
                "address": member.peer.link.remote_addr().to_string(),
                "tasks": member.tasks,
            })
        };
        self.members.iter().map(summary).collect()
    }
}
