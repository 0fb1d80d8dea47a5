//! One run as the hub holds it: its record, its rounds, and, while it is under way, its machine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use starling_audit::Who;
use starling_daemon::entropy;
use starling_protocol::run::{Action, Answer, Coins, Finish, Progress, RunMachine, RunSettings, SecureCohort, Turns};
use starling_spec::{TaskFile, TaskKind};
use starling_wire::{Address, DeviceId, RoundKind, RoundStart, RunId, RunPlan, TaskId, ToClient};

use crate::event::AdminReply;
use crate::fleet::Fleet;
use crate::ledger::Balance;
use crate::records::{AnswerRecord, RoundRecord, RunRecord, RunState};
use crate::worker::{Job, Loaded};

/// A run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) record: RunRecord,
    pub(crate) rounds: Vec<RoundRecord>,
    /// What it found out, where that is what it is for.
    pub(crate) answer: Option<AnswerRecord>,
    pub(crate) open: Option<Open>,
    pub(crate) finish: Option<Finish>,
    /// Why it cannot go on.
    pub(crate) problem: Option<String>,
    /// Who wants it, and waits to hear that it has begun.
    pub(crate) starter: Option<(Who, AdminReply)>,
    /// The run that takes its place, and its first version that has to go, once it is over.
    pub(crate) withdrawal: Option<(RunId, u64)>,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) refused: u64,
    /// What it has spent of its devices' privacy, where it has noise.
    pub(crate) balance: Option<Balance>,
    /// How often devices stayed away from a round, by their reason.
    pub(crate) declined: BTreeMap<&'static str, u64>,
    counted: (u64, u64),
    /// Rounds and parameters, known since the run was in memory.
    size: Option<(u32, usize)>,
}

/// What a run has while it is under way.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) machine: RunMachine,
    pub(crate) loaded: Loaded,
    pub(crate) plan: RunPlan,
    /// Whose updates are in the version that is being committed.
    pub(crate) contributors: BTreeSet<DeviceId>,
    round_started: Instant,
    asked: Option<(Address, RoundKind)>,
}

impl Run {
    /// The record of a run that has not begun.
    pub(crate) fn new_record(run: RunId, task: &TaskFile, seed: u64) -> RunRecord {
        RunRecord {
            run,
            name: task.name.clone(),
            task_blob: String::new(),
            seed,
            tags: task.federation.tags.clone(),
            state: RunState::Running,
            rounds_committed: 0,
            attempt: 1,
            version: 0,
            version_blob: String::new(),
            master_blob: String::new(),
            clip: None,
            origin: None,
            replaced_by: None,
        }
    }

    /// A run as its records tell it.
    pub(crate) fn stored(record: RunRecord, rounds: Vec<RoundRecord>, answer: Option<AnswerRecord>) -> Self {
        Self {
            record,
            rounds,
            answer,
            open: None,
            finish: None,
            problem: None,
            starter: None,
            withdrawal: None,
            bytes_up: 0,
            bytes_down: 0,
            refused: 0,
            balance: None,
            declined: BTreeMap::new(),
            counted: (0, 0),
            size: None,
        }
    }

    /// The run's model is in memory: its rounds can begin.
    pub(crate) fn open(&mut self, loaded: Loaded) {
        self.record = loaded.record.clone();
        self.size = Some((loaded.task.federation.rounds, loaded.numbers.numerics.parameters()));
        let task = TaskId(loaded.plan.id());
        let settings = RunSettings {
            task,
            run: self.record.run,
            seed: self.record.seed,
            coins: Coins::Secret(entropy::key()),
            turns: Turns::of(&loaded.plan),
            federation: loaded.task.federation.clone(),
            tensors: loaded.tensors,
            secure_cohort: SecureCohort::of(&loaded.plan),
        };
        let progress = Progress {
            rounds_committed: self.record.rounds_committed,
            attempt: self.record.attempt,
            attempt_first: loaded.attempt_first,
        };
        let plan = RunPlan {
            run: self.record.run,
            owner_epoch: 1,
            task,
            name: self.record.name.clone(),
            plan: loaded.plan.to_json(),
            bundle: loaded.bundle.to_vec(),
        };
        let mut machine = RunMachine::new(settings, progress).with_turns(BTreeMap::clone(&loaded.turns));
        if let Some(budget) = &loaded.budget {
            machine.limit_rounds(budget.rounds_left);
            self.balance = Some(budget.balance.clone());
        }
        self.open = Some(Open {
            machine,
            loaded,
            plan,
            contributors: BTreeSet::new(),
            round_started: Instant::now(),
            asked: None,
        });
    }

    /// Does what the machine says; what is the worker's to do is returned, in order.
    pub(crate) fn pump(&mut self, fleet: &mut Fleet) -> Vec<Job> {
        let mut jobs = Vec::new();
        let Some(open) = self.open.as_mut() else { return jobs };
        while let Some(action) = open.machine.poll_action() {
            match action {
                Action::Start { device, address, kind, deadline_ms } => {
                    // A device that comes back is asked again; the round's clock goes on.
                    if open.asked != Some((address, kind)) {
                        open.round_started = Instant::now();
                        open.asked = Some((address, kind));
                    }
                    let start = RoundStart {
                        address,
                        kind,
                        base: open.loaded.reference,
                        deadline_ms,
                        weight_max: open.loaded.plan.update.weight_max,
                        clip: open.loaded.record.clip,
                    };
                    fleet.send(device, ToClient::RoundStart(start));
                }
                Action::Close { address, stage } => jobs.push(Job::CloseStage(address, stage)),
                Action::Remind { device, address } => jobs.push(Job::Remind(device, address)),
                Action::End { device, address, reason } => fleet.send(device, ToClient::RoundEnd(address, reason)),
                Action::Commit { address, contributors, cohort } => {
                    open.contributors = contributors;
                    let round = RoundRecord {
                        round: address.round,
                        attempt: address.attempt,
                        cohort: u32::try_from(cohort).unwrap_or(u32::MAX),
                        contributors: u32::try_from(open.contributors.len()).unwrap_or(u32::MAX),
                        bytes_up: self.bytes_up - self.counted.0,
                        bytes_down: self.bytes_down - self.counted.1,
                        ..RoundRecord::default()
                    };
                    self.counted = (self.bytes_up, self.bytes_down);
                    jobs.push(Job::Commit { address, round: Box::new(round), started: open.round_started });
                }
                Action::Abandon { address } => {
                    tracing::warn!(%address, "an attempt was given up: too few updates in time");
                    self.record.attempt = address.attempt.saturating_add(1);
                    jobs.push(Job::Discard(address));
                    jobs.push(Job::Note(Box::new(self.record.clone()), None));
                }
                Action::Answered { answer, .. } if !open.loaded.task.federation.goal.makes_versions() => {
                    let answer = AnswerRecord::from(answer);
                    self.answer = Some(answer.clone());
                    jobs.push(Job::Answered(self.record.run, Box::new(answer)));
                }
                Action::Answered { answer: Answer::Ranges(_), .. } => {}
                Action::Answered { address, answer: Answer::HeldOut(figures) } => {
                    if let Some(round) = self.rounds.iter_mut().find(|round| round.round == address.round)
                        && figures.examples > 0
                    {
                        let examples = figures.examples as f64;
                        let classes = open.loaded.plan.kind != TaskKind::Regression;
                        round.heldout_accuracy = classes.then_some(figures.correct as f64 / examples);
                        round.heldout_loss = Some(figures.loss_sum / examples);
                        jobs.push(Job::Note(Box::new(self.record.clone()), Some(Box::new(round.clone()))));
                    }
                }
                Action::Finished(finish) => self.finish = Some(finish),
            }
        }
        jobs
    }

    fn state(&self) -> &'static str {
        match (self.record.state, &self.problem) {
            (_, Some(_)) => "failed",
            (RunState::Running, None) => "running",
            (RunState::Finished, None) => "finished",
            (RunState::Stopped, None) => "stopped",
            (RunState::Exhausted, None) => "exhausted",
        }
    }

    /// One line of `run list`.
    pub(crate) fn summary(&self) -> serde_json::Value {
        serde_json::json!({
            "run": self.record.run,
            "name": self.record.name,
            "state": self.state(),
            "tags": self.record.tags,
            "rounds_committed": self.record.rounds_committed,
            "test_accuracy": self.rounds.last().and_then(|round| round.test_accuracy),
        })
    }

    /// The answer to `run status`.
    pub(crate) fn status(&self, devices_connected: usize) -> serde_json::Value {
        let open = self.open.as_ref();
        let declined =
            self.declined.iter().map(|(reason, times)| serde_json::json!({ "reason": reason, "times": times }));
        serde_json::json!({
            "run": self.record.run,
            "name": self.record.name,
            "seed": self.record.seed,
            "tags": self.record.tags,
            "state": self.state(),
            "problem": self.problem,
            "rounds_committed": self.record.rounds_committed,
            "rounds_total": self.size.map(|size| size.0),
            "round": open.map(|open| open.machine.address().round),
            "attempt": open.map(|open| open.machine.address().attempt),
            "parameters": self.size.map(|size| size.1),
            "devices_connected": devices_connected,
            "devices_available": open.map(|open| open.machine.devices_available()),
            "version": self.record.version,
            "version_digest": self.record.version_blob,
            "origin": self.record.origin.map(|(run, version)| serde_json::json!({ "run": run, "version": version })),
            "replaced_by": self.record.replaced_by,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "refused": self.refused,
            "privacy": self.balance,
            "declined": declined.collect::<Vec<_>>(),
            "signed": open.map(|open| !open.plan.bundle.is_empty()),
            "rounds": self.rounds,
            "answer": self.answer,
        })
    }
}
