//! What the hub does when a device is forgotten: it is thrown out, and where the operator wants it, runs that have learnt from it begin
//! anew without it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use starling_audit::Who;
use starling_audit::erasure::Unlearned;
use starling_protocol::run::RunMachine;
use starling_wire::{DeviceId, RunId};

use super::operator::RUNS_OPEN_MAX;
use super::{Hub, Run};
use crate::enrolment::devices::DeviceState;
use crate::erasure::{Erasure, Forgetting, Start, Traced};
use crate::event::AdminReply;
use crate::records::RunState;
use crate::worker::{Job, NewRun};

impl Hub {
    /// `device forget`: with `plan`, nothing but what would be done.
    pub(super) async fn forget(
        &mut self,
        (word, text): (&'static str, String),
        (plan, unlearn): (bool, bool),
        who: Who,
        reply: AdminReply,
    ) {
        match self.registrar.find(text).await {
            Ok(device) => self.forget_device(device, (plan, unlearn), who, Some(reply)).await,
            Err(error) => {
                self.recorder.could_not(who, word).await;
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Also for a device whose forgetting a crash interrupted.
    pub(super) async fn forget_device(
        &mut self,
        device: DeviceId,
        (plan, unlearn): (bool, bool),
        who: Who,
        reply: Option<AdminReply>,
    ) {
        let (record, devices_left) = self.registrar.known(device).await;
        let forgetting = Forgetting { device, record, devices_left, who, plan, unlearn, reply };
        if !plan {
            self.bar(device, DeviceState::Revoked, true).await;
            self.turned_away.retain(|peer| peer.device != Some(device));
            if let Err(error) = self.registrar.retire(device, unlearn).await {
                return forgetting.answer(Err(error));
            }
        }
        self.worker.queue(Job::Trace(Box::new(forgetting))).await;
    }

    pub(super) async fn traced(&mut self, forgetting: Forgetting, traced: Result<Traced, String>) {
        let traced = match traced {
            Ok(traced) => traced,
            Err(error) => return forgetting.answer(Err(error)),
        };
        if forgetting.plan {
            let plan = self.plan(&forgetting, &traced);
            return forgetting.answer(Ok(plan));
        }
        let Traced { influence, starts, .. } = traced;
        let mut unlearned = BTreeMap::new();
        if forgetting.unlearn {
            for (id, start) in starts {
                let first = influence.runs[&id].version_first;
                let began = self.unlearn(id, start, first, &forgetting).await;
                unlearned.extend(began.map(|began| (id, began)));
            }
        }
        self.worker.queue(Job::Erase(Box::new(Erasure { forgetting, influence, unlearned }))).await;
    }

    /// Begins a run anew from before the device's first round, and ends it. Nothing where no further run may be open.
    async fn unlearn(&mut self, id: RunId, start: Start, first: u64, forgetting: &Forgetting) -> Option<Unlearned> {
        let seed = self.runs.get(&id)?.record.seed;
        let version = start.kept.as_ref().map_or(0, |kept| kept.version);
        let again = self.runs.values().find(|run| run.record.origin.is_some_and(|(from, _)| from == id));
        // After a crash the run may be there already.
        let new = match again.map(|run| run.record.run) {
            Some(new) => new,
            None => {
                if self.runs_open() >= RUNS_OPEN_MAX {
                    tracing::error!(run = id.0, "no further run may be open: the run is not unlearned");
                    return None;
                }
                let new = self.next_run();
                let mut task = start.task;
                task.federation.devices_min = devices_min(task.federation.devices_min, forgetting.devices_left);
                let mut record = Run::new_record(new, &task, seed);
                record.origin = Some((id, version));
                record.version = version;
                record.rounds_committed = start.kept.as_ref().map_or(0, |kept| kept.round);
                self.runs.insert(new, Run::stored(record.clone(), Vec::new(), None));
                let begun = NewRun { task, weights: None, kept: start.kept, bundle: Vec::new(), who: forgetting.who };
                self.worker.queue(Job::Load(Box::new(record), Some(Box::new(begun)))).await;
                new
            }
        };
        tracing::warn!(run = id.0, new = new.0, version, "a run begins anew without a device that is forgotten");
        if let Some(run) = self.runs.get_mut(&id) {
            run.withdrawal = Some((new, first));
            if run.open.is_some() {
                // A version that is being committed is the last; then it goes with the others.
                self.with_machine(id, RunMachine::handle_stop).await;
            } else {
                self.withdraw(id).await;
            }
        }
        Some(Unlearned { run: new.0, version })
    }

    /// The models of a run whose place another one has taken go, once it is over.
    pub(super) async fn withdraw(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some((new, first)) = run.withdrawal.take() else { return };
        run.record.replaced_by = Some(new);
        run.record.version_blob.clear();
        run.record.master_blob.clear();
        run.record.state = RunState::Stopped;
        self.worker.queue(Job::Withdraw(Box::new(run.record.clone()), first)).await;
    }

    fn plan(&self, forgetting: &Forgetting, traced: &Traced) -> Value {
        let Traced { influence, starts, final_unix_s } = traced;
        let runs = influence.runs.iter().map(|(id, found)| {
            let mut said = serde_json::to_value(found.stated(*id)).unwrap_or_default();
            said["unlearn"] = starts.get(id).map_or(Value::Null, |start| self.cost(*id, start, forgetting));
            said
        });
        let record = forgetting.record.as_ref();
        json!({
            "device": forgetting.device.to_string(),
            "name": record.map(|record| &record.name),
            "tags": record.map(|record| &record.tags),
            "state": record.map(|record| record.state.word()),
            "connected": self.fleet.devices().contains(&forgetting.device),
            "runs": runs.collect::<Value>(),
            "releases": influence.releases,
            "unreadable": influence.unreadable,
            "final_unix_s": final_unix_s,
        })
    }

    /// What unlearning costs: the rounds that were committed since then, at what they cost the first time.
    fn cost(&self, id: RunId, start: &Start, forgetting: &Forgetting) -> Value {
        let round = start.kept.as_ref().map_or(0, |kept| kept.round);
        let rounds = self.runs.get(&id).map_or(&[][..], |run| &run.rounds);
        let again = || rounds.iter().filter(|done| done.round > round);
        json!({
            "from_round": round,
            "from_version": start.kept.as_ref().map_or(0, |kept| kept.version),
            "rounds_to_repeat": again().count(),
            "bytes_up": again().map(|round| round.bytes_up).sum::<u64>(),
            "bytes_down": again().map(|round| round.bytes_down).sum::<u64>(),
            "wall_s": again().map(|round| round.wall_s).sum::<f64>(),
            "devices_min": devices_min(start.task.federation.devices_min, forgetting.devices_left),
        })
    }
}

/// A run that wants more devices than are left would wait for ever.
fn devices_min(wanted: u32, left: u32) -> u32 {
    wanted.min(left.max(1))
}
