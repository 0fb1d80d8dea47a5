//! A device that has pinned a root trains a plan only if publishers signed it: task and bytes.

use starling_spec::{TaskFile, TaskPlan};
use starling_testkit::fleet::PATIENCE;
use starling_testkit::until;
use starling_wire::{
    Address, CodecId, Decline, Digest, Distrust, ModelRef, RoundKind, RoundStart, RunId, RunPlan, TaskId, ToAggregator,
    ToClient,
};

use crate::commands::task;
use crate::publisher::{DAY_S, ENOUGH, TASK, bundle};
use crate::scene::Scene;

fn plan(lr: &str) -> TaskPlan {
    let task = TaskFile::parse(&task(1), &[("train.lr".into(), lr.into())]).expect("a task");
    TaskPlan::new(&task, 1).expect("a plan")
}

impl Scene {
    /// Announces a plan under a run of its own, and starts a round of it. What the device says to that.
    #[track_caller]
    fn round(&mut self, run: u32, plan: &TaskPlan, bundle: Vec<u8>) -> Result<(), Decline> {
        self.announce(run, plan, bundle);
        self.start(RunId(run), TaskId(plan.id()), 1)
    }

    #[track_caller]
    fn announce(&mut self, run: u32, plan: &TaskPlan, bundle: Vec<u8>) {
        let (run, task) = (RunId(run), TaskId(plan.id()));
        let announced = RunPlan { run, owner_epoch: 1, task, name: plan.name.clone(), plan: plan.to_json(), bundle };
        self.hostile.send(&ToClient::Plan(announced));
    }

    #[track_caller]
    fn start(&mut self, run: RunId, task: TaskId, round: u32) -> Result<(), Decline> {
        let address = Address { task, run, round, attempt: 1 };
        let codec = CodecId { family: 1, parameter: 0 };
        let base = ModelRef { version: 0, digest: Digest([run.0.to_le_bytes()[0]; 32]), length: 2_600, codec };
        let start =
            RoundStart { address, kind: RoundKind::Train, base, deadline_ms: 600_000, weight_max: 1, clip: None };
        self.hostile.send(&ToClient::RoundStart(start));
        loop {
            match self.hostile.next() {
                ToAggregator::Accept(accepted) if accepted == address => return Ok(()),
                ToAggregator::Decline(declined, reason) if declined == address => return Err(reason),
                // The model of an accepted round, which never comes.
                ToAggregator::Fetch(_) => {}
                other => panic!("expected an answer to {address}, got {other:?}"),
            }
        }
    }
}

#[test]
fn only_a_plan_that_publishers_signed_is_trained_and_each_refusal_has_its_reason() {
    let mut scene = Scene::connected(401, "");
    let (good, other) = (plan("0.25"), plan("0.75"));
    let untrusted = |reason| Err(Decline::Untrusted(reason));
    assert_eq!(scene.round(1, &good, Vec::new()), untrusted(Distrust::Unsigned));

    let weak = scene.publisher.plan(3, &good.to_json(), &[20]);
    let documents = bundle(&[&scene.publisher.current(1, &weak), &weak]);
    assert_eq!(scene.round(2, &good, documents), untrusted(Distrust::TooFewSignatures));
    let status = until("the reason in the status", PATIENCE, || {
        scene.status()?.trust.filter(|trust| trust.plans.contains_key(TASK))
    });
    assert!(status.plans[TASK].contains("1 of the 2 signatures"), "{:?}", status.plans);

    let signed = scene.publisher.plan(3, &good.to_json(), ENOUGH);
    let documents = bundle(&[&scene.publisher.current(2, &signed), &signed]);
    // The statement of one plan in front of another one: the same task, the same length.
    assert_eq!(scene.round(3, &other, documents.clone()), untrusted(Distrust::DigestMismatch));
    assert_eq!(scene.round(4, &good, documents.clone()), Ok(()));
    // What a device holds needs no second word, and goes on over a restart of its aggregator.
    assert_eq!(scene.round(5, &good, Vec::new()), Ok(()));

    let older = scene.publisher.plan(2, &other.to_json(), ENOUGH);
    let documents = bundle(&[&scene.publisher.current(3, &older), &older]);
    assert_eq!(scene.round(6, &other, documents), untrusted(Distrust::Rollback));
    let release = scene.publisher.release(9, &other.to_json(), ENOUGH);
    let documents = bundle(&[&scene.publisher.current(4, &release), &release]);
    assert_eq!(scene.round(7, &other, documents), untrusted(Distrust::Malformed));
}

#[test]
fn a_plan_that_a_newer_one_replaces_is_trained_no_more_in_the_same_run() {
    let mut scene = Scene::connected(402, "");
    let (first, second) = (plan("0.25"), plan("0.75"));
    let one = scene.publisher.plan(1, &first.to_json(), ENOUGH);
    assert_eq!(scene.round(1, &first, bundle(&[&scene.publisher.current(1, &one), &one])), Ok(()));
    let two = scene.publisher.plan(2, &second.to_json(), ENOUGH);
    assert_eq!(scene.round(2, &second, bundle(&[&scene.publisher.current(2, &two), &two])), Ok(()));
    let task = TaskId(first.id());
    assert_eq!(scene.start(RunId(1), task, 2), Err(Decline::Untrusted(Distrust::NotHeld)));
}

#[test]
fn a_frozen_device_trains_on_unless_its_owner_wants_it_to_stop() {
    for (seed, more, expected) in
        [(403, "", Ok(())), (404, "on_expiry = \"stop\"", Err(Decline::Untrusted(Distrust::Expired)))]
    {
        let mut scene = Scene::connected(seed, more);
        let plan = plan("0.25");
        let signed = scene.publisher.plan(1, &plan.to_json(), ENOUGH);
        let current = scene.publisher.current_for(1, 5, 1, &signed);
        assert_eq!(scene.round(1, &plan, bundle(&[&current, &signed])), Ok(()));
        until("the freeze in the status", PATIENCE, || scene.status()?.trust.filter(|trust| trust.expired));
        assert_eq!(scene.start(RunId(1), TaskId(plan.id()), 2), expected);
        // Something fresh ends it, in the same run.
        let current = scene.publisher.current_for(2, DAY_S, 1, &signed);
        scene.announce(1, &plan, bundle(&[&current, &signed]));
        assert_eq!(scene.start(RunId(1), TaskId(plan.id()), 3), Ok(()));
    }
}
