//! Releases: who is offered which, and where the connected devices stand with them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use starling_wire::{DeviceId, OfferedRelease, ReleaseOffer, ReleaseReport, Standing, ToClient};

use super::Hub;
use crate::bundles;
use crate::event::AdminReply;
use crate::records::ReleaseRecord;
use crate::worker::Renewal;

fn offer(release: &ReleaseRecord, bundle: &Bytes) -> ToClient {
    let ReleaseRecord { task, version, digest, length, tags: _ } = release.clone();
    ToClient::Release(OfferedRelease { offer: ReleaseOffer { task, version, digest, length }, bundle: bundle.to_vec() })
}

impl Hub {
    /// The release is durable: now devices may hear of it.
    pub(super) fn published(&mut self, published: Result<(ReleaseRecord, Bytes), String>, reply: AdminReply) {
        let answer = published.map(|(release, bundle)| {
            tracing::info!(task = release.task, version = release.version, digest = %release.digest, "a release is published");
            let offered = self.offer_to_all(&release, &bundle);
            let answer = json!({
                "task": release.task,
                "version": release.version,
                "digest": release.digest.to_string(),
                "bytes": release.length,
                "signed": !bundle.is_empty(),
                "devices": offered,
            });
            self.releases.insert(release.task.clone(), (release, bundle));
            answer
        });
        // The operator may have gone away.
        let _ = reply.send(answer.map(Into::into));
    }

    /// Whether a device offers itself for a release's task and has the release's tags.
    fn may_have(&self, device: DeviceId, release: &ReleaseRecord) -> bool {
        self.fleet.offers(device, &release.task) && self.registrar.standings.tags.open_to(device, &release.tags)
    }

    /// Newer bundles are durable: devices hear of them as if what they vouch for were offered and announced for the first time.
    pub(super) fn renewed(&mut self, renewed: Result<Renewal, String>, reply: AdminReply) {
        let answer = renewed.map(|Renewal { releases, runs, problems }| {
            for (task, bundle) in &releases {
                if let Some(release) = self.releases.get_mut(task) {
                    release.1 = bundle.clone();
                    let release = release.0.clone();
                    self.offer_to_all(&release, bundle);
                }
            }
            for (id, bundle) in &runs {
                let Some(open) = self.runs.get_mut(id).and_then(|run| run.open.as_mut()) else { continue };
                open.plan.bundle = bundle.to_vec();
                let (plan, tags) = (open.plan.clone(), open.loaded.record.tags.clone());
                let of_run = |device: &DeviceId| {
                    self.fleet.offers(*device, &plan.name) && self.registrar.standings.tags.open_to(*device, &tags)
                };
                for device in self.fleet.devices().into_iter().filter(of_run).collect::<Vec<_>>() {
                    self.fleet.send(device, ToClient::Plan(plan.clone()));
                }
            }
            json!({ "releases": releases.len(), "runs": runs.len(), "problems": problems })
        });
        // The operator may have gone away.
        let _ = reply.send(answer.map(Into::into));
    }

    /// How many devices that was.
    fn offer_to_all(&self, release: &ReleaseRecord, bundle: &Bytes) -> usize {
        let devices = self.fleet.devices().into_iter().filter(|device| self.may_have(*device, release));
        devices.inspect(|device| self.fleet.send(*device, offer(release, bundle))).count()
    }

    /// Offers a device the releases of the tasks that it offers itself for.
    pub(super) fn offer_releases(&self, device: DeviceId) {
        for (release, bundle) in self.releases.values().filter(|(release, _)| self.may_have(device, release)) {
            self.fleet.send(device, offer(release, bundle));
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
        self.releases.values().map(|(release, bundle)| self.release_line(release, bundle)).collect()
    }

    fn release_line(&self, release: &ReleaseRecord, bundle: &Bytes) -> Value {
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
            "signed": !bundle.is_empty(),
            "fresh_until_unix_s": bundles::fresh_until_unix_s(bundle),
            "devices": devices,
            "hold": hold,
            "serve": serve,
            "serve_another": serve_another,
            "refused": refused,
        })
    }
}
