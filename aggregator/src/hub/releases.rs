//! Releases: who is offered which, and where the connected devices stand with them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use starling_audit::Who;
use starling_wire::{DeviceId, ReleaseOffer, ReleaseReport, Standing, ToClient};

use super::Hub;
use crate::event::AdminReply;
use crate::publish::Publication;
use crate::records::ReleaseRecord;
use crate::worker::Job;

fn offer(release: &ReleaseRecord) -> ToClient {
    let ReleaseRecord { task, version, digest, length, tags: _ } = release.clone();
    ToClient::Release(ReleaseOffer { task, version, digest, length })
}

impl Hub {
    pub(super) async fn publish(&mut self, publication: Publication, who: Who, reply: AdminReply) {
        self.worker.queue(Job::Publish(publication, who, reply)).await;
    }

    /// The release is durable: now devices may hear of it.
    pub(super) fn published(&mut self, published: Result<ReleaseRecord, String>, reply: AdminReply) {
        let answer = published.map(|release| {
            tracing::info!(task = release.task, version = release.version, digest = %release.digest, "a release is published");
            let devices = self.fleet.devices().into_iter();
            let offered = devices.filter(|device| self.may_have(*device, &release));
            let offered = offered.inspect(|device| self.fleet.send(*device, offer(&release))).count();
            let answer = json!({
                "task": release.task,
                "version": release.version,
                "digest": release.digest.to_string(),
                "bytes": release.length,
                "devices": offered,
            });
            self.releases.insert(release.task.clone(), release);
            answer
        });
        // The operator may have gone away.
        let _ = reply.send(answer.map(Into::into));
    }

    /// Whether a device offers itself for a release's task and has the release's tags.
    fn may_have(&self, device: DeviceId, release: &ReleaseRecord) -> bool {
        self.fleet.offers(device, &release.task) && self.registrar.standings.tags.open_to(device, &release.tags)
    }

    /// Offers a device the releases of the tasks that it offers itself for.
    pub(super) fn offer_releases(&self, device: DeviceId) {
        for release in self.releases.values().filter(|release| self.may_have(device, release)) {
            self.fleet.send(device, offer(release));
        }
    }

    pub(super) fn note_release(&mut self, device: DeviceId, report: ReleaseReport) {
        let ReleaseReport { task, version, standing, .. } = &report;
        match standing {
            Standing::Refused(reason) => {
                tracing::warn!(device = %device, task, version, reason = reason.text(), "a device refused a release");
            }
            standing => tracing::info!(device = %device, task, version, ?standing, "a release is on a device"),
        }
        self.fleet.note_release(device, report);
    }

    /// The answer to `release list`.
    pub(super) fn release_list(&self) -> Value {
        self.releases.values().map(|release| self.release_line(release)).collect()
    }

    fn release_line(&self, release: &ReleaseRecord) -> Value {
        let (mut devices, mut hold, mut serve, mut serve_another) = (0, 0, 0, 0);
        let mut refused: BTreeMap<&'static str, u32> = BTreeMap::new();
        let tags = &self.registrar.standings.tags;
        for (_, report) in self.fleet.releases(&release.task).filter(|(device, _)| tags.open_to(*device, &release.tags))
        {
            devices += 1;
            let Some(report) = report else { continue };
            let current = (report.version, report.digest) == (release.version, release.digest);
            match report.standing {
                Standing::Refused(reason) if current => *refused.entry(reason.text()).or_default() += 1,
                _ if current => hold += 1,
                _ => {}
            }
            match report.serves {
                Some(version) if version == release.version => serve += 1,
                Some(_) => serve_another += 1,
                None => {}
            }
        }
        let refused: Vec<Value> =
            refused.into_iter().map(|(reason, devices)| json!({ "devices": devices, "reason": reason })).collect();
        json!({
            "task": release.task,
            "version": release.version,
            "digest": release.digest.to_string(),
            "bytes": release.length,
            "tags": release.tags,
            "devices": devices,
            "hold": hold,
            "serve": serve,
            "serve_another": serve_another,
            "refused": refused,
        })
    }
}
