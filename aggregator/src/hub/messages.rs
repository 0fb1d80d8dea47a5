//! What devices say, and what they are told of runs.

use starling_wire::{Address, BlobHeader, BlobKind, DeviceId, Refusal, RunId, ToAggregator, ToClient};

use super::{Hub, REFUSALS_MAX, TurnedAway};
use crate::event::HeaderReply;
use crate::run::Run;
use crate::worker::Job;

impl Hub {
    pub(super) async fn gone(&mut self, device: DeviceId) {
        let now_ms = self.now_ms();
        for id in self.runs.keys().copied().collect::<Vec<_>>() {
            self.with_machine(id, |machine| machine.handle_gone(now_ms, device)).await;
        }
    }

    pub(super) fn turn_away(&mut self, device: Option<DeviceId>, who: String, reason: Refusal) {
        tracing::warn!(peer = who, code = reason.code(), reason = reason.text(), "a peer was turned away");
        self.turned_away.truncate(REFUSALS_MAX - 1);
        self.turned_away.push_front(TurnedAway { device, who, code: reason.code(), reason: reason.text() });
    }

    pub(super) async fn message(&mut self, device: DeviceId, message: ToAggregator) {
        let now_ms = self.now_ms();
        match message {
            ToAggregator::Available(available) => {
                if available.tasks.len() > starling_wire::limits::TASKS_PER_DEVICE_MAX {
                    return self.fleet.cut(device, Refusal::MalformedFrame);
                }
                // Fresh words replace old ones: tasks that are no longer offered are left.
                self.gone(device).await;
                self.fleet.offer(device, available.tasks);
                for id in self.runs.keys().copied().collect::<Vec<_>>() {
                    self.introduce(id, &[device]).await;
                }
                self.offer_releases(device);
            }
            ToAggregator::Release(report) => self.note_release(device, report),
            ToAggregator::Accept(address) => tracing::debug!(device = %device, %address, "accepted"),
            ToAggregator::Decline(address, reason) => {
                tracing::info!(device = %device, %address, reason = reason.text(), "a device declined");
                if let Some(run) = self.runs.get_mut(&address.run) {
                    *run.declined.entry(reason.text()).or_default() += 1;
                }
                self.with_machine(address.run, |machine| machine.handle_out(now_ms, device, &address)).await;
            }
            ToAggregator::Evaluation(evaluation) => {
                let run = evaluation.address.run;
                self.with_machine(run, |machine| machine.handle_evaluation(now_ms, device, evaluation)).await;
            }
            ToAggregator::Statistics(statistics) => {
                let run = statistics.address.run;
                self.with_machine(run, |machine| machine.handle_statistics(now_ms, device, &statistics)).await;
            }
            ToAggregator::Secure(mail) => self.mail(device, mail).await,
            ToAggregator::Bye => self.gone(device).await,
            // A second request before the first is answered is a device's own loss.
            ToAggregator::WantReceipt(want) => {
                if self.recorder.begin_receipt(device) {
                    self.worker.queue(Job::Receipt(device, want)).await;
                }
            }
            _ => self.fleet.cut(device, Refusal::UnexpectedFrame),
        }
    }

    /// Shows a run to those of `devices` that offered themselves for its task, and them to the run.
    pub(super) async fn introduce(&mut self, id: RunId, devices: &[DeviceId]) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get(&id) else { return };
        let Some(open) = run.open.as_ref().filter(|open| !open.machine.is_finished()) else { return };
        let offered = devices.iter().copied().filter(|device| self.may_take_part(*device, run));
        let offered: Vec<DeviceId> = offered.collect();
        let plan = open.plan.clone();
        for device in &offered {
            self.fleet.send(*device, ToClient::Plan(plan.clone()));
        }
        self.with_machine(id, |machine| machine.handle_all_available(now_ms, offered)).await;
    }

    /// Whether a device offers itself for a run's task and has the run's tags.
    pub(super) fn may_take_part(&self, device: DeviceId, run: &Run) -> bool {
        self.fleet.offers(device, &run.record.name) && self.registrar.standings.tags.open_to(device, &run.record.tags)
    }

    /// Tells those who know of a run that it is over.
    pub(super) fn tell_end(&self, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        for device in self.fleet.devices().into_iter().filter(|device| self.may_take_part(*device, run)) {
            self.fleet.send(device, ToClient::RunEnd(id));
        }
    }

    pub(super) async fn admit_header(&mut self, device: DeviceId, header: &BlobHeader) -> HeaderReply {
        if header.kind == BlobKind::Masked {
            return self.admit_masked(device, header).await.map(|address| (address, None));
        }
        let now_ms = self.now_ms();
        let open = self.runs.get(&header.run).and_then(|run| run.open.as_ref()).ok_or(Refusal::UnknownRun)?;
        let task = open.machine.address().task;
        let address = Address { task, run: header.run, round: header.round, attempt: header.attempt };
        open.machine.admit_update(device, &address)?;
        let numerics = open.loaded.numbers.numerics;
        if let Err(reason) = starling_update::admit_header(header, &numerics) {
            // A member whose update can never be taken must not make the others wait for the deadline.
            self.refuse_update(device, address, reason).await;
            self.with_machine(header.run, |machine| machine.handle_out(now_ms, device, &address)).await;
            return Err(reason);
        }
        Ok((address, Some(numerics)))
    }

    pub(super) async fn refuse_update(&mut self, device: DeviceId, address: Address, reason: Refusal) {
        self.recorder.update_refused(device, &address, reason).await;
        tracing::warn!(device = %device, %address, code = reason.code(), reason = reason.text(), "an update was refused");
        if let Some(run) = self.runs.get_mut(&address.run) {
            run.refused += 1;
        }
        self.fleet.send(device, ToClient::Verdict(starling_wire::Verdict::Refused { address, reason }));
    }
}
