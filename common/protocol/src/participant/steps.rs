//! A run's next step on the device, and what becomes of work that nobody waits for.

use std::sync::Arc;

use starling_wire::{Fetch, RoundKind, RunId, ToAggregator};

use super::slot::{Slot, Stage};
use super::{Action, Fetching, JobId, JobOrder, Participant, RUNS_MAX, Run, SecureOrder};

impl Participant {
    pub(super) fn leave_training(&mut self, id: RunId, leaves: impl Fn(&Slot) -> bool) {
        self.leave(id, |run| &mut run.train, leaves);
    }

    pub(super) fn leave(
        &mut self,
        id: RunId,
        place: fn(&mut Run) -> &mut Option<Slot>,
        leaves: impl Fn(&Slot) -> bool,
    ) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let left = place(run).take_if(|slot| leaves(slot));
        if let Some(job) = left.as_ref().and_then(Slot::job) {
            self.actions.push_back(Action::Stop(job));
        }
        if let Some(left) = left.filter(|slot| slot.secure) {
            self.actions.push_back(Action::Secure(SecureOrder::Leave(left.start.address)));
        }
        self.advance(id);
    }

    /// Takes the next step of a run: upload what is sealed, start what can start, fetch what is missing.
    pub(super) fn advance(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id).filter(|_| self.connected) else { return };
        if let Some((address, sealed)) = run.train.as_mut().and_then(Slot::take_upload) {
            self.actions.push_back(Action::Upload(address, sealed));
        }
        if run.slots().any(|slot| slot.job().is_some()) {
            return;
        }
        let held = run.held;
        // An answer comes first: it is short, and the model that it is about may soon be replaced.
        let waiting = |slot: &&mut Slot| slot.live && matches!(slot.stage, Stage::Waiting);
        let mut slots = [&mut run.ask, &mut run.train].into_iter().flatten().filter(waiting).collect::<Vec<_>>();
        if let Some(slot) = slots.iter_mut().find(|slot| Some(slot.start.base.digest) == held) {
            self.jobs += 1;
            let job = JobId(self.jobs);
            slot.stage = Stage::Working(job);
            let order = JobOrder { job, plan: Arc::clone(&slot.plan), start: slot.start };
            self.actions.push_back(match slot.start.kind {
                RoundKind::Train => Action::Train(order),
                _ => Action::Answer(order),
            });
        } else if let (Some(slot), None) = (slots.first(), &run.fetching) {
            let base = slot.start.base;
            run.fetching = Some(Fetching { base, held });
            let fetch = Fetch { run: id, digest: base.digest, held, offset: 0 };
            self.actions.push_back(Action::Fetch(fetch, base));
        }
    }

    pub(super) fn working(&mut self, job: JobId) -> Option<(RunId, &mut Run)> {
        self.runs.iter_mut().find(|(_, run)| run.slots().any(|slot| slot.is_working(job))).map(|(id, run)| (*id, run))
    }

    /// Forgets the oldest run that has nothing to do when there are as many as there may be.
    pub(super) fn make_room(&mut self) {
        if self.runs.len() >= RUNS_MAX {
            let idle = self.runs.iter().find(|(_, run)| run.fetching.is_none() && run.slots().next().is_none());
            if let Some(id) = idle.map(|(id, _)| *id) {
                self.handle_run_end(id);
            }
        }
    }

    pub(super) fn send(&mut self, message: ToAggregator) {
        if self.connected {
            self.actions.push_back(Action::Send(message));
        }
    }
}
